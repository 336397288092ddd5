"""How this gateway stands: itself, its catalog, and the two questions that supervisors and load balancers ask."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer
from gateway.admin.asking import Query, no_query
from gateway.admin.needs import Admin, FollowerState

MAX_LISTED = 1000


class Status:
    """/v1/gateways, /v1/catalog, /healthz and /readyz."""

    def __init__(
        self,
        admin: Admin,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - since when, for people
    ) -> None:
        self._admin = admin
        self._wall_clock = wall_clock

    async def gateways(self, request: Request) -> Response:
        """This gateway. Others answer for themselves."""
        no_query(request)
        admin, gateway = self._admin, self._admin.gateway
        return answer(
            {
                "gateways": [
                    {
                        "id": admin.id,
                        "self": True,
                        "boot": gateway.boot,
                        "region": gateway.region,
                        "version": admin.version,
                        "started_at_s": round(admin.started_at_s, 3),
                        "up_s": round(max(0.0, self._wall_clock() - admin.started_at_s), 3),
                        "connections": len(gateway.edges),
                        "requests_in_flight": in_flight(admin),
                        "streams": len(gateway.streams),
                        "held": sum(admin.holds.held.values()),
                        "sessions": len(gateway.sessions),
                        "ready": not self._why_not_ready(),
                        "draining": gateway.draining,
                    }
                ]
            }
        )

    async def catalog(self, request: Request) -> Response:
        query = Query(request)
        limit = query.whole("limit", 100, 1, MAX_LISTED)
        query.done()
        catalog = self._admin.gateway.catalog
        quarantined = catalog.quarantined()
        return answer(
            {
                "region": catalog.region,
                "digest": catalog.digest(),
                "counts": dataclasses.asdict(catalog.counts()),
                "logs": [self._log(follower.state()) for follower in self._admin.followers],
                "applying": catalog.applying,
                "last_applied": catalog.last_applied,
                "quarantined_total": catalog.quarantined_total,
                "quarantined": [
                    {"name": one.name, "log": one.source, "reason": one.reason, "seen": one.seen}
                    for one in quarantined[-limit:]
                ],
            }
        )

    async def healthz(self, request: Request) -> Response:
        """That this is answered says it: the event loop turns."""
        return answer({"ok": True})

    async def readyz(self, request: Request) -> Response:
        why = self._why_not_ready()
        return answer({"ready": not why, "why": why}, 503 if why else 200)

    def _why_not_ready(self) -> list[str]:
        gateway = self._admin.gateway
        why = [
            f"the log {state.source} was not read yet{': ' if state.last_error else ''}{state.last_error}"
            for follower in self._admin.followers
            if (state := follower.state()).age_s is None
        ]
        if not why and not gateway.ready:
            why.append("the catalog is being put in order")
        if gateway.draining:
            why.append("the gateway is draining")
        return why

    def _log(self, state: FollowerState) -> dict[str, object]:
        return {
            "log": state.source,
            "where": state.where,
            "connected": state.connected,
            "generation": state.generation,
            "position": state.position,
            "age_s": round(state.age_s, 3) if state.age_s is not None else None,
            "resyncs": state.resyncs,
            "holding": state.holding,
            "last_error": state.last_error,
            "digest": self._admin.gateway.catalog.digest(state.source),
        }


def in_flight(admin: Admin) -> int:
    """Requests that are being served."""
    return sum(1 for edge in admin.gateway.edges if edge.exchange is not None)
