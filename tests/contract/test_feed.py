"""One contract for every feed, with the faults a store can have."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.log import sqlite_file
from gateway.log.base import LogUnavailable
from gateway.log.feed import CHUNK, MAX_MESSAGE_BYTES, Read
from gateway.log.feed_sqlite import SqliteFeed
from gateway.log.opening import UnknownStore, open_feed
from tests.contract.feeds import FOREVER_S, LONG_S, Closing, Reader, numbered
from tests.contract.redis_server import RedisServer
from tests.contract.stores import FeedStore, RedisFeedStore, SqliteFeedStore

# --- reading what was appended ---------------------------------------------------------


async def test_a_first_read_is_a_restart_also_of_an_empty_store(feeds: FeedStore, closing: Closing) -> None:
    feed = closing(feeds.open())
    reader = Reader(feed)
    assert await reader.next(FOREVER_S) == Read("", "0-0", (), restart=True, end=True)
    assert await reader.next() == Read("", "0-0", (), restart=False, end=True)
    await feed.append([b"a", b"", b"\0\xff"])
    read = await reader.next()
    assert (read.messages, read.position, read.restart, read.end) == ((b"a", b"", b"\0\xff"), "3-0", True, True)
    assert await reader.next() == Read(read.history, "3-0", (), restart=False, end=True)
    await feed.append([b"b"])
    assert await reader.next() == Read(read.history, "4-0", (b"b",), restart=False, end=True)


async def test_appending_nothing_begins_nothing(feeds: FeedStore, closing: Closing) -> None:
    feed = closing(feeds.open())
    await feed.append([])
    assert (await Reader(feed).next()).history == ""


async def test_readers_see_the_same_order_whoever_appends(feeds: FeedStore, closing: Closing) -> None:
    one, two = closing(feeds.open()), closing(feeds.open())
    readers = [Reader(one), Reader(two)]
    for reader in readers:
        await reader.next()
    await asyncio.gather(*(feed.append([b"%d" % number]) for number in range(20) for feed in (one, two)))
    first, second = [await reader.known() for reader in readers]
    assert first == second
    assert sorted(first) == sorted(2 * numbered(20))


async def test_a_late_reader_gets_what_is_kept_in_chunks(feeds: FeedStore, closing: Closing) -> None:
    count = 2 * CHUNK + 7
    await closing(feeds.open()).append(numbered(count))
    reader = Reader(closing(feeds.open()))
    reads = [await reader.next() for _ in range(3)]
    assert [read.restart for read in reads] == [True, False, False]
    assert [read.end for read in reads] == [False, False, True]
    assert [message for read in reads for message in read.messages] == numbered(count)


async def test_waiting_ends_when_something_is_appended(feeds: FeedStore, closing: Closing) -> None:
    reader, other = Reader(closing(feeds.open())), closing(feeds.open())
    await other.append([b"a"])
    assert await reader.known() == [b"a"]
    async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(reader.next(FOREVER_S))
        await other.append([b"b"])
    # It may have been woken by an append that it had read already.
    assert (waiting.result().messages or (await reader.next(FOREVER_S)).messages) == (b"b",)


async def test_waiting_ends_by_itself(feeds: FeedStore, closing: Closing) -> None:
    feed = closing(feeds.open())
    await feed.append([b"a"])
    reader = Reader(feed)
    await reader.known()
    assert (await reader.next(0.02)).messages == ()


async def test_feeds_of_two_names_are_apart(tmp_path: Path, redis_server: RedisServer, closing: Closing) -> None:
    for url in ("memory:apart", f"sqlite:{tmp_path}/catalog.db", redis_server.url):
        one, two = closing(open_feed(url, "replays")), closing(open_feed(url, "other"))
        await one.append([b"1"])
        await two.append([b"2"])
        await one.append([b"3"])
        assert await Reader(one).known() == [b"1", b"3"]
        assert await Reader(two).known() == [b"2"]
        assert await Reader(closing(open_feed(url, "replays"))).known() == [b"1", b"3"]


def test_a_store_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnknownStore, match='write "redis://host:6379/0"'):
        open_feed("postgres://a", "replays")


async def test_a_message_over_the_bound_is_refused_and_one_at_the_bound_is_not(
    feeds: FeedStore, closing: Closing
) -> None:
    feed = closing(feeds.open())
    with pytest.raises(ValueError, match="4097 bytes"):
        await feed.append([b"a", b"x" * (MAX_MESSAGE_BYTES + 1)])
    largest = b"x" * MAX_MESSAGE_BYTES
    await feed.append([largest])
    assert await Reader(feed).known() == [largest]


async def test_a_feed_is_bounded_and_the_oldest_go(feeds: FeedStore, closing: Closing) -> None:
    feed = closing(feeds.open(kept_messages=50))
    for at in range(0, 1000, 100):
        await feed.append(numbered(100, at))
    # Redis trims whole nodes of its stream, of up to a hundred entries.
    assert 50 <= feeds.length() <= 50 + 100
    known = await Reader(feed).known()
    assert known == numbered(len(known), 1000 - len(known))


# --- missing something -----------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
async def test_messages_trimmed_before_they_were_read_are_a_restart(
    feeds: FeedStore, closing: Closing, kept: int
) -> None:
    feed = closing(feeds.open())
    reader = Reader(feed)
    await feed.append(numbered(2))
    await reader.known()
    await feed.append(numbered(5, 2))
    feeds.trim(kept)
    read = await reader.next(FOREVER_S)
    assert (read.restart, read.position, read.end) == (True, "7-0", True)
    assert list(read.messages) == numbered(kept, 7 - kept)
    await feed.append([b"next"])
    assert (await reader.next())[2:4] == ((b"next",), False)


async def test_trimming_what_was_read_misses_nothing(feeds: FeedStore, closing: Closing) -> None:
    feed = closing(feeds.open())
    reader = Reader(feed)
    await feed.append(numbered(5))
    await reader.known()
    feeds.trim(0)
    assert (await reader.next())[2:4] == ((), False)
    await feed.append([b"next"])
    assert (await reader.next())[2:4] == ((b"next",), False)


@pytest.mark.parametrize("feeds", ["sqlite", "redis"], indirect=True)
async def test_what_stands_before_a_gap_is_not_believed(feeds: FeedStore, closing: Closing) -> None:
    """Also by a reader who begins, and each gap is met once."""
    assert isinstance(feeds, SqliteFeedStore | RedisFeedStore)
    feed = closing(feeds.open())
    reader = Reader(feed)
    await feed.append(numbered(2))
    await reader.known()
    await feed.append(numbered(6, 2))
    feeds.take_out(5)
    read = await reader.next()
    assert (read.restart, list(read.messages)) == (True, numbered(3, 5))
    assert await Reader(feed).known() == numbered(3, 5)
    await feed.append(numbered(2 * CHUNK, 8))
    feeds.take_out(CHUNK + 100)
    late = Reader(feed)
    assert await late.known() == numbered(CHUNK + 8 - 100, CHUNK + 100)
    assert (await late.next())[2:4] == ((), False)


async def test_an_emptied_store_is_a_restart(feeds: FeedStore, closing: Closing) -> None:
    feed = closing(feeds.open())
    reader = Reader(feed)
    await feed.append(numbered(5))
    await reader.known()
    feeds.flush()
    assert await reader.next(FOREVER_S) == Read("", "0-0", (), restart=True, end=True)


@pytest.mark.parametrize("appended", [1, 5, 6, 20])
async def test_a_feed_begun_anew_is_a_restart_however_long_it_is(
    feeds: FeedStore, closing: Closing, appended: int
) -> None:
    feed = closing(feeds.open())
    reader = Reader(feed)
    await feed.append(numbered(5))
    await reader.known()
    feeds.flush()
    await feed.append(numbered(appended, 100))
    read = await reader.next()
    assert (read.restart, list(read.messages)) == (True, numbered(appended, 100))


async def test_a_store_that_became_an_older_copy_is_a_restart(feeds: FeedStore, closing: Closing) -> None:
    feed = closing(feeds.open())
    reader = Reader(feed)
    await feed.append(numbered(3))
    restore = feeds.backup()
    await feed.append(numbered(3, 3))
    await reader.known()
    restore()
    await feed.append([b"after"])
    read = await reader.next(FOREVER_S)
    assert (read.restart, list(read.messages)) == (True, [*numbered(3), b"after"])


# --- the end ---------------------------------------------------------------------------


async def test_closing_ends_the_waiting(feeds: FeedStore) -> None:
    feed = feeds.open()
    await feed.append([b"a"])
    reader = Reader(feed)
    await reader.known()
    async with asyncio.timeout(LONG_S):
        waiting = asyncio.gather(reader.next(FOREVER_S), return_exceptions=True)
        await asyncio.wait([waiting], timeout=0.05)
        await feed.aclose()
        (ended,) = await waiting
    assert isinstance(ended, LogUnavailable)


async def test_a_closed_feed_says_so(feeds: FeedStore) -> None:
    feed = feeds.open()
    await feed.aclose()
    await feed.aclose()
    asked: list[Callable[[], Awaitable[object]]] = [lambda: feed.append([b"a"]), lambda: feed.read("", "", 0)]
    for ask in asked:
        with pytest.raises(LogUnavailable, match="closed"):
            await ask()


# --- files -----------------------------------------------------------------------------


@pytest.fixture
def in_file(tmp_path: Path) -> SqliteFeedStore:
    return SqliteFeedStore(tmp_path / "catalog.db")


async def test_another_connection_is_heard_while_waiting(in_file: SqliteFeedStore, closing: Closing) -> None:
    """Of another process: its appends are announced by nobody."""
    feed = closing(in_file.open())
    await feed.append([b"a"])
    reader = Reader(feed)
    await reader.known()
    waiting = asyncio.gather(reader.next(FOREVER_S))
    await asyncio.wait([waiting], timeout=0.05)
    in_file.file.execute(
        ("UPDATE feeds SET last = last + 1", ()), ("INSERT INTO messages VALUES ('replays', 2, ?)", (b"b",))
    )
    (read,) = await waiting
    assert read.messages == (b"b",)


async def test_the_same_process_is_heard_at_once(
    in_file: SqliteFeedStore, closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "POLL_S", FOREVER_S)
    reader, other = Reader(closing(in_file.open())), closing(in_file.open())
    await reader.next()
    waiting = asyncio.gather(reader.next(FOREVER_S))
    await asyncio.wait([waiting], timeout=0.05)
    await other.append([b"a"])
    (read,) = await waiting
    assert read.messages == (b"a",)


async def test_a_removed_file_is_a_restart(in_file: SqliteFeedStore, closing: Closing) -> None:
    feed = closing(in_file.open())
    await feed.append([b"a"])
    reader = Reader(feed)
    await reader.known()
    for file in in_file.file.path.parent.glob("catalog.db*"):
        file.unlink()
    assert (await reader.next())[2:4] == ((), True)
    await feed.append([b"b"])
    assert (await reader.next())[2:4] == ((b"b",), True)


async def test_a_file_replaced_by_an_older_copy_is_a_restart(in_file: SqliteFeedStore, closing: Closing) -> None:
    path = in_file.file.path
    early = in_file.open()
    await early.append([b"a"])
    await early.aclose()
    shutil.copy(path, path.with_name("copy.db"))
    feed = closing(in_file.open())
    await feed.append([b"b"])
    reader = Reader(feed)
    assert await reader.known() == [b"a", b"b"]
    for file in path.parent.glob("catalog.db*"):
        file.unlink()
    path.with_name("copy.db").rename(path)
    assert (await reader.next())[2:4] == ((b"a",), True)


async def test_a_missing_folder_is_named(tmp_path: Path, closing: Closing) -> None:
    feed = closing(SqliteFeed(str(tmp_path / "nowhere" / "catalog.db"), "replays"))
    with pytest.raises(LogUnavailable, match=r"nowhere.*make its folder exist"):
        await feed.append([b"a"])
