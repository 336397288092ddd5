"""Which requests an entry of a replay cache is for: its rule, its key, its prefixes, and what is kept at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.model import App, ReplayKey, ReplayRule
from gateway.core.remember import (
    MAX_DEPTH,
    MIN_TTL_S,
    Place,
    path_key,
    path_place,
    prefixes,
    rule_for,
    session_place,
    unkept,
)
from gateway.core.replay import BadReplay, CacheOrder, Fallback, Replay, Transform, cache_pattern
from tests.core.builders import app, head

HOST = "tools.localhost"


def rule(path: str = "", host: str = "", **more: Any) -> ReplayRule:
    more.setdefault("type", ReplayKey.COOKIE)
    more.setdefault("name", "sid")
    return ReplayRule(ttl_s=600.0, host=host, path=path, **more)


def place_of(*rules: ReplayRule, path: bytes = b"/", host: str = HOST, **fields: Any) -> Place | None:
    return session_place(app(replay_cache=rules), host, path, head(**fields))


# --- rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/", ""),
        (b"/other", ""),
        (b"/api", "/api"),
        (b"/api/", "/api"),
        (b"/api/v1", "/api/v1"),
        (b"/api/v1/x", "/api/v1"),
        (b"/api/v10", "/api"),
        (b"/apis", ""),
        (b"/API", ""),
        (b"/ap", ""),
        (b"//api", ""),
        (b"/x/api", ""),
        (b"*", ""),
    ],
)
def test_the_longest_prefix_by_whole_segments_decides(path: bytes, found: str) -> None:
    for rules in ((rule(), rule("/api"), rule("/api/v1")), (rule("/api/v1"), rule("/api"), rule())):
        assert rule_for(app(replay_cache=rules), HOST, path) == rule(found)


def test_without_a_prefix_that_fits_there_is_no_rule() -> None:
    assert rule_for(app(), HOST, b"/") is None
    assert rule_for(app(replay_cache=(rule("/api"),)), HOST, b"/") is None
    assert rule_for(app(replay_cache=(rule("/api", "other.localhost"),)), HOST, b"/api") is None


def test_of_two_that_are_as_long_the_one_with_the_host_decides() -> None:
    for rules in ((rule("/api"), rule("/api", HOST)), (rule("/api", HOST), rule("/api"))):
        of_app = app(replay_cache=rules)
        assert rule_for(of_app, HOST, b"/api") == rule("/api", HOST)
        assert rule_for(of_app, "other.localhost", b"/api") == rule("/api")


def test_a_longer_prefix_beats_a_host() -> None:
    of_app = app(replay_cache=(rule("/api"), rule("", HOST)))
    assert rule_for(of_app, HOST, b"/api") == rule("/api")
    assert rule_for(of_app, HOST, b"/") == rule("", HOST)


# --- sessions ----------------------------------------------------------------------------------------


def test_a_session_has_a_place_by_its_cookie() -> None:
    place = place_of(rule(), cookie="a=b; sid=17; sidx=1")
    assert place is not None
    assert (len(place.key), place.ttl_s, place.allow_bypass, place.by_path) == (32, 600.0, False, False)
    assert place_of(rule(), cookie="sid=17") == place
    bypass = place_of(rule(allow_bypass=True), cookie="sid=17")
    assert bypass == replace(place, allow_bypass=True)


def test_a_session_has_a_place_by_its_header() -> None:
    by_header = rule(type=ReplayKey.HEADER, name="x-session")
    place = place_of(by_header, x_session="17")
    assert place is not None
    assert place_of(by_header, X_SESSION="17") == place
    assert place_of(by_header, x_session="18") != place


@pytest.mark.parametrize(
    "fields", [{}, {"cookie": "other=1"}, {"cookie": "SID=1"}, {"cookie": "sid"}, {"cookie": "sid="}, {"sid": "17"}]
)
def test_without_the_cookie_there_is_no_place(fields: dict[str, Any]) -> None:
    assert place_of(rule(), **fields) is None


@pytest.mark.parametrize("fields", [{}, {"x_session": ""}, {"cookie": "x-session=17"}])
def test_without_the_header_there_is_no_place(fields: dict[str, Any]) -> None:
    assert place_of(rule(type=ReplayKey.HEADER, name="x-session"), **fields) is None


def test_a_shorter_rule_is_not_looked_at_instead() -> None:
    shorter = rule(type=ReplayKey.HEADER, name="x-session")
    assert place_of(shorter, rule("/api"), path=b"/api", x_session="17") is None
    assert place_of(shorter, rule("/api"), path=b"/", x_session="17") is not None


def test_without_a_rule_there_is_no_place() -> None:
    assert place_of(cookie="sid=17") is None


def test_no_value_can_be_read_in_a_key() -> None:
    place = place_of(rule(), cookie="sid=the-value-of-the-session")
    assert place is not None
    assert b"the-value" not in place.key


NAMES = st.text("a-", min_size=1, max_size=3)
HOSTS = st.text("ab.", min_size=1, max_size=3)
PATHS = st.just("") | st.text("a/", min_size=1, max_size=3).map(lambda text: "/" + text.strip("/") + "a")
IDENTITIES = st.tuples(
    st.sampled_from(ReplayKey),
    NAMES,
    HOSTS | st.just(""),
    PATHS,
    NAMES,
    HOSTS,
    st.text("a-./:=", min_size=1, max_size=4),
)
Identity = tuple[ReplayKey, str, str, str, str, str, str]


def key_of(one: Identity) -> bytes:
    kind, name, rule_host, path, of_app, host, value = one
    keyed = App(of_app, replay_cache=(rule(path, rule_host, type=kind, name=name),))
    fields = {"cookie": f"{name}={value}"} if kind is ReplayKey.COOKIE else {name: value}
    place = session_place(keyed, rule_host or host, (path or "/").encode(), head(**fields))
    assert place is not None
    return place.key


@given(IDENTITIES, IDENTITIES)
@example(
    (ReplayKey.COOKIE, "a", "", "", "a", "aa", "a"),
    (ReplayKey.COOKIE, "a", "", "", "aa", "a", "a"),
)
@example(
    (ReplayKey.COOKIE, "a", "", "", "a", "a", "a"),
    (ReplayKey.COOKIE, "a", "a", "", "a", "a", "a"),
)
def test_keys_are_as_different_as_what_they_are_made_of(one: Identity, other: Identity) -> None:
    # A rule for one host sees requests of that host only.
    seen = [(kind, name, of, path, app, of or host, value) for kind, name, of, path, app, host, value in (one, other)]
    assert (key_of(one) == key_of(other)) == (seen[0] == seen[1])


@given(IDENTITIES, st.integers(0, 6))
def test_each_part_alone_makes_another_key(one: Identity, part: int) -> None:
    values: list[Any] = list(one)
    if part == 0:
        values[0] = ReplayKey.HEADER if one[0] is ReplayKey.COOKIE else ReplayKey.COOKIE
    else:
        values[part] = (values[part] or ("/a" if part == 3 else "a")) + "a"
    other: Identity = tuple(values)
    if part == 5 and one[2]:
        return
    assert key_of(one) != key_of(other)


SMALL = st.binary(max_size=4)


@given(st.tuples(NAMES, HOSTS, SMALL), st.tuples(NAMES, HOSTS, SMALL))
@example(("a", "aa", b"a"), ("aa", "a", b"a"))
@example(("a", "a", b"aa"), ("a", "aa", b"a"))
def test_path_keys_are_as_different_as_what_they_are_made_of(
    one: tuple[str, str, bytes], other: tuple[str, str, bytes]
) -> None:
    keys = [path_key(App(of_app), host, prefix) for of_app, host, prefix in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@given(IDENTITIES, SMALL)
def test_a_session_never_has_the_key_of_a_path(one: Identity, prefix: bytes) -> None:
    assert key_of(one) != path_key(App(one[4]), one[2] or one[5], prefix)


# --- paths -------------------------------------------------------------------------------------------


def test_a_path_has_the_place_that_its_app_names() -> None:
    order = CacheOrder("", b"/u/1", 60.0, allow_bypass=True)
    place = path_place(app(), HOST, b"/u/1/x", order)
    assert place == Place(path_key(app(), HOST, b"/u/1"), 60.0, allow_bypass=True, by_path=True)
    assert path_place(app(), HOST, b"/u/1", order) == place
    assert path_place(app(), HOST, b"/u/1", replace(order, host=HOST)) == place


def test_the_root_is_every_path() -> None:
    order = CacheOrder("", b"", 60.0)
    for path in (b"/", b"/x", b"//", b"*"):
        place = path_place(app(), HOST, path, order)
        assert isinstance(place, Place)
        assert place.key == path_key(app(), HOST, b"")


@pytest.mark.parametrize(
    ("host", "path", "order", "why"),
    [
        (HOST, b"/u/1", CacheOrder("other.localhost", b"/u/1", 60.0), "another host"),
        (HOST, b"/u/2", CacheOrder("", b"/u/1", 60.0), "does not match"),
        (HOST, b"/u/10", CacheOrder("", b"/u/1", 60.0), "does not match"),
        (HOST, b"/u", CacheOrder("", b"/u/1", 60.0), "does not match"),
        (HOST, b"/U/1", CacheOrder("", b"/u/1", 60.0), "does not match"),
        (HOST, b"/a" * 33, CacheOrder("", b"/a" * 33, 60.0), "more than 32 segments"),
        ("", b"/u/1", CacheOrder("", b"/u/1", 60.0), "no host"),
    ],
)
def test_why_a_path_has_no_place(host: str, path: bytes, order: CacheOrder, why: str) -> None:
    told = path_place(app(), host, path, order)
    assert isinstance(told, str)
    assert why in told


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", [b""]),
        (b"", [b""]),
        (b"*", [b"*", b""]),
        (b"/a", [b"/a", b""]),
        (b"/a/", [b"/a", b""]),
        (b"/a/b/c", [b"/a/b/c", b"/a/b", b"/a", b""]),
        (b"//", [b""]),
        (b"//a", [b"//a", b"/", b""]),
        (b"/a//b", [b"/a//b", b"/a/", b"/a", b""]),
    ],
)
def test_the_prefixes_of_a_path_from_the_longest_on(path: bytes, expected: list[bytes]) -> None:
    assert list(prefixes(path)) == expected


def test_of_a_deep_path_only_so_many_segments_are_looked_at() -> None:
    assert next(prefixes(b"/a" * 5000)) == b"/a" * MAX_DEPTH
    assert len(list(prefixes(b"/a" * 5000))) == MAX_DEPTH + 1
    assert len(list(prefixes(b"/" * 5000))) == 1


ANY_PATHS = st.text("ab/.", max_size=12).map(lambda text: b"/" + text.encode())


@given(ANY_PATHS)
def test_prefixes_are_prefixes_and_get_shorter(path: bytes) -> None:
    found = list(prefixes(path))
    assert all(path.startswith(one) for one in found)
    assert [len(one) for one in found] == sorted({len(one) for one in found}, reverse=True)
    assert found[-1] == b""


@given(ANY_PATHS, st.text("ab/.*", max_size=8))
def test_what_was_put_under_a_prefix_is_found_by_every_path_below_it(path: bytes, pattern: str) -> None:
    try:
        host, prefix = cache_pattern("it", "/" + pattern)
    except BadReplay:
        return
    place = path_place(app(), HOST, path, CacheOrder(host, prefix, 60.0))
    keys = [path_key(app(), HOST, one) for one in prefixes(path)]
    assert isinstance(place, Place) == (path_key(app(), HOST, prefix) in keys)
    assert isinstance(place, str) or place.key in keys


@given(st.integers(1, MAX_DEPTH + 4), st.integers(0, 40))
def test_the_deepest_prefix_that_is_taken_is_found(depth: int, below: int) -> None:
    prefix = b"/a" * depth
    place = path_place(app(), HOST, prefix + b"/b" * below, CacheOrder("", prefix, 60.0))
    assert isinstance(place, Place) == (depth <= MAX_DEPTH)
    assert isinstance(place, Place) == (prefix in prefixes(prefix + b"/b" * below))


# --- what is kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "replay",
    [
        Replay("user"),
        Replay("user", "u-1"),
        Replay(prefer_instance="u-1"),
        Replay(regions=("fra", "eu")),
        Replay("user", cache=CacheOrder("", b"/u", 60.0)),
    ],
)
def test_what_would_be_right_for_the_next_request_too_is_kept(replay: Replay) -> None:
    assert unkept(replay, MIN_TTL_S) == ""
    assert unkept(replay, 9.9) == "its time to live is under 10 s"


@pytest.mark.parametrize(
    "extra",
    [
        {"state": "x"},
        {"state": ""},
        {"transform": Transform()},
        {"timeout_s": 1.0},
        {"fallback": Fallback.FORCE_SELF},
        {"elsewhere": True},
    ],
)
def test_what_was_meant_for_one_request_is_not_kept(extra: dict[str, Any]) -> None:
    assert "state, transform, timeout, fallback or elsewhere" in unkept(Replay("user", **extra), 3600.0)
