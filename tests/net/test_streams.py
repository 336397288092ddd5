"""Event streams on their way: not buffered, not timed out, kept alive by comments between events and nowhere else."""

from __future__ import annotations

import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.framing import ChunkedBody
from gateway.core.head import CHUNKED
from gateway.data.endings import COMMENT, COMMENT_CHUNK, between_events
from gateway.data.relay import QUIET_SWEEPS
from tests.core.streams import STREAMS, read_whole
from tests.net.rig import RawInstance, Rig
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
LISTEN = b"GET /mcp HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: 1\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def listening(
    rig: Rig, instance: RawInstance, head: bytes = STREAM, minor: int = 1, receive_bytes: int | None = None
) -> tuple[Wire, Wire]:
    """A session's stream, both ends of it."""
    client = await rig.client(receive_bytes=receive_bytes)
    client.send(LISTEN.replace(b"HTTP/1.1", b"HTTP/1.%d" % minor), b"Mcp-Session-Id: ", rig.seal(), b"\r\n\r\n")
    wire, _ = await instance.request()
    wire.send(head)
    await client.head()
    return client, wire


def quiet(rig: Rig, sweeps: int = QUIET_SWEEPS) -> None:
    for _ in range(sweeps):
        rig.sweep()


# --- keep-alive comments -----------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", chunk(EVENT), chunk(EVENT.replace(b"\n", b"\r\n")), chunk(b"data: 1\r\r")])
async def test_a_silent_stream_is_kept_alive(rig: Rig, before: bytes) -> None:
    """Silent from the beginning, as a stream that only listens is, or between two events."""
    instance = await rig.instance()
    client, wire = await listening(rig, instance)
    if before:
        wire.send(before)
        assert await client.exactly(len(before)) == before
    for _ in range(3):
        quiet(rig, QUIET_SWEEPS - 1)
        rig.sweep()
        assert await client.chunk() == COMMENT
    wire.send(chunk(EVENT), b"0\r\n\r\n")
    assert await client.exactly(len(chunk(EVENT)) + 5) == chunk(EVENT) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(chunk(b"data: 1\n"), id="in an event"),
        pytest.param(chunk(b"data: 1"), id="in a line"),
        pytest.param(chunk(b"data: 1") + chunk(b"\n"), id="a line end in a chunk of its own"),
        pytest.param(chunk(b"data: 1") + b"001;a=b\r\n\n\r\n", id="the same, with zeroes and an extension"),
        pytest.param(chunk(b"data: 1") + chunk(b"\r\n"), id="CRLF in a chunk of its own"),
        pytest.param(chunk(EVENT)[:-1], id="before a chunk's end"),
        pytest.param(chunk(EVENT) + b"3", id="in a size line"),
        pytest.param(b"10\r\ndata: 1\n\n", id="in a chunk, though between events"),
    ],
)
async def test_no_comment_goes_where_it_would_do_harm(rig: Rig, said: bytes) -> None:
    instance = await rig.instance()
    client, wire = await listening(rig, instance)
    wire.send(said)
    assert await client.exactly(len(said)) == said
    quiet(rig, 5 * QUIET_SWEEPS)
    wire.close()
    assert await client.rest() == b""


async def test_a_stream_that_speaks_gets_no_comments(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await listening(rig, instance)
    for _ in range(3):
        quiet(rig, QUIET_SWEEPS - 1)
        wire.send(chunk(EVENT))
        assert await client.chunk() == EVENT


async def test_what_is_no_event_stream_gets_no_comments(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await listening(rig, instance, STREAM.replace(b"event-stream", b"plain"))
    quiet(rig, 5 * QUIET_SWEEPS)
    wire.send(b"0\r\n\r\n")
    assert await client.exactly(5) == b"0\r\n\r\n"


async def test_a_slow_reader_gets_no_comments_on_top(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await listening(rig, instance, receive_bytes=65536)
    client.pause()
    edge = next(iter(rig.gateway.edges))
    edge.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    event = b"data: " + b"x" * 30_000 + b"\n\n"
    sent = 0
    while not edge.write_paused_s:
        # Whole events, so that a comment would fit in.
        await wire.pieces(chunk(event))
        sent += 1
    waiting = edge.transport.get_write_buffer_size()
    quiet(rig, 3 * QUIET_SWEEPS)
    assert edge.transport.get_write_buffer_size() == waiting
    client.resume()
    for _ in range(sent):
        assert await client.chunk() == event


@pytest.mark.parametrize("minor", [0, 1])
async def test_a_stream_of_unknown_length_is_kept_alive(rig: Rig, minor: int) -> None:
    instance = await rig.instance()
    head = STREAM.replace(b"Transfer-Encoding: chunked\r\n", b"")
    client, wire = await listening(rig, instance, head, minor)
    comment = COMMENT_CHUNK if minor else COMMENT
    quiet(rig)
    assert await client.exactly(len(comment)) == comment
    wire.send(b"data: half")
    await client.until(b"half\r\n" if minor else b"half")
    quiet(rig, 3 * QUIET_SWEEPS)
    wire.send(b"\n\n")
    await client.until(b"\n\n\r\n" if minor else b"\n\n")
    wire.close()
    assert await client.exactly(5 if minor else 0) == (b"0\r\n\r\n" if minor else b"")


CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def in_pieces(raw: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    while raw:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(raw[:size])
        raw = raw[size:]
    return pieces


@given(STREAMS, CUTS, CUTS)
@example(b"data: 1\ndata: 2\n\n", [7, 1, 7, 1, 1], [12, 6])
@example(b"data: 1\r\ndata: 2\r\n\r\n", [7, 2, 7, 2, 2], [12, 7])
def test_a_comment_changes_no_event_wherever_it_goes(stream: bytes, chunks: list[int], cuts: list[int]) -> None:
    """Whatever the chunks, and wherever the bytes are cut on their way."""
    raw = b"".join(map(chunk, in_pieces(stream, chunks)))
    body = ChunkedBody()
    payload: list[bytes] = []
    for piece in in_pieces(raw, cuts):
        body.feed(piece, payload)
        # As the relay remembers it.
        if between_events(body, 0, piece if len(piece) < 256 else piece[-8:]):
            so_far = b"".join(payload)
            assert read_whole(so_far + COMMENT + stream[len(so_far) :]) == read_whole(stream)


@given(STREAMS, CUTS)
def test_nor_where_the_body_is_framed_anew(stream: bytes, cuts: list[int]) -> None:
    so_far = b""
    for piece in in_pieces(stream, cuts):
        so_far += piece
        if between_events(None, CHUNKED, piece[-8:]):
            assert read_whole(so_far + COMMENT + stream[len(so_far) :]) == read_whole(stream)


# --- passing through ---------------------------------------------------------------------


async def test_streams_pass_byte_for_byte(rig: Rig) -> None:
    instance = await rig.instance()
    said = b"".join(chunk(b": ping\n\nid: %d\r\ndata: \xff\xfe\r\rretry: 3\n\n" % number) for number in range(200))
    client, wire = await listening(rig, instance)
    wire.send(said)
    assert await client.exactly(len(said)) == said
    client.close()
    await wire.is_cut()


async def test_an_open_stream_is_load_of_another_kind(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await listening(rig, instance)
    load = rig.gateway.loads.of("tools", "i-1")
    assert (load.requests, load.streams) == (0, 1)
    assert len(rig.gateway.streams) == 1
    wire.send(b"0\r\n\r\n")
    await client.exactly(5)
    assert (load.requests, load.streams) == (0, 0)


async def test_a_stream_has_no_deadline(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await listening(rig, instance)
    rig.sweep(86_400)
    wire.send(chunk(EVENT))
    assert await client.chunk() == EVENT


# --- the gateway ends ----------------------------------------------------------------------


async def test_streams_that_listen_are_told_to_come_again(rig: Rig) -> None:
    instance = await rig.instance()
    idle, idle_wire = await listening(rig, instance)
    busy, busy_wire = await listening(rig, instance)
    busy_wire.send(chunk(b"data: ha"))
    assert await busy.chunk() == b"data: ha"
    rig.gateway.drain()
    assert await idle.rest() == b"0\r\n\r\n"
    assert await busy.rest() == b""
    await idle_wire.is_cut()
    await busy_wire.is_cut()


async def test_a_call_in_flight_may_finish_while_the_gateway_ends(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}'
    client.send(b"POST /mcp HTTP/1.1\r\n", HOST, b"Content-Type: application/json\r\nContent-Length: 46\r\n\r\n", body)
    wire, _ = await instance.request()
    wire.send(STREAM)
    await client.head()
    rig.gateway.drain()
    wire.send(chunk(EVENT), b"0\r\n\r\n")
    assert await client.rest() == chunk(EVENT) + b"0\r\n\r\n"


async def test_a_request_behind_it_finds_the_connection_closed(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\n", HOST, b"\r\n")
    wire, _ = await instance.request()
    rig.gateway.drain()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (await client.answer()).one("connection") == "close"
    assert await client.rest() == b""
