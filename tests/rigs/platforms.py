"""What the fakes of platforms share: instances that answer and remember, a server in the test's own loop, fast time."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from gateway.agent.tempo import Tempo
from gateway.control.server import Server, bound, listen, server
from gateway.core.model import Address

SPEED = 100.0
"""A second of the platform is 10 ms."""
_numbers = itertools.count(1)


class Leaping(Tempo):
    """Fast time that can be moved on at once."""

    def __init__(self, speed: float = SPEED) -> None:
        super().__init__(speed)
        self._leapt_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self._leapt_s

    def leap(self, by_s: float) -> None:
        self._leapt_s += by_s


class Memory:
    """One life of an instance: it answers `life N, request M` at its address while it listens."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.number = next(_numbers)
        self._requests = 0
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        assert self._server is None
        self._server = await asyncio.start_server(self._answer, *self.address)

    def fall_silent(self) -> None:
        """Stop listening; what was remembered is kept for another `listen`."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self._requests += 1
            body = f"life {self.number}, request {self._requests}"
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write((head + body).encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class _Prompt(Server):
    """Ends at once and cuts what is open, where uvicorn takes its tenths of a second."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config, listener)
        self._stopped = asyncio.Event()

    async def main_loop(self) -> None:
        await self._stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for serving in self.servers:
            serving.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)

    def stop(self) -> None:
        super().stop()
        self._stopped.set()


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """The URL of an application while it is served. An exception of the test is raised as it is."""
    caught: BaseException | None = None
    with listen(Address("127.0.0.1", 0)) as listener:
        url = f"http://{bound(listener)}"
        async with asyncio.TaskGroup() as tasks:
            serving = _Prompt(server(app, listener, grace_s=0.0).config, listener)
            tasks.create_task(serving.run_on_socket())
            await serving.listening()
            try:
                yield url
            except BaseException as error:  # noqa: BLE001 - raised again below, outside of the group
                caught = error
            serving.stop()
    if caught is not None:
        raise caught


def fields_of(body: Any, known: set[str]) -> str:
    """What is wrong with a JSON body that may have these fields only; empty when nothing is."""
    if not isinstance(body, dict):
        return "the body is not an object"
    unknown = sorted(set(body) - known)
    return f"json: unknown field {unknown[0]!r}" if unknown else ""
