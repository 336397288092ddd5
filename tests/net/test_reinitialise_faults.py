"""What new instances do with a lost session's handshake, and gateways that make it at the same time
(docs/adr/0017-lost-sessions-are-initialised-anew.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.core.model import Concurrency, ConcurrencyType, Instance, Pin, State
from gateway.core.problems import Code, Problem
from gateway.core.recording import Binding
from gateway.data.carrying import Lost
from gateway.lifecycle import carrying as carrying_module
from gateway.lifecycle import reinitialise
from tests.net.anew import JSON, Anew, Server, at, call, carrying, welcome
from tests.net.replies import answer, get
from tests.net.rig import INCARNATION, Rig, until

EVENTS = "Content-Type: text/event-stream"
OWN = "Mcp-Session-Id: i-2.1"
RESULT = {"jsonrpc": "2.0", "id": 0, "result": {"protocolVersion": "2025-06-18"}}
ERROR = {"jsonrpc": "2.0", "id": 0, "error": {"code": -32602, "message": "unsupported"}}
NOTICE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}


@pytest.fixture
async def anew(rig: Rig) -> AsyncIterator[Anew]:
    async with carrying(rig) as one:
        yield one


def event(message: object) -> bytes:
    return b"event: message\r\nid: 1\r\ndata: %b\r\n\r\n" % json.dumps(message).encode()


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n{OWN}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


async def lost(rig: Rig, anew: Anew) -> str:
    """A session whose instance is gone."""
    await anew.server("i-1")
    session = await anew.opened()
    rig.forget("i-1")
    return session


# --- answers to initialize -----------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        welcome("i-2.1"),
        welcome("i-2.1", version="\u0662"),
        welcome("i-2.1").replace(b" 200 ", b" 201 "),
        chunked(b": hello\r\n\r\n", event(NOTICE), event({**RESULT, "id": 7}), event(RESULT)),
        # The stream need not end, and an answer may come in pieces.
        chunked(event(NOTICE) + event(RESULT)[:30], event(RESULT)[30:], end=b""),
        chunked(b"data: ", json.dumps(RESULT).encode() + b"\n\n", end=b""),
        answer(event(RESULT), EVENTS.lower(), OWN.lower()),
        answer(json.dumps(RESULT).encode(), OWN),
    ],
)
async def test_an_answer_of_json_or_events_makes_a_session(rig: Rig, anew: Anew, said: bytes) -> None:
    session = await lost(rig, anew)
    other = await anew.server("i-2")
    other.initialize, other.sessions = said, ["i-2.1"]
    assert at(await rig.ask(call(session))) == "i-2.1"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        # It does not make this session.
        (answer(b"", status=400), "404 PS02"),
        (answer(b"", "Mcp-Session-Id: dead", status=404), "404 PS02"),
        (answer(b"", OWN, status=406), "404 PS02"),
        (answer(json.dumps(ERROR).encode(), JSON, OWN), "404 PS02"),
        (chunked(event(ERROR)), "404 PS02"),
        (answer(json.dumps(RESULT).encode(), JSON), "404 PS02"),
        (answer(json.dumps(RESULT).encode(), JSON, "Mcp-Session-Id: has blank"), "404 PS02"),
        (answer(json.dumps(RESULT).encode(), JSON, OWN, OWN), "404 PS02"),
        # No telling.
        (answer(b"", status=429), "503 PS07"),
        (answer(b"", status=500), "503 PS07"),
        (answer(b"", "Location: /other", status=307), "503 PS07"),
        (answer(b"", OWN, status=202), "503 PS07"),
        (answer(b"{", JSON, OWN), "503 PS07"),
        (welcome("i-2.1", rpc_id=1), "503 PS07"),
        (answer(json.dumps(RESULT).encode(), JSON, OWN, "Content-Encoding: br"), "503 PS07"),
        (chunked(event(NOTICE)), "503 PS07"),
        (chunked(b"data: " + b"x" * (reinitialise.MAX_ANSWER_BYTES + 1), end=b""), "503 PS07"),
        (answer(b"x" * (reinitialise.MAX_ANSWER_BYTES + 1), JSON, OWN), "503 PS07"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n" + OWN.encode() + b"\r\nConnection: close\r\n\r\n{", "503 PS07"),
        (b"nonsense\r\nConnection: close\r\n\r\n", "503 PS07"),
        (b"\r\nConnection: close\r\n", "503 PS07"),
    ],
)
async def test_an_answer_that_makes_none(rig: Rig, anew: Anew, said: bytes, told: str) -> None:
    """Nothing else reaches that instance, and no other one is asked."""
    session = await lost(rig, anew)
    other = await anew.server("i-2")
    other.initialize = said
    answered = await rig.ask(call(session))
    assert at(answered) == told
    if told.startswith("404"):
        assert json.loads(answered.body)["error"]["message"] == "Session not found"
    else:
        assert answered.one("retry-after") is not None
    assert other.asked == ["initialize"]
    assert anew.reinitialised == 0
    other.initialize = None
    assert at(await rig.ask(call(session))) == "i-2.1"


@pytest.mark.parametrize("how", ["refused", "503"])
async def test_an_instance_that_makes_none_for_now_is_passed_over(rig: Rig, anew: Anew, how: str) -> None:
    session = await lost(rig, anew)
    other = await anew.server("i-2")
    other.initialize = answer(b"", status=503)
    if how == "refused":
        other.raw.close()
    assert at(await rig.ask(call(session))) == "503 PS07"
    assert other.asked == ["initialize"] * (how == "503")
    await anew.server("i-3")
    assert at(await rig.ask(call(session))) == "i-3.1"


@pytest.mark.parametrize("status", [401, 403])
async def test_an_instance_that_wants_other_credentials_says_so_itself(rig: Rig, anew: Anew, status: int) -> None:
    session = await lost(rig, anew)
    other = await anew.server("i-2")
    wants = answer(b"who?", "WWW-Authenticate: Bearer resource_metadata=x", "Mcp-Session-Id: dead", status=status)
    other.raw.answers(lambda request: wants if request.one("authorization") is None else other(request))
    told = await rig.ask(call(session))
    assert (told.status, told.body, told.one("mcp-session-id")) == (status, b"who?", None)
    assert told.one("www-authenticate") == "Bearer resource_metadata=x"
    assert other.asked == ["initialize", "tools/call"]
    assert anew.keys == []


# --- the second message ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [202, 200, 204])
async def test_the_notification_is_accepted_in_several_ways(rig: Rig, anew: Anew, status: int) -> None:
    session = await lost(rig, anew)
    other = await anew.server("i-2")
    other.initialized = answer(b"", status=status)
    assert at(await rig.ask(call(session))) == "i-2.1"


@pytest.mark.parametrize("said", [answer(b"", status=400), answer(b"", status=500), b"\r\nConnection: close\r\n"])
async def test_a_session_that_is_not_accepted_is_closed_again(rig: Rig, anew: Anew, said: bytes) -> None:
    session = await lost(rig, anew)
    other = await anew.server("i-2")
    other.initialized = said
    assert at(await rig.ask(call(session))) == "503 PS07"
    await until(lambda: other.deleted == ["i-2.1"], "the end of the new session")
    (closing,) = (one for one in other.raw.requests if one.first.startswith(b"DELETE"))
    assert (closing.one("mcp-protocol-version"), closing.one("accept-encoding")) == ("2025-06-18", "identity")


# --- time --------------------------------------------------------------------------------------


async def test_a_handshake_is_waited_for_no_longer_than_for_a_wake(rig: Rig, anew: Anew) -> None:
    anew.app(wake_timeout_s=0.05)
    session = await lost(rig, anew)
    silent = await rig.instance("i-2")
    told = await rig.ask(call(session))
    assert (at(told), told.one("retry-after")) == ("503 PS07", "2")
    wire, _ = await silent.request()
    await wire.is_cut()


async def test_an_instance_may_take_its_time_but_not_all_of_it(
    rig: Rig, anew: Anew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reinitialise, "LIMIT_S", 0.05)
    session = await lost(rig, anew)
    silent = await rig.instance("i-2")
    assert at(await rig.ask(call(session))) == "503 PS07"
    wire, _ = await silent.request()
    await wire.is_cut()


async def test_a_store_that_hangs_is_waited_for_no_longer(rig: Rig, anew: Anew) -> None:
    anew.app(wake_timeout_s=0.05)
    session = await lost(rig, anew)
    await anew.server("i-2")

    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    anew.store.get = hangs  # type: ignore[method-assign,assignment]
    assert at(await rig.ask(call(session))) == "503 PS07"
    assert at(await rig.ask(get("/mcp", session, method="DELETE"))) in ("503 PG04", "503 PS07")


async def test_who_waits_when_the_gateway_ends_is_told(rig: Rig, anew: Anew) -> None:
    session = await lost(rig, anew)
    silent = await rig.instance("i-2")
    client = await rig.client()
    client.send(call(session))
    await silent.request()
    anew.carrier.close()
    assert at(await client.answer()) == "503 PG02"


# --- where it is placed ----------------------------------------------------------------------


async def test_a_wake_that_fails_is_told(rig: Rig, anew: Anew) -> None:
    session = await lost(rig, anew)
    rig.asleep("i-2")
    client = await rig.client()
    client.send(call(session))
    _, outcome = await rig.waker.asked.get()
    outcome.set_result(Problem(Code.PM05, "it does not listen", "tools", "i-2", 3))
    assert at(await client.answer()) == "503 PM05"


async def test_a_full_instance_is_waited_for(rig: Rig, anew: Anew) -> None:
    anew.app(concurrency=Concurrency(ConcurrencyType.REQUESTS, soft=1, hard=1))
    session = await lost(rig, anew)
    other = await rig.instance("i-2")
    busy = await rig.client()
    busy.send(get("/"))
    wire, _ = await other.request()
    client = await rig.client()
    client.send(call(session))
    await until(lambda: anew.holds.held.get("tools") == 1, "the request that waits")
    Server(other)
    wire.send(answer(b"", "Connection: close"))
    await busy.answer()
    assert at(await client.answer()) == "i-2.1"


async def test_a_full_instance_is_not_waited_for_without_end(rig: Rig, anew: Anew) -> None:
    anew.app(concurrency=Concurrency(ConcurrencyType.REQUESTS, soft=1, hard=1), wake_timeout_s=0.05)
    session = await lost(rig, anew)
    other = await rig.instance("i-2")
    busy = await rig.client()
    busy.send(get("/"))
    wire, _ = await other.request()
    assert at(await rig.ask(call(session))) in ("503 PR01", "503 PS07")
    wire.send(answer())
    await busy.answer()


async def test_an_app_that_is_gone_takes_its_sessions_along(rig: Rig, anew: Anew) -> None:
    session = await lost(rig, anew)
    silent = await rig.instance("i-2")
    client = await rig.client()
    client.send(call(session))
    wire, _ = await silent.request()
    rig.forget_app("tools")
    wire.send(answer(b"", status=503))
    assert at(await client.answer()) == "404 PS02"


async def test_an_instance_that_is_lost_during_the_handshake_is_replaced(rig: Rig, anew: Anew) -> None:
    """The session was bound to it, and is lost at once; the request is carried over once more."""
    session = await lost(rig, anew)
    other = await anew.server("i-2")
    third: list[Server] = []

    async def dies() -> None:
        third.append(await anew.server("i-3"))
        rig.forget("i-2")

    anew.store.before_bind = dies
    assert at(await rig.ask(call(session))) == "i-3.1"
    assert other.asked == ["initialize", "notifications/initialized i-2.1"]
    assert anew.reinitialised == 2


async def test_a_session_that_is_lost_wherever_it_begins_is_given_up(rig: Rig, anew: Anew) -> None:
    session = await lost(rig, anew)
    names = iter([f"i-{number}" for number in range(2, 20)])
    server = [await anew.server(next(names))]

    async def dies() -> None:
        rig.forget(server[-1].raw.id)
        server.append(await anew.server(next(names)))
        anew.store.before_bind = dies

    anew.store.before_bind = dies
    assert at(await rig.ask(call(session))) == "404 PS02"
    assert anew.reinitialised == 3
    anew.store.before_bind = None
    assert at(await rig.ask(call(session))) == "i-5.1"


# --- several gateways -----------------------------------------------------------------------------


def elsewhere(anew: Anew, binding: Binding) -> Callable[[], Any]:
    """Another gateway binds the session first."""

    async def binds() -> None:
        (key,) = anew.rig.gateway.bindings._used
        recorded = await anew.store.get(*key)
        assert recorded is not None
        await anew.store.bind(*key, recorded, binding)

    return binds


async def test_who_is_late_takes_the_others_session_and_ends_its_own(rig: Rig, anew: Anew) -> None:
    session = await lost(rig, anew)
    other, winner = await anew.server("i-2"), await anew.server("i-3")
    winner.sessions.append("theirs")
    anew.store.before_bind = elsewhere(anew, Binding(Pin("i-3", INCARNATION), b"theirs"))
    assert at(await rig.ask(call(session))) == "theirs"
    await until(lambda: other.deleted == ["i-2.1"], "the end of the other session")
    assert winner.asked == ["tools/call theirs"]
    assert anew.reinitialised == 0
    assert at(await rig.ask(call(session))) == "theirs"


async def test_a_binding_that_is_lost_too_is_replaced(rig: Rig, anew: Anew) -> None:
    """The other gateway was faster, and its instance is gone already."""
    session = await lost(rig, anew)
    server = await anew.server("i-2")
    anew.store.before_bind = elsewhere(anew, Binding(Pin("i-1", INCARNATION), b"theirs"))
    rig.know(Instance("tools", "i-1", None, state=State.STOPPED, startable=True, incarnation="z00t2", held_down=True))
    assert at(await rig.ask(call(session))) == "i-2.2"
    await until(lambda: server.deleted == ["i-2.1"], "the end of the first session")


async def test_a_session_that_ends_meanwhile_stays_ended(rig: Rig, anew: Anew) -> None:
    session = await lost(rig, anew)
    server = await anew.server("i-2")

    async def ends() -> None:
        (key,) = rig.gateway.bindings._used
        await anew.store.delete(*key)

    anew.store.before_bind = ends
    assert at(await rig.ask(call(session))) == "404 PS02"
    await until(lambda: server.deleted == ["i-2.1"], "the end of the new session")


async def test_an_instance_that_only_others_have_heard_of_is_waited_for(rig: Rig, anew: Anew) -> None:
    session = await lost(rig, anew)
    await elsewhere(anew, Binding(Pin("i-3", INCARNATION), b"theirs"))()
    client = await rig.client()
    client.send(call(session))
    await until(lambda: anew.holds.held.get("tools") == 1, "the request that waits")
    other = await anew.server("i-2", app="others")
    assert other.raw.untouched
    winner = await rig.instance("i-3")
    winner.answers(answer(b'{"at": "theirs"}'))
    assert at(await client.answer()) == "theirs"


async def test_but_not_for_long(rig: Rig, anew: Anew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying_module, "CATCH_UP_S", 0.05)
    session = await lost(rig, anew)
    await elsewhere(anew, Binding(Pin("i-3", INCARNATION), b"theirs"))()
    await anew.server("i-2")
    assert at(await rig.ask(call(session))) == "i-2.1"


async def test_a_binding_to_another_app_is_none(rig: Rig, anew: Anew) -> None:
    """Whoever wrote it: the session stays in its instance's app."""
    session = await lost(rig, anew)
    anew.app("other", hosts=("other.localhost",))
    foreign = await anew.server("i-2", "other")
    await anew.server("i-2")
    await elsewhere(anew, Binding(Pin("i-2", INCARNATION, "other"), b"theirs"))()
    assert at(await rig.ask(call(session))) == "i-2.1"
    assert foreign.raw.untouched


# --- faults of our own -----------------------------------------------------------------------


async def test_a_carrier_that_breaks_is_a_problem_and_no_more(rig: Rig, anew: Anew) -> None:
    session = await lost(rig, anew)

    async def breaks(_: Lost) -> None:
        raise RuntimeError("a bug")

    carry, anew.carrier.carry = anew.carrier.carry, breaks  # type: ignore[method-assign,assignment]
    assert at(await rig.ask(call(session))) == "500 PG01"
    anew.carrier.carry = carry  # type: ignore[method-assign]
    await anew.server("i-2")
    assert at(await rig.ask(call(session))) == "i-2.1"
