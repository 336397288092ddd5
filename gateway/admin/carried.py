"""What an instance carries, here at this moment and through the other gateways as they said last; what keeps it awake.

The others' words are about a second old. While the catalog's store is away, or when one of them is not understood,
what they carry is not known: `heard` says so, and the numbers are those that are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.admin.needs import Admin
from gateway.core.model import AppTable, Instance, State
from gateway.core.presence import NOTHING, Lease, Said, is_whole
from gateway.data.load import Load
from gateway.data.sessions import Session
from gateway.data.state import Gateway
from gateway.log.base import LogUnavailable

_FORGETS = frozenset({State.CREATED, State.STOPPED, State.FAILED})


def in_all(admin: Admin, instance: Instance, load: Load | None, sessions: int) -> tuple[int, int, int]:
    """Requests, streams and live sessions of an instance over all gateways.

    Args:
        load: what it carries here.
        sessions: how many of its sessions are live here.
    """
    key = (instance.app, instance.id)
    theirs = [said.carried.get(key, NOTHING) for said in _others(admin)]
    return (
        sum((one.requests for one in theirs), load.requests if load is not None else 0),
        sum((one.streams for one in theirs), load.streams if load is not None else 0),
        sum((one.sessions for one in theirs), sessions),
    )


def heard(admin: Admin) -> bool:
    """Whether all that other gateways carry is known."""
    all_said = admin.presence.all_said
    return bool(all_said) and is_whole(all_said)


def is_alone(admin: Admin) -> bool:
    """Whether no other gateway is live, as far as is known."""
    return all(said is not None and said.gateway == admin.id for said in admin.presence.all_said)


def live_sessions(gateway: Gateway, table: AppTable) -> Iterator[Session]:
    """The sessions seen here that their instances still remember, and that were used within `session_idle`."""
    app = table.app
    for session in gateway.sessions:
        if session.home != app.name or gateway.now_s - session.last_s >= app.session_idle_s:
            continue
        instance = table.instances.get(session.pin.instance)
        if instance is not None and (
            app.sessions_survive_stop
            or (instance.incarnation == session.pin.incarnation and instance.state not in _FORGETS)
        ):
            yield session


async def live_leases(admin: Admin, app: str | None = None) -> Sequence[Lease] | None:
    """What keeps instances awake, of one app or of all; None while the store is away."""
    if not admin.presence.all_said:
        # It was away a second ago: nobody should wait for it.
        return None
    try:
        return await admin.whereabouts.held(app)
    except LogUnavailable:
        return None


def _others(admin: Admin) -> Iterator[Said]:
    return (said for said in admin.presence.all_said if said is not None and said.gateway != admin.id)
