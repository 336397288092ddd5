"""Traces: for some requests, what was decided and why, step by step. For people; nothing routes by them.

Kept are one of every SAMPLE_EVERY requests, those that were replayed (up to a bound per second) and those that were
asked for: a request with a token of this gateway's in `moorage-trace`. A trace holds no header's value and no query.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, assert_never

from gateway.core.ask import LookUpPin
from gateway.core.decision import Forward, Refuse, Wait, Wake

if TYPE_CHECKING:
    from gateway.core.head import RequestHead
    from gateway.core.problems import Problem
    from gateway.data.routing import Routing, Step

HEADER = b"moorage-trace"
SAMPLE_EVERY = 1024
MAX_KEPT = 2000
MAX_EVENTS = 64
MAX_TOKENS = 100
MAX_REPLAYED_PER_SWEEP = 100

Told = str | int | float | dict[str, str]


class Event(NamedTuple):
    """One step of a request."""

    at_ms: float
    """Since the trace began."""
    step: str
    """decide, connect, retry, replay, fall back, reinitialise, problem or answer."""
    told: dict[str, Told]


class Trace:
    """One request's steps."""

    __slots__ = ("_begun_ns", "_last", "at_s", "events", "host", "method", "path", "request_id")

    def __init__(self, request_id: bytes, head: RequestHead) -> None:
        self.request_id = request_id.decode("ascii")
        self.at_s = time.time()  # noqa: TID251 - said to people
        """When it began, in seconds since 1970: with the request's head, or with its first replay."""
        self._begun_ns = time.monotonic_ns()
        self.method = head.method.decode("ascii")
        self.host = head.host
        self.path = head.path.decode("ascii")
        self.events: list[Event] = []
        self._last: Step | None = None

    def note(self, step: str, **told: Told) -> None:
        if len(self.events) < MAX_EVENTS:
            at_ms = round((time.monotonic_ns() - self._begun_ns) / 1e6, 3)
            self.events.append(Event(at_ms, step, {key: value for key, value in told.items() if value != ""}))

    def decided(self, step: Step, routing: Routing) -> None:
        """What is to be done next with the request. A step may be told twice on its way; it is noted once."""
        if step is self._last:
            return
        self._last = step
        app, way = routing.app, _way(routing)
        match step:
            case Forward(instance, rule):
                self.note("decide", action="forward", app=app, instance=instance.id, rule=rule.value, **way)
            case Wake(instance, rule):
                self.note("decide", action="wake", app=app, instance=instance.id, rule=rule.value, **way)
            case Wait(rule, waited):
                name = waited.id if waited is not None else ""
                self.note("decide", action="wait", app=app, instance=name, rule=rule.value, **way)
            case Refuse(problem):
                told = problem.message
                self.note("decide", action="refuse", app=app, instance=problem.instance, code=problem.code, why=told)
            case LookUpPin():
                self.note("decide", action="look up pin", app=app)
            case _:
                assert_never(step)

    def problem(self, problem: Problem) -> None:
        """What ended the request, unless the last step says so already."""
        if not self.events or self.events[-1].told.get("code") != problem.code:
            told = problem.message
            self.note("problem", app=problem.app, instance=problem.instance, code=problem.code, why=told)


def _way(routing: Routing) -> dict[str, str]:
    """What the replay caches have to do with a step, and what will be put into them once its target is reached."""
    trip = routing.trip
    if trip is None:
        return {}
    places = trip.remember if routing.gateway.replays.connected() else ()
    remembers = ", ".join("path" if place.by_path else "session" for place, _ in places)
    return {"cache": trip.status.value if trip.status is not None else "", "remembers": remembers}


class Traces:
    """The traces of one gateway, the last MAX_KEPT."""

    __slots__ = ("_kept", "_replayed", "_since_last", "_tokens")

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Trace] = OrderedDict()
        self._tokens: OrderedDict[bytes, None] = OrderedDict()
        self._since_last = 0
        self._replayed = 0

    def __len__(self) -> int:
        return len(self._kept)

    def sample(self, request_id: bytes, head: RequestHead) -> Trace | None:
        """A trace for this request, if it is its turn or was asked for."""
        self._since_last += 1
        if self._since_last < SAMPLE_EVERY and not (self._tokens and self._is_asked_for(head)):
            return None
        self._since_last = 0
        return self._begin(request_id, head)

    def replayed(self, request_id: bytes, head: RequestHead) -> Trace | None:
        """A trace for a request that turned out to be replayed, unless many were in this second."""
        self._replayed += 1
        return self._begin(request_id, head) if self._replayed <= MAX_REPLAYED_PER_SWEEP else None

    def get(self, request_id: str) -> Trace | None:
        return self._kept.get(request_id)

    def latest(self) -> list[Trace]:
        """What is kept, the newest first."""
        return list(reversed(self._kept.values()))

    def token(self) -> str:
        """For the `moorage-trace` header of one request."""
        token = secrets.token_hex(16)
        self._tokens[token.encode()] = None
        if len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        return token

    def sweep(self) -> None:
        """Once a second."""
        self._replayed = 0

    def _is_asked_for(self, head: RequestHead) -> bool:
        token = head.values.get(HEADER)
        if token is None or token not in self._tokens:
            return False
        del self._tokens[token]
        return True

    def _begin(self, request_id: bytes, head: RequestHead) -> Trace:
        trace = Trace(request_id, head)
        self._kept[trace.request_id] = trace
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return trace
