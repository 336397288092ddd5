"""The life of an instance: the table is complete, closed and free of dead ends."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.lifecycle import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    FAILURES_TO_FALL,
    SETTLED_S,
    TRANSIENT,
    TRANSITIONS,
    Backoff,
    Event,
    Health,
    ImpossibleEvent,
    StartPlan,
    StopPlan,
    counts_as_failed_start,
    plan_start,
    plan_stop,
    step,
)
from gateway.core.model import State

# What the agent itself brings about, as opposed to what is asked of it or done to it.
ENDINGS = {Event.READY, Event.START_FAILED, Event.GONE, Event.FROZEN}


def reachable(start: State, events: set[Event]) -> set[State]:
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        for event in events:
            following = TRANSITIONS.get((state, event))
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return seen


def test_every_state_is_reached_from_created() -> None:
    assert reachable(State.CREATED, set(Event)) == set(State)


@pytest.mark.parametrize("state", set(State) - {State.CREATED}, ids=str)
def test_every_state_can_come_up_again_and_come_to_rest(state: State) -> None:
    assert State.STARTED in reachable(state, set(Event))
    assert State.STOPPED in reachable(state, set(Event))


@pytest.mark.parametrize("state", sorted(TRANSIENT), ids=str)
def test_transient_states_end_by_the_agents_own_events(state: State) -> None:
    assert reachable(state, ENDINGS) - TRANSIENT


@pytest.mark.parametrize("state", sorted(set(State) - TRANSIENT), ids=str)
def test_lasting_states_do_not_end_by_themselves(state: State) -> None:
    assert reachable(state, ENDINGS) == {state}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)), ids=str)
def test_step_follows_the_table_or_names_the_impossible(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert step(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(ImpossibleEvent, match="cannot happen") as caught:
        step(state, event)
    assert (caught.value.state, caught.value.event) == (state, event)
    assert event.value in str(caught.value)
    assert state.value in str(caught.value)


@pytest.mark.parametrize(
    ("state", "plan"),
    [
        (State.CREATED, StartPlan.BEGIN),
        (State.STARTING, StartPlan.JOIN),
        (State.STARTED, StartPlan.RUNNING),
        (State.STOPPING, StartPlan.WAIT),
        (State.STOPPED, StartPlan.BEGIN),
        (State.SUSPENDING, StartPlan.WAIT),
        (State.SUSPENDED, StartPlan.BEGIN),
        (State.FAILED, StartPlan.BEGIN),
    ],
)
def test_what_a_start_means(state: State, plan: StartPlan) -> None:
    assert plan_start(state) is plan
    # A plan that begins something is one the table allows.
    assert ((state, Event.START_ASKED) in TRANSITIONS) == (plan is StartPlan.BEGIN)


@pytest.mark.parametrize(
    ("state", "plan"),
    [
        (State.CREATED, StopPlan.DOWN),
        (State.STARTING, StopPlan.CANCEL),
        (State.STARTED, StopPlan.BEGIN),
        (State.STOPPING, StopPlan.JOIN),
        (State.STOPPED, StopPlan.DOWN),
        (State.SUSPENDING, StopPlan.WAIT),
        (State.SUSPENDED, StopPlan.BEGIN),
        (State.FAILED, StopPlan.DOWN),
    ],
)
def test_what_a_stop_means(state: State, plan: StopPlan) -> None:
    assert plan_stop(state) is plan
    assert ((state, Event.STOP_ASKED) in TRANSITIONS) == (plan in {StopPlan.BEGIN, StopPlan.CANCEL})


def test_backoff_doubles_to_its_bound() -> None:
    backoff, waits_s = Backoff(), []
    for _ in range(8):
        backoff = backoff.failed(now_s=100.0, dice=0.0)
        waits_s.append(backoff.left_s(100.0))
    assert waits_s == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert backoff.failures == 8


@given(failures=st.integers(0, 10_000), dice=st.floats(0.0, 1.0, exclude_max=True), now_s=st.floats(0.0, 1e9))
def test_backoff_stays_within_its_bounds(failures: int, dice: float, now_s: float) -> None:
    wait_s = Backoff(failures).failed(now_s, dice).left_s(now_s)
    assert BACKOFF_FIRST_S * 0.75 - 1e-6 <= wait_s <= BACKOFF_MAX_S + 1e-6


def test_backoff_runs_out() -> None:
    assert Backoff().left_s(5.0) == 0.0
    assert Backoff().failed(10.0, 0.0).left_s(20.0) == 0.0


def test_a_crash_soon_after_the_start_counts_against_it() -> None:
    assert counts_as_failed_start(SETTLED_S - 0.1)
    assert not counts_as_failed_start(SETTLED_S)


def test_health_falls_after_consecutive_failures_and_rises_after_one_success() -> None:
    health = Health(since_s=0.0, grace_s=0.0)
    assert health.healthy
    for _ in range(FAILURES_TO_FALL - 1):
        health = health.failed(1.0)
        assert health.healthy
    health = health.failed(1.0)
    assert not health.healthy
    assert not health.failed(2.0).healthy
    assert health.passed().healthy
    assert health.passed().failed(3.0).healthy


def test_failures_within_the_grace_say_nothing() -> None:
    health = Health(since_s=10.0, grace_s=5.0)
    assert health.failed(11.0).failed(14.9) == health
    assert not health.failed(15.0).failed(15.0).healthy


def test_the_reference_page_has_the_whole_table() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/lifecycle.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| `([a-z-]+)` \| `([a-z]+)` \|$", page, re.MULTILINE)
    assert {(State(at), Event(event)): State(to) for at, event, to in rows} == dict(TRANSITIONS)
    assert len(rows) == len(TRANSITIONS)
