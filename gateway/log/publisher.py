"""The publisher: one writer's records, kept and written to one log.

It gives each record its version. A `put` or `delete` neither waits nor fails: the last record of each key is kept and
written by `run` as soon as the store takes it, so what waits is bounded by what is owned. What is owned, tombstones
too, is offered again, unchanged, when the log lost its history, and once a minute in case nobody noticed; the store
writes only what it lacks. Retries wait in between.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from gateway.core.catalog import deleted_at_s
from gateway.core.record import MAX_VERSION, Record, RecordKind, Version, encode
from gateway.log.base import CHUNK_RECORDS, TOMBSTONE_TTL_S, CatalogLog, LogUnavailable, Newer

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
REPUBLISH_EVERY_S: Final = 60.0
CLOSING_S: Final = 2.0
"""How long `aclose` may still write."""

logger = structlog.get_logger(__name__)


class Publisher:
    """Writes the records of `writer`. `run` in a task of its own; `put` and `delete` may be called before it runs."""

    def __init__(
        self,
        log: CatalogLog,
        writer: str,
        *,
        version_of: Callable[[str], Version | None] = lambda key: None,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - an epoch outlives the process
        rng: random.Random | None = None,
    ) -> None:
        """`version_of` tells the version of a key that the catalog holds: every record made here is newer than it."""
        self.writer = writer
        self.connected = False
        """The last write was taken."""
        self.last_error = ""
        self.written = 0
        """Records handed to the store."""
        self.outdone = 0
        """Records not taken because the store holds a newer one of another writer."""
        self._log = log
        self._version_of = version_of
        self._wall_clock = wall_clock
        self._rng = rng if rng is not None else random.Random()
        self._epoch = int(wall_clock() * 1000)
        self._counter = 0
        self._owned: dict[str, Record] = {}
        self._waiting: dict[str, Record] = {}
        self._more = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Publisher {self.writer} owns {len(self._owned)} waiting {len(self._waiting)}>"

    # --- what is owned -----------------------------------------------------------------

    def put(self, kind: str, id: str, body: Mapping[str, object]) -> None:
        """Publish this as the whole of the record. Raises ValueError for what no reader would take."""
        self._publish(RecordKind(kind), id, False, dict(body))

    def delete(self, kind: str, id: str) -> None:
        """Publish a tombstone."""
        self._publish(RecordKind(kind), id, True, {"deleted_at": round(self._wall_clock(), 3)})

    def record(self, kind: str, id: str) -> Record | None:
        """The record last published under this name."""
        return self._owned.get(f"{kind}/{id}")

    def owned(self) -> tuple[Record, ...]:
        """All records of this writer, tombstones too."""
        return tuple(self._owned.values())

    @property
    def waiting(self) -> int:
        """Records that the store has not taken yet."""
        return len(self._waiting)

    def republish_all(self) -> None:
        """Offer everything owned to the store once more, unchanged."""
        old_s = self._wall_clock() - TOMBSTONE_TTL_S
        for record in [record for record in self._owned.values() if record.deleted and deleted_at_s(record) < old_s]:
            del self._owned[record.key]
        self._enqueue(record for record in self._owned.values() if record.key not in self._waiting)

    def _publish(self, kind: RecordKind, identity: str, deleted: bool, body: Mapping[str, object]) -> None:
        key = f"{kind}/{identity}"
        held, own = self._version_of(key), self._owned.get(key)
        for seen in (held, own.version if own is not None else None):
            if seen is not None and seen >= (self._epoch, self._counter + 1):
                # A clock that went back, a former life with a faster one, or another writer's: what is said later wins.
                self._epoch = min(seen.epoch + 1, MAX_VERSION)
                self._counter = 0
        record = Record(kind, identity, self.writer, self._epoch, self._counter + 1, deleted, body)
        # Encoded here, so that what cannot be encoded is the caller's error.
        record = Record(kind, identity, self.writer, record.epoch, record.counter, deleted, body, encode(record))
        self._counter += 1
        self._owned[key] = record
        self._enqueue([record])

    def _enqueue(self, records: Iterable[Record]) -> None:
        for record in records:
            # Moved to the end: the store sees records in the order in which they were last said.
            self._waiting.pop(record.key, None)
            self._waiting[record.key] = record
        if self._waiting:
            self._settled.clear()
            self._more.set()

    # --- writing -----------------------------------------------------------------------

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        loop = asyncio.get_running_loop()
        republish_at_s = loop.time() + self._republish_in_s()
        while True:
            try:
                async with asyncio.timeout_at(republish_at_s):
                    await self._more.wait()
            except TimeoutError:
                republish_at_s = loop.time() + self._republish_in_s()
                self.republish_all()
                continue
            self._more.clear()
            try:
                await self.flush()
            except LogUnavailable as error:
                self._failed(error)
                # Back-off: nothing announces that a store is back.
                await asyncio.sleep(self._delay_s())  # noqa: TID251 - see above
                self._more.set()

    async def flush(self) -> None:
        """Write what waits, now. Raises LogUnavailable; what was not taken keeps waiting."""
        while self._waiting:
            chunk = list(self._waiting.values())[:CHUNK_RECORDS]
            newer = await self._log.append(chunk)
            self.written += len(chunk)
            for record in chunk:
                if self._waiting.get(record.key) is record:
                    del self._waiting[record.key]
            if self._failures:
                logger.info("catalog log takes records again", writer=self.writer, waiting=len(self._waiting))
            self.connected, self._failures = True, 0
            for each in newer:
                self._outdone(each)
        self._settled.set()

    async def settled(self) -> None:
        """Return once everything published so far was taken by the store."""
        await self._settled.wait()

    async def aclose(self) -> None:
        """Write what still waits, for at most two seconds. The log is not closed."""
        try:
            async with asyncio.timeout(CLOSING_S):
                await self.flush()
        except (TimeoutError, LogUnavailable) as error:
            logger.warning(
                "records were not published", writer=self.writer, waiting=len(self._waiting), error=str(error)
            )

    def _outdone(self, newer: Newer) -> None:
        own = self._owned.get(newer.key)
        if own is None or own.version > newer.version:
            return
        if newer.writer == self.writer:
            # Of a former life whose clock was ahead, and not in the catalog when this one spoke.
            self._epoch, self._counter = min(newer.version.epoch + 1, MAX_VERSION), 0
            self._publish(own.kind, own.id, own.deleted, own.body)
            return
        # Not fought over: two writers that outbid each other would never stop.
        self.outdone += 1
        logger.warning("another writer's record is newer", record=newer.key, writer=self.writer, other=newer.writer)

    def _failed(self, error: LogUnavailable) -> None:
        if not self._failures:
            logger.warning("records wait for the catalog log", writer=self.writer, error=str(error))
        self.connected = False
        self.last_error = str(error)
        self._failures += 1

    def _republish_in_s(self) -> float:
        return REPUBLISH_EVERY_S * self._rng.uniform(0.75, 1.25)

    def _delay_s(self) -> float:
        """100 ms, doubling to 2 s, each shortened by up to a half so that many do not return at once."""
        full_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 16))
        return full_s * self._rng.uniform(0.5, 1.0)
