"""Who may go past a replay cache, and how an app takes back what it allowed (docs/reference/replay.md)."""

from __future__ import annotations

import pytest

from gateway.core.model import ReplayKey, ReplayRule
from tests.net.replies import HIT, MISS, TO_USER, answer, cached, get, replay, replay_json, router_and_user
from tests.net.rig import Rig

SKIP = "fly-replay-cache-control: skip"
GET = get("/u/1/a")
COOKIE = ReplayRule(ReplayKey.COOKIE, "sid", 60)


# --- bypass and invalidate -------------------------------------------------------------


@pytest.mark.parametrize("said", ["fly-replay-cache-control: skip", "FLY-Replay-Cache-Control:  SKIP "])
async def test_a_client_may_skip_an_entry_that_allows_it(rig: Rig, said: str) -> None:
    cast, router, user = await router_and_user(rig, cached(TO_USER, "/u/1/*", bypass="Yes"))
    skip = get("/u/1/a", said)
    # With nothing to be skipped it is a miss.
    assert await cast.ways(skip, skip, GET) == [MISS, "i-1 bypass, u-1 bypass", HIT]
    for request in (*router.requests, *user.requests):
        assert "fly-replay-cache-control" not in [name.lower() for name in request.names]
    assert rig.gateway.replays.counts["tools", "bypass"] == 1


@pytest.mark.parametrize("bypass", ["", "no", "No"])
async def test_a_client_may_not_skip_what_does_not_allow_it(rig: Rig, bypass: str) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/u/1/*", bypass=bypass))
    assert await cast.ways(GET, get("/u/1/a", SKIP)) == [MISS, HIT]


@pytest.mark.parametrize("control", ["no-cache", "skip, skip", "skip;", "yes", ""])
async def test_another_word_than_skip_is_ignored(rig: Rig, control: str) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/u/1/*", bypass="yes"))
    assert await cast.ways(GET, get("/u/1/a", f"fly-replay-cache-control: {control}")) == [MISS, HIT]


@pytest.mark.parametrize("bypass", ["true", "1", "yes, yes", "maybe", '"yes"'])
async def test_whether_it_may_be_skipped_is_said_by_yes_or_no(rig: Rig, bypass: str) -> None:
    cast, _, user = await router_and_user(rig, cached(TO_USER, "/u/1/*", bypass=bypass))
    assert await cast.way(GET) == "i-1, 502 PA03"
    assert user.untouched


async def test_an_app_that_answers_a_skip_itself_leaves_the_entry(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/u/1/*", bypass="yes"))
    await cast.way(GET)
    cast.says("i-1", answer())
    assert await cast.ways(get("/u/1/a", SKIP), GET) == ["i-1 bypass", HIT]


@pytest.mark.parametrize("word", ["invalidate", "Invalidate"])
async def test_the_target_invalidates_what_is_cached_for_the_request(rig: Rig, word: str) -> None:
    """Together with a replay back to where the request came from: by path and by session."""
    cast, _, _ = await router_and_user(rig, replay_cache=(COOKIE,))
    raw = get("/u/1/a", "Cookie: sid=1")
    # Both kinds, and another user's.
    assert await cast.ways(raw, get("/u/1/a"), get("/u/2/a", "Cookie: sid=2")) == [MISS, HIT, MISS]
    assert len(rig.gateway.replays) == 3
    cast.says("u-1", replay("app=tools", f"fly-replay-cache: {word}"))
    cast.says("i-1", answer())
    assert await cast.way(raw) == "u-1 hit, i-1 miss"
    assert await cast.ways(raw, get("/u/1/a")) == ["i-1", "i-1"]
    assert len(rig.gateway.replays) == 1


async def test_an_entry_is_invalidated_by_whom_a_replay_just_led_to(rig: Rig) -> None:
    """Not only on a hit; and the app may replay and cache anew in answer to it."""
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/u/1/*", bypass="yes"))
    await cast.instance("u-2", "user")
    await cast.way(GET)
    cast.says("u-1", replay("app=tools", "fly-replay-cache: invalidate"))
    cast.says("i-1", lambda request: answer() if request.one("fly-replay-src") else cached(TO_USER, "/u/1/*"))
    assert await cast.way(get("/u/1/a", SKIP)) == "i-1 bypass, u-1 bypass, i-1 bypass"
    assert len(rig.gateway.replays) == 0


async def test_a_replay_that_invalidates_is_not_cached_itself(rig: Rig) -> None:
    reply = replay(TO_USER, "fly-replay-cache: invalidate")
    cast, *_ = await router_and_user(rig, reply, replay_cache=(COOKIE,))
    raw = get("/u/1/a", "Cookie: sid=1")
    assert await cast.ways(raw, raw) == [MISS, MISS]
    assert len(rig.gateway.replays) == 0


# --- the JSON form ---------------------------------------------------------------------


async def test_the_json_form_caches_by_path(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, replay_json(app="user", instance="u-1", cache={"prefix": "/u/1", "ttl": 10}))
    assert await cast.ways(GET, get("/u/1/b", SKIP)) == [MISS, HIT]
    rig.sweep(10)
    assert await cast.way(GET) == MISS


@pytest.mark.parametrize("where", ["inside", "beside", "both"])
async def test_the_json_form_says_whether_it_may_be_skipped(rig: Rig, where: str) -> None:
    order: dict[str, object] = {"prefix": "tools.localhost/u/1/*", "ttl": 60}
    fields: dict[str, object] = {"app": "user", "instance": "u-1", "cache": order}
    if where != "beside":
        order["allow_bypass"] = True
    if where != "inside":
        fields["allow_bypass"] = True
    cast, *_ = await router_and_user(rig, replay_json(**fields))
    assert await cast.ways(GET, get("/u/1/a", SKIP)) == [MISS, "i-1 bypass, u-1 bypass"]


@pytest.mark.parametrize("order", [{"prefix": "/u/2", "ttl": 60}, {"prefix": "/u/1", "ttl": 9}])
async def test_a_cache_in_json_that_does_not_hold_is_not_kept(rig: Rig, order: dict[str, object]) -> None:
    cast, *_ = await router_and_user(rig, replay_json(app="user", instance="u-1", cache=order))
    assert await cast.ways(GET, GET) == [MISS, MISS]
    assert len(rig.gateway.replays) == 0


async def test_the_json_form_invalidates(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig)
    await cast.way(GET)
    cast.says("u-1", replay_json(app="tools", cache={"invalidate": True}))
    cast.says("i-1", answer())
    assert await cast.ways(GET, GET) == ["u-1 hit, i-1 miss", "i-1"]
