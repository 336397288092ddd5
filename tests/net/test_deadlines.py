"""Deadlines, one per phase: who is slow is cut, by name where an answer can still be given; who is waited for is not.

The clock stands still but for `sweep`, so that no test waits for time to pass.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.core.model import Address, Instance
from gateway.core.problems import Code, Problem
from gateway.data.edge import LINGER_S
from tests.net.rig import Rig, until
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD_S, BODY_S, WRITE_S, IDLE_S = 10.0, 30.0, 60.0, 75.0
"""The defaults of `limits`."""


async def timed_out(client: Wire) -> None:
    """The client is told, and its connection ended."""
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error"), answer.one("connection")) == (408, "PB11", "close")
    assert await client.rest() == b""


async def connected(rig: Rig, count: int = 1) -> None:
    await until(lambda: len(rig.gateway.edges) == count, "the connection")


# --- heads -----------------------------------------------------------------------------


@pytest.mark.parametrize("part", [b"G", GET[:20], GET[:-2], b"\r\nGET"])
async def test_a_head_that_does_not_end_is_cut(rig: Rig, part: bytes) -> None:
    client = await rig.client()
    await client.pieces(part)
    await until(lambda: bool([one for one in rig.gateway.edges if one.buffer]), "the part")
    rig.sweep(HEAD_S - 1)
    rig.sweep(2)
    await timed_out(client)


async def test_a_head_that_drips_gets_no_more_time(rig: Rig) -> None:
    client = await rig.client()
    for at in range(5):
        await client.pieces(GET[at : at + 1])
        await until(lambda: any(len(one.buffer) > at for one in rig.gateway.edges), "the byte")  # noqa: B023 - awaited here
        rig.sweep(HEAD_S / 5 + 0.1)
    await timed_out(client)


async def test_a_pipelined_head_gets_its_time_from_its_turn_on(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET, GET[:20])
    wire, _ = await instance.request()
    rig.sweep(3600)
    wire.send(OK)
    await client.answer()
    rig.sweep(HEAD_S - 1)
    client.send(GET[20:])
    wire, _ = await instance.request()
    wire.send(OK)
    assert (await client.answer()).status == 200


async def test_an_idle_connection_is_closed_without_a_word(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    silent, idle = await rig.client(), await rig.client()
    await connected(rig, 2)
    rig.sweep(IDLE_S - 1)
    idle.send(GET)
    assert (await idle.answer()).status == 200
    rig.sweep(2)
    assert await silent.rest() == b""
    rig.sweep(IDLE_S - 4)
    idle.send(GET)
    assert (await idle.answer()).status == 200
    rig.sweep(IDLE_S + 1)
    assert await idle.rest() == b""


# --- bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize("media", [b"", b"Content-Type: application/json\r\n"])
@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
@pytest.mark.parametrize("part", [b"", b"5\r\nhel"])
async def test_a_body_that_stops_is_cut(rig: Rig, media: bytes, framing: bytes, part: bytes) -> None:
    """Before its first byte or after, on its way to an instance or in the gateway's own hands."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, media, framing, part)
    wire: Wire | None = None
    if not media:
        wire = await instance.accept()
        await wire.head()
        await wire.exactly(len(part))
    await until(lambda: any(one.exchange is not None for one in rig.gateway.edges), "the exchange")
    rig.sweep(BODY_S - 1)
    rig.sweep(2)
    await timed_out(client)
    if wire is not None:
        await wire.is_cut()
    else:
        assert instance.untouched


async def test_a_body_that_goes_on_slowly_is_not(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 5\r\n\r\n")
    wire = await instance.accept()
    await wire.head()
    for byte in (b"h", b"e", b"l", b"l", b"o"):
        rig.sweep(BODY_S - 1)
        client.send(byte)
        assert await wire.exactly(1) == byte
    rig.sweep(3600)
    wire.send(OK)
    assert (await client.answer()).status == 200


async def test_a_body_that_the_gateway_itself_holds_up_is_not_late(rig: Rig) -> None:
    """Its instance takes longer to wake than a body may pause."""
    rig.app(wake_timeout_s=600)
    rig.asleep("i-1")
    client = await rig.client()
    body = b"x" * 3_000_000
    client.send(POST, b"Content-Length: 3000000\r\n\r\n", body)
    _, outcome = await rig.waker.asked.get()
    await until(lambda: any(one._read_paused for one in rig.gateway.edges), "the pause")
    for _ in range(5):
        rig.sweep(BODY_S + 1)
    instance = await rig.instance("i-1")
    outcome.set_result(rig.known())
    wire, request = await instance.request()
    assert request.body == body
    wire.send(OK)
    assert (await client.answer()).status == 200


async def test_a_body_that_its_instance_does_not_take_is_not_late(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    body = b"x" * 16_000_000
    client.send(POST, b"Content-Length: 16000000\r\n\r\n", body)
    wire = await instance.accept()
    wire.pause()
    await until(lambda: any(one._read_paused for one in rig.gateway.edges), "the pause")
    for _ in range(5):
        rig.sweep(BODY_S + 1)
    wire.resume()
    assert (await wire.request()).body == body
    wire.send(OK)
    assert (await client.answer()).status == 200


async def test_a_client_that_waits_to_be_asked_for_its_body_is_not_late(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    wire = await instance.accept()
    await wire.head()
    rig.sweep(BODY_S + 1)
    wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.answer()).status == 100
    rig.sweep(BODY_S - 1)
    client.send(b"h")
    assert await wire.exactly(1) == b"h"
    rig.sweep(BODY_S + 1)
    await timed_out(client)


@pytest.mark.parametrize("media", [b"", b"Content-Type: application/json\r\n"])
async def test_a_client_that_was_asked_and_does_not_send_is_late(rig: Rig, media: bytes) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, media, b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    if not media:
        wire = await instance.accept()
        await wire.head()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.answer()).status == 100
    rig.sweep(BODY_S + 1)
    await timed_out(client)


async def test_a_body_that_stops_behind_its_answer_is_cut(rig: Rig) -> None:
    """The head of the answer has gone out: all that is left is a visible end."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 10\r\n\r\nhello")
    wire = await instance.accept()
    await wire.head()
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    await client.head()
    assert await client.chunk() == b"hi"
    rig.sweep(BODY_S + 1)
    assert await client.rest() == b""
    await wire.is_cut()


async def test_a_body_that_stops_while_its_instance_wakes_is_cut(rig: Rig) -> None:
    rig.asleep("i-1")
    client = await rig.client()
    client.send(POST, b"Content-Length: 10\r\n\r\nhello")
    _, outcome = await rig.waker.asked.get()
    rig.sweep(BODY_S + 1)
    await timed_out(client)
    assert outcome.cancelled()


# --- answers ---------------------------------------------------------------------------


async def test_an_instance_may_take_its_time(rig: Rig) -> None:
    """MCP calls take minutes, and streams days."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 2\r\n\r\nhi")
    wire, _ = await instance.request()
    rig.sweep(86_400)
    wire.send(OK[:10])
    rig.sweep(86_400)
    wire.send(OK[10:])
    assert (await client.answer()).body == b"ok"


async def unread(rig: Rig, raw: bytes, answer: bytes, socket_bytes: int = 65536) -> tuple[Wire, Wire]:
    """A client that does not read, so that part of the answer waits in the gateway; and its instance."""
    instance = await rig.instance()
    client = await rig.client(receive_bytes=socket_bytes)
    client.pause()
    client.send(raw)
    wire, _ = await instance.request()
    edge = next(iter(rig.gateway.edges))
    edge.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_bytes)
    wire.send(answer)
    await until(lambda: edge.transport.get_write_buffer_size() > 0, "the client's falling behind")
    return client, wire


async def test_a_client_that_does_not_read_is_cut(rig: Rig) -> None:
    client, wire = await unread(rig, GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000)
    await until(lambda: any(one.write_paused_s for one in rig.gateway.edges), "the pause")
    rig.sweep(WRITE_S - 1)
    assert rig.gateway.edges
    rig.sweep(2)
    await wire.is_cut()
    client.resume()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.answer()
    assert rig.gateway.counters.outcomes["tools", "client-gone"] == 1


@pytest.mark.parametrize("minor", [0, 1])
async def test_a_client_that_does_not_read_the_end_is_cut(rig: Rig, minor: int) -> None:
    """The answer is complete, and what is left of it too little to pause anything."""
    raw = b"GET / HTTP/1.%d\r\n%bConnection: close\r\n\r\n" % (minor, HOST)
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nTransfer-Encoding: chunked\r\n\r\nea60\r\n" + b"x" * 60_000
    client, _ = await unread(rig, raw, answer + b"\r\n0\r\n\r\n", socket_bytes=4096)
    await until(lambda: all(one.exchange is None for one in rig.gateway.edges), "the end of the exchange")
    rig.sweep(WRITE_S - 1)
    assert rig.gateway.edges
    rig.sweep(2)
    await until(lambda: not rig.gateway.edges, "the cut")
    client.resume()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.answer()


async def test_a_client_that_reads_again_in_time_is_not_cut(rig: Rig) -> None:
    client, wire = await unread(rig, GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000)
    await until(lambda: any(one.write_paused_s for one in rig.gateway.edges), "the pause")
    rig.sweep(WRITE_S - 1)
    client.resume()
    assert len((await client.answer()).body) == 9_000_000
    rig.sweep(2)
    client.send(GET)
    await wire.request()
    wire.send(OK)
    assert (await client.answer()).body == b"ok"


@pytest.mark.parametrize("sending", [False, True])
async def test_a_refused_client_that_does_not_leave_is_cut(rig: Rig, sending: bool) -> None:
    client = await rig.client()
    client.send(b"nonsense\r\n\r\n")
    assert (await client.answer()).status == 400
    assert await client.rest() == b""
    if sending:
        client.send(b"x" * 500_000)
    rig.sweep(LINGER_S - 0.5)
    assert rig.gateway.edges
    rig.sweep(1)
    await until(lambda: not rig.gateway.edges, "the cut")


# --- connecting ------------------------------------------------------------------------


async def test_an_instance_that_does_not_accept_is_given_up(rig: Rig) -> None:
    """Its backlog is full, so that no handshake ends."""
    rig.gateway.pool._connect_timeout_s = 0.05
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = [socket.socket() for _ in range(3)]
    try:
        for filler in fillers:
            filler.setblocking(False)
            with pytest.raises(BlockingIOError):
                filler.connect(full.getsockname())
        rig.know(Instance("tools", "i-1", Address(*full.getsockname())))
        client = await rig.client()
        client.send(GET)
        answer = await client.answer()
        assert (answer.status, answer.one("moorage-error")) == (504, "PC05")
    finally:
        for sock in (full, *fillers):
            sock.close()


async def test_a_wake_that_fails_is_told(rig: Rig) -> None:
    rig.asleep("i-1")
    client = await rig.client()
    client.send(GET)
    _, outcome = await rig.waker.asked.get()
    outcome.set_result(Problem(Code.PM03, "not awake within 60 s", "tools", "i-1", 5))
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error"), answer.one("retry-after")) == (503, "PM03", "5")
