"""Sealed session ids on the wire: what the client holds, what the instance knows, and what reaches no instance."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from gateway.core.model import AppProtocol, Pin, SessionIds, State
from gateway.core.seal import Sealer
from gateway.log.base import LogUnavailable
from tests.net.rig import INCARNATION, RawInstance, Rig
from tests.net.wire import Message, Wire

HOST = b"Host: tools.localhost\r\n"
JSON_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def post(method: str, *lines: bytes) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": "r-1", "method": method}).encode()
    head = (
        b"POST /mcp HTTP/1.1\r\n"
        + HOST
        + b"Content-Type: application/json\r\n"
        + b"".join(one + b"\r\n" for one in lines)
    )
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def with_id(status: bytes, session_id: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nMcp-Session-Id: " + session_id + b"\r\nContent-Length: 0\r\n\r\n"


async def opened(rig: Rig, instance: RawInstance, *lines: bytes, upstream_id: bytes = b"own-id") -> bytes:
    """The id of a new session, as the client gets it."""
    client = await rig.client()
    client.send(post("initialize", *lines))
    wire, request = await instance.request()
    assert request.one("mcp-session-id") is None
    wire.send(with_id(b"200 OK", upstream_id))
    token = (await client.answer()).one("mcp-session-id")
    assert token is not None
    wire.close()
    return token.encode()


def is_unknown(answer: Message, rpc_id: object = "r-1") -> bool:
    """The form of a lost session that SDKs understand (mcp.md 2.3)."""
    body = json.loads(answer.body)
    assert answer.one("content-type") == "application/json"
    assert answer.one("mcp-session-id") is None
    return (
        answer.status == 404
        and (body["jsonrpc"], body["id"]) == ("2.0", rpc_id)
        and (body["error"]["code"], body["error"]["message"]) == (-32001, "Session not found")
    )


# --- there and back --------------------------------------------------------------------


async def test_a_session_from_its_first_request_to_its_last(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    token = await opened(rig, one)
    assert token.endswith(b".own-id")
    assert all(0x21 <= byte <= 0x7E for byte in token)
    client = await rig.client()
    wire: Wire | None = None
    for method, raw in (
        (b"POST", post("tools/call", b"mcp-session-id: " + token)),
        (
            b"GET",
            b"GET /mcp HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\nMCP-SESSION-ID:" + token + b" \r\n\r\n",
        ),
        (b"DELETE", b"DELETE /mcp HTTP/1.1\r\n" + HOST + b"Mcp-Session-Id: " + token + b"\r\n\r\n"),
    ):
        client.send(raw)
        wire = wire or await one.accept()
        request = await wire.request()
        assert request.first.startswith(method)
        assert request.one("mcp-session-id") == "own-id"
        wire.send(with_id(b"200 OK", b"own-id"))
        # Every answer that echoes the id is sealed again, but for the last: the session has ended.
        assert (await client.answer()).one("mcp-session-id") == (None if method == b"DELETE" else token.decode())
    client.send(post("tools/call", b"Mcp-Session-Id: " + token))
    assert is_unknown(await client.answer())
    assert (one.accepted, other.accepted) == (2, 0)
    assert rig.gateway.counters.sessions_made["tools"] == rig.gateway.counters.sessions_ended["tools"] == 1


@pytest.mark.parametrize("status", [b"202 Accepted", b"400 Bad Request", b"409 Conflict", b"500 Oops"])
async def test_every_echo_is_sealed_again(rig: Rig, status: bytes) -> None:
    instance = await rig.instance()
    instance.answers(with_id(status, b"own-id"))
    token = rig.seal()
    answer = await rig.ask(post("tools/call", b"Mcp-Session-Id: " + token))
    assert (answer.status, answer.one("mcp-session-id")) == (int(status[:3]), token.decode())


async def test_a_delete_that_is_refused_ends_nothing(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n")
    token = rig.seal()
    delete = b"DELETE /mcp HTTP/1.1\r\n" + HOST + b"Mcp-Session-Id: " + token + b"\r\n\r\n"
    assert (await rig.ask(delete)).status == 405
    assert (await rig.ask(post("tools/call", b"Mcp-Session-Id: " + token))).status == 405


async def test_any_gateway_with_the_secret_knows_the_session(rig: Rig) -> None:
    """And one that never saw it, as after a restart."""
    instance = await rig.instance()
    instance.answers(JSON_OK)
    token = Sealer([b"the rig's secret, 32 bytes long."]).seal_session(
        "tools", Pin("i-1", INCARNATION), b"own-id", None
    )
    assert (await rig.ask(post("tools/call", b"Mcp-Session-Id: " + token))).status == 200
    assert instance.requests[0].one("mcp-session-id") == "own-id"


@pytest.mark.parametrize(
    "status", [b"400 Bad Request", b"401 Unauthorized", b"404 Not Found", b"406 Nope", b"500 Oops"]
)
@pytest.mark.parametrize("method", ["initialize", "tools/call", "ping"])
async def test_an_id_on_an_error_to_no_session_is_kept_from_the_client(rig: Rig, status: bytes, method: str) -> None:
    """Python servers put a dead one there, and TypeScript clients adopt an id from any answer."""
    instance = await rig.instance()
    instance.answers(with_id(status, b"dead"))
    answer = await rig.ask(post(method))
    assert (answer.status, answer.one("mcp-session-id")) == (int(status[:3]), None)


@pytest.mark.parametrize("method", ["tools/call", "ping", "notifications/initialized"])
async def test_only_initialize_makes_a_session(rig: Rig, method: str) -> None:
    instance = await rig.instance()
    instance.answers(with_id(b"200 OK", b"minted"))
    assert (await rig.ask(post(method))).one("mcp-session-id") is None


@pytest.mark.parametrize("bad", [b"has blank", b"\xe9", b"a" * 5000, b""])
async def test_an_id_that_mcp_forbids_is_kept_from_the_client(rig: Rig, bad: bytes) -> None:
    instance = await rig.instance()
    instance.answers(with_id(b"200 OK", bad))
    answer = await rig.ask(post("initialize"))
    assert (answer.status, answer.one("mcp-session-id")) == (200, None)


async def test_an_app_that_does_not_speak_mcp_keeps_its_header(rig: Rig) -> None:
    rig.app(protocol=AppProtocol.HTTP)
    instance = await rig.instance()
    instance.answers(with_id(b"200 OK", b"theirs"))
    answer = await rig.ask(post("initialize", b"Mcp-Session-Id: mine"))
    assert answer.one("mcp-session-id") == "theirs"
    assert instance.requests[0].one("mcp-session-id") == "mine"


# --- what reaches no instance ------------------------------------------------------------


async def test_no_forged_id_reaches_an_instance(rig: Rig, rng: random.Random) -> None:
    """Bits flipped, cut short, put together anew, of another app, secret or purpose, or never an id at all."""
    instance = await rig.instance()
    genuine = rig.seal()
    seal, _, own = genuine.partition(b".")
    other_secret = Sealer([b"another secret of thirty-two b.."])
    pin = Pin("i-1", INCARNATION)
    forged = [
        b"own-id", b"x", b".", b"..", b".own-id", seal, seal + b".", seal + b".own-ie", b"." + genuine, genuine + b".",
        genuine.upper(), genuine + b"x", b"x" + genuine, seal + b"=." + own, seal + b"." + own + b"." + own, b"*",
        other_secret.seal_session("tools", pin, b"own-id", None),
        rig.gateway.sealer.seal_session("other", pin, b"own-id", None),
        rig.gateway.sealer.seal_cookie("tools", pin) + b".own-id",
        b"a" * 8000, b"../../etc", b"<script>", b"%2e", b"own-id, own-id",
    ]  # fmt: skip
    forged += [genuine[:cut] for cut in range(1, len(genuine), 3)]
    for _ in range(200):
        bent = bytearray(genuine)
        at = rng.randrange(len(bent))
        bent[at] = rng.choice([byte for byte in b"abcXYZ019-_.~" if byte != bent[at]])
        forged.append(bytes(bent))
    client = await rig.client()
    for token in forged:
        client.send(post("tools/call", b"Mcp-Session-Id: " + token))
        assert is_unknown(await client.answer()), token
    assert instance.untouched
    instance.answers(JSON_OK)
    client.send(post("tools/call", b"Mcp-Session-Id: " + genuine))
    assert (await client.answer()).status == 200


async def test_unknown_and_foreign_ids_are_answered_alike(rig: Rig) -> None:
    """Whose a session is cannot be found out by asking."""
    instance = await rig.instance()
    alice, bob = b"Authorization: Bearer alice", b"Authorization: Bearer bob"
    token = await opened(rig, instance, alice)
    answers = [
        await rig.ask(post("tools/call", b"Mcp-Session-Id: " + token, bob)),
        await rig.ask(post("tools/call", b"Mcp-Session-Id: " + token)),
        await rig.ask(post("tools/call", b"Mcp-Session-Id: nonsense", bob)),
    ]
    said = set()
    for answer in answers:
        assert is_unknown(answer)
        body = json.loads(answer.body)
        del body["error"]["data"]["request_id"]
        lines = [line for line in answer.lines if not line.startswith((b"Fly-Request-Id", b"Content-Length"))]
        said.add((json.dumps(body), b"\n".join(lines)))
    assert len(said) == 1
    assert instance.accepted == 1
    client = await rig.client()
    client.send(post("tools/call", b"Mcp-Session-Id: " + token, alice))
    wire, request = await instance.request()
    assert request.one("authorization") == "Bearer alice"
    wire.send(JSON_OK)
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("lost", ["gone", "another life", "stopped", "failed"])
async def test_a_session_whose_instance_has_lost_it(rig: Rig, lost: str) -> None:
    instance, other = await rig.instance("i-1"), await rig.instance("i-2")
    token = rig.seal()
    match lost:
        case "gone":
            rig.forget("i-1")
        case "another life":
            rig.change("i-1", incarnation="b00t2")
        case "stopped":
            rig.change("i-1", state=State.STOPPED, address=None, startable=True)
        case _:
            rig.change("i-1", state=State.FAILED, address=None, startable=True)
    assert is_unknown(await rig.ask(post("tools/call", b"Mcp-Session-Id: " + token)))
    get = b"GET /mcp HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\nMcp-Session-Id: " + token + b"\r\n\r\n"
    assert is_unknown(await rig.ask(get), None)
    assert instance.untouched
    assert other.untouched
    assert rig.waker.asked.empty()


async def test_an_instance_that_does_not_know_its_session_is_counted(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(b"HTTP/1.1 404 Not Found\r\nMcp-Session-Id: own-id\r\nContent-Length: 4\r\n\r\ngone")
    answer = await rig.ask(post("tools/call", b"Mcp-Session-Id: " + rig.seal()))
    # Its own words go through, a dead id does not.
    assert (answer.status, answer.body, answer.one("mcp-session-id")) == (404, b"gone", None)
    assert rig.gateway.counters.misroutes["tools"] == 1


async def test_a_steering_header_does_not_move_a_session(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    one.answers(JSON_OK)
    session = b"Mcp-Session-Id: " + rig.seal("i-1")
    answer = await rig.ask(post("tools/call", session, b"fly-prefer-instance-id: i-2"))
    assert answer.status == 200
    answer = await rig.ask(post("tools/call", session, b"fly-force-instance-id: i-2"))
    assert (answer.status, answer.one("moorage-error")) == (421, "PS05")
    answer = await rig.ask(post("tools/call", session, b"fly-force-instance-id: i-1"))
    assert answer.status == 200
    assert other.untouched
    assert not {"fly-prefer-instance-id", "fly-force-instance-id"} & set(one.requests[0].names)


# --- stored ids ------------------------------------------------------------------------


async def test_a_stored_id_reaches_the_client_only_after_its_pin_is_stored(rig: Rig) -> None:
    rig.app(session_ids=SessionIds.STORED)
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    client.send(post("initialize"))
    wire, _ = await one.request()
    wire.send(with_id(b"200 OK", b"plain-id"))
    assert (await client.answer()).one("mcp-session-id") == "plain-id"
    client.send(post("tools/call", b"Mcp-Session-Id: plain-id"))
    request = await wire.request()
    assert request.one("mcp-session-id") == "plain-id"
    wire.send(with_id(b"200 OK", b"plain-id"))
    assert (await client.answer()).one("mcp-session-id") == "plain-id"
    client.send(post("tools/call", b"Mcp-Session-Id: invented"))
    assert is_unknown(await client.answer())
    assert (one.accepted, other.accepted) == (1, 0)


class Broken:
    """A pin store that is away."""

    async def put(self, *_: object, **__: object) -> None:
        raise LogUnavailable("redis://x", "away", "wait")

    async def get(self, *_: object) -> None:
        raise LogUnavailable("redis://x", "away", "wait")


async def test_a_session_that_cannot_be_stored_is_not_made(rig: Rig) -> None:
    """Its client would hold an id that no gateway can route."""
    rig.app(session_ids=SessionIds.STORED)
    instance = await rig.instance()
    rig.pins(Broken())
    client = await rig.client()
    client.send(post("initialize"))
    wire, _ = await instance.request()
    wire.send(with_id(b"200 OK", b"plain-id"))
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error"), answer.one("retry-after")) == (503, "PG04", "1")
    assert answer.one("mcp-session-id") is None
    await wire.is_cut()
    answer = await rig.ask(post("tools/call", b"Mcp-Session-Id: plain-id"))
    assert (answer.status, answer.one("moorage-error")) == (503, "PG04")


class Slow:
    """A pin store that stores when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_store = asyncio.Event()

    async def put(self, *_: object, **__: object) -> None:
        self.asked.set()
        await self.may_store.wait()


@pytest.mark.parametrize("outcome", ["stored", "the client leaves", "the instance leaves"])
async def test_nothing_of_an_answer_goes_out_before_its_pin_is_stored(rig: Rig, outcome: str) -> None:
    """Meanwhile the instance is held back."""
    rig.app(session_ids=SessionIds.STORED)
    pins = Slow()
    instance = await rig.instance()
    rig.pins(pins)
    client = await rig.client()
    client.send(post("initialize"))
    wire, _ = await instance.request()
    length = 12_000_000
    head = b"HTTP/1.1 200 OK\r\nMcp-Session-Id: plain-id\r\nContent-Length: %d\r\n\r\n" % length
    wire.send(head, b"x" * length)
    await pins.asked.wait()
    edge = next(iter(rig.gateway.edges))
    relay = edge.exchange.attempts.relay if edge.exchange is not None else None
    assert relay is not None
    for _ in range(50):
        await asyncio.sleep(0.001)  # noqa: TID251 - that nothing comes is announced by nobody
    assert edge.transport.get_write_buffer_size() == 0
    assert sum(map(len, relay._held or [])) <= 2 * 262_144
    assert wire.unsent > 0
    if outcome == "the client leaves":
        client.reset()
        await wire.is_cut()
        pins.may_store.set()
        return
    if outcome == "the instance leaves":
        wire.reset()
    pins.may_store.set()
    if outcome == "stored":
        answer = await client.answer()
        assert (answer.one("mcp-session-id"), len(answer.body)) == ("plain-id", length)
    else:
        # The session was made, and its answer is cut.
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer()
