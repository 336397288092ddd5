"""The periodic checks of one started instance. They take it out of placement and put it back; they never restart it.

As Fly's service checks (docs "Health Checks"): a failing check stops new traffic, nothing else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import httpx2

from gateway.agent.base import InstanceKey
from gateway.agent.probes import NotPassed, Passed, run_check
from gateway.core.lifecycle import Health
from gateway.core.model import Address, Check

SPREAD: Final = 0.1
"""Intervals vary by this share, so that a thousand instances are not checked in the same millisecond."""


class Surroundings(Protocol):
    """What is used of the agent's context."""

    @property
    def tasks(self) -> asyncio.TaskGroup: ...
    @property
    def client(self) -> httpx2.AsyncClient: ...
    @property
    def rng(self) -> random.Random: ...
    @property
    def clock_s(self) -> Callable[[], float]: ...


class HealthWatch:
    """Runs every check of one incarnation until cancelled, and reports each change of the verdict over all of them."""

    def __init__(
        self,
        key: InstanceKey,
        address: Address,
        checks: Sequence[Check],
        around: Surroundings,
        on_change: Callable[[bool, str], None],
        *,
        at_once: bool,
    ) -> None:
        self._address = address
        self._around = around
        self._on_change = on_change
        self._at_once = at_once
        self._healthy = True
        self._reasons: dict[Check, str] = {}
        since_s = around.clock_s()
        self._health = {check: Health(since_s, check.grace_s) for check in checks}
        self._tasks = [around.tasks.create_task(self._run(check), name=f"check {key} {check.path}") for check in checks]

    @property
    def reason(self) -> str:
        """What failed last, empty while all is well."""
        return "; ".join(self._reasons.values())

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, check: Check) -> None:
        around = self._around
        if not self._at_once:
            await self._pause(check)
        while True:
            match await run_check(self._address, check, around.client):
                case Passed():
                    self._health[check] = self._health[check].passed()
                    self._reasons.pop(check, None)
                case NotPassed(reason):
                    self._health[check] = self._health[check].failed(around.clock_s())
                    self._reasons[check] = reason
            healthy = all(health.healthy for health in self._health.values())
            if healthy is not self._healthy:
                self._healthy = healthy
                self._on_change(healthy, self.reason)
            await self._pause(check)

    async def _pause(self, check: Check) -> None:
        pause_s = check.interval_s * self._around.rng.uniform(1.0 - SPREAD, 1.0 + SPREAD)
        await asyncio.sleep(pause_s)  # noqa: TID251 - the checks' own clock
