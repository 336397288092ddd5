"""What an owned instance is right now, and the ways in which that changes: published at once, told to whoever waits.

Every change goes through `move` (a step of the table in core/lifecycle.py) or `change` (a flag). Who may change what
when is decided in owned.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import structlog

from gateway.agent.base import Driver, DriverError, Failure, Listed, Running, Spec
from gateway.agent.flight import Context
from gateway.agent.health import HealthWatch
from gateway.agent.incarnations import after
from gateway.core.bodies import instance_body
from gateway.core.lifecycle import Backoff, Event, step
from gateway.core.model import App, Instance, State

logger = structlog.get_logger(__name__)


class Life:
    """One instance's state. `remembered` is what the catalog still knows of it from an earlier life of its agent."""

    def __init__(self, context: Context, app: App, spec: Spec, driver: Driver, remembered: Instance | None) -> None:
        self.context = context
        self.app = app
        self.spec = spec
        self.driver = driver
        self.instance = Instance(
            app=spec.key.app,
            id=spec.key.id,
            region=spec.region,
            state=State.CREATED if remembered is None or not driver.startable else State.STOPPED,
            # A life of its own from the start, so that sessions of those before it are known to be over.
            incarnation=self._next(remembered.incarnation if remembered is not None else "")
            if driver.startable
            else "0",
            # An operator's word outlives the agent.
            cordoned=remembered is not None and remembered.cordoned,
            held_down=remembered is not None and remembered.held_down and driver.startable,
            startable=driver.startable,
            owner=context.owner,
            agent=context.url,
        )
        self.failure: Failure | None = None
        """Why it does not run, or why its last start or suspend failed."""
        self.backoff = Backoff()
        self.started_at_s = 0.0
        self.changed = asyncio.Event()
        """Set, and replaced by another one, at each change."""
        self._health: HealthWatch | None = None

    def __repr__(self) -> str:
        return f"{self.spec.key} {self.instance.state} {self.instance.incarnation}"

    def listed(self) -> Listed:
        observed = self.driver.inspect(self.spec.key)
        reason = self.failure.message if self.failure is not None else ""
        if self._health is not None and self._health.reason:
            reason = self._health.reason
        return Listed(
            instance=self.instance,
            reason=reason,
            retry_after_s=self.backoff.left_s(self.context.clock_s()),
            detail=observed.detail if observed is not None else "",
            output=observed.output if observed is not None else "",
        )

    # --- up and down -------------------------------------------------------------------

    def up(self, event: Event, running: Running) -> None:
        """It is ready, or was found running."""
        self.started_at_s = self.context.clock_s()
        self.move(event, address=running.address, incarnation=running.incarnation, healthy=True)
        if self.app.checks:
            # What was just found ready is not asked again at once.
            self._health = HealthWatch(
                self.spec.key,
                running.address,
                self.app.checks,
                self.context,
                self._set_health,
                at_once=event is Event.ADOPTED,
            )

    def leave(self, event: Event) -> None:
        """It is no longer started."""
        self.end_checks()
        self.move(event, address=None, healthy=True)

    def end_checks(self) -> None:
        if self._health is not None:
            self._health.cancel()
            self._health = None

    async def land(self) -> None:
        """From `stopping` until nothing of it is left."""
        await self.end(self.app.stop_grace_s)
        self.backoff = Backoff()
        self.move(Event.GONE)

    async def freeze(self) -> None:
        """From `suspending` until it is frozen, or goes on because it cannot be."""
        try:
            await self.driver.suspend(self.spec.key)
        except DriverError as error:
            logger.warning("instance not suspended", instance=str(self.spec.key), error=str(error))
            self.failure = error.failure
            observed = self.driver.inspect(self.spec.key)
            if observed is not None and observed.running and observed.address is not None:
                self.up(Event.STAYED, Running(observed.address, self.instance.incarnation))
            else:
                self.move(Event.EXITED)
            return
        self.backoff = Backoff()
        self.move(Event.FROZEN)

    async def end(self, grace_s: float) -> None:
        """Have the driver stop whatever of it runs."""
        try:
            await self.driver.stop(self.spec.key, grace_s)
        except DriverError as error:
            # What the platform does not stop will be seen running, and taken up again.
            logger.warning("instance not stopped", instance=str(self.spec.key), error=str(error))

    async def until_still(self) -> None:
        """Return when it is neither stopping nor suspending."""
        while self.instance.state in (State.STOPPING, State.SUSPENDING):
            await self.changed.wait()

    def failed_once_more(self) -> float:
        """Count a failed start; how long the next one has to wait."""
        now_s = self.context.clock_s()
        self.backoff = self.backoff.failed(now_s, self.context.rng.random())
        return self.backoff.left_s(now_s)

    # --- changes -----------------------------------------------------------------------

    def new_incarnation(self) -> str:
        return self._next(self.instance.incarnation)

    def rename(self) -> None:
        """Another incarnation before anybody was told of this one."""
        self.instance = dataclasses.replace(self.instance, incarnation=self.new_incarnation())

    def move(self, event: Event, **changes: Any) -> None:
        """A step of the table, with the fields that change with it."""
        self.change(state=step(self.instance.state, event), **changes)
        failure = self.failure if self.instance.state is State.FAILED else None
        logger.info(
            "instance " + self.instance.state.value,
            instance=str(self.spec.key),
            incarnation=self.instance.incarnation,
            reason=failure.message if failure is not None else "",
            detail=failure.detail if failure is not None else "",
        )

    def change(self, **changes: Any) -> None:
        """Change, publish, and wake whoever waits for a change."""
        self.instance = dataclasses.replace(self.instance, **changes)
        body = {**instance_body(self.instance), "reason": self.failure.message if self.failure is not None else ""}
        self.context.publish.put("instance", str(self.spec.key), body)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def _set_health(self, healthy: bool, reason: str) -> None:
        logger.info("instance health", instance=str(self.spec.key), healthy=healthy, reason=reason)
        self.change(healthy=healthy)

    def _next(self, previous: str) -> str:
        return after(previous, int(self.context.wall_clock_s() * 1000))
