"""Containers under measurement, asked for from the Docker engine's own socket: its command would add its own start.

Docker Engine API 1.41: https://docs.docker.com/reference/api/engine/. An image is not pulled: any Python image that the
engine has is taken.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from benchmarks.processes import Broken
from benchmarks.sleeping import APP, ID

SOCKET = "/var/run/docker.sock"
PORT = 9000
LABELLED = {"moorage.app": APP, "moorage.id": ID, "moorage.port": str(PORT)}
"""What makes a container an instance."""

_LIMIT_S = 60.0
_SCRIPT = Path(__file__).parent / "tiny.py"


class EngineRefused(Broken):
    """The engine cannot be asked, or refuses."""


class Engine:
    """The engine of this machine. Use it by `with`."""

    def __init__(self) -> None:
        transport = httpx2.HTTPTransport(uds=SOCKET)
        self._client = httpx2.Client(transport=transport, base_url="http://docker/v1.41", timeout=_LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def image(self) -> str:
        """A Python image that is here; empty for none."""
        tags = [tag for one in self._ask("GET", "/images/json") for tag in one.get("RepoTags") or ()]
        return max((tag for tag in tags if tag.startswith("python:3")), default="")

    def instances(self) -> list[str]:
        """The containers that a gateway on this engine takes for instances."""
        filters = json.dumps({"label": ["moorage.app"]})
        return [one["Id"] for one in self._ask("GET", "/containers/json", all="1", filters=filters)]

    @contextlib.contextmanager
    def container(self, labels: Mapping[str, str]) -> Iterator[str]:
        """A container that has never been started, for the length of the block; its id."""
        body = {
            "Image": self.image(),
            "Cmd": ["python3", "/tiny.py", "0.0.0.0", str(PORT)],
            "Labels": dict(labels),
            "HostConfig": {"Binds": [f"{_SCRIPT}:/tiny.py:ro"]},
        }
        id = str(self._ask("POST", "/containers/create", body)["Id"])
        try:
            yield id
        finally:
            self._ask("DELETE", f"/containers/{id}", force="1", v="1")

    def start(self, id: str) -> None:
        self._ask("POST", f"/containers/{id}/start")

    def stop(self, id: str) -> None:
        self._ask("POST", f"/containers/{id}/stop", t="5")

    def address(self, id: str) -> str:
        """Its IP address on the bridge."""
        return str(self._ask("GET", f"/containers/{id}/json")["NetworkSettings"]["IPAddress"])

    def _ask(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """Raises EngineRefused."""
        try:
            answer = self._client.request(method, path, params=query, json=body)
        except httpx2.HTTPError as error:
            raise EngineRefused(f"{SOCKET}: {error}") from error
        if answer.status_code >= 400:
            raise EngineRefused(f"{method} {path}: {answer.status_code} {answer.text.strip()}")
        return answer.json() if answer.content else None


def lacking() -> str:
    """Why no container can be measured here; empty if one can."""
    try:
        with Engine() as engine:
            if not engine.image():
                return "the Docker engine has no image python:3..."
            if engine.instances():
                # The gateway under measurement would take them for its own, and put them to sleep if they ask for it.
                return "other containers of this engine have the label moorage.app"
    except EngineRefused as error:
        return f"no Docker engine answers ({error})"
    return ""
