"""One contract for every catalog log, with the faults a store can have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from gateway.core.record import Record, Version, decode, encode
from gateway.log.base import CHUNK_RECORDS, Batch, CatalogLog, LogUnavailable, LossReason, Lost, Newer
from tests.contract.records import app_record, instance_record, read_all, versions
from tests.contract.stores import Store

LONG_S = 10.0
"""Longer than anything waits here; a test that needs it fails."""


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[CatalogLog], CatalogLog]]:
    """Closes at the end what it is given."""
    async with AsyncExitStack() as stack:

        def keep(log: CatalogLog) -> CatalogLog:
            stack.push_async_callback(log.aclose)
            return log

        yield keep


Opened = Callable[[CatalogLog], CatalogLog]


async def place(log: CatalogLog) -> tuple[str, str]:
    """Where a follower stands that has just read the state."""
    snapshot = await log.snapshot()
    await read_all(snapshot)
    return snapshot.generation, snapshot.position


async def lost(log: CatalogLog, at: tuple[str, str]) -> LossReason:
    tail = await log.tail(*at, 0)
    assert isinstance(tail, Lost)
    return tail.reason


# --- reading what was written ----------------------------------------------------------


async def test_the_state_holds_what_was_written_before_and_the_stream_what_came_after(
    store: Store, opened: Opened
) -> None:
    log = opened(store.open())
    await log.append([app_record(), instance_record("i-1")])
    snapshot = await log.snapshot()
    assert sorted(raw.name for raw in await read_all(snapshot)) == ["app/tools", "instance/tools/i-1"]
    assert await log.tail(snapshot.generation, snapshot.position, 0) == Batch(snapshot.position)
    await log.append([instance_record("i-1", counter=2), instance_record("i-2")])
    tail = await log.tail(snapshot.generation, snapshot.position, 0)
    assert isinstance(tail, Batch)
    assert versions(tail.raws) == [("instance/tools/i-1", 1, 2), ("instance/tools/i-2", 1, 1)]
    assert await log.tail(snapshot.generation, tail.position, 0) == Batch(tail.position)


async def test_bytes_come_back_as_they_were_written(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    fields = {**json.loads(encode(instance_record())), "later": {"added": [1, 2.5, "ü"]}}
    raw = json.dumps(fields, indent=1).encode()
    record = decode(raw)
    assert isinstance(record, Record)
    await log.append([record])
    assert [each.data for each in await read_all(await log.snapshot())] == [raw]


async def test_a_state_of_many_chunks_is_read_whole(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    count = 2 * CHUNK_RECORDS + 7
    await log.append([instance_record(f"i-{number}") for number in range(count)])
    snapshot = await log.snapshot()
    assert len({raw.name for raw in await read_all(snapshot)}) == count
    assert await log.tail(snapshot.generation, snapshot.position, 0) == Batch(snapshot.position)


async def test_a_stream_of_many_chunks_is_read_in_order(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    await log.append([instance_record("i-0")])
    generation, position = await place(log)
    count = 2 * CHUNK_RECORDS + 7
    await log.append([instance_record(counter=number + 2) for number in range(count)])
    read: list[int] = []
    while len(read) < count:
        tail = await log.tail(generation, position, 0)
        assert isinstance(tail, Batch)
        assert len(tail.raws) <= CHUNK_RECORDS
        read += [counter for _, _, counter in versions(tail.raws)]
        position = tail.position
    assert read == list(range(2, count + 2))


async def test_what_is_written_while_the_state_is_read_is_in_it_or_behind_it(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    count = 3 * CHUNK_RECORDS
    await log.append([instance_record(f"i-{number}") for number in range(count)])
    snapshot = await log.snapshot()
    latest: dict[str, int] = {}
    chunk_number = 0
    async for raws in snapshot.chunks:
        chunk_number += 1
        for key, _, counter in versions(raws):
            latest[key] = max(latest.get(key, 0), counter)
        changed = [instance_record(f"i-{number}", counter=1 + chunk_number) for number in range(0, count, 97)]
        await log.append([*changed, instance_record(f"new-{chunk_number}")])
    position = snapshot.position
    while True:
        tail = await log.tail(snapshot.generation, position, 0)
        assert isinstance(tail, Batch)
        if not tail.raws:
            break
        position = tail.position
        for key, _, counter in versions(tail.raws):
            latest[key] = max(latest.get(key, 0), counter)
    assert latest == {key: counter for key, _, counter in versions(await read_all(await log.snapshot()))}
    assert chunk_number > 1


async def test_waiting_ends_when_something_is_written(store: Store, opened: Opened) -> None:
    log, other = opened(store.open()), opened(store.open())
    await log.append([instance_record("i-1")])
    at = await place(log)
    async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(log.tail(*at, LONG_S))
        await other.append([instance_record("i-2")])
    tail = waiting.result()
    assert isinstance(tail, Batch)
    if not tail.raws:
        # Woken by a write that it had read already.
        tail = await log.tail(*at, LONG_S)
    assert versions(tail.raws) == [("instance/tools/i-2", 1, 1)]


async def test_waiting_ends_by_itself(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    await log.append([instance_record()])
    at = await place(log)
    assert await log.tail(*at, 0.02) == Batch(at[1])


async def test_logs_of_two_regions_are_apart(store: Store, opened: Opened) -> None:
    here, there = opened(store.open("local")), opened(store.open("iad"))
    await here.append([instance_record("i-1")])
    await there.append([instance_record("i-2")])
    assert [raw.name for raw in await read_all(await here.snapshot())] == ["instance/tools/i-1"]
    assert [raw.name for raw in await read_all(await there.snapshot())] == ["instance/tools/i-2"]


# --- last writer wins ------------------------------------------------------------------


@pytest.mark.parametrize(("epoch", "counter"), [(1, 4), (2, 3), (1, 5), (0, 9)])
async def test_an_older_version_is_not_written(store: Store, opened: Opened, epoch: int, counter: int) -> None:
    log = opened(store.open())
    held = instance_record(epoch=2, counter=4, writer="agent-2")
    assert await log.append([held]) == []
    at = await place(log)
    outcome = await log.append([instance_record(epoch=epoch, counter=counter)])
    assert outcome == [Newer("instance/tools/i-1", Version(2, 4), "agent-2")]
    assert await log.tail(*at, 0) == Batch(at[1])
    assert versions(await read_all(await log.snapshot())) == [("instance/tools/i-1", 2, 4)]


async def test_the_same_version_again_changes_nothing(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    await log.append([instance_record()])
    at = await place(log)
    assert await log.append([instance_record(port=9999)]) == []
    assert await log.tail(*at, 0) == Batch(at[1])


@pytest.mark.parametrize(("epoch", "counter"), [(2, 5), (3, 1), (2**53 - 1, 2**53 - 1)])
async def test_a_newer_version_replaces(store: Store, opened: Opened, epoch: int, counter: int) -> None:
    log = opened(store.open())
    await log.append([instance_record(epoch=2, counter=4)])
    assert await log.append([instance_record(epoch=epoch, counter=counter, deleted=True)]) == []
    assert versions(await read_all(await log.snapshot())) == [("instance/tools/i-1", epoch, counter)]


async def test_two_writers_at_once_leave_the_newer_one(store: Store, opened: Opened) -> None:
    logs = [opened(store.open()), opened(store.open())]
    await asyncio.gather(
        *(
            log.append([instance_record(f"i-{name}", counter=counter, writer=f"agent-{which}")])
            for counter in range(1, 11)
            for name in range(3)
            for which, log in enumerate(logs)
        )
    )
    assert {counter for _, _, counter in versions(await read_all(await logs[0].snapshot()))} == {10}


@pytest.mark.parametrize(
    "poison",
    [b"", b"{", b"[" * 100_000, b"null", b'{"epoch":NaN,"counter":1}', b'{"epoch":1e999,"counter":1}', b"\xff" * 9],
)
async def test_what_cannot_be_read_is_handed_on_and_gives_way(store: Store, opened: Opened, poison: bytes) -> None:
    log = opened(store.open())
    await log.append([instance_record("i-1"), instance_record("i-2")])
    at = await place(log)
    store.write_raw("instance/tools/i-1", poison)
    tail = await log.tail(*at, 0)
    assert isinstance(tail, Batch)
    assert [raw.data for raw in tail.raws] == [poison]
    assert ("instance/tools/i-1", poison) in await read_all(await log.snapshot())
    assert await log.append([instance_record("i-1")]) == []
    assert len(versions(await read_all(await log.snapshot()))) == 2


async def test_a_purge_takes_only_the_very_version(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    old, kept = instance_record("i-1", deleted=True), instance_record("i-2", deleted=True)
    await log.append([old, kept, instance_record("i-3")])
    at = await place(log)
    await log.append([instance_record("i-2", counter=2)])
    await log.purge([old, kept, instance_record("i-9", deleted=True)])
    left = versions(await read_all(await log.snapshot()))
    assert sorted(left) == [("instance/tools/i-2", 1, 2), ("instance/tools/i-3", 1, 1)]
    tail = await log.tail(*at, 0)
    assert isinstance(tail, Batch)
    assert versions(tail.raws) == [("instance/tools/i-2", 1, 2)]


# --- losing the history ----------------------------------------------------------------


async def test_an_empty_store_has_no_history_and_the_first_write_begins_one(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    at = await place(log)
    assert at[0] == ""
    assert await log.tail(*at, 0) == Batch(at[1])
    await log.append([instance_record()])
    assert await lost(log, at) is LossReason.NEW_HISTORY
    assert (await place(log))[0] != ""


async def test_a_flushed_store_is_noticed(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    await log.append([instance_record(counter=counter) for counter in range(1, 6)])
    at = await place(log)
    store.flush()
    assert await lost(log, at) is LossReason.EMPTY


@pytest.mark.parametrize("written", [1, 5, 6, 7, 20])
async def test_a_history_begun_anew_is_noticed_however_long_it_is(store: Store, opened: Opened, written: int) -> None:
    log = opened(store.open())
    await log.append([instance_record(counter=counter) for counter in range(1, 6)])
    at = await place(log)
    store.flush()
    await log.append([instance_record(counter=counter) for counter in range(1, written + 1)])
    assert await lost(log, at) is LossReason.NEW_HISTORY


@pytest.mark.parametrize("kept", [0, 1, 3])
async def test_entries_trimmed_before_they_were_read_are_a_gap(store: Store, opened: Opened, kept: int) -> None:
    log = opened(store.open())
    await log.append([instance_record()])
    at = await place(log)
    await log.append([instance_record(counter=counter) for counter in range(2, 7)])
    store.trim(kept=kept)
    assert await lost(log, at) is LossReason.GAP
    # The history is the same: whoever reads the state again goes on in it.
    again = await place(log)
    assert again[0] == at[0]
    assert await log.tail(*again, 0) == Batch(again[1])


async def test_trimming_what_was_read_loses_nothing(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    await log.append([instance_record(counter=counter) for counter in range(1, 6)])
    at = await place(log)
    store.trim(kept=0)
    assert await log.tail(*at, 0) == Batch(at[1])
    await log.append([instance_record(counter=6)])
    tail = await log.tail(*at, 0)
    assert isinstance(tail, Batch)
    assert versions(tail.raws) == [("instance/tools/i-1", 1, 6)]


async def test_a_store_that_became_an_older_copy_is_noticed(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    await log.append([instance_record()])
    restore = store.backup()
    await log.append([instance_record(counter=2)])
    at = await place(log)
    restore()
    assert await lost(log, at) is LossReason.STEP_BACK


async def test_a_lost_state_ends_the_history_and_the_next_write_begins_another(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    await log.append([instance_record("i-1"), instance_record("i-2")])
    at = await place(log)
    store.lose_state()
    assert await lost(log, at) is LossReason.EMPTY
    empty = await place(log)
    assert empty[0] == ""
    assert await log.tail(*empty, 0) == Batch(empty[1])
    await log.append([instance_record("i-3")])
    assert await lost(log, at) is LossReason.NEW_HISTORY
    assert await lost(log, empty) is LossReason.NEW_HISTORY


async def test_a_state_whose_history_changes_while_it_is_read_is_not_taken(store: Store, opened: Opened) -> None:
    log = opened(store.open())
    await log.append([instance_record(f"i-{number}") for number in range(3 * CHUNK_RECORDS)])
    snapshot = await log.snapshot()
    chunks = aiter(snapshot.chunks)
    await anext(chunks)
    store.flush()
    with pytest.raises(LogUnavailable):
        async for _ in chunks:
            pass


async def test_the_stream_is_bounded(store: Store, opened: Opened) -> None:
    log = opened(store.open(kept_entries=50))
    await log.append([instance_record(counter=counter) for counter in range(1, 1001)])
    # Redis trims whole nodes of its stream, of up to a hundred entries.
    assert store.length() <= 50 + 100


# --- the end ---------------------------------------------------------------------------


async def test_closing_ends_the_waiting(store: Store) -> None:
    log = store.open()
    await log.append([instance_record()])
    at = await place(log)
    async with asyncio.timeout(LONG_S):
        waiting = asyncio.gather(log.tail(*at, LONG_S), return_exceptions=True)
        await asyncio.wait([waiting], timeout=0.05)
        await log.aclose()
        (ended,) = await waiting
    assert isinstance(ended, LogUnavailable)


async def test_a_closed_log_says_so(store: Store) -> None:
    log = store.open()
    await log.aclose()
    await log.aclose()
    for ask in _everything(log):
        with pytest.raises(LogUnavailable, match="closed"):
            await ask()


def _everything(log: CatalogLog) -> list[Callable[[], Awaitable[object]]]:
    return [
        lambda: log.append([instance_record()]),
        log.snapshot,
        lambda: log.tail("", "0-0", 0),
        lambda: log.purge([instance_record()]),
    ]
