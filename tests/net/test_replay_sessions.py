"""Replay caches by session: a cookie or a header finds its instance without the app (docs/reference/replay.md)."""

from __future__ import annotations

import pytest

from gateway.core.model import ReplayKey, ReplayRule
from tests.net.replies import HIT, MISS, TO_USER, answer, by_name, cached, get, post, replay, router_and_user
from tests.net.rig import Rig

SKIP = "fly-replay-cache-control: skip"
COOKIE, HEADER = ReplayRule(ReplayKey.COOKIE, "sid", 60), ReplayRule(ReplayKey.HEADER, "x-session", 60)


# --- by session ------------------------------------------------------------------------

COOKIE, HEADER = ReplayRule(ReplayKey.COOKIE, "sid", 60), ReplayRule(ReplayKey.HEADER, "x-session", 60)


@pytest.mark.parametrize(
    ("rule", "line"),
    [(COOKIE, "Cookie: a=b; sid={}; sid2=x"), (COOKIE, "cookie: sid={}"), (HEADER, "X-SESSION:  {} ")],
)
async def test_a_session_stays_where_its_first_request_was_replayed_to(rig: Rig, rule: ReplayRule, line: str) -> None:
    cast, *_ = await router_and_user(rig, by_name, replay_cache=(rule,))
    await cast.instance("u-2", "user")
    one, two = (get("/a", line.format(id)) for id in ("u-1", "u-2"))
    assert await cast.ways(one, two, one, two) == [MISS, "i-1, u-2 miss", HIT, "u-2 hit"]
    # On every path, with whatever query and method, and not without the value.
    assert await cast.way(get("/b/c?sid=u-2", line.format("u-1"), method="DELETE")) == HIT
    assert await cast.ways(get("/a"), get("/a", line.format(""))) == ["i-1", "i-1"]
    rig.sweep(59.5)
    assert await cast.way(one) == HIT
    rig.sweep(0.5)
    assert await cast.way(one) == MISS


async def test_the_name_of_a_cookie_is_told_by_case_and_its_first_value_counts(rig: Rig) -> None:
    """RFC 6265 4.2."""
    cast, *_ = await router_and_user(rig, replay(TO_USER), replay_cache=(COOKIE,))
    await cast.way(get("/", "Cookie: sid=one"))
    assert await cast.ways(get("/", "Cookie: SID=one"), get("/", "Cookie: x=y; sid=one; sid=two")) == [MISS, HIT]
    # A session's value is not trimmed, cut or folded to be found.
    others = ["sid=One", "sid=one1", "sid=on", 'sid="one"', "sid=%6fne", "sid=two; sid=one"]
    assert await cast.ways(*(get("/", f"Cookie: {other}") for other in others)) == [MISS] * len(others)


async def test_the_longest_prefix_of_a_session_rule_decides(rig: Rig) -> None:
    """A request without its cookie or header is not looked up by a shorter one."""
    rules = (COOKIE, ReplayRule(ReplayKey.HEADER, "x-session", 60, path="/a/b"))
    cast, *_ = await router_and_user(rig, by_name, replay_cache=rules)
    cookie, header = "Cookie: sid=u-1", "X-Session: u-1"
    assert await cast.ways(get("/a", cookie), get("/a/bc", cookie)) == [MISS, HIT]
    assert await cast.ways(get("/a/b", cookie), get("/a/b/c", cookie)) == [MISS, MISS]
    assert await cast.ways(get("/a/b", header), get("/a/b/c", header, cookie)) == [MISS, HIT]
    assert await cast.way(get("/a", header)) == MISS


async def test_of_two_session_rules_as_long_the_one_with_a_host_decides(rig: Rig) -> None:
    rules = (HEADER, ReplayRule(ReplayKey.COOKIE, "sid", 60, host="tools.localhost"))
    cast, *_ = await router_and_user(rig, by_name, replay_cache=rules)
    cookie, header = "Cookie: sid=u-1", "X-Session: u-1"
    assert await cast.ways(get("/", header), get("/", header)) == [MISS, MISS]
    assert await cast.ways(get("/", cookie), get("/", cookie)) == [MISS, HIT]
    other = get("/", header, host="other.localhost")
    assert await cast.ways(other, other) == [MISS, HIT]
    other = get("/", cookie, host="other.localhost")
    assert await cast.ways(other, other) == [MISS, MISS]


async def test_sessions_are_kept_per_host(rig: Rig) -> None:
    """For a rule without a host too."""
    cast, *_ = await router_and_user(rig, by_name, replay_cache=(COOKIE,))
    hosts = ["tools.localhost", "other.localhost", "tools.localhost", "other.localhost:81"]
    assert await cast.ways(*(get("/", "Cookie: sid=u-1", host=host) for host in hosts)) == [MISS, MISS, HIT, HIT]


async def test_sessions_of_two_apps_do_not_mix(rig: Rig) -> None:
    """With the same rule and value, on one host."""
    cast, *_ = await router_and_user(rig, by_name, hosts=("tools.localhost",), replay_cache=(COOKIE,))
    rig.app("next", hosts=("tools.localhost",), path="/n", replay_cache=(COOKIE,))
    await cast.instance("n-1", "next", replay("instance=n-2"))
    await cast.instance("n-2", "next")
    rig.change("n-2", "next", cordoned=True)
    one, next_one = get("/", "Cookie: sid=u-1"), get("/n", "Cookie: sid=u-1")
    assert await cast.ways(one, next_one, one, next_one) == [MISS, "n-1, n-2 miss", HIT, "n-2 hit"]


async def test_a_changed_rule_finds_nothing_of_the_old_one(rig: Rig) -> None:
    """A header of the same value is not the cookie's session."""
    cast, *_ = await router_and_user(rig, by_name, replay_cache=(COOKIE,))
    await cast.way(get("/", "Cookie: sid=u-1"))
    rig.app("tools", replay_cache=(HEADER,))
    assert await cast.ways(get("/", "Cookie: sid=u-1"), get("/", "X-Session: u-1")) == [MISS, MISS]
    rig.app("tools")
    assert await cast.way(get("/", "X-Session: u-1")) == MISS


async def test_no_value_is_kept_in_clear(rig: Rig) -> None:
    """Neither here nor in what other gateways are told."""
    said: list[bytes] = []
    cast, *_ = await router_and_user(
        rig, by_name, replay_cache=(COOKIE, ReplayRule(ReplayKey.HEADER, "x-session", 60, path="/h"))
    )
    rig.gateway.replays.publish = said.append
    cast.says("i-1", replay(TO_USER))
    await cast.ways(get("/", "Cookie: sid=s3cret"), get("/h", "X-Session: s3cret"))
    replays = rig.gateway.replays
    assert len(replays) == len(said) == 2
    kept = repr({name: getattr(replays, name) for name in vars(replays)}).encode() + b"".join(said)
    assert b"u-1" in kept
    for form in (b"s3cret", b"s3cret".hex().encode(), b"czNjcmV0"):
        assert form not in kept


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_rule_says_whether_its_entries_may_be_skipped(rig: Rig, allowed: bool) -> None:
    rule = ReplayRule(ReplayKey.COOKIE, "sid", 60, allow_bypass=allowed)
    cast, *_ = await router_and_user(rig, by_name, replay_cache=(rule,))
    skip = get("/", "Cookie: sid=u-1", SKIP)
    assert await cast.ways(skip, skip) == [MISS, "i-1 bypass, u-1 bypass" if allowed else HIT]


async def test_a_sessions_entry_comes_before_a_paths(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, cached("app=user;instance=u-2", "/"), replay_cache=(COOKIE,))
    await cast.instance("u-2", "user")
    assert await cast.way(get("/")) == "i-1, u-2 miss"
    cast.says("i-1", by_name)
    # By the path's entry; then by the session's own, which was made before the path had one.
    assert await cast.way(get("/", "Cookie: sid=u-1")) == "u-2 hit"
    rig.sweep(60)
    assert await cast.way(get("/", "Cookie: sid=u-1")) == MISS
    cast.says("i-1", cached("app=user;instance=u-2", "/"))
    assert await cast.ways(get("/"), get("/", "Cookie: sid=u-1"), get("/")) == ["i-1, u-2 miss", HIT, "u-2 hit"]


async def test_a_session_that_may_not_be_skipped_is_not_skipped_for_its_path(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/", bypass="yes"), replay_cache=(COOKIE,))
    await cast.way(get("/", "Cookie: sid=1"))
    assert await cast.way(get("/", "Cookie: sid=1", SKIP)) == HIT
    assert await cast.way(get("/", SKIP)) == "i-1 bypass, u-1 bypass"


# --- sessions of MCP -------------------------------------------------------------------


async def test_a_cache_does_not_move_a_session(rig: Rig) -> None:
    """A pin comes first; what begins goes by the cache, and stays where it was made."""
    cast, one, _ = await router_and_user(rig, cached(TO_USER, "/mcp"))
    assert await cast.way(get("/mcp")) == MISS
    made = answer(b"{}", "Mcp-Session-Id: theirs", "Content-Type: application/json")
    cast.says("i-1", made)
    cast.says("u-1", made)
    session = f"Mcp-Session-Id: {rig.seal('i-1').decode()}"
    for raw in (post("tools/call", session), get("/mcp", session, "Accept: text/event-stream")):
        assert await cast.way(raw) == "i-1"
    assert one.requests[-1].one("mcp-session-id") == "own-id"
    got = await rig.ask(post("initialize"))
    assert cast.asked[-1] == HIT
    own = f"Mcp-Session-Id: {got.one('mcp-session-id')}"
    rig.sweep(60)
    cast.says("i-1", answer())
    assert await cast.ways(post("tools/call", own), get("/mcp", own)) == ["u-1", "u-1"]


async def test_an_unknown_session_is_not_sent_by_a_cache(rig: Rig) -> None:
    cast, *_ = await router_and_user(rig, cached(TO_USER, "/mcp"))
    await cast.way(get("/mcp"))
    assert await cast.way(post("tools/call", "Mcp-Session-Id: forged")) == "404 PS01"
