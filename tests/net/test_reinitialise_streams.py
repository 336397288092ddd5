"""Listening streams of lost sessions: they end in order, and begin anew elsewhere
(docs/adr/0017-lost-sessions-are-initialised-anew.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.core.model import OnLost
from gateway.data import listening
from tests.net.anew import Anew, at, call, carrying
from tests.net.replies import answer, get
from tests.net.rig import Rig
from tests.net.wire import Wire

STREAM = "Accept: text/event-stream"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: x\n\n\r\n"


@pytest.fixture
async def anew(rig: Rig) -> AsyncIterator[Anew]:
    async with carrying(rig) as one:
        yield one


async def listening_to(anew: Anew) -> tuple[str, Wire, Wire]:
    """A session at i-1, its client's end of a stream, and the instance's; and i-2, where it may begin anew."""
    rig = anew.rig
    one = await rig.instance("i-1")
    session = f"Mcp-Session-Id: {rig.seal().decode()}"
    client = await rig.client()
    client.send(get("/mcp", session, STREAM))
    wire, _ = await one.request()
    wire.send(HEAD + EVENT)
    await client.head()
    assert await client.chunk() == b"data: x\n\n"
    return session, client, wire


async def ended(client: Wire) -> bool:
    """Whether the stream ends in order, and its connection can be used again."""
    return await client.exactly(5) == b"0\r\n\r\n"


async def test_a_stream_ends_in_order_when_its_session_is_lost(rig: Rig, anew: Anew) -> None:
    _, client, wire = await listening_to(anew)
    rig.forget("i-1")
    assert await ended(client)
    # Nothing holds the old instance up.
    await wire.is_cut()
    assert not rig.gateway.loads.of("tools", "i-1").streams
    other = await rig.instance("i-2")
    other.answers(answer(b"ok"))
    client.send(get("/"))
    assert (await client.answer()).body == b"ok"


async def test_a_stream_within_an_event_ends_behind_it(rig: Rig, anew: Anew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "AGAIN_S", 0.01)
    _, client, wire = await listening_to(anew)
    wire.send(b"8\r\ndata: y\n\r\n")
    assert await client.chunk() == b"data: y\n"
    for _ in range(3):
        rig.forget("i-1")
    assert len(rig.gateway.leaving) == 1
    wire.send(b"1\r\n\n\r\n")
    assert await client.chunk() == b"\n"
    wire.send(EVENT)
    assert await client.chunk() == b"data: x\n\n"
    assert await ended(client)
    assert not rig.gateway.leaving


async def test_a_stream_that_begins_too_late_ends_at_once(rig: Rig, anew: Anew) -> None:
    one = await rig.instance("i-1")
    client = await rig.client()
    client.send(get("/mcp", f"Mcp-Session-Id: {rig.seal().decode()}", STREAM))
    wire, _ = await one.request()
    rig.forget("i-1")
    wire.send(HEAD)
    assert (await client.head())[0].startswith(b"HTTP/1.1 200")
    assert await ended(client)
    await wire.is_cut()


@pytest.mark.parametrize("minor", [1, 0])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_stream_ends_in_order_when_its_instance_dies(rig: Rig, anew: Anew, how: str, minor: int) -> None:
    """Its client asks again, and is told what has become of the session."""
    one = await rig.instance("i-1")
    client = await rig.client()
    raw = get("/mcp", f"Mcp-Session-Id: {rig.seal().decode()}", STREAM)
    client.send(raw.replace(b"HTTP/1.1", b"HTTP/1.%d" % minor))
    wire, _ = await one.request()
    wire.send(HEAD + EVENT)
    await client.head()
    if minor:
        assert await client.chunk() == b"data: x\n\n"
    else:
        assert await client.exactly(9) == b"data: x\n\n"
    getattr(wire, how)()
    assert await ended(client) if minor else not await client.is_cut()
    assert rig.gateway.counters.outcomes["tools", "instance-failed"] == 1


async def test_within_an_event_it_is_cut(rig: Rig, anew: Anew) -> None:
    _, client, wire = await listening_to(anew)
    wire.send(b"8\r\ndata: y\n\r\n")
    assert await client.chunk() == b"data: y\n"
    wire.close()
    assert await client.rest() == b""


@pytest.mark.parametrize("what", ["another app", "a call", "no stream", "no session"])
async def test_nothing_else_ends_so(rig: Rig, anew: Anew, what: str) -> None:
    if what == "another app":
        anew.app(on_lost=OnLost.NOT_FOUND)
    one = await rig.instance("i-1")
    session = f"Mcp-Session-Id: {rig.seal().decode()}"
    client = await rig.client()
    client.send(call(session) if what == "a call" else get("/mcp", STREAM, *[session] * (what != "no session")))
    wire, _ = await one.request()
    wire.send(HEAD.replace(b"text/event-stream", b"text/plain") if what == "no stream" else HEAD, EVENT)
    await client.head()
    assert await client.chunk() == b"data: x\n\n"
    rig.forget("i-1")
    wire.send(EVENT)
    assert await client.chunk() == b"data: x\n\n"
    wire.close()
    rest = await client.rest() if what != "a call" else await client.until(b"0\r\n\r\n")
    assert (b"PU05" in rest) == (what == "a call")
    assert rest.endswith(b"0\r\n\r\n") == (what == "a call")


async def test_a_stream_that_is_open_keeps_its_recording(rig: Rig, anew: Anew) -> None:
    await listening_to(anew)
    rig.sweep(3600)
    assert len(rig.gateway.bindings.in_use(rig.now_s)) == 1


async def test_the_first_stream_elsewhere_begins_without_an_event_id(rig: Rig, anew: Anew) -> None:
    """The id is of the old instance. What comes later is of the new one."""
    await anew.server("i-1")
    session = await anew.opened()
    other = await anew.server("i-2")
    rig.forget("i-1")
    listen = get("/mcp?a=b", session, STREAM, "Last-Event-ID: e-7", "X-Y: z")
    for _ in range(2):
        assert at(await rig.ask(listen)) == "i-2.1"
    first, second = other.raw.requests[2:]
    assert (first.one("last-event-id"), second.one("last-event-id")) == (None, "e-7")
    assert first.first == second.first == b"GET /mcp?a=b HTTP/1.1"
    assert first.one("x-y") == "z"
    await anew.server("i-3")
    rig.forget("i-2")
    assert at(await rig.ask(call(session))) == "i-3.1"
    # A request that is no GET keeps what it has.
    assert at(await rig.ask(call(session, "Last-Event-ID: e-8"))) == "i-3.1"
    assert at(await rig.ask(listen)) == "i-3.1"
