"""The catalog: what every request is routed by, folded from the records of one or more logs.

`fold` is the only way in. One task of one thread folds; readers take an AppTable, which never changes, and decide from
it alone. Records are kept as bytes and parsed when their app is first read. Last writer wins per record by
(epoch, counter), so that records may come twice, late, or from a snapshot and the stream behind it alike.

Each record belongs to the log (`source`) it came from. After a resync the catalog can say what that log no longer
holds (`begin_sweep`, `unswept`); whether to drop or to keep it is the follower's decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, assert_never

from gateway.core.bodies import parse_app, parse_instance
from gateway.core.model import App, AppTable, Instance
from gateway.core.quarantine import Quarantine, Quarantined
from gateway.core.record import BadRecord, Record, RecordKind, Version, decode, encode
from gateway.core.routes import Routes
from gateway.core.tables import Slot, Stored

DIGEST_BYTES: Final = 16
LOCAL: Final = ""
"""The source of records that were published here and that no log has given back yet: no log can be missing them."""

# --- what a fold did -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """The record is now the current one of its key."""

    key: str
    changed: bool
    """False when readers see no difference: the owner only said it again."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The catalog holds the same version already, or a newer one; nothing changed."""

    key: str
    older: bool
    """The catalog has a newer version from this very log: said twice, or the log stepped back."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The record cannot be used; the last good one of its key, if any, stays."""

    name: str
    reason: str


Folded = Applied | Stale | Refused


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the catalog holds."""

    apps: int
    instances: int
    gateways: int
    tombstones: int
    quarantined: int


class Catalog:
    """All apps and instances known here. Not safe for threads; see the module's text."""

    def __init__(self, region: str, admit: Callable[[Instance], str | None] | None = None) -> None:
        """`region` is the gateway's own. `admit` says why an instance may not be used here (its address is none that
        may be dialled), or None; an instance refused by it is quarantined."""
        self.region = region
        self.applying = ""
        """What is being folded: `<log>: <key>`. Left as it is when a fold never returns; empty otherwise."""
        self.last_applied = ""
        """The last record that was folded, in the same form, with its writer."""
        self._admit = admit
        self._slots: dict[str, Slot] = {}
        self._gateways: dict[str, Stored] = {}
        self._routes = Routes()
        self._exact = self._routes.exact
        self._quarantined = Quarantined()
        self._sweeps: dict[str, int] = {}
        self._digests: dict[str, int] = {}
        self._live: dict[str, dict[RecordKind, int]] = {}
        self._tombstones: dict[str, int] = {}
        self._subscribers: dict[object, Callable[[str], None]] = {}

    # --- reading -----------------------------------------------------------------------

    def lookup(self, host: str, path: bytes) -> AppTable | None:
        """The app that a request belongs to; None when it belongs to none.

        `host` is lower-case without port, `path` the raw path without query. Order: exact host, longest `*.suffix`,
        apps without hosts; the longest path prefix within each.
        """
        routes = self._exact.get(host)
        if routes is not None:
            for prefix, inside, slot in routes:
                if not prefix or path == prefix or path.startswith(inside):
                    return slot.table or slot.current()
        found = self._routes.find(host, path)
        return None if found is None else found.table or found.current()

    def app(self, name: str) -> AppTable | None:
        """The app's table; None when there is no record of the app."""
        slot = self._slots.get(name)
        return None if slot is None else slot.table or slot.current()

    def apps(self) -> list[str]:
        """The names of all apps, in order."""
        return sorted(slot.name for slot in self._slots.values() if slot.app is not None)

    def instance(self, app: str, identity: str) -> Instance | None:
        """One instance, also of an app whose own record has not come yet."""
        slot = self._slots.get(app)
        return None if slot is None else slot.instances().get(identity)

    def record(self, key: str) -> Record | None:
        """The current record of a key, a tombstone too."""
        stored = self._stored(key)
        return None if stored is None else _decoded(stored)

    def version(self, key: str) -> Version | None:
        stored = self._stored(key)
        return None if stored is None else Version(stored.epoch, stored.counter)

    def gateways(self) -> list[Record]:
        """The gateways' records, in id order."""
        return [_decoded(stored) for _, stored in sorted(self._gateways.items()) if not stored.deleted]

    def records(self, source: str | None = None) -> Iterator[Record]:
        """All current records, tombstones too; of one log or of all."""
        for _, stored in self._keyed():
            if source is None or stored.source == source:
                yield _decoded(stored)

    def digest(self, source: str | None = None) -> str:
        """Equal in two catalogs that hold the same live records (of one log, or of all): the sum modulo 2^128 of the
        BLAKE2b-128 hashes of their bytes, in hexadecimal."""
        parts = self._digests.values() if source is None else [self._digests.get(source, 0)]
        return f"{sum(parts) % 2 ** (8 * DIGEST_BYTES):032x}"

    def counts(self) -> Counts:
        live = {kind: sum(counts[kind] for counts in self._live.values()) for kind in RecordKind}
        return Counts(
            live[RecordKind.APP],
            live[RecordKind.INSTANCE],
            live[RecordKind.GATEWAY],
            sum(self._tombstones.values()),
            len(self._quarantined),
        )

    def live_count(self, source: str) -> int:
        """The records of one log, without tombstones."""
        return sum(self._live.get(source, {}).values())

    def record_count(self, source: str) -> int:
        """The records of one log, tombstones too."""
        return self.live_count(source) + self._tombstones.get(source, 0)

    def is_tombstone(self, key: str) -> bool:
        stored = self._stored(key)
        return stored is not None and stored.deleted

    def quarantined(self) -> tuple[Quarantine, ...]:
        """The records that could not be used, oldest first, at most 1000."""
        return self._quarantined.listed()

    @property
    def quarantined_total(self) -> int:
        """Bad records met since the start, repetitions included."""
        return self._quarantined.total

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Have `callback(app)` called after each change of an app or one of its instances; the result ends it.

        Called within the fold: it must not raise, wait or fold. What it reads is already changed.
        """
        token = object()
        self._subscribers[token] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(token, None)

        return unsubscribe

    # --- folding -----------------------------------------------------------------------

    def fold(self, record: bytes | Record, *, source: str = LOCAL, name: str = "", now_s: float = 0.0) -> Folded:
        """Take in one record from the log `source`, or from LOCAL.

        `name` says where it was found (its key in the state, its position in the stream), for naming a bad one;
        `now_s` is when.
        """
        self.applying = f"{source}: {name or 'record'}"
        read = decode(record) if isinstance(record, bytes) else record
        folded = self._fold(read, source, name, now_s)
        self.applying = ""
        return folded

    def _fold(self, read: Record | BadRecord, source: str, name: str, now_s: float) -> Folded:
        sweep = self._sweeps.get(source, 0)
        if isinstance(read, BadRecord):
            return self._refuse(read, source, name, now_s)
        self.applying = f"{source}: {read.key} by {read.writer}"
        held = self._stored(read.key)
        if held is not None and (read.epoch, read.counter) <= (held.epoch, held.counter):
            same = (read.epoch, read.counter) == (held.epoch, held.counter)
            if same and held.source == LOCAL:
                # Said here first, and now by its log: from here on it is the log's.
                self._count(read.kind, held, None)
                held.source = source
                self._count(read.kind, None, held)
            if same and held.source == source:
                held.sweep = sweep
            return Stale(read.key, older=not same and held.source == source)
        value: App | Instance | None = None
        if not read.deleted:
            parsed = self._parse(read)
            if isinstance(parsed, BadRecord):
                return self._refuse(parsed, source, name, now_s)
            value = parsed
        stored = Stored(encode(read), read.epoch, read.counter, read.deleted, source, sweep)
        self._count(read.kind, held, stored)
        changed = self._put(read, stored, value)
        self._quarantined.replaced(source, read.key)
        self.last_applied = self.applying
        if changed and read.kind is not RecordKind.GATEWAY:
            self._tell(read.app)
        return Applied(read.key, changed)

    def _parse(self, record: Record) -> App | Instance | BadRecord | None:
        match record.kind:
            case RecordKind.APP:
                return parse_app(record.id, record.body)
            case RecordKind.GATEWAY:
                return None
            case RecordKind.INSTANCE:
                parsed = parse_instance(record.id, record.body)
                if self._admit is not None and isinstance(parsed, Instance):
                    reason = self._admit(parsed)
                    return parsed if reason is None else BadRecord(reason, record.key)
                return parsed
            case _:
                assert_never(record.kind)

    def _refuse(self, bad: BadRecord, source: str, name: str, now_s: float) -> Refused:
        called = bad.key or name or "unreadable"
        sweep = self._sweeps.get(source, 0)
        self._quarantined.add(source, called, bad.reason, now_s, sweep)
        held = self._stored(called)
        if held is not None and held.source == source:
            # The log holds the key, if not a usable value of it: it did not go.
            held.sweep = sweep
        return Refused(called, bad.reason)

    def _put(self, record: Record, stored: Stored, value: App | Instance | None) -> bool:
        if record.kind is RecordKind.GATEWAY:
            self._gateways[record.id] = stored
            return True
        name, _, identity = record.id.partition("/")
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = Slot(name, self.region)
        if identity:
            slot.stored[identity] = stored
            return slot.put(identity, value if isinstance(value, Instance) else None)
        slot.record = stored
        app = value if isinstance(value, App) else None
        if slot.app == app:
            return False
        if slot.app is not None:
            self._routes.remove(slot.app, slot)
        slot.app, slot.table = app, None
        if app is not None:
            self._routes.add(app, slot)
        return True

    def _count(self, kind: RecordKind, held: Stored | None, now: Stored | None) -> None:
        for stored, sign in ((held, -1), (now, 1)):
            if stored is None:
                continue
            if stored.deleted:
                self._tombstones[stored.source] = self._tombstones.get(stored.source, 0) + sign
            else:
                live = self._live.get(stored.source)
                if live is None:
                    live = self._live[stored.source] = dict.fromkeys(RecordKind, 0)
                live[kind] += sign
                digest = int.from_bytes(blake2b(stored.raw, digest_size=DIGEST_BYTES).digest(), "big")
                self._digests[stored.source] = self._digests.get(stored.source, 0) + sign * digest

    def _tell(self, app: str) -> None:
        for callback in tuple(self._subscribers.values()):
            callback(app)

    # --- forgetting --------------------------------------------------------------------

    def begin_sweep(self, source: str) -> None:
        """From here on, every record folded from this log counts as seen. Call before folding a snapshot."""
        self._sweeps[source] = self._sweeps.get(source, 0) + 1

    def unswept(self, source: str) -> Iterator[str]:
        """The keys of this log whose current version (or a newer one) was not seen since `begin_sweep`.

        Folding between two steps is allowed.
        """
        sweep = self._sweeps.get(source, 0)
        for key, stored in self._keyed():
            if stored.source == source and stored.sweep != sweep:
                yield key

    def forget_unswept_quarantine(self, source: str) -> None:
        """Forget the bad records that the log no longer holds."""
        self._quarantined.forget_unswept(source, self._sweeps.get(source, 0))

    def drop(self, keys: Iterable[str]) -> int:
        """Forget these records as if they had never come; answers how many there were."""
        return sum(self._drop(key) for key in keys)

    def purge_tombstones(self, before_s: float, source: str) -> list[Record]:
        """Forget a log's tombstones made before `before_s` (Unix time) and return them, to be purged there too."""
        records = [_decoded(stored) for _, stored in self._keyed() if stored.deleted and stored.source == source]
        old = [record for record in records if deleted_at_s(record) < before_s]
        self.drop(record.key for record in old)
        return old

    def _drop(self, key: str) -> bool:
        kind, _, identity = key.partition("/")
        stored = self._stored(key)
        if stored is None:
            return False
        self._count(RecordKind(kind), stored, None)
        if kind == RecordKind.GATEWAY:
            del self._gateways[identity]
            return True
        app, _, instance = identity.partition("/")
        slot = self._slots[app]
        if instance:
            del slot.stored[instance]
            changed = slot.put(instance, None) and not stored.deleted
        else:
            changed = slot.app is not None
            if slot.app is not None:
                self._routes.remove(slot.app, slot)
            slot.app = slot.table = slot.record = None
        if not slot.stored and slot.record is None:
            del self._slots[app]
        if changed:
            self._tell(app)
        return True

    # --- walking -----------------------------------------------------------------------

    def _stored(self, key: str) -> Stored | None:
        kind, _, identity = key.partition("/")
        if kind == RecordKind.GATEWAY:
            return self._gateways.get(identity)
        app, _, instance = identity.partition("/")
        slot = self._slots.get(app)
        if slot is None:
            return None
        if kind == RecordKind.INSTANCE:
            return slot.stored.get(instance)
        return slot.record if kind == RecordKind.APP and not instance else None

    def _keyed(self) -> Iterator[tuple[str, Stored]]:
        """Apps first, so that whoever replays this knows an app before its instances."""
        slots = list(self._slots.values())
        for slot in slots:
            if slot.record is not None:
                yield f"app/{slot.name}", slot.record
        for slot in slots:
            for identity, stored in list(slot.stored.items()):
                yield f"instance/{slot.name}/{identity}", stored
        for identity, stored in list(self._gateways.items()):
            yield f"gateway/{identity}", stored


def deleted_at_s(record: Record) -> float:
    """When a tombstone was made (Unix time); its writer's start if it does not say."""
    at = record.body.get("deleted_at")
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) else record.epoch / 1000


def _decoded(stored: Stored) -> Record:
    record = decode(stored.raw)
    assert isinstance(record, Record)  # fold decoded the same bytes before it stored them
    return record
