"""The gateway's connections under a real uvicorn server: how they end when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.control.server import Server, bound, listen, server
from gateway.core.model import Address
from gateway.data.edge import protocol_class
from tests.net.rig import Rig, until
from tests.net.wire import Wire, dial

HOST = b"Host: tools.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Serving:
    def __init__(self, rig: Rig, one: Server, address: Address, task: asyncio.Task[None]) -> None:
        self._rig = rig
        self._gateway = rig.gateway
        self._server = one
        self._task = task
        self.address = address

    async def client(self, raw: bytes = b"") -> Wire:
        wire = self._rig.keep(await dial(self.address.host, self.address.port))
        wire.send(raw)
        return wire

    def stop(self) -> None:
        """As `gateway.app` begins the end."""
        self._gateway.drain()
        self._server.stop()

    async def ended(self) -> None:
        async with asyncio.timeout(5):
            await asyncio.shield(self._task)
        for edge in list(self._gateway.edges):
            edge.transport.abort()


@asynccontextmanager
async def serving(rig: Rig, grace_s: float = 3.0) -> AsyncIterator[Serving]:
    with listen(Address("127.0.0.1", 0)) as listener:
        one = server(rig.gateway.slow_path, listener, grace_s=grace_s, http=protocol_class(rig.gateway))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(one.run_on_socket())
            await one.listening()
            yield Serving(rig, one, bound(listener), task)
            one.stop()


async def test_it_serves(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    async with serving(rig) as served:
        client = await served.client(GET)
        assert (await client.answer()).body == b"ok"
        assert instance.requests[0].one("fly-forwarded-port") == str(served.address.port)
        client.close()


async def test_an_end_closes_what_is_idle_and_lets_the_rest_finish(rig: Rig) -> None:
    instance = await rig.instance()
    async with serving(rig) as served:
        idle, busy = await served.client(), await served.client(GET)
        wire, _ = await instance.request()
        await until(lambda: len(rig.gateway.edges) == 2, "both connections")
        served.stop()
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await served.client()
        wire.send(OK)
        answer = await busy.answer()
        assert (answer.body, answer.one("connection")) == (b"ok", "close")
        await served.ended()


async def test_tunnels_and_streams_hold_no_end_up(rig: Rig) -> None:
    instance = await rig.instance()
    async with serving(rig) as served:
        tunnel = await served.client(UPGRADE)
        tunnel_wire, _ = await instance.request()
        tunnel_wire.send(SWITCH)
        assert (await tunnel.answer()).status == 101
        stream = await served.client(GET)
        stream_wire, _ = await instance.request()
        stream_wire.send(STREAM)
        await stream.head()
        served.stop()
        assert await stream.rest() == b"0\r\n\r\n"
        assert await tunnel.rest() == b""
        await served.ended()


async def test_what_outlives_the_grace_is_cut(rig: Rig) -> None:
    instance = await rig.instance()
    async with serving(rig, grace_s=0.1) as served:
        stuck = await served.client(GET)
        wire, _ = await instance.request()
        served.stop()
        await served.ended()
        assert await stuck.rest() == b""
        await wire.is_cut()
