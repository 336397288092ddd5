"""What a gateway remembers of replays, and for how long."""

from __future__ import annotations

import pytest

from gateway.core.model import App
from gateway.core.remember import MAX_TTL_S, Place, Target
from gateway.core.remembered import Entry
from gateway.data import replays
from gateway.data.replays import Replays
from tests.data.entries import (
    HOST,
    NOW_S,
    OTHER,
    ROUTER,
    Clock,
    by_path,
    by_session,
    found,
    held,
    put,
    request,
)

# --- finding -----------------------------------------------------------------------------------------


def test_what_was_put_is_found(alone: Replays) -> None:
    assert found(alone, "/a") == ""
    alone.put(ROUTER, HOST, Place(by_path("/a").key, 60.0, True, by_path=True), Target("user", "", "u-1", ("fra",)))
    entry = held(alone, "/a/b?c=d")
    assert entry == Entry(
        "router", by_path("/a").key, Target("user", "", "u-1", ("fra",)), NOW_S + 60.0, allow_bypass=True, host=HOST
    )
    assert (len(alone), alone.keys("router"), alone.keys("other")) == (1, 1, 0)
    assert alone.counts == {("router", "made"): 1}


def test_the_longest_prefix_is_found(alone: Replays) -> None:
    for prefix in ("/a/b", "", "/a"):
        put(alone, by_path(prefix), prefix or "/")
    assert [found(alone, path) for path in ("/", "/x", "/ab", "/a", "/a/x", "/a/b", "/a/b/", "/a/b/c", "/a/bc")] == [
        "/", "/", "/", "/a", "/a", "/a/b", "/a/b", "/a/b", "/a",
    ]  # fmt: skip


def test_hosts_and_apps_are_apart(alone: Replays) -> None:
    put(alone, by_path("/a"), "u-1")
    assert found(alone, "/a", host="x.localhost") == ""
    assert found(alone, "/a", app=OTHER) == ""
    put(alone, by_path("/a", host="x.localhost"), "u-2", host="x.localhost")
    put(alone, by_path("/a", OTHER), "u-3", OTHER)
    assert (found(alone, "/a"), found(alone, "/a", host="x.localhost"), found(alone, "/a", app=OTHER)) == (
        "u-1", "u-2", "u-3",
    )  # fmt: skip


def test_a_session_comes_before_a_path(alone: Replays) -> None:
    put(alone, by_path("/a"), "u-1")
    put(alone, by_session("17"), "u-2")
    assert found(alone, "/a", "17") == "u-2"
    assert found(alone, "/x", "17") == "u-2"
    assert found(alone, "/a", "18") == "u-1"
    assert found(alone, "/a") == "u-1"
    assert found(alone, "/x") == ""


def test_without_its_rule_a_session_is_not_found(alone: Replays) -> None:
    put(alone, by_session("17"), "u-2")
    assert found(alone, "/", "17", app=App("router")) == ""


def test_what_is_put_again_is_replaced(alone: Replays, clock: Clock) -> None:
    put(alone, by_path("/a"), "u-1")
    clock.now_s += 30.0
    put(alone, by_path("/a"), "u-2")
    assert held(alone, "/a").until_s == clock.now_s + 60.0
    assert (found(alone, "/a"), len(alone)) == ("u-2", 1)


def test_what_was_dropped_is_not_found(alone: Replays) -> None:
    put(alone, by_path("/a"), "u-1")
    put(alone, by_session("17"), "u-2")
    alone.drop(held(alone, "/a"), "invalidated")
    assert (found(alone, "/a"), found(alone, "/a", "17")) == ("", "u-2")
    session = alone.find(ROUTER, request("/a", "17"))
    assert session is not None
    alone.drop(session, "unusable")
    alone.drop(session, "unusable")
    assert (found(alone, "/a", "17"), len(alone), alone.keys("router")) == ("", 0, 0)
    assert alone.counts == {("router", "made"): 2, ("router", "invalidated"): 1, ("router", "unusable"): 2}


# --- for how long ------------------------------------------------------------------------------------


def test_an_entry_is_over_when_its_time_is(alone: Replays, clock: Clock) -> None:
    put(alone, by_path("/a", ttl_s=60.0), "u-1")
    put(alone, by_path("", ttl_s=90.0), "u-2")
    clock.now_s += 59.9
    assert found(alone, "/a") == "u-1"
    clock.now_s = NOW_S + 60.0
    assert (found(alone, "/a"), len(alone)) == ("u-2", 1)
    clock.now_s = NOW_S + 90.0
    assert (found(alone, "/a"), len(alone), alone.keys("router")) == ("", 0, 0)


def test_a_session_that_is_over_leaves_the_path(alone: Replays, clock: Clock) -> None:
    put(alone, by_session("17"), "u-2")
    put(alone, by_path("/a", ttl_s=6000.0), "u-1")
    clock.now_s += 600.0
    assert found(alone, "/a", "17") == "u-1"


def test_all_of_an_app_may_be_over_at_once(alone: Replays, clock: Clock) -> None:
    put(alone, by_session("17"), "u-3")
    for prefix in ("/a/b", "/a", ""):
        put(alone, by_path(prefix), "u-1")
    clock.now_s += 600.0
    assert (found(alone, "/a/b/c", "17"), len(alone)) == ("", 0)
    put(alone, by_path("/a"), "u-2")
    assert found(alone, "/a/b/c", "17") == "u-2"


def test_no_entry_lives_longer_than_any_may(alone: Replays, clock: Clock) -> None:
    put(alone, by_path("/a", ttl_s=1e9), "u-1")
    assert held(alone, "/a").until_s == NOW_S + MAX_TTL_S
    clock.now_s += MAX_TTL_S
    assert found(alone, "/a") == ""


def test_the_one_used_longest_ago_makes_room(alone: Replays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MAX_ENTRIES", 3)
    for number in range(3):
        put(alone, by_path(f"/{number}"), f"u-{number}")
    put(alone, by_path("/x", OTHER), "x", OTHER)
    assert found(alone, "/0") == "u-0"
    put(alone, by_session("17"), "u-3")
    assert [found(alone, f"/{number}") for number in range(3)] == ["u-0", "", "u-2"]
    assert alone.counts["router", "evicted"] == 1
    # Being put again is use too.
    assert found(alone, "/", "17") == "u-3"
    put(alone, by_path("/0"), "u-9")
    put(alone, by_session("18"), "u-4")
    assert [found(alone, f"/{number}", sid) for number, sid in ((0, ""), (2, ""), (9, "17"), (9, "18"))] == [
        "u-9", "", "u-3", "u-4",
    ]  # fmt: skip
    assert (alone.counts["router", "evicted"], alone.keys("router"), found(alone, "/x", app=OTHER)) == (2, 3, "x")


def test_nothing_is_left_of_entries_that_ended(alone: Replays, clock: Clock) -> None:
    for _ in range(2):
        put(alone, by_path("/a"), "u-1")
        put(alone, by_path("/b"), "u-1")
        put(alone, by_session("17"), "u-2")
    alone.drop(held(alone, "/b"), "unusable")
    clock.now_s += 600.0
    assert found(alone, "/a", "17") == ""
    assert not alone._apps
    assert not alone._paths


# --- invalidating ------------------------------------------------------------------------------------


def test_all_that_a_request_could_find_is_dropped(alone: Replays) -> None:
    for prefix in ("", "/a", "/a/b", "/x"):
        put(alone, by_path(prefix), "u-1")
    put(alone, by_session("17"), "u-2")
    put(alone, by_session("18"), "u-3")
    alone.invalidate(ROUTER, request("/a/b/c", "17"))
    assert [found(alone, path, sid) for path, sid in (("/a/b/c", "17"), ("/", ""), ("/x", ""), ("/", "18"))] == [
        "", "", "u-1", "u-3",
    ]  # fmt: skip
    assert alone.counts["router", "invalidated"] == 4
    alone.invalidate(ROUTER, request("/a/b/c", "17"))
    assert (alone.counts["router", "invalidated"], len(alone)) == (4, 2)
