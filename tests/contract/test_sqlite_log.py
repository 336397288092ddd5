"""What only a file can do to a log: be locked, damaged, replaced, removed, written by another process."""

# ruff: noqa: ASYNC240 - replacing files under a running loop is what these tests are about

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.log.base import LogUnavailable, LossReason, Lost
from gateway.log.pins_sqlite import SqlitePins
from gateway.log.sqlite import SqliteLog
from gateway.log.sqlite_file import BUSY_MS
from tests.contract.records import instance_record, read_all, versions
from tests.contract.stores import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(str(path), "local")
    yield log
    await log.aclose()


async def place(log: SqliteLog) -> tuple[str, str]:
    snapshot = await log.snapshot()
    await read_all(snapshot)
    return snapshot.generation, snapshot.position


WRITER = """
import asyncio, sys
from gateway.core.record import Record, RecordKind
from gateway.log.sqlite import SqliteLog

async def main():
    log = SqliteLog(sys.argv[1], "local")
    await log.append([Record(RecordKind.GATEWAY, f"gw-{n}", sys.argv[2], 1, 1) for n in range(int(sys.argv[3]))])
    await log.aclose()

asyncio.run(main())
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    """Another process that writes so many records."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(count)])


async def test_another_process_is_heard_while_waiting(log: SqliteLog, path: Path) -> None:
    await log.append([instance_record()])
    at = await place(log)
    with writer(path, "w", 1) as process:
        tail = await log.tail(*at, 30)
    assert versions(tail.raws) == [("gateway/gw-0", 1, 1)]
    assert process.returncode == 0


async def test_another_connection_is_heard_within_milliseconds(log: SqliteLog, path: Path) -> None:
    """Of another process: its writes are announced by nobody."""
    store = SqliteStore(path)
    await log.append([instance_record()])
    at = await place(log)
    waiting = asyncio.gather(log.tail(*at, 30))
    await asyncio.wait([waiting], timeout=0.05)
    began_s = time.monotonic()
    store.write_raw("gateway/gw-1", b"anything")
    (tail,) = await waiting
    assert [raw.data for raw in tail.raws] == [b"anything"]
    assert time.monotonic() - began_s < 1.0


async def test_several_processes_may_create_the_file_and_write_at_once(path: Path) -> None:
    processes = [writer(path, f"w{number}", 20) for number in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    log = SqliteLog(str(path), "local")
    assert len(versions(await read_all(await log.snapshot()))) == 20
    await log.aclose()


async def test_a_relative_path_starts_where_the_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = SqliteLog("here.db", "local")
    await log.append([instance_record()])
    await log.aclose()
    assert (tmp_path / "here.db").exists()


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_a_damaged_file_is_named_with_what_to_do(log: SqliteLog, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LogUnavailable, match=r"damaged or no database.*move it away") as caught:
        await log.snapshot()
    assert str(path) in str(caught.value)
    path.unlink()
    await log.append([instance_record()])
    assert len(await read_all(await log.snapshot())) == 1


async def test_a_file_damaged_while_it_is_open_is_named_and_can_be_replaced(log: SqliteLog, path: Path) -> None:
    await log.append([instance_record(f"i-{number}") for number in range(200)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(LogUnavailable, match=r"catalog\.db"):
        await log.append([instance_record("i-new")])
    path.unlink()
    await log.append([instance_record()])
    assert len(await read_all(await log.snapshot())) == 1


async def test_a_file_that_is_kept_locked_is_named_after_a_while(log: SqliteLog, path: Path) -> None:
    await log.append([instance_record()])
    at = await place(log)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began_s = time.monotonic()
        with pytest.raises(LogUnavailable, match=r"locked.*fuser"):
            await log.append([instance_record(counter=2)])
        assert time.monotonic() - began_s < BUSY_MS / 1000 + 2
        # Readers are not kept from reading.
        assert (await log.tail(*at, 0)).raws == ()
    assert await log.append([instance_record(counter=2)]) == []


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    log = SqliteLog(str(tmp_path / "nowhere" / "catalog.db"), "local")
    with pytest.raises(LogUnavailable, match=r"nowhere.*make its folder exist"):
        await log.append([instance_record()])
    await log.aclose()


async def test_a_file_of_a_newer_program_is_left_alone(log: SqliteLog, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(LogUnavailable, match="newer version"):
        await log.append([instance_record()])


async def test_a_removed_file_is_a_lost_history(log: SqliteLog, path: Path) -> None:
    await log.append([instance_record()])
    at = await place(log)
    for file in path.parent.glob("catalog.db*"):
        file.unlink()
    tail = await log.tail(*at, 0)
    assert isinstance(tail, Lost)
    assert tail.reason is LossReason.EMPTY
    await log.append([instance_record()])
    assert path.exists()


async def test_a_replaced_file_is_another_history(log: SqliteLog, path: Path, tmp_path: Path) -> None:
    await log.append([instance_record()])
    at = await place(log)
    other = SqliteLog(str(tmp_path / "other.db"), "local")
    await other.append([instance_record("i-2")])
    await other.aclose()
    for file in path.parent.glob("catalog.db*"):
        file.unlink()
    (tmp_path / "other.db").rename(path)
    tail = await log.tail(*at, 0)
    assert isinstance(tail, Lost)
    assert tail.reason is LossReason.NEW_HISTORY


async def test_a_caller_that_goes_away_harms_nobody(log: SqliteLog) -> None:
    async with asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(log.append([instance_record("i-1")]))
        await asyncio.wait([gone], timeout=0)
        gone.cancel()
    assert await log.append([instance_record("i-2")]) == []
    assert ("instance/tools/i-2", 1, 1) in versions(await read_all(await log.snapshot()))


async def test_a_log_and_its_pins_share_the_file(log: SqliteLog, path: Path) -> None:
    pins = SqlitePins(str(path))
    await log.append([instance_record()])
    assert await pins.get(b"\0" * 32) is None
    await pins.aclose()
