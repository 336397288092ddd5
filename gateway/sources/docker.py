"""The containers of a Docker engine as a source: their labels become apps and instances, for as long as they exist.

Instances become specifications for this host's agent, which owns and publishes them. The source follows the engine's
events, and looks at everything again now and then. While the engine cannot be asked, nothing changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

import structlog

from gateway.agent.base import InstanceKey, Spec
from gateway.core.model import App
from gateway.sources.docker_labels import Labelled, read_containers

logger = structlog.get_logger(__name__)

ACTIONS: Final = frozenset({"create", "rename", "destroy"})
SILENCE_S: Final = 30.0
"""Without an event for so long, everything is looked at again."""


class Engine(Protocol):
    """What is asked of a Docker engine: `gateway.agent.docker_api` has it."""

    @property
    def label(self) -> str:
        """The one that makes a container an instance."""

    async def containers(self) -> Sequence[Labelled]:
        """Every container with that label."""

    async def follow(
        self,
        actions: Collection[str],
        connected: Callable[[], Awaitable[None]],
        happened: Callable[[Any], Awaitable[None]],
        *,
        silence_s: float,
    ) -> None:
        """Await `happened` for each event, and `connected` whenever some may have been missed. Their failures to ask
        the engine are dealt with there."""


class Owner(Protocol):
    """The agent that owns what is found."""

    async def add(self, app: App, spec: Spec) -> object:
        """Raises ValueError when it is owned already, or cannot be."""

    async def remove(self, app: str, id: str) -> object: ...


class DockerSource:
    """The containers of one engine, for one agent."""

    def __init__(
        self,
        engine: Engine,
        owner: Owner,
        publish_app: Callable[[App], None],
        *,
        region: str = "local",
        settled: Mapping[str, App] = MappingProxyType({}),
        silence_s: float = SILENCE_S,
    ) -> None:
        """Args:
        publish_app: is given an app whose settings come from labels, at first and when they have changed.
        region: of containers that do not say their own.
        settled: the apps of the configuration file: their containers join them, and change nothing of them.
        """
        self._engine = engine
        self._owner = owner
        self._publish_app = publish_app
        self._region = region
        self._settled = settled
        self._silence_s = silence_s
        self._apps: dict[str, App] = {}
        self._owned: dict[InstanceKey, Spec] = {}
        self._looked = asyncio.Event()
        self._said: set[tuple[str, str]] = set()
        """Complaints that were logged, as long as they hold."""

    def __repr__(self) -> str:
        return f"<DockerSource instances={len(self._owned)} {self._engine!r}>"

    async def run(self) -> None:
        """Follow the engine until cancelled."""
        await self._engine.follow(ACTIONS, self.reconcile, self._on_event, silence_s=self._silence_s)

    async def settled(self) -> Collection[str]:
        """The keys of the records of what was found, once the engine was looked at for the first time."""
        await self._looked.wait()
        return {*(f"app/{name}" for name in self._apps), *(f"instance/{key}" for key in self._owned)}

    async def _on_event(self, event: object) -> None:
        await self.reconcile()

    async def reconcile(self) -> None:
        """Look at all containers, and hand over what is new, changed or gone. Raises what the engine does."""
        label = self._engine.label
        containers = await self._engine.containers()
        roster = read_containers(containers, label=label, region=self._region, settled=self._settled)
        complaints = set(roster.complaints)
        for key, spec in list(self._owned.items()):
            if key not in roster.instances or roster.instances[key][1] != spec:
                del self._owned[key]
                await self._owner.remove(*key)
        for name, app in roster.apps.items():
            if self._apps.get(name) != app:
                self._publish_app(app)
        self._apps = dict(roster.apps)
        for key, (app, spec) in roster.instances.items():
            if key in self._owned:
                continue
            try:
                await self._owner.add(app, spec)
            except ValueError as error:
                complaints.add((spec.target[:12], str(error)))
            else:
                self._owned[key] = spec
        self._complain(complaints)
        self._looked.set()

    def _complain(self, complaints: set[tuple[str, str]]) -> None:
        for container, text in sorted(complaints - self._said):
            logger.warning("docker labels", container=container, fault=text)
        self._said = complaints
