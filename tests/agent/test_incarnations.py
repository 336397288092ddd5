"""Names of lives: they sort by time, whatever the clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.agent.incarnations import LENGTH, after

MOMENTS = st.integers(0, 36**LENGTH // 2)


@given(first=MOMENTS, second=MOMENTS)
def test_a_later_life_sorts_behind(first: int, second: int) -> None:
    one = after("", first)
    other = after(one, second)
    assert len(one) == len(other) == LENGTH
    assert other > one
    assert (other > after("", second - 1)) if second else True


@given(st.text(max_size=12), MOMENTS)
def test_whatever_was_before(previous: str, now_ms: int) -> None:
    assert len(after(previous, now_ms)) == LENGTH
