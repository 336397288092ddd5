"""What the way of a request has to do with sessions that begin anew: recording them, and knowing that one is lost.

Which app counts is the one of the session's instance. What is done about a lost session is in
`gateway.lifecycle.carrying`. See docs/adr/0017-lost-sessions-are-initialised-anew.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway.core.ask import session_key
from gateway.core.decision import Ask
from gateway.core.detour import without
from gateway.core.handshake import Shown
from gateway.core.headers import request_lines
from gateway.core.learn import Event, Lesson
from gateway.core.model import App, Kind, OnLost, Pin
from gateway.core.problems import Code, Problem
from gateway.core.recording import Recording, record
from gateway.data.bindings import Key
from gateway.data.detour import original
from gateway.data.sessions import name_of
from gateway.data.trip import Trip
from gateway.log.base import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from gateway.data.exchange import Exchange
    from gateway.data.routing import Routing

MAX_ROUNDS = 3
"""How often one request is carried over: the instance it is to go to may be lost again meanwhile."""
STORE_TIMEOUT_S = 2.0
"""How long an answer is kept back for its session to be recorded, or forgotten."""

log = structlog.get_logger(__name__)


class KeepingRecordings(Protocol):
    """What is used here of the recorded sessions. All raise LogUnavailable."""

    async def put(self, app: str, key: bytes, recording: Recording, ttl_s: float) -> None: ...

    async def delete(self, app: str, key: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Reinitialise:
    """The session is lost with its instance: begin it anew elsewhere, or answer with the problem."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Lost:
    """A session that is to begin anew, and the request that waits for it."""

    key: Key
    name: str
    """In logs."""
    app: App
    """Of the instance that is gone, and of the one that is to take its place."""
    ask: Ask
    pin: Pin
    """The one that is lost."""
    shown: Shown
    handshake: bool
    """Whether one may be made; otherwise only a session that began anew already is of use."""


# --- recording -------------------------------------------------------------------------


def is_carried(exchange: Exchange) -> bool:
    """Whether the app of the instance wants its lost sessions to begin anew."""
    table = exchange.routing.table
    return table is not None and table.app.on_lost is OnLost.REINITIALIZE and exchange.gateway.recordings is not None


def learned(
    exchange: Exchange, lesson: Lesson, status: int, store: Coroutine[object, object, Problem | None] | None
) -> Coroutine[object, object, Problem | None] | None:
    """What is to be awaited before the client sees an answer of such an app; `store` comes first."""
    routing = exchange.routing
    kind = routing.settled[1].ask.intent.kind
    if lesson.event is Event.MADE and lesson.session_id is not None:
        key = _key(routing, lesson.session_id)
        recording = record(exchange.head.values, exchange.body.whole()) if kind is Kind.INITIALIZE else None
        if exchange.session is not None:
            exchange.gateway.bindings.use(key, exchange.session)
        if recording is None:
            log.info("a session is not recorded: its initialize is too long, or none", app=key[0])
            return store
        return _recorded(exchange, store, key, recording)
    if kind is not Kind.IN_SESSION:
        return store
    key = _key(routing)
    if lesson.event is Event.ENDED:
        return _forgotten(exchange, key)
    session, bound = exchange.session, routing.bound
    if session is not None:
        exchange.gateway.bindings.use(key, session)
        if bound is not None:
            session.pin = bound.pin
    if exchange.head.method == b"GET" and status == 200:
        exchange.gateway.bindings.listens(key)
    return store


async def _recorded(
    exchange: Exchange, store: Coroutine[object, object, Problem | None] | None, key: Key, recording: Recording
) -> Problem | None:
    problem = await store if store is not None else None
    recordings = exchange.gateway.recordings
    if problem is None and recordings is not None:
        ttl_s = exchange.routing.settled[0].session_idle_s
        await _bounded(recordings.put(*key, recording, ttl_s), "a session is not recorded", key)
    return problem


async def _forgotten(exchange: Exchange, key: Key) -> None:
    exchange.gateway.bindings.drop(key)
    if exchange.gateway.recordings is not None:
        await _bounded(exchange.gateway.recordings.delete(*key), "an ended session is still recorded", key)


async def _bounded(storing: Awaitable[None], fails: str, key: Key) -> None:
    """A store that is away is no reason to refuse a session, or its end."""
    try:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            await storing
    except (LogUnavailable, TimeoutError) as error:
        log.warning(fails, app=key[0], error=str(error) or "the store did not answer in time")


# --- lost ------------------------------------------------------------------------------


def anew(exchange: Exchange, problem: Problem) -> Reinitialise | None:
    """What else can be done about a problem: begin the session anew, where its app says so and nothing was sent."""
    routing = exchange.routing
    asked = routing.asked
    if problem.code is not Code.PS02 or asked is None or asked.ask.intent.kind is not Kind.IN_SESSION:
        return None
    pin, table = asked.ask.pin, routing.table
    if pin is None or table is None or not is_carried(exchange) or (pin.app or routing.settled[0].name) != routing.app:
        return None
    if exchange.attempts.sent or routing.rounds >= MAX_ROUNDS:
        return None
    routing.rounds += 1
    if exchange.trace is not None:
        exchange.trace.note("reinitialise", app=table.app.name, instance=pin.instance, why=problem.message)
    return Reinitialise(problem)


def lost(exchange: Exchange) -> Lost:
    """The session of an exchange that `anew` answered for."""
    routing, head, gateway = exchange.routing, exchange.head, exchange.gateway
    table, ask, pin = routing.table, routing.ask, routing.settled[1].ask.pin
    assert table is not None
    assert ask is not None
    assert pin is not None
    form = routing.trip.form if routing.trip is not None else original(routing)
    lines = form.kept + request_lines(head, exchange.edge.peer, gateway.trusted_proxies)
    lines += routing.trip.lines() if routing.trip is not None else b""
    lines += b"Fly-Request-Id: %b\r\n" % exchange.request_id
    authority = head.authority if table.app.preserve_host else b""
    token = ask.intent.token
    key, shown = _key(routing), Shown(form.target, lines, authority)
    # The instance that lost it may have been tried in its life before; in the present one it is like any other.
    intent, exclude = replace(ask.intent, kind=Kind.INITIALIZE), ask.exclude - {pin.instance}
    placed = replace(ask, pin=None, intent=intent, exclude=exclude)
    return Lost(key, name_of(token), table.app, placed, pin, shown, head.method != b"DELETE")


def fresh(routing: Routing) -> None:
    """A GET goes to a session that began anew: the first one without an event id, which is of another life."""
    head = routing.head
    if head.method != b"GET" or b"last-event-id" not in head.values:
        return
    if not routing.gateway.bindings.listened(_key(routing)):
        form = routing.trip.form if routing.trip is not None else original(routing)
        form = replace(form, kept=without(form.kept, frozenset({b"last-event-id"})))
        if routing.trip is None:
            routing.trip = Trip(form)
        else:
            routing.trip.form = form


def bound(routing: Routing) -> Key | None:
    """What a session that is lost may be bound by; None where it cannot be."""
    intent = routing.intent
    return _key(routing) if intent is not None and intent.kind is Kind.IN_SESSION and intent.token else None


def _key(routing: Routing, token: bytes | None = None) -> Key:
    app, asked = routing.settled
    caller = routing.gateway.principal(routing.head.values.get(b"authorization"))
    return (app.name, session_key(app, asked.ask.intent.token if token is None else token, caller))
