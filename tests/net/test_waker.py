"""Waking on demand: one start however many ask, one answer for all of them, and a bound on everything."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import pytest

from gateway.agent.base import (
    AgentApi,
    Cordoned,
    Failure,
    FailureKind,
    Listed,
    NotReached,
    Prepared,
    Rest,
    Started,
    StartFailed,
    StartOutcome,
    Stopped,
    WaitOutcome,
)
from gateway.core.model import Address, App, Instance, State
from gateway.core.problems import Code, Problem
from gateway.lifecycle.holds import Holds
from gateway.lifecycle.waker import CODES, Waker
from tests.loops import both_loops
from tests.net.yard import LIMIT_S, Clock, agent_of, lines, open_gate, toy, until

APP = App("tools", wake_timeout_s=LIMIT_S)
ASLEEP = Instance("tools", "i-1", state=State.STOPPED, startable=True)
AWAKE = replace(ASLEEP, state=State.STARTED, address=Address("127.0.0.1", 9), incarnation="new00001")


class ScriptedAgent:
    """An `AgentApi` whose starts are ended by the test."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[StartOutcome]] = []
        self.cancelled = 0

    async def start(self, app: str, id: str, *, release: bool = False) -> StartOutcome:
        assert not release, "traffic does not release a hold"
        future: asyncio.Future[StartOutcome] = asyncio.get_running_loop().create_future()
        self.asked.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def stop(self, app: str, id: str, *, hold: bool = True) -> Stopped:
        return Stopped(ASLEEP)

    async def suspend(self, app: str, id: str, *, hold: bool = True) -> Stopped:
        return Stopped(ASLEEP)

    async def prepare(self, app: str, id: str, incarnation: str, rest: Rest) -> Prepared:
        return Prepared(ASLEEP, "t")

    async def sleep(self, app: str, id: str, token: str) -> Stopped:
        return Stopped(ASLEEP)

    async def stay(self, app: str, id: str, token: str) -> None:
        """Nothing was prepared."""

    async def cordon(self, app: str, id: str, cordoned: bool) -> Cordoned:
        return Cordoned(ASLEEP)

    async def wait(self, app: str, id: str, state: State, timeout_s: float) -> WaitOutcome:
        return NotReached(None)

    async def list(self) -> Sequence[Listed]:
        return ()


class FakeCatalog:
    """One instance, changed by the test."""

    def __init__(self, instance: Instance | None = ASLEEP) -> None:
        self._instance = instance
        self._callbacks: list[Callable[[str], None]] = []

    def instance(self, app: str, id: str) -> Instance | None:
        return self._instance if (app, id) == ("tools", "i-1") else None

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    @property
    def subscribers(self) -> int:
        return len(self._callbacks)

    def set(self, instance: Instance | None) -> None:
        self._instance = instance
        for callback in self._callbacks:
            callback("tools")


@asynccontextmanager
async def scripted(instance: Instance | None = ASLEEP) -> AsyncIterator[tuple[Waker, ScriptedAgent, FakeCatalog]]:
    agent, catalog = ScriptedAgent(), FakeCatalog(instance)
    api: AgentApi = agent
    async with asyncio.TaskGroup() as tasks:
        waker = Waker(tasks, catalog, api)
        yield waker, agent, catalog
        waker.close()
    assert catalog.subscribers == 0
    assert not waker.holds.held


def problem(outcome: Instance | Problem) -> Problem:
    match outcome:
        case Problem():
            return outcome
        case Instance():
            raise AssertionError(f"woke: {outcome}")
        case _:
            assert_never(outcome)


async def asked(agent: ScriptedAgent, count: int = 1) -> None:
    await until(lambda: len(agent.asked) == count, f"the agent was asked {count} times")


# --- with a scripted agent -------------------------------------------------------------


@both_loops
async def test_what_runs_already_is_answered_at_once() -> None:
    async with scripted(AWAKE) as (waker, agent, _):
        assert await waker.ensure(APP, ASLEEP) == AWAKE
        assert not agent.asked


@both_loops
async def test_the_record_ends_the_hold_even_before_the_agents_word() -> None:
    async with scripted() as (waker, agent, catalog), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        assert [(each.app, each.instance, each.held) for each in waker.waking()] == [("tools", "i-1", 1)]
        assert waker.holds.held == {"tools": 1}
        catalog.set(AWAKE)
        assert await held == AWAKE
        assert not waker.waking()
        assert agent.cancelled == 1, "nobody needs the answer any more"


@both_loops
async def test_the_agents_word_alone_does_not_end_the_hold() -> None:
    async with scripted() as (waker, agent, catalog), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        agent.asked[0].set_result(Started(AWAKE))
        catalog.set(replace(ASLEEP, state=State.STARTING, incarnation=AWAKE.incarnation))
        assert waker.waking()
        assert not held.done()
        catalog.set(AWAKE)
        assert await held == AWAKE


@both_loops
async def test_many_ask_once_and_get_the_same_problem() -> None:
    async with scripted() as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = [tasks.create_task(waker.ensure(APP, ASLEEP)) for _ in range(100)]
        await asked(agent)
        assert waker.holds.held == {"tools": 100}
        failure = Failure(FailureKind.EXITED, "tools/i-1 exited with status 3", "its last output: secret")
        agent.asked[0].set_result(StartFailed(failure, 0.8))
        outcomes = await asyncio.gather(*held)
        assert set(outcomes) == {Problem(Code.PM07, "tools/i-1 exited with status 3", "tools", "i-1", 1)}
        assert len(agent.asked) == 1


@pytest.mark.parametrize("kind", FailureKind, ids=str)
@both_loops
async def test_every_failure_has_a_code(kind: FailureKind) -> None:
    async with scripted() as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        agent.asked[0].set_result(StartFailed(Failure(kind, "so it is")))
        outcome = problem(await held)
        assert (outcome.code, outcome.message) == (CODES[kind], "so it is")
        passing = {FailureKind.CANCELLED, FailureKind.AGENT_CLOSING, FailureKind.AGENT_AWAY}
        assert outcome.retry_after_s == (1 if kind in passing else None)


@both_loops
async def test_a_cancelled_caller_does_not_cancel_the_wake() -> None:
    async with scripted() as (waker, agent, catalog), asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(waker.ensure(APP, ASLEEP))
        staying = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert waker.holds.held == {"tools": 1}
        catalog.set(AWAKE)
        assert await staying == AWAKE
        assert len(agent.asked) == 1


@both_loops
async def test_the_wake_goes_on_when_everybody_left() -> None:
    async with scripted() as (waker, agent, catalog), asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert [each.held for each in waker.waking()] == [0]
        returning = tasks.create_task(waker.ensure(APP, ASLEEP))
        await until(lambda: waker.holds.held == {"tools": 1}, "the next request is held")
        catalog.set(AWAKE)
        assert await returning == AWAKE
        assert len(agent.asked) == 1


@both_loops
async def test_the_bound_on_held_requests() -> None:
    narrow = replace(APP, wake_queue=2)
    async with scripted() as (waker, agent, catalog), asyncio.TaskGroup() as tasks:
        held = [tasks.create_task(waker.ensure(narrow, ASLEEP)) for _ in range(2)]
        await asked(agent)
        refused = problem(await waker.ensure(narrow, ASLEEP))
        assert (refused.code, refused.retry_after_s) == (Code.PL02, 1)
        assert waker.holds.refused == {"tools": 1}
        catalog.set(AWAKE)
        assert await asyncio.gather(*held) == [AWAKE, AWAKE]
        catalog.set(ASLEEP)
        again = tasks.create_task(waker.ensure(narrow, ASLEEP))
        await asked(agent, 2)
        catalog.set(AWAKE)
        assert await again == AWAKE


@both_loops
async def test_the_time_is_bounded() -> None:
    hasty = replace(APP, wake_timeout_s=0.05)
    async with scripted() as (waker, _, _):
        outcome = problem(await waker.ensure(hasty, ASLEEP))
        assert (outcome.code, outcome.retry_after_s) == (Code.PM03, 5)
        assert "within 0.05 s" in outcome.message
        assert not waker.waking()


@both_loops
async def test_a_record_that_does_not_arrive_is_said() -> None:
    hasty = replace(APP, wake_timeout_s=0.2)
    async with scripted() as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(hasty, ASLEEP))
        await asked(agent)
        agent.asked[0].set_result(Started(AWAKE))
        outcome = problem(await held)
        assert outcome.code is Code.PM03
        assert "its record did not arrive" in outcome.message


@both_loops
async def test_a_short_life_is_not_waited_for() -> None:
    async with scripted() as (waker, agent, catalog), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        agent.asked[0].set_result(Started(AWAKE))
        # The record of its start was overtaken by that of its end.
        catalog.set(replace(AWAKE, state=State.FAILED, address=None))
        outcome = problem(await held)
        assert (outcome.code, outcome.retry_after_s) == (Code.PM07, 1)


@both_loops
async def test_what_vanishes_while_it_is_woken_is_gone() -> None:
    async with scripted() as (waker, agent, catalog), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        catalog.set(None)
        assert problem(await held).code is Code.PR02
        assert problem(await waker.ensure(APP, ASLEEP)).code is Code.PR02


@pytest.mark.parametrize(
    ("app", "instance"),
    [(APP, replace(ASLEEP, startable=False)), (replace(APP, auto_start=False), ASLEEP)],
    ids=["no driver", "auto_start off"],
)
@both_loops
async def test_what_may_not_be_started_is_not_asked_for(app: App, instance: Instance) -> None:
    async with scripted(instance) as (waker, agent, _):
        assert problem(await waker.ensure(app, instance)).code is Code.PM08
        assert not agent.asked


@both_loops
async def test_closing_ends_the_holds() -> None:
    async with scripted() as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        waker.close()
        await asyncio.wait({held})
        assert held.cancelled()


def test_every_failure_kind_is_mapped_and_documented() -> None:
    assert set(CODES) == set(FailureKind)
    page = (Path(__file__).parents[2] / "docs/reference/lifecycle.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| .* \| ([A-Z0-9]{4}) \|$", page, re.MULTILINE)
    assert {FailureKind(kind): Code(code) for kind, code in rows} == CODES


# --- what its record says is doubted -----------------------------------------------------


AWAY = StartFailed(Failure(FailureKind.AGENT_AWAY, "the agent cannot be asked"))


@both_loops
async def test_an_instance_that_does_not_answer_where_it_should_is_asked_about() -> None:
    """The agent knows where it runs by now; the record may be on its way."""
    async with scripted(AWAKE) as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, AWAKE, doubted=True))
        await asked(agent)
        assert waker.holds.held == {"tools": 1}
        moved = replace(AWAKE, address=Address("127.0.0.1", 9999))
        agent.asked[0].set_result(Started(moved))
        assert await held == moved


@both_loops
@pytest.mark.parametrize("address", [AWAKE.address, None])
async def test_one_that_runs_where_nothing_answers_is_unreachable(address: Address | None) -> None:
    async with scripted(AWAKE) as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, AWAKE, doubted=True))
        await asked(agent)
        agent.asked[0].set_result(Started(replace(AWAKE, address=address)))
        assert problem(await held).code is Code.PS07


@both_loops
async def test_a_start_that_fails_is_told_of_one_that_was_doubted_too() -> None:
    async with scripted(AWAKE) as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, AWAKE, doubted=True))
        await asked(agent)
        agent.asked[0].set_result(StartFailed(Failure(FailureKind.HELD_DOWN, "stopped by an operator")))
        assert problem(await held).code is Code.PM08


@both_loops
async def test_a_doubt_does_not_last_longer_than_a_wake() -> None:
    async with scripted(AWAKE) as (waker, _, _):
        app = replace(APP, wake_timeout_s=0.01)
        assert problem(await waker.ensure(app, AWAKE, doubted=True)).code is Code.PM03
        assert problem(await waker.ensure(replace(app, wake_queue=0), AWAKE, doubted=True)).code is Code.PL02


@both_loops
async def test_an_agent_that_is_away_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.lifecycle.waker.AWAY_PAUSE_S", 0.001)
    remote = replace(ASLEEP, agent="http://127.0.0.1:8082")
    async with scripted(remote) as (waker, agent, catalog), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, remote))
        for count in range(3):
            await asked(agent, count + 1)
            agent.asked[count].set_result(AWAY)
        await asked(agent, 4)
        agent.asked[3].set_result(Started(AWAKE))
        catalog.set(AWAKE)
        assert await held == AWAKE


@both_loops
async def test_an_agent_that_nobody_can_ask_is_not_asked_again() -> None:
    async with scripted() as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, ASLEEP))
        await asked(agent)
        agent.asked[0].set_result(AWAY)
        assert problem(await held).code is Code.PM02


@both_loops
async def test_an_agent_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.lifecycle.waker.AWAY_S", 0.0)
    remote = replace(ASLEEP, agent="http://127.0.0.1:8082")
    async with scripted(remote) as (waker, agent, _), asyncio.TaskGroup() as tasks:
        held = tasks.create_task(waker.ensure(APP, remote))
        await asked(agent)
        agent.asked[0].set_result(AWAY)
        assert problem(await held).code is Code.PM02


def test_holds_are_counted_per_app() -> None:
    holds, one, two = Holds(), App("one", wake_queue=1), App("two", wake_queue=1)
    assert holds.enter(one) is None
    assert holds.enter(one) is not None
    assert holds.enter(two) is None
    assert holds.held == {"one": 1, "two": 1}
    holds.leave(one)
    assert holds.held == {"two": 1}
    assert holds.enter(one) is None


# --- with a real agent, real processes and the real catalog ------------------------------


@both_loops
async def test_a_hundred_requests_cause_one_start_and_all_are_answered(tmp_path: Path) -> None:
    gate, starts = tmp_path / "gate", tmp_path / "starts"
    os.mkfifo(gate)
    async with agent_of(APP, toy("i-1", "--gate", str(gate), "--starts", str(starts))) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            waker = Waker(tasks, publish.catalog, agent)
            sleeping = publish.instance("i-1")
            held = [tasks.create_task(waker.ensure(APP, sleeping)) for _ in range(100)]
            await until(lambda: len(lines(starts)) == 1, "the instance was started")
            assert waker.holds.held == {"tools": 100}
            await asyncio.to_thread(open_gate, gate)
            outcomes = await asyncio.gather(*held)
            waker.close()
        assert set(outcomes) == {publish.instance("i-1")}
        assert publish.instance("i-1").running
        assert len(lines(starts)) == 1


@both_loops
async def test_a_failing_start_fails_a_hundred_requests_once(tmp_path: Path) -> None:
    starts, clock = tmp_path / "starts", Clock()
    spec = toy("i-1", "--starts", str(starts), "--status", "3")
    async with agent_of(APP, spec, clock_s=clock) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            waker = Waker(tasks, publish.catalog, agent)
            sleeping = publish.instance("i-1")
            outcomes = await asyncio.gather(*(waker.ensure(APP, sleeping) for _ in range(100)))
            assert {problem(each).code for each in outcomes} == {Code.PM07}
            assert len(set(outcomes)) == 1
            # The next hundred are told at once, from the agent's memory.
            again = await asyncio.gather(*(waker.ensure(APP, sleeping) for _ in range(100)))
            assert set(again) == set(outcomes)
            waker.close()
        assert len(lines(starts)) == 1


@both_loops
async def test_what_an_operator_stopped_is_not_woken() -> None:
    async with agent_of(APP, toy("i-1")) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            waker = Waker(tasks, publish.catalog, agent)
            await agent.stop("tools", "i-1")
            outcome = problem(await waker.ensure(APP, publish.instance("i-1")))
            assert (outcome.code, outcome.retry_after_s) == (Code.PM08, None)
            await agent.start("tools", "i-1", release=True)
            assert await waker.ensure(APP, publish.instance("i-1")) == publish.instance("i-1")
            waker.close()


@both_loops
async def test_who_never_listens_is_given_up_in_words() -> None:
    hasty = replace(APP, wake_timeout_s=2.0)
    async with agent_of(hasty, toy("i-1", "--deaf")) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            waker = Waker(tasks, publish.catalog, agent)
            outcome = problem(await waker.ensure(hasty, publish.instance("i-1")))
            assert outcome.code is Code.PM05, outcome
            assert outcome.retry_after_s == 1
            waker.close()
