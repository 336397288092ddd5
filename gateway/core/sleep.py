"""Which instances are put to sleep, and why the others stay up.

Theory. An instance that serves nobody costs money; one that is stopped under somebody's hands costs trust. So an
instance sleeps only if it is *idle*, which is about this instance alone, and *spare*, which is about the others.

*Idle.* A driver can start it again, and traffic would: `startable`, `auto_start`, not held down. Nobody needs it: no
request in flight, no open stream (one counts only under `idle_streams = "count"`), no lease that keeps it awake, and,
where a stop would end them, no session used within `session_idle`. Nothing happened for `idle_after` at any gateway,
and it has been up for `idle_grace`: who deploys has a moment to come back. What is cordoned finishes what it has and is
stopped by who cordoned it; nothing here touches or counts it.

*Spare.* Fly, "Autostop/autostart": per app and region, `excess = running - (at or over soft + 1)`; while it is 1 or
more, one is stopped in each pass; the last one only if it carries nothing. The +1 is the room for the next request
while the others are full. While none is at its soft limit it changes nothing but the last one: what carries something
stays by being needed, and has room. So it counts only while one is at soft, and a region in which all are idle goes
down to nothing. Over the whole app, `min_running` stay: started, healthy, not cordoned.

Unlike Fly's, an open stream or a session below `soft` protects its instance.

What is unhealthy is no room for anybody: it counts neither as running nor for `min_running`, and sleeps if it is idle.
Such ones first, then those that are idle for longest, then by id: at most one per region and pass, so that what a stop
brings about is seen before the next. All decisions follow from the facts given. More load never makes more sleep: it
takes idle ones away and lowers the excess.

*Agreed.* The facts are as old as the gateways' messages. So a choice is a proposal: the instance's agent takes it out
of routing, and it sleeps once every live gateway says that it knows and carries nothing (`agreed`). See
docs/adr/0016-stops-are-agreed.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from gateway.core.model import App, AppTable, AutoStop, IdleStreams, Instance, State
from gateway.core.presence import NEVER_S, NOTHING, Carried, Key, Lease, Said


class Reason(StrEnum):
    """Why an instance is up. The first that applies, in this order."""

    AUTO_STOP_OFF = "auto_stop is off"
    AUTO_START_OFF = "auto_start is off: it would not come back"
    NOT_STARTABLE = "a plain address: nobody here starts or stops it"
    HELD_DOWN = "an operator stops it"
    CORDONED = "cordoned: it finishes what it has"
    REQUESTS = "requests in flight"
    STREAMS = "open streams"
    SESSIONS = "sessions"
    KEPT_AWAKE = "kept awake by"
    JUST_STARTED = "just started"
    USED = "used a moment ago"
    UNSEEN = "not watched for long enough"
    """It was up before the gateways began to watch: it may have been used, or have sessions, without anyone knowing."""
    MIN_RUNNING = "min_running"
    SPARE = "the app's one spare"


class Why(NamedTuple):
    reason: Reason
    name: str = ""
    """Of the lease."""

    def __str__(self) -> str:
        return f"{self.reason} {self.name}" if self.name else str(self.reason)


class Sleep(NamedTuple):
    """Put this one to sleep, in the life that it is in."""

    instance: Instance
    rest: AutoStop
    """STOP or SUSPEND."""


def choose(
    table: AppTable,
    carried: Mapping[Key, Carried],
    leases: Iterable[Lease],
    up_s: Mapping[str, float],
    watched_s: float = NEVER_S,
) -> Sequence[Sleep]:
    """The instances to put to sleep in this pass: at most one per region. The facts are those of `why_up`."""
    why = why_up(table, carried, leases, up_s, watched_s)
    fit = [table.instances[id] for id, reason in why.items() if reason is None]
    fit.sort(key=lambda one: (one.healthy, -_idle_s(one, carried, up_s), one.id))
    room = len(table.placeable) - table.app.min_running
    chosen: dict[str, Sleep] = {}
    for one in fit:
        if one.region in chosen or (one.healthy and room <= 0):
            continue
        chosen[one.region] = Sleep(one, table.app.auto_stop)
        room -= one.healthy
    return list(chosen.values())


def why_up(
    table: AppTable,
    carried: Mapping[Key, Carried],
    leases: Iterable[Lease],
    up_s: Mapping[str, float],
    watched_s: float = NEVER_S,
) -> dict[str, Why | None]:
    """Why each running instance is up; None for one that sleeps in this pass or in one of the next.

    Args:
        carried: what all live gateways carry together; what is missing carries nothing.
        leases: the live ones; those of other apps do not matter.
        up_s: by id, for how long it has been started: NEVER_S for what was up when it was first seen; what is missing
            has just been started.
        watched_s: for how long all that happened at any gateway is known here. A gateway that ends without a word
            takes with it what it knew.
    """
    app = table.app
    names: dict[str, str] = {}
    for lease in sorted(leases, key=lambda lease: (-lease.left_s, lease.name)):
        if lease.app == app.name:
            names.setdefault(lease.id, lease.name)
    why = {
        one.id: _needed(app, one)
        or _in_use(app, carried.get((app.name, one.id), NOTHING), app.auto_stop)
        or (Why(Reason.KEPT_AWAKE, names[one.id]) if one.id in names else None)
        or _recent(app, carried.get((app.name, one.id), NOTHING), up_s.get(one.id, 0.0), watched_s)
        for one in table.instances.values()
        if one.running
    }
    excess = _excess(table, carried)
    floor = len(table.placeable) <= app.min_running
    for one in table.placeable:
        if why[one.id] is None and (floor or excess[one.region] <= 0):
            why[one.id] = Why(Reason.MIN_RUNNING if floor else Reason.SPARE)
    return why


def agreed(app: App, prepared: Instance, all_said: Iterable[Said | None]) -> bool:
    """Whether every live gateway knows that this instance is going to sleep, and nothing there holds it up.

    Args:
        prepared: as its agent answered the preparation, with the token in `sleep`.
        all_said: one for each live gateway, this one's own among them; None for one that cannot be understood.
    """
    # An agent that cannot suspend prepares a stop.
    rest = AutoStop.SUSPEND if prepared.state is State.SUSPENDING else AutoStop.STOP
    said = list(all_said)
    return bool(said and prepared.sleep) and all(
        one is not None and _agrees(app, one.carried.get((prepared.app, prepared.id), NOTHING), prepared.sleep, rest)
        for one in said
    )


def _agrees(app: App, carried: Carried, token: str, rest: AutoStop) -> bool:
    return carried.sleep == token and _in_use(app, carried, rest) is None


# --- idle ------------------------------------------------------------------------------


def _needed(app: App, instance: Instance) -> Why | None:
    """Why its sleep is not for us to choose."""
    if app.auto_stop is AutoStop.OFF:
        return Why(Reason.AUTO_STOP_OFF)
    if not app.auto_start:
        return Why(Reason.AUTO_START_OFF)
    if not instance.startable:
        return Why(Reason.NOT_STARTABLE)
    if instance.held_down:
        return Why(Reason.HELD_DOWN)
    return Why(Reason.CORDONED) if instance.cordoned else None


def _in_use(app: App, carried: Carried, rest: AutoStop) -> Why | None:
    """What of this a sleep would end."""
    if carried.requests:
        return Why(Reason.REQUESTS)
    if carried.streams and app.idle_streams is IdleStreams.COUNT:
        return Why(Reason.STREAMS)
    return Why(Reason.SESSIONS) if carried.sessions and _ends_sessions(app, rest) else None


def _recent(app: App, carried: Carried, up_s: float, watched_s: float) -> Why | None:
    """Whether it was needed so lately that it may be again."""
    if up_s < app.idle_grace_s:
        return Why(Reason.JUST_STARTED)
    if carried.idle_s < app.idle_after_s:
        return Why(Reason.USED)
    sessions_s = app.session_idle_s if _ends_sessions(app, app.auto_stop) else 0.0
    unseen = watched_s < up_s and watched_s < max(app.idle_after_s, sessions_s)
    return Why(Reason.UNSEEN) if unseen else None


def _ends_sessions(app: App, rest: AutoStop) -> bool:
    """Whether sessions are lost in this sleep."""
    return rest is not AutoStop.SUSPEND and not app.sessions_survive_stop


def _idle_s(instance: Instance, carried: Mapping[Key, Carried], up_s: Mapping[str, float]) -> float:
    """For how long nothing happened to it. What was never used is idle since its start."""
    return min(carried.get((instance.app, instance.id), NOTHING).idle_s, up_s.get(instance.id, 0.0))


# --- spare -----------------------------------------------------------------------------


def _excess(table: AppTable, carried: Mapping[Key, Carried]) -> dict[str, int]:
    """By region: how many could be missed there, whatever they do."""
    app = table.app
    running: defaultdict[str, int] = defaultdict(int)
    full: defaultdict[str, int] = defaultdict(int)
    for one in table.placeable:
        load = carried.get((app.name, one.id), NOTHING)
        counted = load.load if app.idle_streams is IdleStreams.COUNT else load.requests
        running[one.region] += 1
        full[one.region] += counted >= app.concurrency.soft
    return {region: count - full[region] - (full[region] > 0) for region, count in running.items()}
