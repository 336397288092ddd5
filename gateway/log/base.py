"""What a catalog log is: one history of records, kept by a store that may go away, come back empty or step back.

A store keeps three things for each log: the latest record of every key (the state), the stream of writes since some
time, and the generation, a random name of this history. They are written together. Stream ids are dense: each write
takes the next number, so a reader sees by itself that something is missing (Redis says nothing when the entry after a
reader's position was trimmed, nor when ids start anew).

Declared here: the CatalogLog protocol, its values, and `judge`, the one rule of when a reader has lost the history.
Implementations: memory, sqlite, redis. One contract suite runs over all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from gateway.core.record import Record, Version

KEPT_ENTRIES: Final = 100_000
"""Length of a stream. A follower that falls further behind reads the state again."""
CHUNK_RECORDS: Final = 500
"""Records in one read, write or apply: bounds how long a store's or the loop's other users wait."""
TOMBSTONE_TTL_S: Final = 86400.0
"""After this a deletion is forgotten. Whoever was away for longer may bring the record back."""
GLOBAL: Final = "global"
"""The log of the app records; the others are named by their region."""


class LogUnavailable(Exception):
    """The store did not do what was asked: it is away, refuses, or is too slow. Whether a write took place is not
    known; writing the same records again is harmless. Nothing of it is a fault of the records."""

    def __init__(self, where: str, reason: str, remedy: str) -> None:
        super().__init__(f"catalog {where}: {reason}; {remedy}")
        self.where = where
        """The store without its password."""
        self.reason = reason
        self.remedy = remedy


class LossReason(StrEnum):
    """Why a reader must read the state again."""

    GAP = "gap"
    """The entries after its position were trimmed or taken out. The history is the same."""
    NEW_HISTORY = "new-history"
    """The store has another history than before: it was emptied and written anew, or another server answers."""
    EMPTY = "empty"
    """The store has no history any more, or only a part of one."""
    STEP_BACK = "step-back"
    """The stream ends before the reader's position: the store was restored, or a lagging copy took over."""


class Place(NamedTuple):
    """A stream id, `<number>-<sub>`. This gateway writes sub 0 only."""

    number: int
    sub: int

    def __str__(self) -> str:
        return f"{self.number}-{self.sub}"

    @classmethod
    def parse(cls, text: str) -> Place:
        number, _, sub = text.partition("-")
        return cls(int(number), int(sub or 0))


START: Final = str(Place(0, 0))


class Raw(NamedTuple):
    """A record's bytes as a log holds them."""

    name: str
    """Where: the key in the state, or `stream <id>`."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state, and where the stream stood before it was read.

    Writes during the reading are in the state, in the stream behind `position`, or in both; last writer wins makes the
    overlap harmless. Iterating `chunks` raises LogUnavailable also when the history changed meanwhile: a part of two
    histories must not be taken for the whole of one.
    """

    generation: str
    """Names the history; empty when the store has none."""
    position: str
    chunks: AsyncIterator[Sequence[Raw]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What was written after a position, in order, and the position behind it. No raws: nothing was written."""

    position: str
    raws: Sequence[Raw] = ()


@dataclass(frozen=True, slots=True)
class Lost:
    """The reader cannot go on from its position. `raws` may be applied all the same."""

    reason: LossReason
    raws: Sequence[Raw] = ()


Tail = Batch | Lost


@dataclass(frozen=True, slots=True)
class Newer:
    """A record that was not written, because the store holds a newer one of its key."""

    key: str
    version: Version
    """Of the record held."""
    writer: str
    """Of the record held."""


class CatalogLog(Protocol):
    """One history: a region's, or the global one. Reads and writes of one object may overlap; reads may not."""

    where: str
    """The store and the log, without password."""

    async def append(self, records: Sequence[Record]) -> Sequence[Newer]:
        """Write each record unless the store holds the same version or a newer one; answer the latter.

        Each record is written whole or not at all; of several, any may be written when LogUnavailable is raised.
        Starts a new history if the store has none.
        """

    async def snapshot(self) -> Snapshot:
        """The state now. Raises LogUnavailable."""

    async def tail(self, generation: str, position: str, wait_s: float) -> Tail:
        """What was written after `position`; waits up to `wait_s` for it. Raises LogUnavailable."""

    async def purge(self, records: Sequence[Record]) -> None:
        """Take these tombstones out of the state, each only if the store still holds this very version."""

    async def aclose(self) -> None:
        """Let go of the store. Whoever waits in `tail` gets LogUnavailable."""


def judge(generation: str, position: Place, now: str, last: Place | None, read: Sequence[Place]) -> LossReason | None:
    """Whether a reader at `position` of history `generation` may go on, and if not, why.

    Args:
        now: the generation that the store has; empty for none.
        last: the id given out last; None when there is no stream.
        read: the ids behind `position`, in order. Empty only if nothing was there when `last` was already given out.
    """
    if now != generation:
        return LossReason.NEW_HISTORY if now else LossReason.EMPTY
    if not generation:
        return None
    if last is None or last < position:
        return LossReason.STEP_BACK
    if not read and last > position:
        return LossReason.GAP
    expected = position.number
    for place in read:
        expected += 1
        if place != (expected, 0):
            return LossReason.GAP
    return None
