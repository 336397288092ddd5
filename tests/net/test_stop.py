"""A whole gateway that ends: what its grace was too short for does not look complete."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from tempfile import TemporaryDirectory

import pytest

from gateway.app import running
from gateway.config import parse
from tests.loops import both_loops

LIMIT_S = 10.0


@both_loops
async def test_an_answer_without_a_length_is_reset() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npart")
        await reader.read()
        writer.close()

    instance = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = instance.sockets[0].getsockname()[1]
    with ExitStack() as stack:
        stack.callback(instance.close)
        folder = stack.enter_context(TemporaryDirectory())
        lines = [
            "[gateway]",
            'listen = "127.0.0.1:0"',
            'admin = "127.0.0.1:0"',
            f'catalog = "sqlite:{folder}/moorage.db"',
            "drain_grace = 0",
            "[apps.web]",
            "[[apps.web.instances]]",
            'id = "i-1"',
            f'address = "127.0.0.1:{port}"',
        ]
        async with asyncio.timeout(LIMIT_S):
            async with running(parse("\n".join(lines))) as one:
                reader, writer = await asyncio.open_connection(*one.public)
                stack.callback(writer.close)
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                assert (await reader.readuntil(b"part")).endswith(b"\r\n\r\npart")
            with pytest.raises(ConnectionResetError):
                await reader.read()
