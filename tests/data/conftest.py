"""Replay caches of a gateway alone, and of one among others."""

from __future__ import annotations

import pytest

from gateway.data.replays import Replays
from tests.data.entries import MINE, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alone(clock: Clock) -> Replays:
    """Of a gateway that has no others."""
    return Replays(MINE, clock)


@pytest.fixture
def outgoing() -> list[bytes]:
    return []


@pytest.fixture
def shared(clock: Clock, outgoing: list[bytes]) -> Replays:
    """Of a gateway that tells others."""
    one = Replays(MINE, clock)
    one.publish = outgoing.append
    return one
