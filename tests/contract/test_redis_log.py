"""What only Redis can do to a log: stop, vanish, fail over, be written by others, forbid."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis as redis_library

from gateway.log.base import LogUnavailable, LossReason, Lost
from gateway.log.opening import UnknownStore, open_log, open_pins
from gateway.log.redis import RedisLog
from tests.contract.records import instance_record, read_all, versions
from tests.contract.redis_server import RedisServer
from tests.contract.switch import switched

NOTICED_S = 5.0
"""A stopped server is noticed within this."""
STREAM, STATE, GENERATION = (f"moorage:{{local}}:{key}" for key in ("log", "state", "generation"))


@pytest.fixture
async def log(redis_server: RedisServer) -> AsyncIterator[RedisLog]:
    log = RedisLog(redis_server.url, "local")
    yield log
    await log.aclose()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis_library.Redis]:
    with redis_server.client() as client:
        yield client


async def place(log: RedisLog) -> tuple[str, str]:
    snapshot = await log.snapshot()
    await read_all(snapshot)
    return snapshot.generation, snapshot.position


async def lost(log: RedisLog, at: tuple[str, str]) -> LossReason:
    """What the next answer says; connections that were cut are made again."""
    async with asyncio.timeout(NOTICED_S):
        while True:
            try:
                tail = await log.tail(*at, 0)
            except LogUnavailable:
                continue
            assert isinstance(tail, Lost)
            return tail.reason


async def test_the_keys_are_those_of_the_reference_page(log: RedisLog, client: redis_library.Redis) -> None:
    await log.append([instance_record()])
    keys: Any = client.keys("*")
    assert sorted(key.decode() for key in keys) == [GENERATION, STREAM, STATE]
    ((at, fields),) = list[Any](client.xrange(STREAM))  # type: ignore[arg-type]
    assert at == b"1-0"
    assert client.hgetall(STATE) == {b"instance/tools/i-1": fields[b"record"]}


# --- away ------------------------------------------------------------------------------


async def test_a_stopped_server_is_noticed(log: RedisLog, redis_server: RedisServer) -> None:
    await log.append([instance_record()])
    at = await place(log)
    redis_server.pause()
    began_s = time.monotonic()
    outcomes = await asyncio.gather(
        log.tail(*at, 1.0), log.append([instance_record(counter=2)]), return_exceptions=True
    )
    assert time.monotonic() - began_s < NOTICED_S
    assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes), outcomes
    redis_server.resume()
    assert await log.append([instance_record(counter=2)]) == []
    assert versions((await log.tail(*at, 1.0)).raws) == [("instance/tools/i-1", 1, 2)]


async def test_a_killed_server_is_noticed_at_once_and_known_to_be_another_when_it_is_back(
    log: RedisLog, redis_server: RedisServer
) -> None:
    await log.append([instance_record()])
    at = await place(log)
    waiting = asyncio.gather(log.tail(*at, 1.0), return_exceptions=True)
    await asyncio.wait([waiting], timeout=0.05)
    redis_server.kill()
    (ended,) = await waiting
    assert isinstance(ended, LogUnavailable)
    with pytest.raises(LogUnavailable):
        await log.append([instance_record(counter=2)])
    redis_server.start()
    assert await lost(log, at) is LossReason.EMPTY


async def test_nobody_there_is_named_without_the_password(redis_server: RedisServer) -> None:
    redis_server.kill()
    log = RedisLog(f"redis://me:sesame@127.0.0.1:{redis_server.port}/0", "local")
    with pytest.raises(LogUnavailable) as caught:
        await log.append([instance_record()])
    assert f"127.0.0.1:{redis_server.port}/0 log local" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert "look whether Redis runs" in str(caught.value)
    await log.aclose()


async def test_a_wrong_password_is_said_to_be_one(redis_server: RedisServer) -> None:
    log = RedisLog(f"redis://nobody:sesame@127.0.0.1:{redis_server.port}/0", "local")
    with pytest.raises(LogUnavailable, match="correct the user or password") as caught:
        await log.snapshot()
    assert "sesame" not in str(caught.value)
    await log.aclose()


# --- another history -------------------------------------------------------------------


@pytest.mark.parametrize("written_there", [0, 3, 4, 5, 9])
async def test_a_lagging_replica_that_takes_over_is_another_history(
    redis_server: RedisServer, other_server: RedisServer, written_there: int
) -> None:
    """Under the same address, with the same generation, and with as many ids as it likes."""
    async with switched(redis_server.port) as switch, AsyncExitStack() as stack:
        log, other = RedisLog(f"redis://127.0.0.1:{switch.port}/0", "local"), RedisLog(other_server.url, "local")
        stack.push_async_callback(log.aclose)
        stack.push_async_callback(other.aclose)
        with other_server.client() as replica:
            replica.replicaof("127.0.0.1", str(redis_server.port))
            await log.append([instance_record(counter=counter) for counter in range(1, 4)])
            redis_server.wait_for_replica()
            replica.replicaof("NO", "ONE")
        await log.append([instance_record(counter=counter) for counter in range(4, 8)])
        at = await place(log)
        assert at[1] == "7-0"
        switch.to(other_server.port)
        await other.append([instance_record(counter=counter) for counter in range(4, 4 + written_there)])
        assert await lost(log, at) is LossReason.NEW_HISTORY
        again = await place(log)
        assert again[0].split("@")[0] == at[0].split("@")[0]
        assert again[0] != at[0]
        assert again[1] == f"{3 + written_there}-0"


async def test_another_database_under_the_same_number_is_noticed(log: RedisLog, client: redis_library.Redis) -> None:
    await log.append([instance_record()])
    at = await place(log)
    client.swapdb(0, 1)
    assert await lost(log, at) is LossReason.EMPTY
    await log.append([instance_record(counter=2)])
    assert await lost(log, at) is LossReason.NEW_HISTORY


@pytest.mark.parametrize("gone", [(STREAM,), (STATE,), (GENERATION,), (STREAM, STATE), (STREAM, GENERATION)])
async def test_keys_that_are_lost_one_by_one_end_the_history(
    log: RedisLog, client: redis_library.Redis, gone: tuple[str, ...]
) -> None:
    await log.append([instance_record("i-1", counter=counter) for counter in range(1, 4)])
    at = await place(log)
    client.delete(*gone)
    assert await lost(log, at) is LossReason.EMPTY
    assert (await place(log))[0] == ""
    await log.append([instance_record("i-2", counter=counter) for counter in range(1, 7)])
    assert await lost(log, at) is LossReason.NEW_HISTORY
    # What was left of the state is part of the new history.
    names = {raw.name for raw in await read_all(await log.snapshot())}
    assert names == {"instance/tools/i-2"} | (set() if STATE in gone else {"instance/tools/i-1"})


# --- written by others -----------------------------------------------------------------


async def test_an_entry_with_an_id_of_its_own_is_a_gap_and_ids_go_on_behind_it(
    log: RedisLog, client: redis_library.Redis
) -> None:
    await log.append([instance_record()])
    at = await place(log)
    foreign: Any = client.xadd(STREAM, {"record": b"no record"})
    assert await lost(log, at) is LossReason.GAP
    at = await place(log)
    assert at[1] == foreign.decode()
    await log.append([instance_record(counter=2)])
    assert versions((await log.tail(*at, 0)).raws) == [("instance/tools/i-1", 1, 2)]


async def test_an_entry_taken_out_of_the_middle_is_a_gap(log: RedisLog, client: redis_library.Redis) -> None:
    await log.append([instance_record()])
    at = await place(log)
    await log.append([instance_record(counter=counter) for counter in range(2, 6)])
    client.xdel(STREAM, "3-0")
    assert await lost(log, at) is LossReason.GAP


async def test_an_entry_without_a_record_is_handed_on_as_an_empty_one(
    log: RedisLog, client: redis_library.Redis
) -> None:
    await log.append([instance_record()])
    at = await place(log)
    client.xadd(STREAM, {"other": b"field"}, id="2-0")
    assert [raw.data for raw in (await log.tail(*at, 0)).raws] == [b""]


async def test_ids_that_leave_no_room_begin_a_new_history(log: RedisLog, client: redis_library.Redis) -> None:
    await log.append([instance_record()])
    at = await place(log)
    client.xadd(STREAM, {"record": b""}, id="18446744073709551615-18446744073709551615")
    assert await log.append([instance_record(counter=2)]) == []
    assert await lost(log, at) is LossReason.NEW_HISTORY
    assert versions(await read_all(await log.snapshot())) == [("instance/tools/i-1", 1, 2)]


async def test_a_key_of_another_type_is_a_failure_of_the_store(log: RedisLog, client: redis_library.Redis) -> None:
    client.set(STREAM, "text")
    client.set(STATE, "text")
    client.set(GENERATION, "text")
    with pytest.raises(LogUnavailable, match="WRONGTYPE"):
        await log.append([instance_record()])
    with pytest.raises(LogUnavailable, match="WRONGTYPE"):
        await log.snapshot()


# --- forbidden -------------------------------------------------------------------------

READER = "+hscan +get +exists +xinfo|stream +xread +multi +exec"


async def test_a_user_that_may_only_read_reads(redis_server: RedisServer, client: redis_library.Redis) -> None:
    """Also without INFO: then the generation and the ids alone tell."""
    owner = RedisLog(redis_server.url, "local")
    await owner.append([instance_record()])
    client.acl_setuser("reader", enabled=True, passwords=["+sesame"], keys=["moorage:*"], commands=READER.split())
    reader = RedisLog(f"redis://reader:sesame@127.0.0.1:{redis_server.port}/0", "local")
    at = await place(reader)
    await owner.append([instance_record(counter=2)])
    assert versions((await reader.tail(*at, 1.0)).raws) == [("instance/tools/i-1", 1, 2)]
    with pytest.raises(LogUnavailable, match="allow this user"):
        await reader.append([instance_record(counter=3)])
    await owner.aclose()
    await reader.aclose()


async def test_a_replica_takes_no_writes_and_is_said_to_be_one(
    redis_server: RedisServer, other_server: RedisServer
) -> None:
    log = RedisLog(other_server.url, "local")
    with other_server.client() as replica:
        replica.replicaof("127.0.0.1", str(redis_server.port))
    with pytest.raises(LogUnavailable, match="name the primary"):
        await log.append([instance_record()])
    await log.aclose()


@pytest.mark.parametrize("url", ["redis+sentinel://a,b/main", "rediss+sentinel://a/main", "postgres://a", "redis"])
def test_a_store_that_there_is_not_is_refused_with_what_to_write(url: str) -> None:
    for open_any in (lambda: open_log(url, "local"), lambda: open_pins(url)):
        if url == "redis":
            continue
        with pytest.raises(UnknownStore, match='write "redis://host:6379/0"'):
            open_any()
