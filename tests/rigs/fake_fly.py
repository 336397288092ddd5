"""A strict Machines API of our own, for what its documentation says of states, events, waiting and rate limits.

It is not Fly's. What it refuses and Fly would take is a fault of the driver all the same (`faults`); what the pages
leave open (statuses of suspend events, the words of errors) is as observed by others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.core.model import Address
from tests.rigs.platforms import Leaping, Memory, fields_of

TOKEN: Final = "FlyV1 fm2_secret"
_EPOCH_MS: Final = 1_790_000_000_000
_WAITABLE: Final = {"started", "stopped", "suspended", "destroyed"}

Handler = Callable[[Request, "FakeMachine"], Awaitable[Response]]


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.response = JSONResponse({"error": text}, status, headers=headers)


@dataclass
class FakeMachine:
    """A machine; its methods are what happens to it without the API."""

    fly: FakeFly
    app: str
    id: str
    address: Address
    state: str = "stopped"
    version: str = "01J0000000000000000000VER1"
    eligible: bool = True
    """For suspending."""
    events: list[dict[str, Any]] = field(default_factory=list)
    kept_events: int = 20
    """Older ones are forgotten."""
    refusals: list[str] = field(default_factory=list)
    """Reasons for which the next starts and stops are answered 412."""
    asked: list[str] = field(default_factory=list)
    """Actions that were begun, stops with their signal and timeout."""
    waits: int = 0
    """Waits that ended in 408."""
    stays_down: bool = False
    """It exits as soon as it has started."""
    migrates: bool = False
    """The next start finds another host."""
    snapshot_lost: bool = False
    shown_ip: str | None = None
    """Another than the one it has."""
    memory: Memory | None = None
    free: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: it stays in the transient state it gets into."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.free.set()
        self.tell("launch", "created", "user")

    def tell(self, type: str, status: str, source: str = "flyd", **request: Any) -> None:
        event = {"type": type, "status": status, "source": source, "timestamp": self.fly.now_ms()}
        self.events.insert(0, {**event, "request": request} if request else event)
        del self.events[self.kept_events :]

    def be(self, state: str) -> None:
        self.state = state
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": f"name-of-{self.id}",
            "state": self.state,
            "region": "ord",
            "instance_id": self.version,
            "private_ip": self.shown_ip if self.shown_ip is not None else self.address.host,
            "created_at": "2026-10-31T02:30:10Z",
            "updated_at": "2026-10-31T02:35:26Z",
            "config": {"image": "example/toy"},
            "events": self.events,
            "checks": None,
        }

    # --- what happens ------------------------------------------------------------------

    def begin(self, state: str, work: Coroutine[Any, Any, None]) -> None:
        """Into a transient state, which ends when `work` is done."""
        if self.task is not None:
            self.task.cancel()
        self.be(state)
        self.task = self.fly.tasks.create_task(work)

    async def boot(self, source: str = "user") -> None:
        came_from = self.state
        self.tell("start", "starting", source)
        self.begin("starting", self._boot(came_from))

    async def _boot(self, came_from: str) -> None:
        await self.free.wait()
        kept = came_from in {"suspended", "suspending"} and not self.snapshot_lost and not self.migrates
        self.snapshot_lost = self.migrates = False
        if self.memory is None or not kept:
            self.memory = Memory(self.address)
        if self.stays_down:
            self.tell("start", "started")
            self.end(3)
            return
        await self.memory.listen()
        self.tell("start", "started")
        self.be("started")

    def end(self, code: int, *, requested: bool = False, oom: bool = False) -> None:
        """Its process ended, and its restart policy is "no"."""
        if self.memory is not None:
            self.memory.fall_silent()
        exited = {"exit_code": code, "requested_stop": requested, "oom_killed": oom, "restarting": False}
        self.tell("exit", "stopped", exit_event=exited, restart_count=0)
        self.be("stopped")

    async def restart_by_policy(self) -> None:
        """It crashed, and was running again before anybody looked."""
        assert self.memory is not None
        self.memory.fall_silent()
        self.tell("exit", "stopped", exit_event={"exit_code": 1, "restarting": True, "requested_stop": False})
        self.memory = Memory(self.address)
        await self.memory.listen()
        self.tell("start", "started")

    def begin_stop(self, signal: str = "SIGINT", timeout_s: float = 5.0) -> None:
        self.tell("stop", "stopping", "user")
        self.begin("stopping", self._stop())

    async def _stop(self) -> None:
        await self.free.wait()
        self.end(0, requested=True)

    def begin_suspend(self) -> None:
        assert self.memory is not None
        self.memory.fall_silent()
        self.tell("suspend", "suspending", "user")
        self.begin("suspending", self._suspend())

    async def _suspend(self) -> None:
        await self.free.wait()
        self.tell("suspend", "suspended")
        self.be("suspended")

    async def deploy(self) -> None:
        """A new version of it, started."""
        if self.memory is not None:
            self.memory.fall_silent()
        self.version = self.version[:-1] + str(int(self.version[-1]) + 1)
        self.tell("update", "replacing", "user")
        self.memory = Memory(self.address)
        await self.memory.listen()
        self.tell("start", "started")
        self.be("started")

    def destroy(self) -> None:
        if self.memory is not None:
            self.memory.fall_silent()
        del self.fly.machines[self.app, self.id]
        self.be("destroyed")


class FakeFly:
    """The API, and the machines it knows."""

    def __init__(self, tasks: asyncio.TaskGroup, tempo: Leaping) -> None:
        self.tasks = tasks
        self.tempo = tempo
        self.machines: dict[tuple[str, str], FakeMachine] = {}
        self.faults: list[str] = []
        """What a client of this API must not do."""
        self.asked: list[str] = []
        self.limited = 0
        self.retry_after_s: int | None = None
        self.away = False
        self.forbidden = False
        self.failures: list[int] = []
        """Statuses that the next requests are answered with."""
        self.nonsense = False
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}
        self._last_ms = _EPOCH_MS
        at = "/v1/apps/{app}/machines"
        one = at + "/{id}"
        self.starlette = Starlette(
            routes=[
                Route(at, self._list, methods=["GET"]),
                Route(one, self._on("get", self._get), methods=["GET"]),
                Route(one + "/wait", self._on("wait", self._wait), methods=["GET"]),
                Route(one + "/start", self._on("start", self._start), methods=["POST"]),
                Route(one + "/stop", self._on("stop", self._stop), methods=["POST"]),
                Route(one + "/suspend", self._on("suspend", self._suspend), methods=["POST"]),
                Route("/{path:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ],
            exception_handlers={Refusal: _refused},
        )

    def add(self, id: str, address: Address, app: str = "toys", **fields: Any) -> FakeMachine:
        machine = self.machines[app, id] = FakeMachine(self, app, id, address, **fields)
        return machine

    def now_ms(self) -> int:
        """Unix time as the hosts tell it; no two events have the same."""
        self._last_ms = max(self._last_ms + 1, _EPOCH_MS + int(self.tempo.now_s() * 1000))
        return self._last_ms

    def close(self) -> None:
        for machine in self.machines.values():
            if machine.memory is not None:
                machine.memory.fall_silent()
            if machine.task is not None:
                machine.task.cancel()

    # --- what every request meets ------------------------------------------------------

    def _admit(self, request: Request, action: str, subject: str) -> None:
        self.asked.append(f"{action} {subject}")
        if self.away:
            raise Refusal(503, "upstream connect error")
        if self.failures:
            raise Refusal(self.failures.pop(0), "on purpose")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, f"unauthenticated: {request.headers.get('authorization')}")
        if self.forbidden:
            raise Refusal(403, "token does not cover this app")
        per_s, burst = (5.0, 10.0) if action == "get" else (1.0, 3.0)
        now_s = self.tempo.now_s()
        left, at_s = self._buckets.get((action, subject), (burst, now_s))
        left = min(burst, left + (now_s - at_s) * per_s)
        self._buckets[action, subject] = (left - 1.0 if left >= 1.0 else left, now_s)
        if left < 1.0:
            self.limited += 1
            headers = {"retry-after": str(self.retry_after_s)} if self.retry_after_s is not None else None
            raise Refusal(429, "rate limit exceeded", headers)

    def _on(self, action: str, handle: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            app, id = request.path_params["app"], request.path_params["id"]
            self._admit(request, action, id)
            machine = self.machines.get((app, id))
            if machine is None:
                raise Refusal(404, "machine not found")
            return await handle(request, machine)

        return endpoint

    async def _unknown(self, request: Request) -> Response:
        self.faults.append(f"{request.method} {request.url.path}")
        raise Refusal(404, "page not found")

    # --- endpoints ---------------------------------------------------------------------

    async def _list(self, request: Request) -> Response:
        app = request.path_params["app"]
        self._admit(request, "list", app)
        if request.query_params:
            self.faults.append(f"list with {request.query_params}")
        machines = [machine.shown() for machine in self.machines.values() if machine.app == app]
        if not machines:
            raise Refusal(404, "app not found")
        return JSONResponse([{"id": 7}] if self.nonsense else machines)

    async def _get(self, request: Request, machine: FakeMachine) -> Response:
        return JSONResponse(machine.shown())

    async def _start(self, request: Request, machine: FakeMachine) -> Response:
        self._precondition(machine, "start", {"stopped", "suspended", "suspending", "failed", "started", "created"})
        machine.asked.append("start")
        answer = {"previous_state": machine.state, "migrated": machine.migrates, "new_host": ""}
        if machine.state == "suspending" and machine.memory is not None:
            if machine.task is not None:
                machine.task.cancel()
            await machine.memory.listen()
            machine.tell("start", "started")
            machine.be("started")
        elif machine.state != "started":
            await machine.boot()
        return JSONResponse(answer)

    async def _stop(self, request: Request, machine: FakeMachine) -> Response:
        body = await _body(request)
        if wrong := fields_of(body, {"signal", "timeout"}):
            self.faults.append(wrong)
            raise Refusal(400, wrong)
        self._precondition(machine, "stop", {"started", "suspended", "stopped", "starting"})
        machine.asked.append(f"stop {body['signal']} {body['timeout']}")
        if machine.state == "suspended":
            machine.memory = None
            machine.tell("stop", "stopped", "user")
            machine.be("stopped")
        elif machine.state != "stopped":
            machine.begin_stop()
        return JSONResponse({"ok": True})

    async def _suspend(self, request: Request, machine: FakeMachine) -> Response:
        self._precondition(machine, "suspend", {"started"})
        if not machine.eligible:
            raise Refusal(412, "failed_precondition: machine has swap enabled")
        machine.asked.append("suspend")
        machine.begin_suspend()
        return JSONResponse({"ok": True})

    def _precondition(self, machine: FakeMachine, verb: str, states: set[str]) -> None:
        if machine.refusals:
            raise Refusal(412, f"failed_precondition: {machine.refusals.pop(0)}")
        if machine.state not in states:
            raise Refusal(412, f"failed_precondition: unable to {verb} machine from current state: '{machine.state}'")

    async def _wait(self, request: Request, machine: FakeMachine) -> Response:
        query = request.query_params
        state, timeout = query.get("state", "started"), query.get("timeout", "60")
        wrong = ""
        if unknown := set(query) - {"state", "timeout", "instance_id"}:
            wrong = f"unknown parameters {unknown}"
        elif state not in _WAITABLE or not timeout.isdigit() or not 1 <= int(timeout) <= 60:
            wrong = f"cannot wait {timeout} s for {state}"
        elif state == "stopped" and not query.get("instance_id"):
            wrong = "instance_id is required to wait for stopped"
        if wrong:
            self.faults.append(wrong)
            raise Refusal(400, wrong)
        try:
            async with self.tempo.limit(float(timeout)):
                while machine.state != state:
                    await machine.changed.wait()
        except TimeoutError:
            machine.waits += 1
            raise Refusal(408, f"deadline_exceeded: machine is {machine.state}") from None
        return JSONResponse({"ok": True})


async def _body(request: Request) -> Any:
    if request.headers.get("content-type") != "application/json":
        return None
    try:
        return json.loads(await request.body())
    except ValueError:
        return None


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response
