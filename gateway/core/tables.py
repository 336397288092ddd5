"""One app's part of the catalog: its records as bytes, and the AppTable made from them when somebody asks.

A slot is cold until its app is first read: then its instances are parsed once and kept up to date. A change only marks
the table as out of date; the next reader makes the new one, so that a burst of changes costs one copy.
"""

from __future__ import annotations

from bisect import bisect_left

from gateway.core.bodies import parse_instance
from gateway.core.model import App, AppTable, Instance
from gateway.core.record import BadRecord, decode


class Stored:
    """A record as the catalog holds it: bytes and what is needed to compare. A million of these must fit."""

    __slots__ = ("counter", "deleted", "epoch", "raw", "source", "sweep")

    def __init__(self, raw: bytes, epoch: int, counter: int, deleted: bool, source: str, sweep: int) -> None:
        self.raw = raw
        self.epoch = epoch
        self.counter = counter
        self.deleted = deleted
        self.source = source
        """The log it came from."""
        self.sweep = sweep
        """The last sweep of that log that saw it."""


class _Sorted:
    """Instances in id order, changed one at a time."""

    __slots__ = ("_ids", "_items")

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._items: list[Instance] = []

    def put(self, instance: Instance) -> None:
        at = bisect_left(self._ids, instance.id)
        if at < len(self._ids) and self._ids[at] == instance.id:
            self._items[at] = instance
        else:
            self._ids.insert(at, instance.id)
            self._items.insert(at, instance)

    def remove(self, identity: str) -> None:
        at = bisect_left(self._ids, identity)
        if at < len(self._ids) and self._ids[at] == identity:
            del self._ids[at], self._items[at]

    def items(self) -> tuple[Instance, ...]:
        return tuple(self._items)


class Slot:
    """An app's records and its table. Belongs to the catalog, which alone changes it."""

    __slots__ = ("_instances", "_placeable", "_wakeable", "app", "name", "record", "region", "stored", "table")

    def __init__(self, name: str, region: str) -> None:
        self.name = name
        self.region = region
        self.app: App | None = None
        """None while there is no record of the app itself: its instances wait."""
        self.record: Stored | None = None
        """The app's own record."""
        self.stored: dict[str, Stored] = {}
        """The instances' records by id, tombstones too."""
        self.table: AppTable | None = None
        """None when out of date."""
        self._instances: dict[str, Instance] | None = None
        self._placeable = _Sorted()
        self._wakeable = _Sorted()

    def put(self, identity: str, instance: Instance | None) -> bool:
        """An instance came, changed or (None) went. Answers whether that makes a difference to readers."""
        if self._instances is None:
            return True
        old = self._instances.get(identity)
        if old == instance:
            return False
        if instance is None:
            del self._instances[identity]
        else:
            self._instances[identity] = instance
        self._sort(identity, instance)
        self.table = None
        return True

    def current(self) -> AppTable | None:
        """The table as of now; None without an app."""
        if self.table is None and self.app is not None:
            instances = self.instances().copy()
            self.table = AppTable(self.app, instances, self._placeable.items(), self._wakeable.items(), self.region)
        return self.table

    def instances(self) -> dict[str, Instance]:
        """The instances by id, parsed at the first call. Not to be changed by the caller."""
        if self._instances is None:
            self._instances = {}
            # In id order, so that each is inserted at the end.
            for identity, stored in sorted(self.stored.items()):
                if not stored.deleted:
                    record = decode(stored.raw)
                    instance = record if isinstance(record, BadRecord) else parse_instance(record.id, record.body)
                    # Fold parsed the same bytes before it stored them.
                    assert isinstance(instance, Instance)
                    self._instances[identity] = instance
                    self._sort(identity, instance)
        return self._instances

    def _sort(self, identity: str, instance: Instance | None) -> None:
        if instance is not None and instance.running and instance.healthy and not instance.cordoned:
            self._placeable.put(instance)
        else:
            self._placeable.remove(identity)
        if instance is not None and instance.wakeable and not instance.cordoned:
            self._wakeable.put(instance)
        else:
            self._wakeable.remove(identity)
