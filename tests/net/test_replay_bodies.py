"""Replays of requests with bodies: kept while a replay is possible, sent once and in order to whoever answers."""

from __future__ import annotations

import pytest

from tests.net.rig import Rig, until
from tests.net.test_backpressure import edge_of
from tests.net.test_replay import OK, replay, woken

HOST = b"Host: tools.localhost\r\n"
HERE = replay("instance=i-2")
MIB = 1 << 20


def post(body: bytes, *lines: bytes) -> bytes:
    head = b"POST /a HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines)
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts)


CHUNKED = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [0, 1, 70_000, MIB])
async def test_a_body_is_sent_again_whole(rig: Rig, size: int) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    one.answers(HERE)
    other.answers(OK)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert (await rig.ask(post(body))).status == 200
    assert one.requests[0].body == other.requests[0].body == body


async def test_a_chunked_body_keeps_its_bytes(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    one.answers(HERE)
    other.answers(OK)
    raw = chunked(b"hello", b"world") + b"0\r\nX-Trailer: t\r\n\r\n"
    assert (await rig.ask(CHUNKED + raw)).status == 200
    assert one.requests[0].raw == other.requests[0].raw
    assert other.requests[0].body == b"helloworld"


async def test_a_body_over_the_buffer_streams_and_its_replay_is_refused(rig: Rig) -> None:
    one = await rig.instance("i-1")
    other = await rig.instance("i-2")
    client = await rig.client()
    body = b"x" * (MIB + 1)
    client.send(post(body))
    wire, request = await one.request()
    assert request.body == body
    assert not rig.gateway.kept.bytes
    wire.send(HERE)
    answer = await client.answer()
    assert answer.status == 413
    assert answer.one("moorage-error") == "PA01"
    assert b"1048576" in answer.body
    assert other.untouched


async def test_the_buffer_can_be_larger(rig: Rig) -> None:
    rig.limit(replay_buffer_bytes=2 * MIB)
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    one.answers(HERE)
    other.answers(OK)
    body = b"x" * (MIB + 1)
    assert (await rig.ask(post(body))).status == 200
    assert other.requests[0].body == body


async def test_a_small_buffer_refuses_what_would_have_been_kept_for_retries(rig: Rig) -> None:
    rig.limit(replay_buffer_bytes=10)
    one = await rig.instance("i-1")
    one.answers(HERE)
    assert (await rig.ask(post(b"x" * 10))).one("moorage-error") == "PR02"
    assert (await rig.ask(post(b"x" * 11))).one("moorage-error") == "PA01"


async def test_all_bodies_together_are_kept_up_to_a_bound(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it a long body streams unkept; a short one is kept in any case."""
    monkeypatch.setattr("gateway.data.intake.MAX_KEPT_BYTES", 100_500)
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    other.answers(OK)
    clients = [await rig.client() for _ in range(3)]
    wires = []
    for client, size in zip(clients, (100_000, 100_000, 1000), strict=True):
        client.send(post(b"x" * size, b"fly-force-instance-id: i-1"))
        wire, _ = await one.request()
        wires.append(wire)
    for wire in wires:
        wire.send(HERE)
    assert [(await client.answer()).one("moorage-error") for client in clients] == [None, "PA01", None]


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_replay_before_the_body_has_come_goes_on_to_the_new_target(rig: Rig, framing: str) -> None:
    """Each byte once and in order: what came is sent first, the rest follows as it comes."""
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    parts = [b"first-", b"second-", b"third-", b"last"]
    client = await rig.client()
    if framing == "length":
        pieces = parts
        client.send(b"POST /a HTTP/1.1\r\n", HOST, b"Content-Length: 23\r\n\r\n", pieces[0])
    else:
        pieces = [chunked(part) for part in parts]
        client.send(CHUNKED, pieces[0])
    early = await one.accept()
    await early.head()
    await client.pieces(pieces[1])
    early.send(HERE)
    late = await other.accept()
    await late.head()
    await client.pieces(pieces[2])
    client.send(pieces[3] + (b"0\r\n\r\n" if framing == "chunked" else b""))
    expected = b"".join(pieces) + (b"0\r\n\r\n" if framing == "chunked" else b"")
    assert await late.exactly(len(expected)) == expected
    late.send(OK)
    assert (await client.answer()).status == 200
    await early.is_cut()
    assert rig.gateway.pool.open == rig.gateway.pool.idle_count() == 1


async def test_a_long_body_goes_on_streaming_after_an_early_replay(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    body = bytes(range(256)) * 16384
    client.send(b"POST /a HTTP/1.1\r\n", HOST, b"Content-Length: %d\r\n\r\n" % len(body), body[:1000])
    early = await one.accept()
    await early.head()
    early.send(HERE)
    late = await other.accept()
    await late.head()
    client.send(body[1000:])
    assert await late.exactly(len(body)) == body
    late.send(OK)
    assert (await client.answer()).status == 200


async def test_a_body_that_waited_for_the_new_target_goes_on_when_it_has_woken(rig: Rig) -> None:
    one = await rig.instance("i-1")
    rig.asleep("i-2")
    client = await rig.client()
    body = bytes(range(256)) * 2048
    client.send(b"POST /a HTTP/1.1\r\n", HOST, b"Content-Length: %d\r\n\r\n" % len(body), body[:1000])
    early = await one.accept()
    await early.head()
    early.send(HERE)
    _, outcome = await woken(rig)
    client.send(body[1000:])
    await until(lambda: not edge_of(rig).transport.is_reading(), "the client is paused")
    other = await rig.instance("i-2")
    outcome.set_result(rig.known("i-2"))
    late = await other.accept()
    await late.head()
    assert await late.exactly(len(body)) == body
    late.send(OK)
    assert (await client.answer()).status == 200


async def test_a_client_that_leaves_during_a_replay_takes_the_target_with_it(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    one.answers(HERE)
    client = await rig.client(kept=False)
    client.send(post(b"x"))
    wire, _ = await other.request()
    await client.aclose()
    await wire.rest()


# --- Expect: 100-continue ----------------------------------------------------------------

EXPECTS = b"POST /a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_the_target_asks_for_the_body_of_a_request_that_was_replayed_before_it_came(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    client.send(EXPECTS)
    early = await one.accept()
    assert b"Expect: 100-continue" in (await early.head())[1]
    early.send(HERE)
    late = await other.accept()
    assert b"Expect: 100-continue" in (await late.head())[1]
    late.send(CONTINUE)
    assert (await client.answer()).status == 100
    client.send(b"hello")
    assert await late.exactly(5) == b"hello"
    late.send(OK)
    assert (await client.answer()).status == 200


async def test_a_client_is_asked_for_its_body_once(rig: Rig) -> None:
    """An issuer that wants the body first has it; whoever comes next is not told to expect, and need not ask."""
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    client.send(EXPECTS)
    early = await one.accept()
    await early.head()
    early.send(CONTINUE)
    assert (await client.answer()).status == 100
    client.send(b"hello")
    assert await early.exactly(5) == b"hello"
    early.send(HERE)
    late = await other.accept()
    assert not [line for line in (await late.head())[1] if line.lower().startswith(b"expect")]
    late.send(CONTINUE, OK)
    assert await late.exactly(5) == b"hello"
    assert (await client.answer()).status == 200


async def test_who_takes_over_from_an_issuer_that_asked_for_the_body_need_not_ask(rig: Rig) -> None:
    """The client is sending by then: the new target hears nothing of Expect, and its 100 goes nowhere."""
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    client.send(EXPECTS)
    early = await one.accept()
    await early.head()
    early.send(CONTINUE)
    assert (await client.answer()).status == 100
    early.send(HERE)
    late = await other.accept()
    assert not [line for line in (await late.head())[1] if line.lower().startswith(b"expect")]
    late.send(CONTINUE)
    client.send(b"hello")
    assert await late.exactly(5) == b"hello"
    late.send(OK)
    assert (await client.answer()).status == 200


# --- upgrades ------------------------------------------------------------------------------

UPGRADE = (
    b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"


async def test_a_websocket_request_is_replayed_before_its_handshake(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    one.answers(HERE)
    client = await rig.client()
    client.send(UPGRADE)
    wire, request = await other.request()
    assert request.one("upgrade") == "websocket"
    assert request.one("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="
    wire.send(SWITCH, b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", b"\x81\x02hi")
    assert (await client.answer()).status == 101
    assert await client.exactly(4) == b"\x81\x02hi"
    client.send(b"\x81\x00")
    assert await wire.exactly(2) == b"\x81\x00"
    wire.close()


async def test_a_101_with_a_replay_header_is_no_replay(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    client.send(UPGRADE)
    wire, _ = await one.request()
    wire.send(SWITCH, b"fly-replay: instance=i-2\r\n\r\n", b"\x81\x02hi")
    answer = await client.answer()
    assert answer.status == 101
    assert answer.one("fly-replay") is None
    assert await client.exactly(4) == b"\x81\x02hi"
    assert other.untouched
    wire.close()


# --- the issuer's answer -------------------------------------------------------------------


async def test_an_issuers_body_that_never_ends_holds_its_connection_for_a_moment_only(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    other.answers(OK)
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\n", HOST, b"\r\n")
    wire, _ = await one.request()
    wire.send(b"HTTP/1.1 307 T\r\nfly-replay: instance=i-2\r\nContent-Length: 1000\r\n\r\nsome")
    assert (await client.answer()).status == 200
    rig.sweep(3)
    await wire.rest()


async def test_an_issuers_long_body_is_not_read_to_its_end(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    other.answers(OK)
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\n", HOST, b"\r\n")
    wire, _ = await one.request()
    wire.send(b"HTTP/1.1 307 T\r\nfly-replay: instance=i-2\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)
    assert (await client.answer()).status == 200
    await until(
        lambda: rig.gateway.pool.open == rig.gateway.pool.idle_count() == 1, "the end of the issuer's connection"
    )


async def test_the_json_form_is_read_to_its_end_first(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    other.answers(OK)
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\n", HOST, b"\r\n")
    wire, _ = await one.request()
    body = b'{"instance": "i-2"}'
    wire.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.fly.replay+json\r\nContent-Length: 19\r\n\r\n", body[:5]
    )
    await wire.flush()
    assert other.untouched
    wire.send(body[5:])
    assert (await client.answer()).status == 200
    assert rig.gateway.pool.idle_count() == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"Content-Length: 100\r\n\r\n{", "PU05"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}   \r\n", "PU05"),
        (b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", "PH01"),
        (b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000, "PA03"),
        (b"Content-Length: 0\r\n\r\n", "PA03"),
        (b"fly-replay: instance=i-2\r\nContent-Length: 19\r\n\r\n" + b'{"instance": "i-2"}', "PA03"),
    ],
)
async def test_a_json_replay_that_does_not_come_whole_is_an_error(rig: Rig, answer: bytes, code: str) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\n", HOST, b"\r\n")
    wire, _ = await one.request()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.fly.replay+json\r\n", answer)
    wire.close()
    refused = await client.answer()
    assert refused.status == 502
    assert refused.one("moorage-error") == code
    assert other.untouched


async def test_a_client_that_leaves_while_a_json_replay_is_read_ends_it(rig: Rig) -> None:
    one = await rig.instance("i-1")
    client = await rig.client(kept=False)
    client.send(b"GET / HTTP/1.1\r\n", HOST, b"\r\n")
    wire, _ = await one.request()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.fly.replay+json\r\nContent-Length: 19\r\n\r\n{")
    await wire.flush()
    await client.aclose()
    await wire.rest()
