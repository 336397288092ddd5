"""The slow path: the Starlette application behind the public listener.

It is given the exchanges that must wait: for a pin from the pin store, for an instance to wake, for a free slot. It
awaits, lets the exchange decide again, and hands it back; it never touches a byte of request or answer.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from gateway.core.ask import LookUpPin
from gateway.core.decide import RETRY_AFTER_S
from gateway.core.decision import Forward, Refuse, Wait, Wake
from gateway.core.model import App, Instance, Kind, Pin
from gateway.core.problems import Code, Problem
from gateway.core.recording import Binding
from gateway.data import carrying, early
from gateway.data.carrying import Lost, Reinitialise
from gateway.data.exchange import Exchange
from gateway.data.punt import EXTENSION
from gateway.data.routing import Step
from gateway.log.base import LogUnavailable


class Waking(Protocol):
    async def ensure(self, app: App, instance: Instance, *, doubted: bool = False) -> Instance | Problem:
        """Make the instance run; the instance as it runs, or why it does not. `doubted`: its record says that it runs
        at an address where nothing answers."""


class Queueing(Protocol):
    async def wait(self, app: App, instance: str, deadline_s: float) -> Problem | None:
        """Wait for a free slot on this instance, or on any for an empty name."""


class FindingPins(Protocol):
    async def get(self, app: str, kind: str, key: bytes) -> Pin | None:
        """The pin of a key; raises LogUnavailable."""


class CarryingOver(Protocol):
    async def carry(self, lost: Lost) -> Binding | Problem | None:
        """Where the session lives now, or why it cannot be told; None: it is lost."""


class SlowPath:
    """The ASGI endpoint for every punted exchange."""

    def __init__(self, waker: Waking, slots: Queueing, pins: FindingPins, carrier: CarryingOver | None = None) -> None:
        self._waker = waker
        self._slots = slots
        self._pins = pins
        self._carrier = carrier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["extensions"][EXTENSION]
        async with asyncio.TaskGroup() as tasks:
            keepalive = tasks.create_task(self._keep_alive(exchange))
            step = await self._settle(exchange)
            keepalive.cancel()
        exchange.go(step)

    async def _keep_alive(self, exchange: Exchange) -> None:
        """As long as the request is held."""
        every_s = _app(exchange).wake_keepalive_s
        while every_s:
            await asyncio.sleep(every_s)  # noqa: TID251 - the very thing that is asked for
            early.keep_waiting(exchange)

    async def _settle(self, exchange: Exchange) -> Forward | Refuse:
        """Wait for whatever must be waited for, until there is a decision to carry out."""
        step = exchange.step
        assert step is not None
        deadline_s = self._deadline_s(exchange)
        while not isinstance(step, Forward):
            if isinstance(step, LookUpPin):
                step = await self._look_up(exchange, step)
            elif isinstance(step, Wake):
                step = await self._wake(exchange, step)
            elif isinstance(step, Wait):
                problem = await self._wait(exchange, step, deadline_s)
                step = exchange.routing.decide() if problem is None else Refuse(problem)
            elif isinstance(step, Reinitialise):
                step = await self._carry_over(exchange, step, deadline_s)
            else:
                other = exchange.retreat(step.problem)
                if other is None:
                    return step
                if not isinstance(other, Reinitialise):
                    deadline_s = self._deadline_s(exchange)
                step = other
        return step

    def _deadline_s(self, exchange: Exchange) -> float:
        """How long the request may be held, by its target's app."""
        return asyncio.get_running_loop().time() + _app(exchange).wake_timeout_s

    async def _wait(self, exchange: Exchange, step: Wait, deadline_s: float) -> Problem | None:
        wanted = step.instance.id if step.instance is not None else ""
        return await self._slots.wait(_app(exchange), wanted, deadline_s)

    async def _look_up(self, exchange: Exchange, step: LookUpPin) -> Step:
        app = _app(exchange).name
        try:
            pin = await self._pins.get(app, step.kind, step.key)
        except LogUnavailable as error:
            if step.kind is Kind.IN_SESSION:
                return Refuse(Problem(Code.PG04, f"the pin store cannot be read: {error}", app, "", 1))
            # Tasks and retries then go by their principal, as they would before the pin was made.
            pin = None
        return exchange.routing.found(pin)

    async def _wake(self, exchange: Exchange, step: Wake) -> Step:
        app = _app(exchange)
        doubted = exchange.attempts.doubted is step.instance
        woken = await self._waker.ensure(app, step.instance, doubted=doubted)
        if isinstance(woken, Problem):
            return Refuse(woken)
        await exchange.gateway.lot.attached(woken.app, woken.id)
        pin = exchange.routing.ask.pin if exchange.routing.ask is not None else None
        if pin is not None and pin.incarnation != woken.incarnation:
            # It came back without its memory, or keeps it on disk.
            return exchange.routing.decide()
        hard = app.concurrency.hard
        if hard is None or exchange.gateway.loads.hard_load(woken) < hard:
            # Who waited for this instance goes to it; deciding anew could send it on to wake the next one.
            return Forward(woken, step.rule)
        return exchange.routing.decide()

    async def _carry_over(self, exchange: Exchange, step: Reinitialise, deadline_s: float) -> Step:
        routing, outcome = exchange.routing, None
        try:
            async with asyncio.timeout_at(deadline_s):
                outcome = await self._carrier.carry(carrying.lost(exchange)) if self._carrier is not None else None
        except TimeoutError:
            message = f"the session could not begin anew within {_app(exchange).wake_timeout_s:g} s"
            outcome = Problem(Code.PS07, message, routing.app, step.problem.instance, RETRY_AFTER_S)
        if isinstance(outcome, Binding):
            return routing.rebind(outcome)
        # Whatever it is, it is not tried again.
        routing.rounds = carrying.MAX_ROUNDS
        return Refuse(outcome or step.problem)


def _app(exchange: Exchange) -> App:
    """The app whose instance the request goes to."""
    table = exchange.routing.table
    assert table is not None
    return table.app


def application(waker: Waking, slots: Queueing, pins: FindingPins, carrier: CarryingOver | None = None) -> Starlette:
    """The application that uvicorn and the edge are given. Without a carrier, what is lost is lost."""
    return Starlette(routes=[Mount("/", app=SlowPath(waker, slots, pins, carrier))])
