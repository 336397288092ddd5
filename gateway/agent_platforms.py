"""The drivers for Fly Machines and for Pods, as a configuration asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl

from gateway.agent.base import Driver, DriverName
from gateway.agent.fly import FlyDriver
from gateway.agent.fly_api import FlyApi
from gateway.agent.kubernetes import KubernetesDriver
from gateway.agent.kubernetes_api import Access, KubernetesApi, in_cluster
from gateway.config import AgentSettings, Config
from gateway.config.platforms import IN_CLUSTER
from gateway.sources.config import specs


def platforms(tasks: asyncio.TaskGroup, config: Config, ending: contextlib.AsyncExitStack) -> dict[DriverName, Driver]:
    """The drivers; their clients are closed with `ending`, after the agent.

    Raises:
        OSError: a platform cannot be asked as the file says.
    """
    settings, drivers = config.agent, dict[DriverName, Driver]()
    wanted = [spec for _, spec in specs(config.apps)]
    if settings.fly_token is not None:
        fly = FlyApi(settings.fly_token.get_secret_value(), url=settings.fly_api)
        ending.push_async_callback(fly.aclose)
        drivers[DriverName.FLY] = FlyDriver(fly, [one for one in wanted if one.driver is DriverName.FLY])
    if settings.kubernetes:
        kubernetes = _kubernetes(settings)
        ending.push_async_callback(kubernetes.aclose)
        pods = [one for one in wanted if one.driver is DriverName.KUBERNETES]
        drivers[DriverName.KUBERNETES] = KubernetesDriver(kubernetes, tasks, pods)
    return drivers


def _kubernetes(settings: AgentSettings) -> KubernetesApi:
    try:
        if settings.kubernetes == IN_CLUSTER:
            return KubernetesApi(in_cluster(os.environ))
        token = settings.kubernetes_token.get_secret_value() if settings.kubernetes_token is not None else ""
        return KubernetesApi(Access(settings.kubernetes, token, None, settings.kubernetes_ca))
    except (ValueError, ssl.SSLError) as error:
        raise OSError(f"[agent] kubernetes: {error}") from None
