"""A session whose instance is gone begins anew on another one, and its client notices nothing
(docs/adr/0017-lost-sessions-are-initialised-anew.md)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from gateway.core.model import OnLost, Pin, SessionIds, State
from gateway.core.recording import MAX_BODY_BYTES
from gateway.log.base import LogUnavailable
from tests.net.anew import INITIALIZE, PROTOCOL, Anew, Server, at, call, carrying, initialize, welcome
from tests.net.replies import answer, get, post
from tests.net.rig import INCARNATION, Rig, until

ALICE, BOB = "Authorization: Bearer alice", "Authorization: Bearer bob"
AWAY = LogUnavailable("redis://x", "away", "wait")
STREAM = "Accept: text/event-stream"


@pytest.fixture
async def anew(rig: Rig) -> AsyncIterator[Anew]:
    async with carrying(rig) as one:
        yield one


# --- carried over --------------------------------------------------------------------------


@pytest.mark.parametrize("ids", SessionIds)
@pytest.mark.parametrize("lost", ["gone", "another life", "stopped", "failed"])
async def test_a_lost_session_goes_on_elsewhere_under_its_own_id(
    rig: Rig, anew: Anew, lost: str, ids: SessionIds
) -> None:
    anew.app(session_ids=ids)
    one = await anew.server("i-1")
    session = await anew.opened()
    assert at(await rig.ask(call(session))) == "i-1.1"
    other = await anew.server("i-2")
    match lost:
        case "gone":
            rig.forget("i-1")
        case "another life":
            rig.change("i-1", incarnation="b00t2", cordoned=True)
        case "stopped":
            rig.change("i-1", state=State.STOPPED, address=None)
        case _:
            rig.change("i-1", state=State.FAILED, address=None)
    before = len(one.asked)
    answered = await rig.ask(call(session))
    assert at(answered) == "i-2.1"
    assert f"Mcp-Session-Id: {answered.one('mcp-session-id')}" == session
    assert other.asked == ["initialize", "notifications/initialized i-2.1", "tools/call i-2.1"]
    assert len(one.asked) == before
    assert anew.reinitialised == 1
    assert rig.gateway.counters.sessions_made["tools"] == 1


async def test_later_requests_ask_no_database(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    await anew.server("i-2")
    rig.forget("i-1")
    await rig.ask(call(session))
    asked, punted = anew.store.gets, rig.gateway.counters.punted
    for raw in (call(session), post("ping", session), get("/mcp", session, STREAM)):
        assert at(await rig.ask(raw)) == "i-2.1"
    assert (anew.store.gets, rig.gateway.counters.punted) == (asked, punted)
    # A gateway that does not know asks once.
    rig.gateway.bindings.drop(anew.keys[0])
    for _ in range(2):
        assert at(await rig.ask(call(session))) == "i-2.1"
    assert (anew.store.gets, rig.gateway.counters.punted) == (asked + 1, punted + 1)
    assert anew.reinitialised == 1
    (listed,) = rig.gateway.sessions
    assert listed.pin.instance == "i-2"


async def test_the_handshake_is_the_clients_own_with_the_credentials_of_now(rig: Rig, anew: Anew) -> None:
    anew.app(bind_principal=False, strip_path=True, path="/mcp")
    await anew.server("i-1")
    session = await anew.opened("Authorization: Bearer then", "Cookie: then=1", "MCP-Protocol-Version: 2025-03-26")
    other = await anew.server("i-2")
    rig.forget("i-1")
    now = ["Authorization: Bearer now", "Cookie: now=1", "X-Tenant: seven", "MCP-Protocol-Version: 2025-11-25"]
    assert at(await rig.ask(call(session, *now, "Last-Event-ID: 5", "Content-Language: de"))) == "i-2.1"
    first, second, third = other.raw.requests
    assert json.loads(first.body) == INITIALIZE
    for sent in (first, second, third):
        assert sent.first == b"POST / HTTP/1.1"
        assert sent.one("host") == str(rig.known("i-2").address)
        assert (sent.one("authorization"), sent.one("cookie")) == ("Bearer now", "now=1")
        assert (sent.one("x-tenant"), sent.one("fly-client-ip")) == ("seven", "127.0.0.1")
        assert sent.one("content-type") == "application/json"
    assert first.one("mcp-protocol-version") == "2025-03-26"
    assert second.one("mcp-protocol-version") == PROTOCOL
    assert third.one("mcp-protocol-version") == "2025-11-25"
    for sent in (first, second):
        assert (sent.one("accept"), sent.one("last-event-id")) == ("application/json, text/event-stream", None)
        assert sent.one("content-language") is None
    assert third.one("content-language") == "de"
    assert first.one("fly-request-id") == third.one("fly-request-id")


async def test_an_app_that_wants_the_clients_host_gets_it(rig: Rig, anew: Anew) -> None:
    anew.app(preserve_host=True)
    await anew.server("i-1")
    session = await anew.opened()
    other = await anew.server("i-2")
    rig.forget("i-1")
    assert at(await rig.ask(call(session))) == "i-2.1"
    assert {request.one("host") for request in other.raw.requests} == {"tools.localhost"}


async def test_the_handshake_goes_where_the_request_goes_byte_for_byte(rig: Rig, anew: Anew) -> None:
    """The query may hold what the server knows its caller by, and was not recorded."""
    await anew.server("i-1")
    session = await anew.opened()
    other = await anew.server("i-2")
    rig.forget("i-1")
    assert at(await rig.ask(call(session).replace(b"/mcp", b'/mcp/%2f%7E//?key=%22"{'))) == "i-2.1"
    assert {request.first for request in other.raw.requests} == {b'POST /mcp/%2f%7E//?key=%22"{ HTTP/1.1'}


async def test_a_session_that_is_lost_while_it_is_connected_to_is_carried_over(rig: Rig, anew: Anew) -> None:
    """Nothing was sent. Here it goes to the same instance in its next life, which was tried at its old address."""
    one = await anew.server("i-1")
    session = await anew.opened()
    one.raw.close()
    rig.gateway.pool.close()
    failed = rig.gateway.loads.failed
    successor = await rig.instance("i-2", cordoned=True)
    address = rig.known("i-2").address

    def moves(app: str, instance: str) -> None:
        failed(app, instance)
        rig.change("i-1", address=address, incarnation="b00t2")

    rig.gateway.loads.failed = moves  # type: ignore[method-assign]
    rig.forget("i-2")
    again = Server(successor)
    again.initialize, again.sessions = welcome("again"), ["again"]
    assert at(await rig.ask(call(session))) == "again"


async def test_a_trace_tells_of_it(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    await anew.server("i-2")
    rig.forget("i-1")
    await rig.ask(call(session, f"moorage-trace: {rig.gateway.traces.token()}"))
    events = rig.gateway.traces.latest()[0].events
    assert [event.step for event in events] == ["decide", "reinitialise", "decide", "answer"]
    assert [event.told.get("instance") for event in events] == ["i-1", "i-1", "i-2", None]


async def test_it_may_be_lost_again_and_again(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    for number in range(2, 7):
        await anew.server(f"i-{number}")
        rig.forget(f"i-{number - 1}")
        for _ in range(2):
            assert at(await rig.ask(call(session))) == f"i-{number}.1"
    assert anew.reinitialised == 5


async def test_an_instance_that_comes_back_with_its_memory_has_its_sessions_back(rig: Rig, anew: Anew) -> None:
    """All gateways agree on what the catalog says, and not all of them know of a binding."""
    await anew.server("i-1")
    session = await anew.opened()
    await anew.server("i-2")
    known = rig.known("i-1")
    rig.forget("i-1")
    assert at(await rig.ask(call(session))) == "i-2.1"
    rig.know(known)
    assert at(await rig.ask(call(session))) == "i-1.1"


async def test_many_requests_wait_for_one_handshake(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    other = await rig.instance("i-2")
    rig.forget("i-1")
    clients = [await rig.client() for _ in range(10)]
    for client in clients:
        client.send(call(session))
    wire, _ = await other.request()
    await until(lambda: anew.holds.held.get("tools") == 10, "ten requests that wait")
    gone = clients.pop(0)
    gone.reset()
    await until(lambda: anew.holds.held.get("tools") == 9, "one that left")
    server = await anew.server("i-3")
    assert not other.waiting
    # It refuses in the end, and the next one is tried.
    wire.send(answer(b"", status=503))
    for client in clients:
        assert at(await client.answer()) == "i-3.1"
    assert server.asked[:2] == ["initialize", "notifications/initialized i-3.1"]
    assert server.asked[2:] == ["tools/call i-3.1"] * 9
    assert anew.reinitialised == 1
    assert anew.store.gets == 1


async def test_requests_over_the_bound_are_refused(rig: Rig, anew: Anew) -> None:
    anew.app(wake_queue=2)
    await anew.server("i-1")
    session = await anew.opened()
    other = await rig.instance("i-2")
    rig.forget("i-1")
    clients = [await rig.client() for _ in range(2)]
    for client in clients:
        client.send(call(session))
    wire, _ = await other.request()
    await until(lambda: anew.holds.held.get("tools") == 2, "two requests that wait")
    assert at(await rig.ask(call(session))) == "503 PL02"
    wire.send(answer(b"", status=400))
    for client in clients:
        assert at(await client.answer()) == "404 PS02"


async def test_a_body_that_comes_during_the_handshake_is_sent_whole(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    rig.forget("i-1")
    other = await anew.server("i-2")
    client = await rig.client()
    head = f"POST /mcp HTTP/1.1\r\nHost: tools.localhost\r\n{session}\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head.encode(), b'9\r\n{"method"\r\n')
    await until(lambda: anew.reinitialised == 1, "the handshake")
    client.send(b'3\r\n:""\r\n', b"1\r\n}\r\n0\r\n\r\n")
    assert at(await client.answer()) == "i-2.1"
    assert other.raw.requests[-1].body == b'{"method":""}'


async def test_a_new_instance_is_woken_for_it(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    rig.forget("i-1")
    rig.asleep("i-2")
    client = await rig.client()
    client.send(call(session))
    name, outcome = await rig.waker.asked.get()
    assert name == "i-2"
    await anew.server("i-2")
    outcome.set_result(rig.known("i-2"))
    assert at(await client.answer()) == "i-2.1"


@pytest.mark.parametrize("on_lost", OnLost)
async def test_an_instance_that_wakes_without_its_memory_is_no_longer_the_sessions(
    rig: Rig, anew: Anew, on_lost: OnLost
) -> None:
    anew.app(on_lost=on_lost)
    await anew.server("i-1")
    session = await anew.opened()
    rig.change("i-1", state=State.SUSPENDED, address=None, startable=True)
    client = await rig.client()
    client.send(call(session))
    _, outcome = await rig.waker.asked.get()
    again = await anew.server("i-1", incarnation="z00t2")
    outcome.set_result(rig.known("i-1"))
    assert at(await client.answer()) == ("404 PS02" if on_lost is OnLost.NOT_FOUND else "i-1.1")
    assert len(again.sessions) == (on_lost is OnLost.REINITIALIZE)


async def test_nothing_new_is_placed_on_a_cordoned_instance(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    cordoned = await anew.server("i-2", cordoned=True)
    rig.forget("i-1")
    assert at(await rig.ask(call(session))) == "503 PR01"
    assert cordoned.raw.untouched
    # Nor where a cookie would send what lives there.
    anew.app(affinity_cookie="sid")
    cookie = rig.gateway.sealer.seal_cookie("tools", Pin("i-2", INCARNATION)).decode()
    await anew.server("i-3")
    assert at(await rig.ask(call(session, f"Cookie: sid={cookie}"))) == "i-3.1"


async def test_the_sessions_of_a_lost_instance_are_spread(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    sessions = [await anew.opened() for _ in range(6)]
    servers = [await anew.server(f"i-{number}") for number in (2, 3, 4)]
    rig.forget("i-1")
    for session in sessions:
        await rig.ask(call(session))
    assert [len(server.sessions) for server in servers] == [2, 2, 2]


# --- who is not carried over ---------------------------------------------------------------


async def test_other_apps_lose_their_sessions(rig: Rig, anew: Anew) -> None:
    anew.app(on_lost=OnLost.NOT_FOUND)
    await anew.server("i-1")
    session = await anew.opened()
    anew.app()
    other = await anew.server("i-2")
    rig.forget("i-1")
    # It was not recorded.
    assert at(await rig.ask(call(session))) == "404 PS02"
    assert other.raw.untouched


async def test_without_a_carrier_what_is_lost_is_lost(rig: Rig) -> None:
    rig.app(on_lost=OnLost.REINITIALIZE)
    instance = await rig.instance("i-1")
    instance.answers(answer(b"{}", "Mcp-Session-Id: own-id"))
    made = await rig.ask(initialize(), "POST")
    rig.forget("i-1")
    assert at(await rig.ask(call(f"Mcp-Session-Id: {made.one('mcp-session-id')}"))) == "404 PS02"


@pytest.mark.parametrize("bytes_over", [0, 1])
async def test_a_long_initialize_makes_a_session_that_can_be_lost(rig: Rig, anew: Anew, bytes_over: int) -> None:
    await anew.server("i-1")
    bare = initialize(pad="").partition(b"\r\n\r\n")[2]
    session = await anew.opened(pad="x" * (MAX_BODY_BYTES - len(bare) + bytes_over))
    assert at(await rig.ask(call(session))) == "i-1.1"
    await anew.server("i-2")
    rig.forget("i-1")
    assert at(await rig.ask(call(session))) == ("404 PS02" if bytes_over else "i-2.1")


async def test_anothers_session_is_nobodys(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened(ALICE)
    other = await anew.server("i-2")
    rig.forget("i-1")
    for caller in ([], [BOB]):
        assert at(await rig.ask(call(session, *caller))) == "404 PS01"
    assert other.raw.untouched
    assert at(await rig.ask(call(session, ALICE))) == "i-2.1"
    assert at(await rig.ask(call(session, BOB))) == "404 PS01"
    assert other.asked == ["initialize", "notifications/initialized i-2.1", "tools/call i-2.1"]


async def test_stored_ids_of_two_callers_that_are_alike_stay_apart(rig: Rig, anew: Anew) -> None:
    """Each instance has made a session of the same name, as bad servers do."""
    anew.app(session_ids=SessionIds.STORED)
    one, two = await anew.server("i-1"), await anew.server("i-2")
    for server in (one, two):
        server.initialize = lambda _, own=server: (own.sessions.append("1"), answer(b"{}", "Mcp-Session-Id: 1"))[1]
    assert await anew.opened(ALICE) == await anew.opened(BOB) == "Mcp-Session-Id: 1"
    await anew.server("i-3")
    rig.forget("i-1")
    rig.forget("i-2")
    assert at(await rig.ask(call("Mcp-Session-Id: 1", ALICE))) == "i-3.1"
    assert at(await rig.ask(call("Mcp-Session-Id: 1", BOB))) == "i-3.2"
    assert at(await rig.ask(call("Mcp-Session-Id: 1", ALICE))) == "i-3.1"


async def test_a_request_that_was_sent_already_is_not_carried_over(rig: Rig, anew: Anew) -> None:
    """Not even one that may be repeated at the same instance."""
    one = await rig.instance("i-1")
    client = await rig.client()
    client.send(initialize())
    wire, _ = await one.request()
    wire.send(answer(b"{}", "Mcp-Session-Id: own-id", "Content-Type: application/json"))
    session = f"Mcp-Session-Id: {(await client.answer()).one('mcp-session-id')}"
    other = await anew.server("i-2")
    for raw, refused in ((get("/mcp", session, STREAM), "404 PS02"), (call(session), "502 PU02")):
        wire.send(b"")
        client.send(raw)
        await wire.request()
        known = rig.known("i-1")
        rig.forget("i-1")
        wire.close()
        assert at(await client.answer()) == refused
        assert other.raw.untouched
        rig.know(known)
        client.send(call(session))
        wire, _ = await one.request()
        wire.send(answer(b'{"at": "i-1"}'))
        assert at(await client.answer()) == "i-1"
    rig.forget("i-1")
    assert at(await rig.ask(call(session))) == "i-2.1"
