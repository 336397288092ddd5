"""Replay caches over two gateways: what one remembers the other uses, what one drops the other drops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.net.wire import Message, Wire
from tests.rigs.gateway import AppSpec, Gateway, Static
from tests.rigs.redis import Redis
from tests.rigs.run import Bench, until

Asked = tuple[str, str | None]
"""Which instance was asked, and the fly-replay-cache-status it saw."""
KEPT = b"fly-replay-cache: /u/*\r\nfly-replay-cache-ttl-secs: 600\r\n"
DROPPED = b"fly-replay-cache: invalidate\r\n"


class Shop:
    """Three instances of one app: s-2 has the answers, the others replay to it; told to, s-2 sends all back."""

    def __init__(self) -> None:
        self.sends_back = False
        self.specs: list[Static] = []

    def answer(self, id: str, request: Message) -> bytes:
        status = request.one("fly-replay-cache-status")
        if id != "s-2" and status is None:
            return b"HTTP/1.1 307 T\r\nfly-replay: instance=s-2\r\n" + KEPT + b"Content-Length: 0\r\n\r\n"
        if id == "s-2" and status == "hit" and self.sends_back:
            return b"HTTP/1.1 307 T\r\nfly-replay: instance=s-1\r\n" + DROPPED + b"Content-Length: 0\r\n\r\n"
        body = f"{id} {status}".encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def handler(self, id: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            wire = Wire(reader, writer)
            try:
                while True:
                    wire.send(self.answer(id, await wire.request()))
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                writer.close()

        return serve


@asynccontextmanager
async def shop() -> AsyncIterator[Shop]:
    one = Shop()
    async with AsyncExitStack() as stack:
        for id in ("s-1", "s-2", "s-3"):
            server = await asyncio.start_server(one.handler(id), "127.0.0.1", 0)
            stack.callback(server.close)
            one.specs.append(Static(id, server.sockets[0].getsockname()[1]))
        yield one


async def ask(gateway: Gateway, path: str = "/u/ada", **headers: str) -> str:
    """Who answered, and what cache status it saw."""
    async with httpx2.AsyncClient(trust_env=False, timeout=10.0) as client:
        return (await client.get(gateway.url + path, headers=headers)).text


async def hits(gateway: Gateway) -> bool:
    """Whether the gateway's cache answers."""
    return await ask(gateway) == "s-2 hit"


async def pair(bench: Bench, one: Shop, catalog: str) -> tuple[Gateway, Gateway]:
    app = AppSpec("shop", one.specs)
    first, second = [await Gateway.serve(bench, name, app, catalog=catalog) for name in ("gateway-a", "gateway-b")]
    return first, second


@pytest.mark.parametrize("store", ["redis", "sqlite"])
async def test_what_one_gateway_remembers_and_drops_so_does_the_other(bench: Bench, tmp_path: Path, store: str) -> None:
    catalog = f"sqlite:{tmp_path / 'shop.db'}"
    if store == "redis":
        redis = Redis(bench)
        await redis.start()
        catalog = redis.url
    async with shop() as one:
        first, second = await pair(bench, one, catalog)
        # Placed at s-2 itself, a request is not replayed at all: sooner or later one is.
        await until(lambda: _is_made(first), "an entry was made at the first gateway")
        await until(lambda: _has_entries(second, 1), "the entry came to the second gateway")
        assert await ask(second) == "s-2 hit"
        one.sends_back = True
        assert await ask(second) == "s-1 miss"
        await until(lambda: _has_entries(first, 0), "the entry's end came to the first gateway")


async def test_while_the_store_is_away_no_cache_is_used_and_none_comes_back_with_it(bench: Bench) -> None:
    redis = Redis(bench)
    await redis.start()
    async with shop() as one:
        first, second = await pair(bench, one, redis.url)
        await until(lambda: _is_made(first), "an entry was made at the first gateway")
        await redis.kill()
        await until(lambda: _has_entries(first, 0), "the first gateway forgot its entries")
        await until(lambda: _has_entries(second, 0), "the second gateway forgot its entries")
        for gateway in (first, second):
            assert not await _is_connected(gateway)
            assert (await ask(gateway)).split()[0] == "s-2"
            assert not await hits(gateway)
        await redis.start()
        for gateway in (first, second):
            await until(partial(_is_connected, gateway), "the gateway hears the others again")
            assert await _has_entries(gateway, 0)
        await until(lambda: _is_made(first), "entries are made again")
        await until(lambda: _has_entries(second, 1), "and come to the second gateway")


async def _is_made(gateway: Gateway) -> bool:
    await ask(gateway)
    return await _has_entries(gateway, 1)


async def _is_connected(gateway: Gateway) -> bool:
    return (await gateway.metrics())["moorage_replay_cache_connected"] == 1.0


async def _has_entries(gateway: Gateway, count: int) -> bool:
    return (await gateway.metrics()).get('moorage_replay_cache_entries{app="shop"}', 0.0) == count
