"""Stores and servers for the contract suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.log.feed import Feed
from tests.contract.feeds import Closing
from tests.contract.redis_server import RedisServer
from tests.contract.stores import (
    FeedStore,
    MemoryFeedStore,
    MemoryStore,
    RedisFeedStore,
    RedisStore,
    SqliteFeedStore,
    SqliteStore,
    Store,
)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """An empty Redis. A machine without redis-server fails the test."""
    server = RedisServer(tmp_path)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A second Redis."""
    server = RedisServer(tmp_path)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each kind of store, empty."""
    match request.param:
        case "memory":
            yield MemoryStore()
        case "sqlite":
            yield SqliteStore(tmp_path / "catalog.db")
        case _:
            server: RedisServer = request.getfixturevalue("redis_server")
            client = server.client()
            yield RedisStore(server.url, client)
            client.close()


@pytest.fixture
def on_redis(redis_server: RedisServer) -> Iterator[RedisFeedStore]:
    """An empty Redis, for a feed."""
    with redis_server.client() as client:
        yield RedisFeedStore(redis_server.url, client)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def feeds(request: pytest.FixtureRequest, tmp_path: Path) -> FeedStore:
    """Each kind of store, empty."""
    match request.param:
        case "memory":
            return MemoryFeedStore()
        case "sqlite":
            return SqliteFeedStore(tmp_path / "catalog.db")
        case _:
            store: FeedStore = request.getfixturevalue("on_redis")
            return store


@pytest.fixture
async def closing() -> AsyncIterator[Closing]:
    """Closes at the end the feeds that it is given."""
    async with AsyncExitStack() as stack:

        def keep(feed: Feed) -> Feed:
            stack.push_async_callback(feed.aclose)
            return feed

        yield keep
