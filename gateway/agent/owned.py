"""One instance the agent owns: its state, and the tasks that bring it up, down and look after it.

Every change goes through `_move` (a step of the table in core/lifecycle.py) or one of the flags, and is published at
once. At most one task changes the state at any time: `_fly` from `starting` until it is up or down, `_land` from
`started` until it is down; whoever asks meanwhile joins or waits. A caller may be cancelled at any await: it only
watches.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, assert_never

import httpx2
import structlog

from gateway.agent.base import (
    Driver,
    DriverError,
    Failure,
    FailureKind,
    Listed,
    NotReached,
    Observed,
    Publish,
    Reached,
    Refused,
    Spec,
    Started,
    StartFailed,
    StartOutcome,
    StopOutcome,
    Stopped,
    WaitOutcome,
)
from gateway.agent.health import HealthWatch
from gateway.agent.incarnations import after
from gateway.agent.probes import until_ready
from gateway.core.bodies import instance_body
from gateway.core.lifecycle import (
    Backoff,
    Event,
    StartPlan,
    StopPlan,
    counts_as_failed_start,
    plan_start,
    plan_stop,
    step,
)
from gateway.core.model import Address, App, Instance, State

READY_SHARE: Final = 0.95
"""An instance gets this share of the app's wake_timeout to become ready: the rest is for telling those who wait why it
did not."""
PORT_ATTEMPTS: Final = 3
"""Starts in a row when somebody else took the chosen port."""

logger = structlog.get_logger(__name__)
T = TypeVar("T")


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


class Owned:
    """See the module. `remembered` is what the catalog still knows of it from an earlier life of this agent."""

    def __init__(self, context: Context, app: App, spec: Spec, driver: Driver, remembered: Instance | None) -> None:
        self._context = context
        self._app = app
        self._spec = spec
        self._driver = driver
        self._instance = Instance(
            app=spec.key.app,
            id=spec.key.id,
            region=spec.region,
            state=State.CREATED if remembered is None or not driver.startable else State.STOPPED,
            # A life of its own from the start, so that sessions of those before it are known to be over.
            incarnation=self._next_life(remembered.incarnation if remembered is not None else "")
            if driver.startable
            else "0",
            # An operator's word outlives the agent.
            cordoned=remembered is not None and remembered.cordoned,
            held_down=remembered is not None and remembered.held_down and driver.startable,
            startable=driver.startable,
            owner=context.owner,
        )
        self._failure: Failure | None = None
        self._backoff = Backoff()
        self._started_at_s = 0.0
        self._ended: asyncio.Future[Failure] | None = None
        self._flight: asyncio.Task[StartOutcome] | None = None
        self._health: HealthWatch | None = None
        self._changed = asyncio.Event()
        self._closing = False

    def __repr__(self) -> str:
        return f"<Owned {self._spec.key} {self._instance.state} {self._instance.incarnation}>"

    @property
    def instance(self) -> Instance:
        return self._instance

    def listed(self) -> Listed:
        observed = self._driver.inspect(self._spec.key)
        reason = self._failure.message if self._failure is not None else ""
        if self._health is not None and self._health.reason:
            reason = self._health.reason
        return Listed(
            instance=self._instance,
            reason=reason,
            retry_after_s=self._backoff.left_s(self._context.clock_s()),
            detail=observed.detail if observed is not None else "",
            output=observed.output if observed is not None else "",
        )

    # --- asked from outside ------------------------------------------------------------

    async def open(self) -> None:
        """Publish it for the first time; a plain address is started from here on."""
        if self._driver.startable:
            self._set()
            return
        address = await self._driver.start(self._spec, self._instance.incarnation)
        self._up(Event.ADOPTED, address)

    async def start(self, *, release: bool) -> StartOutcome:
        if release:
            self._backoff = Backoff()
            self._set(held_down=False)
        while True:
            state = self._instance.state
            if state is not State.STARTED and (refusal := self._refusal()) is not None:
                return refusal
            match plan_start(state):
                case StartPlan.RUNNING:
                    return Started(self._instance)
                case StartPlan.WAIT:
                    await self._until_down()
                    continue
                case StartPlan.BEGIN:
                    self._flight = self._take_off()
                case StartPlan.JOIN:
                    pass
                case plan:
                    assert_never(plan)
            assert self._flight is not None
            return await asyncio.shield(self._flight)

    async def stop(self, *, hold: bool) -> StopOutcome:
        if not self._driver.startable:
            text = f"{self._spec.key} is a plain address: nothing here started it or can stop it"
            return Refused(Failure(FailureKind.NOT_STARTABLE, text))
        if hold:
            self._set(held_down=True)
        match plan_stop(self._instance.state):
            case StopPlan.DOWN | StopPlan.JOIN:
                pass
            case StopPlan.CANCEL:
                self._move(Event.STOP_ASKED)
                self._end_start(Failure(FailureKind.CANCELLED, f"{self._spec.key} was stopped while it started"))
            case StopPlan.BEGIN:
                self._leave_started(Event.STOP_ASKED)
                self._context.tasks.create_task(self._land(), name=f"stop {self._spec.key}")
            case plan:
                assert_never(plan)
        await self._until_down()
        return Stopped(self._instance)

    def cordon(self, cordoned: bool) -> Instance:
        self._set(cordoned=cordoned)
        return self._instance

    async def wait(self, state: State, timeout_s: float) -> WaitOutcome:
        try:
            async with asyncio.timeout(timeout_s):
                while self._instance.state is not state:
                    await self._changed.wait()
        except TimeoutError:
            return NotReached(self._instance)
        return Reached(self._instance)

    async def close(self) -> None:
        """Stop it for good; starts are refused from now on."""
        self._closing = True
        if self._driver.startable:
            await self.stop(hold=False)
            return
        if self._health is not None:
            self._health.cancel()
        await self._driver.stop(self._spec.key, 0.0)

    def ended(self, observed: Observed) -> None:
        """Its driver saw it end."""
        if observed.running or observed.incarnation != self._instance.incarnation:
            return
        match self._instance.state:
            case State.STARTING:
                early = Failure(FailureKind.EXITED, f"{self._spec.key} exited before it was ready", observed.output)
                self._end_start(observed.failure or early)
            case State.STARTED | State.SUSPENDING:
                now_s = self._context.clock_s()
                if observed.failure is None:
                    self._backoff = Backoff()
                elif counts_as_failed_start(now_s - self._started_at_s):
                    self._backoff = self._backoff.failed(now_s, self._context.rng.random())
                self._failure = observed.failure
                self._leave_started(Event.EXITED if observed.failure is None else Event.CRASHED)
            case State.CREATED | State.STOPPING | State.STOPPED | State.SUSPENDED | State.FAILED:
                pass
            case state:
                assert_never(state)

    # --- up ----------------------------------------------------------------------------

    def _refusal(self) -> StartFailed | None:
        if self._closing:
            return StartFailed(Failure(FailureKind.AGENT_CLOSING, f"the agent of {self._spec.key} is closing"))
        if self._instance.held_down:
            return StartFailed(Failure(FailureKind.HELD_DOWN, f"{self._spec.key} was stopped by an operator"))
        left_s = self._backoff.left_s(self._context.clock_s())
        if left_s > 0 and self._failure is not None:
            return StartFailed(self._failure, left_s)
        return None

    def _take_off(self) -> asyncio.Task[StartOutcome]:
        self._failure = None
        self._ended = asyncio.get_running_loop().create_future()
        self._move(Event.START_ASKED, incarnation=self._new_incarnation())
        return self._context.tasks.create_task(self._fly(), name=f"start {self._spec.key}")

    async def _fly(self) -> StartOutcome:
        assert self._ended is not None
        result = await self._bring_up(self._ended)
        if isinstance(result, Address) and not self._ended.done():
            self._up(Event.READY, result)
            return Started(self._instance)
        failure = self._ended.result() if isinstance(result, Address) else result
        # Whoever asked for the stop gave it a grace; what never became ready has nothing to save.
        asked = failure.kind is FailureKind.CANCELLED
        await self._driver.stop(self._spec.key, self._app.stop_grace_s if asked else 0.0)
        if self._instance.state is State.STOPPING:
            self._move(Event.GONE)
            return StartFailed(failure)
        now_s = self._context.clock_s()
        self._failure = failure
        self._backoff = self._backoff.failed(now_s, self._context.rng.random())
        self._move(Event.START_FAILED)
        return StartFailed(failure, self._backoff.left_s(now_s))

    async def _bring_up(self, ended: asyncio.Future[Failure]) -> Address | Failure:
        stopped = await _unless(ended, self._context.starts.acquire())
        if isinstance(stopped, Failure):
            return stopped
        # From here on, not from when it was asked for: waiting for a turn is not its fault.
        deadline_s = asyncio.get_running_loop().time() + self._app.wake_timeout_s * READY_SHARE
        try:
            result = await self._attempt(ended, deadline_s)
            for _ in range(PORT_ATTEMPTS - 1):
                if isinstance(result, Address) or result.kind is not FailureKind.PORT_TAKEN:
                    break
                if self._instance.state is not State.STARTING or self._spec.address is not None:
                    break
                # An incarnation of its own, so that a late report of the first end is not taken for the second's.
                self._instance = dataclasses.replace(self._instance, incarnation=self._new_incarnation())
                ended = self._ended = asyncio.get_running_loop().create_future()
                result = await self._attempt(ended, deadline_s)
            return result
        finally:
            self._context.starts.release()

    async def _attempt(self, ended: asyncio.Future[Failure], deadline_s: float) -> Address | Failure:
        if ended.done():
            return ended.result()
        key = self._spec.key
        try:
            address = await self._driver.start(self._spec, self._instance.incarnation)
        except DriverError as error:
            return error.failure
        ready = until_ready(key, address, self._app.checks, self._context.client, deadline_s)
        outcome = await _unless(ended, ready)
        if not isinstance(outcome, Failure):
            return address
        if outcome.kind in {FailureKind.NEVER_LISTENED, FailureKind.CHECK_FAILED}:
            observed = self._driver.inspect(key)
            if observed is not None and observed.output:
                return dataclasses.replace(outcome, detail=f"{outcome.detail}; its last output:\n{observed.output}")
        return outcome

    def _up(self, event: Event, address: Address) -> None:
        self._started_at_s = self._context.clock_s()
        self._move(event, address=address, healthy=True)
        if self._app.checks:
            # What was just found ready is not asked again at once.
            self._health = HealthWatch(
                self._spec.key,
                address,
                self._app.checks,
                self._context,
                self._set_health,
                at_once=event is Event.ADOPTED,
            )

    # --- down --------------------------------------------------------------------------

    async def _land(self) -> None:
        await self._driver.stop(self._spec.key, self._app.stop_grace_s)
        self._backoff = Backoff()
        self._move(Event.GONE)

    def _leave_started(self, event: Event) -> None:
        if self._health is not None:
            self._health.cancel()
            self._health = None
        self._move(event, address=None, healthy=True)

    def _end_start(self, failure: Failure) -> None:
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(failure)

    async def _until_down(self) -> None:
        while self._instance.state is State.STOPPING:
            await self._changed.wait()

    # --- changes -----------------------------------------------------------------------

    def _new_incarnation(self) -> str:
        return self._next_life(self._instance.incarnation)

    def _next_life(self, previous: str) -> str:
        return after(previous, int(self._context.wall_clock_s() * 1000))

    def _set_health(self, healthy: bool, reason: str) -> None:
        logger.info("instance health", instance=str(self._spec.key), healthy=healthy, reason=reason)
        self._set(healthy=healthy)

    def _move(self, event: Event, **changes: Any) -> None:
        self._set(state=step(self._instance.state, event), **changes)
        failure = self._failure if self._instance.state is State.FAILED else None
        logger.info(
            "instance " + self._instance.state.value,
            instance=str(self._spec.key),
            incarnation=self._instance.incarnation,
            reason=failure.message if failure is not None else "",
            detail=failure.detail if failure is not None else "",
        )

    def _set(self, **changes: Any) -> None:
        """Change, publish, and wake whoever waits for a change."""
        self._instance = dataclasses.replace(self._instance, **changes)
        body = {**instance_body(self._instance), "reason": self._failure.message if self._failure is not None else ""}
        self._context.publish.put("instance", str(self._spec.key), body)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _unless(ended: asyncio.Future[Failure], work: Coroutine[Any, Any, T]) -> T | Failure:
    """Return the work's result, or why it was given up when `ended` came first."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        both: set[asyncio.Future[Any]] = {task, ended}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
    return ended.result() if task.cancelled() else task.result()
