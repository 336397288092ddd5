"""Cached replays that lead nowhere any more: the app is asked, within the same request
(docs/reference/replay.md)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.model import Instance, ReplayKey, ReplayRule, State
from gateway.core.problems import Code, Problem
from gateway.core.remember import Target, session_place
from gateway.data.replays import MAX_ENTRIES
from tests.net.replies import HIT, IN_CACHE, MISS, TO_USER, answer, by_name, cached, get, replay, router_and_user
from tests.net.rig import RawInstance, Rig

GET = get("/u/1/a")
OK = answer()
IN_CACHE_I2 = cached("instance=i-2", "/u/1")
COOKIE = ReplayRule(ReplayKey.COOKIE, "sid", 60)


# --- targets that cannot be used -------------------------------------------------------


async def gone(rig: Rig, user: RawInstance) -> None:
    rig.forget("u-1", "user")


async def asleep(rig: Rig, user: RawInstance) -> None:
    rig.know(Instance("user", "u-1", None, state=State.STOPPED))


async def held_down(rig: Rig, user: RawInstance) -> None:
    rig.asleep("u-1", "user", held_down=True)


async def app_gone(rig: Rig, user: RawInstance) -> None:
    rig.forget_app("user")


async def refuses(rig: Rig, user: RawInstance) -> None:
    rig.gateway.pool.close()
    user.close()


async def closed_border(rig: Rig, user: RawInstance) -> None:
    rig.app("user", hosts=("user.localhost",), org="another")


@pytest.mark.parametrize("lost", [gone, asleep, held_down, app_gone, refuses, closed_border])
@pytest.mark.parametrize("kind", ["path", "session"])
async def test_a_target_that_cannot_be_used_is_forgotten_and_the_app_asked(rig: Rig, lost: Any, kind: str) -> None:
    """Within the same request, as if nothing had been remembered."""
    reply, rules = (IN_CACHE, ()) if kind == "path" else (replay(TO_USER), (COOKIE,))
    cast, router, user = await router_and_user(rig, reply, replay_cache=rules)
    raw = get("/u/1/a", "Cookie: sid=1")
    assert await cast.ways(raw, raw) == [MISS, HIT]
    arrived = len(user.requests)
    await lost(rig, user)
    cast.says("i-1", answer())
    assert await cast.ways(raw, raw) == ["i-1", "i-1"]
    assert len(rig.gateway.replays) == 0
    assert len(user.requests) == arrived
    assert rig.gateway.replays.counts["tools", "unusable"] == 1
    assert "fly-replay-failed" not in [name.lower() for name in router.requests[-1].names]


@pytest.mark.parametrize("lost", [gone, refuses])
async def test_the_app_may_then_send_it_elsewhere_and_have_that_remembered(rig: Rig, lost: Any) -> None:
    cast, _, user = await router_and_user(rig)
    await cast.instance("u-2", "user")
    await cast.way(GET)
    await lost(rig, user)
    cast.says("i-1", cached("app=user;instance=u-2", "/u/1/*"))
    assert await cast.ways(GET, GET) == ["i-1, u-2 miss", "u-2 hit"]


async def test_another_instance_that_the_entry_allows_is_no_reason_to_ask(rig: Rig) -> None:
    cast, _, user = await router_and_user(rig, cached("app=user", "/u/1/*"))
    await cast.way(GET)
    await cast.instance("u-2", "user")
    await refuses(rig, user)
    assert await cast.ways(GET, GET, GET) == ["u-2 hit"] * 3
    assert len(rig.gateway.replays) == 1


async def test_a_body_is_not_lost_with_a_cached_target(rig: Rig) -> None:
    cast, router, user = await router_and_user(rig)
    await cast.way(GET)
    await refuses(rig, user)
    cast.says("i-1", answer())
    raw = get("/u/1/a", "Content-Length: 5", method="POST") + b"hello"
    assert await cast.way(raw) == "i-1"
    assert router.requests[-1].body == b"hello"


async def test_a_sleeping_target_of_a_hit_is_woken(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig)
    await cast.way(GET)
    awake = rig.known("u-1", "user")
    rig.asleep("u-1", "user")
    client = await rig.client()
    client.send(GET)
    asked, outcome = await rig.waker.asked.get()
    assert asked == "u-1"
    rig.know(awake)
    outcome.set_result(awake)
    assert (await client.answer()).body == b"u-1"
    assert cast.asked == ["i-1", "u-1 miss", HIT]
    assert len(rig.gateway.replays) == 1


async def test_a_target_that_does_not_wake_is_forgotten_and_the_app_asked(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig)
    await cast.way(GET)
    rig.asleep("u-1", "user")
    cast.says("i-1", answer())
    client = await rig.client()
    client.send(GET)
    _, outcome = await rig.waker.asked.get()
    outcome.set_result(Problem(Code.PM02, "it does not wake", "user", "u-1"))
    assert (await client.answer()).status == 200
    assert await cast.way(GET) == "i-1"
    assert len(rig.gateway.replays) == 0


async def test_what_a_cached_target_answers_is_the_answer(rig: Rig) -> None:
    """It was reached: an error of its own is no reason to ask the app."""
    cast, *_ = await router_and_user(rig)
    await cast.way(GET)
    cast.says("u-1", answer(status=503))
    assert await cast.way(GET) == "u-1 hit, 503"
    assert len(rig.gateway.replays) == 1


async def test_a_border_closed_since_is_closed_for_cached_replays_too(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, org="one")
    rig.app("user", hosts=("user.localhost",), org="two", replay_sources=("app:tools",))
    assert await cast.ways(GET, GET) == [MISS, HIT]
    rig.app("user", hosts=("user.localhost",), org="two", replay_sources=("app:another",))
    assert await cast.ways(GET, GET) == ["i-1, 502 PA05"] * 2
    rig.app("user", hosts=("user.localhost",), org="two", replay_sources=("app:tools",))
    assert await cast.way(GET) == MISS


# --- bounds ----------------------------------------------------------------------------


async def test_the_entry_used_longest_ago_goes_when_an_app_has_too_many(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, by_name, replay_cache=(COOKIE,))
    rig.app("next", hosts=("next.localhost",), replay_cache=(COOKIE,))
    await cast.instance("n-1", "next", replay(TO_USER))
    ids = ["u-1", "u-2", "u-3"]
    await cast.instance("u-2", "user")
    await cast.instance("u-3", "user")
    for id in ids:
        await cast.way(get("/", f"Cookie: sid={id}"))
    other = get("/", "Cookie: sid=u-1", host="next.localhost")
    await cast.way(other)
    # As other requests would have made them.
    app, replays = rig.gateway.catalog.app("tools"), rig.gateway.replays
    assert app is not None

    class Head:
        method, query, values = b"GET", b"", {b"cookie": b""}

    for number in range(MAX_ENTRIES - 3):
        Head.values = {b"cookie": b"sid=%d" % number}
        place = session_place(app.app, "tools.localhost", b"/", Head())
        assert place is not None
        replays.put(app.app, "tools.localhost", place, Target("user", "u-1"))
    assert replays.keys("tools") == 10_000
    assert await cast.way(get("/", "Cookie: sid=u-1")) == HIT
    assert await cast.way(get("/", "Cookie: sid=new")) == "i-1, 502 PR02"
    assert replays.keys("tools") == 10_000
    cast.says("i-1", replay(TO_USER))
    await cast.way(get("/", "Cookie: sid=new"))
    assert replays.keys("tools") == 10_000
    assert replays.counts["tools", "evicted"] == 1
    cast.says("i-1", by_name)
    # Not the oldest, which was used since; and not another app's.
    assert await cast.ways(get("/", "Cookie: sid=u-1"), get("/", "Cookie: sid=u-3"), other) == [HIT, "u-3 hit", HIT]
    assert await cast.way(get("/", "Cookie: sid=u-2")) == "i-1, u-2 miss"


async def test_a_target_that_dies_under_an_idle_connection_is_forgotten_too(rig: Rig) -> None:
    """The request was sent on it and may be sent again; the redial fails, and the app is asked."""
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    replies = [IN_CACHE_I2, answer()]
    one.answers(lambda _: replies.pop(0))
    client = await rig.client()
    client.send(GET)
    wire, _ = await other.request()
    wire.send(OK)
    assert (await client.answer()).status == 200
    assert rig.gateway.replays.keys("tools") == 1
    other.close()
    client.send(GET)
    assert (await wire.request()).one("fly-replay-cache-status") == "hit"
    wire.close()
    assert (await client.answer()).status == 200
    assert rig.gateway.replays.keys("tools") == 0
