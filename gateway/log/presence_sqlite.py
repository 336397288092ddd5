"""Presence in the catalog's SQLite file, by this machine's wall clock."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from gateway.core.presence import MAX_LEASES, Lead, Lease
from gateway.log.presence import check_gateway, check_lease, check_put, check_role, too_many
from gateway.log.sqlite_file import SqliteFile

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS gateways (gateway TEXT PRIMARY KEY, message BLOB NOT NULL, expires_at_unix_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS leads (role TEXT PRIMARY KEY, holder TEXT NOT NULL, expires_at_unix_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS awake (
    app TEXT, instance TEXT, name TEXT, expires_at_unix_s REAL NOT NULL, PRIMARY KEY (app, instance, name)
) WITHOUT ROWID;
"""


class SqlitePresence:
    """See Presence."""

    def __init__(
        self,
        path: str,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - other processes must know the moment
    ) -> None:
        self.where = f"sqlite:{path} presence"
        self._file = SqliteFile(path, _SCHEMA)
        self._wall_clock = wall_clock

    async def put(self, gateway: str, message: bytes, ttl_s: float) -> None:
        check_put(gateway, message, ttl_s)
        await self._file.run(partial(self._put, gateway, message, ttl_s))

    async def all(self) -> Mapping[str, bytes]:
        return await self._file.run(self._all)

    async def drop(self, gateway: str) -> None:
        check_gateway(gateway)
        await self._file.run(partial(self._drop, gateway))

    async def lead(self, role: str, holder: str, ttl_s: float) -> Lead:
        check_role(role, holder, ttl_s)
        return await self._file.run(partial(self._lead, role, holder, ttl_s))

    async def resign(self, role: str, holder: str) -> None:
        check_role(role, holder)
        await self._file.run(partial(self._resign, role, holder))

    async def hold(self, app: str, id: str, name: str, expires_in_s: float, *, replace: bool) -> bool:
        check_lease(app, id, name, expires_in_s)
        held = await self._file.run(partial(self._hold, app, id, name, expires_in_s, replace))
        if held is None:
            raise too_many(app, id)
        return held

    async def release(self, app: str, id: str, name: str) -> bool:
        check_lease(app, id, name)
        return await self._file.run(partial(self._release, app, id, name))

    async def held(self, app: str | None = None) -> Sequence[Lease]:
        return await self._file.run(partial(self._held, app))

    async def aclose(self) -> None:
        await self._file.aclose()

    # --- in the file's thread, each in one transaction ---------------------------------

    def _now_s(self, connection: sqlite3.Connection, table: str) -> float:
        """The time now that the file is locked for writing; what expired in this table is gone."""
        connection.execute(f"DELETE FROM {table} WHERE expires_at_unix_s <= ?", (self._wall_clock(),))
        return self._wall_clock()

    def _put(self, gateway: str, message: bytes, ttl_s: float, connection: sqlite3.Connection) -> None:
        now_s = self._now_s(connection, "gateways")
        connection.execute("INSERT OR REPLACE INTO gateways VALUES (?, ?, ?)", (gateway, message, now_s + ttl_s))

    def _all(self, connection: sqlite3.Connection) -> dict[str, bytes]:
        rows = connection.execute(
            "SELECT gateway, message FROM gateways WHERE expires_at_unix_s > ?", (self._wall_clock(),)
        )
        return dict(rows.fetchall())

    def _drop(self, gateway: str, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM gateways WHERE gateway = ?", (gateway,))

    def _lead(self, role: str, holder: str, ttl_s: float, connection: sqlite3.Connection) -> Lead:
        now_s = self._now_s(connection, "leads")
        row: tuple[str] | None = connection.execute("SELECT holder FROM leads WHERE role = ?", (role,)).fetchone()
        if row is not None and row[0] != holder:
            return Lead.NO
        connection.execute("INSERT OR REPLACE INTO leads VALUES (?, ?, ?)", (role, holder, now_s + ttl_s))
        return Lead.TAKEN if row is None else Lead.KEPT

    def _resign(self, role: str, holder: str, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM leads WHERE role = ? AND holder = ?", (role, holder))

    def _hold(
        self, app: str, id: str, name: str, expires_in_s: float, replace: bool, connection: sqlite3.Connection
    ) -> bool | None:
        """None for too many."""
        now_s = self._now_s(connection, "awake")
        names = connection.execute("SELECT name FROM awake WHERE app = ? AND instance = ?", (app, id)).fetchall()
        if (name,) in names:
            if not replace:
                return False
        elif len(names) >= MAX_LEASES:
            return None
        connection.execute("INSERT OR REPLACE INTO awake VALUES (?, ?, ?, ?)", (app, id, name, now_s + expires_in_s))
        return True

    def _release(self, app: str, id: str, name: str, connection: sqlite3.Connection) -> bool:
        self._now_s(connection, "awake")
        ended = connection.execute("DELETE FROM awake WHERE app = ? AND instance = ? AND name = ?", (app, id, name))
        return ended.rowcount > 0

    def _held(self, app: str | None, connection: sqlite3.Connection) -> list[Lease]:
        now_s = self._wall_clock()
        rows = connection.execute(
            "SELECT app, instance, name, expires_at_unix_s - ? FROM awake"
            " WHERE expires_at_unix_s > ? AND coalesce(app = ?, 1) ORDER BY app, instance, name",
            (now_s, now_s, app),
        )
        return [Lease(*row) for row in rows]
