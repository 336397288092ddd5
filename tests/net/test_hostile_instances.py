"""Instances that answer what is no answer: a 502 by name while the head is still ours to write, else a visible cut."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest

from gateway.data.heading import MAX_HEAD_BYTES, MAX_INFORMATIONAL
from tests.net.rig import Rig, until
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "PH01", id="another protocol"),
        pytest.param(b"HTTP/2 200 OK\r\n\r\n", "PH01", id="another version"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n\r\n", "PH01", id="a status of four digits"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n", "PH01", id="LF in a value"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n", "PH01", id="CR in a value"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "PH01", id="NUL in a value"),
        pytest.param(b"HTTP/1.1 200 O\0K\r\n\r\n", "PH01", id="NUL in the reason"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "PH01", id="a folded line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "PH01", id="a blank before the colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "PH01", id="no colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nMcp-Session-Id: a\r\nMcp-Session-Id: b\r\n\r\n", "PH01", id="two sessions"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "PH01", id="two lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "PH03",
            id="CL and TE",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "PH03", id="gzip, chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", "PH03", id="identity"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "PH03", id="negative length"),
        pytest.param(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "PH03", id="chunks in 1.0"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n", "PH02", id="a megabyte of head"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, "PH02", id="an endless head"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n", "PH01", id="a thousand fields"),
        pytest.param(b"x" * (MAX_HEAD_BYTES + 1), "PH02", id="no head at all"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INFORMATIONAL + 1), "PH01", id="a flood of 100"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "PH05", id="101 unasked"),
        pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n", "PH05", id="101 unasked, to nothing"),
    ],
)
async def test_what_is_no_answer_is_a_502(rig: Rig, answer: bytes, code: str) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    wire.send(answer)
    got = await client.answer()
    assert (got.status, got.one("moorage-error")) == (502, code)
    error = json.loads(got.body)["error"]
    assert (error["code"], error["app"], error["instance"]) == (code, "tools", "i-1")
    await wire.is_cut()
    # The client's connection goes on, with another one to the instance.
    client.send(GET)
    wire, _ = await instance.request()
    wire.send(OK)
    assert (await client.answer()).body == b"ok"


async def test_a_flood_of_early_hints_ends(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000)
    for _ in range(MAX_INFORMATIONAL):
        assert (await client.answer()).status == 103
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (502, "PH01")


async def test_a_few_informational_answers_are_no_flood(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(b"HTTP/1.1 103 Early Hints\r\n\r\n" * MAX_INFORMATIONAL + OK)
    client = await rig.client()
    client.send(GET)
    for _ in range(MAX_INFORMATIONAL):
        assert (await client.answer()).status == 103
    assert (await client.answer()).body == b"ok"


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\r\nhelloXX",
        b"5\r\nhello!\r\n",
        b"zz\r\n",
        b"5\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"ffffffffffffffffff\r\n",
        b"5;" + b"x" * 5000,
        b"5\r\nhello\r\n0\r\nX: y\n\r\n",
        b"5\r\nhello\r\n0\r\nMcp-Session-Id: y\r\n\r\n",
        b"5\r\nhello\r\n0\r\nFly-Replay: app=x\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 5000,
    ],
)
@pytest.mark.parametrize("how", ["with the head", "later"])
@pytest.mark.parametrize("media", [b"text/plain", b"text/event-stream"])
async def test_a_malformed_body_is_cut(rig: Rig, chunks: bytes, how: str, media: bytes) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: " + media + b"\r\n\r\n")
    if how == "later":
        wire.send(head, b"2\r\nok\r\n")
        await client.until(b"2\r\nok\r\n")
        wire.send(chunks)
        raw = await client.rest()
    else:
        wire.send(head, chunks)
        raw = (await client.rest()).partition(b"\r\n\r\n")[2]
    assert not raw.endswith(b"0\r\n\r\n")
    assert b"0\r\nX" not in raw
    await wire.is_cut()
    assert rig.gateway.counters.problems["tools", "PU05"] == 1


async def test_a_head_that_drips_in_is_read(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    head = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 150 + b"Content-Length: 2\r\n\r\n"
    await wire.pieces(*(head[at : at + 17] for at in range(0, len(head), 17)), b"o", b"k")
    answer = await client.answer()
    assert (len(answer.all("X")), answer.body) == (150, b"ok")


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 200 OK\r\n\r"])
async def test_an_instance_that_says_nothing_whole(rig: Rig, said: bytes, how: str) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    if said:
        await wire.pieces(said)
    getattr(wire, how)()
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (502, "PU02")


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_instance_that_accepts_and_leaves(rig: Rig, how: str) -> None:
    """Before it has read anything. Whatever the race, the client gets an answer."""
    instance = await rig.instance()
    for _ in range(20):
        client = await rig.client()
        client.send(GET)
        wire = await instance.accept()
        getattr(wire, how)()
        assert (await client.answer()).status == 502


async def test_an_instance_that_leaves_in_the_middle_of_a_request(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(b"POST / HTTP/1.1\r\n", HOST, b"Content-Length: 1000000\r\n\r\n", b"x" * 10_000)
    wire = await instance.accept()
    await wire.head()
    wire.reset()
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error"), answer.one("connection")) == (502, "PU02", "close")
    client.send(b"x" * 100_000)
    assert await client.rest() == b""


async def test_nothing_that_an_instance_says_of_itself_is_believed(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(
        b"HTTP/1.1 200 OK\r\nfly-replay-src: instance=i-9\r\nFLY-REQUEST-ID: forged\r\nfly-replay-cache: /\r\n"
        b"moorage-error: PM03\r\nX-Forwarded-For: 1.1.1.1\r\nMcp-Session-Id: nobodys\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await rig.ask(GET)
    assert answer.names == ["Content-Length", "Via", "Fly-Request-Id"]
    assert answer.one("fly-request-id") != "forged"


# --- fuzz ------------------------------------------------------------------------------

WHOLE = [
    OK,
    CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'30\r\nevent: message\ndata: {"jsonrpc":"2.0","id":1}\n\n\r\n0\r\n\r\n'
    ),
    (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"22\r\nevent: endpoint\ndata: /messages?a=b\n\n\r\n0\r\n\r\n"
    ),
]
REQUESTS = [
    GET,
    b"GET /sse HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n",
    b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 46\r\n\r\n"
    b'{"jsonrpc":"2.0","id":1,"method":"initialize"}',
    b"POST / HTTP/1.1\r\n" + HOST + b"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
    b'Content-Length: 46\r\n\r\n{"jsonrpc":"2.0","id":1,"method":"tools/call"}',
]


def fuzzed(rng: random.Random) -> bytes:
    raw = bytearray(rng.choice(WHOLE))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(max(1, len(raw)))
        how = rng.randrange(4)
        if how == 0 and raw:
            raw[at] = rng.randrange(256)
        elif how == 1:
            raw[at:at] = rng.choice([b"\r\n", b"\n", b"\0", b"0\r\n\r\n", b"Mcp-Session-Id: x\r\n", rng.choice(WHOLE)])
        elif how == 2:
            del raw[at : at + rng.randrange(1, 5)]
        else:
            del raw[at + 1 :]
    return bytes(raw)


async def test_ten_thousand_fuzzed_answers_break_nothing(rig: Rig, rng: random.Random) -> None:
    """The instance says them, in two pieces, and hangs up. Every client gets an answer or a visible end."""
    instance = await rig.instance()
    outcomes: Counter[str] = Counter()
    thrown = [(fuzzed(rng), rng.random(), rng.choice(REQUESTS), rng.random() < 0.5) for _ in range(10_000)]
    rest = [one[:2] + one[3:] for one in thrown]

    async def serve() -> None:
        while True:
            wire = await instance.accept()
            said, at, hard = rest.pop() if rest else (OK, 0.0, False)
            cut = int(len(said) * at)
            wire.send(said[:cut])
            await asyncio.sleep(0)  # noqa: TID251 - so that the second piece is one
            wire.send(said[cut:])
            wire.end() if not hard else wire.close()

    async def read(client: Wire) -> str:
        try:
            raw = await client.rest()
        except ConnectionResetError:
            return "reset"
        assert raw.startswith(b"HTTP/1.1 "), raw
        # A status of 500 may be the fuzzed answer's own; the code is the gateway's alone.
        return "fault" if b"moorage-error: PG01" in raw else raw[9:12].decode()

    async def ask() -> None:
        while thrown:
            raw = thrown.pop()[2].replace(HOST, HOST + b"Connection: close\r\n")
            client = await rig.client(kept=False)
            client.send(raw)
            outcomes[await read(client)] += 1
            await client.aclose()

    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve())
        await asyncio.wait([tasks.create_task(ask()) for _ in range(20)])
        serving.cancel()
    assert outcomes["200"] > 1000, outcomes
    assert outcomes["502"] > 1000, outcomes
    assert outcomes["fault"] == 0, outcomes
    assert sum(outcomes.values()) == 10_000
    await until(lambda: not rig.gateway.edges, "the end of all connections")
