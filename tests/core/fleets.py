"""An app's instances and what is known of them, for the tests of sleep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.core.model import AppTable, AutoStop, Instance
from gateway.core.presence import NEVER_S, Carried, Lease
from gateway.core.sleep import Sleep, choose, why_up
from tests.core.builders import instance, table

LONG_UP_S = 86400.0


@dataclass(frozen=True)
class Facts:
    """What is known of an app's instances. What is not given is idle and long up."""

    table: AppTable
    carried: Mapping[str, Carried] = field(default_factory=dict)
    leases: Sequence[Lease] = ()
    up_s: Mapping[str, float] = field(default_factory=dict)
    watched_s: float = NEVER_S

    def _arguments(self) -> tuple[Any, ...]:
        carried = {("tools", id): one for id, one in self.carried.items()}
        up_s = dict.fromkeys(self.table.instances, LONG_UP_S) | dict(self.up_s)
        return self.table, carried, self.leases, up_s, self.watched_s

    def choose(self) -> Sequence[Sleep]:
        return choose(*self._arguments())

    def ids(self) -> list[str]:
        return [sleep.instance.id for sleep in self.choose()]

    def why(self) -> dict[str, str | None]:
        return {id: None if why is None else str(why) for id, why in why_up(*self._arguments()).items()}


def own(id: str = "i-1", /, **settings: Any) -> Instance:
    """A running instance that a driver can start."""
    return instance(id, **{"startable": True, **settings})


def fleet(*instances: Instance, **settings: Any) -> AppTable:
    return table(*(instances or (own(),)), **{"auto_stop": AutoStop.STOP, **settings})
