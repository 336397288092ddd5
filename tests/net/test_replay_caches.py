"""Replay caches by path: what is repeated without its app, for which requests, and until when
(docs/reference/replay.md)."""

from __future__ import annotations

import pytest

from gateway.core.model import ReplayKey, ReplayRule
from tests.net.replies import HIT, IN_CACHE, MISS, TO_USER, answer, cached, get, replay, replay_json, router_and_user
from tests.net.rig import Rig

SKIP = "fly-replay-cache-control: skip"
GET = get("/u/1/a")
COOKIE = ReplayRule(ReplayKey.COOKIE, "sid", 60)


# --- by path ---------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["/u/1/*", "/u/1", "/u/1/", "tools.localhost/u/1/*", "TOOLS.localhost/u/1"])
async def test_a_cached_replay_is_repeated_for_what_its_pattern_matches(rig: Rig, pattern: str) -> None:
    """Whole segments, and a trailing `/*` is implied."""
    cast, *_ = await router_and_user(rig, cached(TO_USER, pattern))
    assert await cast.way(GET) == MISS
    for target in ("/u/1/a", "/u/1", "/u/1/", "/u/1/b/c?d=/e", "/u/1?a"):
        assert await cast.way(get(target)) == HIT, target
    cast.says("i-1", replay(TO_USER))
    for target in ("/u/12", "/u/1x/a", "/u", "/", "/u/2/a", "/x/u/1/a", "/U/1/a", "/?/u/1/a"):
        assert await cast.way(get(target)) == MISS, target


@pytest.mark.parametrize("pattern", ["/", "/*", "tools.localhost/*"])
async def test_a_pattern_may_match_every_path(rig: Rig, pattern: str) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, pattern))
    assert await cast.ways(GET, get("/"), get("/other/path")) == [MISS, HIT, HIT]


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE", "PATCH"])
async def test_the_method_does_not_matter(rig: Rig, method: str) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/u/1/*"))
    await cast.way(GET)
    cast.says("u-1", answer(b"") if method == "HEAD" else answer())
    assert await cast.way(get("/u/1/a", "Content-Length: 0", method=method)) == HIT


async def test_a_path_is_compared_as_the_client_sent_it(rig: Rig) -> None:
    """Byte for byte, and before the app's own path is taken off."""
    cast, router, user = await router_and_user(rig, cached(TO_USER, "/api/u/%31"), path="/api", strip_path=True)
    assert await cast.ways(get("/api/u/%31/a"), get("/api/u/%31/b"), get("/api/u/1/a")) == [MISS, HIT, MISS]
    assert router.requests[0].first == b"GET /u/%31/a HTTP/1.1"
    # What its own app took off does not come back for the target.
    assert user.requests[1].first == b"GET /u/%31/b HTTP/1.1"


async def test_the_longest_prefix_decides(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig)
    await cast.instance("u-2", "user")
    await cast.way(GET)
    cast.says("i-1", cached("app=user;instance=u-2", "/u"))
    assert await cast.way(get("/u/2")) == "i-1, u-2 miss"
    assert await cast.ways(get("/u/1/b"), get("/u/3"), get("/u/1")) == [HIT, "u-2 hit", HIT]


@pytest.mark.parametrize(
    "pattern", ["/u/2/*", "/u/1/a/b", "/u/1/aa", "other.localhost/u/1/*", "localhost/u/1", "/U/1/*", "/u/1/A"]
)
async def test_a_pattern_that_does_not_match_the_request_is_not_cached(rig: Rig, pattern: str) -> None:
    """The replay is carried out all the same."""
    cast, *_ = await router_and_user(rig, cached(TO_USER, pattern))
    assert await cast.ways(GET, GET) == [MISS, MISS]
    assert len(rig.gateway.replays) == 0


@pytest.mark.parametrize("ttl", ["0", "1", "9"])
async def test_less_than_ten_seconds_are_not_cached(rig: Rig, ttl: str) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/u/1/*", ttl))
    assert await cast.ways(GET, GET) == [MISS, MISS]


@pytest.mark.parametrize("ttl", [10, 60])
async def test_an_entry_ends_with_its_time(rig: Rig, ttl: int) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/u/1/*", ttl))
    await cast.way(GET)
    rig.sweep(ttl - 0.5)
    # It is not used that makes it last longer.
    assert await cast.way(GET) == HIT
    rig.sweep(0.5)
    assert await cast.ways(GET, GET) == [MISS, HIT]


async def test_entries_are_kept_per_host(rig: Rig) -> None:
    """Of one app, and whatever the port."""
    cast, *_ = await router_and_user(rig)
    other = get("/u/1/a", host="other.localhost")
    assert await cast.ways(GET, other, other) == [MISS, MISS, HIT]
    assert await cast.ways(get("/u/1", host="Tools.LOCALHOST:8443"), get("/u/1", host="third")) == [HIT, MISS]


async def test_entries_of_two_apps_do_not_mix(rig: Rig) -> None:
    """Not even on one host: an entry is its app's."""
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/"), hosts=("tools.localhost",))
    rig.app("next", hosts=("tools.localhost",), path="/n")
    await cast.instance("n-1", "next")
    assert await cast.ways(GET, get("/n/a"), get("/m/a")) == [MISS, "n-1", HIT]


async def test_the_last_replay_is_what_is_remembered(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/u/1/*", bypass="yes"))
    await cast.instance("u-2", "user")
    await cast.way(GET)
    cast.says("i-1", cached("app=user;instance=u-2", "/u/1/*"))
    assert await cast.way(get("/u/1/a", SKIP)) == "i-1 bypass, u-2 bypass"
    assert await cast.way(GET) == "u-2 hit"


# --- what a hit is ---------------------------------------------------------------------


async def test_a_hit_is_told_as_one_and_has_no_source(rig: Rig) -> None:
    cast, router, user = await router_and_user(rig)
    assert await cast.ways(GET, get("/u/1/b?c", "X-One: 1")) == [MISS, HIT]
    first, second = user.requests
    assert first.one("fly-replay-src") is not None
    assert first.one("fly-replay-cache-status") == "miss"
    assert (second.first, second.one("x-one")) == (b"GET /u/1/b?c HTTP/1.1", "1")
    assert not {"fly-replay-src", "fly-replay-failed"} & {name.lower() for name in second.names}
    assert router.requests[0].one("fly-replay-cache-status") is None
    assert rig.gateway.replays.counts["tools", "hit"] == 1
    assert rig.gateway.replays.counts["tools", "made"] == 1


@pytest.mark.parametrize(
    "value", ["instance=i-2", "prefer_instance=i-2", "region=fra", 'region="ams,eu"', "instance=i-2;elsewhere=false"]
)
async def test_every_target_can_be_cached(rig: Rig, value: str) -> None:
    """Of the same app too."""
    cast, *_ = await router_and_user(rig, cached(value, "/u/1/*"))
    await cast.instance("i-2", region="fra")
    assert await cast.way(get("/u/1/a", "fly-prefer-instance-id: i-1")) == "i-1, i-2 miss"
    assert await cast.ways(GET, GET) == ["i-2 hit", "i-2 hit"]


async def test_an_app_alone_is_cached_as_such(rig: Rig) -> None:
    """Each request is placed anew."""
    cast, *_ = await router_and_user(rig, cached("app=user", "/u/1/*"))
    await cast.instance("u-2", "user")
    seen = {await cast.way(GET) for _ in range(5)}
    assert seen == {"i-1, u-1 miss", "u-1 hit", "u-2 hit"}


async def test_a_preferred_instance_that_is_not_taken_is_told_on_a_hit_too(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, cached("app=user;prefer_instance=u-1", "/u/1/*"))
    other = await cast.instance("u-2", "user")
    await cast.way(GET)
    rig.change("u-1", "user", healthy=False)
    assert await cast.way(GET) == "u-2 hit"
    assert other.requests[0].one("fly-preferred-instance-unavailable") == "u-1"
    rig.change("u-1", "user", healthy=True)
    assert await cast.way(GET) == HIT


async def test_a_hit_leaves_the_clients_credentials_in_their_org(rig: Rig) -> None:
    cast, _, user = await router_and_user(rig, cached(TO_USER, "/u/1/*"), org="one")
    rig.app("user", hosts=("user.localhost",), org="two", replay_sources=("org:one",))
    raw = get("/u/1/a", "Authorization: Bearer a", "Cookie: a=b", "X-One: 1")
    assert await cast.ways(raw, raw) == [MISS, HIT]
    assert not {"authorization", "cookie"} & {name.lower() for name in user.requests[1].names}
    assert user.requests[1].one("x-one") == "1"


async def test_a_cached_replay_comes_before_the_clients_wishes_but_not_its_order(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig)
    await cast.instance("i-2", region="fra")
    assert await cast.way(get("/u/1/a", "fly-force-instance-id: i-1")) == MISS
    assert await cast.way(get("/u/1/a", "fly-prefer-instance-id: i-2")) == HIT
    assert await cast.way(get("/u/1/a", "fly-force-instance-id: i-2")) == "i-2"


async def test_a_replay_by_the_target_of_a_hit_is_followed(rig: Rig) -> None:
    """And its own cache is not: it was not the first replay of its request."""
    cast, *_ = await router_and_user(rig)
    await cast.instance("u-2", "user")
    await cast.way(GET)
    cast.says("u-1", cached("instance=u-2", "/u/1/*"))
    assert await cast.ways(GET, GET) == ["u-1 hit, u-2 miss"] * 2
    assert len(rig.gateway.replays) == 1


async def test_nor_is_it_within_one_app(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, cached("instance=i-2", "/u/1/*"))
    await cast.instance("i-2", reply=cached("instance=i-3", "/u/1/*"))
    await cast.instance("i-3")
    assert await cast.way(get("/u/1/a", "fly-prefer-instance-id: i-1")) == "i-1, i-2 miss, i-3 miss"
    assert await cast.ways(GET, GET) == ["i-2 hit, i-3 miss"] * 2


# --- what is not cached ----------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        "state=a",
        "state=",
        "timeout=5s",
        "fallback=prefer_self",
        "fallback=force_self",
        "timeout=5s;fallback=force_self",
    ],
)
async def test_what_would_be_wrong_for_another_request_is_not_cached(rig: Rig, field: str) -> None:
    """By path or by session."""
    cast, *_ = await router_and_user(rig, cached(f"{TO_USER};{field}", "/u/1/*"), replay_cache=(COOKIE,))
    raw = get("/u/1/a", "Cookie: sid=1")
    assert await cast.ways(raw, raw) == [MISS, MISS]
    assert len(rig.gateway.replays) == 0


async def test_elsewhere_is_not_cached(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, cached("elsewhere=true", "/u/1/*"))
    await cast.instance("i-2")
    raw = get("/u/1/a", "fly-prefer-instance-id: i-1")
    assert await cast.ways(raw, raw) == ["i-1, i-2 miss"] * 2
    assert len(rig.gateway.replays) == 0


@pytest.mark.parametrize("transform", [{}, {"path": "/b"}, {"delete_headers": ["x-one"]}])
async def test_a_transform_is_not_cached(rig: Rig, transform: dict[str, object]) -> None:
    order = {"prefix": "/u/1/*", "ttl": 60}
    cast, *_ = await router_and_user(rig, replay_json(app="user", instance="u-1", transform=transform, cache=order))
    assert await cast.ways(GET, GET) == [MISS, MISS]
    assert len(rig.gateway.replays) == 0


async def test_only_the_first_replay_of_a_request_is_cached(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, replay("instance=i-2"))
    await cast.instance("i-2", "tools", IN_CACHE)
    raw = get("/u/1/a", "fly-prefer-instance-id: i-1")
    assert await cast.ways(raw, raw) == ["i-1, i-2 miss, u-1 miss"] * 2
    assert len(rig.gateway.replays) == 0


async def test_a_target_that_was_not_reached_is_not_cached(rig: Rig) -> None:
    cast, _, user = await router_and_user(rig)
    user.close()
    assert await cast.way(GET) == "i-1, 503 PS07"
    assert len(rig.gateway.replays) == 0


async def test_a_bad_replay_is_not_cached(rig: Rig) -> None:
    cast, _, user = await router_and_user(rig, cached(TO_USER, "/u/1/*", "60s"))
    assert await cast.way(GET) == "i-1, 502 PA03"
    assert user.untouched
    assert len(rig.gateway.replays) == 0
