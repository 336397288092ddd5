"""The admin API: a Starlette application for a listener of its own, made for one gateway.

Routes are in `routes`, who may ask in `access`. Whatever a request brings, it gets JSON: a refusal by name, or PG01
for a fault in here, which is logged with its request id and ends nothing.
"""

from __future__ import annotations

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.admin.access import Access
from gateway.admin.answers import AdminCode, Refusal, Trouble, answer, refusal_answer, trouble_answer
from gateway.admin.asking import no_query
from gateway.admin.needs import Admin
from gateway.admin.openapi import PATH, document
from gateway.admin.routes import Handler, endpoints
from gateway.core.problems import Code, Problem

__all__ = ["Admin", "application"]

log = structlog.get_logger(__name__)


def application(admin: Admin) -> Starlette:
    """The admin application. Serve it without uvicorn's access log: GET /v1/explain may carry a session id."""
    table = endpoints(admin)
    described = document(table, admin.version)

    async def openapi(request: Request) -> Response:
        no_query(request)
        return answer(described)

    routes: list[BaseRoute] = [Route(PATH, _safe(openapi), methods=["GET"])]
    by_path: dict[str, dict[str, Handler]] = {}
    for endpoint in table:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint.handler
    routes += [Route(path, _safe(_by_method(handlers)), methods=list(handlers)) for path, handlers in by_path.items()]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Access, token=admin.token)],
        exception_handlers={HTTPException: _http_exception},
    )
    # A redirect would be built from the Host header, and no path here has two spellings.
    app.router.redirect_slashes = False
    return app


def _by_method(handlers: dict[str, Handler]) -> Handler:
    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle


def _safe(handler: Handler) -> Handler:
    """Turn what ends a request into its answer."""

    async def handle(request: Request) -> Response:
        request_id: str = request.state.request_id
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal_answer(refusal, request_id)
        except Trouble as trouble:
            return trouble_answer(trouble, request_id)
        except HTTPException:
            raise
        except Exception:
            log.exception("admin request failed", request_id=request_id, method=request.method, path=request.url.path)
            return trouble_answer(Trouble(Problem(Code.PG01, "the request failed in the gateway")), request_id)

    return handle


async def _http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    code = AdminCode.AD04 if error.status_code == 405 else AdminCode.AD03
    refusal = Refusal(code, f"{request.method} {request.url.path[:100]}", headers=error.headers)
    return refusal_answer(refusal, request.state.request_id)
