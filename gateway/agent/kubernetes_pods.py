"""What the Kubernetes API says of a Pod, and what follows from it: which life it is in, is it ready, why not. No I/O.

Follows the API reference ("Pod v1 core", "Scale v1 autoscaling") and, for the order of resource versions, KEP-5504.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gateway.agent.base import Failure, FailureKind, InstanceKey
from gateway.agent.incarnations import after


class _Object(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


def _or_empty(value: Any) -> Any:
    return () if value is None else value


class Meta(_Object):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int = 0


class Port(_Object):
    container_port: int


class Container(_Object):
    name: str
    ports: Annotated[tuple[Port, ...], BeforeValidator(_or_empty)] = ()


class PodSpec(_Object):
    containers: tuple[Container, ...]
    termination_grace_period_seconds: int = 30


class Waiting(_Object):
    reason: str = ""
    message: str = ""


class Up(_Object):
    started_at: datetime


class Terminated(_Object):
    exit_code: int = 0
    reason: str = ""
    """`OOMKilled`, `Error`, `Completed`."""


class ContainerState(_Object):
    waiting: Waiting | None = None
    running: Up | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Object):
    name: str
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class Condition(_Object):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class PodStatus(_Object):
    phase: str = ""
    reason: str = ""
    """`Evicted`, for one."""
    pod_ip: str = Field(default="", alias="podIP")
    conditions: Annotated[tuple[Condition, ...], BeforeValidator(_or_empty)] = ()
    container_statuses: Annotated[tuple[ContainerStatus, ...], BeforeValidator(_or_empty)] = ()


class Pod(_Object):
    """The fields that are used."""

    metadata: Meta
    spec: PodSpec
    status: PodStatus = PodStatus()

    @property
    def version(self) -> int:
        return version_number(self.metadata.resource_version)

    @property
    def deleting(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def ended(self) -> bool:
        """Nothing of it runs, though the object is still there."""
        return self.status.phase in {"Succeeded", "Failed"}

    @property
    def ready(self) -> bool:
        return any(each.type == "Ready" and each.status == "True" for each in self.status.conditions)

    def container(self, port: int) -> ContainerStatus | None:
        """The container that listens on `port`: the one that declares it, or the first."""
        containers = self.spec.containers
        named = [each.name for each in containers if any(declared.container_port == port for declared in each.ports)]
        name = (named or [each.name for each in containers] or [""])[0]
        return next((each for each in self.status.container_statuses if each.name == name), None)

    def life(self, port: int) -> str | None:
        """The name of the life that the container is in; None while it does not run.

        The API tells whole seconds. Restarts are counted in the milliseconds, so that two of them within a second are
        two lives; two Pods that follow each other within one are not told apart.
        """
        container = self.container(port)
        if container is None or container.state.running is None or self.deleting or self.ended:
            return None
        began_ms = int(container.state.running.started_at.timestamp() * 1000)
        return after("", began_ms + min(container.restart_count, 999))


def version_number(resource_version: str) -> int:
    """Resource versions of one resource are numbers, of which the later is the greater (KEP-5504)."""
    return int(resource_version) if resource_version.isascii() and resource_version.isdigit() else 0


# --- targets ---------------------------------------------------------------------------


class Workload(NamedTuple):
    """What is scaled."""

    resource: str
    """`statefulsets` or `deployments`."""
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource.removesuffix('s')} {self.namespace}/{self.name}"


_NAME: Final = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_STATEFULSET: Final = re.compile(rf"statefulset/({_NAME})/({_NAME})/(0|[1-9][0-9]{{0,4}})")
_DEPLOYMENT: Final = re.compile(rf"deployment/({_NAME})/({_NAME})")


def parse_target(target: str) -> tuple[Workload, int | None]:
    """The workload, and the ordinal in a StatefulSet. Raises ValueError."""
    if (found := _STATEFULSET.fullmatch(target)) is not None:
        return Workload("statefulsets", found[1], found[2]), int(found[3])
    if (found := _DEPLOYMENT.fullmatch(target)) is not None:
        return Workload("deployments", found[1], found[2]), None
    raise ValueError(f"{target!r} is neither statefulset/NAMESPACE/NAME/ORDINAL nor deployment/NAMESPACE/NAME")


# --- reasons ---------------------------------------------------------------------------

_HOPELESS: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}


def start_failure(key: InstanceKey, pod: Pod, port: int) -> Failure | None:
    """Why waiting for this Pod is of no use, or None while it may still get ready."""
    if pod.ended:
        return _ended(key, pod)
    container = pod.container(port)
    if container is None:
        return None
    state = container.state
    if state.terminated is not None:
        return _exited(key, state.terminated) or Failure(FailureKind.EXITED, f"{key} exited before it was ready")
    if state.waiting is None:
        return None
    if state.waiting.reason == "CrashLoopBackOff":
        last = container.last_state.terminated
        early = Failure(FailureKind.EXITED, f"{key} exits again and again", "its Pod is in CrashLoopBackOff")
        return (last and _exited(key, last)) or early
    if state.waiting.reason in _HOPELESS:
        text = f"{key}: its container cannot be started ({state.waiting.reason})"
        return Failure(FailureKind.REFUSED, text, state.waiting.message)
    return None


def end_failure(key: InstanceKey, pod: Pod | None, port: int) -> Failure | None:
    """Why it ended; None after success, and when its Pod was deleted: somebody wanted that."""
    if pod is None or pod.deleting:
        return None
    if pod.ended:
        return _ended(key, pod)
    container = pod.container(port)
    if container is None:
        return None
    ended = container.state.terminated or container.last_state.terminated
    return _exited(key, ended) if ended is not None else None


def why_not_ready(pods: Iterable[Pod]) -> str:
    """For operators: what a start is still waiting for."""
    reasons = []
    for pod in pods:
        for condition in pod.status.conditions:
            if condition.status == "False" and condition.type in {"PodScheduled", "Ready"}:
                reasons.append(f"{pod.metadata.name}: {condition.reason} {condition.message}".strip())
                break
        else:
            reasons.append(f"{pod.metadata.name} is {pod.status.phase or 'not yet placed'}")
    return "; ".join(reasons) or "there is no Pod of it yet"


def _ended(key: InstanceKey, pod: Pod) -> Failure | None:
    if pod.status.phase == "Succeeded":
        return None
    text = f"{key}: its Pod has failed" + (f" ({pod.status.reason})" if pod.status.reason else "")
    return Failure(FailureKind.EXITED, text)


def _exited(key: InstanceKey, ended: Terminated) -> Failure | None:
    if ended.reason == "OOMKilled":
        return Failure(FailureKind.EXITED, f"{key} was killed because it used more memory than its limit")
    if ended.exit_code == 0:
        return None
    return Failure(FailureKind.EXITED, f"{key} exited with status {ended.exit_code}")
