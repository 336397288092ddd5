"""The stores that the contracts of log and feed run over, each with the faults a store can have."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import redis

from gateway.core.record import BadRecord, decode
from gateway.log.base import KEPT_ENTRIES, CatalogLog
from gateway.log.feed import KEPT_MESSAGES, Feed
from gateway.log.feed_memory import MemoryFeed, MemoryMessages
from gateway.log.feed_redis import RedisFeed
from gateway.log.feed_sqlite import SqliteFeed
from gateway.log.memory import MemoryHistory, MemoryLog
from gateway.log.redis import RedisLog
from gateway.log.sqlite import SqliteLog


class Store(Protocol):
    """A place that logs are opened in. The faults work behind the logs' backs."""

    def open(self, region: str = "local", kept_entries: int = KEPT_ENTRIES) -> CatalogLog: ...

    def flush(self) -> None:
        """Everything is gone."""

    def trim(self, region: str = "local", kept: int = 0) -> None:
        """Only the last `kept` entries of the stream are left."""

    def write_raw(self, key: str, raw: bytes, region: str = "local") -> None:
        """Into the stream and the state, as a faulty writer would."""

    def backup(self, region: str = "local") -> Callable[[], None]:
        """A function that makes the store again what it is now."""

    def lose_state(self, region: str = "local") -> None:
        """Only the stream and the generation are left."""

    def length(self, region: str = "local") -> int:
        """Of the stream."""


class MemoryStore:
    def __init__(self) -> None:
        self._histories: dict[str, MemoryHistory] = {}

    def history(self, region: str = "local", kept_entries: int = KEPT_ENTRIES) -> MemoryHistory:
        return self._histories.setdefault(region, MemoryHistory("memory:test", kept_entries))

    def open(self, region: str = "local", kept_entries: int = KEPT_ENTRIES) -> CatalogLog:
        return MemoryLog(self.history(region, kept_entries))

    def flush(self) -> None:
        for history in self._histories.values():
            history.flush()

    def trim(self, region: str = "local", kept: int = 0) -> None:
        self.history(region).trim(kept)

    def write_raw(self, key: str, raw: bytes, region: str = "local") -> None:
        self.history(region).write_raw(key, raw)

    def backup(self, region: str = "local") -> Callable[[], None]:
        backup = self.history(region).copy()
        return lambda: self.history(region).restore(backup)

    def lose_state(self, region: str = "local") -> None:
        self.history(region).lose_state()

    def length(self, region: str = "local") -> int:
        return len(self.history(region).after(0, 10**9))


class SqliteStore:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, region: str = "local", kept_entries: int = KEPT_ENTRIES) -> CatalogLog:
        return SqliteLog(str(self.path), region, kept_entries)

    def execute(self, *statements: tuple[str, tuple[Any, ...]]) -> list[Any]:
        """In one transaction of another connection, as another process would."""
        with closing(sqlite3.connect(self.path, timeout=5)) as connection, connection:
            return [connection.execute(sql, values).fetchall() for sql, values in statements]

    def flush(self) -> None:
        self.execute(("DELETE FROM history", ()), ("DELETE FROM stream", ()), ("DELETE FROM state", ()))

    def trim(self, region: str = "local", kept: int = 0) -> None:
        last = "(SELECT last FROM history WHERE log = ?)"
        self.execute((f"DELETE FROM stream WHERE log = ? AND number <= {last} - ?", (region, region, kept)))

    def write_raw(self, key: str, raw: bytes, region: str = "local") -> None:
        read = decode(raw)
        epoch, counter, writer = (-1, -1, "") if isinstance(read, BadRecord) else (*read.version, read.writer)
        last = "(SELECT last FROM history WHERE log = ?)"
        self.execute(
            ("UPDATE history SET last = last + 1 WHERE log = ?", (region,)),
            (f"INSERT INTO stream VALUES (?, {last}, ?)", (region, region, raw)),
            ("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?, ?)", (region, key, epoch, counter, writer, raw)),
        )

    def backup(self, region: str = "local") -> Callable[[], None]:
        tables = {"history": 3, "stream": 3, "state": 6}
        rows = {name: self.execute((f"SELECT * FROM {name}", ()))[0] for name in tables}

        def restore() -> None:
            empty = [(f"DELETE FROM {name}", ()) for name in tables]
            filled = [
                (f"INSERT INTO {name} VALUES ({', '.join('?' * width)})", row)
                for name, width in tables.items()
                for row in rows[name]
            ]
            self.execute(*empty, *filled)

        return restore

    def lose_state(self, region: str = "local") -> None:
        self.execute(("DELETE FROM state WHERE log = ?", (region,)))

    def length(self, region: str = "local") -> int:
        rows = self.execute(("SELECT count(*) FROM stream WHERE log = ?", (region,)))
        return int(rows[0][0][0])


class RedisStore:
    def __init__(self, url: str, client: redis.Redis) -> None:
        self.url = url
        self.client = client

    def open(self, region: str = "local", kept_entries: int = KEPT_ENTRIES) -> CatalogLog:
        return RedisLog(self.url, region, kept_entries)

    def flush(self) -> None:
        self.client.flushall()

    def trim(self, region: str = "local", kept: int = 0) -> None:
        self.client.xtrim(f"moorage:{{{region}}}:log", maxlen=kept, approximate=False)

    def write_raw(self, key: str, raw: bytes, region: str = "local") -> None:
        info: Any = self.client.xinfo_stream(f"moorage:{{{region}}}:log")
        number = int(info["last-generated-id"].split(b"-")[0]) + 1
        self.client.xadd(f"moorage:{{{region}}}:log", {"record": raw}, id=f"{number}-0")
        self.client.hset(f"moorage:{{{region}}}:state", key, raw)

    def backup(self, region: str = "local") -> Callable[[], None]:
        keys: Any = self.client.keys("*")
        dumps: dict[bytes, Any] = {key: self.client.dump(key) for key in keys}

        def restore() -> None:
            with self.client.pipeline(transaction=True) as pipeline:
                pipeline.flushall()
                for key, dump in dumps.items():
                    pipeline.restore(key, 0, dump)
                pipeline.execute()

        return restore

    def lose_state(self, region: str = "local") -> None:
        self.client.delete(f"moorage:{{{region}}}:state")

    def length(self, region: str = "local") -> int:
        length: Any = self.client.xlen(f"moorage:{{{region}}}:log")
        return int(length)


class FeedStore(Protocol):
    """A place that a feed is opened in. The faults work behind its back."""

    def open(self, kept_messages: int = KEPT_MESSAGES) -> Feed: ...

    def flush(self) -> None:
        """Everything is gone."""

    def trim(self, kept: int) -> None:
        """Only the last `kept` messages are left."""

    def backup(self) -> Callable[[], None]:
        """A function that makes the store again what it is now."""

    def length(self) -> int: ...


class MemoryFeedStore:
    def __init__(self) -> None:
        self.messages: MemoryMessages | None = None

    def open(self, kept_messages: int = KEPT_MESSAGES) -> Feed:
        if self.messages is None:
            self.messages = MemoryMessages("memory:test", kept_messages)
        return MemoryFeed(self.messages)

    def _held(self) -> MemoryMessages:
        assert self.messages is not None
        return self.messages

    def flush(self) -> None:
        self._held().flush()

    def trim(self, kept: int) -> None:
        self._held().trim(kept)

    def backup(self) -> Callable[[], None]:
        backup = self._held().copy()
        return lambda: self._held().restore(backup)

    def length(self) -> int:
        return len(self._held())


class SqliteFeedStore:
    def __init__(self, path: Path) -> None:
        self.file = SqliteStore(path)

    def open(self, kept_messages: int = KEPT_MESSAGES) -> Feed:
        return SqliteFeed(str(self.file.path), "replays", kept_messages)

    def flush(self) -> None:
        self.file.execute(("DELETE FROM feeds", ()), ("DELETE FROM messages", ()))

    def trim(self, kept: int) -> None:
        self.file.execute(("DELETE FROM messages WHERE number <= (SELECT last FROM feeds) - ?", (kept,)))

    def take_out(self, number: int) -> None:
        """One message from the middle is gone."""
        self.file.execute(("DELETE FROM messages WHERE number = ?", (number,)))

    def backup(self) -> Callable[[], None]:
        feeds, messages = self.file.execute(("SELECT * FROM feeds", ()), ("SELECT * FROM messages", ()))

        def restore() -> None:
            self.flush()
            self.file.execute(
                *(("INSERT INTO feeds VALUES (?, ?, ?)", row) for row in feeds),
                *(("INSERT INTO messages VALUES (?, ?, ?)", row) for row in messages),
            )

        return restore

    def length(self) -> int:
        return int(self.file.execute(("SELECT count(*) FROM messages", ()))[0][0][0])


class RedisFeedStore:
    STREAM = "moorage:{feed}:replays"
    HISTORY = "moorage:{feed}:history"

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.server = RedisStore(url, client)

    def open(self, kept_messages: int = KEPT_MESSAGES) -> Feed:
        return RedisFeed(self.server.url, "replays", kept_messages)

    def flush(self) -> None:
        self.server.flush()

    def trim(self, kept: int) -> None:
        self.server.client.xtrim(self.STREAM, maxlen=kept, approximate=False)

    def take_out(self, number: int) -> None:
        """One message from the middle is gone."""
        self.server.client.xdel(self.STREAM, f"{number}-0")

    def backup(self) -> Callable[[], None]:
        return self.server.backup()

    def length(self) -> int:
        length: Any = self.server.client.xlen(self.STREAM)
        return int(length)
