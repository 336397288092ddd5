"""An address whose server can be changed, as a virtual IP or a Service changes at a failover."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Switch:
    """Relays connections to `target`, a port of this host; changing it cuts those that are open."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()

    def to(self, target: int) -> None:
        self._target = target
        for writer in self._writers:
            writer.transport.abort()

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, other_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, other_writer))
                tasks.create_task(_copy(other_reader, writer))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def switched(target: int) -> AsyncIterator[Switch]:
    switch = Switch(target)
    async with await asyncio.start_server(switch.accepted, "127.0.0.1", 0) as server:
        switch.port = server.sockets[0].getsockname()[1]
        yield switch
        switch.to(0)
