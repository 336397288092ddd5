"""The agent: owner of one host's instances. It starts, stops, watches and publishes them; nobody else does.

It runs inside a gateway or as a program of its own, and knows neither sessions nor the catalog: it writes records
through `Publish` and answers `AgentApi`. Each instance's own life is in owned.py; here is what concerns them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import httpx2
import structlog

from gateway.agent.base import (
    Cordoned,
    CordonOutcome,
    Driver,
    DriverError,
    DriverName,
    Failure,
    FailureKind,
    InstanceKey,
    Listed,
    NotReached,
    PrepareOutcome,
    Publish,
    Refused,
    Rest,
    Spec,
    StartFailed,
    StartOutcome,
    StopOutcome,
    WaitOutcome,
)
from gateway.agent.flight import Context
from gateway.agent.owned import Owned
from gateway.agent.probes import check_client
from gateway.agent.process import ProcessDriver
from gateway.agent.static import StaticDriver
from gateway.core.model import App, Instance, State

logger = structlog.get_logger(__name__)

START_LIMIT: Final = 16
"""Starts at once on one host; more wait for their turn. Many interpreters that start together all become ready late."""


class Agent:
    """Implements `AgentApi`. Open it by `async with`; its tasks belong to the given group.

    Leaving stops every instance in parallel, each within its app's stop_grace_s. Publish must still work then.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        publish: Publish,
        *,
        owner: str,
        instances: Iterable[tuple[App, Spec]] = (),
        remembered: Callable[[str, str], Instance | None] = lambda app, id: None,
        drivers: Mapping[DriverName, Driver] | None = None,
        url: str = "",
        start_limit: int = START_LIMIT,
        rng: random.Random | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        wall_clock_s: Callable[[], float] = time.time,  # noqa: TID251 - incarnations outlive the process
    ) -> None:
        """Args:
        owner: the writer id that stands in the records.
        remembered: what the catalog still holds of an instance; its cordon and an operator's stop are kept.
        drivers: beside the ones for plain addresses and for commands, or in place of them.
        url: where others can ask this agent; stands in the records.
        """
        # Incarnations must not repeat, so the randomness is the system's unless a test gives its own.
        self._rng = rng or random.SystemRandom()
        self._drivers: dict[DriverName, Driver] = {DriverName.STATIC: StaticDriver(), **(drivers or {})}
        if DriverName.PROCESS not in self._drivers:
            self._drivers[DriverName.PROCESS] = ProcessDriver(rng=self._rng, clock_s=clock_s)
        self._remembered = remembered
        self._initial = tuple(instances)
        self._owned: dict[InstanceKey, Owned] = {}
        self._specs: dict[InstanceKey, Spec] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._client: httpx2.AsyncClient = check_client()
        self._context = Context(
            tasks=tasks,
            publish=publish,
            client=self._client,
            starts=asyncio.Semaphore(start_limit),
            owner=owner,
            rng=self._rng,
            clock_s=clock_s,
            wall_clock_s=wall_clock_s,
            url=url,
        )

    def __repr__(self) -> str:
        return f"<Agent {self._context.owner} {list(self._owned.values())}>"

    async def __aenter__(self) -> Self:
        for name, driver in self._drivers.items():
            await self._refresh(name)
            watcher = self._context.tasks.create_task(self._watch(driver), name=f"watch {driver!r}")
            self._watchers.append(watcher)
        for app, spec in self._initial:
            await self.add(app, spec)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.TaskGroup() as stops:
                for key, owned in self._owned.items():
                    stops.create_task(owned.close(leave=self._outlives(key)))
        finally:
            for watcher in self._watchers:
                watcher.cancel()
            for driver in self._drivers.values():
                await driver.aclose()
            await self._client.aclose()

    async def refresh(self) -> None:
        """Ask every platform for everything again: events may have been missed."""
        for name in self._drivers:
            await self._refresh(name)

    async def _refresh(self, name: DriverName) -> None:
        try:
            await self._drivers[name].refresh()
        except DriverError as error:
            # Its instances are as they were known; the next time may be better.
            logger.warning("platform cannot be asked", driver=name.value, error=str(error))

    def _outlives(self, key: InstanceKey) -> bool:
        """Whether a platform runs it, and goes on doing so without this agent."""
        return self._specs[key].platform is not None

    # --- what it owns ------------------------------------------------------------------

    async def add(self, app: App, spec: Spec) -> Instance:
        """Own one more instance and publish it. A plain address counts as started at once; a command is not started.

        Raises:
            ValueError: it is owned already, or this agent has no driver for it.
        """
        if spec.key in self._owned:
            raise ValueError(f"instance {spec.key} exists twice")
        driver = self._drivers.get(spec.driver)
        if driver is None:
            raise ValueError(f"instance {spec.key} needs the driver {spec.driver}, which this agent does not have")
        owned = Owned(self._context, app, spec, driver, self._remembered(*spec.key))
        await owned.open()
        self._owned[spec.key] = owned
        self._specs[spec.key] = spec
        return owned.instance

    async def remove(self, app: str, id: str) -> bool:
        """Stop it, forget it and delete its record; False when it is not owned."""
        key = InstanceKey(app, id)
        owned = self._owned.get(key)
        if owned is None:
            return False
        await owned.close(leave=self._outlives(key))
        self._specs.pop(key, None)
        if self._owned.pop(key, None) is not None:
            self._context.publish.delete("instance", str(key))
        return True

    async def _watch(self, driver: Driver) -> None:
        async with contextlib.aclosing(driver.watch()) as seen:
            async for observed in seen:
                owned = self._owned.get(observed.key)
                if owned is not None:
                    owned.seen(observed)

    # --- AgentApi ----------------------------------------------------------------------

    async def start(self, app: str, id: str, *, release: bool = False) -> StartOutcome:
        owned = self._owned.get(InstanceKey(app, id))
        if owned is None:
            return StartFailed(_unknown(app, id))
        return await owned.start(release=release)

    async def stop(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        owned = self._owned.get(InstanceKey(app, id))
        if owned is None:
            return Refused(_unknown(app, id))
        return await owned.stop(hold=hold)

    async def suspend(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        owned = self._owned.get(InstanceKey(app, id))
        if owned is None:
            return Refused(_unknown(app, id))
        return await owned.suspend(hold=hold)

    async def prepare(self, app: str, id: str, incarnation: str, rest: Rest) -> PrepareOutcome:
        owned = self._owned.get(InstanceKey(app, id))
        if owned is None:
            return Refused(_unknown(app, id))
        return owned.prepare(incarnation, rest)

    async def sleep(self, app: str, id: str, token: str) -> StopOutcome:
        owned = self._owned.get(InstanceKey(app, id))
        if owned is None:
            return Refused(_unknown(app, id))
        return await owned.sleep(token)

    async def stay(self, app: str, id: str, token: str) -> None:
        owned = self._owned.get(InstanceKey(app, id))
        if owned is not None:
            owned.stay(token)

    async def cordon(self, app: str, id: str, cordoned: bool) -> CordonOutcome:
        owned = self._owned.get(InstanceKey(app, id))
        if owned is None:
            return Refused(_unknown(app, id))
        return Cordoned(owned.cordon(cordoned))

    async def wait(self, app: str, id: str, state: State, timeout_s: float) -> WaitOutcome:
        owned = self._owned.get(InstanceKey(app, id))
        if owned is None:
            return NotReached(None)
        return await owned.wait(state, timeout_s)

    async def list(self) -> Sequence[Listed]:
        return [self._owned[key].listed() for key in sorted(self._owned)]


def _unknown(app: str, id: str) -> Failure:
    return Failure(FailureKind.UNKNOWN_INSTANCE, f"this agent owns no instance {app}/{id}")
