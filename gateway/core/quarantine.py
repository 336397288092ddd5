"""Records that could not be used, by name: counted, bounded, and forgotten once a good one takes their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_LISTED: Final = 1000
"""More are counted but not listed; the oldest go first."""


@dataclass(slots=True)
class Quarantine:
    """One bad record, as an operator sees it."""

    name: str
    """Its key, or where it was found when its key could not be read."""
    source: str
    reason: str
    first_seen_s: float
    seen: int = 1
    sweep: int = 0
    """The last sweep of its log that saw it."""


class Quarantined:
    """The list, and how many there ever were."""

    def __init__(self) -> None:
        self.total = 0
        """Bad records met so far; the same one met again, as after a resync, counts again."""
        self._listed: dict[tuple[str, str], Quarantine] = {}

    def __len__(self) -> int:
        return len(self._listed)

    def listed(self) -> tuple[Quarantine, ...]:
        return tuple(self._listed.values())

    def add(self, source: str, name: str, reason: str, now_s: float, sweep: int) -> None:
        self.total += 1
        known = self._listed.get((source, name))
        if known is not None:
            known.seen += 1
            known.reason = reason
            known.sweep = sweep
            return
        if len(self._listed) >= MAX_LISTED:
            del self._listed[next(iter(self._listed))]
        self._listed[source, name] = Quarantine(name, source, reason, now_s, sweep=sweep)

    def replaced(self, source: str, key: str) -> None:
        """A good record of this key was applied."""
        if self._listed:
            self._listed.pop((source, key), None)

    def forget_unswept(self, source: str, sweep: int) -> None:
        """Drop what the log no longer holds."""
        for at, known in list(self._listed.items()):
            if known.source == source and known.sweep != sweep:
                del self._listed[at]
