"""What `explain` says of a decision, as JSON: what would be done, by which rule, and why not otherwise.

The words are in `reasons`.
"""

from __future__ import annotations

from typing import Any, assert_never

from gateway.admin import reasons
from gateway.core.ask import Asked, LookUpPin
from gateway.core.decision import Decision, Forward, Refuse, Wait, Wake
from gateway.core.detour import CacheStatus
from gateway.core.model import App, Instance, Pin, Rule
from gateway.core.problems import TABLE, Problem, status
from gateway.core.regions import ANY, Regions
from gateway.core.remember import rule_for, session_place
from gateway.core.remembered import Entry
from gateway.data.routing import Routing, Step

MAX_OTHERS = 100


def decision(step: Step | None, routing: Routing) -> dict[str, Any]:
    """The request as it was understood, and what would be done with it; `step` None: its body is needed."""
    intent = routing.intent
    told: dict[str, Any] = {
        "app": routing.app,
        "addressed": routing.entered.name if routing.entered is not None else "",
        "kind": intent.kind.value if intent is not None else None,
        "dialect": intent.dialect.value if intent is not None else None,
    }
    if step is None:
        return {**told, **_outcome("read-body", "its JSON-RPC message decides: give `body`")}
    assert not isinstance(step, LookUpPin)
    return {**told, **_done(step, routing)}


def refused(problem: Problem) -> dict[str, Any]:
    """What the client is not told is told here: this is for operators."""
    return {
        **_outcome("refuse", problem.message or TABLE[problem.code].title),
        "instance": problem.instance,
        "code": problem.code.value,
        "status": status(problem),
        "remedy": TABLE[problem.code].remedy,
    }


def reasoning(step: Step, routing: Routing, asked: Asked, *, dropped: bool) -> dict[str, Any]:
    """Which rule settled it, and what was passed over.

    Args:
        asked: what the request asks of the app it addresses.
        dropped: a replay was remembered for it that cannot be used.
    """
    app, table, ask, loads = routing.settled[0], routing.table, routing.ask, routing.gateway.loads
    assert not isinstance(step, LookUpPin)
    assert table is not None
    assert ask is not None
    pin, entry = asked.ask.pin, _entry(routing)
    # Where a cache leads to an app or a region, another rule finds the instance there.
    within = reasons.deciding_rule(step, ask)
    rule = Rule.REPLAY_CACHE if entry is not None else within
    steps = reasons.steps(app, table, asked, rule, loads, _looked(routing, app, dropped=dropped))
    others = list(reasons.others(table, ask, step, within, loads))
    return {
        "rule": rule.value,
        "pin": _pin(pin, app) if pin is not None else None,
        "cached": _cached(entry) if entry is not None else None,
        "regions": _regions(ask.regions),
        "steps": [{"rule": one.rule.value, "outcome": one.outcome} for one in steps],
        "others": [
            {
                "instance": one.instance.id,
                "state": one.instance.state.value,
                "load": loads.load(one.instance),
                "why": one.why,
            }
            for one in others[:MAX_OTHERS]
        ],
        "others_total": len(others),
    }


def notes(routing: Routing, asked: Asked, now_s: float) -> list[str]:
    """What replays and regions have to do with it; `now_s` is wall time."""
    entry, ask = _entry(routing), routing.ask
    left_s = max(0.0, entry.until_s - now_s) if entry is not None else 0.0
    said = list(reasons.notes(routing.settled[0], asked, entry, left_s))
    if ask is not None and ask.regions:
        said.append(f"regions, in order: {'; '.join(map(', '.join, _regions(ask.regions)))}")
    return said


def _done(step: Decision, routing: Routing) -> dict[str, Any]:
    limit_s = routing.table.app.wake_timeout_s if routing.table is not None else 0.0
    match step:
        case Forward(instance, _):
            return _outcome("forward", f"it runs and carries {routing.gateway.loads.load(instance)}", instance)
        case Wake(instance, _):
            why = f"it is {instance.state.value}: the request is held, at most {limit_s:g} s, until it runs"
            return _outcome("wake", why, instance)
        case Wait(_, instance):
            who = "every instance that will do is at the hard limit"
            if instance is not None:
                who = "it is at the hard limit, or in a later life than is known here"
            return _outcome("wait", f"{who}: the request is held, at most {limit_s:g} s", instance)
        case Refuse(problem):
            return refused(problem)
        case _:
            assert_never(step)


def _outcome(action: str, why: str, instance: Instance | None = None) -> dict[str, Any]:
    return {
        "action": action,
        "rule": None,
        "instance": instance.id if instance is not None else "",
        "code": None,
        "status": None,
        "why": why,
        "remedy": "",
    }


def _entry(routing: Routing) -> Entry | None:
    """The remembered replay that is followed, if one is."""
    return routing.trip.entry if routing.trip is not None else None


def _looked(routing: Routing, app: App, *, dropped: bool) -> reasons.Looked:
    head, trip = routing.head, routing.trip
    rule = rule_for(app, head.host, head.path)
    return reasons.Looked(
        resting=not routing.gateway.replays.connected(),
        skipped=trip is not None and trip.status is CacheStatus.BYPASS,
        dropped=dropped,
        lacking=rule if rule is not None and session_place(app, head.host, head.path, head) is None else None,
    )


def _pin(pin: Pin, app: App) -> dict[str, object]:
    return {"app": pin.app or app.name, "instance": pin.instance, "instance_id": pin.incarnation, "via": pin.via}


def _cached(entry: Entry) -> dict[str, object]:
    """A remembered replay, in the words of the replay itself."""
    return {
        "by": "path" if entry.host else "session",
        "app": entry.target.app,
        "instance": entry.target.instance,
        "prefer_instance": entry.target.prefer_instance,
        "region": ",".join(entry.target.regions),
        "until_s": round(entry.until_s, 3),
        "allow_bypass": entry.allow_bypass,
    }


def _regions(regions: Regions) -> list[list[str]]:
    return [sorted(place) if place is not None else [ANY] for place in regions]
