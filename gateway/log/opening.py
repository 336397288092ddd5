"""From the configuration's `catalog` URL to a log, a feed, a pin store, recorded sessions and the presence.

Each kind of store is imported when it is named.
"""

from __future__ import annotations

from gateway.log.base import KEPT_ENTRIES, CatalogLog
from gateway.log.feed import KEPT_MESSAGES, Feed
from gateway.log.pins import PinTable
from gateway.log.presence import Presence
from gateway.log.recordings import RecordingTable


class UnknownStore(ValueError):
    """The URL names no store that there is. Its text says what to write instead."""


def open_log(url: str, region: str, kept_entries: int = KEPT_ENTRIES) -> CatalogLog:
    """The log of one region, or of "global". Nothing is connected to before it is first used.

    `memory:` and `memory:NAME` are shared within the process, `sqlite:PATH` within the machine.
    """
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory":
            from gateway.log.memory import MemoryLog

            return MemoryLog.named(rest, region, kept_entries)
        case "sqlite":
            from gateway.log.sqlite import SqliteLog

            return SqliteLog(rest, region, kept_entries)
        case "redis" | "rediss":
            from gateway.log.redis import RedisLog

            return RedisLog(url, region, kept_entries)
        case _:
            raise _unknown(scheme)


def open_feed(url: str, name: str, kept_messages: int = KEPT_MESSAGES) -> Feed:
    """The feed of this name in the same store. Nothing is connected to before it is first used."""
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory":
            from gateway.log.feed_memory import MemoryFeed

            return MemoryFeed.named(rest, name, kept_messages)
        case "sqlite":
            from gateway.log.feed_sqlite import SqliteFeed

            return SqliteFeed(rest, name, kept_messages)
        case "redis" | "rediss":
            from gateway.log.feed_redis import RedisFeed

            return RedisFeed(url, name, kept_messages)
        case _:
            raise _unknown(scheme)


def open_pins(url: str) -> PinTable:
    """The pins in the same database, for CachedPins. Nothing is connected to before it is first used."""
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory":
            from gateway.log.pins_memory import MemoryPins

            return MemoryPins.named(rest)
        case "sqlite":
            from gateway.log.pins_sqlite import SqlitePins

            return SqlitePins(rest)
        case "redis" | "rediss":
            from gateway.log.pins_redis import RedisPins

            return RedisPins(url)
        case _:
            raise _unknown(scheme)


def open_recordings(url: str) -> RecordingTable:
    """The recorded sessions in the same database, for Recordings. Nothing is connected to before it is first used."""
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory":
            from gateway.log.recordings_memory import MemoryRecordings

            return MemoryRecordings.named(rest)
        case "sqlite":
            from gateway.log.recordings_sqlite import SqliteRecordings

            return SqliteRecordings(rest)
        case "redis" | "rediss":
            from gateway.log.recordings_redis import RedisRecordings

            return RedisRecordings(url)
        case _:
            raise _unknown(scheme)


def open_presence(url: str) -> Presence:
    """The presence in the same database. Nothing is connected to before it is first used."""
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory":
            from gateway.log.presence_memory import MemoryPresence

            return MemoryPresence.named(rest)
        case "sqlite":
            from gateway.log.presence_sqlite import SqlitePresence

            return SqlitePresence(rest)
        case "redis" | "rediss":
            from gateway.log.presence_redis import RedisPresence

            return RedisPresence(url)
        case _:
            raise _unknown(scheme)


def _unknown(scheme: str) -> UnknownStore:
    remedy = 'write "redis://host:6379/0", "rediss://host:6379/0", "sqlite:PATH" or "memory:"'
    if scheme in ("redis+sentinel", "rediss+sentinel"):
        return UnknownStore(f"{scheme}:// is not built yet; {remedy}")
    return UnknownStore(f"{scheme!r} is no kind of catalog; {remedy}")
