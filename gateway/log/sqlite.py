"""The catalog log in an SQLite file: for one machine, shared by its processes.

Same contract as on Redis. A write is one transaction; other processes see it within about 10 ms, this one at once.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final

from gateway.core.record import Record, Version, encode
from gateway.log.base import (
    CHUNK_RECORDS,
    KEPT_ENTRIES,
    Batch,
    LogUnavailable,
    Lost,
    Newer,
    Place,
    Raw,
    Snapshot,
    Tail,
    judge,
)
from gateway.log.sqlite_file import SqliteFile

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS history (log TEXT PRIMARY KEY, generation TEXT NOT NULL, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS stream (log TEXT, number INTEGER, record BLOB NOT NULL, PRIMARY KEY (log, number))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (
    log TEXT, key TEXT, epoch INTEGER NOT NULL, counter INTEGER NOT NULL, writer TEXT NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (log, key)
) WITHOUT ROWID;
"""


class SqliteLog:
    """See CatalogLog."""

    def __init__(self, path: str, region: str, kept_entries: int = KEPT_ENTRIES) -> None:
        self.where = f"sqlite:{path} log {region}"
        self._log = region
        self._kept_entries = kept_entries
        self._file = SqliteFile(path, _SCHEMA)

    async def append(self, records: Sequence[Record]) -> Sequence[Newer]:
        newer: list[Newer] = []
        for at in range(0, len(records), CHUNK_RECORDS):
            rows = [(record, encode(record)) for record in records[at : at + CHUNK_RECORDS]]
            newer += await self._file.run(partial(self._append, rows))
            self._file.told()
        return newer

    async def snapshot(self) -> Snapshot:
        generation, last = await self._file.run(self._history)

        async def chunks() -> AsyncIterator[Sequence[Raw]]:
            after = ""
            while True:
                rows, now = await self._file.run(partial(self._state, after))
                if generation and now != generation:
                    raise LogUnavailable(self.where, "its history changed while it was read", "it is read again")
                if not rows:
                    return
                after = rows[-1][0]
                yield [Raw(key, raw) for key, raw in rows]

        return Snapshot(generation, str(Place(last, 0)), chunks())

    async def tail(self, generation: str, position: str, wait_s: float) -> Tail:
        place = Place.parse(position)
        found = await self._file.run(partial(self._read, generation, place), watch=wait_s > 0)
        if isinstance(found, Lost) or found.raws or wait_s <= 0:
            return found
        await self._file.wait_for_write(wait_s)
        return await self._file.run(partial(self._read, generation, place))

    async def purge(self, records: Sequence[Record]) -> None:
        keys = [(self._log, record.key, record.epoch, record.counter) for record in records]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM state WHERE log = ? AND key = ? AND epoch = ? AND counter = ?", keys)

        await self._file.run(work)

    async def aclose(self) -> None:
        await self._file.aclose()

    # --- in the file's thread, each in one transaction ---------------------------------

    def _append(self, rows: Sequence[tuple[Record, bytes]], connection: sqlite3.Connection) -> list[Newer]:
        # The lock first: a transaction that begins by reading cannot be upgraded once another has written.
        connection.execute("INSERT OR IGNORE INTO history VALUES (?, '', 0)", (self._log,))
        generation, last = self._history(connection)
        if not generation:
            generation, last = secrets.token_hex(8), 0
            connection.execute("DELETE FROM stream WHERE log = ?", (self._log,))
        newer = []
        for record, raw in rows:
            held = connection.execute(
                "SELECT epoch, counter, writer FROM state WHERE log = ? AND key = ?", (self._log, record.key)
            ).fetchone()
            version = Version(-1, -1) if held is None else Version(held[0], held[1])
            if version > record.version:
                newer.append(Newer(record.key, version, held[2]))
            elif version < record.version:
                last += 1
                connection.execute(
                    "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?, ?)",
                    (self._log, record.key, record.epoch, record.counter, record.writer, raw),
                )
                connection.execute("INSERT INTO stream VALUES (?, ?, ?)", (self._log, last, raw))
        connection.execute("DELETE FROM stream WHERE log = ? AND number <= ?", (self._log, last - self._kept_entries))
        connection.execute("UPDATE history SET generation = ?, last = ? WHERE log = ?", (generation, last, self._log))
        return newer

    def _history(self, connection: sqlite3.Connection) -> tuple[str, int]:
        """The generation, empty when there is no usable history, and the last number."""
        row = connection.execute(
            "SELECT generation, last, EXISTS (SELECT 1 FROM state WHERE log = ?) FROM history WHERE log = ?",
            (self._log, self._log),
        ).fetchone()
        if row is None:
            return "", 0
        return (row[0] if row[2] else ""), row[1]

    def _state(self, after: str, connection: sqlite3.Connection) -> tuple[list[tuple[str, bytes]], str]:
        rows = connection.execute(
            "SELECT key, record FROM state WHERE log = ? AND key > ? ORDER BY key LIMIT ?",
            (self._log, after, CHUNK_RECORDS),
        ).fetchall()
        return rows, self._history(connection)[0]

    def _read(self, generation: str, position: Place, connection: sqlite3.Connection) -> Tail:
        rows = connection.execute(
            "SELECT number, record FROM stream WHERE log = ? AND number > ? ORDER BY number LIMIT ?",
            (self._log, position.number, CHUNK_RECORDS),
        ).fetchall()
        now, last = self._history(connection)
        raws = tuple(Raw(f"stream {number}-0", raw) for number, raw in rows)
        places = [Place(number, 0) for number, _ in rows]
        reason = judge(generation, position, now, Place(last, 0), places)
        if reason is not None:
            return Lost(reason, raws)
        return Batch(str(places[-1]), raws) if places else Batch(str(position))
