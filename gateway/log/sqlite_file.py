"""One SQLite file, reached from an event loop: a thread of its own runs what blocks, and says when others wrote.

The file is shared by processes (WAL, busy timeout) and may be replaced or removed under us; then it is opened anew.
Every failure comes out as LogUnavailable with the file's name and a remedy. Which tables there are is not known here.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakSet

from gateway.log.base import LogUnavailable

BUSY_MS: Final = 2000
SWITCH_PAUSE_S: Final = 0.005
"""How long a write waits for another process's."""
POLL_S: Final = 0.01
"""How often other processes' writes are looked for while somebody waits: one pragma, which reads shared memory."""
LAYOUT: Final = 1
"""The version of all tables in the file."""

T = TypeVar("T")

_files: dict[str, WeakSet[SqliteFile]] = {}
"""The open files of this process by path: a write is told to the others at once."""


class SqliteFile:
    """A connection and its thread. Both start with the first use."""

    def __init__(self, path: str, schema: str) -> None:
        """`schema` creates the tables that are needed, if they are not there."""
        self.path = path
        self._schema = schema
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closed = False
        self._written = asyncio.Event()
        # Of the thread:
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._watched = False
        self._data_version = -1
        _files.setdefault(str(Path(path).absolute()), WeakSet()).add(self)

    async def run(self, work: Callable[[sqlite3.Connection], T], *, watch: bool = False) -> T:
        """The result of `work`, done in one transaction in the thread. Raises LogUnavailable.

        With `watch`, whatever is written after `work` read is told to `wait_for_write`.
        """
        if self._closed:
            raise self._unavailable("it is closed", "open it again")
        if watch:
            self._written.clear()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._ended = loop, loop.create_future()
            threading.Thread(target=self._serve, name=f"sqlite {self.path}", daemon=True).start()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = self._transact(work, watch)
            except sqlite3.Error as error:
                self._disconnect()
                self._tell(_settle, future, None, self._explained(error))
            except OSError as error:
                self._disconnect()
                reason = error.strerror or str(error)
                self._tell(_settle, future, None, self._unavailable(reason, "make its folder exist and writable"))
            else:
                self._tell(_settle, future, result, None)

        self._jobs.put(job)
        return await future

    async def wait_for_write(self, wait_s: float) -> None:
        """Return when anybody wrote since the last `run` with `watch`, or after `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                await self._written.wait()
        except TimeoutError:
            pass

    def told(self) -> None:
        """Tell everyone in this process who has the file open that it was written."""
        for file in _files[str(Path(self.path).absolute())]:
            file._tell(file._written.set)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._written.set()
            if self._ended is not None:
                self._jobs.put(None)
                await self._ended

    # --- in the thread -----------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=POLL_S) if self._watched else self._jobs.get()
            except queue.Empty:
                self._poll()
                continue
            if job is None:
                break
            job()
        self._disconnect()
        if self._ended is not None:
            self._tell(_settle, self._ended, None, None)

    def _transact(self, work: Callable[[sqlite3.Connection], T], watch: bool) -> T:
        connection = self._connected()
        if watch:
            # Before the read, and by no other job: a write must not fall between the two unseen.
            self._data_version = connection.execute("PRAGMA data_version").fetchone()[0]
            self._watched = True
        connection.execute("BEGIN")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _connected(self) -> sqlite3.Connection:
        try:
            status = os.stat(self.path)
            identity = (status.st_dev, status.st_ino)
        except FileNotFoundError:
            identity = None
        if self._connection is not None and identity != self._identity:
            self._disconnect()
        if self._connection is None:
            connection = sqlite3.connect(self.path, timeout=BUSY_MS / 1000, isolation_level=None)
            try:
                self._prepare(connection)
                status = os.stat(self.path)
            except BaseException:
                connection.close()
                raise
            self._connection, self._identity = connection, (status.st_dev, status.st_ino)
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        layout = connection.execute("PRAGMA user_version").fetchone()[0]
        if layout > LAYOUT:
            raise sqlite3.DatabaseError(f"it was written by a newer version of this program (layout {layout})")
        _to_wal(connection)
        # A power cut may take the last records with it: their owners publish them again.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(self._schema)
        if layout < LAYOUT:
            connection.execute(f"PRAGMA user_version = {LAYOUT}")

    def _poll(self) -> None:
        if self._connection is None:
            self._watched = False
            return
        try:
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            # The next job meets it and says so.
            self._disconnect()
            version = -1
        if version != self._data_version:
            self._watched = False
            self._tell(self._written.set)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(callback, *arguments)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                self._closed = True

    # --- failures ----------------------------------------------------------------------

    def _explained(self, error: sqlite3.Error) -> LogUnavailable:
        text = str(error)
        match getattr(error, "sqlite_errorcode", None):
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return self._unavailable(
                    f"another program has kept it locked for {BUSY_MS / 1000:g} s", f"find it with: fuser {self.path}"
                )
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return self._unavailable(
                    f"it is damaged or no database ({text})",
                    "move it away: a new one is made and the owners publish their records again",
                )
            case sqlite3.SQLITE_CANTOPEN:
                return self._unavailable(text, "make its folder exist and writable")
            case sqlite3.SQLITE_READONLY:
                return self._unavailable(text, "make the file and its folder writable")
            case sqlite3.SQLITE_FULL:
                return self._unavailable(text, "free some space")
            case _:
                return self._unavailable(text, "look at the file, or name another one as the catalog")

    def _unavailable(self, reason: str, remedy: str) -> LogUnavailable:
        return LogUnavailable(f"sqlite:{self.path}", reason, remedy)


def _settle(future: asyncio.Future[T], result: T, error: Exception | None) -> None:
    """The caller may be gone."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _to_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to write-ahead logging. Of several connections that do so at once, SQLite turns all but one
    away without the busy time, so it is waited for here. In the file's own thread."""
    deadline_s = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(SWITCH_PAUSE_S)  # noqa: TID251 - no event loop runs in this thread
