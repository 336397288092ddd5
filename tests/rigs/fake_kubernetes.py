"""A strict piece of a Kubernetes API server of our own, with controllers and a kubelet small enough to see through.

It is not Kubernetes. Pods, scales, watches and resource versions behave as the API reference and the concepts page say;
whatever the driver has no business to ask is a fault (`faults`). Pods are servers in the test's loop, each at an
address of its own in 127.1.0.0/16.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import socket
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.core.model import Address
from tests.rigs.platforms import Leaping, Memory, fields_of

TOKEN: Final = "eyJhbGciOi.service.account"
_EPOCH: Final = datetime(2026, 11, 25, tzinfo=UTC)
_REASONS: Final = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired"}


class Refusal(Exception):
    """An answer that is no success: a `Status` object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.response = JSONResponse(status_of(code, message), code)


def status_of(code: int, message: str) -> dict[str, Any]:
    kind = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**kind, "message": message, "reason": _REASONS.get(code, "InternalError"), "code": code}


@dataclass
class FakePod:
    """A Pod with one container that matters, behind a sidecar."""

    cluster: FakeKubernetes
    workload: FakeWorkload
    name: str
    ip: str
    uid: str
    version: int = 0
    state: dict[str, Any] = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    phase: str = "Pending"
    reason: str = ""
    deleted_at: str = ""
    memory: Memory | None = None

    def shown(self) -> dict[str, Any]:
        ready = {"type": "Ready", "status": str(self.ready)}
        if not self.ready:
            ready |= {"reason": "ContainersNotReady", "message": "containers with unready status: [app]"}
        meta: dict[str, Any] = {"name": self.name, "namespace": self.workload.namespace, "uid": self.uid}
        meta |= {"resourceVersion": str(self.version), "labels": {"app": self.workload.name}}
        if self.deleted_at:
            meta |= {"deletionTimestamp": self.deleted_at, "deletionGracePeriodSeconds": 30}
        app = {"name": "app", "ports": [{"containerPort": self.workload.port, "protocol": "TCP"}]}
        status: dict[str, Any] = {"phase": self.phase, "conditions": [ready]}
        if self.reason:
            status["reason"] = self.reason
        if self.phase != "Pending":
            status["podIP"] = self.ip
            beside = {"name": "beside", "restartCount": 0, "ready": True}
            status["containerStatuses"] = [
                {**beside, "state": {"running": {"startedAt": "2020-01-01T00:00:00Z"}}, "lastState": {}},
                {
                    "name": "app",
                    "restartCount": self.restarts,
                    "ready": self.ready,
                    "state": self.state,
                    "lastState": self.last_state,
                },
            ]
        spec = {"containers": [{"name": "beside"}, app], "terminationGracePeriodSeconds": 30}
        return {"metadata": meta, "spec": spec, "status": status}

    async def run(self) -> None:
        """What a kubelet does with a new Pod."""
        await self.workload.placing.wait()
        await self._begin()

    async def _begin(self) -> None:
        self.memory = Memory(Address(self.ip, self.workload.port))
        await self.memory.listen()
        self.phase, self.state = "Running", {"running": {"startedAt": self.cluster.now()}}
        self.cluster.tell("MODIFIED", self)
        await self.workload.readying.wait()
        self.be_ready(True)

    def be_ready(self, ready: bool) -> None:
        self.ready = ready
        self.cluster.tell("MODIFIED", self)
        self.workload.reconcile()

    def wait_for(self, reason: str, message: str = "") -> None:
        """Its container waits, as for an image that cannot be pulled."""
        self.phase, self.ready = "Running", False
        self.state = {"waiting": {"reason": reason, "message": message}}
        self.cluster.tell("MODIFIED", self)

    def crash(self, code: int, reason: str = "Error") -> None:
        """Its container exits; the kubelet starts it again when `restarting` is set."""
        if self.memory is not None:
            self.memory.fall_silent()
        self.ready = False
        self.state = {"terminated": {"exitCode": code, "reason": reason if code else "Completed"}}
        self.cluster.tell("MODIFIED", self)
        self.cluster.spawn(self._restart())

    async def _restart(self) -> None:
        await self.workload.restarting.wait()
        if self.deleted_at:
            return
        self.last_state, self.restarts = self.state, self.restarts + 1
        await self._begin()

    def evict(self) -> None:
        if self.memory is not None:
            self.memory.fall_silent()
        self.phase, self.reason, self.ready, self.state = "Failed", "Evicted", False, {}
        self.cluster.tell("MODIFIED", self)

    def delete(self) -> None:
        self.deleted_at = self.cluster.now()
        self.cluster.tell("MODIFIED", self)
        self.cluster.spawn(self._end())

    async def _end(self) -> None:
        await self.workload.terminating.wait()
        if self.memory is not None:
            self.memory.fall_silent()
        self.workload.pods.remove(self)
        self.cluster.tell("DELETED", self)
        self.workload.reconcile()


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class FakeWorkload:
    """A StatefulSet (OrderedReady) or a Deployment."""

    cluster: FakeKubernetes
    resource: str
    namespace: str
    name: str
    port: int
    replicas: int = 0
    version: int = 0
    pods: list[FakePod] = field(default_factory=list)
    placing: asyncio.Event = field(default_factory=_set)
    readying: asyncio.Event = field(default_factory=_set)
    restarting: asyncio.Event = field(default_factory=_set)
    terminating: asyncio.Event = field(default_factory=_set)
    """Each cleared: Pods stay before that step."""
    interference: list[int] = field(default_factory=list)
    """Somebody else scales to these, each just before a patch."""

    def scale(self, replicas: int) -> None:
        self.replicas, self.version = replicas, self.cluster.next_version()
        self.reconcile()

    def reconcile(self) -> None:
        live = [pod for pod in self.pods if not pod.deleted_at and pod.phase != "Failed"]
        if self.resource == "deployments":
            for _ in range(self.replicas - len(live)):
                self._create(f"{self.name}-{self.cluster.next_version():x}")
            for pod in live[self.replicas :]:
                pod.delete()
            return
        ready = {pod.name: pod.ready for pod in self.pods}
        for name in (f"{self.name}-{ordinal}" for ordinal in range(self.replicas)):
            if name not in ready:
                self._create(name)
            if not ready.get(name):
                return
        above = [pod for pod in self.pods if int(pod.name.rpartition("-")[2]) >= self.replicas]
        if above and len(above) == len([pod for pod in above if not pod.deleted_at]):
            max(above, key=lambda pod: pod.name).delete()

    def _create(self, name: str) -> None:
        ip = next(self.cluster.addresses)
        pod = FakePod(self.cluster, self, name, ip, f"uid-{self.cluster.next_version()}")
        self.pods.append(pod)
        self.cluster.tell("ADDED", pod)
        self.cluster.spawn(pod.run())

    def shown(self) -> dict[str, Any]:
        meta = {"name": self.name, "namespace": self.namespace, "resourceVersion": str(self.version)}
        # Go leaves out what is zero.
        spec = {"replicas": self.replicas} if self.replicas else {}
        status = {"replicas": len(self.pods), "selector": f"app={self.name}"}
        return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


class FakeKubernetes:
    """The API server, and the cluster behind it."""

    def __init__(self, tasks: asyncio.TaskGroup, tempo: Leaping) -> None:
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []
        self._last_s = 0
        self.tempo = tempo
        self.token = TOKEN
        self.workloads: dict[tuple[str, str, str], FakeWorkload] = {}
        self.addresses = (f"127.1.{number // 250}.{number % 250 + 1}" for number in itertools.count())
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.forbidden = False
        self.gone_as_status = False
        """A forgotten version is refused at once, and not by an event."""
        self._away = False
        self._version = 1000
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._forgotten = 0
        self._cuts = 0
        self.watched: list[int] = []
        """From which versions on."""
        self.flowing = _set()
        """Cleared: watches are told nothing."""
        self._changed = asyncio.Event()
        scale = "/apis/apps/v1/namespaces/{namespace}/{resource}/{name}/scale"
        self.starlette = Starlette(
            routes=[
                Route(scale, self._scale, methods=["GET", "PATCH"]),
                Route("/api/v1/namespaces/{namespace}/pods", self._pods, methods=["GET"]),
                Route("/{path:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ],
            exception_handlers={Refusal: _refused},
        )

    def add(self, resource: str, name: str, namespace: str = "default") -> FakeWorkload:
        with socket.create_server(("127.1.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        workload = FakeWorkload(self, resource, namespace, name, port, version=self.next_version())
        self.workloads[resource, namespace, name] = workload
        return workload

    def now(self) -> str:
        """In whole seconds, as the API tells times; here no two things happen within one."""
        self._last_s = max(self._last_s + 1, int(self.tempo.now_s()))
        return f"{_EPOCH + timedelta(seconds=self._last_s):%Y-%m-%dT%H:%M:%SZ}"

    def next_version(self) -> int:
        self._version += 1
        return self._version

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._running.append(self._tasks.create_task(work))

    def close(self) -> None:
        for task in self._running:
            task.cancel()
        for workload in self.workloads.values():
            for pod in workload.pods:
                if pod.memory is not None:
                    pod.memory.fall_silent()

    # --- events ------------------------------------------------------------------------

    def tell(self, type: str, pod: FakePod) -> None:
        pod.version = self.next_version()
        self._publish({"type": type, "object": copy.deepcopy(pod.shown())})

    def bookmark(self) -> None:
        meta = {"resourceVersion": str(self.next_version())}
        self._publish({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": meta}})

    def forget(self) -> None:
        """Compaction: no watch can go on from any version up to now."""
        self._events.clear()
        self._forgotten = self.next_version()

    def end_watches(self) -> None:
        """As their time is over."""
        self._cuts += 1
        self._wake()

    @property
    def away(self) -> bool:
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = away
        self._wake()

    def _publish(self, event: dict[str, Any]) -> None:
        self._events.append((self._version, event))
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # --- the API -----------------------------------------------------------------------

    def _admit(self, request: Request) -> None:
        self.asked.append(f"{request.method} {request.url.path}")
        if self.away:
            raise Refusal(503, "apiserver is shutting down")
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refusal(401, f"Unauthorized {request.headers.get('authorization')}")
        if self.forbidden:
            raise Refusal(403, 'User "system:serviceaccount:default:moorage" cannot do this in the namespace "default"')

    def _fault(self, code: int, text: str) -> Refusal:
        self.faults.append(text)
        return Refusal(code, text)

    async def _unknown(self, request: Request) -> Response:
        raise self._fault(404, f"the server could not find {request.method} {request.url.path}")

    async def _scale(self, request: Request) -> Response:
        self._admit(request)
        at = request.path_params
        workload = self.workloads.get((at["resource"], at["namespace"], at["name"]))
        if workload is None:
            raise Refusal(404, f'{at["resource"]}.apps "{at["name"]}" not found')
        if request.method == "PATCH":
            await self._patch(request, workload)
        return JSONResponse(workload.shown())

    async def _patch(self, request: Request, workload: FakeWorkload) -> None:
        if request.headers.get("content-type") != "application/merge-patch+json":
            raise self._fault(415, "the body of the request was in an unknown format")
        body = await request.json()
        wrong = fields_of(body, {"metadata", "spec"}) or fields_of(body["metadata"], {"resourceVersion"})
        replicas = body["spec"].get("replicas")
        if wrong or set(body["spec"]) != {"replicas"} or not isinstance(replicas, int) or replicas < 0:
            raise self._fault(422, wrong or f"replicas {replicas!r}")
        if workload.interference:
            workload.scale(workload.interference.pop(0))
        if body["metadata"]["resourceVersion"] != str(workload.version):
            raise Refusal(409, "the object has been modified; please apply your changes to the latest version")
        workload.scale(replicas)

    async def _pods(self, request: Request) -> Response:
        self._admit(request)
        query = dict(request.query_params)
        namespace, selector = request.path_params["namespace"], query.pop("labelSelector", "")
        if not selector.startswith("app="):
            raise self._fault(403, "Pods of nobody in particular were asked for")
        name = selector.removeprefix("app=")
        if query.pop("watch", "") == "true":
            return self._watch(namespace, name, query)
        if query:
            raise self._fault(400, f"list with {query}")
        pods = [pod.shown() for each in self.workloads.values() for pod in each.pods if _is(each, namespace, name)]
        meta = {"resourceVersion": str(self._version)}
        return JSONResponse({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": pods or None})

    def _watch(self, namespace: str, name: str, query: dict[str, str]) -> Response:
        version, timeout = query.pop("resourceVersion", ""), query.pop("timeoutSeconds", "")
        if query.pop("allowWatchBookmarks", "") != "true" or query or not version.isdigit() or not timeout.isdigit():
            raise self._fault(400, f"watch from {version!r} for {timeout!r} s with {query}")
        self.watched.append(int(version))
        if int(version) < self._forgotten and self.gone_as_status:
            raise Refusal(410, f"too old resource version: {version}")
        lines = self._lines(namespace, name, int(version), float(timeout))
        return StreamingResponse(lines, media_type="application/json")

    async def _lines(self, namespace: str, name: str, version: int, timeout_s: float) -> AsyncIterator[str]:
        cuts = self._cuts
        try:
            async with self.tempo.limit(timeout_s):
                while cuts == self._cuts:
                    if self.away:
                        raise ConnectionAbortedError("the server went away")
                    if version < self._forgotten:
                        error = {"type": "ERROR", "object": status_of(410, f"too old resource version: {version}")}
                        yield json.dumps(error) + "\n"
                        return
                    changed = self._changed
                    for at, event in list(self._events):
                        if at > version and _concerns(event, namespace, name):
                            yield json.dumps(event) + "\n"
                        version = max(version, at)
                    await changed.wait()
                    await self.flowing.wait()
        except TimeoutError:
            return


def _is(workload: FakeWorkload, namespace: str, name: str) -> bool:
    return (workload.namespace, workload.name) == (namespace, name)


def _concerns(event: dict[str, Any], namespace: str, name: str) -> bool:
    meta = event["object"]["metadata"]
    return event["type"] == "BOOKMARK" or (meta["namespace"], meta["labels"]["app"]) == (namespace, name)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response
