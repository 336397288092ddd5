"""The agent's API: `AgentApi` over HTTP, in paths of the Fly Machines API. docs/reference/agent.md describes it.

Every answer to a call is an outcome as JSON (outcomes.py), whatever its status: the status is for people and proxies.
A client that leaves cancels nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.answers import AdminCode, Fault, Refusal, Trouble, answer, refusal_answer, trouble_answer
from gateway.admin.asking import Query, json_body, no_body, no_query
from gateway.agent.base import (
    AgentApi,
    FailureKind,
    Listed,
    NotReached,
    Prepared,
    Refused,
    Rest,
    StartFailed,
)
from gateway.agent.gate import OPEN_PATH, Gate
from gateway.agent.outcomes import Outcome, encode, encode_listed
from gateway.agent.tokens import Tokens
from gateway.core.model import State
from gateway.core.problems import Code, Problem

MAX_PAGE: Final = 1000
MAX_WAIT_S: Final = 60.0
"""Fly's: the most that `wait` waits, and its default."""

_CONFLICTS: Final = frozenset(
    {FailureKind.HELD_DOWN, FailureKind.NOT_STARTABLE, FailureKind.NOT_SUSPENDABLE, FailureKind.NOT_PREPARED}
)
_MACHINES: Final = "/v1/apps/{app}/machines"
_MACHINE: Final = f"{_MACHINES}/{{id}}"

log = structlog.get_logger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


def application(agent: AgentApi, tokens: Tokens, url: str) -> Starlette:
    """The application of one agent, which gateways reach at `url`."""
    machines = Machines(agent)
    table: list[tuple[str, str, Handler]] = [
        ("GET", OPEN_PATH, _healthz),
        ("GET", "/v1/machines", machines.all),
        ("GET", _MACHINES, machines.of_app),
        ("POST", f"{_MACHINE}/start", machines.start),
        ("POST", f"{_MACHINE}/stop", machines.stop),
        ("POST", f"{_MACHINE}/suspend", machines.suspend),
        ("POST", f"{_MACHINE}/cordon", machines.cordon),
        ("POST", f"{_MACHINE}/uncordon", machines.uncordon),
        ("GET", f"{_MACHINE}/wait", machines.wait),
        ("POST", f"{_MACHINE}/sleep", machines.prepare),
        ("PUT", f"{_MACHINE}/sleep/{{token}}", machines.sleep),
        ("DELETE", f"{_MACHINE}/sleep/{{token}}", machines.stay),
    ]
    app = Starlette(
        routes=[Route(path, _safe(handler), methods=[method]) for method, path, handler in table],
        middleware=[Middleware(Gate, tokens=tokens, url=url)],
        exception_handlers={HTTPException: _http_exception},
    )
    # A redirect would be built from the Host header, and no path here has two spellings.
    app.router.redirect_slashes = False
    return app


class Machines:
    """The endpoints that ask the agent."""

    def __init__(self, agent: AgentApi) -> None:
        self._agent = agent

    async def all(self, request: Request) -> Response:
        """Every instance, in pages: `after` is APP/ID."""
        return _page(request, await self._agent.list(), lambda one: (one.instance.app, one.instance.id))

    async def of_app(self, request: Request) -> Response:
        """The instances of one app, in pages: `after` is an id."""
        app = request.path_params["app"]
        listed = [one for one in await self._agent.list() if one.instance.app == app]
        return _page(request, listed, lambda one: (one.instance.id,))

    async def start(self, request: Request) -> Response:
        no_query(request)
        release = await _flag(request, "release", False)
        return _answer(await self._agent.start(*_names(request), release=release))

    async def stop(self, request: Request) -> Response:
        no_query(request)
        hold = await _flag(request, "hold", True)
        return _answer(await self._agent.stop(*_names(request), hold=hold))

    async def suspend(self, request: Request) -> Response:
        no_query(request)
        hold = await _flag(request, "hold", True)
        return _answer(await self._agent.suspend(*_names(request), hold=hold))

    async def cordon(self, request: Request) -> Response:
        return await self._cordon(request, True)

    async def uncordon(self, request: Request) -> Response:
        return await self._cordon(request, False)

    async def _cordon(self, request: Request, cordoned: bool) -> Response:
        no_query(request)
        await no_body(request)
        return _answer(await self._agent.cordon(*_names(request), cordoned))

    async def wait(self, request: Request) -> Response:
        query = Query(request)
        state = query.word("state", State, State.STARTED)
        timeout_s = query.seconds("timeout", MAX_WAIT_S, MAX_WAIT_S)
        query.done()
        return _answer(await self._agent.wait(*_names(request), State(state), timeout_s))

    async def prepare(self, request: Request) -> Response:
        no_query(request)
        body = _object(await json_body(request), "instance_id", "rest")
        faults = []
        incarnation, rest = body.get("instance_id"), body.get("rest")
        if not isinstance(incarnation, str):
            faults.append(Fault("instance_id", "is not a string", "send the instance_id that is to sleep"))
        if rest not in list(Rest):
            faults.append(Fault("rest", "is not known", f"send one of {', '.join(Rest)}"))
        if faults:
            raise Refusal(AdminCode.AD07, faults=faults)
        return _answer(await self._agent.prepare(*_names(request), str(incarnation), Rest(str(rest))))

    async def sleep(self, request: Request) -> Response:
        no_query(request)
        await no_body(request)
        return _answer(await self._agent.sleep(*_names(request), request.path_params["token"]))

    async def stay(self, request: Request) -> Response:
        no_query(request)
        await no_body(request)
        await self._agent.stay(*_names(request), request.path_params["token"])
        return answer({"ok": True})


async def _healthz(request: Request) -> Response:
    return answer({"ok": True})


# --- reading ---------------------------------------------------------------------------


def _names(request: Request) -> tuple[str, str]:
    return request.path_params["app"], request.path_params["id"]


async def _flag(request: Request, name: str, default: bool) -> bool:
    """The one key of a body that may be left out."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return default
    value = _object(await json_body(request), name).get(name, default)
    if not isinstance(value, bool):
        raise Refusal(AdminCode.AD07, faults=[Fault(name, "is not true or false", "send true or false")])
    return value


def _object(value: object, *known: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Refusal(AdminCode.AD07, faults=[Fault("", "the body is not an object", "send a JSON object")])
    faults = [
        Fault(key[:60], "unknown key", f"remove it; known here: {', '.join(known)}")
        for key in value
        if key not in known
    ]
    if faults:
        raise Refusal(AdminCode.AD07, faults=faults)
    return value


# --- answering -------------------------------------------------------------------------


def _answer(outcome: Outcome) -> Response:
    headers: dict[str, str] = {}
    match outcome:
        case StartFailed(failure, retry_after_s):
            status = _status(failure.kind)
            if retry_after_s > 0:
                headers["retry-after"] = str(math.ceil(retry_after_s))
        case Refused(failure):
            status = _status(failure.kind)
        case NotReached(instance):
            status = 404 if instance is None else 408
        case Prepared():
            status = 202
        case _:
            status = 200
    return answer(encode(outcome), status, headers)


def _status(kind: FailureKind) -> int:
    if kind is FailureKind.UNKNOWN_INSTANCE:
        return 404
    return 409 if kind in _CONFLICTS else 503


def _page(request: Request, listed: Sequence[Listed], name: Callable[[Listed], tuple[str, ...]]) -> Response:
    query = Query(request)
    limit = query.whole("limit", MAX_PAGE, 1, MAX_PAGE)
    after = tuple(query.text("after").split("/"))
    query.done()
    page = [one for one in listed if name(one) > after][:limit]
    return answer([encode_listed(one) for one in page])


def _safe(handler: Handler) -> Handler:
    """Turn what ends a request into its answer."""

    async def handle(request: Request) -> Response:
        request_id: str = request.state.request_id
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal_answer(refusal, request_id)
        except HTTPException:
            raise
        except Exception:
            log.exception("a request to the agent failed", request_id=request_id, method=request.method)
            return trouble_answer(Trouble(Problem(Code.PG01, "the request failed in the agent")), request_id)

    return handle


async def _http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    code = AdminCode.AD04 if error.status_code == 405 else AdminCode.AD03
    value = {
        "code": code,
        "message": f"{request.method} {request.url.path[:100]}",
        "remedy": "See the agent's reference.",
    }
    return answer({"error": value}, error.status_code, error.headers)
