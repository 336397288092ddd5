"""An instance's life as tables: which event leads from which state to which, and what a start or stop asked for means.

Theory. An instance is in one `State`, and only its agent moves it. The agent never assigns a state: it names the
`Event` that happened, and `step` answers with the next state or raises `ImpossibleEvent`. A pair that is not in the
table is a bug of the agent, never of an instance, a client or an operator: what *they* do at odd moments (start what
starts, stop what is absent, exit while being stopped) is absorbed by `plan_start` and `plan_stop`, which have an answer
for every state, and by the rule below about exits. The words and their meaning are those of the Fly Machines API
("Machine states").

Rules, each visible in the table:

1. `started` means ready. Between the driver's start and readiness lies `starting`, and nothing is routed there.
2. Every transient state (`starting`, `stopping`, `suspending`) ends by an event that the agent itself brings about,
   within a bound: the start's limit, the stop's grace. No instance stays in one for ever.
3. A stop asked for during a start ends the start: `starting -> stopping`. A start asked for during a stop waits for it,
   unless the stop is only prepared: then it stays. So do a start and a stop asked for while it is being suspended.
4. An exit is an event only where the instance was up (`started`, `suspending`). While it is starting, the exit is the
   reason of `START_FAILED`; while it is stopping, it is what `GONE` waits for.
5. Whoever comes back from anything but `suspended` has a new incarnation: its memory is lost.

Also here, because they are as pure: the back-off after failed starts and the two-sided rule of health checks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final, assert_never

from gateway.core.model import State

# --- the state table -------------------------------------------------------------------


class Event(StrEnum):
    """What happened to an instance, as its agent saw it. A closed set."""

    START_ASKED = "start-asked"
    READY = "ready"
    """Its port is open and the app's checks pass."""
    START_FAILED = "start-failed"
    """The driver refused, it exited, or it was not ready within the limit. Nothing of it runs any more."""
    STOP_ASKED = "stop-asked"
    GONE = "gone"
    """A stop is complete: no process of it is left."""
    EXITED = "exited"
    """It ended by itself, with success."""
    CRASHED = "crashed"
    """It ended by itself, with a failure, or somebody else killed it."""
    SUSPEND_ASKED = "suspend-asked"
    FROZEN = "frozen"
    """A suspend is complete."""
    STAYED = "stayed"
    """A stop or suspend that was prepared did not take place: somebody wanted it, or not all gateways agreed."""
    SNAPSHOT_LOST = "snapshot-lost"
    """What was suspended cannot be resumed: its next start is a cold one."""
    ADOPTED = "adopted"
    """It runs already and was not started from here: a static address, or found at the agent's own start."""


TRANSITIONS: Final = MappingProxyType(
    {
        (State.CREATED, Event.START_ASKED): State.STARTING,
        (State.CREATED, Event.ADOPTED): State.STARTED,
        (State.STARTING, Event.READY): State.STARTED,
        (State.STARTING, Event.START_FAILED): State.FAILED,
        (State.STARTING, Event.STOP_ASKED): State.STOPPING,
        (State.STARTED, Event.STOP_ASKED): State.STOPPING,
        (State.STARTED, Event.EXITED): State.STOPPED,
        (State.STARTED, Event.CRASHED): State.FAILED,
        (State.STARTED, Event.SUSPEND_ASKED): State.SUSPENDING,
        (State.STOPPING, Event.GONE): State.STOPPED,
        (State.STOPPING, Event.STAYED): State.STARTED,
        (State.STOPPED, Event.START_ASKED): State.STARTING,
        (State.STOPPED, Event.ADOPTED): State.STARTED,
        (State.FAILED, Event.START_ASKED): State.STARTING,
        (State.FAILED, Event.ADOPTED): State.STARTED,
        (State.SUSPENDING, Event.FROZEN): State.SUSPENDED,
        (State.SUSPENDING, Event.STAYED): State.STARTED,
        (State.SUSPENDING, Event.EXITED): State.STOPPED,
        (State.SUSPENDING, Event.CRASHED): State.FAILED,
        (State.SUSPENDED, Event.START_ASKED): State.STARTING,
        (State.SUSPENDED, Event.STOP_ASKED): State.STOPPING,
        (State.SUSPENDED, Event.SNAPSHOT_LOST): State.STOPPED,
    }
)

TRANSIENT: Final = frozenset({State.STARTING, State.STOPPING, State.SUSPENDING})
"""States that end by themselves; every other one lasts until something is asked or happens."""


class ImpossibleEvent(Exception):
    """The agent reported an event that cannot happen in this state: a bug of the agent."""

    def __init__(self, state: State, event: Event) -> None:
        possible = ", ".join(sorted(known.value for at, known in TRANSITIONS if at is state))
        super().__init__(
            f"event {event.value!r} cannot happen to an instance that is {state.value}; possible: {possible}"
        )
        self.state = state
        self.event = event


def step(state: State, event: Event) -> State:
    """Return the state that `event` leads to.

    Raises:
        ImpossibleEvent: the pair is not in the table.
    """
    following = TRANSITIONS.get((state, event))
    if following is None:
        raise ImpossibleEvent(state, event)
    return following


# --- what asking means -----------------------------------------------------------------


class StartPlan(Enum):
    """What to do when a start is asked for."""

    RUNNING = auto()
    """Answer at once: it is started."""
    JOIN = auto()
    """A start is under way: share its outcome."""
    WAIT = auto()
    """A stop or suspend is under way: wait for its end, then ask again."""
    BEGIN = auto()


class StopPlan(Enum):
    """What to do when a stop is asked for."""

    DOWN = auto()
    """Nothing of it runs: success."""
    JOIN = auto()
    """A stop is under way: share its outcome."""
    CANCEL = auto()
    """A start is under way: end it, then it is stopped."""
    WAIT = auto()
    """It is being suspended: wait for the end of that, then ask again."""
    BEGIN = auto()


def plan_start(state: State) -> StartPlan:
    """Every state has an answer; asking twice starts once."""
    match state:
        case State.STARTED:
            return StartPlan.RUNNING
        case State.STARTING:
            return StartPlan.JOIN
        case State.STOPPING | State.SUSPENDING:
            return StartPlan.WAIT
        case State.CREATED | State.STOPPED | State.FAILED | State.SUSPENDED:
            return StartPlan.BEGIN
        case _:
            assert_never(state)


def plan_stop(state: State) -> StopPlan:
    """Every state has an answer; stopping what is absent is success."""
    match state:
        case State.CREATED | State.STOPPED | State.FAILED:
            return StopPlan.DOWN
        case State.STOPPING:
            return StopPlan.JOIN
        case State.STARTING:
            return StopPlan.CANCEL
        case State.SUSPENDING:
            return StopPlan.WAIT
        case State.STARTED | State.SUSPENDED:
            return StopPlan.BEGIN
        case _:
            assert_never(state)


# --- back-off after failed starts ------------------------------------------------------

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 30.0
SETTLED_S: Final = 10.0
"""A crash sooner than this after `started` counts as a failed start: an app that opens its port and dies must not be
started again by every request."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The memory of failed starts: until `until_s` another start is refused with the last reason."""

    failures: int = 0
    until_s: float = 0.0

    def left_s(self, now_s: float) -> float:
        """Seconds until a start is allowed; 0 when it is now."""
        return max(0.0, self.until_s - now_s)

    def failed(self, now_s: float, dice: float) -> Backoff:
        """One more failure: 1 s, doubling to 30 s, each shortened by up to a quarter so that many do not retry at once.

        `dice` is a random number in [0, 1).
        """
        # The exponent is bounded too: 2.0 ** 1100 would overflow.
        full_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self.failures, 16))
        return Backoff(self.failures + 1, now_s + full_s * (1.0 - dice / 4.0))


def counts_as_failed_start(up_s: float) -> bool:
    """Whether a crash after `up_s` seconds of being started is held against the next start."""
    return up_s < SETTLED_S


# --- health ----------------------------------------------------------------------------

FAILURES_TO_FALL: Final = 2
"""Consecutive failures of one check that take an instance out of placement. One lost packet does not."""


@dataclass(frozen=True, slots=True)
class Health:
    """What one check has taught about one incarnation.

    Unknown counts as healthy: an instance takes sessions until a check has failed twice in a row, and a failure within
    `grace_s` of `since_s` says only that it is still warming up. One success makes it healthy again.
    """

    since_s: float
    grace_s: float
    failures: int = 0

    @property
    def healthy(self) -> bool:
        return self.failures < FAILURES_TO_FALL

    def passed(self) -> Health:
        return replace(self, failures=0)

    def failed(self, now_s: float) -> Health:
        if now_s < self.since_s + self.grace_s:
            return self
        return replace(self, failures=min(self.failures + 1, FAILURES_TO_FALL))
