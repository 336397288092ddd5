"""A pin's name: instance, app and `via` in one word, which older seals and stores read as they always did."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.model import Pin

APPS = st.just("") | st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
INSTANCES = st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True)
PINS = st.builds(Pin, INSTANCES, st.just("k3j9"), APPS, st.booleans())


@pytest.mark.parametrize(
    ("pin", "name"),
    [
        (Pin("i-1", "k3j9"), "i-1"),
        (Pin("i-1", "k3j9", via=True), "~i-1"),
        (Pin("i-1", "k3j9", "user"), "user/i-1"),
        (Pin("i-1", "k3j9", "user", via=True), "~user/i-1"),
    ],
)
def test_names_are_these(pin: Pin, name: str) -> None:
    assert pin.name == name
    assert Pin.named(name, "k3j9") == pin


@given(PINS)
@example(Pin("-", "k3j9", "0", via=True))
def test_a_name_says_which_pin_it_is_of(pin: Pin) -> None:
    assert Pin.named(pin.name, pin.incarnation) == pin
    assert len(pin.name.encode()) <= 1 + 63 + 1 + 64


@given(PINS, PINS)
def test_no_two_pins_have_one_name(one: Pin, other: Pin) -> None:
    assert (one.name == other.name) == (one == other)


@given(st.text("ia~/-", max_size=8))
def test_no_text_of_a_store_raises(name: str) -> None:
    pin = Pin.named(name, "k3j9")
    assert (pin.incarnation, pin.via) == ("k3j9", name.startswith("~"))
    assert "/" not in pin.instance
