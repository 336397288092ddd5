"""The part of the Kubernetes API that the driver uses: Pods are listed and watched, scales read and patched.

Follows the API concepts page ("Efficient detection of changes", "Resource versions") and the reference of the `scale`
subresource. Nothing is created or deleted here.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, BeforeValidator

from gateway.agent.kubernetes_pods import Meta, Pod, Workload
from gateway.agent.rest import ApiError, Rest, read
from gateway.agent.tempo import Tempo

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_S: Final = 300
"""After so long the server ends a watch, and another one goes on where it ended."""
SILENCE_S: Final = 120.0
"""Bookmarks come about once a minute: a connection that is silent for longer is dead."""
GONE: Final = 410


class Access(NamedTuple):
    """Where the API is, and with what it is asked. The token's file wins: it is replaced every hour."""

    url: str
    token: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None
    """None: the system's certificate authorities."""

    def __repr__(self) -> str:
        return f"<Access {self.url}>"

    def bearer(self) -> str:
        if self.token_file is None:
            return self.token
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ApiError(0, f"the token in {self.token_file} cannot be read: {error}") from error


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """The access of the Pod that this process runs in, by its service account. Raises ValueError elsewhere."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (folder / "token").exists():
        raise ValueError("this is no Pod with a service account; give the API's URL, a token and a CA file")
    host = f"[{host}]" if ":" in host else host
    return Access(f"https://{host}:{port}", token_file=folder / "token", ca_file=folder / "ca.crt")


class Scale(NamedTuple):
    """How many replicas are asked for."""

    replicas: int
    selector: str
    """Of the workload's Pods."""
    version: str


class Listed(NamedTuple):
    pods: tuple[Pod, ...]
    version: str
    """From where a watch goes on."""


class Change(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Changed:
    """One event of a watch; a bookmark has no Pod."""

    change: Change
    version: str
    pod: Pod | None = None


class _Replicas(BaseModel):
    replicas: int = 0
    selector: str = ""


class _Scale(BaseModel):
    metadata: Meta
    spec: _Replicas = _Replicas()
    status: _Replicas = _Replicas()


class _Pods(BaseModel):
    metadata: Meta
    items: Annotated[tuple[Pod, ...], BeforeValidator(lambda items: items or ())] = ()


class _Bookmark(BaseModel):
    metadata: Meta


class _Event(BaseModel):
    type: Change
    object: dict[str, Any]


class KubernetesApi:
    """One service account's view of the API. Every call raises ApiError."""

    def __init__(self, access: Access, *, tempo: Tempo | None = None) -> None:
        """Raises OSError or ssl.SSLError when the CA file cannot be used."""
        verify: ssl.SSLContext | bool = True
        if access.ca_file is not None:
            verify = ssl.create_default_context(cafile=access.ca_file)
        self._rest = Rest(access.url, access.bearer, tempo or Tempo(), verify=verify)

    def __repr__(self) -> str:
        return f"<KubernetesApi {self._rest!r}>"

    async def scale(self, workload: Workload) -> Scale:
        path = _scale_path(workload)
        response = await self._rest.ask("GET", path)
        scale = read(_Scale, response.content, f"GET {path}")
        return Scale(scale.spec.replicas, scale.status.selector, scale.metadata.resource_version)

    async def set_scale(self, workload: Workload, replicas: int, version: str) -> None:
        """Ask for so many replicas; ApiError with 409 when the scale changed since it had this version."""
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        await self._rest.ask("PATCH", _scale_path(workload), body=body, content_type="application/merge-patch+json")

    async def pods(self, namespace: str, selector: str) -> Listed:
        path = f"/api/v1/namespaces/{namespace}/pods"
        response = await self._rest.ask("GET", path, params={"labelSelector": selector})
        listed = read(_Pods, response.content, f"GET {path}")
        return Listed(listed.items, listed.metadata.resource_version)

    async def watch(self, namespace: str, selector: str, version: str) -> AsyncGenerator[Changed, None]:
        """Every change after `version`, until the server ends the watch. ApiError with 410: list again."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        params: dict[str, str | int] = {
            "labelSelector": selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": WATCH_S,
        }
        async with self._rest.lines(path, params, SILENCE_S) as lines:
            async for line in lines:
                if line.strip():
                    yield _changed(line, f"GET {path}?watch=true")

    async def aclose(self) -> None:
        await self._rest.aclose()


def _scale_path(workload: Workload) -> str:
    return f"/apis/apps/v1/namespaces/{workload.namespace}/{workload.resource}/{workload.name}/scale"


def _changed(line: str, what: str) -> Changed:
    event = read(_Event, line, what)
    if event.type is Change.ERROR:
        status, message = event.object.get("code"), event.object.get("message")
        raise ApiError(status if isinstance(status, int) else 500, f"{what} ended: {message}")
    if event.type is Change.BOOKMARK:
        return Changed(event.type, read(_Bookmark, event.object, what).metadata.resource_version)
    pod = read(Pod, event.object, what)
    return Changed(event.type, pod.metadata.resource_version, pod)
