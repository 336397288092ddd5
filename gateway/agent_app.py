"""Wiring of an agent: the one inside a gateway, and `moorage agent`, a program of its own.

Start: catalog and logs, the agent with what its file names, its API. End (SIGTERM, SIGINT): stop the instances that are
processes of this host, stop listening, publish the last of it. What a platform runs goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.agent.agent import Agent
from gateway.agent.api import application
from gateway.agent.base import DriverName
from gateway.agent.docker import DockerDriver
from gateway.agent.docker_api import DockerApi
from gateway.agent.tokens import Tokens
from gateway.agent_platforms import platforms
from gateway.config import Config, SecretFileError, load_secrets
from gateway.control import process
from gateway.control.server import bound, listen, server
from gateway.core.bodies import app_body
from gateway.core.catalog import Catalog
from gateway.core.model import Address, App
from gateway.core.record import RecordKind
from gateway.log.histories import Logs
from gateway.sources.config import prune, specs
from gateway.sources.docker import DockerSource

DEFAULT_LISTEN: Final = Address("127.0.0.1", 8082)
REFRESH_EVERY_S: Final = 30.0
FIRST_SNAPSHOT_S: Final = 2.0
"""How long the catalog is waited for at the start; without it, what the file names is run all the same."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """An agent that serves."""

    agent: Agent
    url: str
    """Where gateways ask it."""
    writer: str
    """Under which name it publishes."""


@contextlib.asynccontextmanager
async def own_agent(
    tasks: asyncio.TaskGroup,
    config: Config,
    catalog: Catalog,
    histories: Logs,
    tokens: Tokens,
    listener: socket.socket | None,
) -> AsyncIterator[Agent]:
    """The agent of the file's instances and of this host's labelled containers; asked through `listener`, or by none
    but this process. It drops what an earlier life published and nothing names any more.

    What an operator stopped or cordoned stands in the catalog: await `first_snapshot` before.
    """
    url = url_of(config, listener)
    async with contextlib.AsyncExitStack() as ending:
        drivers = platforms(tasks, config, ending)
        engine = None
        if config.agent.docker:
            engine = await ending.enter_async_context(DockerApi(config.agent.docker))
            drivers[DriverName.DOCKER] = DockerDriver(engine)
        agent = Agent(
            tasks,
            histories.agent,
            owner=histories.agent_writer,
            instances=specs(config.apps),
            remembered=catalog.instance,
            drivers=drivers,
            url=url,
            start_limit=config.gateway.start_limit,
        )
        await ending.enter_async_context(agent)
        containers = _containers(config, engine, agent, histories) if engine is not None else None
        background = [
            tasks.create_task(_refresh(agent), name="refresh platforms"),
            tasks.create_task(_prune(config, catalog, histories, containers), name="drop what is gone"),
        ]
        if containers is not None:
            background.append(tasks.create_task(containers.run(), name="follow docker"))
        ending.push_async_callback(process.cancel, background)
        if listener is None:
            yield agent
            return
        api = server(application(agent, tokens, url), listener, grace_s=1.0)
        serving = tasks.create_task(api.run_on_socket())
        await api.listening()
        yield agent
        # The agent ends first: who asks meanwhile is told so.
        await ending.aclose()
        api.stop()
        await serving


def _containers(config: Config, engine: DockerApi, agent: Agent, histories: Logs) -> DockerSource:
    """The labelled containers as a source. Apps of the file are settled by the file."""

    def publish(app: App) -> None:
        histories.config.put(RecordKind.APP, app.name, app_body(app))

    settled = {one.app.name: one.app for one in config.apps}
    return DockerSource(engine, agent, publish, region=config.gateway.region, settled=settled)


async def _prune(config: Config, catalog: Catalog, histories: Logs, containers: DockerSource | None) -> None:
    await histories.ready()
    found = await containers.settled() if containers is not None else ()
    prune(catalog, config.apps, histories, found)


async def first_snapshot(histories: Logs) -> None:
    """Return when the catalog is known, or when it was waited for long enough."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_SNAPSHOT_S):
            await histories.ready()


def url_of(config: Config, listener: socket.socket | None) -> str:
    """Where an agent that listens here is asked; empty for one that does not."""
    return "" if listener is None else config.agent.url or f"http://{bound(listener)}"


async def _refresh(agent: Agent) -> None:
    while True:
        await asyncio.sleep(REFRESH_EVERY_S)  # noqa: TID251 - for what no platform announces
        await agent.refresh()


# --- a program of its own --------------------------------------------------------------


def serve(config: Config) -> None:
    """Run the agent until SIGTERM or SIGINT; says on stdout where. Exits 1 and says why on stderr when it cannot."""
    process.run(lambda stop: _serve(config, stop), SecretFileError)


async def _serve(config: Config, stop: asyncio.Event) -> None:
    if config.agent.inside:
        log.warning("[agent] inside is true: a gateway with this file runs the same instances once more")
    async with running(config) as one:
        sys.stdout.write(f"moorage: agent serving on {one.url}, as {one.writer}\n")
        sys.stdout.flush()
        await stop.wait()
        log.info("stopping", instances=len(await one.agent.list()))


@contextlib.asynccontextmanager
async def running(config: Config) -> AsyncIterator[Running]:
    """The agent of a configuration, serving while the context is open.

    Raises:
        OSError: its address cannot be listened on.
        SecretFileError: the secret can neither be read nor made.
    """
    settings = config.gateway
    tokens = Tokens(load_secrets(config))
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(listen(config.agent.listen or DEFAULT_LISTEN))
        async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as ending:
            background: list[asyncio.Task[None]] = []

            def forever(work: Coroutine[object, object, None]) -> None:
                background.append(tasks.create_task(work))

            catalog = Catalog(settings.region)
            regions = {one.region for app in config.apps for one in app.instances}
            histories = Logs(settings.catalog, catalog, settings.region, regions, bound(listener), forever)
            ending.push_async_callback(histories.aclose)
            ending.push_async_callback(process.cancel, background)
            await first_snapshot(histories)
            agent = await ending.enter_async_context(own_agent(tasks, config, catalog, histories, tokens, listener))
            yield Running(agent, url_of(config, listener), histories.agent_writer)
