"""2024-11-05 streams on the wire: the endpoint comes back here with its pin, everything else stays what it was."""

from __future__ import annotations

import json
import re

import pytest

from tests.net.rig import RawInstance, Rig, until
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\nAccepted"
MESSAGE = b'event: message\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'
RPC = b'{"jsonrpc":"2.0","id":1,"method":"initialize"}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def get(path: bytes = b"/sse", minor: int = 1) -> bytes:
    return b"GET %b HTTP/1.%d\r\n%bAccept: text/event-stream\r\n\r\n" % (path, minor, HOST)


def post(target: bytes, *lines: bytes) -> bytes:
    head = b"POST " + target + b" HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    return head + b"".join(one + b"\r\n" for one in lines) + b"Content-Length: %d\r\n\r\n%b" % (len(RPC), RPC)


async def opened(rig: Rig, instance: RawInstance, raw: bytes = b"") -> tuple[Wire, Wire, bytes]:
    """A stream's two ends, and the endpoint its client was told."""
    client = await rig.client()
    client.send(raw or get())
    wire, _ = await instance.request()
    wire.send(STREAM, chunk(b"event: endpoint\ndata: /messages/?session_id=5f2b\n\n"))
    await client.head()
    return client, wire, endpoint(await client.chunk())


def endpoint(event: bytes) -> bytes:
    found = re.fullmatch(rb"event: endpoint\ndata: ([!-~]+)\n\n", event)
    assert found is not None, event
    return found[1]


async def test_a_session_from_its_stream_to_its_end(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client, wire, target = await opened(rig, one)
    assert re.fullmatch(rb"/messages/\?session_id=5f2b&moorage_pin=[A-Za-z0-9_-]+", target)
    poster = await rig.client()
    poster.send(post(target))
    posted, request = await one.request()
    # The instance is asked for what it named, and never sees the pin.
    assert request.first == b"POST /messages/?session_id=5f2b HTTP/1.1"
    assert request.body == RPC
    posted.send(ACCEPTED)
    answer = await poster.answer()
    assert (answer.status, answer.body) == (202, b"Accepted")
    wire.send(chunk(MESSAGE))
    assert await client.chunk() == MESSAGE
    # With the stream ends the pin: clients are told at once, and nobody is asked.
    wire.close()
    await client.is_cut()
    await until(lambda: not rig.gateway.legacy, "the end of the stream")
    poster.send(post(target))
    gone = await poster.answer()
    assert (gone.status, gone.one("moorage-error"), gone.one("content-type")) == (
        404,
        "PS04",
        "text/plain; charset=utf-8",
    )
    assert other.untouched
    assert one.accepted == 2


async def test_streams_on_two_instances_do_not_mix(rig: Rig) -> None:
    instances = [await rig.instance("i-1"), await rig.instance("i-2")]
    sessions = []
    for instance in instances:
        # Least loaded: the second stream goes to the other instance.
        sessions.append(await opened(rig, instance))
    for instance, (_, _, target) in reversed(list(zip(instances, sessions, strict=True))):
        poster = await rig.client()
        poster.send(post(target))
        posted, _ = await instance.request()
        posted.send(ACCEPTED)
        assert (await poster.answer()).status == 202


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"/message?sessionId=1-2", rb"/message\?sessionId=1-2&moorage_pin=[\w-]+"),
        (b"/s/1-2/message", rb"/s/1-2/message\?moorage_pin=[\w-]+"),
        (b"message?a", rb"message\?a&moorage_pin=[\w-]+"),
        (b"http://127.0.0.1:%d/m?a=b", rb"/m\?a=b&moorage_pin=[\w-]+"),
        (b"http://localhost:%d/m", rb"/m\?moorage_pin=[\w-]+"),
        (b"//127.0.0.1:%d/m", rb"/m\?moorage_pin=[\w-]+"),
        (b"/m#f", rb"/m\?moorage_pin=[\w-]+#f"),
        # Not the instance's: passed as it came, and its POSTs do not come here.
        (b"http://evil.example/m", rb"http://evil\.example/m"),
    ],
)
async def test_every_form_of_an_endpoint(rig: Rig, said: bytes, told: bytes) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(get())
    wire, _ = await instance.request()
    address = rig.known().address
    assert address is not None
    said = said % address.port if b"%d" in said else said
    wire.send(STREAM, chunk(b"event: endpoint\ndata: " + said + b"\n\n"))
    await client.head()
    assert re.fullmatch(told, endpoint(await client.chunk()))


@pytest.mark.parametrize("eol", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("framing", ["chunks", "until close"])
@pytest.mark.parametrize("minor", [0, 1])
async def test_the_endpoint_may_come_in_any_pieces(rig: Rig, eol: bytes, framing: str, minor: int) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(get(minor=minor))
    wire, _ = await instance.request()
    stream = b": hello\nid: 1\nevent: endpoint\ndata: /m?a=b\n\n".replace(b"\n", eol) + MESSAGE
    head = STREAM if framing == "chunks" else STREAM.replace(b"Transfer-Encoding: chunked\r\n", b"")
    frame = chunk if framing == "chunks" else bytes
    await wire.pieces(head, *(frame(stream[at : at + 3]) for at in range(0, len(stream), 3)))
    if framing == "chunks":
        wire.send(b"0\r\n\r\n")
    else:
        wire.close()
    answer = await client.answer()
    lines = [rb": hello", rb"id: 1", rb"event: endpoint", rb"data: /m\?a=b&moorage_pin=[\w-]+", b"", re.escape(MESSAGE)]
    told = re.fullmatch(eol.join(lines), answer.body)
    assert told, answer.body
    assert answer.framing == ("chunked" if minor else "close")


async def test_after_the_endpoint_nothing_is_looked_at(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire, _ = await opened(rig, instance)
    later = chunk(b"event: endpoint\ndata: /second\n\n") + b"00005;a=b\r\n: hi\n\r\n" + chunk(b"\xff\xfe\r\r")
    wire.send(later)
    assert await client.exactly(len(later)) == later


async def test_a_stream_that_is_none_of_2024_stays_byte_for_byte(rig: Rig) -> None:
    """An EventSource of some other app, or a session's GET whose instance primes it."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(get())
    wire, _ = await instance.request()
    stream = b"id: 5\ndata:\n\nevent: tick\ndata: /not?an=endpoint\n\ndata: more\n\n"
    wire.send(STREAM, *(chunk(stream[at : at + 9]) for at in range(0, len(stream), 9)), b"0\r\n\r\n")
    assert (await client.answer()).body == stream


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", id="404"),
        pytest.param(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n", id="405"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", id="a page"),
    ],
)
async def test_an_answer_that_is_no_stream_opens_none(rig: Rig, raw: bytes) -> None:
    instance = await rig.instance()
    instance.answers(raw)
    answer = await rig.ask(get())
    assert (answer.status, answer.body) == (int(raw[9:12]), raw.partition(b"\r\n\r\n")[2])
    assert not rig.gateway.legacy


async def test_a_prefix_that_was_stripped_is_put_back(rig: Rig) -> None:
    rig.app(path="/tools", strip_path=True)
    instance = await rig.instance()
    client = await rig.client()
    client.send(get(b"/tools/sse"))
    wire, request = await instance.request()
    assert request.first == b"GET /sse HTTP/1.1"
    wire.send(STREAM, chunk(b"event: endpoint\ndata: /messages/?session_id=1\n\n"))
    await client.head()
    target = endpoint(await client.chunk())
    assert target.startswith(b"/tools/messages/?session_id=1&moorage_pin=")
    poster = await rig.client()
    poster.send(post(target))
    posted, request = await instance.request()
    assert request.first == b"POST /messages/?session_id=1 HTTP/1.1"
    posted.send(ACCEPTED)
    assert (await poster.answer()).status == 202


async def test_gateways_in_a_row_take_out_their_own_pin_only(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(get())
    wire, _ = await instance.request()
    wire.send(STREAM, chunk(b"event: endpoint\ndata: /m?moorage_pin=inner\n\n"))
    await client.head()
    target = endpoint(await client.chunk())
    poster = await rig.client()
    poster.send(post(target))
    posted, request = await instance.request()
    assert request.first == b"POST /m?moorage_pin=inner HTTP/1.1"
    posted.send(ACCEPTED)
    await poster.answer()


async def test_no_forged_pin_reaches_an_instance(rig: Rig) -> None:
    instance = await rig.instance()
    client, _, target = await opened(rig, instance)
    path, _, pin = target.partition(b"&moorage_pin=")
    poster = await rig.client()
    forged = [
        b"",
        b"x",
        pin[:-1],
        pin + b"A",
        pin.swapcase(),
        pin[::-1],
        rig.seal().partition(b".")[0],
        pin + b"=",
        b"%41" + pin,
    ]
    forged += [pin[:at] + (b"A" if pin[at : at + 1] != b"A" else b"B") + pin[at + 1 :] for at in range(len(pin))]
    for one in forged:
        poster.send(post(path + b"&moorage_pin=" + one))
        answer = await poster.answer()
        assert (answer.status, answer.one("moorage-error")) == (404, "PS04"), one
    assert instance.accepted == 1
    client.close()


async def test_a_stream_bound_to_its_caller(rig: Rig) -> None:
    instance = await rig.instance()
    alice = b"Authorization: Bearer alice"
    _, _, target = await opened(rig, instance, get().replace(HOST, HOST + alice + b"\r\n"))
    poster = await rig.client()
    for lines in ((b"Authorization: Bearer bob",), ()):
        poster.send(post(target, *lines))
        assert (await poster.answer()).status == 404
    poster.send(post(target, alice))
    posted, _ = await instance.request()
    posted.send(ACCEPTED)
    assert (await poster.answer()).status == 202


async def test_a_client_that_leaves_ends_its_pin(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire, target = await opened(rig, instance)
    client.close()
    await wire.is_cut()
    answer = await rig.ask(post(target))
    assert (answer.status, answer.one("moorage-error")) == (404, "PS04")


async def test_the_error_to_a_stream_that_cannot_be_opened_is_json(rig: Rig) -> None:
    answer = await rig.ask(get())
    assert (answer.status, answer.one("content-type")) == (503, "application/json")
    assert json.loads(answer.body)["error"]["code"] == "PR01"
