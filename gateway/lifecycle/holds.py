"""How many requests are held, per app, and the bound on it. A count, not a queue: each held request waits by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from gateway.core.model import App
from gateway.core.problems import Code, Problem

RETRY_AFTER_S: Final = 1


class Holds:
    """Shared by everything that holds requests of an app: wakes, and waits at the hard limit."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    @property
    def held(self) -> Mapping[str, int]:
        """Requests held now, by app; apps without any are absent."""
        return self._held

    @property
    def refused(self) -> Mapping[str, int]:
        """Requests refused so far because the app's wake_queue was full."""
        return self._refused

    def enter(self, app: App) -> Problem | None:
        """Count one more held request, or say why not. Whoever gets None must call `leave` once."""
        if self._held[app.name] >= app.wake_queue:
            self._refused[app.name] += 1
            text = f"{app.wake_queue} requests of app {app.name} are held already (wake_queue)"
            return Problem(Code.PL02, text, app=app.name, retry_after_s=RETRY_AFTER_S)
        self._held[app.name] += 1
        return None

    def leave(self, app: App) -> None:
        self._held[app.name] -= 1
        if not self._held[app.name]:
            del self._held[app.name]
