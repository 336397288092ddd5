"""Back-pressure both ways: whoever is slow slows the other end down, and the gateway's memory stays where it was."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.core.problems import Code, Problem
from gateway.data.edge import WRITE_HIGH_BYTES, Edge
from gateway.data.intake import HELD_BYTES, PEEK_BYTES
from gateway.data.upstream import Upstream
from tests.net.rig import RawInstance, Rig, until
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SOCKET_BYTES = 65536
READ_BYTES = 262_144
"""uvloop reads up to this much at once, so that much may come on top of any mark."""
LONG = 12_000_000
"""Far more than what the gateway may keep and the kernel's buffers take."""


def edge_of(rig: Rig) -> Edge:
    return next(iter(rig.gateway.edges))


def upstream_of(rig: Rig) -> Upstream:
    exchange = edge_of(rig).exchange
    assert exchange is not None
    upstream = exchange.attempts.upstream
    assert upstream is not None
    return upstream


def chunked(length: int) -> bytes:
    return b"".join([b"4000\r\n" + b"x" * 16384 + b"\r\n"] * (length // 16384)) + b"0\r\n\r\n"


async def stuck(wire: Wire) -> None:
    """Return once this end cannot send any more, and has not been able to for some turns of the loop."""
    before, turns = -1, 0
    while turns < 20:
        await asyncio.sleep(0.002)  # noqa: TID251 - that nothing moves is announced by nobody
        turns = turns + 1 if wire.unsent == before else 0
        before = wire.unsent
    assert before > 0, "everything was taken"


async def asked(rig: Rig, instance: RawInstance, raw: bytes = GET) -> tuple[Wire, Wire]:
    client = await rig.client(receive_bytes=SOCKET_BYTES)
    client.send(raw)
    wire, _ = await instance.request()
    sock = edge_of(rig).transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    return client, wire


# --- a slow client ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["length", "chunks", "until close", "events"])
async def test_a_client_that_does_not_read_slows_its_instance_down(rig: Rig, kind: str) -> None:
    instance = await rig.instance()
    client, wire = await asked(rig, instance)
    client.pause()
    match kind:
        case "length":
            head, body = b"Content-Length: %d\r\n" % LONG, b"x" * LONG
        case "chunks":
            head, body = b"Transfer-Encoding: chunked\r\n", chunked(LONG)
        case "until close":
            head, body = b"", b"x" * LONG
        case _:
            head, body = b"Transfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n", chunked(LONG)
    wire.send(b"HTTP/1.1 200 OK\r\n", head, b"\r\n", body)
    await stuck(wire)
    edge = edge_of(rig)
    assert edge.write_paused_s
    assert edge.transport.get_write_buffer_size() <= WRITE_HIGH_BYTES + READ_BYTES
    if kind == "until close":
        wire.close()
    client.resume()
    answer = await client.answer()
    assert len(answer.body) == (LONG if kind in ("length", "until close") else LONG // 16384 * 16384)


async def test_a_slow_client_is_noticed_when_it_leaves(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await asked(rig, instance)
    client.pause()
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(LONG))
    await stuck(wire)
    client.reset()
    assert await wire.is_cut()


async def test_other_clients_are_not_slowed_down(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await asked(rig, instance)
    client.pause()
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(LONG))
    await stuck(wire)
    instance.answers(OK)
    assert (await rig.ask(GET)).body == b"ok"
    client.reset()


async def test_a_connection_paused_for_a_slow_client_serves_the_next_one(rig: Rig) -> None:
    """The answer was all read when the client fell behind: nothing but the pool would ever unpause it."""
    instance = await rig.instance()
    client, wire = await asked(rig, instance)
    client.pause()
    edge = edge_of(rig)
    body = b"x" * 100_000
    sent = 0
    while not edge.write_paused_s:
        # Answer after answer to the same client, each whole, until one of them is too much.
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", body)
        sent += 1
        await until(lambda: rig.gateway.pool.idle_count() == 1, "the end of the answer")
        if not edge.write_paused_s:
            client.send(GET)
            await wire.request()
    # The upstream connection is used by somebody else, at once.
    other = await rig.client()
    other.send(GET)
    await wire.request()
    wire.send(OK)
    assert (await other.answer()).body == b"ok"
    assert instance.accepted == 1
    client.resume()
    for _ in range(sent):
        assert len((await client.answer()).body) == 100_000


async def test_the_next_answer_to_a_client_that_is_still_behind_waits(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await asked(rig, instance)
    client.pause()
    edge = edge_of(rig)
    long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG
    # Behind by the end of one answer, in the middle of the next.
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n", b"x" * 400_000)
    await until(lambda: rig.gateway.pool.idle_count() == 1, "the end of the answer")
    assert edge.write_paused_s
    client.send(GET)
    await wire.request()
    wire.send(long, b"y" * LONG)
    await stuck(wire)
    assert edge.transport.get_write_buffer_size() <= WRITE_HIGH_BYTES + 400_000 + READ_BYTES
    client.resume()
    assert (await client.answer()).body == b"x" * 400_000
    assert (await client.answer()).body == b"y" * LONG


async def test_pipelined_answers_to_a_client_that_does_not_read(rig: Rig) -> None:
    """The client falls behind in one answer; the next ones are not fetched into the gateway's memory."""
    instance = await rig.instance()
    instance.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
    client = await rig.client(receive_bytes=SOCKET_BYTES)
    client.pause()
    client.send(*([GET] * 100))
    edge = edge_of(rig) if rig.gateway.edges else None
    await until(lambda: any(one.write_paused_s for one in rig.gateway.edges), "the client's falling behind")
    edge = edge or edge_of(rig)
    for _ in range(50):
        await asyncio.sleep(0.002)  # noqa: TID251 - that nothing more comes is announced by nobody
    assert edge.transport.get_write_buffer_size() <= WRITE_HIGH_BYTES + READ_BYTES + 200_000
    client.resume()
    for _ in range(100):
        assert len((await client.answer()).body) == 200_000


# --- a slow instance -------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("when", ["at once", "after the head"])
async def test_an_instance_that_does_not_read_slows_its_client_down(rig: Rig, framing: str, when: str) -> None:
    """Also when so much came before the connection was there that it is full from the first byte."""
    instance = await rig.instance()
    client = await rig.client()
    body = b"x" * LONG if framing == "length" else chunked(LONG)
    head = b"Content-Length: %d\r\n" % LONG if framing == "length" else b"Transfer-Encoding: chunked\r\n"
    client.send(b"POST / HTTP/1.1\r\n", HOST, head, b"\r\n", body if when == "at once" else b"")
    wire = await instance.accept()
    wire.pause()
    if when != "at once":
        await until(lambda: edge_of(rig).exchange is not None, "the exchange")
        client.send(body)
    await stuck(client)
    assert upstream_of(rig).transport.get_write_buffer_size() <= WRITE_HIGH_BYTES + READ_BYTES + HELD_BYTES
    exchange = edge_of(rig).exchange
    assert exchange is not None
    assert exchange.body.held is None
    wire.resume()
    request = await wire.request()
    assert request.raw == body
    wire.send(OK)
    assert (await client.answer()).body == b"ok"


async def test_the_first_bytes_of_a_long_body_are_kept_within_bounds(rig: Rig) -> None:
    """While its instance is not there yet: as much as may be sent later, and what was read on top."""
    rig.asleep("i-1")
    client = await rig.client()
    client.send(b"POST / HTTP/1.1\r\n", HOST, b"Content-Length: %d\r\n\r\n" % LONG, b"x" * LONG)
    _, outcome = await rig.waker.asked.get()
    await stuck(client)
    exchange = edge_of(rig).exchange
    assert exchange is not None
    assert exchange.body.size <= HELD_BYTES + READ_BYTES
    outcome.set_result(Problem(Code.PM03, "it did not wake"))
    assert (await client.answer()).status == 503


async def test_a_body_that_the_gateway_reads_is_kept_within_bounds(rig: Rig) -> None:
    rig.asleep("i-1")
    client = await rig.client()
    head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % LONG
    client.send(b"POST / HTTP/1.1\r\n", HOST, head, b"x" * LONG)
    _, outcome = await rig.waker.asked.get()
    await stuck(client)
    exchange = edge_of(rig).exchange
    assert exchange is not None
    assert exchange.body.size <= PEEK_BYTES + 2 * READ_BYTES
    outcome.set_result(Problem(Code.PM03, "it did not wake"))
    assert (await client.answer()).status == 503


# --- a tunnel --------------------------------------------------------------------------

UPGRADE = b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("slow", ["client", "instance"])
async def test_a_tunnel_passes_slowness_on(rig: Rig, slow: str) -> None:
    instance = await rig.instance()
    client, wire = await asked(rig, instance, UPGRADE)
    upstream = upstream_of(rig).transport
    edge = edge_of(rig).transport
    wire.send(SWITCH)
    assert (await client.answer()).status == 101
    reader, writer = (client, wire) if slow == "client" else (wire, client)
    reader.pause()
    # The kernel's buffers take their share three times over.
    writer.send(b"x" * 3 * LONG)
    await stuck(writer)
    for transport in (edge, upstream):
        assert transport.get_write_buffer_size() <= WRITE_HIGH_BYTES + READ_BYTES
    reader.resume()
    assert await reader.exactly(3 * LONG) == b"x" * 3 * LONG
    reader.send(b"pong")
    assert await writer.exactly(4) == b"pong"
    wire.close()
    assert not await client.is_cut()
