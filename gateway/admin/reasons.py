"""Why an instance was chosen or passed over, in words. Pure: reads a table, a question and the loads of the moment.

The decision itself is `gateway.core.decide`'s; what is said here follows its order and never decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, assert_never

from gateway.core.ask import Asked
from gateway.core.model import (
    App,
    AppTable,
    Ask,
    Decision,
    Forward,
    Instance,
    Refuse,
    Rule,
    State,
    View,
    Wait,
    Wake,
)


class Step(NamedTuple):
    """One rule of the order of decisions, and what came of it."""

    rule: Rule
    outcome: str


class Other(NamedTuple):
    """An instance that was not chosen."""

    instance: Instance
    why: str


def deciding_rule(decision: Decision, ask: Ask) -> Rule:
    """The rule that settled it; a refusal names none itself."""
    if isinstance(decision, Forward | Wake | Wait):
        return decision.rule
    if ask.force:
        return Rule.FORCE
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


def steps(table: AppTable, asked: Asked, rule: Rule, view: View) -> Iterator[Step]:
    """The order of decisions, up to the rule that settled it and beyond."""
    ask, app = asked.ask, table.app
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
            yield Step(one, _passed_over(one, app, table, asked, view))


def _passed_over(rule: Rule, app: App, table: AppTable, asked: Asked, view: View) -> str:
    ask = asked.ask
    match rule:
        case Rule.FORCE:
            return "no fly-force-instance-id" if app.steering else "steering is off for this app"
        case Rule.SEALED | Rule.STORED:
            if ask.pin is not None:
                return f"pinned to {ask.pin.instance}, whose memory is gone; any instance may read a requestState"
            return "the request carries no session that pins it"
        case Rule.REPLAY_CACHE:
            return "no replay is remembered for the request"
        case Rule.REPLAY:
            return "only an app's answer can ask for it"
        case Rule.COOKIE:
            if not app.affinity_cookie:
                return "no affinity cookie for this app"
            if asked.cookie_fault is not None:
                return f"the affinity cookie does not hold: {asked.cookie_fault.value}"
            return _wish(table, ask.cookie.instance, view) if ask.cookie is not None else "no affinity cookie came"
        case Rule.PREFER:
            if not app.steering:
                return "steering is off for this app"
            return _wish(table, ask.prefer, view) if ask.prefer else "no fly-prefer-instance-id"
        case Rule.HASH:
            return "none of the app's keys came" if app.key else "the app has no `key`"
        case Rule.LEAST_LOADED:
            return "not reached"
        case _:
            assert_never(rule)


def _wish(table: AppTable, id: str, view: View) -> str:
    """Why a wished-for instance was not taken."""
    instance = table.instances.get(id)
    if instance is None:
        return f"names {id[:64]}, which is no instance of this app"
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
        case Rule.FORCE:
            return f"fly-force-instance-id names {ask.force[:64]}"
        case Rule.SEALED | Rule.STORED:
            if ask.pin is not None and ask.pin.instance == instance.id:
                return "the request is pinned to it, but it cannot take it"
            return f"the request is pinned to {ask.pin.instance}" if ask.pin is not None else "the request is pinned"
        case Rule.REPLAY | Rule.REPLAY_CACHE:
            return "the replay names another"
        case Rule.COOKIE:
            return "the affinity cookie names another"
        case Rule.PREFER:
            return "fly-prefer-instance-id names another"
        case Rule.HASH:
            return unfit(table.app, instance, view) or "later in this key's order"
        case Rule.LEAST_LOADED:
            return unfit(table.app, instance, view) or _less_apt(table, instance, taken, view)
        case _:
            assert_never(rule)


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
