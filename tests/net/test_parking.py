"""Parked streams: the instance sleeps, the client's event stream stays."""

from __future__ import annotations

from typing import Any

from gateway.core.model import IdleStreams, State
from tests.net.rig import INCARNATION, RawInstance, Rig, until
from tests.net.wire import Message, Wire

HOST = b"Host: tools.localhost\r\n"
EVENTS = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nMcp-Session-Id: own-id\r\n" + EVENTS + b"\r\n"
SLEEPING = {("tools", "i-1")}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def listening(rig: Rig, *events: bytes, **settings: Any) -> tuple[Wire, Wire, RawInstance]:
    """A client that listens for its session, and its instance's end of the stream, with these events sent."""
    rig.app(idle_streams=IdleStreams.PARK, **settings)
    rig.catalog.subscribe(rig.gateway.lot_changed)
    instance = await rig.instance()
    client = await rig.client()
    client.send(
        b"GET /mcp HTTP/1.1\r\n", HOST, b"Accept: text/event-stream\r\nMcp-Session-Id: ", rig.seal(), b"\r\n\r\n"
    )
    wire, request = await instance.request()
    assert request.one("mcp-session-id") == "own-id"
    wire.send(STREAM, *map(chunk, events))
    assert b"Mcp-Session-Id: " + rig.seal() in (await client.head())[1]
    for event in events:
        assert await read(client) == event
    return client, wire, instance


async def read(client: Wire) -> bytes:
    size = int((await client.until(b"\r\n"))[:-2], 16)
    return (await client.exactly(size + 2))[:-2]


def rest(rig: Rig) -> None:
    """The instance is prepared to sleep: what its gateways do then."""
    rig.change(state=State.SUSPENDING, address=None, sleep="ab12")
    for relay in list(rig.gateway.streams):
        relay.rest(SLEEPING)


async def parked(rig: Rig, wire: Wire) -> None:
    rest(rig)
    assert await wire.rest() == b""
    assert len(rig.gateway.lot) == 1
    rig.change(state=State.SUSPENDED, sleep="")


async def woken(rig: Rig) -> tuple[Wire, Message]:
    """The instance runs again, and is asked for its stream."""
    again = await rig.instance()
    return await again.request()


async def test_a_parked_stream_keeps_its_client_and_goes_on_when_the_instance_does(rig: Rig) -> None:
    client, wire, _ = await listening(rig, b"id: 7\ndata: first\n\n")
    await parked(rig, wire)
    load = dict(rig.gateway.loads.items())["tools", "i-1"]
    assert (load.streams, load.parkable) == (0, 0)
    for _ in range(16):
        rig.sweep()
    assert await read(client) == b": keepalive\n\n"
    wire, request = await woken(rig)
    assert request.one("last-event-id") == "7"
    assert request.one("mcp-session-id") == "own-id"
    wire.send(STREAM, chunk(b"id: 8\ndata: second\n\n"))
    assert await read(client) == b"id: 8\ndata: second\n\n"
    assert len(rig.gateway.lot) == 0
    assert (load.streams, load.parkable) == (1, 1)


async def test_it_can_be_parked_again_and_again(rig: Rig) -> None:
    client, wire, _ = await listening(rig, b"data: 0\n\n")
    for number in range(1, 4):
        await parked(rig, wire)
        wire, request = await woken(rig)
        assert request.one("last-event-id") == (str(number - 1) if number > 1 else None)
        wire.send(STREAM, chunk(b"id: %d\ndata: x\n\n" % number))
        assert await read(client) == b"id: %d\ndata: x\n\n" % number
    assert len(rig.gateway.streams) == 1


async def test_a_stream_in_the_middle_of_an_event_is_not_parked(rig: Rig) -> None:
    _, wire, _ = await listening(rig)
    wire.send(chunk(b"data: half"))
    await until(lambda: any(relay._last for relay in rig.gateway.streams), "half an event came")
    rest(rig)
    assert len(rig.gateway.lot) == 0
    assert len(rig.gateway.streams) == 1


async def test_a_stream_whose_session_is_lost_is_ended(rig: Rig) -> None:
    client, wire, _ = await listening(rig)
    await parked(rig, wire)
    rig.change(state=State.STOPPED)
    assert not (await client.rest()).endswith(b"0\r\n\r\n")
    assert len(rig.gateway.lot) == 0


async def test_sessions_that_survive_a_stop_are_waited_for(rig: Rig) -> None:
    client, wire, _ = await listening(rig, sessions_survive_stop=True)
    await parked(rig, wire)
    rig.change(state=State.STOPPED)
    assert len(rig.gateway.lot) == 1
    again = await rig.instance(incarnation=INCARNATION + "x")
    wire, _ = await again.request()
    wire.send(STREAM, chunk(b"data: x\n\n"))
    assert await read(client) == b"data: x\n\n"


async def test_an_instance_that_has_no_stream_any_more_ends_it(rig: Rig) -> None:
    client, wire, _ = await listening(rig)
    await parked(rig, wire)
    wire, _ = await woken(rig)
    wire.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    await client.until(b"0\r\n\r\n")


async def test_a_client_that_leaves_its_parked_stream_leaves_nothing(rig: Rig) -> None:
    client, wire, _ = await listening(rig)
    await parked(rig, wire)
    await client.aclose()
    await until(lambda: not len(rig.gateway.lot), "the stream is no longer parked")
    await rig.settled()


async def test_streams_of_other_instances_and_apps_stay_as_they_are(rig: Rig) -> None:
    rig.app(idle_streams=IdleStreams.COUNT)
    instance = await rig.instance()
    client = await rig.client()
    client.send(
        b"GET /mcp HTTP/1.1\r\n", HOST, b"Accept: text/event-stream\r\nMcp-Session-Id: ", rig.seal(), b"\r\n\r\n"
    )
    wire, _ = await instance.request()
    wire.send(STREAM)
    await client.head()
    rest(rig)
    assert len(rig.gateway.lot) == 0
    wire.send(chunk(b"data: x\n\n"))
    assert await read(client) == b"data: x\n\n"


async def test_the_end_of_the_gateway_ends_parked_streams_in_order(rig: Rig) -> None:
    client, wire, _ = await listening(rig)
    await parked(rig, wire)
    rig.gateway.drain()
    assert (await client.rest()).endswith(b"0\r\n\r\n")
