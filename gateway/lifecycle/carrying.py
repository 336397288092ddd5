"""Carrying lost sessions over: a session whose instance is gone begins anew on another one, under its client's id.

One handshake at a time for a session, however many of its requests wait; of several gateways, the one that binds the
session first decides where it lives. See docs/adr/0017-lost-sessions-are-initialised-anew.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final, Protocol

import structlog

from gateway.core.decide import decide
from gateway.core.decision import Refuse
from gateway.core.model import Pin
from gateway.core.problems import Code, Problem
from gateway.core.record import RecordKind
from gateway.core.recording import Binding, Recorded
from gateway.data.bindings import Key
from gateway.data.carrying import Lost
from gateway.data.state import Gateway
from gateway.lifecycle.beginning import Beginnings, Begun, untaken
from gateway.lifecycle.holds import Holds
from gateway.log.base import LogUnavailable

MAX_LOSSES: Final = 3
"""How often another gateway may be faster, and its instance be lost again."""
CATCH_UP_S: Final = 2.0
"""How long a binding's instance may be one that the catalog here has not heard of."""

logger = structlog.get_logger(__name__)

Outcome = Binding | Problem | None
"""Where a session lives now; why that cannot be told; None: it is lost."""


class Store(Protocol):
    """What is used of the recorded sessions (`gateway.log.recordings`). All raise LogUnavailable."""

    async def get(self, app: str, key: bytes) -> Recorded | None: ...

    async def bind(self, app: str, key: bytes, before: Recorded, binding: Binding) -> Recorded | None: ...

    async def delete(self, app: str, key: bytes) -> None: ...


class Carrier:
    """One gateway's."""

    def __init__(self, gateway: Gateway, store: Store, beginnings: Beginnings, holds: Holds) -> None:
        self._gateway = gateway
        self._store = store
        self._beginnings = beginnings
        self._holds = holds
        self._under_way: dict[Key, asyncio.Task[None]] = {}
        self._told: dict[Key, asyncio.Future[Outcome]] = {}

    async def carry(self, lost: Lost) -> Outcome:
        """Where the session lives now, within the app's `wake_timeout`.

        May be cancelled freely: what was begun goes on, for the others and for the next request.
        """
        refusal = self._holds.enter(lost.app)
        if refusal is not None:
            return refusal
        try:
            told = self._told.get(lost.key)
            if told is None:
                if not lost.handshake:
                    return await self._end(lost)
                told = self._told[lost.key] = asyncio.get_running_loop().create_future()
                task = self._under_way[lost.key] = self._gateway.spawn(self._begin(lost, told))
                task.add_done_callback(lambda _: self._over(lost, told))
            return await asyncio.shield(told)
        finally:
            self._holds.leave(lost.app)

    def close(self) -> None:
        """Give up what is under way: who waits gets a problem. Idempotent."""
        for task in self._under_way.values():
            task.cancel()

    async def _begin(self, lost: Lost, told: asyncio.Future[Outcome]) -> None:
        outcome: Outcome
        try:
            async with asyncio.timeout(lost.app.wake_timeout_s):
                outcome = await self._anew(lost)
        except TimeoutError:
            outcome = untaken(lost, f"the session could not begin anew within {lost.app.wake_timeout_s:g} s")
        except LogUnavailable as error:
            outcome = untaken(lost, f"the recorded session cannot be read or bound: {error}", Code.PG04)
        if isinstance(outcome, Binding) and outcome.upstream_id:
            self._gateway.bindings.put(lost.key, outcome)
        told.set_result(outcome)

    def _over(self, lost: Lost, told: asyncio.Future[Outcome]) -> None:
        del self._under_way[lost.key], self._told[lost.key]
        if not told.done():
            told.set_result(untaken(lost, "beginning the session anew was given up", Code.PG02))

    async def _anew(self, lost: Lost) -> Outcome:
        recorded = await self._store.get(*lost.key)
        if recorded is None:
            _log("lost session not recorded", lost)
            return None
        for _ in range(MAX_LOSSES):
            if recorded.binding is not None and await self._lives(lost, recorded.binding):
                return recorded.binding
            begun = await self._beginnings.begin(lost, recorded.recording)
            if not isinstance(begun, Begun):
                return begun
            try:
                bound = await self._store.bind(*lost.key, recorded, begun.binding)
            except LogUnavailable:
                self._beginnings.end(lost, begun)
                raise
            if bound is not None and bound.binding == begun.binding:
                self._gateway.counters.sessions_reinitialised[lost.key[0]] += 1
                _log("lost session began anew", lost, at=begun.instance.id)
                return begun.binding
            self._beginnings.end(lost, begun)
            if bound is None:
                _log("lost session ended meanwhile", lost)
                return None
            recorded = bound
        return untaken(lost, "wherever the session begins anew, it is lost again")

    async def _end(self, lost: Lost) -> Outcome:
        """For a request that ends the session: no handshake is made for that."""
        try:
            async with asyncio.timeout(lost.app.wake_timeout_s):
                recorded = await self._store.get(*lost.key)
                binding = recorded.binding if recorded is not None else None
                if binding is not None and await self._lives(lost, binding):
                    return binding
                # Or a later request would begin it anew after its end.
                await self._store.delete(*lost.key)
        except (LogUnavailable, TimeoutError) as error:
            return untaken(lost, f"the recorded session cannot be read or deleted: {error}", Code.PG04)
        self._gateway.bindings.drop(lost.key)
        return None

    async def _lives(self, lost: Lost, binding: Binding) -> bool:
        """Whether the session is where the store says, and not lost there too."""
        name, pin = lost.app.name, binding.pin
        if (pin.app or lost.key[0]) != name:
            return False
        await self._heard_of(name, pin)
        table = self._gateway.catalog.app(name)
        if table is None:
            return False
        ask = replace(lost.ask, pin=pin, force="", exclude=frozenset())
        decision = decide(table, ask, self._gateway.loads)
        return not (isinstance(decision, Refuse) and decision.problem.code is Code.PS02)

    async def _heard_of(self, app: str, pin: Pin) -> None:
        """Another gateway may have bound the session to an instance whose record is still on its way here."""
        catalog, news = self._gateway.catalog, asyncio.Event()
        record = f"{RecordKind.INSTANCE}/{app}/{pin.instance}"
        unsubscribe = catalog.subscribe(lambda _: news.set())
        try:
            async with asyncio.timeout(CATCH_UP_S):
                while catalog.record(record) is None:
                    news.clear()
                    await news.wait()
        except TimeoutError:
            logger.warning("a session's instance is not known here", app=app, instance=pin.instance)
        finally:
            unsubscribe()


def _log(event: str, lost: Lost, **more: str) -> None:
    logger.info(event, app=lost.key[0], session=lost.name, instance=lost.pin.name, **more)
