"""One attempt to bring an instance up: its turn, the driver's start, readiness, another port where one was taken."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import httpx2

from gateway.agent.base import Driver, DriverError, Failure, FailureKind, Publish, Running, Spec
from gateway.agent.probes import until_ready
from gateway.core.model import App

READY_SHARE: Final = 0.95
"""An instance gets this share of the app's wake_timeout to become ready: the rest is for telling those who wait why it
did not."""
PORT_ATTEMPTS: Final = 3
"""Starts in a row when somebody else took the chosen port."""

T = TypeVar("T")
Ended = asyncio.Future[Failure]
"""Gets a result when an instance ended, or its start is called off."""


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What an agent's instances share."""

    tasks: asyncio.TaskGroup
    publish: Publish
    client: httpx2.AsyncClient
    starts: asyncio.Semaphore
    owner: str
    rng: random.Random
    clock_s: Callable[[], float]
    wall_clock_s: Callable[[], float]
    url: str = ""
    """Where this agent can be asked; empty for one that only its own process can ask."""


class Flight:
    """The way from `starting` to ready, or to a failure."""

    def __init__(self, context: Context, app: App, spec: Spec, driver: Driver) -> None:
        self._context = context
        self._app = app
        self._spec = spec
        self._driver = driver

    async def bring_up(
        self, incarnation: str, ended: Ended, renamed: Callable[[], tuple[str, Ended]]
    ) -> Running | Failure:
        """What runs and is ready, or why nothing does.

        Args:
            renamed: is asked for another incarnation, with its own `ended`, before the next port is tried: a late
                report of the first end must not be taken for the second's.
        """
        stopped = await unless(ended, self._context.starts.acquire())
        if isinstance(stopped, Failure):
            return stopped
        # From here on, not from when it was asked for: waiting for a turn is not its fault.
        deadline_s = asyncio.get_running_loop().time() + self._app.wake_timeout_s * READY_SHARE
        try:
            result = await self._attempt(incarnation, ended, deadline_s)
            for _ in range(PORT_ATTEMPTS - 1):
                if isinstance(result, Running) or result.kind is not FailureKind.PORT_TAKEN:
                    break
                if self._spec.address is not None:
                    break
                incarnation, ended = renamed()
                result = await self._attempt(incarnation, ended, deadline_s)
            return result
        finally:
            self._context.starts.release()

    async def until_ready(self, running: Running, ended: Ended) -> Failure | None:
        """What runs already: None once it is ready, or why it is not."""
        deadline_s = asyncio.get_running_loop().time() + self._app.wake_timeout_s * READY_SHARE
        return await self._ready(running, ended, deadline_s)

    async def _ready(self, running: Running, ended: Ended, deadline_s: float) -> Failure | None:
        checks, client = self._app.checks, self._context.client
        ready = until_ready(self._spec.key, running.address, checks, client, deadline_s)
        outcome = await unless(ended, ready)
        return outcome if isinstance(outcome, Failure) else None

    async def _attempt(self, incarnation: str, ended: Ended, deadline_s: float) -> Running | Failure:
        if ended.done():
            return ended.result()
        key = self._spec.key
        try:
            running = await self._driver.start(self._spec, incarnation)
        except DriverError as error:
            return error.failure
        outcome = await self._ready(running, ended, deadline_s)
        if outcome is None:
            return running
        if outcome.kind in {FailureKind.NEVER_LISTENED, FailureKind.CHECK_FAILED}:
            observed = self._driver.inspect(key)
            if observed is not None and observed.output:
                return dataclasses.replace(outcome, detail=f"{outcome.detail}; its last output:\n{observed.output}")
        return outcome


async def unless(ended: Ended, work: Coroutine[Any, Any, T]) -> T | Failure:
    """Return the work's result, or why it was given up when `ended` came first."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        both: set[asyncio.Future[Any]] = {task, ended}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
    return ended.result() if task.cancelled() else task.result()
