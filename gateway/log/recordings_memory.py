"""Recorded sessions in this process's memory, shared by name, and gone with the last user of the name."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

from gateway.log.recordings import Kept

MAX_RECORDINGS: Final = 1_000_000
MAX_BYTES: Final = 256 << 20
"""Of all of one name together. Past either bound, the least recently used go first."""


class _Table:
    def __init__(self) -> None:
        self.kept: OrderedDict[bytes, tuple[Kept, float]] = OrderedDict()
        self.bytes = 0

    def put(self, digest: bytes, kept: Kept, until_s: float) -> None:
        self.pop(digest)
        self.kept[digest] = (kept, until_s)
        self.bytes += _size(kept)
        while self.bytes > MAX_BYTES or len(self.kept) > MAX_RECORDINGS:
            self.pop(next(iter(self.kept)))

    def pop(self, digest: bytes) -> None:
        held = self.kept.pop(digest, None)
        if held is not None:
            self.bytes -= _size(held[0])


_tables: WeakValueDictionary[str, _Table] = WeakValueDictionary()


class MemoryRecordings:
    """See RecordingTable."""

    def __init__(self, table: _Table | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table if table is not None else _Table()
        self._clock = clock

    @classmethod
    def named(cls, name: str) -> MemoryRecordings:
        table = _tables.get(name)
        if table is None:
            table = _tables[name] = _Table()
        return cls(table)

    async def put(self, digest: bytes, recording: bytes, ttl_s: float) -> None:
        self._keep(digest, Kept(recording, b"", ttl_s))

    async def get(self, digest: bytes) -> Kept | None:
        held = self._table.kept.get(digest)
        if held is None:
            return None
        kept, until_s = held
        if self._clock() >= until_s:
            self._table.pop(digest)
            return None
        self._keep(digest, kept)
        return kept

    async def bind(self, digest: bytes, before: bytes, binding: bytes) -> bytes | None:
        kept = await self.get(digest)
        if kept is None:
            return None
        if kept.binding != before:
            return kept.binding
        self._keep(digest, kept._replace(binding=binding))
        return binding

    async def renew(self, digests: Sequence[bytes]) -> None:
        for digest in digests:
            await self.get(digest)

    async def delete(self, digest: bytes) -> None:
        self._table.pop(digest)

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _keep(self, digest: bytes, kept: Kept) -> None:
        self._table.put(digest, kept, self._clock() + kept.ttl_s)


def _size(kept: Kept) -> int:
    return len(kept.recording) + len(kept.binding) + 200
