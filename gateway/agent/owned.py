"""One instance the agent owns: what is asked of it, and the tasks that bring it up and down.

At most one task changes its state at any time: `_fly` from `starting` until it is up or down, `Life.land` and
`Life.freeze` from `started` until it is still; whoever asks meanwhile joins or waits. A caller may be cancelled at any
await: it only watches. A sleep that is only prepared is no task: `sleep` carries it out, and a start ends it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from typing import Final, assert_never

import structlog

from gateway.agent.base import (
    Driver,
    Failure,
    FailureKind,
    Listed,
    NotReached,
    Observed,
    Prepared,
    PrepareOutcome,
    Reached,
    Refused,
    Rest,
    Running,
    Spec,
    Started,
    StartFailed,
    StartOutcome,
    StopOutcome,
    Stopped,
    WaitOutcome,
)
from gateway.agent.flight import Context, Ended, Flight
from gateway.agent.life import Life
from gateway.core.lifecycle import (
    Backoff,
    Event,
    StartPlan,
    StopPlan,
    counts_as_failed_start,
    plan_start,
    plan_stop,
)
from gateway.core.model import Address, App, Instance, State

logger = structlog.get_logger(__name__)

PREPARED_S: Final = 15.0
"""How long a prepared sleep waits to be agreed. Whoever prepared it may be gone."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Preparation:
    """A sleep that was prepared and not carried out yet."""

    token: str
    rest: Rest
    address: Address
    timer: asyncio.TimerHandle


class Owned:
    """See the module. `remembered` is what the catalog still knows of it from an earlier life of this agent."""

    def __init__(self, context: Context, app: App, spec: Spec, driver: Driver, remembered: Instance | None) -> None:
        self._life = Life(context, app, spec, driver, remembered)
        self._context = context
        self._driver = driver
        self._spec = spec
        self._flight_plan = Flight(context, app, spec, driver)
        self._flight: asyncio.Task[StartOutcome] | None = None
        self._ended: Ended | None = None
        self._prepared: _Preparation | None = None
        self._closing = False

    def __repr__(self) -> str:
        return f"<Owned {self._life!r}>"

    @property
    def instance(self) -> Instance:
        return self._life.instance

    def listed(self) -> Listed:
        return self._life.listed()

    async def open(self) -> None:
        """Publish it for the first time; a plain address, and what runs already, is started from here on."""
        observed = self._driver.inspect(self._spec.key)
        if not self._driver.startable:
            running = await self._driver.start(self._spec, self.instance.incarnation)
            self._life.up(Event.ADOPTED, running)
        elif observed is None:
            self._life.change()
        else:
            self._life.change(incarnation=observed.incarnation)
            if observed.running and observed.address is not None:
                self._take_up(Running(observed.address, observed.incarnation))
            else:
                self.seen(observed)

    # --- up ----------------------------------------------------------------------------

    async def start(self, *, release: bool) -> StartOutcome:
        life = self._life
        if release:
            life.backoff = Backoff()
            life.change(held_down=False)
        while True:
            if self._prepared is not None:
                self._stay()
            state = self.instance.state
            if state is not State.STARTED and (refusal := self._refusal()) is not None:
                return refusal
            match plan_start(state):
                case StartPlan.RUNNING:
                    return Started(self.instance)
                case StartPlan.WAIT:
                    await life.until_still()
                    continue
                case StartPlan.BEGIN:
                    self._flight = self._take_off()
                case StartPlan.JOIN:
                    pass
                case plan:
                    assert_never(plan)
            assert self._flight is not None
            return await asyncio.shield(self._flight)

    def _refusal(self) -> StartFailed | None:
        key, life = self._spec.key, self._life
        if self._closing:
            return StartFailed(Failure(FailureKind.AGENT_CLOSING, f"the agent of {key} is closing"))
        if self.instance.held_down:
            return StartFailed(Failure(FailureKind.HELD_DOWN, f"{key} was stopped by an operator"))
        left_s = life.backoff.left_s(self._context.clock_s())
        if left_s > 0 and life.failure is not None:
            return StartFailed(life.failure, left_s)
        return None

    def _take_off(self) -> asyncio.Task[StartOutcome]:
        life = self._life
        life.failure = None
        self._ended = asyncio.get_running_loop().create_future()
        # What was suspended goes on with its memory, in the life it had.
        resumes = self.instance.state is State.SUSPENDED
        life.move(Event.START_ASKED, incarnation=self.instance.incarnation if resumes else life.new_incarnation())
        return self._context.tasks.create_task(self._fly(), name=f"start {self._spec.key}")

    async def _fly(self) -> StartOutcome:
        assert self._ended is not None
        life = self._life
        result = await self._flight_plan.bring_up(self.instance.incarnation, self._ended, self._renamed)
        if isinstance(result, Running) and not self._ended.done():
            life.up(Event.READY, result)
            return Started(self.instance)
        return await self._not_up(self._ended.result() if isinstance(result, Running) else result)

    async def _not_up(self, failure: Failure) -> StartFailed:
        life = self._life
        # Whoever asked for the stop gave it a grace; what never became ready has nothing to save.
        asked = failure.kind is FailureKind.CANCELLED
        await life.end(life.app.stop_grace_s if asked else 0.0)
        if self.instance.state is State.STOPPING:
            life.move(Event.GONE)
            return StartFailed(failure)
        life.failure = failure
        left_s = life.failed_once_more()
        life.move(Event.START_FAILED)
        return StartFailed(failure, left_s)

    def _take_up(self, running: Running) -> None:
        """Its start may have been under way when an earlier agent ended: it is up once it is ready."""
        self._ended = asyncio.get_running_loop().create_future()
        self._life.move(Event.START_ASKED, incarnation=running.incarnation)
        self._flight = self._context.tasks.create_task(self._found_ready(running), name=f"take up {self._spec.key}")

    async def _found_ready(self, running: Running) -> StartOutcome:
        assert self._ended is not None
        life = self._life
        failure = await self._flight_plan.until_ready(running, self._ended)
        if not self._ended.done():
            # It may have served for days: what is not ready in time is left running, and its checks tell.
            if failure is not None:
                logger.warning("instance found running is not ready", instance=str(self._spec.key), why=failure.message)
            life.up(Event.READY, running)
            return Started(self.instance)
        return await self._not_up(self._ended.result())

    def _renamed(self) -> tuple[str, Ended]:
        """Another incarnation for another try, unless the start was called off."""
        assert self._ended is not None
        if self.instance.state is State.STARTING:
            self._life.rename()
            self._ended = asyncio.get_running_loop().create_future()
        return self.instance.incarnation, self._ended

    def _end_start(self, failure: Failure) -> None:
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(failure)

    # --- down --------------------------------------------------------------------------

    async def stop(self, *, hold: bool) -> StopOutcome:
        if not self._driver.startable:
            text = f"{self._spec.key} is a plain address: nothing here started it or can stop it"
            return Refused(Failure(FailureKind.NOT_STARTABLE, text))
        life = self._life
        if hold:
            life.change(held_down=True)
        if self._prepared is not None:
            self._stay()
        while (plan := plan_stop(self.instance.state)) is StopPlan.WAIT:
            await life.until_still()
        match plan:
            case StopPlan.DOWN | StopPlan.JOIN:
                pass
            case StopPlan.CANCEL:
                life.move(Event.STOP_ASKED)
                self._end_start(Failure(FailureKind.CANCELLED, f"{self._spec.key} was stopped while it started"))
            case StopPlan.BEGIN:
                life.leave(Event.STOP_ASKED)
                self._context.tasks.create_task(life.land(), name=f"stop {self._spec.key}")
            case _:
                assert_never(plan)
        await life.until_still()
        return Stopped(self.instance)

    async def suspend(self, *, hold: bool) -> StopOutcome:
        key, life = self._spec.key, self._life
        if not self._driver.suspendable:
            return Refused(Failure(FailureKind.NOT_SUSPENDABLE, f"{key} cannot be suspended: its driver has no way to"))
        if self._prepared is not None:
            self._stay()
        if self.instance.state is State.STARTED:
            life.failure = None
            life.leave(Event.SUSPEND_ASKED)
            self._context.tasks.create_task(life.freeze(), name=f"suspend {key}")
        await life.until_still()
        if self.instance.state is not State.SUSPENDED:
            text = f"{key} is {self.instance.state}: only what is started can be suspended"
            return Refused(life.failure or Failure(FailureKind.NOT_SUSPENDABLE, text))
        if hold:
            life.change(held_down=True)
        return Stopped(self.instance)

    async def close(self, *, leave: bool) -> None:
        """Stop it for good, or `leave` it running; starts are refused from now on."""
        self._closing = True
        if self._driver.startable and not leave:
            await self.stop(hold=False)
            return
        self._life.end_checks()
        if not self._driver.startable:
            await self._driver.stop(self._spec.key, 0.0)

    # --- sleep -------------------------------------------------------------------------

    def prepare(self, incarnation: str, rest: Rest) -> PrepareOutcome:
        instance, address = self.instance, self.instance.address
        if rest is Rest.SUSPEND and not self._driver.suspendable:
            rest = Rest.STOP
        ready = instance.state is State.STARTED and instance.incarnation == incarnation and not self._closing
        if not ready or address is None or not self._driver.startable:
            text = f"{self._spec.key} is not started in incarnation {incarnation}"
            return Refused(Failure(FailureKind.NOT_PREPARED, text))
        token = secrets.token_hex(8)
        timer = asyncio.get_running_loop().call_later(PREPARED_S, self.stay, token)
        self._prepared = _Preparation(token, rest, address, timer)
        # Without an address nothing is sent to it; who wants it asks for a start, which ends this.
        event = Event.SUSPEND_ASKED if rest is Rest.SUSPEND else Event.STOP_ASKED
        self._life.move(event, address=None, sleep=token)
        return Prepared(self.instance, token)

    async def sleep(self, token: str) -> StopOutcome:
        prepared, life = self._prepared, self._life
        if prepared is None or prepared.token != token:
            return Refused(Failure(FailureKind.NOT_PREPARED, f"somebody wanted {self._spec.key} before it slept"))
        self._forget_preparation()
        life.end_checks()
        life.change(sleep="", healthy=True)
        rests = life.freeze() if prepared.rest is Rest.SUSPEND else life.land()
        self._context.tasks.create_task(rests, name=f"{prepared.rest} {self._spec.key}")
        await life.until_still()
        return Stopped(self.instance)

    def stay(self, token: str) -> None:
        if self._prepared is not None and self._prepared.token == token:
            self._stay()

    def _stay(self) -> None:
        """End a preparation: it goes on as it was."""
        prepared = self._prepared
        assert prepared is not None
        self._forget_preparation()
        self._life.move(Event.STAYED, address=prepared.address, sleep="")

    def _forget_preparation(self) -> None:
        assert self._prepared is not None
        self._prepared.timer.cancel()
        self._prepared = None

    # --- the rest ----------------------------------------------------------------------

    def cordon(self, cordoned: bool) -> Instance:
        self._life.change(cordoned=cordoned)
        return self.instance

    async def wait(self, state: State, timeout_s: float) -> WaitOutcome:
        try:
            async with asyncio.timeout(timeout_s):
                while self.instance.state is not state:
                    await self._life.changed.wait()
        except TimeoutError:
            return NotReached(self.instance)
        return Reached(self.instance)

    def seen(self, observed: Observed) -> None:
        """Its driver saw it change by itself."""
        if not self._driver.startable:
            return
        if self._prepared is not None and not observed.running:
            self._stay()
        if observed.running and observed.address is not None:
            self._found(Running(observed.address, observed.incarnation))
        elif observed.incarnation == self.instance.incarnation:
            if observed.suspended:
                self._frozen_by_others()
            else:
                self._gone(observed)

    def _found(self, running: Running) -> None:
        """It runs, and not because of us."""
        match self.instance.state:
            case State.CREATED | State.STOPPED | State.FAILED:
                self._life.failure = None
                self._life.up(Event.ADOPTED, running)
            case State.STARTED if running.incarnation != self.instance.incarnation:
                # It was restarted behind our back: the memory that was there is gone.
                self._life.leave(Event.EXITED)
                self._life.up(Event.ADOPTED, running)
            case State.SUSPENDED:
                self._life.move(Event.START_ASKED)
                self._life.up(Event.READY, running)
            case _:
                pass

    def _frozen_by_others(self) -> None:
        match self.instance.state:
            case State.STARTED:
                self._life.leave(Event.SUSPEND_ASKED)
                self._life.move(Event.FROZEN)
            case State.CREATED | State.STOPPED | State.FAILED:
                self._life.move(Event.START_ASKED)
                self._life.move(Event.READY)
                self._life.move(Event.SUSPEND_ASKED)
                self._life.move(Event.FROZEN)
            case _:
                pass

    def _gone(self, observed: Observed) -> None:
        life = self._life
        match self.instance.state:
            case State.STARTING:
                early = Failure(FailureKind.EXITED, f"{self._spec.key} exited before it was ready", observed.output)
                self._end_start(observed.failure or early)
            case State.STARTED | State.SUSPENDING:
                if observed.failure is None:
                    life.backoff = Backoff()
                elif counts_as_failed_start(self._context.clock_s() - life.started_at_s):
                    life.failed_once_more()
                life.failure = observed.failure
                life.leave(Event.EXITED if observed.failure is None else Event.CRASHED)
            case State.SUSPENDED:
                life.move(Event.SNAPSHOT_LOST)
            case State.CREATED | State.STOPPING | State.STOPPED | State.FAILED:
                pass
            case state:
                assert_never(state)
