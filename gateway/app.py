"""Wiring: one gateway process made of its parts, started and ended in order.

Start: catalog and logs, records of our own, agent, listeners; readiness follows the first snapshot. End (SIGTERM,
SIGINT): stop listening, let requests in flight finish within the grace, stop the instances, publish the last of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from gateway import proxy
from gateway.admin.application import Admin
from gateway.admin.application import application as admin_application
from gateway.agent.agent import Agent
from gateway.agent.fleet import Fleet
from gateway.agent.tokens import Tokens
from gateway.agent_app import first_snapshot, own_agent, url_of
from gateway.config import Config, SecretFileError, load_secrets
from gateway.control import process
from gateway.control.server import Server, bound, listen, server
from gateway.core.catalog import Catalog
from gateway.core.model import Address
from gateway.core.regions import DEFAULT_GROUPS
from gateway.core.seal import Sealer
from gateway.data import listening
from gateway.data.edge import protocol_class
from gateway.data.state import Gateway, Limits
from gateway.lifecycle.beginning import Beginnings
from gateway.lifecycle.carrying import Carrier
from gateway.lifecycle.holds import Holds
from gateway.lifecycle.presence import Presence
from gateway.lifecycle.renewing import Renewal
from gateway.lifecycle.sleeper import Sleeper
from gateway.lifecycle.slots import Slots
from gateway.lifecycle.waker import Waker
from gateway.log.feed import Following
from gateway.log.histories import Logs
from gateway.log.opening import open_feed, open_pins, open_presence, open_recordings
from gateway.log.pins import CachedPins
from gateway.log.recordings import Recordings
from gateway.sources.admin import AdminMachines
from gateway.sources.config import prune, publish_apps

SWEEP_S = 1.0
FORGET_EVERY_SWEEPS = 60

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that serves."""

    gateway: Gateway
    public: Address
    admin: Address
    agent: str
    """Where others ask its agent; empty for nowhere."""
    sleeper: Sleeper


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT; says on stdout where. Exits 1, with the reason on stderr, when it cannot."""
    process.run(lambda stop: _serve(config, stop), SecretFileError)


async def _serve(config: Config, stop: asyncio.Event) -> None:
    async with running(config) as one:
        agent = f", agent on {one.agent}" if one.agent else ""
        sys.stdout.write(f"moorage: serving on http://{one.public}, admin on http://{one.admin}{agent}\n")
        sys.stdout.flush()
        await stop.wait()
        log.info("stopping", in_flight=len(one.gateway.edges), grace_s=config.gateway.drain_grace_s)


@contextlib.asynccontextmanager
async def running(config: Config) -> AsyncIterator[Running]:
    """The gateway of a configuration, serving while the context is open.

    Raises:
        OSError: an address cannot be listened on.
        SecretFileError: the sealing secret can neither be read nor made.
    """
    settings = config.gateway
    secrets = load_secrets(config)
    with contextlib.ExitStack() as sockets:
        public, admin = (sockets.enter_context(listen(address)) for address in (settings.listen, settings.admin))
        private = sockets.enter_context(listen(settings.private)) if settings.private is not None else None
        at = config.agent.listen if config.agent.inside else None
        asked = sockets.enter_context(listen(at)) if at is not None else None
        async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as ending:
            background: list[asyncio.Task[None]] = []

            def spawn(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
                return tasks.create_task(_guarded(work))

            def forever(work: Coroutine[object, object, None]) -> None:
                background.append(tasks.create_task(work))

            catalog = Catalog(settings.region)
            regions = {settings.region, *(one.region for app in config.apps for one in app.instances)}
            histories = Logs(settings.catalog, catalog, settings.region, regions, bound(public), forever)
            ending.push_async_callback(histories.aclose)
            pins = CachedPins(open_pins(settings.catalog))
            ending.push_async_callback(pins.aclose)
            recordings = Recordings(open_recordings(settings.catalog))
            ending.push_async_callback(recordings.aclose)
            feed = open_feed(settings.catalog, "replays")
            ending.push_async_callback(feed.aclose)
            whereabouts = open_presence(settings.catalog)
            ending.push_async_callback(whereabouts.aclose)
            ending.push_async_callback(process.cancel, background)
            gateway = Gateway(
                region=settings.region,
                limits=Limits(**settings.limits.model_dump()),
                trusted_proxies=settings.trusted_proxies,
                catalog=catalog,
                sealer=Sealer(secrets),
                pins=pins,
                spawn=spawn,
                groups={**DEFAULT_GROUPS, **settings.region_groups},
            )
            await first_snapshot(histories)
            publish_apps(config.apps, histories.config)
            tokens = Tokens(secrets)
            own: Agent | None = None
            if config.agent.inside:
                own = await ending.enter_async_context(own_agent(tasks, config, catalog, histories, tokens, asked))
            agents = Fleet(own, histories.agent_writer, catalog.instance, tokens)
            ending.push_async_callback(agents.aclose)
            holds = Holds()
            waker, slots = Waker(tasks, catalog, agents, holds=holds), Slots(holds)
            ending.callback(waker.close)
            ending.callback(catalog.subscribe(slots.changed))
            ending.callback(catalog.subscribe(gateway.lot_changed))
            gateway.loads.freed = slots.freed
            sharing = Following(feed, gateway.replays)
            gateway.replays.publish, gateway.replays.connected = sharing.publish, lambda: sharing.connected
            forever(sharing.run())
            presence = Presence(gateway, whereabouts, histories.name)
            ending.callback(presence.close)
            sleeper = Sleeper(tasks, catalog, agents, presence, whereabouts, histories.name)
            forever(presence.run())
            forever(sleeper.run())
            gateway.recordings = recordings
            beginnings = Beginnings(gateway, waker, slots)
            ending.push_async_callback(beginnings.aclose)
            carrier = Carrier(gateway, recordings, beginnings, holds)
            ending.callback(carrier.close)
            ending.callback(catalog.subscribe(lambda app: listening.release(gateway, app)))
            forever(Renewal(gateway, recordings).run())
            gateway.slow_path = proxy.application(waker, slots, pins, carrier)
            forever(_settle(gateway, histories, config))
            forever(_sweep(gateway))
            token = settings.admin_token.get_secret_value() if settings.admin_token is not None else None
            administration = Admin(
                gateway=gateway,
                agent=agents,
                machines=AdminMachines(
                    catalog,
                    histories.admin,
                    histories.admin_writer,
                    listeners=[bound(one) for one in (public, private, admin, asked) if one is not None],
                ),
                waker=waker,
                holds=holds,
                followers=histories.followers,
                pins=pins,
                sleeper=sleeper,
                presence=presence,
                whereabouts=whereabouts,
                id=histories.name,
                version=version("moorage"),
                started_at_s=time.time(),  # noqa: TID251 - said to people
                token=token,
            )
            servers = [
                server(gateway.slow_path, public, grace_s=settings.drain_grace_s, http=protocol_class(gateway)),
                server(admin_application(administration), admin, grace_s=1.0),
            ]
            if private is not None:
                protocol = protocol_class(gateway, private=True)
                servers.insert(1, server(gateway.slow_path, private, grace_s=settings.drain_grace_s, http=protocol))
            serving = [tasks.create_task(one.run_on_socket()) for one in servers]
            for one in servers:
                await one.listening()
            yield Running(gateway, bound(public), bound(admin), url_of(config, asked), sleeper)
            await _stop(gateway, servers, serving)


async def _stop(gateway: Gateway, servers: list[Server], serving: list[asyncio.Task[None]]) -> None:
    """No new connections; what is in flight gets the grace; the public listener ends first."""
    gateway.drain()
    for one, task in zip(servers, serving, strict=True):
        one.stop()
        await task
        for edge in list(gateway.edges):
            edge.reset()
    gateway.pool.close()


async def _settle(gateway: Gateway, histories: Logs, config: Config) -> None:
    """Once the catalog is known: drop what an earlier life published and nothing names any more; be ready."""
    await histories.ready()
    if not config.agent.inside:
        # Else the agent does, which knows more than the file.
        prune(gateway.catalog, config.apps, histories)
    gateway.ready = True
    log.info("ready", apps=len(gateway.catalog.apps()))
    await asyncio.Event().wait()


async def _sweep(gateway: Gateway) -> None:
    """The gateway's clock."""
    loop = asyncio.get_running_loop()
    sweeps = 0
    while True:
        gateway.sweep(loop.time())
        sweeps += 1
        if sweeps % FORGET_EVERY_SWEEPS == 0:
            gateway.forget_idle_sessions()
        await asyncio.sleep(SWEEP_S)  # noqa: TID251 - the clock itself


async def _guarded(work: Coroutine[object, object, None]) -> None:
    """A task of one request: whatever happens in it ends there, and not with the worker."""
    try:
        await work
    except Exception:
        log.exception("a request's task failed")
