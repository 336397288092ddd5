"""Folding: the last writer of each record wins, in whatever order they come; what cannot be used is set aside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import quarantine
from gateway.core.bodies import app_body, instance_body
from gateway.core.catalog import LOCAL, Applied, Catalog, Counts, Refused, Stale, deleted_at_s
from gateway.core.model import Address, App, Instance, State
from gateway.core.record import Record, RecordKind, Version, encode

LOG, OTHER = "local", "global"
EMPTY = f"{0:032x}"


def app_record(name: str = "tools", counter: int = 1, epoch: int = 1, *, gone: bool = False, **settings: Any) -> Record:
    body = {} if gone else app_body(App(name, **settings))
    return Record(RecordKind.APP, name, "config", epoch, counter, gone, body)


def instance_record(
    id: str = "i-1", counter: int = 1, epoch: int = 1, *, app: str = "tools", gone: bool = False, **settings: Any
) -> Record:
    settings.setdefault("address", Address("10.0.0.1", 9001))
    body = {} if gone else instance_body(Instance(app, id, **settings))
    return Record(RecordKind.INSTANCE, f"{app}/{id}", "agent", epoch, counter, gone, body)


def gateway_record(id: str = "gw-1", counter: int = 1, *, gone: bool = False) -> Record:
    return Record(RecordKind.GATEWAY, id, "gw", 1, counter, gone, {} if gone else {"url": "http://x"})


def catalog(*records: Record, source: str = LOG) -> Catalog:
    made = Catalog("local")
    for record in records:
        assert isinstance(made.fold(record, source=source), Applied)
    return made


# --- reading -----------------------------------------------------------------------------------------


def test_an_app_is_its_record_and_its_instances() -> None:
    made = catalog(app_record(), instance_record("i-2"), instance_record("i-1", state=State.STOPPED, startable=True))
    table = made.app("tools")
    assert table is not None
    assert table is made.app("tools") is made.lookup("x", b"/")
    assert (table.app, table.region, list(table.instances)) == (App("tools"), "local", ["i-1", "i-2"])
    assert [one.id for one in table.placeable] == ["i-2"]
    assert [one.id for one in table.wakeable] == ["i-1"]
    assert made.app("other") is None


def test_instances_wait_for_their_app() -> None:
    made = catalog(instance_record())
    assert made.app("tools") is None
    assert made.apps() == []
    known = made.instance("tools", "i-1")
    assert known is not None
    assert (known.id, made.instance("tools", "i-9"), made.instance("other", "i-1")) == ("i-1", None, None)
    made.fold(app_record(), source=LOG)
    table = made.app("tools")
    assert table is not None
    assert table.instances == {"i-1": known}
    assert made.apps() == ["tools"]


def test_records_are_there_as_they_came() -> None:
    records = [app_record(), instance_record(), gateway_record(), instance_record("i-2", gone=True)]
    made = catalog(*records)
    for record in records:
        assert made.record(record.key) == record
        assert made.version(record.key) == Version(1, 1)
        assert made.is_tombstone(record.key) is record.deleted
    for key in ("app/x", "instance/tools/i-9", "instance/x/i-1", "gateway/x", "app/tools/i-1", "else/tools", ""):
        assert made.record(key) is None
        assert made.version(key) is None
        assert not made.is_tombstone(key)
    assert list(made.records()) == [records[0], records[1], records[3], records[2]]
    assert list(made.records(LOG)) == list(made.records())
    assert list(made.records(OTHER)) == []


def test_gateways_are_listed_in_order_without_those_that_went() -> None:
    made = catalog(gateway_record("b"), gateway_record("a"), gateway_record("c", gone=True))
    assert [record.id for record in made.gateways()] == ["a", "b"]


def test_everything_is_counted_by_log() -> None:
    made = catalog(app_record(), instance_record(), gateway_record(), instance_record("i-2", gone=True))
    made.fold(app_record("web"), source=OTHER)
    made.fold(b"{}", source=OTHER, name="1-0")
    assert made.counts() == Counts(apps=2, instances=1, gateways=1, tombstones=1, quarantined=1)
    assert (made.live_count(LOG), made.record_count(LOG), made.live_count(OTHER), made.record_count("x")) == (
        3,
        4,
        1,
        0,
    )


def test_a_digest_says_whether_two_hold_the_same() -> None:
    one, two = catalog(app_record(), instance_record()), catalog(instance_record(), app_record())
    assert one.digest() == two.digest() == one.digest(LOG) != EMPTY
    assert one.digest(OTHER) == EMPTY == catalog(instance_record(gone=True)).digest()
    two.fold(instance_record(counter=2), source=LOG)
    assert one.digest() != two.digest()
    one.fold(instance_record(counter=2), source=LOG)
    assert one.digest() == two.digest()


# --- folding -----------------------------------------------------------------------------------------


def test_the_newer_version_wins() -> None:
    made = catalog(instance_record(counter=5, region="a"))
    newer, older = instance_record(counter=6, region="b"), instance_record(counter=4, region="c")
    assert made.fold(newer, source=LOG) == Applied("instance/tools/i-1", changed=True)
    for record in (newer, older, instance_record(counter=5, region="a")):
        assert made.fold(record, source=LOG) == Stale("instance/tools/i-1", older=record is not newer)
    assert made.fold(older, source=OTHER) == Stale("instance/tools/i-1", older=False)
    assert made.fold(instance_record(epoch=2, region="d"), source=OTHER) == Applied("instance/tools/i-1", changed=True)
    one = made.instance("tools", "i-1")
    assert one is not None
    assert one.region == "d"


def test_the_same_said_again_is_no_change() -> None:
    made = catalog(app_record(), instance_record(), gateway_record())
    table = made.app("tools")
    assert made.fold(instance_record(counter=2), source=LOG) == Applied("instance/tools/i-1", changed=False)
    assert made.fold(app_record(counter=2), source=LOG) == Applied("app/tools", changed=False)
    assert made.app("tools") is table
    # Nobody reads a gateway's record by what it says.
    assert made.fold(gateway_record(counter=2), source=LOG) == Applied("gateway/gw-1", changed=True)


def test_what_changes_after_its_app_was_read_is_changed_there() -> None:
    made = catalog(app_record(), instance_record("i-1"), instance_record("i-2"))
    assert made.app("tools") is not None
    made.fold(instance_record("i-1", counter=2, region="far"), source=LOG)
    table = made.app("tools")
    assert table is not None
    assert [(one.id, one.region) for one in table.placeable] == [("i-1", "far"), ("i-2", "local")]
    made.fold(instance_record("i-1", counter=3, cordoned=True), source=LOG)
    made.fold(instance_record("i-0"), source=LOG)
    table = made.app("tools")
    assert table is not None
    assert [one.id for one in table.placeable] == ["i-0", "i-2"]
    assert list(table.instances) == ["i-1", "i-2", "i-0"]


def test_what_was_deleted_is_gone_and_may_come_back() -> None:
    made = catalog(app_record(), instance_record())
    assert made.app("tools") is not None
    assert made.fold(instance_record(counter=2, gone=True), source=LOG) == Applied("instance/tools/i-1", changed=True)
    table = made.app("tools")
    assert table is not None
    assert not table.instances
    assert not table.placeable
    assert made.fold(instance_record("i-2", gone=True), source=LOG) == Applied("instance/tools/i-2", changed=False)
    assert made.fold(app_record(counter=2, gone=True), source=LOG) == Applied("app/tools", changed=True)
    assert made.app("tools") is None
    assert made.lookup("x", b"/") is None
    made.fold(app_record(counter=3), source=LOG)
    made.fold(instance_record(counter=3), source=LOG)
    table = made.app("tools")
    assert table is not None
    assert list(table.instances) == ["i-1"]


def test_whoever_subscribed_is_told_of_changes_until_it_ends() -> None:
    made, told = catalog(), list[str]()

    def tell(app: str) -> None:
        told.append(f"{app}: {made.instance(app, 'i-1') is not None}")

    end = made.subscribe(tell)
    made.fold(app_record(), source=LOG)
    made.fold(instance_record(), source=LOG)
    made.fold(instance_record(counter=2), source=LOG)
    made.fold(gateway_record(), source=LOG)
    made.fold(b"{}", source=LOG)
    assert told == ["tools: False", "tools: True"]
    end()
    end()
    made.fold(app_record(counter=2, gone=True), source=LOG)
    assert len(told) == 2


def test_what_is_folded_is_named_meanwhile() -> None:
    made, seen = catalog(), list[str]()
    made.subscribe(lambda app: seen.append(made.applying))
    made.fold(encode(app_record()), source=LOG, name="1-0")
    assert seen == ["local: app/tools by config"]
    assert (made.applying, made.last_applied) == ("", "local: app/tools by config")


# --- what cannot be used -----------------------------------------------------------------------------


def test_what_cannot_be_used_leaves_the_last_good_one() -> None:
    made = catalog(instance_record())
    bad = Record(RecordKind.INSTANCE, "tools/i-1", "agent", 1, 2, False, {"address": "nowhere"})
    refused = made.fold(bad, source=LOG, now_s=7.0)
    assert isinstance(refused, Refused)
    assert refused.name == "instance/tools/i-1"
    assert made.instance("tools", "i-1") is not None
    (one,) = made.quarantined()
    assert (one.name, one.source, one.reason, one.first_seen_s, one.seen) == (
        "instance/tools/i-1", LOG, refused.reason, 7.0, 1,
    )  # fmt: skip
    made.fold(bad, source=LOG, now_s=8.0)
    assert [(each.first_seen_s, each.seen) for each in made.quarantined()] == [(7.0, 2)]
    assert made.quarantined_total == 2
    made.fold(instance_record(counter=3), source=LOG)
    assert (made.quarantined(), made.quarantined_total) == ((), 2)


def test_what_has_no_name_is_called_by_its_place() -> None:
    made = catalog()
    for name, called in (("5-0", "5-0"), ("", "unreadable")):
        refused = made.fold(b"\xff", source=LOG, name=name)
        assert isinstance(refused, Refused)
        assert refused.name == called


def test_an_instance_may_be_refused_for_its_address() -> None:
    made = Catalog("local", lambda one: "not here" if one.region == "far" else None)
    assert made.fold(instance_record(region="far"), source=LOG) == Refused("instance/tools/i-1", "not here")
    assert isinstance(made.fold(instance_record(), source=LOG), Applied)
    bad = Record(RecordKind.INSTANCE, "tools/i-1", "agent", 1, 2, False, {"address": 7})
    assert isinstance(made.fold(bad, source=LOG), Refused)


def test_what_is_set_aside_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_LISTED", 3)
    made = catalog()
    for number in range(5):
        made.fold(b"{}", source=LOG, name=str(number))
    assert [one.name for one in made.quarantined()] == ["2", "3", "4"]
    assert made.quarantined_total == 5


# --- forgetting --------------------------------------------------------------------------------------


def test_a_sweep_says_what_a_log_no_longer_holds() -> None:
    made = catalog(app_record(), instance_record("i-1"), instance_record("i-2"), instance_record("i-3"))
    made.fold(app_record("web"), source=OTHER)
    assert list(made.unswept(LOG)) == []
    made.begin_sweep(LOG)
    made.fold(app_record(), source=LOG)
    made.fold(instance_record("i-1", counter=2), source=LOG)
    # Not usable, but there; and an older one is not the current one.
    made.fold(Record(RecordKind.INSTANCE, "tools/i-2", "agent", 1, 2, False, {"address": 7}), source=LOG)
    made.fold(instance_record("i-3", counter=0), source=LOG)
    assert list(made.unswept(LOG)) == ["instance/tools/i-3"]
    assert list(made.unswept(OTHER)) == []


def test_bad_records_that_a_log_no_longer_holds_are_forgotten() -> None:
    made = catalog()
    made.fold(b"{}", source=LOG, name="1")
    made.fold(b"{}", source=LOG, name="2")
    made.fold(b"{}", source=OTHER, name="3")
    made.begin_sweep(LOG)
    made.fold(b"{}", source=LOG, name="2")
    made.forget_unswept_quarantine(LOG)
    assert [one.name for one in made.quarantined()] == ["2", "3"]


def test_dropping_is_as_if_they_had_never_come() -> None:
    made, told = catalog(app_record(), instance_record(), instance_record("i-2"), gateway_record()), list[str]()
    made.subscribe(told.append)
    assert made.drop(["instance/tools/i-2", "gateway/gw-1", "instance/tools/i-9", "gateway/x", "app/x"]) == 2
    assert told == ["tools"]
    assert made.digest() == catalog(app_record(), instance_record()).digest()
    assert made.drop(["app/tools"]) == 1
    assert (made.app("tools"), told) == (None, ["tools", "tools"])
    assert made.instance("tools", "i-1") is not None
    assert made.drop(["instance/tools/i-1"]) == 1
    assert (list(made.records()), made.digest(), made.counts()) == ([], EMPTY, Counts(0, 0, 0, 0, 0))
    assert not made._slots


def test_an_app_stays_when_its_instances_are_dropped() -> None:
    made = catalog(app_record(), instance_record())
    assert made.drop(["instance/tools/i-1"]) == 1
    table = made.app("tools")
    assert table is not None
    assert not table.instances


def test_dropping_a_tombstone_changes_nothing_for_readers() -> None:
    made, told = catalog(app_record(gone=True), instance_record(gone=True), instance_record("i-2")), list[str]()
    made.subscribe(told.append)
    assert made.drop(["instance/tools/i-1", "app/tools"]) == 2
    assert not told
    assert [record.key for record in made.records()] == ["instance/tools/i-2"]


def test_old_tombstones_are_purged_and_given_back() -> None:
    dated = replace(instance_record("i-1", gone=True), body={"deleted_at": 100.0})
    undated = replace(instance_record("i-2", epoch=90_000, gone=True), body={"deleted_at": True})
    young = replace(instance_record("i-3", gone=True), body={"deleted_at": 200})
    made = catalog(dated, undated, young, app_record())
    made.fold(replace(instance_record("i-4", gone=True), body={"deleted_at": 1}), source=OTHER)
    assert [deleted_at_s(record) for record in (dated, undated, young)] == [100.0, 90.0, 200.0]
    assert made.purge_tombstones(150.0, LOG) == [dated, undated]
    assert [record.key for record in made.records()] == ["app/tools", "instance/tools/i-3", "instance/tools/i-4"]


# --- in any order ------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """Versions of a few records, each version once."""
    made: list[Record] = []
    for counter in range(draw(st.integers(1, 12))):
        gone = draw(st.booleans())
        match draw(st.integers(0, 2)):
            case 0:
                made.append(app_record(counter=counter, gone=gone, path=draw(st.sampled_from(["/", "/p"]))))
            case 1:
                state = draw(st.sampled_from([State.STARTED, State.STOPPED]))
                id, cordoned = draw(st.sampled_from(["i-1", "i-2", "i-3"])), draw(st.booleans())
                made.append(instance_record(id, counter, gone=gone, state=state, startable=True, cordoned=cordoned))
            case _:
                made.append(gateway_record(counter=counter, gone=gone))
    return made


@given(histories(), st.randoms(use_true_random=False), st.booleans())
def test_every_order_ends_in_the_same_catalog(history: list[Record], rng: Any, read_early: bool) -> None:
    in_order, shuffled = Catalog("local"), Catalog("local")
    for record in history:
        in_order.fold(record, source=LOG)
    again = [*history, *rng.choices(history, k=3)]
    rng.shuffle(again)
    for record in again:
        shuffled.fold(encode(record), source=LOG)
        if read_early:
            # An app that was read is kept up to date one change at a time.
            shuffled.app("tools")
            shuffled.instance("tools", "i-1")
    assert shuffled.app("tools") == in_order.app("tools")
    assert (shuffled.digest(), shuffled.counts()) == (in_order.digest(), in_order.counts())
    assert sorted(record.key for record in shuffled.records()) == sorted(record.key for record in in_order.records())
    newest = {record.key: record for record in history}
    assert {record.key: record for record in in_order.records()} == newest


@given(histories())
def test_a_table_is_what_its_records_say(history: list[Record]) -> None:
    made = Catalog("local")
    for record in history:
        made.fold(record, source=LOG)
        table = made.app("tools")
        if table is not None:
            ones = [table.instances[id] for id in sorted(table.instances)]
            placeable = [one for one in ones if one.running and one.healthy and not one.cordoned]
            assert list(table.placeable) == placeable
            assert list(table.wakeable) == [one for one in ones if one.wakeable and not one.cordoned]
            assert all(table.instances[one.id] == made.instance("tools", one.id) for one in ones)


def test_what_was_said_here_is_the_logs_once_it_gives_it_back() -> None:
    made = catalog(instance_record(), source=LOCAL)
    assert (made.live_count(LOCAL), made.live_count(LOG)) == (1, 0)
    assert made.fold(encode(instance_record()), source=LOG) == Stale("instance/tools/i-1", older=False)
    assert (made.live_count(LOCAL), made.live_count(LOG)) == (0, 1)
    assert made.digest(LOCAL) == EMPTY
