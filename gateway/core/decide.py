"""Where a request goes: the first rule that applies, over one immutable table.

Order: force header, pin (sealed or stored), affinity cookie, prefer header, consistent hash of a key, least
loaded. A pin binds: its request goes to the one instance that has the session's memory, or is refused. The rules
below it are wishes, and fail over. Load limits decide where something new is placed; they never move a pin.
A replay asks in the same words: what its app names takes the place of the client's headers, and of the pin.
Deterministic: equally loaded instances take turns, the first turns by id. Nothing here waits; `Wake` and `Wait` say
what to wait for.
"""

from __future__ import annotations

from typing import assert_never

from gateway.core.decision import Ask, Decision, Forward, Refuse, View, Wait, Wake
from gateway.core.model import App, AppTable, Instance, Kind, Pin, Rule, State
from gateway.core.problems import Code, Problem

RETRY_AFTER_S = 2
"""Told with 503s that a moment may cure. No SDK retries by itself; people and load balancers read it."""

_LOST: dict[Kind, tuple[Code, str]] = {
    Kind.LEGACY_POST: (Code.PS04, "the stream's instance is gone"),
    Kind.TASK: (Code.PS06, "the task's instance is gone"),
}
_SESSION_LOST = (Code.PS02, "the session's instance is gone or has lost its memory")


def decide(table: AppTable, ask: Ask, view: View) -> Decision:
    """Where a request goes now. Decide again after a Wake or a Wait, and after an instance could not be reached."""
    if ask.force:
        return _forced(table, ask, view)
    pin = ask.pin
    if pin is not None:
        instance = table.instances.get(pin.instance)
        # The way of almost every request: a live session on a running instance.
        if (
            instance is not None
            and instance.state is State.STARTED
            and instance.address is not None
            and (instance.incarnation == pin.incarnation or table.app.sessions_survive_stop)
            and not ask.exclude
        ):
            hard = table.app.concurrency.hard
            if hard is not None and view.hard_load(instance) >= hard:
                return Wait(ask.pin_rule, instance)
            return Forward(instance, ask.pin_rule)
        if ask.intent.kind is not Kind.STATE or not _is_lost(table.app, instance, pin):
            return _pinned(table.app, ask, instance, pin, view)
        # A requestState may be readable by every instance; the one that cannot read it says so.
    return _placed(table, ask, view)


def _forced(table: AppTable, ask: Ask, view: View) -> Decision:
    """fly-force-instance-id, or a replay's `instance`: that instance or none."""
    app, pin = table.app, ask.pin
    if pin is not None and pin.instance != ask.force and ask.intent.kind is not Kind.STATE:
        # Only the session's own instance could answer; any other would say that there is no such session.
        message = "fly-force-instance-id names another instance than the session's"
        return Refuse(Problem(Code.PS05, message, app.name, pin.instance))
    instance = table.instances.get(ask.force)
    if instance is None:
        who = "the replay" if ask.replayed else "fly-force-instance-id"
        return Refuse(Problem(Code.PR02, f"{who} names no instance of app {app.name}", app.name))
    if pin is not None and ask.intent.kind is not Kind.STATE:
        return _pinned(app, ask, instance, pin, view)
    if not _is_asked_for(ask, instance):
        message = f"the instance is in region {instance.region}, which the request rules out"
        return Refuse(Problem(Code.PR01, message, app.name, instance.id))
    return _to(app, ask, instance, view, ask.replayed or Rule.FORCE)


def _is_asked_for(ask: Ask, instance: Instance) -> bool:
    """Whether the instance is in one of the regions that the request names, if it names any."""
    return not ask.regions or any(place is None or instance.region in place for place in ask.regions)


def _is_lost(app: App, instance: Instance | None, pin: Pin) -> bool:
    """Whether it is certain that the pin's memory is no more.

    Only what the catalog proves counts: one 404 too early unplugs some clients for the rest of their life.
    """
    if instance is None:
        return True
    if app.sessions_survive_stop:
        return False
    if instance.incarnation != pin.incarnation:
        return not _is_ahead(app, instance, pin)
    match instance.state:
        case State.CREATED | State.STOPPED | State.FAILED:
            return True
        case State.STARTING | State.STARTED | State.STOPPING | State.SUSPENDING | State.SUSPENDED:
            return False
        case _:
            assert_never(instance.state)


def _is_ahead(app: App, instance: Instance, pin: Pin) -> bool:
    """Whether the pin names a later life than the catalog does: its record is still on its way here.

    Incarnations of instances that a driver starts sort by time (`gateway.agent.incarnations`); a later one can only
    have been sealed by a gateway that knew it.
    """
    return instance.startable and not app.sessions_survive_stop and pin.incarnation > instance.incarnation


def _pinned(app: App, ask: Ask, instance: Instance | None, pin: Pin, view: View) -> Decision:
    """A pin's one instance, or the refusal that says whether it may come back."""
    if instance is None or _is_lost(app, instance, pin):
        code, message = _LOST.get(ask.intent.kind, _SESSION_LOST)
        return Refuse(Problem(code, message, app.name, pin.instance))
    if instance.id not in ask.exclude and _is_ahead(app, instance, pin):
        return Wait(ask.pin_rule, instance)
    return _to(app, ask, instance, view, ask.pin_rule)


def _to(app: App, ask: Ask, instance: Instance, view: View, rule: Rule) -> Decision:
    """This instance and no other, in whatever state it is."""
    if instance.id in ask.exclude:
        message = "the one instance that can take this request cannot be reached"
        return Refuse(Problem(Code.PS07, message, app.name, instance.id, RETRY_AFTER_S))
    if instance.running:
        return Wait(rule, instance) if _at_hard(app, instance, view) else Forward(instance, rule)
    # Who is starting comes up whoever started it; `started` without an address is about to have one.
    if instance.state in (State.STARTING, State.STARTED) or _may_wake(app, instance):
        return Wake(instance, rule)
    message = "stopped by an operator" if instance.held_down else f"{instance.state}, and traffic may not start it"
    return Refuse(Problem(Code.PM08, f"the instance is {message}", app.name, instance.id, RETRY_AFTER_S))


def _placed(table: AppTable, ask: Ask, view: View) -> Decision:
    """No pin: what the request wishes for, else where there is room."""
    if ask.cookie is not None:
        wished = _wish(table, ask, ask.cookie.instance, view, Rule.COOKIE)
        if wished is not None:
            return wished
    if ask.prefer:
        wished = _wish(table, ask, ask.prefer, view, ask.replayed or Rule.PREFER)
        if wished is not None:
            return wished
    if ask.regions:
        return _by_region(table, ask, view)
    return _within(table, ask, view, None)


def _by_region(table: AppTable, ask: Ask, view: View) -> Decision:
    """The first place of the list that can take it now; a full one is waited for when no other can."""
    full: Wait | None = None
    for place in ask.regions:
        decision = _within(table, ask, view, place)
        if isinstance(decision, Forward | Wake):
            return decision
        if isinstance(decision, Wait):
            full = full or decision
    return full or _nowhere(table, ask)


def _within(table: AppTable, ask: Ask, view: View, place: frozenset[str] | None) -> Decision:
    """Where there is room, in these regions; None is anywhere."""
    return _hashed(table, ask, view, place) if ask.key else _least_loaded(table, ask, view, place)


def _wish(table: AppTable, ask: Ask, instance_id: str, view: View, rule: Rule) -> Decision | None:
    """The wished-for instance if it is fit to serve, else None."""
    app = table.app
    instance = table.instances.get(instance_id)
    if instance is None or _is_out(ask, instance, None) or not _is_asked_for(ask, instance):
        return None
    # A cordon keeps new sessions out, not what already lives there.
    if instance.cordoned and (rule is not Rule.COOKIE or ask.intent.kind is Kind.INITIALIZE):
        return None
    if instance.running:
        fit = instance.healthy and not view.suspect(instance) and not _at_hard(app, instance, view)
        return Forward(instance, rule) if fit else None
    return Wake(instance, rule) if _may_wake(app, instance) and instance.state is not State.FAILED else None


def _hashed(table: AppTable, ask: Ask, view: View, place: frozenset[str] | None) -> Decision:
    """The first fit instance in the key's own order: suspects and failures last, none at its hard limit."""
    app = table.app
    last_resort: Instance | None = None
    full = False
    for instance in view.rank(table, ask.key):
        if _is_out(ask, instance, place):
            continue
        if instance.running:
            if _at_hard(app, instance, view):
                full = True
                continue
            if not view.suspect(instance):
                return Forward(instance, Rule.HASH)
        elif not _may_wake(app, instance):
            continue
        elif instance.state is not State.FAILED:
            return Wake(instance, Rule.HASH)
        last_resort = last_resort or instance
    if last_resort is not None:
        return Forward(last_resort, Rule.HASH) if last_resort.running else Wake(last_resort, Rule.HASH)
    return Wait(Rule.HASH) if full else _nowhere(table, ask)


def _least_loaded(table: AppTable, ask: Ask, view: View, place: frozenset[str] | None) -> Decision:
    """Below soft in the own region, below soft anywhere, one more instance woken, below hard; else wait.

    Fly, "Load balancing": soft limits spread, hard limits queue; "Autostop/autostart": when all are at their soft
    limit, one more is started.
    """
    app = table.app
    soft = app.concurrency.soft
    best: Instance | None = None
    best_rank = (3, 0, 0, 0)
    full = False
    for instance in table.placeable:
        if _is_out(ask, instance, place):
            continue
        if _at_hard(app, instance, view):
            full = True
            continue
        load = view.load(instance)
        away = int(instance.region != table.region)
        # A session may weigh nothing between its requests: without turns, all of them would be made at one instance.
        turn = view.turn(instance)
        if view.suspect(instance):
            rank = (2, load, away, turn)
        elif load >= soft:
            rank = (1, load, away, turn)
        else:
            rank = (0, away, load, turn)
        if rank < best_rank:
            best, best_rank = instance, rank
    if best is not None and best_rank[0] == 0:
        return Forward(best, Rule.LEAST_LOADED)
    asleep = _to_wake(table, ask, place)
    if asleep is not None:
        return Wake(asleep, Rule.LEAST_LOADED)
    if best is not None:
        return Forward(best, Rule.LEAST_LOADED)
    return Wait(Rule.LEAST_LOADED) if full else _nowhere(table, ask)


def _to_wake(table: AppTable, ask: Ask, place: frozenset[str] | None) -> Instance | None:
    """The next instance to start: own region first, what failed last, else in id order."""
    if not table.app.auto_start:
        return None
    candidates = (one for one in table.wakeable if not _is_out(ask, one, place))
    return min(candidates, key=lambda one: (one.state is State.FAILED, one.region != table.region), default=None)


def _nowhere(table: AppTable, ask: Ask) -> Refuse:
    app = table.app
    if ask.exclude:
        problem = Problem(Code.PR03, "none of its instances could be reached", app.name, "", RETRY_AFTER_S)
    else:
        where = " in the regions that were asked for" if ask.regions and None not in ask.regions else ""
        message = f"it has no instance that runs, is healthy and is not cordoned{where}, and none that may be started"
        problem = Problem(Code.PR01, message, app.name, "", RETRY_AFTER_S)
    return Refuse(problem)


def _is_out(ask: Ask, instance: Instance, place: frozenset[str] | None) -> bool:
    """Whether it was tried already, or is not where it is looked for."""
    return instance.id in ask.exclude or (place is not None and instance.region not in place)


def _may_wake(app: App, instance: Instance) -> bool:
    return app.auto_start and instance.wakeable


def _at_hard(app: App, instance: Instance, view: View) -> bool:
    hard = app.concurrency.hard
    return hard is not None and view.hard_load(instance) >= hard
