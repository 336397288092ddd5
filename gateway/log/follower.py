"""The follower: keeps the catalog equal to one log, whatever happens to the log.

It alone folds that log's records. It reads the state, then what is written behind it; after a loss it reads the state
again while the old table serves. Until a history that replaced another holds everything the table holds, nothing is
dropped: the follower writes back, unchanged, each record that the store has not or has older. Every gateway may do so
at once; last writer wins makes that harmless. Retries read; only a regained, different history is written to.

Losses, and what follows:

    the same history, entries trimmed    what the state lacks was deleted: dropped, unless it is over a third of the
                                         instances; then as below
    another, an empty or an older one    the table is held, `on_lost` is called (owners republish), and what the store
                                         lacks is written back
    the store is away                    the table serves; retries with back-off and jitter
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

import structlog

from gateway.core.catalog import Applied, Catalog, Refused, Stale
from gateway.core.record import Version
from gateway.log.base import (
    CHUNK_RECORDS,
    START,
    TOMBSTONE_TTL_S,
    CatalogLog,
    LogUnavailable,
    LossReason,
    Lost,
    Raw,
)

WAIT_S: Final = 1.0
"""Longest wait for news; after it the history is checked, so a lost one is noticed within about a second."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
SLICE_S: Final = 0.005
"""Longest time the loop is kept by applying records."""
CLOCK_EVERY: Final = 16
"""Records applied between two looks at the clock."""
PURGE_EVERY_S: Final = 3600.0

logger = structlog.get_logger(__name__)


class Observer(Protocol):
    """Told what a follower did, for metrics. Must not raise or wait."""

    def applied(self, source: str, records: int, took_s: float) -> None:
        """A batch was folded in this time, at most about SLICE_S."""

    def refused(self, source: str, name: str, reason: str) -> None:
        """A record was quarantined."""

    def lost(self, source: str, reason: LossReason) -> None:
        """The history was lost; the state is read again."""


class _NoObserver:
    def applied(self, source: str, records: int, took_s: float) -> None: ...
    def refused(self, source: str, name: str, reason: str) -> None: ...
    def lost(self, source: str, reason: LossReason) -> None: ...


@dataclass(frozen=True, slots=True)
class FollowerState:
    """How a follower stands, for the admin API."""

    source: str
    where: str
    generation: str
    position: str
    connected: bool
    """The last thing asked of the store was answered."""
    age_s: float | None
    """Since the table was last known to be equal to the log; None before the first time."""
    resyncs: int
    holding: str
    """Why the table holds records that the log lacks; empty when it does not."""
    last_error: str
    """The last failure, also when it is over."""


class Follower:
    """Follows one log into the catalog. `run` in a task of its own; everything else may be called at any time."""

    def __init__(
        self,
        log: CatalogLog,
        catalog: Catalog,
        source: str,
        *,
        on_lost: Callable[[LossReason], None] = lambda reason: None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - tombstones carry wall time
        rng: random.Random | None = None,
    ) -> None:
        """`source` is the log's name: a region or "global". `on_lost` is called when a history was replaced."""
        self.source = source
        self.resyncs = 0
        self.records_applied = 0
        self.records_stale = 0
        self.records_refused = 0
        self.apply_s = 0.0
        """Time spent folding, in all."""
        self._log = log
        self._catalog = catalog
        self._on_lost = on_lost
        self._observer: Observer = observer if observer is not None else _NoObserver()
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng if rng is not None else random.Random()
        self._generation = ""
        """The history that the table is equal to, or was; empty when that is not known."""
        self._position: str | None = None
        """None: the state must be read."""
        self._seen_generation = ""
        self._connected = False
        self._failures = 0
        self._equal_at_s: float | None = None
        self._holding = ""
        self._last_error = ""
        self._ready = asyncio.Event()
        self._purge_at_s = clock() + PURGE_EVERY_S
        self._owed: list[str] = []
        """Keys of records that the store lacks and is still to be given."""
        self._write_back_at_s = 0.0
        self._refusals = 0
        self._waiting: list[tuple[str, Version, asyncio.Event]] = []

    def state(self) -> FollowerState:
        return FollowerState(
            self.source,
            self._log.where,
            self._seen_generation,
            self._position or START,
            self._connected,
            None if self._equal_at_s is None else self._clock() - self._equal_at_s,
            self.resyncs,
            self._holding,
            self._last_error,
        )

    async def ready(self) -> None:
        """Return once the state was read for the first time."""
        await self._ready.wait()

    async def seen(self, key: str, version: Version) -> None:
        """Return once the table has this version of a record, or a newer one."""
        if not self._has(key, version):
            event = asyncio.Event()
            self._waiting.append((key, version, event))
            await event.wait()

    def _has(self, key: str, version: Version) -> bool:
        held = self._catalog.version(key)
        return held is not None and held >= version

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self.step(WAIT_S)
            except LogUnavailable as error:
                self._failed(error)
                # Back-off: nothing announces that a store is back.
                await asyncio.sleep(self._delay_s(self._failures))  # noqa: TID251 - see above

    async def step(self, wait_s: float) -> None:
        """One round: read the state, or wait up to `wait_s` for news; then apply. Raises LogUnavailable."""
        if self._position is None:
            await self._resync()
        else:
            await self._tail(self._position, wait_s)
        if self._failures:
            logger.info("catalog log is back", source=self.source, where=self._log.where)
        self._connected, self._failures = True, 0
        if self._owed and self._clock() >= self._write_back_at_s:
            await self._write_back()
        if self._position is not None and not self._owed:
            # Only now is the store known to hold what the table holds.
            self._generation, self._holding, self._refusals = self._seen_generation, "", 0
            if self._clock() >= self._purge_at_s:
                await self._purge()

    # --- the stream --------------------------------------------------------------------

    async def _tail(self, position: str, wait_s: float) -> None:
        tail = await self._log.tail(self._seen_generation, position, wait_s)
        await self._apply(tail.raws)
        if isinstance(tail, Lost):
            self._lost(tail.reason)
        elif not self._seen_generation and not self._owed and self._catalog.record_count(self.source):
            # A history that began and ended between two looks: only the table shows that it was there.
            self._lost(LossReason.EMPTY)
        else:
            self._position = tail.position
            if len(tail.raws) < CHUNK_RECORDS:
                self._equal_at_s = self._clock()

    def _lost(self, reason: LossReason) -> None:
        """Read the state again."""
        self._position = None
        self._observer.lost(self.source, reason)
        if reason is not LossReason.GAP:
            # What comes next did not grow out of what the table is equal to.
            self._generation = ""
        if reason is LossReason.NEW_HISTORY and not self._seen_generation:
            logger.info("catalog log has begun", source=self.source, where=self._log.where)
            return
        logger.warning("catalog log lost", source=self.source, reason=reason, where=self._log.where)
        if reason is not LossReason.GAP:
            self._holding = reason
            self._on_lost(reason)

    # --- the state ---------------------------------------------------------------------

    async def _resync(self) -> None:
        snapshot = await self._log.snapshot()
        same_history = bool(snapshot.generation) and snapshot.generation == self._generation
        self._catalog.begin_sweep(self.source)
        async for raws in snapshot.chunks:
            # A record older than the table's shows a history that stepped back.
            if await self._apply(raws):
                same_history = False
            await _yield()
        self.resyncs += 1
        missing = await self._missing()
        if same_history and self._are_few(missing):
            if missing:
                logger.info("records are gone from the catalog log", source=self.source, dropped=len(missing))
            self._catalog.drop(missing)
            missing = []
        elif missing:
            self._hold(missing, snapshot.generation)
        self._owed = missing
        self._catalog.forget_unswept_quarantine(self.source)
        self._seen_generation = snapshot.generation
        self._position = snapshot.position
        self._equal_at_s = self._clock()
        self._ready.set()

    async def _missing(self) -> list[str]:
        """What the table holds of this log and the state has not, or has older."""
        missing: list[str] = []
        unswept = self._catalog.unswept(self.source)
        while chunk := list(islice(unswept, CHUNK_RECORDS)):
            missing += chunk
            await _yield()
        return missing

    def _are_few(self, missing: Sequence[str]) -> bool:
        """At most a third of the log's live records: more is a fault of the store, until the owners say otherwise."""
        gone = sum(1 for key in missing if not self._catalog.is_tombstone(key))
        return 3 * gone <= self._catalog.live_count(self.source)

    def _hold(self, missing: Sequence[str], generation: str) -> None:
        self._generation = ""
        self._holding = self._holding or "more than a third of the records went without a tombstone"
        self._write_back_at_s = self._clock()
        logger.warning(
            "the catalog log lacks records: the table is kept and they are written back",
            source=self.source,
            reason=self._holding,
            records=len(missing),
            generation=generation or "none",
        )

    async def _write_back(self) -> None:
        """Give the store what it lacks. It may refuse; the stream is followed all the same."""
        try:
            while self._owed:
                chunk = self._owed[-CHUNK_RECORDS:]
                records = [record for key in chunk if (record := self._catalog.record(key)) is not None]
                await self._log.append(records)
                del self._owed[-CHUNK_RECORDS:]
        except LogUnavailable as error:
            self._last_error = str(error)
            self._refusals += 1
            self._write_back_at_s = self._clock() + self._delay_s(self._refusals)
            if self._refusals == 1:
                logger.warning("the catalog log does not take records back", source=self.source, error=str(error))

    # --- applying ----------------------------------------------------------------------

    async def _apply(self, raws: Sequence[Raw]) -> int:
        """Fold these, in slices; answers how many were older than what the table has."""
        older = done = 0
        while done < len(raws):
            first, began_s = done, self._clock()
            while done < len(raws) and ((done - first) % CLOCK_EVERY or done == first or self._within(began_s)):
                older += self._fold(raws[done], began_s)
                done += 1
            took_s = self._clock() - began_s
            self.apply_s += took_s
            self._observer.applied(self.source, done - first, took_s)
            if done < len(raws):
                await _yield()
        if self._waiting:
            for waiting in [waiting for waiting in self._waiting if self._has(waiting[0], waiting[1])]:
                waiting[2].set()
                self._waiting.remove(waiting)
        return older

    def _within(self, began_s: float) -> bool:
        return self._clock() - began_s < SLICE_S

    def _fold(self, raw: Raw, now_s: float) -> int:
        folded = self._catalog.fold(raw.data, source=self.source, name=raw.name, now_s=now_s)
        match folded:
            case Applied():
                self.records_applied += 1
            case Stale():
                self.records_stale += 1
                return int(folded.older)
            case Refused():
                self.records_refused += 1
                logger.warning("catalog record refused", source=self.source, record=folded.name, reason=folded.reason)
                self._observer.refused(self.source, folded.name, folded.reason)
        return 0

    async def _purge(self) -> None:
        """Forget old tombstones, here and in the log. Every follower does; the later ones find nothing."""
        self._purge_at_s = self._clock() + PURGE_EVERY_S
        old = self._catalog.purge_tombstones(self._wall_clock() - TOMBSTONE_TTL_S, self.source)
        for at in range(0, len(old), CHUNK_RECORDS):
            await self._log.purge(old[at : at + CHUNK_RECORDS])

    # --- failures ----------------------------------------------------------------------

    def _failed(self, error: LogUnavailable) -> None:
        if not self._failures:
            logger.warning("catalog log is away; the table keeps serving", source=self.source, error=str(error))
        self._connected = False
        self._failures += 1
        self._last_error = str(error)

    def _delay_s(self, failures: int) -> float:
        """100 ms, doubling to 2 s, each shortened by up to a half so that many do not return at once."""
        full_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16))
        return full_s * self._rng.uniform(0.5, 1.0)


async def _yield() -> None:
    """Let the loop's other tasks run."""
    await asyncio.sleep(0)  # noqa: TID251 - waits for nothing
