"""The Kubernetes driver: instances are Pods of StatefulSets and Deployments that exist already. It scales and watches.

A spec's target is `statefulset/NAMESPACE/NAME/ORDINAL` or `deployment/NAMESPACE/NAME`. What it knows of Pods comes from
one watch per workload. Tried against a server of this project's own; see docs/howto/kubernetes.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.agent.base import DriverError, Failure, FailureKind, InstanceKey, Observed, Running, Spec
from gateway.agent.kubernetes_api import KubernetesApi
from gateway.agent.kubernetes_pods import Pod, Workload, end_failure, parse_target, start_failure, why_not_ready
from gateway.agent.kubernetes_watch import Followed
from gateway.agent.rest import ApiError
from gateway.agent.sightings import Sightings
from gateway.agent.tempo import Tempo
from gateway.core.model import Address

logger = structlog.get_logger(__name__)

LIMIT_S: Final = 120.0
CONFLICTS: Final = 5
"""How often a scale is read again that somebody else changed meanwhile."""


@dataclass(slots=True)
class _Known:
    """One instance."""

    spec: Spec
    followed: Followed
    ordinal: int | None
    uid: str = ""
    """Of the Pod that was last seen running."""

    @property
    def key(self) -> InstanceKey:
        return self.spec.key

    def pods(self) -> list[Pod]:
        """Those that are, were or may become this instance; none that is only an object still."""
        live = [pod for pod in self.followed.pods.values() if not pod.ended or pod.metadata.uid == self.uid]
        if self.ordinal is None:
            return live
        name = f"{self.followed.workload.name}-{self.ordinal}"
        return [pod for pod in live if pod.metadata.name == name]

    def pod(self) -> Pod | None:
        """The one that counts: the one that it was, while that lives; else the readiest and youngest."""

        def rank(pod: Pod) -> tuple[bool, bool, bool, str]:
            life = pod.life(self.spec.port) or ""
            return bool(life) and pod.metadata.uid == self.uid, not pod.deleting, pod.ready, life

        return max(self.pods(), key=rank, default=None)

    def halt(self) -> tuple[str, int] | None:
        """Which attempt of which Pod to run does not run, if there is one."""
        pod = self.pod()
        container = pod.container(self.spec.port) if pod is not None else None
        if pod is None or container is None or container.state.running is not None:
            return None
        return pod.metadata.uid, container.restart_count


class KubernetesDriver:
    """Closing it leaves every workload as it is.

    Args:
        tasks: the group that its watches belong to; they never raise.
        specs: instances to watch from the beginning; others are watched once they are started.
        limit_s: how long a start, or a stop beyond its grace, may take before it is given up.
    """

    def __init__(
        self,
        api: KubernetesApi,
        tasks: asyncio.TaskGroup,
        specs: Iterable[Spec] = (),
        *,
        tempo: Tempo | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._api = api
        self._tasks = tasks
        self._tempo = tempo or Tempo()
        self._limit_s = limit_s
        self._known: dict[InstanceKey, _Known] = {}
        self._followed: dict[Workload, Followed] = {}
        self._followers: list[asyncio.Task[None]] = []
        self._sightings = Sightings()
        for spec in specs:
            self.know(spec)

    def __repr__(self) -> str:
        return f"<KubernetesDriver instances={len(self._known)}>"

    @property
    def startable(self) -> bool:
        return True

    @property
    def suspendable(self) -> bool:
        return False

    def know(self, spec: Spec) -> None:
        """Watch this instance from now on. Raises ValueError for a target that is none."""
        workload, ordinal = parse_target(spec.target)
        known = self._known.get(spec.key)
        if known is not None and known.spec.target == spec.target:
            known.spec = spec
            return
        followed = self._followed.get(workload)
        if followed is None:
            followed = self._followed[workload] = Followed(self._api, workload, self._tempo, self._look)
            self._followers.append(self._tasks.create_task(followed.follow(), name=f"watch {workload}"))
        self._known[spec.key] = _Known(spec, followed, ordinal)
        self._sightings.settle(spec.key, None)

    # --- starts and stops --------------------------------------------------------------

    async def start(self, spec: Spec, incarnation: str) -> Running:
        """A StatefulSet has all ordinals below the one that is started: they are started too."""
        try:
            self.know(spec)
        except ValueError as error:
            raise DriverError(Failure(FailureKind.REFUSED, f"{spec.key} has no workload", str(error))) from error
        known = self._known[spec.key]
        with self._acting(known), _explained(known, "start"):
            try:
                async with self._tempo.limit(self._limit_s):
                    await self._scale_up(known)
                    observed = await self._until_up(known)
            except TimeoutError:
                text = f"{spec.key} was not ready within {self._limit_s:g} s"
                raise DriverError(Failure(FailureKind.REFUSED, text, why_not_ready(known.pods()))) from None
            self._sightings.settle(spec.key, observed)
            assert observed.address is not None
            return Running(observed.address, observed.incarnation)

    async def _scale_up(self, known: _Known) -> None:
        workload = known.followed.workload
        wanted = 1 if known.ordinal is None else known.ordinal + 1
        for _ in range(CONFLICTS):
            scale = await self._api.scale(workload)
            if scale.replicas >= wanted:
                return
            if await self._set_scale(workload, wanted, scale.version):
                logger.info("kubernetes scaled", workload=str(workload), replicas=wanted, before=scale.replicas)
                return
        raise ApiError(409, f"the scale of {workload} is changed all the time by somebody else")

    async def _until_up(self, known: _Known) -> Observed:
        halted_before = known.halt()
        while True:
            changed = known.followed.changed
            observed, pod = self._observe(known), known.pod()
            if observed is not None and observed.running:
                return observed
            # What had crashed before will be started again by the kubelet.
            if pod is not None and known.halt() != halted_before:
                failure = start_failure(known.key, pod, known.spec.port)
                if failure is not None:
                    raise DriverError(failure)
            await changed.wait()

    async def stop(self, key: InstanceKey, grace_s: float) -> None:
        """The Pod's own `terminationGracePeriodSeconds` counts; a scale has no place for `grace_s`."""
        known = self._known.get(key)
        if known is None:
            return
        with self._acting(known):
            try:
                with _explained(known, "stop"):
                    await self._bring_down(known, grace_s)
            except DriverError:
                # Whoever asked takes it for stopped: it is to be told what is.
                self._sightings.tell(key)
                raise
            self._sightings.settle(key, None)

    async def _bring_down(self, known: _Known, grace_s: float) -> None:
        followed = known.followed
        try:
            await followed.list()  # else what is to be waited for might not be known yet
            await self._scale_down(known)
        except ApiError as error:
            if error.status == 404:  # the workload itself
                return
            raise
        pods = [pod for pod in known.pods() if not pod.ended]
        going = {pod.metadata.uid for pod in pods}
        grace_s = max([grace_s, *(pod.spec.termination_grace_period_seconds for pod in pods)])
        try:
            async with self._tempo.limit(grace_s + self._limit_s):
                while going & {pod.metadata.uid for pod in known.pods() if not pod.ended}:
                    await followed.changed.wait()
        except TimeoutError:
            text = f"{known.key} did not stop in time"
            raise DriverError(Failure(FailureKind.REFUSED, text, why_not_ready(known.pods()))) from None

    async def _scale_down(self, known: _Known) -> None:
        workload, ordinal = known.followed.workload, known.ordinal or 0
        for _ in range(CONFLICTS):
            scale = await self._api.scale(workload)
            if scale.replicas <= ordinal:
                return
            if known.ordinal is not None and scale.replicas > ordinal + 1:
                text = f"{known.key} is not the last of its StatefulSet, and only the last can be stopped"
                detail = f"{workload} has {scale.replicas} replicas, and this is ordinal {ordinal}"
                raise DriverError(Failure(FailureKind.REFUSED, text, detail))
            if await self._set_scale(workload, ordinal, scale.version):
                logger.info("kubernetes scaled", workload=str(workload), replicas=ordinal, before=scale.replicas)
                return
        raise ApiError(409, f"the scale of {workload} is changed all the time by somebody else")

    async def _set_scale(self, workload: Workload, replicas: int, version: str) -> bool:
        """False when somebody else changed it since `version`."""
        try:
            await self._api.set_scale(workload, replicas, version)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def suspend(self, key: InstanceKey) -> None:
        raise DriverError(Failure(FailureKind.NOT_SUSPENDABLE, f"{key} is a Pod: Kubernetes cannot suspend it"))

    # --- seeing ------------------------------------------------------------------------

    async def refresh(self) -> None:
        """One list per workload."""
        failures = []
        for followed in list(self._followed.values()):
            try:
                await followed.list()
            except ApiError as error:
                text = f"the Pods of {followed.workload} are not known now"
                failures.append(Failure(FailureKind.REFUSED, text, str(error)))
        if failures:
            raise DriverError(failures[0])

    def _look(self, followed: Followed) -> None:
        """Tell what follows from the Pods as they are now."""
        for known in self._known.values():
            if known.followed is followed and self._sightings.counts(known.key, self._sightings.moment):
                self._sightings.see(known.key, self._observe(known), self._sightings.moment)

    def _observe(self, known: _Known) -> Observed | None:
        """What is to be said of an instance. None: nothing of it runs, nor was seen to run before."""
        pod, port = known.pod(), known.spec.port
        before = self._sightings.inspect(known.key)
        life = pod.life(port) if pod is not None else None
        detail = f"pod {pod.metadata.name} of {known.followed.workload}" if pod is not None else "it has no Pod"
        # Readiness says when a life begins. One that is not ready for a while goes on: its sessions are there.
        goes_on = before is not None and before.running and before.incarnation == life
        if pod is not None and life is not None and pod.status.pod_ip and (pod.ready or goes_on):
            known.uid = pod.metadata.uid
            address = Address(pod.status.pod_ip, port)
            return Observed(known.key, life, running=True, address=address, detail=detail)
        if before is None:
            return None
        failure = end_failure(known.key, pod, port) if before.running else before.failure
        return Observed(known.key, before.incarnation, running=False, failure=failure, detail=detail)

    @contextlib.contextmanager
    def _acting(self, known: _Known) -> Iterator[None]:
        try:
            with self._sightings.acting(known.key):
                yield
        finally:
            # What was told meanwhile is looked at now.
            self._look(known.followed)

    def inspect(self, key: InstanceKey) -> Observed | None:
        return self._sightings.inspect(key)

    def list(self) -> Sequence[Observed]:
        return self._sightings.list()

    async def watch(self) -> AsyncGenerator[Observed, None]:
        while True:
            for observed in self._sightings.news():
                yield observed
            await self._sightings.wait()

    async def aclose(self) -> None:
        for follower in self._followers:
            follower.cancel()
        self._followers.clear()
        await self._api.aclose()


@contextlib.contextmanager
def _explained(known: _Known, verb: str) -> Iterator[None]:
    """Raise DriverError for an ApiError, in words for whoever asked."""
    try:
        yield
    except ApiError as error:
        key, resource = known.key, known.followed.workload.resource
        match error.status:
            case 401 | 403:
                needs = f"get and patch of {resource}/scale, list and watch of pods"
                text = f"the Kubernetes token may not {verb} {key}; it needs {needs}"
            case 404:
                text = f"{key}: Kubernetes knows no such workload"
            case 0:
                text = f"{key}: the Kubernetes API could not be asked to {verb} it"
            case _:
                text = f"{key}: the Kubernetes API would not {verb} it"
        raise DriverError(Failure(FailureKind.REFUSED, text, str(error))) from error
