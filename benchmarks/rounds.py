"""From rounds to figures: the quieter half of the rounds, its median and its spread. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of what the quieter rounds gave, and their lowest and highest value."""

    median: float
    low: float
    high: float


def quiet_rounds(rounds: Mapping[str, Sequence[float]]) -> list[int]:
    """The numbers of the quieter half (rounded up) of the rounds, in order.

    `rounds` holds one cost per round for every peer. How loud a round was is the sum, over the peers, of each
    one's cost relative to its own cheapest round: a neighbour on the machine makes everything dearer, and nothing
    makes it cheaper.
    """
    count = min(map(len, rounds.values()), default=0)
    loudness = [sum(costs[number] / max(min(costs), 1e-12) for costs in rounds.values()) for number in range(count)]
    return sorted(sorted(range(count), key=loudness.__getitem__)[: (count + 1) // 2])


def figure(values: Sequence[float], quiet: Sequence[int]) -> Figure:
    """One peer's figure over the quiet rounds."""
    kept = [values[number] for number in quiet]
    return Figure(statistics.median(kept), min(kept), max(kept))


def ratio(values: Sequence[float], reference: Sequence[float], quiet: Sequence[int]) -> Figure:
    """How many times the reference's value, compared within each quiet round. 0 where the reference is 0."""
    return figure([value / base if base else 0.0 for value, base in zip(values, reference, strict=True)], quiet)
