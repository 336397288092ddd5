"""Clients that send what is no request, or two requests in one: refused by name, and no instance is touched."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest

from tests.net.rig import Rig, until
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


async def refused(rig: Rig, raw: bytes) -> tuple[int, str | None]:
    """The status and the code of the refusal, which must be the last thing on its connection."""
    client = await rig.client()
    client.send(raw)
    answer = await client.answer()
    assert answer.one("connection") == "close"
    error = json.loads(answer.body)["error"]
    assert error["code"] == answer.one("moorage-error")
    assert error["request_id"] == answer.one("fly-request-id")
    assert error["remedy"]
    assert await client.rest() == b""
    return answer.status, answer.one("moorage-error")


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        pytest.param(
            POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "PB04", id="CL.TE"
        ),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400, "PB04", id="TE.CL"
        ),
        pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "PB04", id="TE.0"),
        pytest.param(POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n", 400, "PB05", id="0.CL"),
        pytest.param(POST + b"Content-Length: 44, 0\r\n\r\n", 400, "PB04", id="CL list"),
        pytest.param(POST + b"Content-Length: +44\r\n\r\n", 400, "PB04", id="CL signed"),
        pytest.param(POST + b"content_length: 44\r\n\r\n", 400, "PB06", id="CL by underscore"),
        pytest.param(POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400, "PB01", id="TE obfuscated"),
        pytest.param(POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "PB01", id="TE with a blank"),
        pytest.param(POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "PB01", id="TE folded"),
        pytest.param(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "PB04", id="TE in 1.0"),
        pytest.param(POST + b"Expect: 101-continue\r\nContent-Length: 44\r\n\r\n", 417, "PB08", id="Expect"),
        pytest.param(GET + b"X: y\nX: z\r\n\r\n", 400, "PB01", id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", 400, "PB01", id="bare LF all over"),
        pytest.param(GET + b"X: y\rX: z\r\n\r\n", 400, "PB01", id="bare CR"),
        pytest.param(GET + b"X: \0\r\n\r\n", 400, "PB01", id="NUL"),
        pytest.param(GET + HOST + b"\r\n", 400, "PB05", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, "PB02", id="no host"),
        pytest.param(b"GET http://evil/ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "PB02", id="another host"),
        pytest.param(b"CONNECT evil:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405, "PB07", id="CONNECT"),
        pytest.param(GET + b"Mcp-Session-Id: a\r\nMcp-Session-Id: b\r\n\r\n", 400, "PB05", id="two sessions"),
        pytest.param(GET + b"fly_force_instance_id: i-1\r\n\r\n", 400, "PB06", id="steering by underscore"),
        pytest.param(GET + b"Connection: Mcp-Session-Id\r\n\r\n", 400, "PB05", id="Connection names a session"),
        pytest.param(
            GET + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 44\r\n\r\n", 400, "PB10", id="upgrade"
        ),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "PB01", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "PB01", id="TLS"),
        pytest.param(GET + b"X: " + b"x" * 33_000 + b"\r\n\r\n", 431, "PB03", id="a long field"),
        pytest.param(GET + b"X: y\r\n" * 101 + b"\r\n", 431, "PB03", id="many fields"),
        pytest.param(b"GET /" + b"x" * 33_000, 431, "PB03", id="an endless target"),
        pytest.param(GET + b"X: y\r\n" * 6000, 431, "PB03", id="endless fields"),
    ],
)
async def test_what_could_be_two_requests_is_none(rig: Rig, raw: bytes, status: int, code: str) -> None:
    instance = await rig.instance()
    assert await refused(rig, raw + SMUGGLED) == (status, code)
    assert instance.untouched


async def test_h2c_is_not_spoken_past_the_gateway(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    answer = await rig.ask(GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n")
    assert answer.status == 200
    assert not {"upgrade", "connection", "http2-settings"} & {name.lower() for name in instance.requests[0].names}


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nHost: nowhere\r\n", 404, id="no such app"),
        pytest.param(POST + b"Mcp-Session-Id: forged\r\n", 404, id="an unknown session"),
        pytest.param(POST + b"fly-force-instance-id: none\r\n", 502, id="no such instance"),
    ],
)
@pytest.mark.parametrize("how", ["at once", "later"])
async def test_the_body_of_a_refused_request_is_no_request(rig: Rig, raw: bytes, status: int, how: str) -> None:
    rig.app(hosts=("tools.localhost",))
    instance = await rig.instance()
    client = await rig.client()
    head = raw + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)
    client.send(head + SMUGGLED if how == "at once" else head)
    answer = await client.answer()
    assert answer.status == status
    if how == "at once":
        # The body is whole: the connection may go on, behind it.
        client.send(b"GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n")
        assert (await client.answer()).status == 404
    else:
        assert answer.one("connection") == "close"
        client.send(SMUGGLED)
        assert await client.rest() == b""
    assert instance.untouched


# --- bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"0\r\nContent-Length: 44\r\n\r\n",
        b"0\r\nMcp-Session-Id: x\r\n\r\n",
        b"0\r\nfly_force_instance_id: x\r\n\r\n",
        b"0\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("how", ["with the head", "later", "for the gateway to read"])
async def test_a_malformed_body_is_refused_and_its_instance_let_go(rig: Rig, body: bytes, how: str) -> None:
    instance = await rig.instance()
    client = await rig.client()
    wire: Wire | None = None
    media = b"Content-Type: application/json\r\n" if how == "for the gateway to read" else b""
    head = POST + media + b"Transfer-Encoding: chunked\r\n\r\n"
    if how == "later":
        client.send(head, b"2\r\nok\r\n")
        wire = await instance.accept()
        await wire.head()
        assert await wire.exactly(7) == b"2\r\nok\r\n"
        client.send(body, SMUGGLED)
    else:
        client.send(head, body, SMUGGLED)
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error"), answer.one("connection")) == (400, "PB04", "close")
    assert await client.rest() == b""
    if wire is not None:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await wire.request()
    else:
        assert instance.untouched


@pytest.mark.parametrize(
    "raw", [b"Content-Length: 1001\r\n\r\n", b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"]
)
@pytest.mark.parametrize("media", [b"", b"Content-Type: application/json\r\n"])
async def test_a_body_that_is_said_to_be_too_long_is_refused_at_once(rig: Rig, raw: bytes, media: bytes) -> None:
    rig.limit(body_bytes=1000)
    instance = await rig.instance()
    assert await refused(rig, POST + media + raw) == (413, "PB09")
    assert instance.untouched


@pytest.mark.parametrize("media", [b"", b"Content-Type: application/json\r\n"])
async def test_a_body_that_turns_out_too_long_is_refused(rig: Rig, media: bytes) -> None:
    rig.limit(body_bytes=1000)
    instance = await rig.instance()
    client = await rig.client()
    wire: Wire | None = None
    client.send(POST, media, b"Transfer-Encoding: chunked\r\n\r\n100\r\n" + b"x" * 256 + b"\r\n")
    if not media:
        wire = await instance.accept()
        await wire.until(b"x" * 256)
    client.send(b"400\r\n" + b"x" * 1024)
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (413, "PB09")
    assert await client.rest() == b""
    if wire is not None:
        await wire.is_cut()


# --- too many --------------------------------------------------------------------------


async def test_connections_are_capped_and_counted(rig: Rig) -> None:
    rig.limit(connections=3)
    instance = await rig.instance()
    instance.answers(OK)
    clients = [await rig.client() for _ in range(3)]
    await until(lambda: len(rig.gateway.edges) == 3, "three connections")
    assert await refused(rig, b"") == (503, "PL01")
    assert rig.gateway.counters.connections_refused == 1
    clients[0].close()
    await until(lambda: len(rig.gateway.edges) == 2, "the end of one")
    assert (await rig.ask(GET + b"\r\n")).status == 200


# --- fuzz ------------------------------------------------------------------------------

FRAGMENTS = [
    b"GET ", b"POST ", b"/", b"/a?b", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ",
    b"\t", b"\0", b":", b"Host: tools.localhost\r\n", b"Content-Length: 5\r\n", b"Content-Length: 99999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"Expect: 100-continue\r\n", b"Mcp-Session-Id: x.y\r\n", b"Content-Type: application/json\r\n",
    b'{"jsonrpc":"2.0","id":1,"method":"initialize"}', b"[" * 3000, b"5\r\nhello\r\n", b"0\r\n\r\n", b"hello",
    b"\xff\xfe", b"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n", b"x" * 2000,
    b"Accept: text/event-stream\r\n",
]  # fmt: skip
WHOLE = [
    GET + b"\r\n",
    POST + b"Content-Length: 5\r\n\r\nhello",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    POST + b'Content-Type: application/json\r\nContent-Length: 40\r\n\r\n{"jsonrpc":"2.0","id":1,"method":"ping"}',
]


def fuzzed(rng: random.Random) -> bytes:
    """A request with some bytes changed, or fragments of requests in a row."""
    if rng.random() < 0.3:
        return b"".join(rng.choices(FRAGMENTS, k=rng.randrange(1, 12)))
    raw = bytearray(rng.choice(WHOLE))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(raw))
        how = rng.randrange(3)
        if how == 0:
            raw[at] = rng.randrange(256)
        elif how == 1:
            raw[at:at] = rng.choice(FRAGMENTS)
        else:
            del raw[at : at + rng.randrange(1, 5)]
    return bytes(raw)


async def test_ten_thousand_fuzzed_requests_break_nothing(rig: Rig, rng: random.Random) -> None:
    """Each is answered or waited for; the worker, the instance and every other client go on."""
    instance = await rig.instance()
    instance.answers(OK)
    outcomes: Counter[str] = Counter()

    async def read(client: Wire) -> str:
        try:
            raw = await client.rest()
        except ConnectionResetError:
            return "reset"
        assert not raw or raw.startswith(b"HTTP/1.1 "), raw
        return raw[9:12].decode() or "nothing"

    thrown = [fuzzed(rng) for _ in range(10_000)]

    async def throw() -> None:
        while thrown:
            raw = thrown.pop()
            client = await rig.client(kept=False)
            client.send(raw, GET, b"Connection: close\r\n\r\n")
            outcomes[await read(client)] += 1
            await client.aclose()

    async def let_time_pass() -> None:
        while True:
            await asyncio.sleep(0.02)  # noqa: TID251 - what is only half a request is waited for in vain
            rig.sweep(40)

    async with asyncio.TaskGroup() as tasks:
        passing = tasks.create_task(let_time_pass())
        throwing = [tasks.create_task(throw()) for _ in range(20)]
        await asyncio.wait(throwing)
        passing.cancel()
    bystander = await rig.client()
    bystander.send(GET, b"\r\n")
    assert (await bystander.answer()).body == b"ok"
    # It took both ways, often.
    assert outcomes["200"] > 100, outcomes
    assert outcomes["400"] > 1000, outcomes
    assert outcomes["500"] == 0, outcomes
    assert sum(outcomes.values()) == 10_000
