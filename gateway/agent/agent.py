"""The agent: owner of one host's instances. It starts, stops, watches and publishes them; nobody else does.

It runs inside a gateway or as a program of its own, and knows neither sessions nor the catalog: it writes records
through `Publish` and answers `AgentApi`. Each instance's own life is in owned.py; here is what concerns them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

import httpx2

from gateway.agent.base import (
    Cordoned,
    CordonOutcome,
    Driver,
    Failure,
    FailureKind,
    InstanceKey,
    Listed,
    NotReached,
    Publish,
    Refused,
    Spec,
    StartFailed,
    StartOutcome,
    StopOutcome,
    WaitOutcome,
)
from gateway.agent.owned import Context, Owned
from gateway.agent.probes import check_client
from gateway.agent.process import ProcessDriver
from gateway.agent.static import StaticDriver
from gateway.core.model import App, Instance, State

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
        process: Driver | None = None,
        static: Driver | None = None,
        start_limit: int = START_LIMIT,
        rng: random.Random | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        wall_clock_s: Callable[[], float] = time.time,  # noqa: TID251 - incarnations outlive the process
    ) -> None:
        """Args:
        owner: the writer id that stands in the records.
        remembered: what the catalog still holds of an instance; its cordon and an operator's stop are kept.
        """
        # Incarnations must not repeat, so the randomness is the system's unless a test gives its own.
        self._rng = rng or random.SystemRandom()
        self._process: Driver = process or ProcessDriver(rng=self._rng, clock_s=clock_s)
        self._static: Driver = static or StaticDriver()
        self._remembered = remembered
        self._initial = tuple(instances)
        self._owned: dict[InstanceKey, Owned] = {}
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
        )

    def __repr__(self) -> str:
        return f"<Agent {self._context.owner} {list(self._owned.values())}>"

    async def __aenter__(self) -> Self:
        for driver in (self._process, self._static):
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
                for owned in self._owned.values():
                    stops.create_task(owned.close())
        finally:
            for watcher in self._watchers:
                watcher.cancel()
            await self._process.aclose()
            await self._static.aclose()
            await self._client.aclose()

    # --- what it owns ------------------------------------------------------------------

    async def add(self, app: App, spec: Spec) -> Instance:
        """Own one more instance and publish it. A plain address counts as started at once; a command is not started.

        Raises:
            ValueError: it is owned already.
        """
        if spec.key in self._owned:
            raise ValueError(f"instance {spec.key} exists twice")
        driver = self._process if spec.command else self._static
        owned = Owned(self._context, app, spec, driver, self._remembered(*spec.key))
        await owned.open()
        self._owned[spec.key] = owned
        return owned.instance

    async def remove(self, app: str, id: str) -> bool:
        """Stop it, forget it and delete its record; False when it is not owned."""
        key = InstanceKey(app, id)
        owned = self._owned.get(key)
        if owned is None:
            return False
        await owned.close()
        if self._owned.pop(key, None) is not None:
            self._context.publish.delete("instance", str(key))
        return True

    async def _watch(self, driver: Driver) -> None:
        async with contextlib.aclosing(driver.watch()) as seen:
            async for observed in seen:
                owned = self._owned.get(observed.key)
                if owned is not None:
                    owned.ended(observed)

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
