"""What the Machines API says of a machine, and what follows from it: does it run, since when, why not.

Follows Fly's pages "Machine states and lifecycle" and "Machines resource" (`state`, `events`, `instance_id`). No I/O.

A life is named by the time of the `start` event it began with. A start from `suspended` goes on with the life before
it, unless something tells that its memory was lost; see docs/howto/fly.md for what can be known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from gateway.agent.base import Failure, FailureKind, InstanceKey
from gateway.agent.incarnations import after


def _or_empty(value: Any) -> Any:
    """Go's JSON has null where a list or a text is empty."""
    return () if value is None else value


class ExitEvent(BaseModel):
    model_config = ConfigDict(frozen=True)
    exit_code: int = 0
    oom_killed: bool = False
    requested_stop: bool = False


class Request(BaseModel):
    model_config = ConfigDict(frozen=True)
    exit_event: ExitEvent | None = None


class Event(BaseModel):
    model_config = ConfigDict(frozen=True)
    type: str = ""
    status: str = ""
    timestamp: int = 0
    """Milliseconds of Unix time."""
    request: Request | None = None

    @property
    def starts(self) -> bool:
        """It began to run, from nothing or from a snapshot. (A start that was only asked for is `starting`.)"""
        return self.type == "start" and self.status == "started"

    @property
    def suspends(self) -> bool:
        return self.type == "suspend" or self.status in {"suspending", "suspended"}

    @property
    def ends(self) -> bool:
        """Memory from before it is lost."""
        return self.type in {"launch", "update", "stop", "exit", "restart"} and not self.suspends


class Machine(BaseModel):
    """The fields that are used."""

    model_config = ConfigDict(frozen=True)
    id: str
    state: str
    instance_id: str = ""
    """Names the version: the configuration it runs with."""
    private_ip: str = ""
    updated_at: datetime | None = None
    events: Annotated[tuple[Event, ...], BeforeValidator(_or_empty)] = ()
    """The newest first. How many are kept is not said."""

    @property
    def condition(self) -> Condition:
        return CONDITIONS.get(self.state, Condition.MOVING)

    @property
    def started_ms(self) -> int:
        """When it last began to run or went on; 0 when no event tells."""
        return next((event.timestamp for event in self.events if event.starts), 0)

    def cold_ms(self) -> int | None:
        """When the life that it has now began with empty memory, or None when the events do not reach back so far."""
        began_ms, suspended = 0, False
        for event in self.events:
            if event.starts:
                if began_ms and not suspended:
                    return began_ms
                began_ms, suspended = event.timestamp, False
            elif began_ms and event.suspends:
                suspended = True
            elif began_ms and event.ends:
                return began_ms
        return began_ms if began_ms and not suspended else None

    def ended_since(self, ms: int) -> bool:
        return any(event.ends and event.timestamp > ms for event in self.events)


class Condition(Enum):
    """What a state means for whoever wants to send something to the machine. A closed set."""

    UP = auto()
    FROZEN = auto()
    DOWN = auto()
    """Nothing of it runs, and a start is what it takes."""
    MOVING = auto()
    """It passes by itself."""
    GONE = auto()
    """No start brings it back."""


CONDITIONS: Final = {
    "started": Condition.UP,
    # A start interrupts the suspending, and goes on with what is there.
    "suspending": Condition.FROZEN,
    "suspended": Condition.FROZEN,
    "created": Condition.DOWN,
    "stopped": Condition.DOWN,
    "failed": Condition.DOWN,
    "destroying": Condition.GONE,
    "destroyed": Condition.GONE,
    "launch_failed": Condition.GONE,
    "replaced": Condition.GONE,
    "migrated": Condition.GONE,
}
"""Every other state is MOVING: creating, starting, stopping, restarting, updating, replacing, and what is not known."""

STUCK_S: Final = 300.0
STUCK_UPDATING_S: Final = 600.0
_LASTING: Final = {Condition.UP, Condition.DOWN}


def stuck_after_s(state: str) -> float | None:
    """After how long in this state a machine is stuck, by Fly's own thresholds; None for states that last."""
    if state in {"suspended", "destroyed", "replaced", "migrated"} or CONDITIONS.get(state) in _LASTING:
        return None
    return STUCK_UPDATING_S if state in {"updating", "replacing"} else STUCK_S


# --- lives -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Life:
    """The life of a machine that is known."""

    incarnation: str
    version: str
    started_ms: int
    """The last start of it that is known: the one it began with, or one from a snapshot."""
    frozen: bool = False
    """It was last seen suspended."""


def life_of(machine: Machine, known: Life | None, from_suspended: bool | None = None) -> Life:
    """The life that `machine` is in.

    Args:
        known: the life it was in when it was last seen.
        from_suspended: what the answer to a start said; None when nothing was asked.
    """
    began_ms = machine.started_ms
    frozen = machine.condition is Condition.FROZEN
    if from_suspended is not False:
        if known is not None and _goes_on(machine, known, from_suspended is True):
            return replace(known, started_ms=max(began_ms, known.started_ms), frozen=frozen)
        if known is None:
            began_ms = machine.cold_ms() or began_ms
    return Life(after("", began_ms or _updated_ms(machine)), machine.instance_id, machine.started_ms, frozen)


def _goes_on(machine: Machine, known: Life, resumed: bool) -> bool:
    if machine.instance_id != known.version:
        return False
    if machine.started_ms <= known.started_ms:  # nothing started since; 0 where no event tells
        return True
    cold_ms = machine.cold_ms()
    if cold_ms is not None and cold_ms <= known.started_ms:
        return True
    return (resumed or known.frozen) and not machine.ended_since(known.started_ms)


def _updated_ms(machine: Machine) -> int:
    return int(machine.updated_at.timestamp() * 1000) if machine.updated_at is not None else 0


# --- ends ------------------------------------------------------------------------------


def failure_of(key: InstanceKey, machine: Machine | None) -> Failure | None:
    """Why it does not run; None for an end that somebody asked for, and for success."""
    if machine is None or machine.condition is Condition.GONE:
        state = machine.state if machine is not None else "not in the app's list"
        return Failure(FailureKind.REFUSED, f"{key}: its machine no longer exists", f"it is {state}")
    if machine.state == "failed":
        return Failure(FailureKind.REFUSED, f"{key}: its machine could not be started", _last_event(machine))
    end = next((event.request.exit_event for event in machine.events if event.type == "exit" and event.request), None)
    if machine.state != "stopped" or end is None or end.requested_stop:
        return None
    if end.oom_killed:
        return Failure(FailureKind.EXITED, f"{key} was killed because its machine ran out of memory")
    if end.exit_code == 0:
        return None
    return Failure(FailureKind.EXITED, f"{key} exited with status {end.exit_code}")


def _last_event(machine: Machine) -> str:
    if not machine.events:
        return "Fly tells no event of it"
    return f"its last event is {machine.events[0].type}: {machine.events[0].status}"
