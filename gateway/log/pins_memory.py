"""Pins in this process's memory, shared by name, and gone with the last user of the name."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

from gateway.core.model import Pin
from gateway.log.pins import Found

MAX_PINS: Final = 1_000_000
"""The least recently used go first."""


class _Table:
    def __init__(self) -> None:
        self.pins: OrderedDict[bytes, tuple[Found, float]] = OrderedDict()


_tables: WeakValueDictionary[str, _Table] = WeakValueDictionary()


class MemoryPins:
    """See PinTable."""

    def __init__(self, table: _Table | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table if table is not None else _Table()
        self._clock = clock

    @classmethod
    def named(cls, name: str) -> MemoryPins:
        table = _tables.get(name)
        if table is None:
            table = _tables[name] = _Table()
        return cls(table)

    async def put(self, digest: bytes, pin: Pin, ttl_s: float) -> None:
        pins = self._table.pins
        pins[digest] = (Found(pin, ttl_s), self._clock() + ttl_s)
        pins.move_to_end(digest)
        if len(pins) > MAX_PINS:
            pins.popitem(last=False)

    async def get(self, digest: bytes) -> Found | None:
        held = self._table.pins.get(digest)
        if held is None:
            return None
        found, expires_s = held
        if self._clock() >= expires_s:
            del self._table.pins[digest]
            return None
        await self.put(digest, *found)
        return found

    async def delete(self, digest: bytes) -> None:
        self._table.pins.pop(digest, None)

    async def aclose(self) -> None:
        """Nothing to let go of."""
