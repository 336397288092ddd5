"""Short ways to make and read records in the log's tests."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.bodies import app_body, instance_body
from gateway.core.model import Address, App, Instance, State
from gateway.core.record import Record, RecordKind, decode
from gateway.log.base import Raw, Snapshot


def instance_record(
    name: str = "i-1",
    epoch: int = 1,
    counter: int = 1,
    *,
    writer: str = "agent-1",
    deleted: bool = False,
    port: int = 9001,
) -> Record:
    """An instance of the app `tools`."""
    instance = Instance("tools", name, Address("10.0.0.1", port), state=State.STARTED, owner=writer)
    body = {} if deleted else instance_body(instance)
    return Record(RecordKind.INSTANCE, f"tools/{name}", writer, epoch, counter, deleted, body)


def app_record(name: str = "tools", epoch: int = 1, counter: int = 1) -> Record:
    return Record(RecordKind.APP, name, "config", epoch, counter, False, app_body(App(name)))


def versions(raws: Sequence[Raw]) -> list[tuple[str, int, int]]:
    """Key, epoch and counter of each."""
    found = []
    for raw in raws:
        record = decode(raw.data)
        assert isinstance(record, Record), record
        found.append((record.key, record.epoch, record.counter))
    return found


async def read_all(snapshot: Snapshot) -> list[Raw]:
    return [raw async for raws in snapshot.chunks for raw in raws]
