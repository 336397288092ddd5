"""Where a lost session begins anew: an instance is chosen as for any new session, and the handshake made there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final, NamedTuple, Protocol, assert_never

import structlog

from gateway.core.decide import RETRY_AFTER_S, decide
from gateway.core.decision import Forward, Refuse, Wait, Wake
from gateway.core.model import App, Instance, Pin, Rule
from gateway.core.problems import Code, Problem
from gateway.core.recording import Binding, Recording
from gateway.data.carrying import Lost
from gateway.data.state import Gateway
from gateway.lifecycle.reinitialise import Handshakes, Opened, Unopened, Why

MAX_INSTANCES: Final = 20
"""How many are tried for one session, as with a request."""

logger = structlog.get_logger(__name__)


class Waking(Protocol):
    async def ensure(self, app: App, instance: Instance) -> Instance | Problem: ...


class Queueing(Protocol):
    async def wait(self, app: App, instance: str, deadline_s: float) -> Problem | None: ...


class Begun(NamedTuple):
    """A new session at an instance, not yet anybody's."""

    instance: Instance
    opened: Opened
    binding: Binding


class Beginnings:
    """Makes the new sessions of one gateway."""

    def __init__(self, gateway: Gateway, waker: Waking, slots: Queueing) -> None:
        self._gateway = gateway
        self._waker = waker
        self._slots = slots
        self._handshakes = Handshakes()

    async def begin(self, lost: Lost, recording: Recording) -> Begun | Binding | Problem | None:
        """A session on the first instance that makes one.

        A binding without an id: the request itself is to go there, and will be told what is wrong with its credentials.
        None: the session cannot begin anew.
        """
        excluded, reason = lost.ask.exclude, ""
        for _ in range(MAX_INSTANCES):
            placed = await self._place(lost, excluded)
            if placed is None or isinstance(placed, Problem):
                nobody = isinstance(placed, Problem) and placed.code in (Code.PR01, Code.PR03)
                return untaken(lost, reason) if nobody and reason else placed
            opened = await self._open(lost, placed, recording)
            pin = Pin(placed.id, placed.incarnation, lost.pin.app, lost.pin.via)
            if isinstance(opened, Opened):
                return Begun(placed, opened, Binding(pin, opened.session_id))
            reason = f"instance {placed.id} did not take the session: {opened.reason}"
            logger.info("lost session not taken", app=lost.key[0], session=lost.name, at=placed.id, why=opened.reason)
            if opened.made is not None:
                self.end(lost, Begun(placed, opened.made, Binding(pin, opened.made.session_id)))
            match opened.why:
                case Why.UNREACHED:
                    self._gateway.loads.failed(placed.app, placed.id)
                    excluded |= {placed.id}
                case Why.CHALLENGED:
                    return Binding(pin, b"")
                case Why.REFUSED:
                    return None
                case Why.FAILED:
                    break
                case _:
                    assert_never(opened.why)
        return untaken(lost, reason)

    def end(self, lost: Lost, begun: Begun) -> None:
        """End a session that nobody will use. Nobody waits for that."""
        assert begun.instance.address is not None
        self._gateway.spawn(self._handshakes.close(begun.instance.address, lost.shown, begun.opened))

    async def aclose(self) -> None:
        await self._handshakes.aclose()

    async def _place(self, lost: Lost, excluded: frozenset[str]) -> Instance | Problem | None:
        """A running instance for something new; None when the app is gone."""
        deadline_s = asyncio.get_running_loop().time() + lost.app.wake_timeout_s
        while (table := self._gateway.catalog.app(lost.app.name)) is not None:
            decision = decide(table, replace(lost.ask, exclude=excluded), self._gateway.loads)
            match decision:
                case Forward(instance, rule):
                    if rule is Rule.LEAST_LOADED:
                        self._gateway.loads.placed(instance)
                    return instance
                case Wake(instance, _):
                    return await self._waker.ensure(table.app, instance)
                case Wait(_, wanted):
                    who = wanted.id if wanted is not None else ""
                    problem = await self._slots.wait(table.app, who, deadline_s)
                    if problem is not None:
                        return problem
                case Refuse(problem):
                    return problem
                case _:
                    assert_never(decision)
        return None

    async def _open(self, lost: Lost, instance: Instance, recording: Recording) -> Opened | Unopened:
        """The handshake, which is load like any request."""
        loads = self._gateway.loads
        load = loads.of(instance.app, instance.id)
        load.requests += 1
        try:
            assert instance.address is not None
            return await self._handshakes.open(instance.address, lost.shown, recording)
        finally:
            load.requests -= 1
            load.last_s = self._gateway.now_s
            loads.freed(instance.app, instance.id)


def untaken(lost: Lost, reason: str, code: Code = Code.PS07) -> Problem:
    """Why the session has no instance, though it may have one soon."""
    return Problem(code, reason, lost.app.name, lost.pin.instance, RETRY_AFTER_S)
