"""Time as a driver of a platform takes it: a clock, pauses and limits, in the platform's seconds."""

from __future__ import annotations

import asyncio
import time


class Tempo:
    """Seconds that pass `speed` times as fast as real ones, so that a test need not wait for minutes."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed

    def now_s(self) -> float:
        """A clock that never goes back; its zero means nothing."""
        return time.monotonic() * self._speed

    async def pause(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s / self._speed)  # noqa: TID251 - the one place where drivers of platforms wait

    def limit(self, limit_s: float) -> asyncio.Timeout:
        """A context that raises TimeoutError after so long."""
        return asyncio.timeout(limit_s / self._speed)
