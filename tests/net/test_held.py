"""Requests that are held for long: comments keep their clients, and the answer follows as events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.model import Instance
from gateway.core.problems import Code, Problem
from tests.net.rig import RawInstance, Rig
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
ACCEPT = b"Accept: application/json, text/event-stream\r\n"
OK = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n"
    b'{"jsonrpc":"2.0","id":7,"result":{}}\n'
)
COMMENT = b": keepalive\n\n"


def post(method: str, *lines: bytes, id: int | None = 7) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    body = json.dumps(message | ({"id": id} if id is not None else {})).encode()
    head = b"POST /mcp HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines)
    return head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


LISTEN = b"GET /events HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n"


async def held(rig: Rig, raw: bytes, **settings: Any) -> tuple[Wire, Any]:
    """A client whose request waits for i-1 to wake, and what wakes it."""
    rig.app(**{"wake_keepalive_s": 0.005, **settings})
    rig.asleep("i-1")
    client = await rig.client()
    client.send(raw)
    _, outcome = await rig.waker.asked.get()
    return client, outcome


async def woken(rig: Rig, outcome: Any) -> RawInstance:
    instance = await rig.instance("i-1")
    outcome.set_result(rig.known("i-1"))
    return instance


async def begun(client: Wire) -> list[bytes]:
    """The head of an answer that began early, and at least two comments."""
    first, lines = await client.head()
    assert first == b"HTTP/1.1 200 OK"
    assert b"Content-Type: text/event-stream" in lines
    for _ in range(2):
        assert await chunk(client) == COMMENT
    return lines


async def chunk(client: Wire) -> bytes:
    size = int((await client.until(b"\r\n"))[:-2], 16)
    data = await client.exactly(size + 2)
    return data[:-2]


async def rest(client: Wire) -> bytes:
    """What follows up to the end of the answer, without comments."""
    found = b""
    while (data := await chunk(client)) != b"":
        found += data if data != COMMENT else b""
    return found


async def test_the_answer_of_a_held_request_comes_as_an_event(rig: Rig) -> None:
    client, outcome = await held(rig, post("tools/list", ACCEPT[:-2]))
    await begun(client)
    instance = await woken(rig, outcome)
    instance.answers(OK)
    assert await rest(client) == b'event: message\ndata: {"jsonrpc":"2.0","id":7,"result":{}} \n\n'
    client.send(post("tools/list"))
    assert (await client.answer()).status == 200


async def test_an_event_stream_goes_on_behind_the_comments(rig: Rig) -> None:
    client, outcome = await held(rig, post("tools/call", ACCEPT[:-2]))
    await begun(client)
    instance = await woken(rig, outcome)
    instance.answers(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"d\r\ndata: first\n\n\r\ne\r\ndata: second\n\n\r\n0\r\n\r\n"
    )
    assert await rest(client) == b"data: first\n\ndata: second\n\n"


async def test_a_stream_that_is_listened_to_is_kept_too(rig: Rig) -> None:
    client, outcome = await held(rig, LISTEN)
    await begun(client)
    instance = await woken(rig, outcome)
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
    data = await chunk(client)
    while data == COMMENT:
        data = await chunk(client)
    assert data == b"data: x\n\n"
    wire.close()
    assert await rest(client) == b""


async def test_a_json_rpc_error_of_any_status_is_told_as_it_is(rig: Rig) -> None:
    client, outcome = await held(rig, post("tools/list", ACCEPT[:-2]))
    await begun(client)
    instance = await woken(rig, outcome)
    body = b'{"jsonrpc":"2.0","id":7,"error":{"code":-32001,"message":"no"}}'
    instance.answers(
        b"HTTP/1.1 404 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    assert await rest(client) == b"event: message\ndata: " + body + b"\n\n"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops", b"HTTP/1.1 204 No\r\n\r\n"])
async def test_what_events_cannot_tell_becomes_an_error(rig: Rig, answer: bytes) -> None:
    client, outcome = await held(rig, post("tools/list", ACCEPT[:-2]))
    await begun(client)
    instance = await woken(rig, outcome)
    instance.answers(answer)
    told = json.loads((await rest(client)).removeprefix(b"event: message\ndata: "))
    assert told["id"] == 7
    assert told["error"]["data"]["code"] == "PH06"


async def test_a_wake_that_fails_is_an_error_event(rig: Rig) -> None:
    client, outcome = await held(rig, post("tools/list", ACCEPT[:-2]))
    await begun(client)
    outcome.set_result(Problem(Code.PM03, "too slow", "tools", "i-1"))
    told = json.loads((await rest(client)).removeprefix(b"event: message\ndata: "))
    assert told["error"]["data"]["code"] == "PM03"
    assert rig.gateway.counters.requests["tools", 200] == 1


async def test_a_stream_that_comes_to_nothing_is_cut(rig: Rig) -> None:
    client, outcome = await held(rig, LISTEN)
    await begun(client)
    outcome.set_result(Problem(Code.PM03, "too slow", "tools", "i-1"))
    assert not (await client.rest()).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        post("initialize", ACCEPT[:-2]),
        post("tools/list"),
        post("notifications/initialized", ACCEPT[:-2], id=None),
        b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /events HTTP/1.0\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n",
    ],
)
async def test_an_answer_whose_head_matters_does_not_begin_early(rig: Rig, raw: bytes) -> None:
    client, outcome = await held(rig, raw)
    # Another request of the same gateway is told that it waits, long after this one would have been.
    other = await rig.client()
    other.send(LISTEN)
    _, second = await rig.waker.asked.get()
    await begun(other)
    instance = await woken(rig, outcome)
    second.set_result(Problem(Code.PM03, "too slow", "tools", "i-1"))
    instance.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Own: 1\r\n\r\nok")
    assert (await client.answer()).one("x-own") == "1"


async def test_an_app_can_do_without(rig: Rig) -> None:
    client, outcome = await held(rig, post("tools/list", ACCEPT[:-2]), wake_keepalive_s=0)
    instance = await woken(rig, outcome)
    instance.answers(OK)
    assert (await client.answer()).one("content-type") == "application/json"


async def test_a_client_that_leaves_while_it_is_told_to_wait_leaves_nothing(rig: Rig) -> None:
    rig.app(wake_keepalive_s=0.005)
    rig.know(Instance("tools", "i-1"))
    rig.asleep("i-1")
    client = await rig.client(kept=False)
    client.send(post("tools/list", ACCEPT[:-2]))
    await rig.waker.asked.get()
    await begun(client)
    await client.aclose()
    await rig.settled()
