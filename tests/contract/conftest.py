"""Stores and servers for the contract suites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.redis_server import RedisServer
from tests.contract.stores import MemoryStore, RedisStore, SqliteStore, Store


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
