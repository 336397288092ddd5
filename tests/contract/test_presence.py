"""One contract for every presence: what is repeated lives for every gateway, and ends by itself."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.presence import MAX_LEASE_S, MAX_LEASES, MAX_MESSAGE_BYTES, Lead, TooManyLeases
from gateway.log.base import LogUnavailable
from gateway.log.opening import UnknownStore, open_presence
from gateway.log.presence import Presence
from gateway.log.presence_memory import MemoryBoard, MemoryPresence
from gateway.log.presence_sqlite import SqlitePresence
from tests.contract.presences import LONG_S, SHORT_S, TTL_S, Asks, everything, is_, names, until
from tests.contract.redis_server import RedisServer

OpenPresence = Callable[[], Presence]

_NAMES = itertools.count()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenPresence]:
    """Opens the one store of a test, as often as wanted."""
    match request.param:
        case "memory":
            url = f"memory:presence-{next(_NAMES)}"
        case "sqlite":
            url = f"sqlite:{tmp_path / 'catalog.db'}"
        case _:
            server: RedisServer = request.getfixturevalue("redis_server")
            url = server.url
    opened: list[Presence] = []

    def open_it() -> Presence:
        opened.append(open_presence(url))
        return opened[-1]

    yield open_it
    for presence in opened:
        await presence.aclose()


# --- gateways --------------------------------------------------------------------------


async def test_every_gateway_hears_the_last_message_of_each(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    assert await one.all() == {}
    largest = bytes(range(256)) * (MAX_MESSAGE_BYTES // 256)
    await one.put("gw-1:8080", b"early", TTL_S)
    await two.put("agent@[::1]:8080", largest, TTL_S)
    await one.put("gw-1:8080", b"late", TTL_S)
    for presence in (one, two):
        assert await presence.all() == {"gw-1:8080": b"late", "agent@[::1]:8080": largest}
    await two.drop("gw-1:8080")
    await two.drop("gw-1:8080")
    assert list(await one.all()) == ["agent@[::1]:8080"]


async def test_many_gateways_are_all_heard(open_one: OpenPresence) -> None:
    presence = open_one()
    said = {f"gw-{number}": b"%d" % number for number in range(120)}
    for gateway, message in said.items():
        await presence.put(gateway, message, TTL_S)
    assert await presence.all() == said


async def test_a_gateway_that_is_silent_ends_by_itself(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    await one.put("gw-2", b"b", TTL_S)
    await one.put("gw-1", b"a", SHORT_S)
    await until(lambda: is_(two.all(), {"gw-2": b"b"}))
    await one.put("gw-1", b"again", TTL_S)
    assert await two.all() == {"gw-1": b"again", "gw-2": b"b"}


async def test_a_gateway_that_repeats_itself_lives_on(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    await one.put("gw-1", b"a", SHORT_S)
    await one.put("gw-2", b"b", SHORT_S)
    await one.put("gw-1", b"a", TTL_S)
    await until(lambda: is_(two.all(), {"gw-1": b"a"}))


# --- roles -----------------------------------------------------------------------------


async def test_one_at_a_time_has_a_role(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    assert await one.lead("sleeper", "gw-1", TTL_S) is Lead.TAKEN
    assert await two.lead("sleeper", "gw-2", TTL_S) is Lead.NO
    assert await two.lead("other", "gw-2", TTL_S) is Lead.TAKEN
    assert await one.lead("sleeper", "gw-1", TTL_S) is Lead.KEPT
    await two.resign("sleeper", "gw-2")
    assert await two.lead("sleeper", "gw-2", TTL_S) is Lead.NO
    await one.resign("sleeper", "gw-1")
    await one.resign("sleeper", "gw-1")
    assert await two.lead("sleeper", "gw-2", TTL_S) is Lead.TAKEN
    assert (bool(Lead.NO), bool(Lead.TAKEN), bool(Lead.KEPT)) == (False, True, True)


async def test_of_many_who_ask_at_once_one_gets_it(open_one: OpenPresence) -> None:
    asked = [(open_one(), f"gw-{number}") for number in range(8)]
    got = await asyncio.gather(*(presence.lead("sleeper", holder, TTL_S) for presence, holder in asked))
    assert sorted(got) == [Lead.NO] * 7 + [Lead.TAKEN]


async def test_a_role_that_is_not_renewed_is_free(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    await one.lead("sleeper", "gw-1", SHORT_S)
    # Given back too late: it is another one's.
    await until(lambda: is_(two.lead("sleeper", "gw-2", TTL_S), Lead.TAKEN))
    await one.resign("sleeper", "gw-1")
    assert await one.lead("sleeper", "gw-1", TTL_S) is Lead.NO


async def test_a_renewal_is_for_the_whole_time_again(open_one: OpenPresence) -> None:
    presence = open_one()
    await presence.lead("ends", "gw-1", SHORT_S)
    await presence.lead("lasts", "gw-1", SHORT_S)
    await presence.lead("lasts", "gw-1", TTL_S)
    await until(lambda: is_(presence.lead("ends", "gw-2", TTL_S), Lead.TAKEN))
    assert await presence.lead("lasts", "gw-2", TTL_S) is Lead.NO


async def test_who_led_until_it_ended_is_told_that_there_was_a_gap(open_one: OpenPresence) -> None:
    presence = open_one()
    await presence.lead("sleeper", "gw-1", SHORT_S)
    await presence.put("gw-1", b"", SHORT_S)
    await until(lambda: is_(presence.all(), {}))
    assert await presence.lead("sleeper", "gw-1", TTL_S) is Lead.TAKEN


# --- leases ----------------------------------------------------------------------------


async def test_leases_are_seen_by_all_in_order(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    for app, id, name in [("tools", "i-2", "b"), ("tools", "i-1", "a.b_c-D"), ("x", "i-1", "a"), ("tools", "i-2", "a")]:
        assert await one.hold(app, id, name, 60.0, replace=False)
    of_tools = [("tools", "i-1", "a.b_c-D"), ("tools", "i-2", "a"), ("tools", "i-2", "b")]
    assert await names(two) == [*of_tools, ("x", "i-1", "a")]
    assert await names(two, "tools") == of_tools
    assert await names(two, "tool") == []
    assert all(59.0 < lease.left_s <= 60.0 for lease in await two.held())


async def test_a_live_name_is_taken_and_may_be_replaced(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    assert await one.hold("tools", "i-1", "job", 60.0, replace=False)
    assert not await two.hold("tools", "i-1", "job", MAX_LEASE_S, replace=False)
    assert (await one.held())[0].left_s <= 60.0
    assert await two.hold("tools", "i-1", "job", MAX_LEASE_S, replace=True)
    (lease,) = await one.held()
    assert MAX_LEASE_S - LONG_S < lease.left_s <= MAX_LEASE_S


async def test_a_released_lease_is_gone(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    await one.hold("tools", "i-1", "job", 60.0, replace=True)
    await one.hold("tools", "i-1", "other", 60.0, replace=True)
    assert await two.release("tools", "i-1", "job")
    assert not await two.release("tools", "i-1", "job")
    assert not await two.release("tools", "i-2", "other")
    assert await names(one) == [("tools", "i-1", "other")]


async def test_a_lease_ends_by_itself_and_its_name_is_free(open_one: OpenPresence) -> None:
    one, two = open_one(), open_one()
    for name in ("again", "late"):
        await one.hold("tools", "i-1", name, SHORT_S, replace=False)
    await one.hold("tools", "i-1", "lasts", 60.0, replace=False)
    # What was put later for as long has ended, so the leases have too.
    await one.put("gw-1", b"a", SHORT_S)
    await until(lambda: is_(two.all(), {}))
    assert not await two.release("tools", "i-1", "late")
    assert await names(two) == [("tools", "i-1", "lasts")]
    assert await two.hold("tools", "i-1", "again", 60.0, replace=False)
    assert await names(one) == [("tools", "i-1", "again"), ("tools", "i-1", "lasts")]


async def test_an_instance_has_a_bounded_number_of_leases(open_one: OpenPresence) -> None:
    presence = open_one()
    for number in range(MAX_LEASES):
        await presence.hold("tools", "i-1", f"job-{number}", SHORT_S if number == 7 else 60.0, replace=False)
    # What was put later for as long has ended, so the lease has too.
    await presence.put("gw-1", b"a", SHORT_S)
    await until(lambda: is_(presence.all(), {}))
    assert await presence.hold("tools", "i-1", "one-more", 60.0, replace=False)
    with pytest.raises(TooManyLeases, match="tools/i-1 has 100 leases"):
        await presence.hold("tools", "i-1", "more", 60.0, replace=True)
    assert await presence.hold("tools", "i-1", "job-0", 60.0, replace=True)
    for app, id in [("tools", "i-11"), ("tool", "i-1")]:
        assert await presence.hold(app, id, "more", 60.0, replace=False)


# --- bounds and the end ----------------------------------------------------------------


async def test_what_is_out_of_bounds_is_refused(open_one: OpenPresence) -> None:
    presence = open_one()
    asked: Asks = [
        lambda: presence.put("gw-1", b"x" * (MAX_MESSAGE_BYTES + 1), TTL_S),
        lambda: presence.put("", b"x", TTL_S),
        lambda: presence.put("g w", b"x", TTL_S),
        lambda: presence.put("gw-1", b"x", 0.0),
        lambda: presence.put("gw-1", b"x", float("nan")),
        lambda: presence.drop("gw-1\n"),
        lambda: presence.lead("Sleeper", "gw-1", TTL_S),
        lambda: presence.lead("sleeper", "", TTL_S),
        lambda: presence.lead("sleeper", "gw-1", float("inf")),
        lambda: presence.resign("", "gw-1"),
        lambda: presence.hold("a/b", "i-1", "job", 60.0, replace=True),
        lambda: presence.hold("tools", "i_1", "job", 60.0, replace=True),
        lambda: presence.hold("tools", "i-1", "", 60.0, replace=True),
        lambda: presence.hold("tools", "i-1", "j/b", 60.0, replace=True),
        lambda: presence.hold("tools", "i-1", "j" * 65, 60.0, replace=True),
        lambda: presence.hold("tools", "i-1", "job", 0.0, replace=True),
        lambda: presence.hold("tools", "i-1", "job", MAX_LEASE_S + 1.0, replace=True),
        lambda: presence.release("tools", "i-1", "j b"),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match=r"names no|are taken"):
            await ask()
    assert (await presence.all(), await presence.held()) == ({}, [])


async def test_a_closed_presence_says_so(open_one: OpenPresence) -> None:
    presence, other = open_one(), open_one()
    await presence.put("gw-1", b"a", TTL_S)
    await presence.aclose()
    await presence.aclose()
    for ask in everything(presence):
        with pytest.raises(LogUnavailable, match="closed"):
            await ask()
    assert await other.all() == {"gw-1": b"a"}


def test_a_store_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnknownStore, match='write "redis://host:6379/0"'):
        open_presence("postgres://a")


# --- memory ----------------------------------------------------------------------------


async def test_memory_can_be_away_and_emptied() -> None:
    board = MemoryBoard()
    presence = MemoryPresence(board)
    for ask in everything(presence):
        await ask()
    await presence.put("gw-1", b"a", TTL_S)
    await presence.lead("sleeper", "gw-1", TTL_S)
    await presence.hold("tools", "i-1", "job", 60.0, replace=True)
    board.away = True
    for ask in everything(presence):
        with pytest.raises(LogUnavailable, match="switched off"):
            await ask()
    board.away = False
    board.flush()
    assert (await presence.all(), await presence.held()) == ({}, [])
    assert await presence.lead("sleeper", "gw-1", TTL_S) is Lead.TAKEN


# --- files -----------------------------------------------------------------------------


async def test_an_end_in_a_file_is_one_of_the_wall_clock(tmp_path: Path) -> None:
    now_s = [1_795_000_000.0]
    presence = SqlitePresence(str(tmp_path / "catalog.db"), wall_clock=lambda: now_s[0])
    await presence.put("gw-1", b"a", 5.0)
    await presence.lead("sleeper", "gw-1", 5.0)
    await presence.hold("tools", "i-1", "job", 5.0, replace=False)
    now_s[0] += 4.0
    assert [lease.left_s for lease in await presence.held()] == [1.0]
    assert list(await presence.all()) == ["gw-1"]
    now_s[0] += 1.0
    assert (await presence.all(), await presence.held()) == ({}, [])
    assert await presence.lead("sleeper", "gw-2", 5.0) is Lead.TAKEN
    await presence.aclose()


async def test_a_file_keeps_nothing_that_ended(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    presence = SqlitePresence(str(path))
    await presence.put("gw-1", b"a", SHORT_S)
    await presence.hold("tools", "i-1", "job", SHORT_S, replace=False)
    await until(lambda: is_(presence.all(), {}))
    await until(lambda: is_(presence.held(), []))
    await presence.put("gw-2", b"a", TTL_S)
    await presence.hold("tools", "i-2", "job", 60.0, replace=False)
    await presence.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT gateway FROM gateways").fetchall() == [("gw-2",)]
        assert connection.execute("SELECT instance FROM awake").fetchall() == [("i-2",)]


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    presence = SqlitePresence(str(tmp_path / "nowhere" / "catalog.db"))
    for ask in everything(presence):
        with pytest.raises(LogUnavailable, match=r"nowhere.*make its folder exist"):
            await ask()
    await presence.aclose()
