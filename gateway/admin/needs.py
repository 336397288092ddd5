"""What the admin API needs of its gateway: one value, and a Protocol for each part that is not of `gateway.data`.

It is made in gateway/app.py, and by the tests. Nothing in it is changed from here but through its own methods.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol

from gateway.agent.base import AgentApi
from gateway.core.model import AppTable, Instance, Pin
from gateway.core.presence import Lease, Said
from gateway.core.sleep import Why
from gateway.data.state import Gateway
from gateway.lifecycle.times import WakeTimes
from gateway.sources.admin import Registered, Registration, Removal


class Machines(Protocol):
    """The machines registered through this API (`gateway.sources.admin.AdminMachines`)."""

    def register(self, app: str, raw: object) -> Registration:
        """Register what a request's body says."""

    def remove(self, app: str, id: str) -> Removal:
        """Take it back."""

    def cordon(self, app: str, id: str, cordoned: bool) -> Registered | None:
        """Take it out of placement or back into it; None when it was not registered here."""

    def owns(self, app: str, id: str) -> bool: ...


class FollowerState(Protocol):
    """How a follower stands (`gateway.log.follower.FollowerState`)."""

    @property
    def source(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def generation(self) -> str: ...
    @property
    def position(self) -> str: ...
    @property
    def connected(self) -> bool: ...
    @property
    def age_s(self) -> float | None: ...
    @property
    def resyncs(self) -> int: ...
    @property
    def holding(self) -> str: ...
    @property
    def last_error(self) -> str: ...


class Follower(Protocol):
    """One followed log (`gateway.log.follower.Follower`)."""

    records_applied: int
    records_stale: int
    records_refused: int
    apply_s: float

    def state(self) -> FollowerState: ...


class Holds(Protocol):
    """Requests that are held (`gateway.lifecycle.holds.Holds`)."""

    @property
    def held(self) -> Mapping[str, int]: ...
    @property
    def refused(self) -> Mapping[str, int]: ...


class WakeUnderWay(Protocol):
    """One wake (`gateway.lifecycle.waker.Waking`)."""

    @property
    def app(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def for_s(self) -> float: ...
    @property
    def held(self) -> int: ...


class Waker(Protocol):
    """What waits for instances to start (`gateway.lifecycle.waker.Waker`)."""

    times: WakeTimes

    def waking(self) -> Sequence[WakeUnderWay]: ...


class Sleeper(Protocol):
    """What puts idle instances to sleep (`gateway.lifecycle.sleeper.Sleeper`)."""

    leads: bool
    slept: int
    called_off: int

    def why(self, table: AppTable) -> Mapping[str, Why | None]:
        """Why each running instance of an app is up; None for one that sleeps soon."""


class Presence(Protocol):
    """What the gateways say to each other (`gateway.lifecycle.presence.Presence`)."""

    all_said: Sequence[Said | None]
    """What every live gateway said last, this one's own among them; empty while the store is away."""


class Whereabouts(Protocol):
    """The presence store, for its leases (`gateway.log.presence.Presence`). All raise LogUnavailable."""

    async def hold(self, app: str, id: str, name: str, expires_in_s: float, *, replace: bool) -> bool:
        """Keep an instance awake; False when a lease of that name is live and `replace` is not set.

        Raises TooManyLeases.
        """

    async def release(self, app: str, id: str, name: str) -> bool:
        """End a lease; False when none of that name is live."""

    async def held(self, app: str | None = None) -> Sequence[Lease]:
        """The live leases of one app, or of all, by app, instance and name."""


class Pins(Protocol):
    """The pin store, for `explain`."""

    async def get(self, app: str, kind: str, key: bytes) -> Pin | None:
        """The pin of a key; raises LogUnavailable."""


@dataclass(frozen=True, slots=True)
class Admin:
    """A gateway as its admin API sees it."""

    gateway: Gateway
    agent: AgentApi
    machines: Machines
    waker: Waker
    holds: Holds
    followers: Sequence[Follower]
    """May grow: a log is followed from when its region is first named."""
    pins: Pins
    sleeper: Sleeper
    presence: Presence
    whereabouts: Whereabouts
    id: str
    """The gateway's id: `host:port`."""
    token: str | None = field(default=None, repr=False)
    """The bearer token; None: only this machine may ask."""
    version: str = field(default_factory=lambda: version("moorage"))
    started_at_s: float = field(default_factory=time.time)  # noqa: TID251 - for people
    """When it started, in Unix time."""

    def instance(self, app: str, id: str) -> Instance | None:
        """As this gateway's catalog has it."""
        return self.gateway.catalog.instance(app, id)
