"""How long wakes took and how they failed, since the gateway started: for metrics. Bounded by the number of apps."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from gateway.core.model import Instance
from gateway.core.problems import Problem

BOUNDS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets: a small server starts in half a second, a model server in a minute."""


class Taken:
    """The successful wakes of one app."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        """Per bucket, not cumulative; the last is for what took longer than every bound."""
        self.sum_s = 0.0


class WakeTimes:
    """What the waker notes of each wake that it ended."""

    def __init__(self) -> None:
        self.taken: dict[str, Taken] = {}
        self.failed: Counter[tuple[str, str]] = Counter()
        """By app and code."""

    def note(self, app: str, answer: Instance | Problem, took_s: float) -> None:
        if isinstance(answer, Problem):
            self.failed[app, answer.code.value] += 1
            return
        taken = self.taken.get(app)
        if taken is None:
            taken = self.taken[app] = Taken()
        taken.counts[bisect_left(BOUNDS_S, took_s)] += 1
        taken.sum_s += took_s
