"""Which life a Fly machine is in, from what the API tells: a table of histories, and what is known of them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.agent.base import FailureKind, InstanceKey
from gateway.agent.fly_machine import Life, Machine, failure_of, life_of
from gateway.agent.incarnations import after

KEY = InstanceKey("tools", "i-1")
LAUNCH, STARTED, SUSPENDED = ("launch", "created"), ("start", "started"), ("suspend", "suspended")
STOPPED, EXITED, UPDATED = ("stop", "stopped"), ("exit", "stopped"), ("update", "replacing")


def machine(*history: tuple[str, str], state: str = "started", version: str = "v1", **fields: Any) -> Machine:
    """The history is told from its beginning, one event a second."""
    events = [{"type": type, "status": status, "timestamp": 1000 * at} for at, (type, status) in enumerate(history, 1)]
    return Machine(id="m", state=state, instance_id=version, events=events[::-1], **fields)


def began(second: int) -> str:
    return after("", 1000 * second)


@pytest.mark.parametrize(
    ("history", "second"),
    [
        ([LAUNCH, STARTED], 2),
        ([LAUNCH, STARTED, EXITED, STARTED], 4),
        ([LAUNCH, STARTED, STARTED], 3),
        ([LAUNCH, STARTED, SUSPENDED, STARTED], 2),
        ([LAUNCH, STARTED, SUSPENDED, STARTED, SUSPENDED, STARTED], 2),
        ([LAUNCH, STARTED, SUSPENDED, STOPPED, STARTED], 5),
        ([LAUNCH, STARTED, SUSPENDED, UPDATED, STARTED], 5),
        ([LAUNCH, STARTED, SUSPENDED], 2),
        ([SUSPENDED, STARTED], 2),
        ([STARTED], 1),
        ([("start", "starting")], 0),
        ([], 0),
    ],
)
def test_a_life_begins_with_the_last_start_that_was_no_resume(history: list[tuple[str, str]], second: int) -> None:
    """Known is nothing but the events. Where those do not reach back, it is the last start."""
    assert life_of(machine(*history), None).incarnation == began(second)


def test_without_any_event_it_is_the_last_change() -> None:
    at = "2026-11-25T04:44:55Z"
    assert life_of(machine(updated_at=at), None).incarnation == after("", 1795581895000)


BEFORE = Life(began(2), "v1", 2000)
FROZEN = Life(began(2), "v1", 2000, frozen=True)


@pytest.mark.parametrize(
    ("history", "known", "goes_on"),
    [
        ([LAUNCH, STARTED], BEFORE, True),
        ([LAUNCH, STARTED, EXITED, STARTED], BEFORE, False),
        # Suspended and resumed between two looks.
        ([LAUNCH, STARTED, SUSPENDED, STARTED], BEFORE, True),
        ([LAUNCH, STARTED, SUSPENDED, STARTED], FROZEN, True),
        # It was seen suspended, and the events say nothing else.
        ([LAUNCH, LAUNCH, LAUNCH, STARTED], FROZEN, False),
        ([("?", ""), ("?", ""), ("?", ""), STARTED], FROZEN, True),
        ([("?", ""), ("?", ""), ("?", ""), STARTED], BEFORE, False),
        ([LAUNCH, STARTED, SUSPENDED, EXITED, STARTED], FROZEN, False),
        ([LAUNCH, STARTED, SUSPENDED, STOPPED, STARTED], FROZEN, False),
        # An answer from before the last start.
        ([LAUNCH], BEFORE, True),
    ],
)
def test_a_life_goes_on_over_a_resume_only(history: list[tuple[str, str]], known: Life, goes_on: bool) -> None:
    life = life_of(machine(*history), known)
    assert (life.incarnation == known.incarnation) is goes_on
    assert life.started_ms >= known.started_ms


def test_what_the_answer_to_a_start_said_goes_before_what_is_guessed() -> None:
    quiet = machine(("?", ""), ("?", ""), ("?", ""), STARTED)
    assert life_of(quiet, BEFORE, True).incarnation == BEFORE.incarnation
    resumed = machine(LAUNCH, STARTED, SUSPENDED, STARTED)
    assert life_of(resumed, FROZEN, False).incarnation == began(4)
    assert life_of(resumed, None, False).incarnation == began(4)
    exited = machine(LAUNCH, STARTED, SUSPENDED, EXITED, STARTED)
    assert life_of(exited, FROZEN, True).incarnation == began(5)


def test_another_version_is_another_life() -> None:
    life = life_of(machine(LAUNCH, STARTED, SUSPENDED, STARTED, version="v2"), FROZEN)
    assert (life.incarnation, life.version) == (began(4), "v2")


@pytest.mark.parametrize(
    ("exit_event", "kind"),
    [
        ({"exit_code": 0}, None),
        ({"exit_code": 137, "requested_stop": True}, None),
        ({"exit_code": 1}, FailureKind.EXITED),
        ({"exit_code": 137, "oom_killed": True}, FailureKind.EXITED),
    ],
)
def test_an_exit_is_a_failure_unless_it_was_asked_for_or_succeeded(
    exit_event: dict[str, Any], kind: FailureKind | None
) -> None:
    end = {"type": "exit", "status": "stopped", "request": {"exit_event": exit_event}}
    failure = failure_of(KEY, Machine(id="m", state="stopped", events=[end]))
    assert (failure.kind if failure is not None else None) is kind


def test_a_machine_without_events_can_fail_too() -> None:
    failure = failure_of(KEY, machine(state="failed"))
    assert failure is not None
    assert "no event" in failure.detail
    assert failure_of(KEY, machine(state="stopped")) is None


def test_null_stands_for_no_events() -> None:
    assert Machine.model_validate({"id": "m", "state": "started", "events": None}).events == ()
