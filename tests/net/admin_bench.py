"""A gateway's parts behind a real admin listener, as gateway/app.py joins them, without the public one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from gateway.admin.application import Admin, application
from gateway.agent.agent import Agent
from gateway.agent.base import DriverName, Spec
from gateway.agent.process import ProcessDriver
from gateway.control.server import bound, listen, server
from gateway.core.bodies import app_body
from gateway.core.catalog import Catalog
from gateway.core.model import Address, App, Instance, Pin
from gateway.core.seal import Sealer
from gateway.data.state import Gateway, Limits
from gateway.lifecycle.holds import Holds
from gateway.lifecycle.presence import Presence
from gateway.lifecycle.sleeper import Sleeper
from gateway.lifecycle.waker import Waker
from gateway.log.base import LogUnavailable
from gateway.log.histories import Logs
from gateway.log.presence_memory import MemoryPresence
from gateway.sources.admin import AdminMachines
from tests.net.yard import quiet

SECRET = b"bench-secret-of-thirty-two-bytes"
PUBLIC = Address("127.0.0.1", 8080)
_numbers = itertools.count()


class Pins:
    """A pin store in a dict, which can be away."""

    def __init__(self) -> None:
        self.pins: dict[tuple[str, str, bytes], Pin] = {}
        self.away = False

    async def put(self, app: str, kind: str, key: bytes, pin: Pin, ttl_s: float) -> None:
        self.pins[app, kind, key] = pin

    async def get(self, app: str, kind: str, key: bytes) -> Pin | None:
        if self.away:
            raise LogUnavailable("memory:", "away", "wait")
        return self.pins.get((app, kind, key))


@dataclass(frozen=True, slots=True)
class Bench:
    """What a test may look at and move."""

    admin: Admin
    gateway: Gateway
    agent: Agent
    logs: Logs
    pins: Pins
    presence: Presence
    whereabouts: MemoryPresence
    address: Address
    client: httpx2.AsyncClient
    """Asks with the token, when there is one."""

    async def get(self, path: str, /, **params: Any) -> Any:
        """The JSON of a GET that is to succeed."""
        response = await self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def instance(self, id: str, app: str = "tools") -> Instance:
        found = self.gateway.catalog.instance(app, id)
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def bench(
    *apps: App, instances: Sequence[tuple[App, Spec]] = (), token: str | None = None, ready: bool = True
) -> AsyncIterator[Bench]:
    """The parts, running until the context is left. An exception of the test is raised as it is."""
    caught: BaseException | None = None
    async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as ending:
        background: list[asyncio.Task[None]] = []

        def forever(work: Coroutine[object, object, None]) -> None:
            background.append(tasks.create_task(work))

        def spawn(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
            return tasks.create_task(work)

        ending.callback(lambda: [task.cancel() for task in background])
        catalog = Catalog("local")
        logs = Logs(f"memory:bench-{next(_numbers)}", catalog, "local", [], PUBLIC, forever)
        for app in apps:
            logs.config.put("app", app.name, app_body(app))
        pins, holds = Pins(), Holds()
        gateway = Gateway(
            region="local",
            limits=Limits(),
            trusted_proxies=(),
            catalog=catalog,
            sealer=Sealer([SECRET]),
            pins=pins,
            spawn=spawn,
        )
        gateway.ready = ready
        agent = await ending.enter_async_context(
            Agent(
                tasks,
                logs.agent,
                owner=logs.agent_writer,
                instances=instances,
                drivers={DriverName.PROCESS: ProcessDriver(output=quiet)},
            )
        )
        waker = Waker(tasks, catalog, agent, holds=holds)
        ending.callback(waker.close)
        whereabouts = MemoryPresence()
        presence = Presence(gateway, whereabouts, logs.name)
        ending.callback(presence.close)
        # It says and hears something when a test has it do so; the sleeper sleeps itself.
        sleeper = Sleeper(tasks, catalog, agent, presence, whereabouts, logs.name)
        if ready:
            await logs.ready()
            await presence.speak()
        listener = ending.enter_context(listen(Address("127.0.0.1", 0)))
        address = bound(listener)
        admin = Admin(
            gateway=gateway,
            agent=agent,
            machines=AdminMachines(catalog, logs.admin, logs.admin_writer, listeners=(PUBLIC, address)),
            waker=waker,
            holds=holds,
            followers=logs.followers,
            pins=pins,
            sleeper=sleeper,
            presence=presence,
            whereabouts=whereabouts,
            id=logs.name,
            token=token,
        )
        serving = server(application(admin), listener, grace_s=1.0)
        task = tasks.create_task(serving.run_on_socket())
        await serving.listening()
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        async with httpx2.AsyncClient(base_url=f"http://{address}", headers=headers, trust_env=False) as client:
            try:
                yield Bench(admin, gateway, agent, logs, pins, presence, whereabouts, address, client)
            except BaseException as error:  # noqa: BLE001 - raised again below, outside of the group
                caught = error
        serving.stop()
        await task
    if caught is not None:
        raise caught


async def raw(address: Address, *lines: str, body: bytes = b"") -> bytes:
    """What comes back for these very bytes, on a connection of its own."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
    answer = await reader.read()
    writer.close()
    return answer
