"""What a gateway tells the others of its replay caches, and what it makes of what they say."""

from __future__ import annotations

import pytest

from gateway.core.remember import MAX_TTL_S
from gateway.data import replays
from gateway.data.replays import Replays
from tests.data.entries import (
    MINE,
    NOW_S,
    ROUTER,
    Clock,
    by_path,
    by_session,
    found,
    held,
    put,
    request,
    told,
)


def test_others_are_told_what_was_made_and_what_ended(shared: Replays, outgoing: list[bytes]) -> None:
    put(shared, by_path("/a"), "u-1")
    shared.drop(held(shared, "/a"), "invalidated")
    put(shared, by_session("17"), "u-2")
    assert outgoing == [
        told(by_path("/a"), "u-1", MINE),
        told(by_path("/a"), None, MINE),
        told(by_session("17"), "u-2", MINE, NOW_S + 600.0),
    ]


def test_what_others_made_is_found_and_ends_as_they_say(alone: Replays) -> None:
    alone.take([told(by_path("/a"), "u-1"), told(by_session("17"), "u-2")], restart=False)
    assert (found(alone, "/a"), found(alone, "/x", "17")) == ("u-1", "u-2")
    alone.take([told(by_path("/a"), "u-3"), told(by_session("17"), None)], restart=False)
    assert (found(alone, "/a"), found(alone, "/x", "17")) == ("u-3", "")
    assert not alone.counts, "what another gateway did is counted there"


def test_what_is_no_message_changes_nothing(alone: Replays) -> None:
    put(alone, by_path("/a"), "u-1")
    too_long = told(by_path("/a"), "u-2", until_s=NOW_S + MAX_TTL_S + 3600.0)
    alone.take([b"", b"\xff", b"{}", told(by_path("/a"), "not an id"), too_long], restart=False)
    assert found(alone, "/a") == "u-1"


def test_what_is_over_when_it_is_heard_of_ends_what_it_replaced(alone: Replays) -> None:
    put(alone, by_path("/a"), "u-1")
    alone.take([told(by_path("/a"), "u-2", until_s=NOW_S)], restart=False)
    assert (len(alone), found(alone, "/a")) == (0, "")


def test_until_its_own_word_comes_back_it_is_the_last(shared: Replays, outgoing: list[bytes]) -> None:
    put(shared, by_path("/a"), "u-1")
    shared.take([told(by_path("/a"), "u-2"), told(by_path("/b"), "u-3")], restart=False)
    assert (found(shared, "/a"), found(shared, "/b")) == ("u-1", "u-3")
    shared.take([told(by_path("/a"), None), *outgoing], restart=False)
    assert found(shared, "/a") == "u-1"
    shared.take([told(by_path("/a"), "u-2")], restart=False)
    assert found(shared, "/a") == "u-2"


def test_an_older_word_of_its_own_does_not_undo_a_newer_one(shared: Replays, outgoing: list[bytes]) -> None:
    put(shared, by_path("/a"), "u-1")
    shared.drop(held(shared, "/a"), "invalidated")
    for message in outgoing:
        shared.take([message], restart=False)
        assert found(shared, "/a") == ""


def test_a_restart_forgets_what_came_before(shared: Replays) -> None:
    put(shared, by_path("/a"), "u-1")
    put(shared, by_session("17"), "u-2")
    shared.take([told(by_path("/b"), "u-3")], restart=True)
    assert (found(shared, "/a"), found(shared, "/a", "17"), found(shared, "/b"), len(shared)) == ("", "", "u-3", 1)
    # Its own words from before count like anybody's, and so do those of others about the same.
    shared.take([told(by_path("/a"), "u-1", MINE), told(by_path("/a"), "u-4")], restart=False)
    assert found(shared, "/a") == "u-4"


def test_when_the_store_is_lost_nothing_is_left(shared: Replays) -> None:
    put(shared, by_path("/a"), "u-1")
    put(shared, by_session("17"), "u-2")
    shared.lost()
    assert (found(shared, "/a"), found(shared, "/a", "17"), len(shared)) == ("", "", 0)
    assert not shared._paths
    shared.take([told(by_path("/a"), "u-3")], restart=False)
    assert found(shared, "/a") == "u-3"


def test_what_was_not_said_is_not_kept(shared: Replays, outgoing: list[bytes]) -> None:
    put(shared, by_path("/a"), "u-1")
    put(shared, by_path("/b"), "u-2")
    shared.failed(outgoing[0])
    assert (found(shared, "/a"), found(shared, "/b")) == ("", "u-2")
    shared.take([told(by_path("/a"), "u-3")], restart=False)
    assert found(shared, "/a") == "u-3"
    shared.failed(b"no message")
    assert found(shared, "/b") == "u-2"


def test_what_cannot_be_said_at_once_is_not_kept(clock: Clock) -> None:
    one = Replays(MINE, clock)
    one.publish = one.failed
    put(one, by_path("/a"), "u-1")
    assert found(one, "/a") == ""
    assert not one._said


def test_an_end_that_was_not_said_is_said_when_there_is_a_store(shared: Replays, outgoing: list[bytes]) -> None:
    put(shared, by_path("/a"), "u-1")
    shared.take(outgoing, restart=False)
    shared.drop(held(shared, "/a"), "invalidated")
    end = outgoing.pop()
    for restart in (False, True):
        shared.failed(end)
        outgoing.clear()
        shared.take([told(by_path("/a"), "u-2")], restart=restart)
        assert outgoing == [end]
        assert found(shared, "/a") == "", "the others hear of its end behind this"
        shared.take([], restart=False)
        assert outgoing == [end], "once is enough"
    shared.take([end, told(by_path("/a"), "u-3")], restart=False)
    assert found(shared, "/a") == "u-3"


def test_an_entry_that_was_not_said_to_end_does_not_come_back(clock: Clock) -> None:
    one, full = Replays(MINE, clock), False
    heard: list[bytes] = []

    def publish(message: bytes) -> None:
        if full:
            one.failed(message)
        else:
            heard.append(message)

    one.publish = publish
    put(one, by_path("/a"), "u-1")
    full = True
    one.drop(held(one, "/a"), "invalidated")
    one.take(heard, restart=False)
    assert found(one, "/a") == ""
    full = False
    one.take([], restart=False)
    assert heard[1:] == [told(by_path("/a"), None, MINE)]


def test_what_could_not_be_said_is_bounded(
    shared: Replays, outgoing: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "MAX_OWED", 3)
    for number in range(5):
        shared.failed(told(by_path(f"/{number}"), None, MINE))
    shared.failed(told(by_path("/2"), None, MINE))
    shared.take([], restart=True)
    assert outgoing == [told(by_path(f"/{number}"), None, MINE) for number in (2, 3, 4)]


def test_while_the_others_are_not_heard_nothing_is_used_or_made(shared: Replays, outgoing: list[bytes]) -> None:
    put(shared, by_path("/a"), "u-1")
    shared.connected = lambda: False
    assert found(shared, "/a") == ""
    put(shared, by_path("/b"), "u-2")
    assert len(outgoing) == 1
    shared.connected = lambda: True
    assert (found(shared, "/a"), found(shared, "/b")) == ("u-1", "")


def test_what_is_invalidated_meanwhile_has_ended(shared: Replays, outgoing: list[bytes]) -> None:
    # Between two chunks of what the feed kept: what an entry's end is, may stand in the next one.
    shared.connected = lambda: False
    shared.take([told(by_path("/a"), "u-1"), told(by_session("17"), "u-2")], restart=True)
    shared.invalidate(ROUTER, request("/a", "17"))
    assert outgoing == []
    shared.connected = lambda: True
    assert (found(shared, "/a"), found(shared, "/", "17")) == ("", "")
    shared.take([told(by_path("/a"), "u-1")], restart=False)
    assert found(shared, "/a") == ""
    ends = [told(place, None, MINE) for place in (by_session("17"), by_path("/a"), by_path(""))]
    assert sorted(outgoing) == sorted(ends)
    shared.connected = lambda: False
    shared.invalidate(ROUTER, request("/"))
    shared.take([], restart=False)
    assert sorted(outgoing) == sorted([*ends, told(by_path(""), None, MINE)])


def test_nothing_is_kept_of_what_came_back(shared: Replays, outgoing: list[bytes]) -> None:
    for number in range(20):
        put(shared, by_path(f"/{number % 3}"), "u-1")
        shared.drop(held(shared, f"/{number % 3}"), "unusable")
    assert len(shared._said) == 3
    shared.take(outgoing, restart=False)
    assert not shared._said


def test_a_gateway_without_others_waits_for_no_word_of_its_own(alone: Replays) -> None:
    for number in range(20):
        put(alone, by_path(f"/{number}"), "u-1")
        alone.drop(held(alone, f"/{number}"), "unusable")
        put(alone, by_path(f"/{number}"), "u-2")
    assert not alone._said
    assert len(alone) == 20
