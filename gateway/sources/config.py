"""The configuration file as a source: its apps, and its instances that are plain addresses or commands.

Apps become records here. Instances become specifications for this host's agent, which owns and publishes them.
What an earlier life of this gateway published and the file no longer names is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.agent.base import InstanceKey, Publish, Spec
from gateway.config import AppConfig
from gateway.core.record import app_body


def publish_apps(apps: Iterable[AppConfig], publisher: Publish) -> None:
    """Publish every app of the file."""
    for one in apps:
        publisher.put("app", one.app.name, app_body(one.app))


def specs(apps: Iterable[AppConfig]) -> list[Spec]:
    """What the agent is to own."""
    return [
        Spec(
            key=InstanceKey(one.app.name, instance.id),
            region=instance.region,
            address=instance.address,
            command=instance.command or (),
            env=instance.env,
            cwd=instance.cwd,
        )
        for one in apps
        for instance in one.instances
    ]
