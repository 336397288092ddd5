"""One contract for every store of recorded sessions: every gateway finds what was recorded, and one binding wins."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.model import Pin
from gateway.core.recording import MAX_BODY_BYTES, MAX_RECORDING_BYTES, Binding, Recording
from gateway.log import recordings_memory
from gateway.log.base import LogUnavailable
from gateway.log.opening import UnknownStore, open_recordings
from gateway.log.recordings import RENEWED_AT_ONCE, Kept, Recordings, RecordingTable
from gateway.log.recordings_memory import MemoryRecordings
from gateway.log.recordings_redis import RedisRecordings
from gateway.log.recordings_sqlite import SqliteRecordings
from tests.contract.redis_server import RedisServer

BODY = b'{"jsonrpc":"2.0","id":0,"method":"initialize"}'
RECORDING = Recording(((b"accept", b"*/*"),), BODY)
BINDINGS = [Binding(Pin(f"i-{number}", "k3j9"), b"up-%d" % number) for number in range(10)]
DIGEST, OTHER = bytes(32), bytes(range(32))
TTL_S = 600.0
WHOLE = bytes(range(256)) * (MAX_RECORDING_BYTES // 256)

_NAMES = itertools.count()
ACL = re.compile(r"^ACL SETUSER moorage on >PASSWORD resetkeys ~(\S+) (.+)$", re.MULTILINE)

OpenTable = Callable[[], RecordingTable]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def open_table(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenTable]:
    """Opens the one store of a test, as often as wanted."""
    match request.param:
        case "memory":
            url = f"memory:recordings-{next(_NAMES)}"
        case "sqlite":
            url = f"sqlite:{tmp_path / 'catalog.db'}"
        case _:
            server: RedisServer = request.getfixturevalue("redis_server")
            url = server.url
    opened: list[RecordingTable] = []

    def open_one() -> RecordingTable:
        opened.append(open_recordings(url))
        return opened[-1]

    yield open_one
    for table in opened:
        await table.aclose()


# --- bytes by digest -------------------------------------------------------------------------


async def test_every_gateway_finds_the_same_bytes(open_table: OpenTable) -> None:
    one, two = open_table(), open_table()
    await one.put(DIGEST, WHOLE, TTL_S)
    await two.put(OTHER, b"\0", 0.25)
    for table in (one, two):
        assert await table.get(DIGEST) == Kept(WHOLE, b"", TTL_S)
    assert await two.bind(DIGEST, b"", b"\xff\0") == b"\xff\0"
    for table in (one, two):
        assert await table.get(DIGEST) == Kept(WHOLE, b"\xff\0", TTL_S)


async def test_a_binding_replaces_the_one_that_it_names_and_no_other(open_table: OpenTable) -> None:
    one, two = open_table(), open_table()
    await one.put(DIGEST, b"x", TTL_S)
    assert await one.bind(DIGEST, b"a", b"b") == b""
    assert await one.bind(DIGEST, b"", b"a") == b"a"
    assert await two.bind(DIGEST, b"", b"b") == b"a"
    assert await two.bind(DIGEST, b"a", b"b") == b"b"
    assert await one.bind(DIGEST, b"a", b"c") == b"b"
    assert await one.get(DIGEST) == Kept(b"x", b"b", TTL_S)


async def test_of_many_that_bind_at_once_all_are_told_of_one(open_table: OpenTable) -> None:
    tables = [open_table() for _ in range(4)]
    await tables[0].put(DIGEST, b"x", TTL_S)
    async with asyncio.TaskGroup() as group:
        told = [group.create_task(tables[number % 4].bind(DIGEST, b"", b"own-%d" % number)) for number in range(20)]
    assert len({one.result() for one in told}) == 1
    kept = await tables[1].get(DIGEST)
    assert kept is not None
    assert kept.binding == told[0].result()


async def test_what_is_not_there_cannot_be_bound_or_renewed(open_table: OpenTable) -> None:
    table = open_table()
    assert await table.bind(DIGEST, b"", b"a") is None
    await table.renew([DIGEST, OTHER])
    await table.delete(DIGEST)
    assert await table.get(DIGEST) is None


async def test_what_was_deleted_is_gone_everywhere(open_table: OpenTable) -> None:
    one, two = open_table(), open_table()
    for digest in (DIGEST, OTHER):
        await one.put(digest, b"x", TTL_S)
    await two.delete(DIGEST)
    assert await one.get(DIGEST) is None
    assert await one.bind(DIGEST, b"", b"a") is None
    assert await one.get(OTHER) == Kept(b"x", b"", TTL_S)


async def test_a_session_that_is_made_again_is_not_bound(open_table: OpenTable) -> None:
    table = open_table()
    await table.put(DIGEST, b"x", TTL_S)
    await table.bind(DIGEST, b"", b"a")
    await table.put(DIGEST, b"y", TTL_S)
    assert await table.get(DIGEST) == Kept(b"y", b"", TTL_S)


def test_other_kinds_of_store_are_refused() -> None:
    with pytest.raises(UnknownStore):
        open_recordings("mysql://h")


# --- sessions --------------------------------------------------------------------------------


async def test_gateways_agree_on_where_a_session_went(open_table: OpenTable) -> None:
    one, two = Recordings(open_table()), Recordings(open_table())
    await one.put("tools", b"token", RECORDING, TTL_S)
    seen = [await each.get("tools", b"token") for each in (one, two)]
    assert all(each is not None and each.recording == RECORDING and each.binding is None for each in seen)
    assert seen[0] is not None
    assert seen[1] is not None
    first = await one.bind("tools", b"token", seen[0], BINDINGS[0])
    second = await two.bind("tools", b"token", seen[1], BINDINGS[1])
    assert first is not None
    assert second is not None
    assert first.binding == second.binding == BINDINGS[0]
    again = await two.bind("tools", b"token", second, BINDINGS[1])
    assert again is not None
    assert again.binding == BINDINGS[1]
    found = await one.get("tools", b"token")
    assert found == again
    await two.delete("tools", b"token")
    assert await one.get("tools", b"token") is None
    assert await one.bind("tools", b"token", first, BINDINGS[2]) is None


async def test_no_session_has_anothers_recording(open_table: OpenTable) -> None:
    recordings = Recordings(open_table())
    await recordings.put("tools", b"token", RECORDING, TTL_S)
    for app, key in (("tool", b"stoken"), ("tools", b"token2"), ("tools", b"toke"), ("other", b"token")):
        assert await recordings.get(app, key) is None


async def test_the_longest_recording_is_found_whole(open_table: OpenTable) -> None:
    recordings = Recordings(open_table())
    longest = Recording((), BODY[:-1] + b" " * (MAX_BODY_BYTES - len(BODY)) + b"}")
    await recordings.put("tools", b"token", longest, TTL_S)
    found = await recordings.get("tools", b"token")
    assert found is not None
    assert found.recording == longest


async def test_what_is_no_recording_or_binding_is_not_there() -> None:
    """And a binding that nobody can read is replaced like one that is lost."""
    table = MemoryRecordings()
    recordings = Recordings(table)
    await recordings.put("tools", b"token", RECORDING, TTL_S)
    (digest,) = table._table.kept
    await table.bind(digest, b"", b"{}")
    found = await recordings.get("tools", b"token")
    assert found is not None
    assert (found.binding, found.bound) == (None, b"{}")
    bound = await recordings.bind("tools", b"token", found, BINDINGS[0])
    assert bound is not None
    assert bound.binding == BINDINGS[0]
    await table.put(digest, b"{}", TTL_S)
    assert await recordings.get("tools", b"token") is None


# --- each store by itself ------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_recording_lives_as_long_as_it_is_used(kind: str, tmp_path: Path) -> None:
    clock, path = Clock(), str(tmp_path / "catalog.db")
    memory, sqlite = MemoryRecordings(clock=clock), SqliteRecordings(path, wall_clock=clock)
    table: RecordingTable = memory if kind == "memory" else sqlite
    await table.put(DIGEST, b"x", TTL_S)
    await table.put(OTHER, b"x", TTL_S)
    uses: list[Callable[[], Awaitable[object]]] = [
        lambda: table.get(DIGEST),
        lambda: table.bind(DIGEST, b"", b"a"),
        lambda: table.renew([OTHER, DIGEST]),
    ]
    for number, use in enumerate(uses):
        clock.now_s += TTL_S - 1.0
        if number == 0:
            await table.renew([OTHER])
        await use()
    clock.now_s += TTL_S - 1.0
    assert await table.get(DIGEST) == Kept(b"x", b"a", TTL_S)
    clock.now_s += TTL_S
    await table.renew([DIGEST])
    assert await table.bind(DIGEST, b"a", b"b") is None
    assert await table.get(DIGEST) is None
    await memory.aclose()
    await sqlite.aclose()


async def test_on_redis_use_renews_too(redis_server: RedisServer) -> None:
    table = RedisRecordings(redis_server.url)
    await table.put(DIGEST, b"x", TTL_S)
    with redis_server.client() as client:
        key = f"moorage:recording:{DIGEST.hex()}"

        async def left_s() -> float:
            left: Any = client.pttl(key)
            client.pexpire(key, 60_000)
            return float(left) / 1000

        assert TTL_S - 60 < await left_s() <= TTL_S
        await table.get(DIGEST)
        assert TTL_S - 60 < await left_s() <= TTL_S
        await table.bind(DIGEST, b"", b"a")
        assert TTL_S - 60 < await left_s() <= TTL_S
        await table.renew([OTHER, DIGEST])
        assert TTL_S - 60 < await left_s() <= TTL_S
        assert await left_s() <= 60
        # What somebody else wrote there is no recording.
        client.hset(key, "ttl", "soon")
        assert await table.get(DIGEST) is None
    await table.aclose()


async def test_the_documented_redis_user_may_do_it(redis_server: RedisServer) -> None:
    found = ACL.search((Path(__file__).parents[2] / "docs/reference/catalog.md").read_text(encoding="utf-8"))
    assert found is not None
    with redis_server.client() as client:
        client.acl_setuser("moorage", enabled=True, passwords=["+sesame"], keys=[found[1]], commands=found[2].split())
    table = RedisRecordings(redis_server.url.replace("//", "//moorage:sesame@"))
    await table.put(DIGEST, b"x", TTL_S)
    assert await table.bind(DIGEST, b"", b"a") == b"a"
    await table.renew([DIGEST])
    assert await table.get(DIGEST) == Kept(b"x", b"a", TTL_S)
    await table.delete(DIGEST)
    assert await table.get(DIGEST) is None
    await table.aclose()


async def test_a_redis_that_is_away_says_so(redis_server: RedisServer) -> None:
    recordings = Recordings(RedisRecordings(redis_server.url))
    await recordings.put("tools", b"token", RECORDING, TTL_S)
    found = await recordings.get("tools", b"token")
    assert found is not None
    redis_server.kill()
    for question in (
        recordings.put("tools", b"token", RECORDING, TTL_S),
        recordings.get("tools", b"token"),
        recordings.bind("tools", b"token", found, BINDINGS[0]),
        recordings.renew([("tools", b"token")]),
        recordings.delete("tools", b"token"),
    ):
        with pytest.raises(LogUnavailable):
            await question
    await recordings.aclose()


async def test_expired_recordings_leave_the_file(tmp_path: Path) -> None:
    clock = Clock()
    table = SqliteRecordings(str(tmp_path / "catalog.db"), wall_clock=clock)
    for number in range(5):
        await table.put(bytes([number]), b"x", TTL_S)
    clock.now_s += TTL_S + 1
    await table.put(DIGEST, b"x", TTL_S)
    rows = await table._file.run(lambda connection: connection.execute("SELECT digest FROM recordings").fetchall())
    assert rows == [(DIGEST,)]
    await table.aclose()


async def test_memory_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings_memory, "MAX_RECORDINGS", 3)
    table = MemoryRecordings()
    for number in range(3):
        await table.put(bytes([number]), b"x" * 100, TTL_S)
    await table.get(bytes([0]))
    await table.put(bytes([3]), b"x" * 100, TTL_S)
    found = [number for number in range(4) if await table.get(bytes([number])) is not None]
    assert found == [0, 2, 3]
    monkeypatch.setattr(recordings_memory, "MAX_BYTES", 700)
    await table.put(bytes([4]), b"x" * 100, TTL_S)
    found = [number for number in range(5) if await table.get(bytes([number])) is not None]
    assert found == [3, 4]
    for number in range(5):
        await table.delete(bytes([number]))
    assert table._table.bytes == 0


async def test_many_are_renewed_in_pieces() -> None:
    asked: list[int] = []

    class Counting(MemoryRecordings):
        async def renew(self, digests: object) -> None:
            asked.append(len(digests))  # type: ignore[arg-type]

    recordings = Recordings(Counting())
    await recordings.renew([("tools", b"%d" % number) for number in range(RENEWED_AT_ONCE + 1)])
    assert asked == [RENEWED_AT_ONCE, 1]
