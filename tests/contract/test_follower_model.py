"""Gateways, an owner and a store that does its worst, in any order: nothing that was seen is lost, all end up equal.

The model is a dict: what the owner said last of each key. Rounds of the followers, writes of the owner and the store's
faults are interleaved by hypothesis, which prints the steps of a failure; the printed seed repeats it.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.bodies import app_body, instance_body
from gateway.core.catalog import Catalog
from gateway.core.model import Address, App, Instance
from gateway.core.record import Record, Version, decode
from gateway.log.base import LogUnavailable
from gateway.log.follower import Follower
from gateway.log.memory import MemoryHistory, MemoryLog
from gateway.log.publisher import Publisher

NAMES = [f"i-{number}" for number in range(8)]
KEYS = ["app/tools", *(f"instance/tools/{name}" for name in NAMES)]
KEPT_ENTRIES = 12
POISON = [b"", b"{", b"[" * 100_000, b'{"kind":"instance","id":"tools/i-1","schema":2}', b'{"epoch":1e999,"counter":0}']


class Gateway:
    def __init__(self, history: MemoryHistory, number: int) -> None:
        self.catalog = Catalog("local")
        self.log = MemoryLog(history)
        self.now_s = 0.0
        self.on_lost: Any = lambda: None
        self.follower = Follower(
            self.log,
            self.catalog,
            "local",
            on_lost=lambda reason: self.on_lost(),
            clock=self.clock,
            wall_clock=lambda: 0.0,
            rng=random.Random(number),
        )
        self.seen: dict[str, Version] = {}
        """The newest version of each key that the table ever had."""

    def stands(self) -> tuple[object, ...]:
        state = self.follower.state()
        return state.generation, state.position, state.holding, self.catalog.digest(), self.catalog.counts()

    def clock(self) -> float:
        self.now_s += 0.001
        return self.now_s


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        self.history = MemoryHistory(kept_entries=KEPT_ENTRIES)
        self.gateways = [Gateway(self.history, number) for number in range(2)]
        first = self.gateways[0]
        self.owner = Publisher(
            MemoryLog(self.history), "agent-1", version_of=first.catalog.version, wall_clock=lambda: 1.0
        )
        first.on_lost = self.owner.republish_all
        self.model: dict[str, Record] = {}
        self.backups: list[Any] = []
        self.poisoned: set[str] = set()

    def teardown(self) -> None:
        try:
            self.runner.run(self._quiesce())
        finally:
            self.runner.close()

    # --- the owner ---------------------------------------------------------------------

    def _published(self, kind: str, identity: str) -> None:
        record = self.owner.record(kind, identity)
        assert record is not None
        self.model[record.key] = record

    @initialize()
    def begin(self) -> None:
        self.owner.put("app", "tools", app_body(App("tools")))
        self._published("app", "tools")

    @rule(name=st.sampled_from(NAMES), port=st.integers(1, 3), local=st.booleans())
    def put(self, name: str, port: int, local: bool) -> None:
        instance = Instance("tools", name, Address("10.0.0.1", port))
        self.owner.put("instance", f"tools/{name}", instance_body(instance))
        self._published("instance", f"tools/{name}")
        if local:
            # What a gateway publishes itself serves there at once.
            self.gateways[0].catalog.fold(self.model[f"instance/tools/{name}"])

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        self.owner.delete("instance", f"tools/{name}")
        self._published("instance", f"tools/{name}")

    @rule()
    def write(self) -> None:
        self._try(self.owner.flush())

    @rule(key=st.sampled_from(KEYS), older=st.integers(0, 3))
    def write_late(self, key: str, older: int) -> None:
        """A copy of a record that was on its way for a long time."""
        record = self.model.get(key)
        if record is not None and not self.history.away:
            counter = max(0, record.counter - older)
            raw = record.raw if counter == record.counter else b""
            body = record.body if counter == record.counter else {}
            deleted = record.deleted if counter == record.counter else True
            late = Record(record.kind, record.id, record.writer, record.epoch, counter, deleted, body, raw)
            self.history.append([late])
            self.poisoned.discard(key)

    # --- the store ---------------------------------------------------------------------

    @rule(kept=st.integers(0, 4))
    def trim(self, kept: int) -> None:
        self.history.trim(kept)

    @rule()
    def flush(self) -> None:
        self.history.flush()
        self.poisoned.clear()

    @rule()
    def lose_state(self) -> None:
        self.history.lose_state()
        self.poisoned.clear()

    @rule()
    def back_up(self) -> None:
        self.backups.append((self.history.copy(), set(self.poisoned)))

    @precondition(lambda self: self.backups)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        backup, poisoned = data.draw(st.sampled_from(self.backups))
        self.history.restore(backup)
        self.poisoned = set(poisoned)

    @rule(key=st.sampled_from([*KEYS, "instance/tools/never"]), poison=st.sampled_from(POISON))
    def poison(self, key: str, poison: bytes) -> None:
        self.history.write_raw(key, poison)
        self.poisoned.add(key)

    @rule(away=st.booleans())
    def come_and_go(self, away: bool) -> None:
        self.history.away = away

    # --- the followers -----------------------------------------------------------------

    @rule(number=st.integers(0, 1))
    def follow(self, number: int) -> None:
        self._try(self.gateways[number].follower.step(0))

    @rule()
    def restart(self) -> None:
        """The gateway without the owner begins anew."""
        self.gateways[1] = Gateway(self.history, 1)

    @invariant()
    def nothing_seen_is_forgotten(self) -> None:
        for gateway in self.gateways:
            for key in KEYS:
                version = gateway.catalog.version(key)
                before = gateway.seen.get(key, Version(-1, -1))
                assert (version or Version(-1, -1)) >= before, f"{key} went from {before} to {version}"
                if version is not None:
                    gateway.seen[key] = version

    @invariant()
    def what_is_served_is_what_was_said(self) -> None:
        for gateway in self.gateways:
            for key, record in self.model.items():
                if gateway.catalog.version(key) == record.version:
                    held = gateway.catalog.record(key)
                    assert held == record, f"{key} differs under one version"

    # --- the end -----------------------------------------------------------------------

    async def _settle(self) -> None:
        """Let the followers step until nothing changes any more."""
        before: object = None
        while (now := [gateway.stands() for gateway in self.gateways]) != before:
            before = now
            for gateway in self.gateways:
                # Longer than any back-off.
                gateway.now_s += 10
                await gateway.follower.step(0)

    async def _quiesce(self) -> None:
        """The store is well again. First the gateways alone make it and each other whole; then the owner speaks."""
        self.history.away = False
        await self._settle()
        logged = {key: record.version for key, record in self._logged().items()}
        for gateway in self.gateways:
            assert gateway.follower.state().holding == ""
            for record in gateway.catalog.records("local"):
                if record.key not in self.poisoned:
                    assert logged.get(record.key) == record.version, f"{record.key} is not what the log holds"
        self.owner.republish_all()
        await self.owner.flush()
        await self._settle()
        assert {key: record for key, record in self._logged().items() if key in self.model} == self.model
        for gateway in self.gateways:
            assert {record.key: record for record in gateway.catalog.records()} == self.model
        assert len({gateway.catalog.digest() for gateway in self.gateways}) == 1

    def _logged(self) -> dict[str, Record]:
        read = [decode(raw.data) for raw in self.history.state()]
        return {record.key: record for record in read if isinstance(record, Record)}

    def _try(self, work: Any) -> None:
        try:
            self.runner.run(work)
        except LogUnavailable:
            assert self.history.away


TestFollower = Machine.TestCase
TestFollower.settings = settings(stateful_step_count=40, deadline=None)
