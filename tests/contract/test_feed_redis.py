"""What only Redis can do to a feed: hang, vanish, fail over, be written by others, forbid."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.log import redis_client
from gateway.log.base import LogUnavailable
from gateway.log.feed import Read
from gateway.log.feed_redis import RedisFeed
from tests.contract.feeds import FOREVER_S, NOTICED_S, Closing, Reader, numbered
from tests.contract.redis_server import RedisServer
from tests.contract.stores import RedisFeedStore
from tests.contract.switch import switched

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "catalog.md"
ACL = re.compile(r"^ACL SETUSER moorage on >PASSWORD resetkeys ~(\S+) (.+)$", re.MULTILINE)


async def test_the_keys_are_those_of_the_reference_page(on_redis: RedisFeedStore, closing: Closing) -> None:
    await closing(on_redis.open()).append([b"a"])
    keys: Any = on_redis.server.client.keys("*")
    assert sorted(key.decode() for key in keys) == [on_redis.HISTORY, on_redis.STREAM]
    assert list[Any](on_redis.server.client.xrange(on_redis.STREAM)) == [(b"1-0", {b"message": b"a"})]  # type: ignore[arg-type]


async def test_a_hung_server_is_noticed(on_redis: RedisFeedStore, redis_server: RedisServer, closing: Closing) -> None:
    feed = closing(on_redis.open())
    await feed.append([b"a"])
    reader = Reader(feed)
    await reader.known()
    redis_server.pause()
    began_s = time.monotonic()
    outcomes = await asyncio.gather(reader.next(1.0), feed.append([b"b"]), return_exceptions=True)
    assert time.monotonic() - began_s < NOTICED_S
    assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes), outcomes
    redis_server.resume()
    # The append that was given up may have arrived all the same.
    await feed.append([b"c"])
    assert (await reader.known())[-1:] == [b"c"]


async def test_waiting_for_longer_than_the_deadline_is_no_failure(
    on_redis: RedisFeedStore, closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "DEADLINE_S", 1.0)
    reader = Reader(closing(on_redis.open()))
    await reader.next()
    assert (await reader.next(1.1))[2:4] == ((), False)


async def test_a_killed_server_is_noticed_at_once_and_is_another_one_when_it_is_back(
    on_redis: RedisFeedStore, redis_server: RedisServer, closing: Closing
) -> None:
    feed, other = closing(on_redis.open()), closing(on_redis.open())
    await feed.append([b"a"])
    reader = Reader(feed)
    await reader.known()
    waiting = asyncio.gather(reader.next(FOREVER_S), return_exceptions=True)
    await asyncio.wait([waiting], timeout=0.05)
    redis_server.kill()
    (ended,) = await waiting
    assert isinstance(ended, LogUnavailable)
    with pytest.raises(LogUnavailable):
        await feed.append([b"b"])
    redis_server.start()
    await other.append([b"c", b"d"])
    assert (await reader.after_failures())[2:4] == ((b"c", b"d"), True)


@pytest.mark.parametrize("appended", [0, 1, 2, 5])
async def test_a_server_restarted_from_an_older_copy_is_a_restart(
    on_redis: RedisFeedStore, redis_server: RedisServer, closing: Closing, appended: int
) -> None:
    """The history's name is the same, and there are as many ids as before, or more."""
    feed, other = closing(on_redis.open()), closing(on_redis.open())
    await feed.append([b"a"])
    on_redis.server.client.save()
    await feed.append([b"b", b"c"])
    reader = Reader(feed)
    await reader.known()
    redis_server.kill()
    redis_server.start()
    await other.append(numbered(appended))
    read = await reader.after_failures()
    assert (read.restart, list(read.messages)) == (True, [b"a", *numbered(appended)])


@pytest.mark.parametrize("appended", [0, 3, 4, 5])
async def test_a_lagging_replica_that_takes_over_is_a_restart(
    redis_server: RedisServer, other_server: RedisServer, closing: Closing, appended: int
) -> None:
    async with switched(redis_server.port) as switch, AsyncExitStack() as stack:
        feed = RedisFeed(f"redis://127.0.0.1:{switch.port}/0", "replays")
        stack.push_async_callback(feed.aclose)
        other = closing(RedisFeed(other_server.url, "replays"))
        with other_server.client() as replica:
            replica.replicaof("127.0.0.1", str(redis_server.port))
            await feed.append(numbered(3))
            redis_server.wait_for_replica()
            replica.replicaof("NO", "ONE")
        await feed.append(numbered(4, 3))
        reader = Reader(feed)
        await reader.known()
        switch.to(other_server.port)
        await other.append(numbered(appended, 100))
        read = await reader.after_failures()
        assert (read.restart, list(read.messages)) == (True, [*numbered(3), *numbered(appended, 100)])


@pytest.mark.parametrize("gone", [RedisFeedStore.STREAM, RedisFeedStore.HISTORY])
async def test_a_lost_key_is_a_restart_and_the_next_append_begins_anew(
    on_redis: RedisFeedStore, closing: Closing, gone: str
) -> None:
    feed = closing(on_redis.open())
    await feed.append(numbered(3))
    reader = Reader(feed)
    await reader.known()
    on_redis.server.client.delete(gone)
    # Behind what is left of the stream: a reader who waits there is not woken for nothing, again and again.
    left = "3-0" if gone == on_redis.HISTORY else "0-0"
    assert await reader.next() == Read("", left, (), restart=True, end=True)
    assert await reader.next() == Read("", left, (), restart=False, end=True)
    await feed.append(numbered(4, 10))
    read = await reader.next()
    assert (read.restart, list(read.messages)) == (True, numbered(4, 10))


async def test_entries_of_others_are_a_restart_or_an_empty_message(on_redis: RedisFeedStore, closing: Closing) -> None:
    feed = closing(on_redis.open())
    await feed.append([b"a"])
    reader = Reader(feed)
    await reader.known()
    on_redis.server.client.xadd(on_redis.STREAM, {"other": b"field"}, id="2-0")
    assert (await reader.next())[2:4] == ((b"",), False)
    on_redis.server.client.xadd(on_redis.STREAM, {"message": b"foreign"})
    assert (await reader.next())[2:4] == ((b"foreign",), True)
    await feed.append([b"b"])
    assert (await reader.next())[2:4] == ((b"b",), False)
    on_redis.server.client.xadd(on_redis.STREAM, {"message": b""}, id="18446744073709551615-18446744073709551615")
    await feed.append([b"c"])
    assert (await reader.next())[2:4] == ((b"c",), True)


async def test_a_key_of_another_type_is_a_failure_of_the_store(on_redis: RedisFeedStore, closing: Closing) -> None:
    feed = closing(on_redis.open())
    on_redis.server.client.set(on_redis.STREAM, "text")
    with pytest.raises(LogUnavailable, match="WRONGTYPE"):
        await feed.append([b"a"])
    with pytest.raises(LogUnavailable, match="WRONGTYPE"):
        await feed.read("", "", 0)


@pytest.mark.parametrize("without", ["", "+info"])
async def test_the_user_of_the_reference_page_may_do_what_is_needed(
    on_redis: RedisFeedStore, closing: Closing, without: str
) -> None:
    """Also without INFO: then the history and the ids alone tell."""
    found = ACL.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    commands = [command for command in found[2].split() if command != without]
    client = on_redis.server.client
    client.acl_setuser("moorage", enabled=True, passwords=["+sesame"], keys=[found[1]], commands=commands)
    feed = closing(RedisFeed(on_redis.server.url.replace("://", "://moorage:sesame@"), "replays"))
    assert "sesame" not in feed.where
    reader = Reader(feed)
    await reader.next()
    await feed.append([b"a"])
    assert await reader.known() == [b"a"]
    assert (await reader.next(0.01))[2:4] == ((), False)
    on_redis.flush()
    assert (await reader.next()).restart


async def test_nobody_there_is_named_without_the_password(redis_server: RedisServer, closing: Closing) -> None:
    redis_server.kill()
    feed = closing(RedisFeed(f"redis://me:sesame@127.0.0.1:{redis_server.port}/0", "replays"))
    with pytest.raises(LogUnavailable, match=f"127.0.0.1:{redis_server.port}/0 feed replays") as caught:
        await feed.append([b"a"])
    assert "sesame" not in str(caught.value)
