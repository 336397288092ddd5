"""One contract for every pin store: what was put is found by every gateway, whole, and gone once it was deleted."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.model import Pin
from gateway.log.opening import open_pins
from gateway.log.pins import CachedPins, Found, PinTable, decode_pin, digest_of, encode_pin
from gateway.log.pins_memory import MemoryPins
from gateway.log.pins_sqlite import SqlitePins
from tests.contract.redis_server import RedisServer

PINS = [
    Pin("i-1", "k3j9"),
    Pin("i-1", "k3j9", via=True),
    Pin("i-1", "k3j9", "user"),
    Pin("i" * 64, "0" * 16, "u" * 63, via=True),
]
DIGEST, OTHER = digest_of("tools", "in-session", b"up-1"), digest_of("tools", "task", b"up-1")
TTL_S = 600.0

_NAMES = itertools.count()

each_pin = pytest.mark.parametrize("pin", PINS, ids=["plain", "via", "app", "longest"])


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def open_table(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], PinTable]]:
    """Opens the one store of a test, as often as wanted."""
    match request.param:
        case "memory":
            url = f"memory:pins-{next(_NAMES)}"
        case "sqlite":
            url = f"sqlite:{tmp_path / 'catalog.db'}"
        case _:
            server: RedisServer = request.getfixturevalue("redis_server")
            url = server.url
    opened: list[PinTable] = []

    def open_one() -> PinTable:
        opened.append(open_pins(url))
        return opened[-1]

    yield open_one
    for table in opened:
        await table.aclose()


OpenTable = Callable[[], PinTable]


@each_pin
async def test_every_gateway_finds_the_whole_pin(open_table: OpenTable, pin: Pin) -> None:
    one, two = open_table(), open_table()
    await one.put(DIGEST, pin, TTL_S)
    for table in (one, two, one):
        assert await table.get(DIGEST) == Found(pin, TTL_S)
    assert await two.get(OTHER) is None


async def test_a_later_pin_replaces_an_earlier_one(open_table: OpenTable) -> None:
    one, two = open_table(), open_table()
    for table, pin in zip(itertools.cycle((one, two)), PINS, strict=False):
        await table.put(DIGEST, pin, TTL_S)
        assert await one.get(DIGEST) == await two.get(DIGEST) == Found(pin, TTL_S)


async def test_a_deleted_pin_is_gone_everywhere(open_table: OpenTable) -> None:
    one, two = open_table(), open_table()
    for digest in (DIGEST, OTHER):
        await one.put(digest, PINS[3], TTL_S)
    await two.delete(DIGEST)
    await two.delete(DIGEST)
    assert await one.get(DIGEST) is None
    assert await one.get(OTHER) == Found(PINS[3], TTL_S)


@each_pin
async def test_a_gateway_that_remembers_a_pin_remembers_all_of_it(open_table: OpenTable, pin: Pin) -> None:
    one, two = CachedPins(open_table()), CachedPins(open_table())
    await one.put("tools", "in-session", b"up-1", pin, TTL_S)
    for pins in (one, two, two):
        assert await pins.get("tools", "in-session", b"up-1") == pin
    assert (one.hits, two.hits, two.misses) == (1, 1, 1)
    assert await two.get("tools", "task", b"up-1") is None
    assert await two.get("user", "in-session", b"up-1") is None
    await one.delete("tools", "in-session", b"up-1")
    assert await one.get("tools", "in-session", b"up-1") is None


# --- each store by itself ------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_pin_lives_as_long_as_it_is_used(kind: str, tmp_path: Path) -> None:
    clock, path = Clock(), str(tmp_path / "catalog.db")
    table: PinTable = MemoryPins(clock=clock) if kind == "memory" else SqlitePins(path, wall_clock=clock)
    await table.put(DIGEST, PINS[3], TTL_S)
    for _ in range(3):
        clock.now_s += TTL_S - 1.0
        assert await table.get(DIGEST) == Found(PINS[3], TTL_S)
    clock.now_s += TTL_S
    assert await table.get(DIGEST) is None
    await table.aclose()


async def test_a_pin_that_an_older_release_stored_is_found(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    table = SqlitePins(str(path), wall_clock=Clock())
    await table.put(OTHER, PINS[0], TTL_S)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO pins VALUES (?, 'i-7', 'k3j9', 600.0, 9999.0)", (DIGEST,))
    assert await table.get(DIGEST) == Found(Pin("i-7", "k3j9"), 600.0)
    await table.aclose()
    assert decode_pin(b'{"instance":"i-7","incarnation":"k3j9","ttl":600.0}') == Found(Pin("i-7", "k3j9"), 600.0)


@each_pin
def test_what_redis_keeps_is_read_again(pin: Pin) -> None:
    assert decode_pin(encode_pin(Found(pin, TTL_S))) == Found(pin, TTL_S)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"instance":7,"incarnation":"k3j9","ttl":600}',
        b'{"instance":"i-1","incarnation":null,"ttl":600}',
        b'{"instance":"i-1","incarnation":"k3j9"}',
        b'{"instance":"i-1","incarnation":"k3j9","ttl":true}',
        b'{"instance":"i-1","incarnation":"k3j9","ttl":0}',
        b'{"instance":"i-1","incarnation":"k3j9","ttl":NaN}',
        b'{"instance":"i-1","incarnation":"k3j9","ttl":1e999}',
    ],
)
def test_what_is_no_pin_is_as_if_it_were_not_there(raw: bytes) -> None:
    assert decode_pin(raw) is None
