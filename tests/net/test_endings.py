"""Event streams whose instance dies: one JSON-RPC error ends them, where one fits in; else a visible cut.

TypeScript clients wait for their own timeout (60 s) when a POST's stream just ends (mcp.md, section 0, fact 5).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.net.rig import RawInstance, Rig
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NOTE = b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'
ANSWER = b'event: message\nid: 5\ndata: {"jsonrpc":"2.0","id":7,"result":{"content":[]}}\n\n'
OTHERS = ANSWER.replace(b'"id":7', b'"id":8')
REQUESTED = b'event: message\ndata: {"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{}}\n\n'
"""A request of the server's own, which counts its ids by itself."""


def call(rpc_id: object = 7, minor: int = 1) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": {"name": "x"}}).encode()
    head = b"POST /mcp HTTP/1.%d\r\n%bContent-Type: application/json\r\nAccept: text/event-stream\r\n" % (minor, HOST)
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(stream: bytes) -> list[dict[str, Any]]:
    """The messages that an SSE client acts on: of type `message` or none, dispatched by a blank line."""
    found: list[dict[str, Any]] = []
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    kind = ""
    data: list[bytes] = []
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data and kind in ("", "message"):
                found.append(json.loads(b"\n".join(data)))
            kind, data = "", []
        elif name == b"event":
            kind = value.decode()
        elif name == b"data":
            data.append(value)
    return found


async def called(rig: Rig, instance: RawInstance, raw: bytes) -> tuple[Wire, Wire]:
    client = await rig.client()
    client.send(raw)
    wire, _ = await instance.request()
    return client, wire


def is_the_error(message: dict[str, Any], rpc_id: object = 7) -> bool:
    error = message["error"]
    return message["id"] == rpc_id and error["data"]["code"] == "PU05" and isinstance(error["code"], int)


CUTS = {
    "before any event": b"",
    "after an event": chunk(NOTE),
    "in an event": chunk(NOTE) + chunk(ANSWER[:40]),
    "in an event, at a line's end": chunk(NOTE) + chunk(ANSWER[:15]),
    "before the blank line of the answer": chunk(ANSWER[:-1]),
    "in a chunk": chunk(NOTE)[:-20],
    "in a chunk that is an answer": chunk(ANSWER)[:-4],
    "after a chunk's data": chunk(NOTE)[:-2],
    "between a chunk's CR and LF": chunk(NOTE)[:-1],
    "in a size line": chunk(NOTE) + b"1f",
    "between a size line's CR and LF": chunk(NOTE) + b"1f\r",
    "after a size line": chunk(NOTE) + b"1f\r\n",
    "in a chunk extension": chunk(NOTE) + b"1f;a=b",
    "after the answer to another request": chunk(OTHERS),
    "after a request of the server's with the same id": chunk(REQUESTED),
}


@pytest.mark.parametrize("sent", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_one_error_ends_a_stream_that_broke(rig: Rig, sent: bytes, how: str) -> None:
    instance = await rig.instance()
    client, wire = await called(rig, instance, call())
    await wire.pieces(STREAM, *([sent] if sent else []))
    getattr(wire, how)()
    answer = await client.answer()
    *before, last = events(answer.body)
    assert is_the_error(last)
    assert not [one for one in before if "error" in one or ("result" in one and one["id"] == 7)]
    # It ended in order, so the connection goes on.
    client.send(call())
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
    assert (await client.answer()).status == 202


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(chunk(ANSWER), id="in one chunk"),
        pytest.param(chunk(ANSWER[:30]) + chunk(ANSWER[30:]), id="in two"),
        pytest.param(chunk(NOTE) + chunk(ANSWER), id="after a notification"),
        pytest.param(chunk(ANSWER + b": bye\n\n"), id="before a comment"),
        pytest.param(chunk(ANSWER.replace(b"\n", b"\r\n")), id="with CRLF"),
        pytest.param(chunk(ANSWER.replace(b"result", b"error")), id="an error"),
        pytest.param(chunk(b'data: {"id":7,"jsonrpc":"2.0",\ndata: "result":{}}\n\n'), id="over two lines"),
    ],
)
async def test_a_stream_whose_answer_has_passed_gets_no_other(rig: Rig, sent: bytes, how: str) -> None:
    instance = await rig.instance()
    client, wire = await called(rig, instance, call())
    await wire.pieces(STREAM, sent)
    getattr(wire, how)()
    await client.head()
    try:
        raw = await client.rest()
    except ConnectionResetError:
        return
    assert raw == sent


@pytest.mark.parametrize("rpc_id", ["a-b", 0, -5, "7", 'quo"te\\', "\u00e9", 1.5])
async def test_the_error_carries_the_requests_id(rig: Rig, rpc_id: object) -> None:
    instance = await rig.instance()
    client, wire = await called(rig, instance, call(rpc_id))
    await wire.pieces(STREAM)
    wire.close()
    assert is_the_error(events((await client.answer()).body)[0], rpc_id)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            b"GET /mcp HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n", id="a stream that listens"
        ),
        pytest.param(call(None), id="no id"),
        pytest.param(call({"no": "id"}), id="an id that is none"),
    ],
)
async def test_a_stream_that_answers_nothing_is_cut(rig: Rig, raw: bytes) -> None:
    """The end is not in order, so that clients take up the stream again."""
    instance = await rig.instance()
    client, wire = await called(rig, instance, raw)
    await wire.pieces(STREAM, chunk(NOTE))
    wire.close()
    await client.head()
    assert await client.rest() == chunk(NOTE)


async def test_a_stream_without_chunks(rig: Rig) -> None:
    """An instance that frames by the connection's end: complete when that is in order, ended by an error when not."""
    instance = await rig.instance()
    until_close = STREAM.replace(b"Transfer-Encoding: chunked\r\n", b"")
    client, wire = await called(rig, instance, call())
    await wire.pieces(until_close, NOTE)
    wire.reset()
    first, last = events((await client.answer()).body)
    assert first["method"] == "notifications/progress"
    assert is_the_error(last)
    client.send(call())
    wire, _ = await instance.request()
    wire.send(until_close, ANSWER)
    wire.close()
    assert [one["id"] for one in events((await client.answer()).body)] == [7]


async def test_a_stream_of_known_length_is_cut(rig: Rig) -> None:
    """No byte of ours fits in."""
    instance = await rig.instance()
    client, wire = await called(rig, instance, call())
    await wire.pieces(STREAM.replace(b"Transfer-Encoding: chunked", b"Content-Length: 1000"), NOTE)
    wire.close()
    await client.head()
    assert await client.rest() == NOTE


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_of_http_1_0(rig: Rig, how: str) -> None:
    instance = await rig.instance()
    client, wire = await called(rig, instance, call(minor=0))
    await wire.pieces(STREAM, chunk(NOTE) + b"20\r\ndata: half")
    getattr(wire, how)()
    answer = await client.answer()
    assert answer.framing == "close"
    first, last = events(answer.body)
    assert first["method"] == "notifications/progress"
    assert is_the_error(last)


async def test_a_chunk_too_long_to_be_filled_up_is_cut(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await called(rig, instance, call())
    await wire.pieces(STREAM, b"fffffff\r\ndata: half")
    wire.close()
    await client.head()
    assert await client.rest() == b"fffffff\r\ndata: half"


@pytest.mark.parametrize("bad", [b"zz\r\n", b"5\r\nhelloXX", b"5\nhello", b"0\r\nMcp-Name: x\r\n\r\n"])
@pytest.mark.parametrize("before", [b"", chunk(NOTE), b"10\r\ndata: ha"])
async def test_a_stream_that_is_no_longer_http_is_cut(rig: Rig, before: bytes, bad: bytes) -> None:
    instance = await rig.instance()
    client, wire = await called(rig, instance, call())
    wire.send(STREAM, before)
    await client.head()
    assert await client.exactly(len(before)) == before
    wire.send(bad if not before.endswith(b"ha") else b"ppened\n\n\r\n" + bad)
    assert await client.rest() == b""
    await wire.is_cut()


async def test_the_answer_is_found_in_a_long_stream(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await called(rig, instance, call())
    big = ANSWER.replace(b"[]", b'["' + b"x" * 300_000 + b'"]')
    wire.send(STREAM, *(chunk(NOTE) for _ in range(1000)))
    for at in range(0, len(big), 1000):
        wire.send(chunk(big[at : at + 1000]))
    wire.end()
    await client.head()
    raw = await client.rest()
    assert b"PU05" not in raw


async def test_a_json_answer_that_is_cut_gets_no_event(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await called(rig, instance, call())
    json_head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    await wire.pieces(json_head, b'5\r\n{"jso\r\n')
    wire.close()
    await client.head()
    assert await client.rest() == b'5\r\n{"jso\r\n'


async def test_a_json_answer_that_is_still_withheld_becomes_a_502(rig: Rig) -> None:
    """2026-07-28 calls are read to their end before the client sees their answer: nothing of it has gone out."""
    instance = await rig.instance()
    modern = call().replace(
        HOST, HOST + b"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: x\r\n"
    )
    client, wire = await called(rig, instance, modern)
    await wire.pieces(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n", b'{"jso')
    wire.close()
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (502, "PU05")
    assert is_the_error(json.loads(answer.body))
    client.send(modern)
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    assert (await client.answer()).body == b"{}"
