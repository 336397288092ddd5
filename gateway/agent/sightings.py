"""What a driver has seen of its instances on a platform, and what of that is news.

A platform tells late, and more than once: by a list that was asked for before a stop and arrives after it, by events of
what this driver did itself. Here is decided what of it the watcher is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from gateway.agent.base import InstanceKey, Observed


class Sightings:
    """The last sight of each instance. Synchronous but for `wait`."""

    def __init__(self) -> None:
        self._seen: dict[InstanceKey, Observed] = {}
        self._acting: dict[InstanceKey, int] = {}
        self._settled: dict[InstanceKey, int] = {}
        self._moment = 0
        self._news: dict[InstanceKey, None] = {}
        self._has_news = asyncio.Event()

    def inspect(self, key: InstanceKey) -> Observed | None:
        return self._seen.get(key)

    def list(self) -> list[Observed]:
        return list(self._seen.values())

    @property
    def moment(self) -> int:
        """Take it before the platform is asked, and give it to `see` with the answer."""
        return self._moment

    @contextlib.contextmanager
    def acting(self, key: InstanceKey) -> Iterator[None]:
        """While something is done to it from here, what is seen of it says nothing; what was asked before the end
        and is answered later does not either."""
        self._acting[key] = self._acting.get(key, 0) + 1
        try:
            yield
        finally:
            self._acting[key] -= 1
            self._moment += 1
            self._settled[key] = self._moment

    def counts(self, key: InstanceKey, asked: int) -> bool:
        """Whether an answer says something of it, to what was asked at the moment `asked`."""
        return not self._acting.get(key) and self._settled.get(key, 0) <= asked

    def see(self, key: InstanceKey, observed: Observed | None, asked: int) -> None:
        """The platform said so, asked at the moment `asked`. None: nothing of it runs, nor did before."""
        if not self.counts(key, asked):
            return
        before = self._seen.get(key)
        if observed is None:
            self.settle(key, None)
            return
        self._seen[key] = observed
        if before is None or _changed(before, observed):
            self._news[key] = None
            self._has_news.set()

    def settle(self, key: InstanceKey, observed: Observed | None) -> None:
        """What was done from here led to this: no news."""
        self._news.pop(key, None)
        if observed is None:
            self._seen.pop(key, None)
        else:
            self._seen[key] = observed

    def tell(self, key: InstanceKey) -> None:
        """Make it news as it is: something else was believed of it."""
        if key in self._seen:
            self._news[key] = None
            self._has_news.set()

    async def wait(self) -> None:
        """Return when there is news."""
        await self._has_news.wait()

    def news(self) -> Iterator[Observed]:
        """What was not told yet, each as it is now."""
        while self._news:
            key = next(iter(self._news))
            del self._news[key]
            yield self._seen[key]
        self._has_news.clear()


def _changed(before: Observed, after: Observed) -> bool:
    def life(observed: Observed) -> tuple[object, ...]:
        return observed.running, observed.suspended, observed.incarnation, observed.address

    return life(before) != life(after)
