"""Why an instance was chosen or passed over, in words. Pure: reads a table, a question and the loads of the moment.

The decision itself is `gateway.core.decide`'s; what is said here follows its order and never decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, assert_never

from gateway.core.ask import Asked
from gateway.core.decision import Ask, Decision, Forward, Refuse, View, Wait, Wake
from gateway.core.model import App, AppTable, Instance, Pin, ReplayRule, Rule, State
from gateway.core.remembered import Entry


class Step(NamedTuple):
    """One rule of the order of decisions, and what came of it."""

    rule: Rule
    outcome: str


class Looked(NamedTuple):
    """What a look into the replay caches brought, where it decided nothing."""

    resting: bool = False
    """Nothing is used or remembered while the other gateways cannot be heard."""
    skipped: bool = False
    """The client asked to skip what is remembered, and may."""
    dropped: bool = False
    """What was remembered could not be used, and is dropped now."""
    lacking: ReplayRule | None = None
    """The session rule that the request falls under, when it carries no such cookie or header."""


class Other(NamedTuple):
    """An instance that was not chosen."""

    instance: Instance
    why: str


def deciding_rule(decision: Decision, ask: Ask) -> Rule:
    """The rule that settled it; a refusal names none itself."""
    if isinstance(decision, Forward | Wake | Wait):
        return decision.rule
    if ask.force:
        return ask.replayed or Rule.FORCE
    if ask.pin is not None:
        return ask.pin_rule
    return Rule.HASH if ask.key else Rule.LEAST_LOADED


def chosen(decision: Decision) -> Instance | None:
    match decision:
        case Forward() | Wake() | Wait():
            return decision.instance
        case Refuse():
            return None
        case _:
            assert_never(decision)


def steps(app: App, table: AppTable, asked: Asked, rule: Rule, view: View, looked: Looked) -> Iterator[Step]:
    """The order of decisions, up to the rule that settled it and beyond.

    Args:
        app: the app that the request addresses.
        table: of the app whose instance it goes to.
    """
    ask = asked.ask
    pin_rule = Rule.STORED if ask.pin is not None and ask.pin_rule is Rule.STORED else Rule.SEALED
    order = (Rule.FORCE, pin_rule, Rule.REPLAY_CACHE, Rule.COOKIE, Rule.PREFER, Rule.HASH, Rule.LEAST_LOADED)
    reached = True
    for one in order:
        if one is rule:
            yield Step(one, "decides")
            reached = False
        elif not reached:
            yield Step(one, "not reached")
        else:
            yield Step(one, _passed_over(one, app, table, asked, view, looked))


def _passed_over(rule: Rule, app: App, table: AppTable, asked: Asked, view: View, looked: Looked) -> str:
    ask = asked.ask
    match rule:
        case Rule.FORCE:
            return "no fly-force-instance-id" if app.steering else "steering is off for this app"
        case Rule.SEALED | Rule.STORED:
            return _unpinned(ask.pin)
        case Rule.REPLAY_CACHE:
            return _not_remembered(ask, looked)
        case Rule.REPLAY:
            return "an app asks for it in its answer; nothing was answered yet"
        case Rule.COOKIE:
            if not app.affinity_cookie:
                return "no affinity cookie for this app"
            if asked.cookie_fault is not None:
                return f"the affinity cookie does not hold: {asked.cookie_fault.value}"
            return _wish(table, ask, ask.cookie.instance, view) if ask.cookie is not None else "no affinity cookie came"
        case Rule.PREFER:
            if not app.steering:
                return "steering is off for this app"
            return _wish(table, ask, ask.prefer, view) if ask.prefer else "no fly-prefer-instance-id"
        case Rule.HASH:
            return "none of the app's keys came" if app.key else "the app has no `key`"
        case Rule.LEAST_LOADED:
            return "not reached"
        case _:
            assert_never(rule)


def _unpinned(pin: Pin | None) -> str:
    """Why a pin did not decide."""
    if pin is None:
        return "the request carries no session that pins it"
    if pin.via:
        return f"pinned to {home(pin)} by way of its app, which is asked first"
    return f"pinned to {home(pin)}, whose memory is gone; any instance may read a requestState"


def _not_remembered(ask: Ask, looked: Looked) -> str:
    """Why no replay cache decided."""
    if ask.pin is not None:
        return "not looked into for a request with a pin"
    if looked.resting:
        return "the caches rest while the catalog's store is away"
    if looked.skipped:
        return "the client skips the cache"
    if looked.dropped:
        return "what was remembered cannot be used: it is dropped, and the app is asked"
    if looked.lacking is not None:
        return f"the request carries no `{looked.lacking.name}` {looked.lacking.type.value}"
    return "nothing is remembered for this request"


def notes(app: App, asked: Asked, entry: Entry | None, left_s: float) -> Iterator[str]:
    """What replays have to do with a request to `app`; `left_s`: how long the followed entry still lasts."""
    pin = asked.ask.pin
    if pin is not None and pin.via:
        yield f"the session lives on {home(pin)}; app {app.name} is asked first, and its replay leads there"
    elif pin is not None and pin.app:
        yield f"the session lives in app {pin.app}: a replay of app {app.name} made it there"
    if entry is not None:
        by, to = "path" if entry.host else "session", entry.target.app
        yield f"app {app.name} is not asked: its replay to app {to} is remembered by {by}, for {left_s:.0f} s more"


def home(pin: Pin) -> str:
    """A pin's instance, with its app where that is not the addressed one."""
    return f"{pin.app}/{pin.instance}" if pin.app else pin.instance


def _wish(table: AppTable, ask: Ask, id: str, view: View) -> str:
    """Why a wished-for instance was not taken."""
    instance = table.instances.get(id)
    if instance is None:
        return f"names {id[:64]}, which is no instance of this app"
    if _place(ask, instance) is None:
        return f"names {instance.id}, which is {_ruled_out(ask, instance)}"
    return f"names {instance.id}, which is not fit: {unfit(table.app, instance, view) or 'not fit now'}"


def unfit(app: App, instance: Instance, view: View) -> str:
    """What keeps new requests away from an instance; empty for nothing."""
    if instance.cordoned:
        return "cordoned: it takes no new sessions"
    if instance.held_down:
        return "stopped by an operator"
    if not instance.running:
        if instance.state is State.STARTING:
            return "starting"
        if not instance.startable:
            return f"{instance.state.value}, and nothing here can start it"
        if not app.auto_start:
            return f"{instance.state.value}, and auto_start is off"
        return "its last start failed" if instance.state is State.FAILED else ""
    if not instance.healthy:
        return "its checks fail"
    hard = app.concurrency.hard
    if hard is not None and view.hard_load(instance) >= hard:
        return f"at its hard limit: {view.hard_load(instance)} of {hard}"
    return "connections to it failed a moment ago" if view.suspect(instance) else ""


def others(table: AppTable, ask: Ask, decision: Decision, rule: Rule, view: View) -> Iterator[Other]:
    """Every instance but the chosen one, with the reason, in id order."""
    taken = chosen(decision)
    for id in sorted(table.instances):
        instance = table.instances[id]
        if taken is None or instance.id != taken.id:
            yield Other(instance, _why_not(table, ask, instance, taken, rule, view))


def _why_not(table: AppTable, ask: Ask, instance: Instance, taken: Instance | None, rule: Rule, view: View) -> str:
    match rule:
        case Rule.FORCE | Rule.REPLAY | Rule.REPLAY_CACHE | Rule.PREFER:
            who = {Rule.FORCE: "fly-force-instance-id", Rule.PREFER: "fly-prefer-instance-id"}.get(rule, "the replay")
            named = ask.force or ask.prefer
            if named != instance.id:
                return f"{who} names {named[:64]}"
            if _place(ask, instance) is None:
                return _ruled_out(ask, instance)
            return f"{who} names it, but it cannot take the request"
        case Rule.SEALED | Rule.STORED:
            pin = ask.pin
            if pin is not None and pin.instance == instance.id and pin.app in ("", instance.app):
                return "the request is pinned to it, but it cannot take it"
            return f"the request is pinned to {home(pin)}" if pin is not None else "the request is pinned"
        case Rule.COOKIE:
            return "the affinity cookie names another"
        case Rule.HASH:
            return _not_placed(table, ask, instance, taken, view) or "later in this key's order"
        case Rule.LEAST_LOADED:
            return _not_placed(table, ask, instance, taken, view) or _less_apt(table, instance, taken, view)
        case _:
            assert_never(rule)


def _not_placed(table: AppTable, ask: Ask, instance: Instance, taken: Instance | None, view: View) -> str:
    """What keeps a request that names no instance away from one, before its load is looked at; empty for nothing."""
    place = _place(ask, instance)
    if place is None:
        return _ruled_out(ask, instance)
    not_fit = unfit(table.app, instance, view)
    if not_fit or taken is None:
        return not_fit
    before = _place(ask, taken)
    if before is not None and before < place:
        return f"in region {instance.region}; {_who(ask)} asks for {taken.region} first"
    return ""


def _place(ask: Ask, instance: Instance) -> int | None:
    """Where in the order of the regions that are asked for an instance is; None: nowhere."""
    if not ask.regions:
        return 0
    return next((at for at, place in enumerate(ask.regions) if place is None or instance.region in place), None)


def _ruled_out(ask: Ask, instance: Instance) -> str:
    return f"in region {instance.region}, which {_who(ask)} rules out"


def _who(ask: Ask) -> str:
    return "the replay" if ask.replayed is not None else "the request"


def _less_apt(table: AppTable, instance: Instance, taken: Instance | None, view: View) -> str:
    """By the order of `decide`: below soft in the own region, below soft anywhere, one more started, by load."""
    soft = table.app.concurrency.soft
    if not instance.running:
        if taken is not None and not taken.running:
            return "asleep, and later in the order of starting"
        return "asleep: started when all that run are at their soft limit"
    load = view.load(instance)
    if load >= soft:
        return f"at its soft limit: {load} of {soft}"
    if taken is None:
        return "fit"
    if instance.region != table.region and taken.region == table.region:
        return f"in region {instance.region}; the own one comes first"
    more = view.load(taken)
    return f"carries {load}, the chosen one {more}" if load != more else "carries as much, and its turn comes later"
