"""Bodies both ways: exact bytes, honest ends. A body that was cut never looks complete."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.model import Address
from gateway.data.upstream import Dialling
from tests.net.rig import Rig, until

HOST = b"Host: tools.localhost\r\n"
POST = b"POST /up HTTP/1.1\r\n" + HOST
GET = b"GET /down HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = b'5\r\nhello\r\n0006;a="b c"\r\n world\r\n0\r\nX-Sum: 1\r\nX-Other: \xe9\r\n\r\n'


# --- requests --------------------------------------------------------------------------


async def test_a_request_body_of_known_length(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    body = bytes(range(256)) * 4
    await rig.ask(POST + b"Content-Length: 1024\r\n\r\n" + body)
    assert (instance.requests[0].body, instance.requests[0].framing) == (body, "length")


async def test_a_request_body_in_chunks_arrives_as_it_was_sent(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    await rig.ask(POST + b"Transfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n" + CHUNKS)
    request = instance.requests[0]
    assert (request.raw, request.body) == (CHUNKS, b"hello world")
    assert request.trailers == [b"X-Sum: 1", b"X-Other: \xe9"]
    assert (request.one("transfer-encoding"), request.one("trailer")) == ("chunked", "X-Sum")


async def test_a_request_body_may_come_in_any_pieces(rig: Rig) -> None:
    instance = await rig.instance()
    raw = POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS
    client = await rig.client()
    await client.pieces(*(raw[at : at + 1] for at in range(len(raw))))
    _, request = await instance.request()
    assert request.raw == CHUNKS


async def test_a_request_body_streams(rig: Rig) -> None:
    """What came of it is sent on before the rest is there."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 10\r\n\r\n")
    wire = await instance.accept()
    await wire.head()
    for piece in (b"abc", b"defg", b"hij"):
        client.send(piece)
        assert await wire.exactly(len(piece)) == piece
    wire.send(OK)
    assert (await client.answer()).body == b"ok"


async def test_an_empty_body_is_said_to_be_one(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    await rig.ask(POST + b"Content-Length: 0\r\n\r\n")
    await rig.ask(POST + b"\r\n")
    await rig.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    framings = [(one.one("content-length"), one.raw) for one in instance.requests]
    assert framings == [("0", b""), (None, b""), (None, b"0\r\n\r\n")]


@pytest.mark.parametrize("size", [65_000, 300_000, 1_500_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_long_bodies_arrive_whole(rig: Rig, size: int, chunked: bool) -> None:
    instance = await rig.instance()
    body = bytes(size // 4) + b"abcd" * (size // 4)
    raw = body
    if chunked:
        pieces = [body[at : at + 5000] for at in range(0, len(body), 5000)]
        raw = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    framing = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % len(body)
    client = await rig.client()
    client.send(POST, framing, raw)
    wire, request = await instance.request()
    assert request.raw == raw
    wire.send(CHUNKED_OK if chunked else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), raw)
    answer = await client.answer()
    assert (answer.raw, answer.body) == (raw, body)


@pytest.mark.parametrize("media", [b"application/octet-stream", b"application/json"])
async def test_a_long_body_is_kept_while_its_instance_is_connected_to(rig: Rig, media: bytes) -> None:
    """With JSON, after the gateway has looked for a message in it as far as it looks (1 MiB)."""
    instance = await rig.instance()
    client = await rig.client()
    body = b"x" * 3_000_000
    client.send(POST, b"Content-Type: ", media, b"\r\nContent-Length: 3000000\r\n\r\n", body)
    wire, request = await instance.request()
    assert request.body == body
    wire.send(OK)
    await client.answer()


# --- Expect: 100-continue ----------------------------------------------------------------


async def test_an_expectation_is_the_instances_to_answer(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n")
    wire = await instance.accept()
    _, lines = await wire.head()
    assert b"Expect: 100-continue" in lines
    wire.send(b"HTTP/1.1 100 Go on\r\n\r\n")
    assert (await client.answer()).first == b"HTTP/1.1 100 Go on"
    client.send(b"hello")
    assert await wire.exactly(5) == b"hello"
    wire.send(OK)
    assert (await client.answer()).body == b"ok"


async def test_an_expectation_that_the_instance_refuses(rig: Rig) -> None:
    """The client may still send the body or not: the connection cannot go on."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    wire = await instance.accept()
    await wire.head()
    wire.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.one("connection")) == (401, "close")
    assert await client.rest() == b""
    assert await wire.is_cut() in (True, False)


async def test_the_gateway_asks_for_a_body_that_it_must_read_itself(rig: Rig) -> None:
    """MCP over JSON is routed by its body; the instance is not asked before the body is there."""
    instance = await rig.instance()
    client = await rig.client()
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    client.send(
        POST, b"Content-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body)
    )
    assert (await client.answer()).first == b"HTTP/1.1 100 Continue"
    assert instance.untouched
    client.send(body)
    wire, request = await instance.request()
    assert request.one("expect") is None
    assert request.body == body
    wire.send(OK)
    assert (await client.answer()).body == b"ok"


async def test_an_expectation_with_the_body_at_its_heels(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    answer = await rig.ask(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
    assert answer.status == 200
    assert instance.requests[0].one("expect") is None


async def test_a_100_that_nobody_asked_for_is_kept(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert (await rig.ask(GET)).status == 200


# --- answers ---------------------------------------------------------------------------


async def test_an_answer_in_chunks_arrives_as_it_was_sent(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(CHUNKED_OK.replace(b"\r\n\r\n", b"\r\nTrailer: X-Sum\r\n\r\n") + CHUNKS)
    answer = await rig.ask(GET)
    assert (answer.raw, answer.body) == (CHUNKS, b"hello world")
    assert answer.trailers == [b"X-Sum: 1", b"X-Other: \xe9"]
    assert answer.one("trailer") == "X-Sum"


async def test_an_answer_may_come_in_any_pieces(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + CHUNKED_OK + CHUNKS
    await wire.pieces(*(raw[at : at + 1] for at in range(len(raw))))
    assert (await client.answer()).status == 103
    assert (await client.answer()).raw == CHUNKS


async def test_an_answer_streams_and_its_head_waits_for_nothing(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    wire.send(CHUNKED_OK)
    assert (await client.head())[0] == b"HTTP/1.1 200 OK"
    for piece in (b"3\r\nabc\r\n", b"2\r\nd", b"e\r\n", b"0\r\n\r\n"):
        wire.send(piece)
        assert await client.exactly(len(piece)) == piece


async def test_an_answer_of_unknown_length_gets_chunks(rig: Rig) -> None:
    """So that its end shows, and the client's connection goes on."""
    instance = await rig.instance()
    client = await rig.client()
    for _ in range(2):
        client.send(GET)
        wire, _ = await instance.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nfirst")
        assert b"Transfer-Encoding: chunked" in (await client.head())[1]
        assert await client.chunk() == b"first"
        wire.send(b"second")
        assert await client.chunk() == b"second"
        wire.close()
        assert await client.exactly(5) == b"0\r\n\r\n"


async def test_informational_answers_go_through(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n", OK)
    hints = await client.answer()
    assert (hints.first, hints.lines) == (b"HTTP/1.1 103 Early Hints", [b"link: </a>"])
    assert (await client.answer()).first == b"HTTP/1.1 102 Processing"
    assert (await client.answer()).body == b"ok"


async def test_a_client_of_http_1_0_gets_no_informational_answers(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    assert (await rig.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200


# --- an answer before the body's end -----------------------------------------------------


async def test_an_early_answer_reaches_a_client_that_is_still_sending(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 1000000\r\n\r\n", b"x" * 1000)
    wire = await instance.accept()
    await wire.head()
    wire.send(b"HTTP/1.1 413 Too long\r\nContent-Length: 4\r\n\r\nstop")
    answer = await client.answer()
    assert (answer.status, answer.body, answer.one("connection")) == (413, b"stop", "close")
    await wire.is_cut()
    # What the client was about to send is read for a while, so that the answer is not lost to a reset.
    await client.pieces(b"x" * 200_000)
    assert await client.rest() == b""
    assert len(rig.gateway.edges) == 1


async def test_an_early_answer_may_go_on_while_the_body_does(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(POST, b"Content-Length: 6\r\n\r\nabc")
    wire = await instance.accept()
    await wire.head()
    wire.send(CHUNKED_OK, b"2\r\nhi\r\n")
    assert (await client.head())[0] == b"HTTP/1.1 200 OK"
    assert await client.chunk() == b"hi"
    client.send(b"def")
    assert await wire.exactly(6) == b"abcdef"
    wire.send(b"0\r\n\r\n")
    assert await client.rest() == b"0\r\n\r\n"


# --- cut bodies ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", id="length, no byte of it"),
        pytest.param(CHUNKED_OK, id="chunks, none of them"),
        pytest.param(CHUNKED_OK + b"5\r\nhel", id="in a chunk"),
        pytest.param(CHUNKED_OK + b"5\r\nhello", id="before a chunk's end"),
        pytest.param(CHUNKED_OK + b"5\r\nhello\r\n", id="between chunks"),
        pytest.param(CHUNKED_OK + b"5\r\nhello\r\n0\r\n", id="before the trailers' end"),
        pytest.param(CHUNKED_OK + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n", id="in the trailers"),
    ],
)
@pytest.mark.parametrize("minor", [0, 1])
async def test_a_cut_answer_does_not_look_complete(rig: Rig, answer: bytes, how: str, minor: int) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET.replace(b"HTTP/1.1", b"HTTP/1.%d" % minor))
    wire, _ = await instance.request()
    await wire.pieces(answer)
    wire.reset() if how == "reset" else wire.close()
    # A client of HTTP/1.0 that gets no length has nothing but a reset to know it by.
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError) if minor else ConnectionResetError):
        await client.answer()


@pytest.mark.parametrize("minor", [0, 1])
async def test_an_answer_until_close_is_complete_only_by_an_orderly_close(rig: Rig, minor: int) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET.replace(b"HTTP/1.1", b"HTTP/1.%d" % minor))
    wire, _ = await instance.request()
    await wire.pieces(b"HTTP/1.1 200 OK\r\n\r\nhello")
    wire.reset()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError) if minor else ConnectionResetError):
        await client.answer()


async def test_a_cut_request_does_not_look_complete(rig: Rig) -> None:
    instance = await rig.instance()
    for framing, part in ((b"Content-Length: 10", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n")):
        client = await rig.client()
        client.send(POST, framing, b"\r\n\r\n", part)
        wire = await instance.accept()
        await wire.head()
        assert await wire.exactly(len(part)) == part
        client.close()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await wire.exactly(1)


# --- who leaves ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "end"])
@pytest.mark.parametrize("when", ["before the head", "in the body", "in silence"])
async def test_a_client_that_leaves_frees_its_instance_at_once(rig: Rig, how: str, when: str) -> None:
    """MCP 2026-07-28: the disconnect is the cancellation; and a GET stream held on to is a 409 for the next one."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    if when != "before the head":
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.head()
    if when == "in the body":
        wire.send(b"5\r\nhel")
        await client.exactly(6)
    getattr(client, how)()
    await wire.is_cut()
    await until(lambda: rig.gateway.counters.outcomes["tools", "client-gone"] == 1, "the outcome")


async def test_a_client_that_leaves_while_its_instance_is_connected_to(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection was made for nothing, and is kept for the next one."""
    instance = await rig.instance()
    dials: list[tuple[Address, Dialling]] = []
    dial = rig.gateway.pool.dial
    monkeypatch.setattr(rig.gateway.pool, "dial", lambda address, asker: dials.append((address, asker)))
    client = await rig.client()
    client.send(GET)
    await until(lambda: len(dials) == 1, "the dial")
    client.reset()
    await until(lambda: rig.gateway.counters.outcomes["tools", "client-gone"] == 1, "the outcome")
    dial(*dials[0])
    await until(lambda: rig.gateway.pool.idle_count() == 1, "the connection's return")
    other = await rig.client()
    other.send(GET)
    wire, _ = await instance.request()
    wire.send(OK)
    assert (await other.answer()).body == b"ok"
    assert instance.accepted == 1
