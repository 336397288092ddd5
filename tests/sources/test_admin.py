"""Machines registered through the admin API, as a source: addresses, ownership, incarnations."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.core.bodies import app_body
from gateway.core.catalog import Catalog
from gateway.core.model import Address, App
from gateway.core.record import Record, RecordKind
from gateway.sources.admin import (
    AdminMachines,
    BadMachine,
    ForeignMachine,
    Registered,
    Removed,
    UnknownApp,
    UnknownMachine,
)

PUBLIC = Address("127.0.0.1", 8080)
EVERYWHERE = Address("0.0.0.0", 8081)


class Folding:
    """A `Publish` of one writer, whose records are in the catalog at once."""

    def __init__(self, catalog: Catalog, writer: str) -> None:
        self._catalog = catalog
        self._writer = writer
        self._counter = 0
        self.deleted: list[str] = []

    def put(self, kind: str, id: str, body: Mapping[str, object]) -> None:
        self._fold(kind, id, False, body)

    def delete(self, kind: str, id: str) -> None:
        self.deleted.append(id)
        self._fold(kind, id, True, {})

    def _fold(self, kind: str, id: str, deleted: bool, body: Mapping[str, object]) -> None:
        held = self._catalog.version(f"{kind}/{id}")
        self._counter = max(self._counter, held.counter if held is not None else 0) + 1
        self._catalog.fold(Record(RecordKind(kind), id, self._writer, 1, self._counter, deleted, dict(body)))


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog("local")
    Folding(catalog, "config").put("app", "tools", app_body(App("tools")))
    return catalog


def source(catalog: Catalog, writer: str = "admin@here") -> AdminMachines:
    return AdminMachines(catalog, Folding(catalog, writer), writer, listeners=(PUBLIC, EVERYWHERE))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254:80",
        "[fe80::1]:80",
        "[fe80::1%eth0]:80",
        "[::ffff:169.254.169.254]:80",
        "[64:ff9b::a9fe:a9fe]:80",
        "[2002:a9fe:a9fe::1]:80",
        "[::a9fe:a9fe]:80",
        "[fd00:ec2::254]:80",
        "100.100.100.200:80",
        "metadata.google.internal:80",
        "0.0.0.0:80",
        "[::]:80",
        "[::ffff:0.0.0.0]:80",
        "0.1.2.3:80",
        "224.0.0.1:80",
        "[ff02::1]:80",
        "255.255.255.255:80",
        "240.0.0.1:80",
        "0x7f000001:80",
        "0x7f.1:80",
        "2130706433:80",
        "017700000001:80",
        "127.1:80",
        "127.0.0.1.:80",
        "user@10.0.0.7:80",
        "user:word@10.0.0.7:80",
        "http://10.0.0.7:80",
        "unix:/run/x.sock",
        "unix:/run/x.sock:80",
        "10.0.0.7",
        "10.0.0.7:0",
        "10.0.0.7:65536",
        "10.0.0.7:80/path",
        "10.0.0.7:80\r\n",
        " 10.0.0.7:80",
        "",
        None,
        80,
        ["10.0.0.7:80"],
        str(PUBLIC),
        f"[::1]:{PUBLIC.port}",
        f"localhost:{PUBLIC.port}",
        "10.0.0.7:8080x",
        f"[::ffff:127.0.0.1]:{PUBLIC.port}",
        f"127.0.0.9:{EVERYWHERE.port}",
    ],
)
def test_dangerous_and_ambiguous_addresses_are_refused(catalog: Catalog, address: object) -> None:
    outcome = source(catalog).register("tools", {"id": "i-9", "address": address})
    assert isinstance(outcome, BadMachine)
    assert [fault.key for fault in outcome.faults] == ["address"]
    assert all(fault.message and fault.remedy for fault in outcome.faults)
    assert catalog.instance("tools", "i-9") is None


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.7:8000",
        "192.168.1.1:80",
        "[fd00::7]:80",
        "[2001:db8::7]:80",
        "db.internal:6379",
        "127.0.0.1:9001",
        "[::1]:1",
        f"10.0.0.7:{PUBLIC.port}",
    ],
)
def test_addresses_of_instances_are_taken(catalog: Catalog, address: str) -> None:
    outcome = source(catalog).register("tools", {"id": "i-9", "address": address})
    assert isinstance(outcome, Registered)
    assert outcome.new
    assert str(outcome.instance.address) == address
    assert catalog.instance("tools", "i-9") == outcome.instance


def test_the_incarnation_is_the_addresss(catalog: Catalog) -> None:
    one, other = source(catalog), source(Catalog("local"))
    first = one.register("tools", {"id": "i-9", "address": "10.0.0.7:8000"})
    assert isinstance(first, Registered)
    again = one.register("tools", {"id": "i-9", "address": "10.0.0.7:8000"})
    assert again == Registered(first.instance, new=False)
    moved = one.register("tools", {"id": "i-9", "address": "10.0.0.8:8000"})
    assert isinstance(moved, Registered)
    assert moved.instance.incarnation != first.instance.incarnation
    assert other.register("tools", {"id": "i-9", "address": "10.0.0.7:8000"}) == UnknownApp()


def test_what_another_writer_declared_is_left_alone(catalog: Catalog) -> None:
    here, there = source(catalog), source(catalog, "admin@there")
    assert isinstance(there.register("tools", {"id": "i-9", "address": "10.0.0.7:8000"}), Registered)
    before = catalog.instance("tools", "i-9")
    assert here.register("tools", {"id": "i-9", "address": "10.0.0.8:8000"}) == ForeignMachine("admin@there")
    assert here.remove("tools", "i-9") == ForeignMachine("admin@there")
    assert here.cordon("tools", "i-9", True) is None
    assert not here.owns("tools", "i-9")
    assert catalog.instance("tools", "i-9") == before
    assert there.remove("tools", "i-9") == Removed()
    # Free again for everybody.
    assert isinstance(here.register("tools", {"id": "i-9", "address": "10.0.0.8:8000"}), Registered)


def test_ownership_outlives_the_gateway(catalog: Catalog) -> None:
    source(catalog).register("tools", {"id": "i-9", "address": "10.0.0.7:8000"})
    after_a_restart = source(catalog)
    assert after_a_restart.owns("tools", "i-9")
    assert after_a_restart.remove("tools", "i-9") == Removed()
    assert after_a_restart.remove("tools", "i-9") == UnknownMachine()


def test_a_machine_that_moves_to_another_region_leaves_its_first_log(catalog: Catalog) -> None:
    publish = Folding(catalog, "admin@here")
    machines = AdminMachines(catalog, publish, "admin@here")
    machines.register("tools", {"id": "i-9", "address": "10.0.0.7:8000", "region": "iad"})
    machines.register("tools", {"id": "i-9", "address": "10.0.0.7:8000", "region": "iad"})
    assert publish.deleted == []
    machines.register("tools", {"id": "i-9", "address": "10.0.0.7:8000"})
    assert publish.deleted == ["tools/i-9"]
    instance = catalog.instance("tools", "i-9")
    assert instance is not None
    assert instance.region == "local"


def test_every_fault_is_told_at_once(catalog: Catalog) -> None:
    machine = {"id": "i_9!", "address": "0.0.0.0:80", "region": "global", "adress": 1, "command": ["x"], "cwd": "/"}
    outcome = source(catalog).register("tools", machine)
    assert isinstance(outcome, BadMachine)
    assert sorted(fault.key for fault in outcome.faults) == ["address", "adress", "command", "cwd", "id", "region"]


def test_a_program_is_never_taken_from_here(catalog: Catalog) -> None:
    machine = {"id": "i-9", "address": "10.0.0.7:80", "command": ["sh"], "env": {"A": "env:SECRET"}}
    outcome = source(catalog).register("tools", machine)
    assert isinstance(outcome, BadMachine)
    assert sorted(fault.key for fault in outcome.faults) == ["command", "env"]
