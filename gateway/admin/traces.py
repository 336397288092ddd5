"""/v1/traces: what happened to requests that passed through this gateway, step by step.

Kept are a sample, requests that were replayed, and those that carried a token from here (`gateway.data.traces`).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import AdminCode, Refusal, answer
from gateway.admin.asking import Query, no_body, no_query
from gateway.admin.needs import Admin
from gateway.data.traces import HEADER, Trace

MAX_PAGE = 1000


class Traces:
    """The endpoints."""

    def __init__(self, admin: Admin) -> None:
        self._traces = admin.gateway.traces

    async def traces(self, request: Request) -> Response:
        """What is kept, the newest first."""
        query = Query(request)
        limit, offset = query.whole("limit", 100, 1, MAX_PAGE), query.whole("offset", 0, 0, 10_000_000)
        query.done()
        kept = self._traces.latest()
        return answer(
            {
                "traces": [_view(trace) for trace in kept[offset : offset + limit]],
                "total": len(kept),
                "next": offset + limit if len(kept) > offset + limit else None,
            }
        )

    async def trace(self, request: Request) -> Response:
        no_query(request)
        trace = self._traces.get(request.path_params["id"])
        if trace is None:
            raise Refusal(AdminCode.AD03, "there is no trace of this request here; GET /v1/traces lists them")
        return answer(_view(trace))

    async def trace_next(self, request: Request) -> Response:
        """The request that carries this token is traced, whatever else is."""
        no_query(request)
        await no_body(request)
        return answer({"header": HEADER.decode(), "token": self._traces.token()}, 201)


def _view(trace: Trace) -> dict[str, object]:
    return {
        "request_id": trace.request_id,
        "at_s": round(trace.at_s, 3),
        "method": trace.method,
        "host": trace.host,
        "path": trace.path,
        "events": [{"at_ms": event.at_ms, "step": event.step, **event.told} for event in trace.events],
    }
