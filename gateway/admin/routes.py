"""The one table of the admin API's routes: from it come the application's routes and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.drains import Drains
from gateway.admin.explain import Explain
from gateway.admin.machines import Machines
from gateway.admin.metrics import Metrics
from gateway.admin.needs import Admin
from gateway.admin.sessions import Sessions
from gateway.admin.status import Status
from gateway.admin.tasks import Tasks
from gateway.admin.traces import Traces

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Param:
    """A query parameter."""

    name: str
    text: str
    type: str = "string"
    many: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: dict[int, str]
    """By status, besides the refusals that every endpoint has."""
    params: tuple[Param, ...] = ()
    body: str = ""
    """The name of the body's schema; empty for no body."""
    media_type: str = "application/json"

    @property
    def operation(self) -> str:
        return getattr(self.handler, "__name__", "") + ("_body" if self.body == "Question" else "")


_APP = "/v1/apps/{app}"
_MACHINES = f"{_APP}/machines"
_MACHINE = f"{_MACHINES}/{{id}}"
_LIMIT = Param("limit", "How many at most.", "integer")
_OFFSET = Param("offset", "How many to leave out.", "integer")
_TIMEOUT = Param("timeout", "Seconds to wait, at most 60.", "number")
_SESSIONS = Param("sessions", "`false`: live sessions do not hold it up.", "boolean")
_NONE = "There is no such thing."
_AWAY = "The catalog's store is away."
_OWNER = "Another writer owns it, or it can only be changed where it was started."
_QUESTION = (
    Param("host", "The Host of the request."),
    Param("path", "Its path with query."),
    Param("method", "Its method."),
    Param("session", "The Mcp-Session-Id as its client holds it. Better in a POST."),
    Param("name", "A session as GET /v1/sessions lists it."),
    Param("app", "An app, in place of host and path."),
    Param("client", "The client's IP address."),
    Param("header", "`Name: value`.", many=True),
    Param("body", "The request's own body."),
)


def endpoints(admin: Admin) -> tuple[Endpoint, ...]:
    """All but /openapi.json, which describes them."""
    machines, sessions, status = Machines(admin), Sessions(admin), Status(admin)
    explain, metrics, traces = Explain(admin), Metrics(admin), Traces(admin)
    tasks, drains = Tasks(admin), Drains(admin, machines)
    return (
        Endpoint(
            "GET",
            "/v1/apps",
            machines.apps,
            "The apps, by name.",
            {200: "A page of apps."},
            (_LIMIT, Param("after", "Start after this name.")),
        ),
        Endpoint(
            "GET",
            _MACHINES,
            machines.machines,
            "The machines of an app, by id.",
            {200: "A list; the Link header names the next page.", 404: _NONE},
            (
                _LIMIT,
                Param("after", "Start after this id."),
                Param("region", "Of this region."),
                Param("state", "In this state."),
            ),
        ),
        Endpoint(
            "POST",
            _MACHINES,
            machines.register,
            "Register a machine by its address.",
            {
                201: "Registered.",
                200: "Registered before; it is now as asked for.",
                404: "There is no such app.",
                409: _OWNER,
            },
            body="Machine",
        ),
        Endpoint("GET", _MACHINE, machines.machine, "One machine.", {200: "The machine.", 404: _NONE}),
        Endpoint(
            "DELETE",
            _MACHINE,
            machines.remove,
            "Take back a machine that was registered here.",
            {200: "It is gone.", 404: _NONE, 409: _OWNER},
            (Param("force", "Without effect.", "boolean"),),
        ),
        Endpoint(
            "POST",
            f"{_MACHINE}/start",
            machines.start,
            "Start a machine, also one that an operator stopped.",
            {200: "It runs.", 202: "It is still starting.", 404: _NONE, 409: _OWNER, 503: "It cannot be started."},
            (_TIMEOUT,),
        ),
        Endpoint(
            "POST",
            f"{_MACHINE}/stop",
            machines.stop,
            "Stop a machine; traffic does not wake it again.",
            {200: "It is stopped.", 404: _NONE, 409: _OWNER},
        ),
        Endpoint(
            "POST",
            f"{_MACHINE}/suspend",
            machines.suspend,
            "Suspend a machine with its memory; traffic does not wake it again.",
            {200: "It is suspended.", 404: _NONE, 409: f"{_OWNER} Or it cannot be suspended."},
        ),
        Endpoint(
            "POST",
            f"{_MACHINE}/cordon",
            machines.cordon,
            "Keep new sessions away; what is pinned goes on.",
            {200: "It is cordoned.", 404: _NONE, 409: _OWNER},
        ),
        Endpoint(
            "POST",
            f"{_MACHINE}/uncordon",
            machines.uncordon,
            "Let new sessions come again.",
            {200: "It is not cordoned.", 404: _NONE, 409: _OWNER},
        ),
        Endpoint(
            "POST",
            f"{_MACHINE}/drain",
            drains.drain,
            "Cordon a machine, and say what it still carries over all gateways.",
            {200: "It is cordoned.", 404: _NONE, 409: _OWNER},
            (_SESSIONS,),
        ),
        Endpoint(
            "GET",
            f"{_MACHINE}/drain",
            drains.drain_progress,
            "What a machine that drains still carries.",
            {200: "`drained`: nothing is left.", 404: _NONE, 503: "Too many wait already."},
            (_SESSIONS, Param("timeout", "Seconds to wait until nothing is left, at most 60.", "number")),
        ),
        Endpoint(
            "GET",
            f"{_MACHINE}/wait",
            machines.wait,
            "Wait until a machine is in a state.",
            {200: "It is.", 404: _NONE, 408: "It is not, after the timeout."},
            (
                Param("state", "`started` by default; `destroyed`: it is no more."),
                Param("instance_id", "Only this incarnation counts."),
                _TIMEOUT,
            ),
        ),
        Endpoint(
            "GET",
            f"{_MACHINE}/tasks",
            tasks.tasks,
            "The leases that keep a machine awake, by name.",
            {200: "The live ones.", 404: _NONE, 503: _AWAY},
        ),
        Endpoint(
            "POST",
            f"{_MACHINE}/tasks",
            tasks.hold_task,
            "Keep a machine awake for a while.",
            {201: "It is kept awake.", 404: _NONE, 409: "A lease of that name is live, or there are 100.", 503: _AWAY},
            body="Task",
        ),
        Endpoint(
            "PUT",
            f"{_MACHINE}/tasks/{{name}}",
            tasks.renew_task,
            "Keep a machine awake from now on for a while, whether it was or not.",
            {200: "It is kept awake.", 404: _NONE, 409: "There are 100 leases.", 503: _AWAY},
            body="Renewal",
        ),
        Endpoint(
            "DELETE",
            f"{_MACHINE}/tasks/{{name}}",
            tasks.release_task,
            "End a lease.",
            {204: "It is over.", 404: _NONE, 503: _AWAY},
        ),
        Endpoint(
            "GET",
            "/v1/sessions",
            sessions.list,
            "The sessions that passed through this gateway, the latest first.",
            {200: "A page of sessions."},
            (
                Param("app", "Of this app."),
                Param("instance", "On this instance."),
                _LIMIT,
                _OFFSET,
            ),
        ),
        Endpoint(
            "DELETE",
            "/v1/sessions/{name}",
            sessions.end,
            "End a session here: its later requests get 404.",
            {200: "It is ended.", 404: _NONE},
        ),
        Endpoint(
            "GET",
            "/v1/explain",
            explain.explain,
            "Which rule decides a request, what would be done, and why.",
            {200: "The explanation.", 404: _NONE},
            _QUESTION,
        ),
        Endpoint(
            "POST",
            "/v1/explain",
            explain.explain,
            "The same, with the session id in the body and in no log.",
            {200: "The explanation.", 404: _NONE},
            body="Question",
        ),
        Endpoint(
            "GET",
            "/v1/traces",
            traces.traces,
            "What happened to requests, the newest first: a sample, those that were replayed, those asked for.",
            {200: "A page of traces."},
            (_LIMIT, _OFFSET),
        ),
        Endpoint(
            "POST",
            "/v1/traces",
            traces.trace_next,
            "A token: the request to the public listener that carries it in this header is traced.",
            {201: "The header and the token, good for one request."},
        ),
        Endpoint(
            "GET",
            "/v1/traces/{id}",
            traces.trace,
            "What happened to one request, by the Fly-Request-Id of its answer.",
            {200: "The trace.", 404: _NONE},
        ),
        Endpoint("GET", "/v1/gateways", status.gateways, "This gateway.", {200: "A list of one."}),
        Endpoint(
            "GET",
            "/v1/catalog",
            status.catalog,
            "The catalog and the logs it follows.",
            {200: "How it stands."},
            (Param("limit", "How many quarantined records at most, the latest.", "integer"),),
        ),
        Endpoint(
            "GET",
            "/metrics",
            metrics.metrics,
            "Metrics.",
            {200: "Prometheus text, or OpenMetrics if asked for."},
            media_type="text/plain",
        ),
        Endpoint("GET", "/healthz", status.healthz, "Whether the gateway is alive.", {200: "It is."}),
        Endpoint(
            "GET",
            "/readyz",
            status.readyz,
            "Whether it should be sent requests.",
            {200: "It should.", 503: "`why` says why not."},
        ),
    )
