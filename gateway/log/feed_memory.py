"""A feed in this process's memory, shared by name, and gone with the last user of the name."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from weakref import WeakValueDictionary

from gateway.log.base import LogUnavailable, Place
from gateway.log.feed import CHUNK, KEPT_MESSAGES, Kept, Read, checked, read_behind


class MemoryMessages:
    """What a store holds for one feed. It can be given faults: `away`, `flush`, `trim`, `restore`."""

    def __init__(self, where: str = "memory:", kept_messages: int = KEPT_MESSAGES) -> None:
        self.where = where
        self.away = False
        """While set, everything asked of it raises LogUnavailable."""
        self.written = asyncio.Event()
        """Set, and replaced by a new one, at each change."""
        self._history = ""
        self._last = 0
        self._messages: deque[bytes] = deque(maxlen=kept_messages)
        """Those with the numbers up to the last."""

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, messages: Sequence[bytes]) -> None:
        self._history = self._history or secrets.token_hex(8)
        self._messages.extend(messages)
        self._last += len(messages)
        self.changed()

    def behind(self, place: Place) -> Kept:
        before = self._last - len(self._messages)
        first = max(0, place.number - before)
        entries = [
            (Place(before + index + 1, 0), self._messages[index])
            for index in range(first, min(first + CHUNK, len(self._messages)))
        ]
        return Kept(self._history, Place(self._last, 0), entries)

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self.restore(("", 0, []))

    def trim(self, kept: int) -> None:
        while len(self._messages) > kept:
            self._messages.popleft()
        self.changed()

    def copy(self) -> tuple[str, int, list[bytes]]:
        """What `restore` takes: a backup."""
        return self._history, self._last, list(self._messages)

    def restore(self, backup: tuple[str, int, list[bytes]]) -> None:
        """Become an older copy of oneself."""
        self._history, self._last = backup[0], backup[1]
        self._messages.clear()
        self._messages.extend(backup[2])
        self.changed()

    def changed(self) -> None:
        self.written.set()
        self.written = asyncio.Event()


_feeds: WeakValueDictionary[tuple[str, str], MemoryMessages] = WeakValueDictionary()


class MemoryFeed:
    """See Feed."""

    def __init__(self, messages: MemoryMessages) -> None:
        self.messages = messages
        self.where = messages.where
        self._closed = False

    @classmethod
    def named(cls, catalog: str, name: str, kept_messages: int = KEPT_MESSAGES) -> MemoryFeed:
        """The feed that this process shares under these names."""
        messages = _feeds.get((catalog, name))
        if messages is None:
            messages = _feeds[catalog, name] = MemoryMessages(f"memory:{catalog} feed {name}", kept_messages)
        return cls(messages)

    async def append(self, messages: Sequence[bytes]) -> None:
        if checked(messages):
            self._reachable().append(messages)

    async def read(self, history: str, position: str, wait_s: float) -> Read:
        return await read_behind(self._look, self._wait, history, position, wait_s)

    async def aclose(self) -> None:
        self._closed = True
        self.messages.changed()

    async def _look(self, place: Place) -> Kept:
        return self._reachable().behind(place)

    async def _wait(self, position: str, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self.messages.written.wait()
        except TimeoutError:
            pass

    def _reachable(self) -> MemoryMessages:
        if self._closed or self.messages.away:
            raise LogUnavailable(self.where, "it is closed" if self._closed else "it is switched off", "open it again")
        return self.messages
