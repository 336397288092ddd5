"""Pins in the catalog's SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.core.model import Pin
from gateway.log.pins import Found
from gateway.log.sqlite_file import SqliteFile

PURGE_EVERY_S: Final = 60.0
PURGED_AT_ONCE: Final = 5000
RENEW_SHARE: Final = 0.75
"""A look-up renews a pin, which is a write, only when less than this share of its time is left."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pins (
    digest BLOB PRIMARY KEY, instance TEXT NOT NULL, incarnation TEXT NOT NULL, ttl_s REAL NOT NULL,
    expires_at_unix_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_by_expiry ON pins (expires_at_unix_s);
"""


class SqlitePins:
    """See PinTable."""

    def __init__(
        self,
        path: str,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - expiry outlives the process
    ) -> None:
        self._file = SqliteFile(path, _SCHEMA)
        self._wall_clock = wall_clock
        self._purge_at_s = 0.0

    async def put(self, digest: bytes, pin: Pin, ttl_s: float) -> None:
        await self._file.run(partial(self._put, digest, pin, ttl_s, self._wall_clock()))

    async def get(self, digest: bytes) -> Found | None:
        now_s = self._wall_clock()
        row = await self._file.run(partial(self._get, digest, now_s))
        if row is None:
            return None
        instance, incarnation, ttl_s, expires_s = row
        if expires_s - now_s < RENEW_SHARE * ttl_s:
            await self._file.run(partial(self._renew, digest, now_s))
        return Found(Pin.named(instance, incarnation), ttl_s)

    async def delete(self, digest: bytes) -> None:
        await self._file.run(partial(self._delete, digest))

    async def aclose(self) -> None:
        await self._file.aclose()

    # --- in the file's thread ----------------------------------------------------------

    def _put(self, digest: bytes, pin: Pin, ttl_s: float, now_s: float, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO pins VALUES (?, ?, ?, ?, ?)",
            (digest, pin.name, pin.incarnation, ttl_s, now_s + ttl_s),
        )
        if now_s >= self._purge_at_s:
            self._purge_at_s = now_s + PURGE_EVERY_S
            connection.execute(
                "DELETE FROM pins WHERE digest IN (SELECT digest FROM pins WHERE expires_at_unix_s <= ? LIMIT ?)",
                (now_s, PURGED_AT_ONCE),
            )

    def _get(self, digest: bytes, now_s: float, connection: sqlite3.Connection) -> tuple[str, str, float, float] | None:
        row: tuple[str, str, float, float] | None = connection.execute(
            "SELECT instance, incarnation, ttl_s, expires_at_unix_s FROM pins"
            " WHERE digest = ? AND expires_at_unix_s > ?",
            (digest, now_s),
        ).fetchone()
        return row

    def _renew(self, digest: bytes, now_s: float, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE pins SET expires_at_unix_s = ? + ttl_s WHERE digest = ?", (now_s, digest))

    def _delete(self, digest: bytes, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM pins WHERE digest = ?", (digest,))
