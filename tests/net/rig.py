"""A gateway in the test's own process, raw instances that answer exact bytes on command, and raw clients.

The gateway is wired as `gateway.app` wires it, but for what the tests hold in their hands: the catalog is folded into
directly, nothing wakes by itself, and the clock stands still until `sweep` moves it.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

from uvicorn import Config
from uvicorn.server import ServerState

from gateway import proxy
from gateway.core.bodies import app_body, instance_body
from gateway.core.catalog import Catalog
from gateway.core.model import Address, App, Instance, Pin, State
from gateway.core.problems import Problem
from gateway.core.record import Record, RecordKind
from gateway.core.seal import Sealer
from gateway.data.edge import protocol_class
from gateway.data.replays import Replays
from gateway.data.state import Gateway, Limits
from gateway.lifecycle.holds import Holds
from gateway.lifecycle.slots import Slots
from gateway.log.opening import open_pins
from gateway.log.pins import CachedPins
from tests.net.wire import LIMIT_S, Message, Wire, dial

RECEIVE_BYTES = 131_072
SECRET = b"the rig's secret, 32 bytes long."
INCARNATION = "b00t1"
_NUMBERS = itertools.count()
LAST = b"\r\nConnection: close\r\n"


class RawInstance:
    """A listener that keeps every connection for the test, which speaks on it."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.accepted = 0
        self._new: asyncio.Queue[Wire] = asyncio.Queue()
        self._server: asyncio.Server
        self._answer: Callable[[Message], bytes] | None = None
        self._spawn: Callable[[Coroutine[object, object, None]], object]
        self.requests: list[Message] = []
        """What `answers` has answered."""
        self._wires: list[Wire] = []

    async def listen(self, spawn: Callable[[Coroutine[object, object, None]], object]) -> Address:
        self._spawn = spawn
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        bound_buffers(self._server)
        return Address(*self._server.sockets[0].getsockname())

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        wire = Wire(reader, writer)
        self._wires.append(wire)
        if self._answer is None:
            self._new.put_nowait(wire)
        else:
            self._spawn(self._serve(wire, self._answer))

    async def accept(self) -> Wire:
        """The next connection that the gateway opened."""
        async with asyncio.timeout(LIMIT_S):
            return await self._new.get()

    async def request(self) -> tuple[Wire, Message]:
        """The next connection, and the first request on it."""
        wire = await self.accept()
        return wire, await wire.request()

    def answers(self, answer: bytes | Callable[[Message], bytes]) -> None:
        """From now on, answer each request on each new connection by itself; one that says LAST ends it."""
        self._answer = (lambda _: answer) if isinstance(answer, bytes) else answer

    async def _serve(self, wire: Wire, answer: Callable[[Message], bytes]) -> None:
        try:
            while True:
                request = await wire.request()
                self.requests.append(request)
                answered = answer(request)
                wire.send(answered)
                if LAST in answered:
                    break
            wire.close()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            wire.close()

    @property
    def waiting(self) -> bool:
        """Whether a connection was made that nobody accepted yet."""
        return not self._new.empty()

    @property
    def untouched(self) -> bool:
        return self.accepted == 0

    def close(self) -> None:
        """Refuse connections from now on."""
        self._server.close()

    async def aclose(self) -> None:
        self._server.close()
        for wire in self._wires:
            await wire.aclose()
        await self._server.wait_closed()


class ScriptedWaker:
    """Wakes what a test tells it to, when it tells it to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[str, asyncio.Future[Instance | Problem]]] = asyncio.Queue()

    async def ensure(self, app: App, instance: Instance, *, doubted: bool = False) -> Instance | Problem:
        outcome = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((instance.id, outcome))
        return cast("Instance | Problem", await outcome)


class Rig:
    """One gateway and what stands around it."""

    def __init__(
        self, gateway: Gateway, spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
    ) -> None:
        self.gateway = gateway
        self.catalog = gateway.catalog
        self.waker = ScriptedWaker()
        self.slots = Slots(Holds())
        self.state = ServerState()
        """What uvicorn knows of the connections."""
        self.address: Address
        self.now_s = 1000.0
        self.wall_s = 1_800_000_000.0
        """The time of day, as the replay caches see it."""
        self.raised: list[dict[str, Any]] = []
        """What reached the event loop's exception handler: nothing may."""
        self._spawn = spawn
        self._counter = 0
        self._wires: list[Wire] = []
        self._instances: list[RawInstance] = []

    async def serve(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.raised.append(context))
        gateway = self.gateway
        self.pins(gateway.pins)
        gateway.replays = Replays(gateway.boot, lambda: self.wall_s)
        gateway.loads.freed = self.slots.freed
        gateway.ready = True
        gateway.sweep(self.now_s)
        make = protocol_class(gateway)
        config = Config(gateway.slow_path, log_config=None, ws="none", lifespan="off")
        server = await loop.create_server(lambda: make(config, self.state, {}, loop), "127.0.0.1", 0)
        bound_buffers(server)
        self.address = Address(*server.sockets[0].getsockname())
        return server

    def pins(self, pins: Any) -> None:
        """Use this pin store."""
        self.gateway.pins = pins
        self.gateway.slow_path = proxy.application(self.waker, self.slots, pins)

    # --- what the catalog says -------------------------------------------------------

    def app(self, name: str = "tools", **settings: Any) -> App:
        """Put an app into the catalog, or another one in its place."""
        app = App(name, **settings)
        self._fold(RecordKind.APP, name, app_body(app))
        return app

    async def instance(self, id: str = "i-1", app: str = "tools", **fields: Any) -> RawInstance:
        """A raw instance that runs, and is known."""
        raw = RawInstance(id)
        self._instances.append(raw)
        address = await raw.listen(self._spawn)
        fields.setdefault("incarnation", INCARNATION)
        self.know(Instance(app, id, address, **fields))
        return raw

    def know(self, instance: Instance) -> None:
        """Put an instance into the catalog, or another state of it in its place."""
        self._fold(RecordKind.INSTANCE, f"{instance.app}/{instance.id}", instance_body(instance))

    def known(self, id: str = "i-1", app: str = "tools") -> Instance:
        found = self.catalog.instance(app, id)
        assert found is not None
        return found

    def change(self, id: str = "i-1", app: str = "tools", **fields: Any) -> None:
        """Change what is known of an instance."""
        self.know(replace(self.known(id, app), **fields))

    def asleep(self, id: str = "i-1", app: str = "tools", **fields: Any) -> None:
        """An instance that does not run, and that traffic may start."""
        self.know(Instance(app, id, None, state=State.STOPPED, startable=True, incarnation=INCARNATION, **fields))

    def forget(self, id: str = "i-1", app: str = "tools") -> None:
        """The instance is gone."""
        self._fold(RecordKind.INSTANCE, f"{app}/{id}", {}, deleted=True)

    def forget_app(self, name: str) -> None:
        """The app is gone; its instances, if any, are not."""
        self._fold(RecordKind.APP, name, {}, deleted=True)

    def _fold(self, kind: RecordKind, id: str, body: dict[str, object], *, deleted: bool = False) -> None:
        self._counter += 1
        self.catalog.fold(Record(kind, id, "rig", 1, self._counter, deleted, body))

    def limit(self, **limits: Any) -> None:
        self.gateway.limits = replace(self.gateway.limits, **limits)

    # --- clients -----------------------------------------------------------------------

    async def client(self, *, kept: bool = True, receive_bytes: int | None = None) -> Wire:
        """A raw connection to the gateway; `kept` until the test's end, which closes it."""
        wire = await dial(self.address.host, self.address.port, receive_bytes=receive_bytes)
        return self.keep(wire) if kept else wire

    def keep(self, wire: Wire) -> Wire:
        """Close this connection at the test's end."""
        self._wires.append(wire)
        return wire

    async def ask(self, raw: bytes, method: str = "GET") -> Message:
        """One request on a connection of its own; its final answer."""
        client = await self.client()
        client.send(raw)
        return await client.answer(method)

    def seal(self, instance: str = "i-1", upstream_id: bytes = b"own-id", principal: bytes | None = None) -> bytes:
        """A genuine session id of this gateway's."""
        return self.gateway.sealer.seal_session("tools", Pin(instance, INCARNATION), upstream_id, principal)

    # --- time --------------------------------------------------------------------------

    def sweep(self, seconds: float = 1.0) -> None:
        """Let time pass at once."""
        self.now_s += seconds
        self.wall_s += seconds
        self.gateway.sweep(self.now_s)

    # --- the end -----------------------------------------------------------------------

    async def settled(self) -> None:
        """Return once no client is connected and nothing is under way; what is left over then is a leak."""
        gateway = self.gateway
        await until(lambda: not gateway.edges and not self.state.connections, "the end of all client connections")
        await until(lambda: gateway.pool.open == gateway.pool.idle_count(), "the end of all busy upstream connections")
        loads = [(name, load.requests, load.streams) for name, load in gateway.loads.items()]
        assert not [one for one in loads if one[1] or one[2]], loads
        assert not gateway.streams
        assert not gateway.kept.bytes
        assert not gateway.legacy
        assert not [one for one in gateway.sessions if one.streams]

    async def close(self) -> None:
        try:
            for wire in self._wires:
                await wire.aclose()
            await self.settled()
        finally:
            self.gateway.pool.close()
            for edge in list(self.gateway.edges):
                edge.transport.abort()
            for instance in self._instances:
                await instance.aclose()
        assert not self.raised, self.raised


def bound_buffers(server: asyncio.Server) -> None:
    """Keep the kernel from growing the receive buffers of accepted connections: it may give each of them 32 MB."""
    for listener in server.sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for what nobody announces."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while not condition():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.001)  # noqa: TID251 - see above
    except TimeoutError:
        raise AssertionError(f"did not happen within {LIMIT_S:g} s: {what}") from None


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    """A gateway that serves; when the test is over, it must be as it was at the beginning."""
    running: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()

    def spawn(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.Task(work, loop=loop)
        running.add(task)
        task.add_done_callback(running.discard)
        return task

    gateway = Gateway(
        region="local",
        limits=Limits(),
        trusted_proxies=(),
        catalog=Catalog("local"),
        sealer=Sealer([SECRET]),
        pins=CachedPins(open_pins(f"memory:rig-{next(_NUMBERS)}")),
        spawn=spawn,
    )
    rig = Rig(gateway, spawn)
    rig.app()
    server = await rig.serve()
    try:
        yield rig
        await rig.close()
    finally:
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        server.close()
        await server.wait_closed()
