"""Who carries what right now: requests in flight and open streams per instance, and which ones failed to connect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gateway.core.model import AppTable, ConcurrencyType, Instance
from gateway.data.ring import Rings

MAX_TURNS = 10_000
"""Instances whose turns are known; past that all begin again."""
SUSPECT_S = 5.0
"""How long an instance that refused a connection is placed last."""


KEPT_S = 86_400.0
"""How long an instance that carries nothing is remembered, for how long it was not used."""


class Load:
    """What one instance carries through this gateway."""

    __slots__ = ("last_s", "parkable", "requests", "streams")

    def __init__(self) -> None:
        self.requests = 0
        self.streams = 0
        self.parkable = 0
        """Of the streams, those that only listen and may be parked while the instance sleeps."""
        self.last_s = 0.0
        """When something last began or ended, by the gateway's coarse clock."""


class Loads:
    """Implements the core's `View` for one gateway; reads only memory."""

    def __init__(self, concurrency: Callable[[str], ConcurrencyType]) -> None:
        self._concurrency = concurrency
        self._loads: dict[tuple[str, str], Load] = {}
        self._suspects: dict[tuple[str, str], float] = {}
        self._turns: dict[tuple[str, str], int] = {}
        self._turn = 0
        self._rings = Rings()
        self.now_s = 0.0
        """The gateway's coarse clock."""
        self.others: Mapping[tuple[str, str], int] = {}
        """What the other gateways say they carry, requests and streams together."""
        self.freed: Callable[[str, str], None] = lambda app, instance: None
        """Called with app and instance whenever an instance carries less."""

    def of(self, app: str, instance: str) -> Load:
        """The counters of an instance; kept while it carries something."""
        key = (app, instance)
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = Load()
        return load

    def load(self, instance: Instance) -> int:
        key = (instance.app, instance.id)
        load = self._loads.get(key)
        own = load.requests + load.streams if load is not None else 0
        return own + self.others.get(key, 0) if self.others else own

    def hard_load(self, instance: Instance) -> int:
        load = self._loads.get((instance.app, instance.id))
        if load is None:
            return 0
        if self._concurrency(instance.app) is ConcurrencyType.CONNECTIONS:
            return load.requests + load.streams
        return load.requests

    def suspect(self, instance: Instance) -> bool:
        if not self._suspects:
            return False
        return self._suspects.get((instance.app, instance.id), 0.0) > self.now_s

    def turn(self, instance: Instance) -> int:
        return self._turns.get((instance.app, instance.id), 0)

    def placed(self, instance: Instance) -> None:
        """Something new was sent to it: it comes last among those that carry as much."""
        if len(self._turns) >= MAX_TURNS:
            self._turns.clear()
        self._turn += 1
        self._turns[instance.app, instance.id] = self._turn

    def failed(self, app: str, instance: str) -> None:
        """A connection to it could not be made."""
        self._suspects[app, instance] = self.now_s + SUSPECT_S

    def rank(self, table: AppTable, key: bytes) -> Iterator[Instance]:
        return self._rings.rank(table, key)

    def sweep(self) -> None:
        """Drop what no longer says anything."""
        now_s = self.now_s
        self._suspects = {key: until_s for key, until_s in self._suspects.items() if until_s > now_s}
        gone_s = now_s - KEPT_S
        for key in [
            key for key, load in self._loads.items() if load.last_s < gone_s and not load.requests and not load.streams
        ]:
            del self._loads[key]

    def items(self) -> list[tuple[tuple[str, str], Load]]:
        return list(self._loads.items())
