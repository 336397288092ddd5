"""What gateways say of themselves: the same comes out again, in bounds, and nothing else is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.body_fields import MAX_COUNT
from gateway.core.presence import (
    MAX_MESSAGE_BYTES,
    NEVER_S,
    NOTHING,
    Carried,
    Key,
    Said,
    decode,
    encode,
    heard,
    is_whole,
    merge,
)

COUNTS = st.sampled_from([0, 1, 7, MAX_COUNT])
# In tenths, as they are said.
IDLE = st.sampled_from([0.0, 0.1, 299.9, NEVER_S])
CARRIED = st.builds(Carried, COUNTS, COUNTS, COUNTS, IDLE, st.sampled_from(["", "0123456789abcdef", "f" * 32]))
KEYS = st.tuples(st.sampled_from(["a", "0-z", "a" * 63]), st.sampled_from(["i-1", "I-1", "-", "Z" * 64]))
GATEWAYS = st.sampled_from(["gw", "agent@[::1]:8080", '"\\~', "g" * 128])
SAID = st.builds(Said, GATEWAYS, st.just("0123456789ab"), st.dictionaries(KEYS, CARRIED), st.booleans())
BUSY = Carried(1, 2, 3, 0.5, "ab12")


@given(SAID)
@example(Said("gw", "0", {}))
def test_what_was_said_is_heard(said: Said) -> None:
    assert decode(encode(said)) == said
    assert heard({said.gateway: encode(said)}) == [said]


def test_what_is_said_names_nobody_but_instances() -> None:
    said = Said("gw", "ab", {("tools", "i-1"): BUSY, ("tools", "i-2"): NOTHING, ("web", "i-1"): Carried(idle_s=0.19)})
    assert json.loads(encode(said)) == {
        "gateway": "gw",
        "boot": "ab",
        "whole": True,
        "apps": {"tools": {"i-1": [1, 2, 3, 0.5, "ab12"], "i-2": [0, 0, 0, NEVER_S]}, "web": {"i-1": [0, 0, 0, 0.1]}},
    }


@pytest.mark.parametrize(("idle_s", "said_s"), [(-1.0, 0.0), (0.09, 0.0), (59.99, 59.9), (1e12, NEVER_S)])
def test_idleness_is_rounded_down_and_in_bounds(idle_s: float, said_s: float) -> None:
    said = decode(encode(Said("gw", "ab", {("a", "i"): Carried(idle_s=idle_s)})))
    assert said is not None
    assert said.carried["a", "i"].idle_s == said_s


# --- more than there is room for -------------------------------------------------------------------------


def crowd(count: int, one: Carried, first: int = 0) -> dict[Key, Carried]:
    return {(f"app-{number % 7}", f"instance-{number:06}"): one for number in range(first, first + count)}


def test_what_matters_comes_first_then_what_was_used_last() -> None:
    idle = {key: Carried(idle_s=20_000.0 - number) for number, key in enumerate(crowd(10_000, NOTHING))}
    asleep = {("app-9", "i-1"): Carried(sleep="ab"), ("app-9", "i-2"): Carried(sessions=1), ("app-9", "i-3"): BUSY}
    said = decode(raw := encode(Said("gw", "ab", {**idle, **asleep})))
    assert said is not None
    assert MAX_MESSAGE_BYTES - 100 < len(raw) <= MAX_MESSAGE_BYTES
    assert said.whole
    assert asleep.items() <= said.carried.items()
    others = {key: one for key, one in said.carried.items() if key not in asleep}
    assert others.items() <= idle.items()
    assert max(one.idle_s for one in others.values()) < min(idle[key].idle_s for key in idle.keys() - others.keys())


def test_who_cannot_say_all_that_matters_says_so() -> None:
    said = decode(raw := encode(Said("gw", "ab", crowd(10_000, BUSY))))
    assert said is not None
    assert MAX_MESSAGE_BYTES - 100 < len(raw) <= MAX_MESSAGE_BYTES
    assert not said.whole
    assert not is_whole([said])


@pytest.mark.parametrize("idle", [NOTHING, Carried(idle_s=0.1)], ids=["never", "used"])
@pytest.mark.parametrize(("count", "busy"), [(5000, 0), (6500, 1), (7000, 1000), (0, 5000)])
def test_a_message_has_room_for_thousands_and_is_never_too_long(idle: Carried, count: int, busy: int) -> None:
    carried = crowd(count, idle) | crowd(busy, BUSY, count)
    said = decode(raw := encode(Said("gw", "ab", carried)))
    assert len(raw) <= MAX_MESSAGE_BYTES
    assert said is not None
    assert said.whole
    assert sum(one == BUSY for one in said.carried.values()) == busy
    assert len(said.carried) >= min(count + busy, 5000)


@pytest.mark.parametrize("one", [BUSY, NOTHING], ids=["busy", "idle"])
@pytest.mark.parametrize("each", [1, 2, 3])
def test_a_message_of_many_apps_is_never_too_long(each: int, one: Carried) -> None:
    carried = {(f"app-{number // each}", f"i{number}"): one for number in range(20_000)}
    assert MAX_MESSAGE_BYTES - 100 < len(encode(Said("gw", "ab", carried))) <= MAX_MESSAGE_BYTES


def test_who_was_not_whole_before_is_not_afterwards() -> None:
    for carried in ({}, crowd(10_000, NOTHING)):
        said = decode(encode(Said("gw", "ab", carried, whole=False)))
        assert said is not None
        assert not said.whole


# --- what is not believed ------------------------------------------------------------------------------


def message(**changes: Any) -> bytes:
    fields = {"gateway": "gw", "boot": "ab", "whole": True, "apps": {"tools": {"i-1": [1, 0, 0, 0.5]}}}
    return json.dumps({**fields, **changes}).encode()


def row(*values: Any) -> bytes:
    return message(apps={"tools": {"i-1": list(values)}})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b"9" * 5000,
        b" " * MAX_MESSAGE_BYTES + message(),
        message(gateway=7),
        message(gateway=""),
        message(gateway="g w"),
        message(gateway="g" * 129),
        message(boot=None),
        message(boot="AB"),
        message(boot="ab\n"),
        message(whole=1),
        message(whole=None),
        message(apps=None),
        message(apps=[]),
        message(apps={"Tools": {}}),
        message(apps={"": {}}),
        message(apps={"tools": []}),
        message(apps={"tools": {"i_1": [0, 0, 0, 0]}}),
        message(apps={"tools": {"i" * 65: [0, 0, 0, 0]}}),
        message(apps={"tools": {"i-1": {}}}),
        row(),
        row(0, 0, 0),
        row(0, 0, 0, 0, "", 0),
        row(-1, 0, 0, 0),
        row(0, True, 0, 0),
        row(0, 0, 0.0, 0),
        row(0, 0, MAX_COUNT + 1, 0),
        row("0", 0, 0, 0),
        row(0, 0, 0, None),
        row(0, 0, 0, True),
        row(0, 0, 0, -0.1),
        row(0, 0, 0, 2 * NEVER_S),
        row(0, 0, 0, float("nan")),
        row(0, 0, 0, float("inf")),
        row(0, 0, 0, 0, None),
        row(0, 0, 0, 0, "AB"),
        row(0, 0, 0, 0, "a" * 33),
    ],
)
def test_what_is_no_message_is_none(raw: bytes) -> None:
    assert decode(message()) is not None
    assert decode(raw) is None
    assert heard({"gw": raw}) == [None]
    assert not is_whole(heard({"gw": raw}))


def test_fields_that_are_not_known_are_ignored() -> None:
    assert decode(message(later={"a": 1})) == decode(message())


def test_no_message_speaks_for_another_gateway() -> None:
    own, other = Said("gw-1", "ab"), Said("gw-2", "ab")
    assert heard({"gw-1": encode(own), "gw-2": encode(own), "gw-3": encode(other)}) == [own, None, None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["tools", "i-1", "x"]), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["gateway", "boot", "whole", "apps"]), JSON))
def test_any_json_is_a_message_or_none(changes: dict[str, Any]) -> None:
    said = decode(message(**changes))
    assert said is None or decode(encode(said)) is not None


@given(st.binary())
def test_any_bytes_are_a_message_or_none(raw: bytes) -> None:
    assert decode(raw) is None


# --- all together ----------------------------------------------------------------------------------------


def test_loads_add_up_and_the_latest_use_counts() -> None:
    one = Said("gw-1", "ab", {("tools", "i-1"): Carried(1, 2, 3, 60.0, "ab"), ("tools", "i-2"): Carried(idle_s=9.0)})
    two = Said("gw-2", "ab", {("tools", "i-1"): Carried(10, 20, 30, 5.0, "cd")})
    assert merge([]) == {}
    assert merge([one, None, two]) == {
        ("tools", "i-1"): Carried(11, 22, 33, 5.0, ""),
        ("tools", "i-2"): Carried(0, 0, 0, 9.0),
    }
    assert Carried(11, 22, 33).load == 33


@given(st.lists(SAID, max_size=4), st.randoms())
def test_the_order_of_gateways_does_not_matter(said: list[Said], rng: Any) -> None:
    mixed = said.copy()
    rng.shuffle(mixed)
    assert merge(mixed) == merge(said)


def test_the_whole_is_known_if_all_say_all() -> None:
    whole, part = Said("gw-1", "ab"), Said("gw-2", "ab", whole=False)
    assert is_whole([whole, whole])
    assert not is_whole([whole, part])
    assert not is_whole([whole, None])
