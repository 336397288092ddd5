"""Waking on demand: a request for a sleeping instance is held here until the instance's record says that it runs.

One wake per instance, however many requests want it; each request gets the wake's answer. The agent is asked to start,
and the catalog answers: what routing sees is what ends the hold. Nothing here starts anything or changes the table.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, assert_never

from gateway.agent.base import AgentApi, FailureKind, Started, StartFailed, StartOutcome
from gateway.core.model import App, Instance, State
from gateway.core.problems import Code, Problem
from gateway.lifecycle.holds import Holds
from gateway.lifecycle.times import WakeTimes

RETRY_STARTING_S: Final = 5
"""Retry-After when the time is over but the start goes on: the next request finds it further."""
RETRY_SOON_S: Final = 1
AWAY_S: Final = 10.0
"""How long an agent that cannot be asked is asked again: about as long as its restart takes."""
AWAY_PAUSE_S: Final = 0.1
AWAY_PAUSE_MAX_S: Final = 1.0

CODES: Final[dict[FailureKind, Code]] = {
    FailureKind.UNKNOWN_INSTANCE: Code.PR02,
    FailureKind.NOT_STARTABLE: Code.PM08,
    FailureKind.HELD_DOWN: Code.PM08,
    FailureKind.AGENT_CLOSING: Code.PM10,
    FailureKind.AGENT_AWAY: Code.PM02,
    FailureKind.COMMAND_NOT_FOUND: Code.PM01,
    FailureKind.NOT_EXECUTABLE: Code.PM01,
    FailureKind.CWD_MISSING: Code.PM01,
    FailureKind.REFUSED: Code.PM01,
    FailureKind.PORT_TAKEN: Code.PM07,
    FailureKind.EXITED: Code.PM07,
    FailureKind.NEVER_LISTENED: Code.PM05,
    FailureKind.CHECK_FAILED: Code.PM05,
    FailureKind.CANCELLED: Code.PM10,
    # Neither is said of a start.
    FailureKind.NOT_SUSPENDABLE: Code.PM07,
    FailureKind.NOT_PREPARED: Code.PM07,
}
"""Fly's code for each way in which a start fails (docs "Error codes", class M)."""

_PASSING: Final = frozenset({FailureKind.CANCELLED, FailureKind.AGENT_CLOSING, FailureKind.AGENT_AWAY})


class Catalog(Protocol):
    """What the waker sees of the catalog."""

    def instance(self, app: str, id: str) -> Instance | None: ...

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with an app's name after each change of it, at once; the answer unsubscribes."""


@dataclass(frozen=True, slots=True)
class Waking:
    """One wake under way, for operators and metrics."""

    app: str
    instance: str
    for_s: float
    held: int


@dataclass(slots=True)
class _Wake:
    app: App
    id: str
    since_s: float
    news: asyncio.Future[None]
    held: int = 0
    task: asyncio.Task[Instance | Problem] = field(init=False)


class Waker:
    """Holds requests and has instances started. Its tasks belong to the given group; `close` ends them."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        catalog: Catalog,
        agent: AgentApi,
        *,
        holds: Holds | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.holds = holds or Holds()
        self.times = WakeTimes()
        self._tasks = tasks
        self._catalog = catalog
        self._agent = agent
        self._clock_s = clock_s
        self._wakes: dict[str, dict[str, _Wake]] = {}
        self._unsubscribe = catalog.subscribe(self._on_change)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Waker {self.waking()}>"

    def waking(self) -> Sequence[Waking]:
        """Every wake under way, oldest first."""
        wakes = sorted((wake for of_app in self._wakes.values() for wake in of_app.values()), key=lambda w: w.since_s)
        now_s = self._clock_s()
        return [Waking(wake.app.name, wake.id, now_s - wake.since_s, wake.held) for wake in wakes]

    async def ensure(self, app: App, instance: Instance, *, doubted: bool = False) -> Instance | Problem:
        """Return the instance as the catalog has it once it runs, or why it does not, within the app's wake_timeout.

        May be cancelled freely: the wake goes on, for the others and for the next request. `doubted`: the catalog says
        that it runs where nothing answers; the agent is asked all the same.
        """
        if doubted:
            return await self._ask(app, instance)
        current = self._catalog.instance(app.name, instance.id)
        if current is not None and current.running:
            return current
        refusal = self._refusal(app, instance.id, current) or self.holds.enter(app)
        if refusal is not None:
            return refusal
        wake = self._wakes.get(app.name, {}).get(instance.id) or self._begin(app, instance.id)
        wake.held += 1
        try:
            return await asyncio.shield(wake.task)
        finally:
            wake.held -= 1
            self.holds.leave(app)

    async def _ask(self, app: App, instance: Instance) -> Instance | Problem:
        """What the agent says of an instance that its record says runs."""
        refusal = self.holds.enter(app)
        if refusal is not None:
            return refusal
        try:
            async with asyncio.timeout(app.wake_timeout_s):
                outcome = await self._start(app.name, instance.id)
        except TimeoutError:
            text = f"instance {instance.id} of app {app.name} was not awake within {app.wake_timeout_s:g} s"
            return Problem(Code.PM03, text, app.name, instance.id, RETRY_STARTING_S)
        finally:
            self.holds.leave(app)
        if isinstance(outcome, StartFailed):
            return _outcome(app.name, instance.id, outcome)
        started = outcome.instance
        if started.address is None or started.address == instance.address:
            text = f"instance {instance.id} of app {app.name} runs, and cannot be connected to"
            return Problem(Code.PS07, text, app.name, instance.id, RETRY_SOON_S)
        return started

    def close(self) -> None:
        """Give up every wake; who is held gets CancelledError. The agent's starts go on. Idempotent."""
        if not self._closed:
            self._unsubscribe()
        self._closed = True
        for of_app in self._wakes.values():
            for wake in of_app.values():
                wake.task.cancel()

    # --- one wake ----------------------------------------------------------------------

    def _refusal(self, app: App, id: str, current: Instance | None) -> Problem | None:
        if current is None:
            return _gone(app, id)
        if not current.startable:
            text = f"instance {id} of app {app.name} is {current.state.value}, and no driver can start it"
            return Problem(Code.PM08, text, app=app.name, instance=id)
        if not app.auto_start:
            text = f"instance {id} of app {app.name} is {current.state.value}, and auto_start is off"
            return Problem(Code.PM08, text, app=app.name, instance=id)
        # Not `held_down`: its owner knows better than a record that may be on its way.
        return None

    def _begin(self, app: App, id: str) -> _Wake:
        wake = _Wake(app, id, self._clock_s(), asyncio.get_running_loop().create_future())
        self._wakes.setdefault(app.name, {})[id] = wake
        wake.task = self._tasks.create_task(self._run(wake), name=f"wake {app.name}/{id}")
        return wake

    async def _run(self, wake: _Wake) -> Instance | Problem:
        # Every request joined after this began, so that its own time ends with the wake's at the latest.
        asked: asyncio.Task[StartOutcome] | None = None
        try:
            try:
                async with asyncio.timeout(wake.app.wake_timeout_s):
                    async with asyncio.TaskGroup() as tasks:
                        asked = tasks.create_task(self._start(wake.app.name, wake.id))
                        answer = await self._until_answer(wake, asked)
                        asked.cancel()
            except TimeoutError:
                answer = _too_late(wake, asked)
            self.times.note(wake.app.name, answer, self._clock_s() - wake.since_s)
            return answer
        finally:
            of_app = self._wakes[wake.app.name]
            del of_app[wake.id]
            if not of_app:
                del self._wakes[wake.app.name]

    async def _start(self, app: str, id: str) -> StartOutcome:
        """Ask the agent; one that is away for a moment, because it is restarted, is asked again."""
        loop = asyncio.get_running_loop()
        until_s, pause_s = loop.time() + AWAY_S, AWAY_PAUSE_S
        while True:
            outcome = await self._agent.start(app, id)
            if not isinstance(outcome, StartFailed) or outcome.failure.kind is not FailureKind.AGENT_AWAY:
                return outcome
            current = self._catalog.instance(app, id)
            if current is None or not current.agent or loop.time() >= until_s:
                return outcome
            await asyncio.sleep(pause_s)  # noqa: TID251 - nobody tells when an agent is back
            pause_s = min(2 * pause_s, AWAY_PAUSE_MAX_S)

    async def _until_answer(self, wake: _Wake, asked: asyncio.Task[StartOutcome]) -> Instance | Problem:
        while True:
            current = self._catalog.instance(wake.app.name, wake.id)
            if current is None:
                return _gone(wake.app, wake.id)
            if current.running:
                return current
            wake.news = asyncio.get_running_loop().create_future()
            if not asked.done():
                both: set[asyncio.Future[Any]] = {asked, wake.news}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                continue
            match asked.result():
                case StartFailed() as failed:
                    return _outcome(wake.app.name, wake.id, failed)
                case Started(started):
                    # The record of a short life may be overtaken by the record of its end.
                    if current.incarnation == started.incarnation and current.state in _OVER:
                        text = f"instance {wake.id} of app {wake.app.name} started and is {current.state.value} again"
                        return Problem(Code.PM07, text, wake.app.name, wake.id, RETRY_SOON_S)
                case outcome:
                    assert_never(outcome)
            await wake.news

    def _on_change(self, app: str) -> None:
        for wake in self._wakes.get(app, {}).values():
            if not wake.news.done():
                wake.news.set_result(None)


_OVER: Final = frozenset({State.STOPPED, State.FAILED})
"""Not `stopping`: that may be the record of a stop which this very start has ended, in the same incarnation."""


def _gone(app: App, id: str) -> Problem:
    return Problem(Code.PR02, f"there is no instance {id} of app {app.name}", app=app.name, instance=id)


def _outcome(app: str, id: str, failed: StartFailed) -> Problem:
    kind = failed.failure.kind
    retry_after_s = math.ceil(failed.retry_after_s) or (RETRY_SOON_S if kind in _PASSING else None)
    return Problem(CODES[kind], failed.failure.message, app, id, retry_after_s)


def _too_late(wake: _Wake, asked: asyncio.Task[StartOutcome] | None) -> Problem:
    waited = f"instance {wake.id} of app {wake.app.name} was not awake within {wake.app.wake_timeout_s:g} s"
    if asked is not None and asked.done() and not asked.cancelled():
        waited += "; its agent says that it runs, but its record did not arrive"
    return Problem(Code.PM03, waited, wake.app.name, wake.id, RETRY_STARTING_S)
