"""What gateways tell each other of their replay caches: the same comes out again, and nothing else is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.regions import MAX_LIST_BYTES, region_names
from gateway.core.remember import MAX_TTL_S, Target
from gateway.core.remembered import KEY_BYTES, MAX_REGIONS, Entry, Message, decode, encode
from gateway.core.replay import Replay, parse_replay

NOW_S = 1_767_225_600.0
CLOCKS_APART_S = 60.0
MAX_MESSAGE_BYTES = 4096
"""What a feed takes."""

KEY = bytes(range(KEY_BYTES))
TARGET = Target("user", "u-1", "", ("fra", "eu"))
ENTRY = Entry("router", KEY, TARGET, NOW_S + 60.0, allow_bypass=True, host="x.example")
MADE = Message("0123456789ab", "router", KEY, ENTRY)
ENDED = Message("0123456789ab", "router", KEY, None)

NAMES = st.sampled_from(["a", "0-z", "any", "a" * 63])
INSTANCES = st.sampled_from(["", "i-1", "-", "Z" * 64])
TARGETS = st.builds(Target, NAMES, INSTANCES, INSTANCES, st.lists(NAMES, max_size=MAX_REGIONS).map(tuple))
KEYS = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
HOSTS = st.sampled_from(["", "x.example", "_a.b-c", "[fe80::1]", "h" * 253])
UNTIL = st.floats(0.0, NOW_S + MAX_TTL_S)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    app, key = draw(NAMES), draw(KEYS)
    entry = Entry(app, key, draw(TARGETS), draw(UNTIL), draw(st.booleans()), draw(HOSTS))
    return Message(draw(st.binary(min_size=6, max_size=6)).hex(), app, key, draw(st.just(entry) | st.none()))


@given(messages())
@example(MADE)
@example(ENDED)
def test_what_was_told_is_understood(message: Message) -> None:
    assert decode(encode(message), NOW_S) == message


@given(messages())
def test_every_message_is_one_that_a_feed_takes(message: Message) -> None:
    assert len(encode(message)) <= MAX_MESSAGE_BYTES


def test_the_longest_message_is_one_that_a_feed_takes() -> None:
    name, instance = "a" * 63, "A" * 64
    target = Target(name, instance, instance, (name,) * MAX_REGIONS)
    entry = Entry(name, b"\xff" * KEY_BYTES, target, 1_767_225_600.123456, False, "h" * 255)
    message = Message("f" * 32, name, b"\xff" * KEY_BYTES, entry)
    assert decode(encode(message), NOW_S) == message
    assert len(encode(message)) <= MAX_MESSAGE_BYTES


def test_no_replay_names_more_regions_than_a_message_may_hold() -> None:
    most = ",".join(["a" * (MAX_LIST_BYTES // MAX_REGIONS - 1)] * MAX_REGIONS)
    assert region_names(most) is not None
    assert region_names(most + ",a") is None
    replay = parse_replay({b"fly-replay": f'region="{most}"'.encode()}, ())
    assert isinstance(replay, Replay)
    target = Target("user", "", "", replay.regions)
    message = Message("ab", "router", KEY, Entry("router", KEY, target, NOW_S))
    assert decode(encode(message), NOW_S) == message


def test_no_value_of_a_request_is_told() -> None:
    assert json.loads(encode(MADE)) == {
        "from": "0123456789ab",
        "app": "router",
        "key": KEY.hex(),
        "to": ["user", "u-1", "", ["fra", "eu"]],
        "until": NOW_S + 60.0,
        "bypass": True,
        "host": "x.example",
    }
    assert json.loads(encode(ENDED)) == {"from": "0123456789ab", "app": "router", "key": KEY.hex()}


# --- what is not believed ----------------------------------------------------------------------------


def altered(**fields: Any) -> Message | None:
    """What is understood of a message with these fields in place of its own; with None, without them."""
    told = json.loads(encode(MADE)) | fields
    return decode(json.dumps({name: value for name, value in told.items() if value is not None}).encode(), NOW_S)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from", None),
        ("from", ""),
        ("from", "xyz"),
        ("from", "AB"),
        ("from", "a" * 33),
        ("from", 7),
        ("app", None),
        ("app", ""),
        ("app", "-a"),
        ("app", "a/b"),
        ("app", "A"),
        ("app", "a\n"),
        ("app", "a" * 64),
        ("app", ["a"]),
        ("key", None),
        ("key", ""),
        ("key", "ab"),
        ("key", "zz" * KEY_BYTES),
        ("key", "\u0661" * 2 * KEY_BYTES),
        ("key", "ab" * (KEY_BYTES + 1)),
        ("key", 7),
        ("to", "user"),
        ("to", {}),
        ("to", []),
        ("to", ["user", "", ""]),
        ("to", ["user", "", "", [], ""]),
        ("to", ["", "", "", []]),
        ("to", [7, "", "", []]),
        ("to", ["user", "a b", "", []]),
        ("to", ["user", "a" * 65, "", []]),
        ("to", ["user", None, "", []]),
        ("to", ["user", "", "a;b", []]),
        ("to", ["user", "", "", "fra"]),
        ("to", ["user", "", "", {}]),
        ("to", ["user", "", "", ["FRA"]]),
        ("to", ["user", "", "", [["fra"]]]),
        ("to", ["user", "", "", [None]]),
        ("to", ["user", "", "", ["fra"] * (MAX_REGIONS + 1)]),
        ("until", None),
        ("until", "60"),
        ("until", True),
        ("until", -1),
        ("until", 10**400),
        ("until", float("nan")),
        ("until", float("inf")),
        ("until", NOW_S + MAX_TTL_S + CLOCKS_APART_S + 1),
        ("bypass", None),
        ("bypass", 1),
        ("bypass", "yes"),
        ("host", None),
        ("host", "A.example"),
        ("host", "a b"),
        ("host", "a/b"),
        ("host", "h" * 256),
        ("host", 7),
    ],
)
def test_a_message_with_one_bad_field_is_none(name: str, value: object) -> None:
    assert altered() == MADE
    assert altered(**{name: value}) is None


def test_without_a_target_it_is_the_end_of_an_entry() -> None:
    assert altered(to=None) == ENDED


def test_no_entry_lives_longer_than_any_may() -> None:
    latest = NOW_S + MAX_TTL_S + CLOCKS_APART_S
    message = altered(until=latest)
    assert message is not None
    assert message.entry is not None
    assert message.entry.until_s == latest
    assert altered(until=latest + 1) is None


def test_an_entry_that_is_over_is_understood() -> None:
    message = altered(until=0)
    assert message is not None
    assert message.entry is not None
    assert (message.entry.until_s, type(message.entry.until_s)) == (0.0, float)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"7",
        b'"a"',
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b'{"from":' + b"1" * 5000 + b"}",
        b'{"from":"ab","app":"a","key":"\\ud800"}',
        encode(MADE)[:-1],
        encode(MADE) + b"}",
    ],
)
def test_what_is_no_message_is_none(raw: bytes) -> None:
    assert decode(raw, NOW_S) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def assert_within_bounds(message: Message | None) -> None:
    if message is None or message.entry is None:
        return
    entry = message.entry
    assert (entry.app, entry.key) == (message.app, message.key)
    assert len(entry.key) == KEY_BYTES
    assert entry.target.app
    assert len(entry.target.regions) <= MAX_REGIONS
    assert 0.0 <= entry.until_s <= NOW_S + MAX_TTL_S + CLOCKS_APART_S
    assert len(encode(message)) <= MAX_MESSAGE_BYTES
    assert decode(encode(message), NOW_S) == message


@given(st.binary(max_size=100))
def test_no_bytes_raise(raw: bytes) -> None:
    assert_within_bounds(decode(raw, NOW_S))


@given(JSON)
def test_no_json_raises(value: object) -> None:
    assert decode(json.dumps(value).encode(), NOW_S) is None or isinstance(value, dict)


FIELDS = st.sampled_from(["from", "app", "key", "to", "until", "bypass", "host", "more"])


@given(FIELDS, JSON)
def test_no_field_raises(name: str, value: object) -> None:
    assert_within_bounds(altered(**{name: value}))


@given(st.integers(0, 3), JSON)
def test_no_part_of_a_target_raises(at: int, value: object) -> None:
    parts: list[object] = ["user", "u-1", "", ["fra"]]
    parts[at] = value
    assert_within_bounds(altered(to=parts))


@given(st.integers(0, len(encode(MADE)) - 1), st.integers(0, 255))
def test_no_flipped_byte_raises(at: int, byte: int) -> None:
    raw = bytearray(encode(MADE))
    raw[at] = byte
    assert_within_bounds(decode(bytes(raw), NOW_S))
