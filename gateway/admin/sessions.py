"""The sessions that passed through this gateway, by their digests: listed, and ended here."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import AdminCode, Refusal, answer
from gateway.admin.asking import Query, no_body, no_query
from gateway.admin.needs import Admin
from gateway.data.sessions import Session

MAX_PAGE = 1000


class Sessions:
    """The endpoints under /v1/sessions."""

    def __init__(self, admin: Admin) -> None:
        self._gateway = admin.gateway

    async def list(self, request: Request) -> Response:
        """The most recently used first."""
        query = Query(request)
        limit, offset = query.whole("limit", 100, 1, MAX_PAGE), query.whole("offset", 0, 0, 10_000_000)
        app, instance = query.text("app"), query.text("instance")
        query.done()
        known: Iterable[Session] = reversed(list(self._gateway.sessions))
        if app or instance:
            known = (one for one in known if app in ("", one.app, one.home) and instance in ("", one.pin.instance))
        chosen = list(known)
        return answer(
            {
                "sessions": [self._view(one) for one in chosen[offset : offset + limit]],
                "total": len(chosen),
                "next": offset + limit if len(chosen) > offset + limit else None,
            }
        )

    async def end(self, request: Request) -> Response:
        """Later requests of it get 404 from this gateway; the instance is not told."""
        no_query(request)
        await no_body(request)
        name = request.path_params["name"]
        token = self._gateway.sessions.find(name)
        if token is None:
            raise Refusal(AdminCode.AD03, "there is no session of this name here; GET /v1/sessions lists them")
        self._gateway.sessions.end(token)
        return answer({"ok": True})

    def _view(self, session: Session) -> dict[str, object]:
        now_s = self._gateway.now_s
        return {
            "name": session.name,
            "app": session.app,
            "home": session.home,
            "instance": session.pin.instance,
            "instance_id": session.pin.incarnation,
            "age_s": round(max(0.0, now_s - session.created_s), 1),
            "idle_s": round(max(0.0, now_s - session.last_s), 1),
            "requests": session.requests,
            "streams": session.streams,
            "misroutes": session.misroutes,
        }
