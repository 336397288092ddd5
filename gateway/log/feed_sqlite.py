"""A feed in the catalog's SQLite file: other processes see a message within about 10 ms, this one at once."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Final

from gateway.log.base import Place
from gateway.log.feed import CHUNK, KEPT_MESSAGES, Kept, Read, checked, read_behind
from gateway.log.sqlite_file import SqliteFile

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS feeds (feed TEXT PRIMARY KEY, history TEXT NOT NULL, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (feed TEXT, number INTEGER, message BLOB NOT NULL, PRIMARY KEY (feed, number))
    WITHOUT ROWID;
"""


class SqliteFeed:
    """See Feed."""

    def __init__(self, path: str, name: str, kept_messages: int = KEPT_MESSAGES) -> None:
        self.where = f"sqlite:{path} feed {name}"
        self._feed = name
        self._kept_messages = kept_messages
        self._file = SqliteFile(path, _SCHEMA)

    async def append(self, messages: Sequence[bytes]) -> None:
        checked(messages)
        for at in range(0, len(messages), CHUNK):
            await self._file.run(partial(self._append, messages[at : at + CHUNK]))
            self._file.told()

    async def read(self, history: str, position: str, wait_s: float) -> Read:
        async def look(place: Place) -> Kept:
            return await self._file.run(partial(self._behind, place), watch=wait_s > 0)

        return await read_behind(look, self._wait, history, position, wait_s)

    async def aclose(self) -> None:
        await self._file.aclose()

    async def _wait(self, position: str, wait_s: float) -> None:
        await self._file.wait_for_write(wait_s)

    # --- in the file's thread, each in one transaction ---------------------------------

    def _append(self, messages: Sequence[bytes], connection: sqlite3.Connection) -> None:
        # The lock first: a transaction that begins by reading cannot be upgraded once another has written.
        connection.execute("INSERT OR IGNORE INTO feeds VALUES (?, ?, 0)", (self._feed, secrets.token_hex(8)))
        _, last = self._place(connection)
        connection.executemany(
            "INSERT INTO messages VALUES (?, ?, ?)",
            [(self._feed, number, message) for number, message in enumerate(messages, last + 1)],
        )
        last += len(messages)
        connection.execute("UPDATE feeds SET last = ? WHERE feed = ?", (last, self._feed))
        connection.execute(
            "DELETE FROM messages WHERE feed = ? AND number <= ?", (self._feed, last - self._kept_messages)
        )

    def _behind(self, place: Place, connection: sqlite3.Connection) -> Kept:
        history, last = self._place(connection)
        rows = connection.execute(
            "SELECT number, message FROM messages WHERE feed = ? AND number > ? ORDER BY number LIMIT ?",
            (self._feed, place.number, CHUNK),
        )
        return Kept(history, Place(last, 0), [(Place(number, 0), message) for number, message in rows])

    def _place(self, connection: sqlite3.Connection) -> tuple[str, int]:
        """The history's name, empty for none, and the last number."""
        row: tuple[str, int] | None = connection.execute(
            "SELECT history, last FROM feeds WHERE feed = ?", (self._feed,)
        ).fetchone()
        return row or ("", 0)
