"""The follower: what it makes of every loss, over a memory log whose faults come when they are called."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from gateway.core.catalog import Catalog
from gateway.core.record import Record, encode
from gateway.log.base import CHUNK_RECORDS, TOMBSTONE_TTL_S, Batch, LogUnavailable, LossReason, Snapshot, Tail
from gateway.log.follower import PURGE_EVERY_S, SLICE_S, Follower
from gateway.log.memory import MemoryHistory, MemoryLog
from tests.contract.records import app_record, instance_record

DAY_S = 86400.0


@dataclass
class Seen:
    """An Observer that keeps what it is told."""

    applied_batches: list[tuple[str, int, float]] = field(default_factory=list)
    refused_names: list[str] = field(default_factory=list)
    losses: list[LossReason] = field(default_factory=list)

    def applied(self, source: str, records: int, took_s: float) -> None:
        self.applied_batches.append((source, records, took_s))

    def refused(self, source: str, name: str, reason: str) -> None:
        self.refused_names.append(name)

    def lost(self, source: str, reason: LossReason) -> None:
        self.losses.append(reason)


class Rig:
    """One gateway's view of a history: a catalog and its follower, with a clock that is moved by hand."""

    def __init__(self, history: MemoryHistory) -> None:
        self.history = history
        self.log = MemoryLog(history)
        self.catalog = Catalog("local")
        self.seen = Seen()
        self.lost: list[LossReason] = []
        self.now_s = 1000.0
        self.follower = Follower(
            self.log,
            self.catalog,
            "local",
            on_lost=self.lost.append,
            observer=self.seen,
            clock=lambda: self.now_s,
            wall_clock=lambda: self.now_s,
            rng=random.Random(1),
        )

    async def settle(self) -> None:
        """Step until nothing changes any more."""
        before = ""
        while (now := f"{self.follower.state()} {self.catalog.digest()}") != before:
            before = now
            await self.follower.step(0)

    def ids(self) -> set[str]:
        table = self.catalog.app("tools")
        return set(table.instances) if table is not None else set()

    def logged(self) -> set[str]:
        return {raw.name for raw in self.history.state()}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig(MemoryHistory())
    yield rig
    await rig.log.aclose()


def some(count: int, counter: int = 1) -> list[Record]:
    return [app_record(), *(instance_record(f"i-{number}", counter=counter) for number in range(count))]


# --- following -------------------------------------------------------------------------


async def test_it_is_ready_after_the_first_state_even_an_empty_one(rig: Rig) -> None:
    await rig.follower.step(0)
    async with asyncio.timeout(1):
        await rig.follower.ready()
    state = rig.follower.state()
    assert (state.generation, state.connected, state.age_s, state.holding) == ("", True, 0.0, "")


async def test_what_is_written_is_applied(rig: Rig) -> None:
    rig.history.append(some(2))
    await rig.settle()
    assert rig.ids() == {"i-0", "i-1"}
    rig.history.append([instance_record("i-2"), instance_record("i-0", counter=2, deleted=True)])
    await rig.settle()
    assert rig.ids() == {"i-1", "i-2"}
    assert rig.follower.resyncs == 1
    assert rig.follower.records_applied == 5
    assert rig.lost == []


async def test_age_is_the_time_since_the_table_was_equal_to_the_log(rig: Rig) -> None:
    assert rig.follower.state().age_s is None
    await rig.settle()
    rig.now_s += 7
    assert rig.follower.state().age_s == 7.0
    rig.history.away = True
    with pytest.raises(LogUnavailable):
        await rig.follower.step(0)
    assert rig.follower.state().age_s == 7.0
    rig.history.away = False
    await rig.follower.step(0)
    assert rig.follower.state().age_s == 0.0


async def test_it_can_be_waited_for_that_a_version_is_seen(rig: Rig) -> None:
    await rig.settle()
    record = instance_record("i-1", counter=2)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(5):
        waiting = tasks.create_task(rig.follower.seen(record.key, record.version))
        await asyncio.wait([waiting], timeout=0)
        rig.history.append([instance_record("i-1", counter=1)])
        await rig.settle()
        assert not waiting.done()
        rig.history.append([record])
        await rig.settle()
        await waiting
        await rig.follower.seen(record.key, record.version)


class Dice(random.Random):
    """Says when a delay was asked for: a failure has been noted."""

    def __init__(self) -> None:
        super().__init__(1)
        self.thrown = asyncio.Event()

    def uniform(self, a: float, b: float) -> float:
        self.thrown.set()
        return super().uniform(a, b)


async def test_run_follows_reconnects_and_says_how_it_stands() -> None:
    history = MemoryHistory()
    catalog = Catalog("local")
    dice = Dice()
    follower = Follower(MemoryLog(history), catalog, "local", rng=dice)

    async def write(name: str) -> None:
        record = instance_record(name)
        history.append([record])
        await follower.seen(record.key, record.version)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(follower.run())
        await follower.ready()
        await write("i-1")
        history.away = True
        history.changed()
        await dice.thrown.wait()
        state = follower.state()
        assert not state.connected
        assert "switched off" in state.last_error
        history.away = False
        # The second is seen in a later round than the first.
        await write("i-2")
        await write("i-3")
        assert follower.state().connected
        assert follower.resyncs == 2
        running.cancel()


async def test_a_large_batch_leaves_the_loop_to_others_in_between(rig: Rig) -> None:
    rig.history.append(some(CHUNK_RECORDS))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)  # noqa: TID251 - takes every turn it can get

    def slow() -> float:
        # Every look at the clock: as if each stretch of records took a whole slice.
        rig.now_s += SLICE_S
        return rig.now_s

    follower = Follower(rig.log, rig.catalog, "local", observer=rig.seen, clock=slow)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(other())
        await follower.step(0)
        task.cancel()
    assert sum(records for _, records, _ in rig.seen.applied_batches) == CHUNK_RECORDS + 1
    assert len(rig.seen.applied_batches) > 10
    assert turns >= len(rig.seen.applied_batches)


# --- losing the history ----------------------------------------------------------------


async def test_trimmed_entries_are_read_from_the_state(rig: Rig) -> None:
    rig.history.append(some(3))
    await rig.settle()
    rig.history.append([instance_record("i-1", counter=2, deleted=True), instance_record("i-3")])
    rig.history.trim(0)
    await rig.settle()
    assert rig.ids() == {"i-0", "i-2", "i-3"}
    assert rig.seen.losses == [LossReason.GAP]
    assert rig.lost == []


def gone(rig: Rig, names: range) -> None:
    """These instances are deleted, and so are, after a day, their tombstones."""
    tombstones = [instance_record(f"i-{number}", counter=2, deleted=True) for number in names]
    rig.history.append(tombstones)
    rig.history.purge(tombstones)
    rig.history.trim(0)


async def test_few_records_that_the_same_history_lacks_were_deleted(rig: Rig) -> None:
    rig.history.append(some(9))
    await rig.settle()
    gone(rig, range(3))
    await rig.settle()
    assert rig.ids() == {f"i-{number}" for number in range(3, 9)}
    assert "instance/tools/i-0" not in rig.logged()


async def test_more_than_a_third_at_once_is_a_fault_and_is_written_back(rig: Rig) -> None:
    rig.history.append(some(9))
    await rig.settle()
    gone(rig, range(4))
    await rig.follower.step(0)
    await rig.follower.step(0)
    assert rig.ids() == {f"i-{number}" for number in range(9)}
    await rig.settle()
    assert "instance/tools/i-0" in rig.logged()
    assert rig.follower.state().holding == ""


@pytest.mark.parametrize("fault", ["flush", "lose_state"])
async def test_an_emptied_log_is_filled_again_with_what_it_held_byte_for_byte(rig: Rig, fault: str) -> None:
    records = [*some(5), instance_record("i-9", deleted=True)]
    raw = json.dumps({**json.loads(encode(records[0])), "unknown": True}, indent=2).encode()
    rig.history.append(records[1:])
    rig.history.write_raw("app/tools", raw)
    await rig.settle()
    digest, before = rig.catalog.digest(), sorted(rig.history.state())
    getattr(rig.history, fault)()
    await rig.follower.step(0)
    assert rig.follower.state().holding == LossReason.EMPTY
    assert rig.lost == [LossReason.EMPTY]
    assert len(rig.ids()) == 5
    await rig.settle()
    assert sorted(rig.history.state()) == before
    assert rig.catalog.digest() == digest
    assert rig.follower.state().holding == ""
    assert rig.lost == [LossReason.EMPTY]


async def test_a_history_written_anew_by_others_is_joined_with_what_is_held(rig: Rig) -> None:
    rig.history.append(some(5))
    await rig.settle()
    rig.history.flush()
    # Newer, equal, and of an owner that started after the loss.
    rig.history.append([instance_record("i-0", counter=2), instance_record("i-1"), instance_record("new")])
    await rig.settle()
    assert rig.ids() == {"new", *(f"i-{number}" for number in range(5))}
    assert rig.logged() == {"app/tools", *(f"instance/tools/{name}" for name in rig.ids())}
    assert rig.lost == [LossReason.NEW_HISTORY]


@pytest.mark.parametrize("seen_in", ["state", "stream"])
async def test_a_history_that_began_and_ended_between_two_looks_is_written_back(rig: Rig, seen_in: str) -> None:
    """The records were seen, the generation was not."""
    if seen_in == "stream":
        await rig.follower.step(0)
        tail = rig.log.tail

        async def begin_and_end(generation: str, position: str, wait_s: float) -> Tail:
            rig.log.tail = tail  # type: ignore[method-assign]
            rig.history.append(some(3))
            raws = (await tail(generation, position, wait_s)).raws
            rig.history.flush()
            return Batch("4-0", raws)

        rig.log.tail = begin_and_end  # type: ignore[method-assign]
    else:
        snapshot = await rig.log.snapshot()
        rig.history.append(some(3))

        async def earlier() -> Snapshot:
            del rig.log.snapshot
            return snapshot

        rig.log.snapshot = earlier  # type: ignore[method-assign]
    await rig.follower.step(0)
    rig.history.flush()
    assert len(rig.ids()) == 3
    await rig.settle()
    assert len(rig.ids()) == 3
    assert len(rig.logged()) == 4
    assert rig.lost == [LossReason.EMPTY]


async def test_a_log_that_stepped_back_gets_what_it_forgot(rig: Rig) -> None:
    rig.history.append(some(5))
    backup = rig.history.copy()
    rig.history.append(
        [instance_record("i-0", counter=2, deleted=True), instance_record("i-1", counter=2), instance_record("i-7")]
    )
    await rig.settle()
    state = sorted(rig.history.state())
    rig.history.restore(backup)
    await rig.settle()
    assert rig.ids() == {"i-1", "i-2", "i-3", "i-4", "i-7"}
    assert sorted(rig.history.state()) == state
    assert rig.lost == [LossReason.STEP_BACK]


async def test_a_log_that_takes_nothing_back_is_followed_all_the_same(rig: Rig) -> None:
    """As with a user that may only read."""
    rig.history.append(some(3))
    await rig.settle()
    refused = 0
    taking = False

    async def append(records: object) -> list[object]:
        nonlocal refused
        if taking:
            return rig.history.append(records)  # type: ignore[arg-type, return-value]
        refused += 1
        raise LogUnavailable("memory:", "no permission", "give it")

    rig.log.append = append  # type: ignore[assignment, method-assign]
    rig.history.flush()
    rig.history.append([instance_record("new")])
    for _ in range(5):
        await rig.follower.step(0)
    assert rig.ids() == {"i-0", "i-1", "i-2", "new"}
    assert rig.follower.state().holding == LossReason.NEW_HISTORY
    assert rig.follower.state().connected
    assert "no permission" in rig.follower.state().last_error
    assert refused == 1
    rig.history.append([instance_record("newer")])
    await rig.settle()
    assert "newer" in rig.ids()
    rig.now_s += 10
    await rig.follower.step(0)
    assert refused == 2
    taking = True
    rig.now_s += 10
    await rig.settle()
    assert rig.follower.state().holding == ""
    assert rig.logged() == {"app/tools", *(f"instance/tools/{name}" for name in rig.ids())}


async def test_a_loss_during_a_loss_is_as_careful_as_the_first(rig: Rig) -> None:
    rig.history.append(some(6))
    await rig.settle()
    rig.history.flush()
    await rig.follower.step(0)
    rig.history.away = True
    with pytest.raises(LogUnavailable):
        await rig.follower.step(0)
    rig.history.away = False
    rig.history.append(some(1))
    await rig.settle()
    assert len(rig.ids()) == 6
    assert len(rig.logged()) == 7


async def test_two_gateways_write_back_the_same(rig: Rig) -> None:
    other = Rig(rig.history)
    rig.history.append(some(50))
    await rig.settle()
    await other.settle()
    rig.history.flush()
    for _ in range(5):
        await rig.follower.step(0)
        await other.follower.step(0)
    await rig.settle()
    await other.settle()
    assert rig.catalog.digest() == other.catalog.digest()
    assert len(rig.logged()) == 51
    assert len(rig.history.after(0, 1000)) == 51


async def test_what_was_published_here_and_not_yet_written_is_not_missed(rig: Rig) -> None:
    rig.history.append(some(3))
    await rig.settle()
    rig.catalog.fold(instance_record("mine"))
    rig.catalog.fold(instance_record("i-0", counter=7))
    rig.history.append([instance_record("i-1", counter=2)])
    rig.history.trim(0)
    await rig.settle()
    assert rig.ids() == {"i-0", "i-1", "i-2", "mine"}
    assert rig.lost == []
    assert "instance/tools/mine" not in rig.logged()


# --- poison ----------------------------------------------------------------------------


async def test_a_bad_record_is_named_and_the_last_good_one_stays(rig: Rig) -> None:
    rig.history.append(some(2))
    await rig.settle()
    bad = encode(instance_record("i-0", counter=2)).replace(b"10.0.0.1", b"10.0.0.1/etc")
    rig.history.write_raw("instance/tools/i-0", bad)
    rig.history.write_raw("instance/tools/i-1", b"[" * 100_000)
    rig.history.append([instance_record("i-2")])
    await rig.settle()
    assert rig.ids() == {"i-0", "i-1", "i-2"}
    assert rig.seen.refused_names == ["instance/tools/i-0", "stream 5-0"]
    assert rig.follower.records_refused == 2


async def test_a_gateway_that_starts_amid_poison_has_everything_else(rig: Rig) -> None:
    rig.history.append(some(3))
    rig.history.write_raw("instance/tools/i-0", b"\xff")
    await rig.settle()
    assert rig.ids() == {"i-1", "i-2"}
    (quarantine,) = rig.catalog.quarantined()
    assert (quarantine.name, quarantine.source, quarantine.first_seen_s) == ("instance/tools/i-0", "local", 1000.0)


async def test_poison_in_place_of_a_record_is_not_its_deletion(rig: Rig) -> None:
    rig.history.append(some(3))
    await rig.settle()
    for number in range(3):
        rig.history.write_raw(f"instance/tools/i-{number}", b"poison")
    rig.history.trim(0)
    await rig.settle()
    assert rig.ids() == {"i-0", "i-1", "i-2"}
    assert rig.lost == []


async def test_quarantine_ends_when_the_log_has_a_good_record_or_none(rig: Rig) -> None:
    rig.history.append(some(2))
    rig.history.write_raw("instance/tools/i-0", b"poison")
    rig.history.write_raw("instance/tools/other", b"poison")
    await rig.settle()
    assert len(rig.catalog.quarantined()) == 2
    rig.history.append([instance_record("i-0")])
    await rig.settle()
    assert [each.name for each in rig.catalog.quarantined()] == ["instance/tools/other"]
    del rig.history.contents["instance/tools/other"]
    rig.history.append([instance_record("i-0", counter=counter) for counter in (2, 3)])
    rig.history.trim(1)
    await rig.settle()
    assert rig.catalog.quarantined() == ()


# --- tombstones ------------------------------------------------------------------------


def tombstone(name: str, at_s: float) -> Record:
    record = instance_record(name, counter=2, deleted=True)
    return Record(record.kind, record.id, record.writer, 1, 2, True, {"deleted_at": at_s})


async def test_old_tombstones_are_forgotten_here_and_in_the_log(rig: Rig) -> None:
    rig.now_s = 10 * DAY_S
    other = Rig(rig.history)
    other.now_s = rig.now_s
    rig.history.append([*some(1), tombstone("old", rig.now_s - TOMBSTONE_TTL_S), tombstone("young", rig.now_s)])
    await rig.settle()
    await other.settle()
    assert rig.catalog.counts().tombstones == 2
    rig.now_s += PURGE_EVERY_S + DAY_S / 2 + 1
    await rig.follower.step(0)
    assert rig.catalog.counts().tombstones == 1
    assert rig.logged() == {"app/tools", "instance/tools/i-0", "instance/tools/young"}
    await other.settle()
    assert rig.catalog.digest() == other.catalog.digest()
