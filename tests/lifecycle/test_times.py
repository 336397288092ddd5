"""Wake times in buckets."""

from __future__ import annotations

import pytest

from gateway.core.model import Instance
from gateway.core.problems import Code, Problem
from gateway.lifecycle.times import BOUNDS_S, WakeTimes


def test_each_time_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    times = WakeTimes()
    for took_s in (0.0, *BOUNDS_S, 0.11, 500.0):
        times.note("tools", Instance("tools", "i-1"), took_s)
    assert times.taken["tools"].counts == [2, 2, *[1] * (len(BOUNDS_S) - 2), 1]
    assert times.taken["tools"].sum_s == pytest.approx(sum(BOUNDS_S) + 500.11)
    assert not times.failed


def test_failures_are_counted_by_code_and_take_no_time() -> None:
    times = WakeTimes()
    times.note("tools", Problem(Code.PM03, "late"), 60.0)
    times.note("tools", Problem(Code.PM03, "late"), 60.0)
    assert times.failed == {("tools", "PM03"): 2}
    assert not times.taken
