"""Recorded sessions in the catalog's SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from gateway.log.recordings import Kept
from gateway.log.sqlite_file import SqliteFile

PURGE_EVERY_S: Final = 60.0
PURGED_AT_ONCE: Final = 1000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS recordings (
    digest BLOB PRIMARY KEY, recording BLOB NOT NULL, binding BLOB NOT NULL, ttl_s REAL NOT NULL,
    expires_at_unix_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS recordings_by_expiry ON recordings (expires_at_unix_s);
"""
_LIVE: Final = "digest = ? AND expires_at_unix_s > ?"


class SqliteRecordings:
    """See RecordingTable."""

    def __init__(
        self,
        path: str,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - expiry outlives the process
    ) -> None:
        self._file = SqliteFile(path, _SCHEMA)
        self._wall_clock = wall_clock
        self._purge_at_s = 0.0

    async def put(self, digest: bytes, recording: bytes, ttl_s: float) -> None:
        await self._file.run(partial(self._put, digest, recording, ttl_s, self._wall_clock()))

    async def get(self, digest: bytes) -> Kept | None:
        return await self._file.run(partial(_get, digest, self._wall_clock()))

    async def bind(self, digest: bytes, before: bytes, binding: bytes) -> bytes | None:
        return await self._file.run(partial(_bind, digest, before, binding, self._wall_clock()))

    async def renew(self, digests: Sequence[bytes]) -> None:
        await self._file.run(partial(_renew, digests, self._wall_clock()))

    async def delete(self, digest: bytes) -> None:
        await self._file.run(partial(_delete, digest))

    async def aclose(self) -> None:
        await self._file.aclose()

    def _put(self, digest: bytes, recording: bytes, ttl_s: float, now_s: float, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO recordings VALUES (?, ?, x'', ?, ?)", (digest, recording, ttl_s, now_s + ttl_s)
        )
        if now_s >= self._purge_at_s:
            self._purge_at_s = now_s + PURGE_EVERY_S
            expired = "SELECT digest FROM recordings WHERE expires_at_unix_s <= ? LIMIT ?"
            connection.execute(f"DELETE FROM recordings WHERE digest IN ({expired})", (now_s, PURGED_AT_ONCE))


# --- in the file's thread, each in one transaction ---------------------------------------


def _get(digest: bytes, now_s: float, connection: sqlite3.Connection) -> Kept | None:
    # First the write: a transaction that begins by reading may find that another process wrote meanwhile.
    _renew([digest], now_s, connection)
    row: tuple[bytes, bytes, float] | None = connection.execute(
        f"SELECT recording, binding, ttl_s FROM recordings WHERE {_LIVE}", (digest, now_s)
    ).fetchone()
    return Kept(*row) if row is not None else None


def _bind(digest: bytes, before: bytes, binding: bytes, now_s: float, connection: sqlite3.Connection) -> bytes | None:
    connection.execute(
        f"UPDATE recordings SET binding = ?, expires_at_unix_s = ? + ttl_s WHERE {_LIVE} AND binding = ?",
        (binding, now_s, digest, now_s, before),
    )
    row: tuple[bytes] | None = connection.execute(
        f"SELECT binding FROM recordings WHERE {_LIVE}", (digest, now_s)
    ).fetchone()
    return row[0] if row is not None else None


def _renew(digests: Sequence[bytes], now_s: float, connection: sqlite3.Connection) -> None:
    connection.executemany(
        f"UPDATE recordings SET expires_at_unix_s = ? + ttl_s WHERE {_LIVE}",
        [(now_s, digest, now_s) for digest in digests],
    )


def _delete(digest: bytes, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM recordings WHERE digest = ?", (digest,))
