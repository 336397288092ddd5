"""A catalog log in this process's memory: for one process, for tests, and the model of what the other logs do.

All logs of one name and region in a process share one MemoryHistory; it vanishes with the last of them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import NamedTuple
from weakref import WeakValueDictionary

from gateway.core.record import BadRecord, Record, Version, decode, encode
from gateway.log.base import (
    CHUNK_RECORDS,
    KEPT_ENTRIES,
    START,
    Batch,
    LogUnavailable,
    Lost,
    Newer,
    Place,
    Raw,
    Snapshot,
    Tail,
    judge,
)


class _Held(NamedTuple):
    version: Version
    writer: str
    raw: bytes


class MemoryHistory:
    """What a store holds for one log. It can be given faults: `away`, `flush`, `lose_state`, `trim`, `restore`,
    `write_raw`."""

    def __init__(self, name: str = "memory:", kept_entries: int = KEPT_ENTRIES) -> None:
        self.name = name
        self.generation = ""
        self.last = 0
        self.away = False
        """While set, everything asked of it raises LogUnavailable."""
        self.written = asyncio.Event()
        """Set, and replaced by a new one, at each change."""
        self.contents: dict[str, _Held] = {}
        """The state."""
        self._stream: deque[tuple[int, bytes]] = deque(maxlen=kept_entries)

    def append(self, records: Sequence[Record]) -> list[Newer]:
        newer = []
        for record in records:
            raw = encode(record)
            held = self.contents.get(record.key)
            if held is not None and held.version > record.version:
                newer.append(Newer(record.key, held.version, held.writer))
            elif held is None or held.version < record.version:
                self._write(record.key, _Held(record.version, record.writer, raw))
        self.changed()
        return newer

    def write_raw(self, key: str, raw: bytes) -> None:
        """Write bytes that may be no record, as a faulty writer would."""
        read = decode(raw)
        # Like the Redis script, which lets anything replace what it cannot read.
        version, writer = (Version(-1, -1), "") if isinstance(read, BadRecord) else (read.version, read.writer)
        self._write(key, _Held(version, writer, raw))
        self.changed()

    def purge(self, records: Sequence[Record]) -> None:
        for record in records:
            held = self.contents.get(record.key)
            if held is not None and held.version == record.version:
                del self.contents[record.key]

    def after(self, position: int, count: int) -> list[tuple[int, bytes]]:
        """The entries behind a position that are still there."""
        first = self._stream[0][0] if self._stream else self.last + 1
        return list(islice(self._stream, max(0, position + 1 - first), max(0, position + 1 - first) + count))

    def state(self) -> list[Raw]:
        return [Raw(key, held.raw) for key, held in self.contents.items()]

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self.contents.clear()
        self._stream.clear()
        self.generation, self.last = "", 0
        self.changed()

    def lose_state(self) -> None:
        self.contents.clear()
        self.changed()

    def trim(self, kept: int) -> None:
        while len(self._stream) > kept:
            self._stream.popleft()
        self.changed()

    def copy(self) -> tuple[str, int, dict[str, _Held], list[tuple[int, bytes]]]:
        """What `restore` takes: a backup."""
        return self.generation, self.last, dict(self.contents), list(self._stream)

    def restore(self, backup: tuple[str, int, dict[str, _Held], list[tuple[int, bytes]]]) -> None:
        """Become an older copy of oneself, under the same generation."""
        self.generation, self.last, self.contents = backup[0], backup[1], dict(backup[2])
        self._stream = deque(backup[3], maxlen=self._stream.maxlen)
        self.changed()

    def changed(self) -> None:
        self.written.set()
        self.written = asyncio.Event()

    def _write(self, key: str, held: _Held) -> None:
        if not self.generation or not self.contents:
            # A history without a state is none: see docs/reference/catalog.md.
            self.generation, self.last = secrets.token_hex(8), 0
            self._stream.clear()
        self.last += 1
        self._stream.append((self.last, held.raw))
        self.contents[key] = held

    @property
    def usable_generation(self) -> str:
        return self.generation if self.contents else ""


_histories: WeakValueDictionary[tuple[str, str], MemoryHistory] = WeakValueDictionary()


class MemoryLog:
    """See CatalogLog."""

    def __init__(self, history: MemoryHistory) -> None:
        self.history = history
        self.where = history.name
        self._closed = False

    @classmethod
    def named(cls, name: str, region: str, kept_entries: int = KEPT_ENTRIES) -> MemoryLog:
        """A log over the history that this process shares under this name."""
        history = _histories.get((name, region))
        if history is None:
            history = _histories[name, region] = MemoryHistory(f"memory:{name} log {region}", kept_entries)
        return cls(history)

    async def append(self, records: Sequence[Record]) -> Sequence[Newer]:
        return self._reachable().append(records)

    async def snapshot(self) -> Snapshot:
        history = self._reachable()
        generation, position = history.usable_generation, START if history.last == 0 else str(Place(history.last, 0))

        async def chunks() -> AsyncIterator[Sequence[Raw]]:
            state = history.state()
            for at in range(0, len(state), CHUNK_RECORDS):
                yield state[at : at + CHUNK_RECORDS]
                if generation and self._reachable().usable_generation != generation:
                    raise self._unavailable("its history changed while it was read")

        return Snapshot(generation, position, chunks())

    async def tail(self, generation: str, position: str, wait_s: float) -> Tail:
        found = self._read(generation, Place.parse(position))
        if isinstance(found, Lost) or found.raws or wait_s <= 0:
            return found
        try:
            async with asyncio.timeout(wait_s):
                await self.history.written.wait()
        except TimeoutError:
            pass
        return self._read(generation, Place.parse(position))

    def _read(self, generation: str, position: Place) -> Tail:
        history = self._reachable()
        entries = history.after(position.number, CHUNK_RECORDS)
        raws = tuple(Raw(f"stream {number}-0", raw) for number, raw in entries)
        places = [Place(number, 0) for number, _ in entries]
        last = Place(history.last, 0)
        reason = judge(generation, position, history.usable_generation, last, places)
        if reason is not None:
            return Lost(reason, raws)
        return Batch(str(places[-1]), raws) if places else Batch(str(position))

    async def purge(self, records: Sequence[Record]) -> None:
        self._reachable().purge(records)

    async def aclose(self) -> None:
        self._closed = True
        self.history.changed()

    def _reachable(self) -> MemoryHistory:
        if self._closed:
            raise self._unavailable("it is closed")
        if self.history.away:
            raise self._unavailable("it is switched off")
        return self.history

    def _unavailable(self, reason: str) -> LogUnavailable:
        return LogUnavailable(self.where, reason, "open it again")
