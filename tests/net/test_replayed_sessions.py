"""MCP sessions that a replay makes in another app: they keep their instance, whoever replayed to it
(docs/reference/replay.md, "Between apps: borders")."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.core.model import AppProtocol, SessionIds, State
from tests.net.replies import MISS, Cast, Reply, answer, cached, get, post, replay, replay_json, two_orgs
from tests.net.rig import RawInstance, Rig
from tests.net.wire import Message

SECRET = "Authorization: Bearer s3cret"
STREAM = "Accept: text/event-stream"
TO_ONE = replay("app=user;instance=u-1")
BOTH = pytest.mark.parametrize("ids", [SessionIds.SEALED, SessionIds.STORED])
ADDS = [
    replay("app=user;state=cart-17"),
    replay("app=user;state="),
    replay_json(app="user", transform={"set_headers": [{"name": "Authorization", "value": "Bearer theirs"}]}),
]


def serves(request: Message) -> bytes:
    """An MCP server whose only session is `own-id`."""
    if request.first.startswith(b"DELETE"):
        return answer(b"")
    if b'"initialize"' in request.body:
        assert request.one("mcp-session-id") is None
    return answer(b"{}", "Mcp-Session-Id: own-id", "Content-Type: application/json")


async def opened(rig: Rig, cast: Cast, *lines: str) -> str:
    """The session's header, as its client sends it from now on."""
    got = await rig.ask(post("initialize", *lines), "POST")
    token = got.one("mcp-session-id")
    assert (got.status, cast.asked[-1]) == (200, "u-1 miss")
    assert token is not None
    return f"Mcp-Session-Id: {token}"


async def scene(
    rig: Rig, reply: Reply = b"", ids: SessionIds = SessionIds.SEALED
) -> tuple[Cast, RawInstance, RawInstance]:
    """A router and, in another org, a server with another instance beside its own."""
    cast, router, user = await two_orgs(rig, reply or replay("app=user;instance=u-1"), session_ids=ids)
    cast.says("u-1", serves)
    await cast.instance("u-2", "user", serves)
    return cast, router, user


def later(session: str, *lines: str) -> list[bytes]:
    """What a client sends in its session."""
    return [
        post("tools/call", session, *lines),
        get("/mcp", session, STREAM, *lines),
        post("notifications/cancelled", session, *lines),
        get("/mcp", session, *lines, method="DELETE"),
    ]


@BOTH
async def test_later_requests_go_straight_to_the_sessions_instance(rig: Rig, ids: SessionIds) -> None:
    """Its app is not asked. Nobody tells of a replay, for there is none."""
    cast, router, user = await scene(rig, ids=ids)
    session = await opened(rig, cast, SECRET)
    assert session.endswith("own-id")
    assert await cast.ways(*later(session, SECRET)) == ["u-1"] * 4
    assert len(router.requests) == 1
    for request in user.requests[1:]:
        assert request.one("mcp-session-id") == "own-id"
        assert not [name for name in request.names if name.lower().startswith("fly-replay")]
        # What did not cross the border with the first one does not later.
        assert "authorization" not in [name.lower() for name in request.names]
    # The DELETE was the end of it.
    assert await cast.way(post("tools/call", session, SECRET)) == "404 PS03"


@BOTH
async def test_they_do_so_wherever_the_app_would_send_them_now(rig: Rig, ids: SessionIds) -> None:
    cast, *_ = await scene(rig, ids=ids)
    session = await opened(rig, cast)
    cast.says("i-1", replay("app=user;instance=u-2"))
    await rig.instance("i-2")
    assert await cast.ways(*[post("tools/call", session)] * 4) == ["u-1"] * 4


@BOTH
@pytest.mark.parametrize("reply", ADDS)
async def test_with_state_or_a_transform_the_app_is_asked_each_time(rig: Rig, ids: SessionIds, reply: bytes) -> None:
    """The target would miss what it adds. The replay need not name the session's instance: its own is used."""
    cast, _, user = await scene(rig, reply, ids)
    rig.change("u-2", "user", cordoned=True)
    session = await opened(rig, cast, SECRET)
    rig.change("u-2", "user", cordoned=False)
    # Placed anew, each second one would go to u-2.
    assert await cast.ways(*later(session, SECRET)) == [MISS] * 4
    assert len({request.one("fly-replay-src") for request in user.requests}) == 5
    for request in user.requests[1:]:
        assert request.one("mcp-session-id") == "own-id"
        assert (request.one("fly-replay-src") or "").endswith(";state=cart-17" if b"cart" in reply else ";state=")
        assert request.one("authorization") == ("Bearer theirs" if b"theirs" in reply else None)


async def test_the_app_may_name_the_sessions_instance_all_the_same(rig: Rig) -> None:
    cast, _, user = await scene(rig, replay("app=user;instance=u-1;state=a"))
    session = await opened(rig, cast)
    assert await cast.ways(*later(session)) == [MISS] * 4
    assert {request.one("mcp-session-id") for request in user.requests[1:]} == {"own-id"}


async def test_a_session_by_a_replay_within_one_app_is_its_targets(rig: Rig) -> None:
    cast = Cast(rig)
    await cast.instance("i-1", "tools", replay("instance=i-2"))
    await cast.instance("i-2", "tools", serves)
    got = await rig.ask(post("initialize", "fly-prefer-instance-id: i-1"), "POST")
    session = f"Mcp-Session-Id: {got.one('mcp-session-id')}"
    assert await cast.ways(*later(session)) == ["i-2"] * 4


async def test_an_app_that_is_asked_may_send_a_request_of_the_session_to_another_app(rig: Rig) -> None:
    """The session's instance is none of that app's."""
    cast, *_ = await scene(rig, replay("app=user;instance=u-1;state=a"))
    rig.app("third", org="one", hosts=("third.localhost",))
    third = await cast.instance("t-1", "third", answer(b"{}"))
    session = await opened(rig, cast)
    cast.says("i-1", replay("app=third;state=a"))
    assert await cast.way(post("tools/call", session)) == "i-1, t-1 miss"
    assert len(third.requests) == 1


async def test_what_its_instance_would_cache_is_not(rig: Rig) -> None:
    """Who asks for it is not of the app that the client addressed."""
    cast, *_ = await scene(rig)
    session = await opened(rig, cast)
    cast.says("u-1", cached("instance=u-2", "/"))
    assert await cast.ways(*[post("tools/call", session)] * 2) == ["u-1, u-2 miss"] * 2
    assert len(rig.gateway.replays) == 0


async def test_an_app_that_speaks_no_mcp_is_asked_each_time(rig: Rig) -> None:
    """Its sessions are none to the gateway; the header is its client's and the target's own."""
    cast, _, user = await scene(rig)
    rig.app("tools", org="two", hosts=("tools.localhost",), protocol=AppProtocol.HTTP)
    got = await rig.ask(post("initialize"), "POST")
    assert got.one("mcp-session-id") == "own-id"
    assert await cast.ways(*later("Mcp-Session-Id: own-id")) == [MISS] * 4
    assert user.requests[-1].one("mcp-session-id") == "own-id"


@BOTH
async def test_an_id_is_its_addressed_apps_and_unknown_elsewhere(rig: Rig, ids: SessionIds) -> None:
    """Also at the app whose instance holds the session."""
    cast, _, user = await scene(rig, ids=ids)
    rig.app("user", org="two", hosts=("user.localhost",), replay_sources=("org:one",), session_ids=ids)
    session = await opened(rig, cast)
    arrived = len(user.requests)
    for raw in later(session):
        assert await cast.way(raw.replace(b"tools.localhost", b"user.localhost")) == "404 PS01"
    assert len(user.requests) == arrived
    got = await rig.ask(
        post("initialize", host="user.localhost").replace(b"\r\n", b"\r\nfly-force-instance-id: u-1\r\n", 1)
    )
    theirs = f"Mcp-Session-Id: {got.one('mcp-session-id')}"
    assert await cast.way(post("tools/call", theirs, host="user.localhost")) == "u-1"
    if ids is SessionIds.SEALED:
        assert await cast.way(post("tools/call", theirs)) == "404 PS01"


@BOTH
async def test_an_id_is_its_makers(rig: Rig, ids: SessionIds) -> None:
    cast, *_ = await scene(rig, ids=ids)
    session = await opened(rig, cast, SECRET)
    assert await cast.way(post("tools/call", session, "Authorization: Bearer another")) == "404 PS01"
    assert await cast.way(post("tools/call", session)) == "404 PS01"
    assert await cast.way(post("tools/call", session, SECRET)) == "u-1"


# --- what ends it --------------------------------------------------------------------------


@BOTH
async def test_a_border_that_was_closed_is_closed_for_its_sessions(rig: Rig, ids: SessionIds) -> None:
    cast, router, user = await scene(rig, ids=ids)
    session = await opened(rig, cast)
    assert await cast.way(post("tools/call", session)) == "u-1"
    arrived = len(user.requests)
    rig.app("user", org="two", hosts=("user.localhost",), replay_sources=("org:other",))
    assert await cast.ways(*later(session)) == ["502 PA05"] * 4
    assert (len(router.requests), len(user.requests)) == (1, arrived)
    assert rig.gateway.counters.problems["tools", "PA05"] == 4
    # It is a border, not an end: opened again, the session is where it was.
    rig.app("user", org="two", hosts=("user.localhost",), replay_sources=("app:tools",))
    assert await cast.way(post("tools/call", session)) == "u-1"


@pytest.mark.parametrize("reply", ADDS)
async def test_also_where_the_app_is_asked_each_time(rig: Rig, reply: bytes) -> None:
    cast, _, user = await scene(rig, reply)
    rig.change("u-2", "user", cordoned=True)
    session = await opened(rig, cast)
    rig.app("user", org="two", hosts=("user.localhost",))
    assert await cast.ways(*later(session)) == ["i-1, 502 PA05"] * 4
    assert len(user.requests) == 1


def app_gone(rig: Rig) -> None:
    rig.forget_app("user")


def gone(rig: Rig) -> None:
    rig.forget("u-1", "user")


def begun_anew(rig: Rig) -> None:
    rig.change("u-1", "user", incarnation="b00t2")


def stopped(rig: Rig) -> None:
    rig.change("u-1", "user", state=State.STOPPED, address=None, startable=True)


@pytest.mark.parametrize("lose", [app_gone, gone, begun_anew, stopped])
@BOTH
async def test_a_session_is_lost_with_its_instance(rig: Rig, ids: SessionIds, lose: Callable[[Rig], None]) -> None:
    """No other instance is asked in its place, and no app."""
    cast, *_ = await scene(rig, ids=ids)
    session = await opened(rig, cast)
    lose(rig)
    assert await cast.ways(*later(session)) == ["404 PS02"] * 4


async def test_its_instance_is_waited_for_as_any_sessions_is(rig: Rig) -> None:
    """A suspended one still has its memory."""
    cast, *_ = await scene(rig)
    session = await opened(rig, cast)
    awake = rig.known("u-1", "user")
    rig.change("u-1", "user", state=State.SUSPENDED, address=None, startable=True)
    client = await rig.client()
    client.send(post("tools/call", session))
    asked, outcome = await rig.waker.asked.get()
    assert asked == "u-1"
    rig.know(awake)
    outcome.set_result(awake)
    assert (await client.answer()).one("mcp-session-id") == session.partition(": ")[2]
    assert cast.asked == ["i-1", "u-1 miss", "u-1"]


async def test_the_client_does_not_steer_it_elsewhere(rig: Rig) -> None:
    cast, *_ = await scene(rig)
    await cast.instance("i-2", "tools")
    session = await opened(rig, cast, "fly-prefer-instance-id: i-1")
    for line in ("fly-prefer-instance-id: u-2", "fly-prefer-instance-id: i-2", "fly-force-region: gru"):
        assert await cast.way(post("tools/call", session, line)) == "u-1", line
    assert await cast.way(post("tools/call", session, "fly-force-instance-id: u-1")) == "u-1"
    for id in ("u-2", "i-1", "nobody"):
        assert await cast.way(post("tools/call", session, f"fly-force-instance-id: {id}")) == "421 PS05", id


# --- 2024-11-05 ----------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [TO_ONE, replay("app=user;instance=u-1;state=a")])
async def test_the_posts_of_a_replayed_stream_go_where_it_is(rig: Rig, reply: bytes) -> None:
    cast, router, user = await two_orgs(rig, reply)
    event = b"event: endpoint\ndata: /messages?session_id=1\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    open_stream = head + b"%x\r\n%b\r\n" % (len(event), event)
    cast.says("u-1", lambda told: open_stream if told.first.startswith(b"GET") else answer(status=202))
    client = await rig.client()
    client.send(get("/sse", STREAM))
    await client.head()
    endpoint = (await client.until(b"\n\n")).partition(b"data: ")[2].strip().decode()
    assert "session_id=1" in endpoint
    asked = "i-1, u-1 miss" if b"state" in reply else "u-1"
    await rig.instance("i-2", "tools")
    rig.change("i-2", "tools", cordoned=True)
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    assert await cast.way(get(endpoint, *lines, method="POST") + body) == f"{asked}, 202"
    assert user.requests[-1].first == b"POST /messages?session_id=1 HTTP/1.1"
    assert user.requests[-1].body == body
    assert len(router.requests) == 1 + ("i-1" in asked)


# --- 2026-07-28 ----------------------------------------------------------------------------


def modern(method: str, params: dict[str, object], *lines: str) -> bytes:
    """A request of the revision without sessions."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    own = ("MCP-Protocol-Version: 2026-07-28", f"Mcp-Method: {method}", f"Content-Length: {len(body)}")
    return get("/mcp", *own, "Content-Type: application/json", *lines, method="POST") + body.encode()


@pytest.mark.parametrize("reply", [TO_ONE, replay("app=user;instance=u-1;state=a")])
@pytest.mark.parametrize("kind", ["task", "input_required"])
async def test_what_a_target_hands_out_comes_back_to_it(rig: Rig, reply: bytes, kind: str) -> None:
    """A task, or a state that the client is to bring back."""
    cast, *_ = await scene(rig, reply)
    result: dict[str, object] = {"resultType": kind, "taskId": "t-1", "requestState": "s-1"}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    cast.says("u-1", answer(body, "Content-Type: application/json"))
    assert await cast.way(modern("tools/call", {})) == MISS
    cast.says("i-1", replay("app=user;state=a"))
    raw = modern("tools/call", {"requestState": "s-1"})
    if kind == "task":
        raw = modern("tasks/get", {}, "Mcp-Name: t-1")
    assert await cast.ways(raw, raw, raw) == ["u-1" if reply is TO_ONE else MISS] * 3
