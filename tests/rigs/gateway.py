"""The gateway as its users run it: a moorage.toml, `moorage serve`, signals; nothing of its inside.

Several rigs given the same `secret` and configuration stand for a fleet of gateways.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import httpx2

from tests.rigs.run import Bench, Process, free_port, until

SECRET = "rig-secret-of-thirty-two-bytes-or-more"


@dataclass(frozen=True, slots=True)
class Static:
    """An instance that is only an address."""

    id: str
    port: int

    def toml(self, app: str) -> str:
        return f'[[apps.{app}.instances]]\nid = "{self.id}"\naddress = "127.0.0.1:{self.port}"\n'


@dataclass(frozen=True, slots=True)
class Started:
    """An instance that the gateway starts; `{port}` in its command is filled in by the gateway."""

    id: str
    command: Sequence[str]

    def toml(self, app: str) -> str:
        return f'[[apps.{app}.instances]]\nid = "{self.id}"\ncommand = {json.dumps(list(self.command))}\n'


@dataclass(frozen=True, slots=True)
class AppSpec:
    """One app of the file: its settings as TOML values, and its instances."""

    name: str
    instances: Sequence[Static | Started]
    settings: Mapping[str, object] = field(default_factory=dict)

    def toml(self) -> str:
        lines = [f"[apps.{self.name}]", *(f"{key} = {_value(value)}" for key, value in self.settings.items()), ""]
        return "\n".join(lines) + "\n" + "\n".join(instance.toml(self.name) for instance in self.instances)


def _value(value: object) -> str:
    """A TOML value: JSON's spelling of strings, numbers and booleans is also TOML's."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def document(apps: Sequence[AppSpec], gateway: Mapping[str, object], agent: Mapping[str, object]) -> str:
    """A moorage.toml; its secret is in the environment, its catalog in memory unless `gateway` says otherwise."""
    tables = {
        "gateway": {"secret": ["env:MOORAGE_SECRET"], "catalog": "memory:", **gateway},
        "agent": agent,
    }
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    ]
    return "\n".join([*lines, *(app.toml() for app in apps)])


class Gateway:
    """One gateway process and its file."""

    def __init__(
        self,
        bench: Bench,
        name: str,
        apps: Sequence[AppSpec],
        settings: Mapping[str, object],
        agent: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.port = free_port()
        self.admin_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self.file = bench.directory / f"{name}.toml"
        self._bench = bench
        self._process: Process | None = None
        gateway = {
            "listen": f"127.0.0.1:{self.port}",
            "admin": f"127.0.0.1:{self.admin_port}",
            **settings,
        }
        self.file.write_text(document(apps, gateway, agent))

    @classmethod
    async def serve(
        cls, bench: Bench, name: str, *apps: AppSpec, agent: Mapping[str, object] | None = None, **settings: object
    ) -> Self:
        """Write the file, start the gateway, wait until it is ready. `settings` go into `[gateway]`, `agent` into
        `[agent]`."""
        gateway = cls(bench, name, apps, settings, agent or {})
        await gateway.start()
        return gateway

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"gateway {self.name} was not started")
        return self._process

    async def start(self) -> None:
        """Start it on its own ports, also after `kill`, and wait for /readyz to say 200."""
        process = await self._bench.python(
            self.name, "gateway", "serve", "-c", str(self.file), env={"MOORAGE_SECRET": SECRET}
        )
        self._process = process
        await process.ready(self.admin_port)
        await process.ready(self.port)
        await until(self._is_ready, f"{self.name} is ready; it wrote:\n{process.output()}")

    async def kill(self) -> None:
        """SIGKILL: connections reset, nothing said to anyone."""
        await self.process.kill()

    async def stop(self) -> int:
        """SIGTERM and its drain; the exit code."""
        return await self.process.stop(grace_s=10.0)

    async def post(self, path: str, message: Mapping[str, object], headers: Mapping[str, str]) -> httpx2.Response:
        """One JSON-RPC message by hand, for what no SDK would send."""
        accept = {"accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient(trust_env=False, timeout=10.0) as client:
            return await client.post(self.url + path, json=dict(message), headers={**accept, **headers})

    async def admin(self, path: str) -> Any:
        """GET a JSON document of the admin API."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            response = await client.get(self.admin_url + path)
            response.raise_for_status()
            return response.json()

    async def register(self, app: str, machine: Mapping[str, object]) -> httpx2.Response:
        """POST an instance to the admin API."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            return await client.post(f"{self.admin_url}/v1/apps/{app}/machines", json=dict(machine))

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, its name with labels as printed."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            response = await client.get(f"{self.admin_url}/metrics")
            response.raise_for_status()
        samples = (line.rsplit(" ", 1) for line in response.text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    async def _is_ready(self) -> bool:
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=2.0) as client:
                return (await client.get(f"{self.admin_url}/readyz")).status_code == 200
        except httpx2.TransportError:
            return False
