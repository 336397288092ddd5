"""Following replays: from what an app's answer, or a cache, says to the next question about the same request.

Joins `gateway.core.detour` with what this gateway knows. Nothing here waits or touches the connection.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core.ask import key_in
from gateway.core.decision import Ask, Decision, Refuse
from gateway.core.detour import (
    MAX_REPLAYS,
    CacheStatus,
    Form,
    Reason,
    abroad,
    allows,
    back,
    border,
    failed_line,
    question,
    source_line,
    transformed,
)
from gateway.core.headers import client_ip
from gateway.core.model import AppTable, Instance, Pin, Rule
from gateway.core.problems import Code, Problem
from gateway.core.regions import resolve_regions
from gateway.core.remember import Place, Target, path_place, session_place, unkept
from gateway.core.replay import Fallback, Replay
from gateway.core.target import target as target_of
from gateway.data.trip import Trip

if TYPE_CHECKING:
    from gateway.data.routing import Routing

SKIP = b"skip"
"""The value of fly-replay-cache-control."""


def original(routing: Routing) -> Form:
    """The client's own request, as the app it addresses is shown it."""
    app, asked = routing.settled
    return Form(target_of(app, routing.head, asked.ask.intent.kind, asked.stream), routing.head.kept)


# --- replays ---------------------------------------------------------------------------


def follow(routing: Routing, replay: Replay, issuer: Instance, now_s: float) -> Decision:
    """Where a replay sends the request. `issuer`: who asked for it; `now_s`: the loop's clock."""
    home, entered = routing.table, routing.settled[0]
    assert home is not None
    trip = routing.trip
    if trip is None:
        trip = routing.trip = Trip(original(routing))
    problem = _refusal(trip, home, issuer)
    if problem is not None:
        return Refuse(problem)
    name = replay.app or home.app.name
    target = home if name == home.app.name else routing.gateway.catalog.app(name)
    problem = border(home.app, target.app if target is not None else None, name)
    if problem is not None or target is None:
        assert problem is not None
        return Refuse(problem)
    if replay.elsewhere:
        trip.excluded[home.app.name] = trip.excluded.get(home.app.name, frozenset()) | {issuer.id}
    pin = _pin_in(routing, target)
    asked = question(
        replay,
        routing.settled[1].ask.intent,
        issuer,
        target,
        home,
        routing.gateway.groups,
        pin=pin,
        key=_key_in(routing, target),
        exclude=trip.excluded.get(name, frozenset()),
    )
    if isinstance(asked, Problem):
        return Refuse(asked)
    trip.issuer_form = trip.form
    trip.form = _form(routing, trip.form, replay, home, target, in_session=pin is not None)
    trip.remember = _to_remember(routing, trip, replay, home, target)
    trip.hops += 1
    trip.replay, trip.issuer = replay, issuer
    trip.plain = trip.plain and replay.state is None and replay.transform is None
    trip.source = source_line(issuer, time.time_ns() // 1000, replay.state)
    trip.failed = b""
    if trip.status is not CacheStatus.BYPASS:
        trip.status = CacheStatus.MISS
    trip.entry = None
    trip.reached = trip.tried = trip.late = False
    trip.since_s = now_s
    routing.gateway.counters.replays[entered.name, "followed"] += 1
    routing.table, routing.ask = target, asked
    return routing.decide()


def _refusal(trip: Trip, home: AppTable, issuer: Instance) -> Problem | None:
    """Why this request may not be replayed once more."""
    if trip.fell_back:
        message = "the request came back from a replay that failed, and may not be replayed again"
        return Problem(Code.PA03, message, home.app.name, issuer.id)
    if trip.hops >= MAX_REPLAYS:
        return Problem(Code.PA02, f"the request was replayed {MAX_REPLAYS} times", home.app.name, issuer.id)
    return None


def _pin_in(routing: Routing, target: AppTable) -> Pin | None:
    """The session's own instance, if a replay made it and it is one of the target's."""
    app, asked = routing.settled
    pin = asked.ask.pin
    if pin is None or not (pin.app or pin.via):
        return None
    return pin if (pin.app or app.name) == target.app.name else None


def _key_in(routing: Routing, target: AppTable) -> bytes:
    app, asked = routing.settled
    if target.app is app:
        return asked.ask.key
    gateway, head = routing.gateway, routing.head
    caller = gateway.principal(head.values.get(b"authorization"))
    ip = client_ip(head, routing.peer, gateway.trusted_proxies)
    return key_in(target.app, asked.ask.intent, head, principal=caller, client_ip=ip)


def _form(routing: Routing, form: Form, replay: Replay, home: AppTable, target: AppTable, *, in_session: bool) -> Form:
    """What the target is shown: what the issuer was, without credentials abroad, with the replay's transform."""
    if replay.transform is None and target.app.name == routing.settled[0].name:
        return original(routing)
    if target.app.org != home.app.org:
        form = abroad(form)
    if replay.transform is not None:
        form = transformed(form, replay.transform)
    return replace(form, in_session=True) if in_session else form


# --- caches ----------------------------------------------------------------------------


def _to_remember(
    routing: Routing, trip: Trip, replay: Replay, home: AppTable, target: AppTable
) -> tuple[tuple[Place, Target], ...]:
    """What the caches get once the target is reached; drops what the replay invalidates."""
    app, head, replays = routing.settled[0], routing.head, routing.gateway.replays
    order = replay.cache
    if order is not None and order.invalidate:
        replays.invalidate(app, head)
        return ()
    if order is None and not app.replay_cache:
        return ()
    if trip.hops or trip.entry is not None or home.app.name != app.name:
        return ()
    to = Target(target.app.name, replay.instance, replay.prefer_instance, replay.regions)
    places = [session_place(app, head.host, head.path, head)] if app.replay_cache else []
    if order is not None:
        place = path_place(app, head.host, head.path, order)
        why = place if isinstance(place, str) else unkept(replay, place.ttl_s)
        if why:
            routing.gateway.report.unkept(app.name, why)
        elif not isinstance(place, str):
            places.append(place)
    return tuple((place, to) for place in places if place is not None and not unkept(replay, place.ttl_s))


def reached(routing: Routing, trip: Trip) -> None:
    """A connection to the target is open: a replay that may be remembered is, from now on."""
    first = not trip.reached
    trip.arrived()
    app, counts = routing.settled[0], routing.gateway.replays.counts
    if trip.entry is not None and first:
        counts[app.name, "hit"] += 1
    elif trip.status is CacheStatus.BYPASS and not trip.hops:
        counts[app.name, "bypass"] += 1
    if trip.remember:
        for place, to in trip.remember:
            routing.gateway.replays.put(app, routing.head.host, place, to)
        trip.remember = ()


def remembered(routing: Routing) -> Decision | None:
    """Where a cache sends a request that nothing binds; None when its own app is to decide."""
    gateway, head = routing.gateway, routing.head
    app, asked = routing.settled
    entry = gateway.replays.find(app, head)
    if entry is None:
        return None
    if entry.allow_bypass and head.values.get(b"fly-replay-cache-control", b"").lower() == SKIP:
        trip = routing.trip = Trip(original(routing))
        trip.status = CacheStatus.BYPASS
        return None
    target = gateway.catalog.app(entry.target.app)
    home = routing.table
    if target is None or not allows(target.app, app):
        gateway.replays.drop(entry, "unusable")
        return None
    trip = routing.trip = Trip(original(routing))
    trip.status, trip.entry, trip.reached = CacheStatus.HIT, entry, False
    if target.app.org != app.org:
        trip.form = abroad(trip.form)
    routing.table = target
    routing.ask = Ask(
        asked.ask.intent,
        force=entry.target.instance,
        prefer=entry.target.prefer_instance,
        key=_key_in(routing, target),
        regions=resolve_regions(entry.target.regions, gateway.groups),
        replayed=Rule.REPLAY_CACHE,
    )
    decision = routing.decide()
    if isinstance(decision, Refuse):
        gateway.replays.drop(entry, "unusable")
        routing.table, routing.ask, routing.trip = home, asked.ask, None
        return None
    return decision


# --- what did not work -----------------------------------------------------------------


def retreat(routing: Routing, problem: Problem, now_s: float) -> Decision | None:
    """What else can be done with a request whose target was not reached, or None: it fails with the problem."""
    trip = routing.trip
    if trip is None or trip.reached:
        return None
    app, asked = routing.settled
    if trip.entry is not None:
        # A cached target that cannot be used: its app is asked, as if nothing had been remembered.
        routing.gateway.replays.drop(trip.entry, "unusable")
        routing.trip = None
        routing.table, routing.ask = routing.gateway.catalog.app(app.name), asked.ask
        return routing.decide()
    replay, issuer = trip.replay, trip.issuer
    if replay is None or issuer is None or replay.fallback is Fallback.NONE or trip.fell_back:
        return None
    reason = Reason.TIMEOUT if trip.late else Reason.RETRIES_EXHAUSTED if trip.tried else Reason.NO_CANDIDATE
    trip.arrived()
    trip.fell_back, trip.reached = True, False
    trip.form, trip.source, trip.status = trip.issuer_form, b"", None
    trip.failed = failed_line(replay, issuer, reason, round((now_s - trip.since_s) * 1000))
    trip.remember = ()
    routing.gateway.counters.replays[app.name, "fallback"] += 1
    home = routing.gateway.catalog.app(issuer.app)
    if home is None:
        return None
    routing.table, routing.ask = home, back(asked.ask.intent, issuer, replay.fallback)
    return routing.decide()
