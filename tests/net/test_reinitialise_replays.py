"""Sessions that a replay made in another app begin anew within that app
(docs/adr/0017-lost-sessions-are-initialised-anew.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.core.model import OnLost, SessionIds
from tests.net.anew import Anew, Server, at, call, carrying
from tests.net.replies import Reply, get, replay, replay_json
from tests.net.rig import Rig

SECRET = "Authorization: Bearer s3cret"
ADDS = [
    replay("app=user;state=cart-17"),
    replay_json(app="user", transform={"set_headers": [{"name": "X-Key", "value": "theirs"}]}),
]


@pytest.fixture
async def anew(rig: Rig) -> AsyncIterator[Anew]:
    async with carrying(rig) as one:
        yield one


async def scene(anew: Anew, reply: Reply, *, org: str = "default", **settings: object) -> Server:
    """A router that replays to a server of the app `user`, and another instance of its own."""
    anew.app("tools", on_lost=OnLost.NOT_FOUND, **settings)
    anew.app("user", hosts=("user.localhost",), org=org, replay_sources=("app:tools",))
    router = await anew.rig.instance("i-1")
    router.answers(reply)
    await anew.rig.instance("i-9", cordoned=True)
    return await anew.server("u-1", "user")


@pytest.mark.parametrize("ids", SessionIds)
@pytest.mark.parametrize("org", ["default", "theirs"])
async def test_they_go_straight_to_an_instance_of_that_app(rig: Rig, anew: Anew, org: str, ids: SessionIds) -> None:
    await scene(anew, replay("app=user"), org=org, session_ids=ids)
    session = await anew.opened(SECRET)
    assert at(await rig.ask(call(session, SECRET))) == "u-1.1"
    other = await anew.server("u-2", "user")
    rig.forget("u-1", "user")
    for _ in range(2):
        answered = await rig.ask(call(session, SECRET))
        assert at(answered) == "u-2.1"
        assert f"Mcp-Session-Id: {answered.one('mcp-session-id')}" == session
    assert other.asked == ["initialize", "notifications/initialized u-2.1", *["tools/call u-2.1"] * 2]
    # Credentials cross no border, not even with a handshake.
    expected = {"Bearer s3cret"} if org == "default" else {None}
    assert {request.one("authorization") for request in other.raw.requests} == expected
    assert anew.reinitialised == 1


@pytest.mark.parametrize("reply", ADDS)
async def test_what_their_app_adds_is_in_the_handshake_too(rig: Rig, anew: Anew, reply: bytes) -> None:
    await scene(anew, reply)
    session = await anew.opened()
    other = await anew.server("u-2", "user")
    rig.forget("u-1", "user")
    for _ in range(2):
        assert at(await rig.ask(call(session))) == "u-2.1"
    assert other.asked == ["initialize", "notifications/initialized u-2.1", *["tools/call u-2.1"] * 2]
    # Its first stream there begins without an event id of the other life.
    for last_event_id in (None, "e-7"):
        assert at(await rig.ask(get("/mcp", session, "Accept: text/event-stream", "Last-Event-ID: e-7"))) == "u-2.1"
        assert other.raw.requests[-1].one("last-event-id") == last_event_id
    for request in other.raw.requests:
        assert request.one("x-key") == "theirs" or "state=cart-17" in (request.one("fly-replay-src") or "")
    third = await anew.server("u-3", "user")
    rig.forget("u-2", "user")
    assert at(await rig.ask(call(session))) == "u-3.1"
    assert third.asked[0] == "initialize"


async def test_the_app_of_the_instance_decides(rig: Rig, anew: Anew) -> None:
    """Only it knows what its sessions hold."""
    await scene(anew, replay("app=user"))
    anew.app("tools")
    anew.app("user", hosts=("user.localhost",), on_lost=OnLost.NOT_FOUND)
    session = await anew.opened()
    other = await anew.server("u-2", "user")
    rig.forget("u-1", "user")
    assert at(await rig.ask(call(session))) == "404 PS02"
    assert other.raw.untouched


async def test_where_their_app_is_gone_they_are_lost(rig: Rig, anew: Anew) -> None:
    await scene(anew, replay("app=user"))
    anew.app("tools")
    session = await anew.opened()
    rig.forget_app("user")
    assert at(await rig.ask(call(session))) == "404 PS02"
