"""Connections on both sides: kept and used again, in order, and never with a rest of another exchange in them."""

from __future__ import annotations

import asyncio

import pytest

from gateway.data.edge import AHEAD_BYTES
from gateway.data.upstream import IDLE_S
from tests.net.rig import Rig, until
from tests.net.wire import Message

HOST = b"Host: tools.localhost\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(path: str, *lines: bytes) -> bytes:
    return b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(path: str, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (path.encode(), HOST, len(body), body)


def echo(request: Message) -> bytes:
    """Target and body, so that answers tell whose they are."""
    said = request.first.split(b" ")[1] + b"=" + request.body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)


# --- kept alive ------------------------------------------------------------------------


async def test_both_connections_are_used_again(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(echo)
    client = await rig.client()
    for number in range(20):
        client.send(post(f"/{number}", b"x" * number))
        assert (await client.answer()).body == b"/%d=" % number + b"x" * number
    assert instance.accepted == rig.gateway.pool.dialled == 1
    assert rig.gateway.pool.reused == 19
    assert rig.gateway.counters.connections == 1


async def test_clients_share_the_instances_connections(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(echo)
    for number in range(5):
        await rig.ask(get(f"/{number}"))
    assert instance.accepted == 1


async def test_every_exchange_has_a_connection_of_its_own(rig: Rig) -> None:
    instance = await rig.instance()
    clients = [await rig.client() for _ in range(4)]
    wires = []
    for number, client in enumerate(clients):
        client.send(get(f"/{number}"))
        wires.append((await instance.request())[0])
    for number in (2, 0, 3, 1):
        wires[number].send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        assert (await clients[number].answer()).body == b"%d" % number
    assert rig.gateway.pool.idle_count() == 4


async def test_a_client_that_asks_to_be_closed_is(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    client = await rig.client()
    client.send(get("/", b"Connection: close"))
    assert (await client.answer()).one("connection") == "close"
    assert await client.rest() == b""
    assert instance.requests[0].one("connection") is None
    assert rig.gateway.pool.idle_count() == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_an_instance_that_closes_does_not_close_the_client(rig: Rig, answer: bytes) -> None:
    instance = await rig.instance()
    instance.answers(answer)
    client = await rig.client()
    for _ in range(2):
        client.send(get("/"))
        got = await client.answer()
        assert (got.body, got.one("connection")) == (b"ok", None)
    assert instance.accepted == 2
    assert rig.gateway.pool.idle_count() == 0


async def test_idle_connections_to_instances_are_closed_before_the_instance_does(rig: Rig) -> None:
    """uvicorn and Node close after 5 s."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(get("/"))
    wire, _ = await instance.request()
    wire.send(OK)
    await client.answer()
    rig.sweep(IDLE_S - 0.1)
    assert rig.gateway.pool.idle_count() == 1
    rig.sweep(0.2)
    assert rig.gateway.pool.idle_count() == 0
    assert not await wire.is_cut()


async def test_an_idle_connection_that_the_instance_closed_is_not_used(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(get("/"))
    wire, _ = await instance.request()
    wire.send(OK)
    await client.answer()
    wire.close()
    await until(lambda: rig.gateway.pool.open == 0, "the end of the idle connection")
    client.send(post("/", b"x"))
    wire, _ = await instance.request()
    wire.send(OK)
    assert (await client.answer()).status == 200


# --- pipelining ------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(echo)
    client = await rig.client()
    chunks = b"POST /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    client.send(get("/a"), post("/b", b"GET /x HTTP/1.1\r\n\r\n"), chunks, get("/d"), post("/e", b""), get("/f"))
    got = [(await client.answer()).body for _ in range(6)]
    assert got == [b"/a=", b"/b=GET /x HTTP/1.1\r\n\r\n", b"/c=abc", b"/d=", b"/e=", b"/f="]
    assert [one.first.split()[1] for one in instance.requests] == [b"/a", b"/b", b"/c", b"/d", b"/e", b"/f"]
    assert instance.accepted == 1


async def test_pipelined_requests_may_come_in_any_pieces(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(echo)
    raw = get("/a") + post("/b", b"body") + b"\r\n" + get("/c")
    client = await rig.client()
    await client.pieces(*(raw[at : at + 7] for at in range(0, len(raw), 7)))
    assert [(await client.answer()).body for _ in range(3)] == [b"/a=", b"/b=body", b"/c="]


async def test_a_pipelined_request_waits_for_its_turn(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(get("/a"), get("/b"))
    wire, first = await instance.request()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
    await client.until(b"ha")
    assert first.first == b"GET /a HTTP/1.1"
    assert instance.accepted == 1
    wire.send(b"lf")
    assert await client.exactly(2) == b"lf"
    assert (await wire.request()).first == b"GET /b HTTP/1.1"
    wire.send(OK)
    assert (await client.answer()).body == b"ok"


async def test_a_client_that_sends_far_ahead_is_held_back(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    many = 3000
    client.send(get("/first"), *(get(f"/{number}", b"X-Filler: " + b"x" * 1000) for number in range(many)))
    wire, _ = await instance.request()
    edge = next(iter(rig.gateway.edges))
    await until(lambda: edge._read_paused, "the pause")
    assert len(edge.buffer) < 5 * AHEAD_BYTES
    wire.send(OK)
    await client.answer()

    async def read() -> int:
        count = 0
        for _ in range(many):
            count += (await client.answer()).status == 200
        return count

    async def serve() -> None:
        for number in range(many):
            assert (await wire.request()).first == b"GET /%d HTTP/1.1" % number
            wire.send(OK)

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        tasks.create_task(serve())
    assert reading.result() == many


async def test_what_comes_after_a_close_is_not_read(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(echo)
    client = await rig.client()
    client.send(get("/a", b"Connection: close"), get("/b"))
    assert (await client.answer()).body == b"/a="
    await client.is_cut()
    assert [one.first for one in instance.requests] == [b"GET /a HTTP/1.1"]


async def test_blank_lines_between_requests_are_ignored(rig: Rig) -> None:
    """RFC 9112 2.2: old clients send one after a POST. A thousand of them are no reason to fall over."""
    instance = await rig.instance()
    instance.answers(echo)
    client = await rig.client()
    client.send(b"\r\n", get("/a"), b"\r\n" * 3, get("/b"), b"\r\n" * 20_000, get("/c"))
    assert [(await client.answer()).body for _ in range(3)] == [b"/a=", b"/b=", b"/c="]
    await client.pieces(b"\r", b"\n", b"\r\n", b"\r", b"\n" + get("/d"))
    assert (await client.answer()).body == b"/d="


async def test_errors_keep_the_connection_where_they_can(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(echo)
    rig.app(hosts=("tools.localhost",))
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\nHost: other\r\n\r\n", get("/a"))
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error"), answer.one("connection")) == (404, "PB13", None)
    assert (await client.answer()).body == b"/a="


async def test_an_error_to_head_has_no_body(rig: Rig) -> None:
    rig.app(hosts=("tools.localhost",))
    client = await rig.client()
    for _ in range(2):
        client.send(b"HEAD / HTTP/1.1\r\nHost: other\r\n\r\n")
        answer = await client.answer("HEAD")
        assert (answer.status, answer.one("moorage-error")) == (404, "PB13")
        assert int(answer.one("content-length") or 0) > 0


# --- nothing leaks from one exchange into the next -----------------------------------------


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(OK + b"EXTRA", b"ok", id="more than its length"),
        pytest.param(OK + OK.replace(b"ok", b"2!"), b"ok", id="two answers"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\nEXTRA", b"", id="204 with a body"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nEXTRA", b"", id="304 with a body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nEXTRA", b"ok", id="after chunks"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + OK, b"", id="two answers, the first empty"),
    ],
)  # fmt: skip
async def test_what_follows_an_answer_reaches_nobody(rig: Rig, answer: bytes, body: bytes) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(get("/a"))
    wire, _ = await instance.request()
    wire.send(answer)
    got = await client.answer()
    assert got.body == body
    await wire.is_cut()
    client.send(get("/b"))
    other, request = await instance.request()
    assert request.first == b"GET /b HTTP/1.1"
    other.send(echo(request))
    assert (await client.answer()).body == b"/b="


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
async def test_a_body_in_the_answer_to_head_reaches_nobody(rig: Rig, method: bytes) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(get("/a").replace(b"GET", b"HEAD"))
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEXTRA")
    await client.answer("HEAD")
    await wire.is_cut()
    client.send(get("/b").replace(b"GET", method))
    other, _ = await instance.request()
    other.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await client.answer(method.decode())).body == b""


async def test_an_instance_that_speaks_unasked_is_not_used_again(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(get("/a"))
    wire, _ = await instance.request()
    wire.send(OK)
    await client.answer()
    assert rig.gateway.pool.idle_count() == 1
    wire.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    await until(lambda: rig.gateway.pool.open == 0, "the end of the connection")
    client.send(get("/b"))
    other, request = await instance.request()
    other.send(echo(request))
    assert (await client.answer()).body == b"/b="


async def test_an_instance_that_speaks_first_is_not_heard(rig: Rig) -> None:
    """Bytes before the request was sent are no answer to it."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(get("/a"))
    wire = await instance.accept()
    wire.send(OK)
    answer = await client.answer()
    # Whether the request was on its way already is a race that the gateway cannot see.
    assert answer.status in (200, 502)
    await until(lambda: rig.gateway.pool.open <= 1, "the connection's end")
