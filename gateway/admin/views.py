"""Instances and apps as JSON: the names of the Fly Machines API where it has them, the record's otherwise."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.admin.carried import in_all, live_leases, live_sessions
from gateway.admin.needs import Admin
from gateway.agent.base import Listed
from gateway.core.bodies import app_body
from gateway.core.model import AppTable, Instance
from gateway.core.presence import Lease
from gateway.core.record import RecordKind
from gateway.core.sleep import Reason, Why
from gateway.data.load import Load

SLEEPS_SOON = "nothing: it sleeps soon"
_WEAKER = frozenset({Reason.JUST_STARTED, Reason.USED, Reason.UNSEEN, Reason.MIN_RUNNING, Reason.SPARE})
"""Than a lease, which comes before them in `gateway.core.sleep`."""


def app_view(table: AppTable) -> dict[str, object]:
    """An app with its settings and how many instances are in which state."""
    states = Counter(instance.state.value for instance in table.instances.values())
    settings = app_body(table.app)
    return {
        "name": table.app.name,
        "hosts": settings.pop("hosts"),
        "path": settings.pop("path"),
        "machines": len(table.instances),
        "placeable": len(table.placeable),
        "states": dict(sorted(states.items())),
        "settings": settings,
    }


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of an app's instances besides their records, read once for a whole list. All by their ids."""

    admin: Admin
    listed: Mapping[str, Listed]
    """What the agent says of its own."""
    loads: Mapping[str, Load]
    sessions: Mapping[str, int]
    """Sessions seen here."""
    live: Mapping[str, int]
    """Those of them that are used."""
    why: Mapping[str, Why | None]
    """Why each running one is up; None for one that sleeps soon."""
    leases: Mapping[str, Sequence[Lease]] | None
    """What keeps them awake; None while the store is away."""


async def knowledge(admin: Admin, app: str) -> Knowledge:
    """What is known of an app's instances."""
    listed = {one.instance.id: one for one in await admin.agent.list() if one.instance.app == app}
    leases = await live_leases(admin, app)
    gateway = admin.gateway
    table = gateway.catalog.app(app)
    return Knowledge(
        admin,
        listed,
        {id: load for (of_app, id), load in gateway.loads.items() if of_app == app},
        Counter(session.pin.instance for session in gateway.sessions if session.home == app),
        Counter(session.pin.instance for session in live_sessions(gateway, table)) if table is not None else {},
        admin.sleeper.why(table) if table is not None else {},
        _by_id(leases) if leases is not None else None,
    )


def machine_view(instance: Instance, known: Knowledge) -> dict[str, object]:
    """One instance: its record, and what this gateway knows besides."""
    admin = known.admin
    record = admin.gateway.catalog.record(f"{RecordKind.INSTANCE}/{instance.app}/{instance.id}")
    load, own = known.loads.get(instance.id), known.listed.get(instance.id)
    reason = own.reason if own is not None else record.body.get("reason") if record is not None else ""
    requests, streams, sessions = in_all(admin, instance, load, known.live.get(instance.id, 0))
    return {
        "id": instance.id,
        "app": instance.app,
        "state": instance.state.value,
        "region": instance.region,
        "instance_id": instance.incarnation,
        "address": str(instance.address) if instance.address is not None else None,
        "cordoned": instance.cordoned,
        "healthy": instance.healthy,
        "held_down": instance.held_down,
        "startable": instance.startable,
        "suspect": admin.gateway.loads.suspect(instance),
        "requests": load.requests if load is not None else 0,
        "streams": load.streams if load is not None else 0,
        "sessions": known.sessions.get(instance.id, 0),
        "requests_all": requests,
        "streams_all": streams,
        "sessions_all": sessions,
        "up_because": _up_because(instance, known),
        "leases": None if known.leases is None else [lease.name for lease in known.leases.get(instance.id, ())],
        "reason": reason if isinstance(reason, str) else "",
        "retry_after_s": round(own.retry_after_s, 3) if own is not None else 0.0,
        "detail": own.detail if own is not None else "",
        "owner": instance.owner,
        "record": None
        if record is None
        else {"writer": record.writer, "epoch": record.epoch, "counter": record.counter},
    }


def _up_because(instance: Instance, known: Knowledge) -> str:
    if not instance.running or instance.id not in known.why:
        return ""
    why = known.why[instance.id]
    leases = known.leases.get(instance.id) if known.leases is not None else None
    if leases and (why is None or why.reason in _WEAKER):
        # Only the sleeper that leads reads the leases, and only when it looks at the app.
        why = Why(Reason.KEPT_AWAKE, max(leases, key=lambda lease: lease.left_s).name)
    return str(why) if why is not None else SLEEPS_SOON


def _by_id(leases: Sequence[Lease]) -> Mapping[str, Sequence[Lease]]:
    by_id = defaultdict[str, list[Lease]](list)
    for lease in leases:
        by_id[lease.id].append(lease)
    return by_id
