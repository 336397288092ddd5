"""Machines registered through the admin API, as a source: what is asked for is validated, then written as records.

A machine is a plain address. Its incarnation is made of that address, so that registering it again, also after the
catalog was lost, keeps its sessions, and another address under the old id ends them. Owned is what stands in the
catalog under this source's writer name, so that nothing is forgotten by a restart. Nobody looks after the health of
these machines: whoever registers one cordons or removes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from gateway.agent.base import Publish
from gateway.config.faults import key_text
from gateway.config.references import Sources
from gateway.config.sections import InstanceSection
from gateway.config.validate import read_table
from gateway.config.values import address as read_address
from gateway.core.bodies import instance_body, parse_instance
from gateway.core.catalog import Catalog
from gateway.core.model import Address, Instance, State
from gateway.core.record import BadRecord, Record, RecordKind
from gateway.sources.addresses import refused, same_place

_PATH = ("machine",)
_FILE_ONLY = ("command", "env", "cwd")
"""Who may start programs is who may write the configuration file."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Its record is published."""

    instance: Instance
    new: bool
    """False when it was registered before; it is now as asked for."""


@dataclass(frozen=True, slots=True)
class UnknownApp:
    """There is no such app, or its record has not come yet."""


@dataclass(frozen=True, slots=True)
class ForeignMachine:
    """The id is another writer's; nothing was changed."""

    writer: str


class Fault(NamedTuple):
    """One thing that is wrong with what was asked for."""

    key: str
    """Of the body; empty for the whole."""
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class BadMachine:
    """What was asked for cannot be registered; nothing was changed."""

    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class UnknownMachine:
    """There is no such machine."""


@dataclass(frozen=True, slots=True)
class Removed:
    """Its tombstone is published."""


Registration = Registered | UnknownApp | ForeignMachine | BadMachine
Removal = Removed | UnknownMachine | ForeignMachine


class AdminMachines:
    """The machines of one gateway's admin API."""

    def __init__(self, catalog: Catalog, publish: Publish, writer: str, *, listeners: Collection[Address] = ()) -> None:
        """Args:
        publish: writes under `writer`, this source's own name, and folds at once what it writes.
        listeners: the gateway's own addresses, which are no machine's.
        """
        self._catalog = catalog
        self._publish = publish
        self._writer = writer
        self._listeners = frozenset(listeners)

    def register(self, app: str, raw: object) -> Registration:
        """Register what a request's body says: the file's `[[apps.NAME.instances]]` as JSON, with an address."""
        if self._catalog.app(app) is None:
            return UnknownApp()
        checked = self._checked(raw)
        if isinstance(checked, BadMachine):
            return checked
        key = f"{app}/{checked.id}"
        held = self._record(key)
        if held is not None and held.writer != self._writer:
            return ForeignMachine(held.writer)
        before = self._catalog.instance(app, checked.id)
        instance = Instance(
            app=app,
            id=checked.id,
            address=checked.address,
            region=checked.region or self._catalog.region,
            state=State.STARTED,
            incarnation=_incarnation(checked.address),
            cordoned=before is not None and before.cordoned,
            owner=self._writer,
        )
        if before is not None and before.region != instance.region:
            # Each region has a log of its own: the old record would stay in the other one.
            self._publish.delete(RecordKind.INSTANCE, key)
        self._put(instance)
        return Registered(instance, new=held is None)

    def remove(self, app: str, id: str) -> Removal:
        """Take a machine back: its sessions end, requests for them get 404."""
        held = self._record(f"{app}/{id}")
        if held is None:
            return UnknownMachine()
        if held.writer != self._writer:
            return ForeignMachine(held.writer)
        self._publish.delete(RecordKind.INSTANCE, f"{app}/{id}")
        return Removed()

    def cordon(self, app: str, id: str, cordoned: bool) -> Registered | None:
        """Take it out of placement, or back into it; None when it was not registered here."""
        instance = self._catalog.instance(app, id)
        if instance is None or not self.owns(app, id):
            return None
        instance = dataclasses.replace(instance, cordoned=cordoned)
        self._put(instance)
        return Registered(instance, new=False)

    def owns(self, app: str, id: str) -> bool:
        """Whether this machine was registered here, in this life of the gateway or an earlier one."""
        held = self._record(f"{app}/{id}")
        return held is not None and held.writer == self._writer

    def _record(self, key: str) -> Record | None:
        held = self._catalog.record(f"{RecordKind.INSTANCE}/{key}")
        return None if held is None or held.deleted else held

    def _put(self, instance: Instance) -> None:
        self._publish.put(RecordKind.INSTANCE, f"{instance.app}/{instance.id}", instance_body(instance))

    def _checked(self, raw: object) -> _Checked | BadMachine:
        if not isinstance(raw, dict):
            remedy = 'send {"id": "i-9", "address": "10.0.0.7:8000"}'
            return BadMachine((Fault("", "the body is not an object", remedy),))
        table = read_table(InstanceSection, raw, _PATH, Sources(environ={}))
        faults = [Fault(key_text(found.path[1:]), found.message, found.remedy) for found in table.findings]
        faults += [
            Fault(key, "is taken from the configuration file only", "send an address instead")
            for key in _FILE_ONLY
            if key in raw and key not in table.faulty
        ]
        section = table.section
        address: Address | None = None
        if raw.get("address") is None:
            faults.append(Fault("address", "is missing", "add `address`"))
        elif "address" not in table.faulty:
            # Read by itself: with a fault in the id there is no section to take it from.
            address = read_address(raw["address"])
            if (reason := self._unusable(address)) is not None:
                faults.append(Fault("address", reason, "name the address that the machine listens on"))
        if faults or section is None or address is None:
            return BadMachine(tuple(faults))
        return _Checked(section.id, address, section.region)

    def _unusable(self, address: Address) -> str | None:
        if any(same_place(address, listener) for listener in self._listeners):
            return f"{address} is the gateway's own listener"
        # The record's rules are stricter than the file's: spellings that resolvers read in different ways.
        parsed = parse_instance("a/i", {"address": str(address)})
        return parsed.reason if isinstance(parsed, BadRecord) else refused(address)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A valid registration."""

    id: str
    address: Address
    region: str | None


def _incarnation(address: Address) -> str:
    return hashlib.blake2b(str(address).encode(), digest_size=4).hexdigest()
