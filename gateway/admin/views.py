"""Instances and apps as JSON: the names of the Fly Machines API where it has them, the record's otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.admin.needs import Admin
from gateway.agent.base import Listed
from gateway.core.bodies import app_body
from gateway.core.model import AppTable, Instance
from gateway.core.record import RecordKind
from gateway.data.load import Load
from gateway.data.state import Gateway


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
    """What is known of an app's instances besides their records, read once for a whole list."""

    gateway: Gateway
    listed: Mapping[str, Listed]
    """What the agent says of its own."""
    loads: Mapping[str, Load]
    sessions: Mapping[str, int]
    """Sessions seen here."""


async def knowledge(admin: Admin, app: str) -> Knowledge:
    """What is known of an app's instances, by their ids."""
    gateway = admin.gateway
    return Knowledge(
        gateway,
        {one.instance.id: one for one in await admin.agent.list() if one.instance.app == app},
        {id: load for (of_app, id), load in gateway.loads.items() if of_app == app},
        Counter(session.pin.instance for session in gateway.sessions if session.home == app),
    )


def machine_view(instance: Instance, known: Knowledge) -> dict[str, object]:
    """One instance: its record, and what this gateway knows besides."""
    record = known.gateway.catalog.record(f"{RecordKind.INSTANCE}/{instance.app}/{instance.id}")
    load, own = known.loads.get(instance.id), known.listed.get(instance.id)
    reason = own.reason if own is not None else record.body.get("reason") if record is not None else ""
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
        "suspect": known.gateway.loads.suspect(instance),
        "requests": load.requests if load is not None else 0,
        "streams": load.streams if load is not None else 0,
        "sessions": known.sessions.get(instance.id, 0),
        "reason": reason if isinstance(reason, str) else "",
        "retry_after_s": round(own.retry_after_s, 3) if own is not None else 0.0,
        "detail": own.detail if own is not None else "",
        "owner": instance.owner,
        "record": None
        if record is None
        else {"writer": record.writer, "epoch": record.epoch, "counter": record.counter},
    }
