"""The configuration file as a source: its apps, and its instances that are plain addresses or commands.

Apps become records here. Instances become specifications for this host's agent, which owns and publishes them.
What an earlier life of this gateway published and the file no longer names is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from gateway.agent.base import DriverName, InstanceKey, Publish, Spec
from gateway.config import AppConfig, InstanceConfig
from gateway.core.bodies import app_body
from gateway.core.catalog import Catalog
from gateway.core.model import App
from gateway.core.record import RecordKind


class Writers(Protocol):
    """Under which names this gateway wrote, and where it deletes."""

    @property
    def config_writer(self) -> str: ...

    @property
    def agent_writer(self) -> str: ...

    @property
    def config(self) -> Publish: ...

    @property
    def agent(self) -> Publish: ...


def publish_apps(apps: Iterable[AppConfig], publish: Publish) -> None:
    """Publish every app of the file."""
    for one in apps:
        publish.put(RecordKind.APP, one.app.name, app_body(one.app))


def specs(apps: Iterable[AppConfig]) -> list[tuple[App, Spec]]:
    """What the agent is to own."""
    return [
        (
            one.app,
            Spec(
                key=InstanceKey(one.app.name, instance.id),
                region=instance.region,
                address=instance.address,
                command=instance.command or (),
                env=instance.env,
                cwd=instance.cwd,
                platform=_platform(instance),
                target=instance.fly or instance.kubernetes,
                port=instance.port,
            ),
        )
        for one in apps
        for instance in one.instances
    ]


def _platform(instance: InstanceConfig) -> DriverName | None:
    if instance.fly:
        return DriverName.FLY
    return DriverName.KUBERNETES if instance.kubernetes else None


def prune(catalog: Catalog, apps: Iterable[AppConfig], writers: Writers, found: Collection[str] = ()) -> None:
    """Delete what this gateway's file once named and names no longer. `found`: keys of records that have another source
    than the file."""
    named = {*found}
    named |= {f"{RecordKind.APP}/{one.app.name}" for one in apps}
    named |= {f"{RecordKind.INSTANCE}/{spec.key}" for _, spec in specs(apps)}
    publishers = {writers.config_writer: writers.config, writers.agent_writer: writers.agent}
    for record in list(catalog.records()):
        publish = publishers.get(record.writer)
        if publish is not None and not record.deleted and record.key not in named:
            publish.delete(record.kind, record.id)
