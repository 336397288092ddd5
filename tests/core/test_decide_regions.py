"""Regions say where a new place is looked for, in which order; pins do not hear of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given

from gateway.core.decide import decide
from gateway.core.decision import Ask, Forward, Refuse, Wait, Wake
from gateway.core.model import AppTable, Concurrency, Instance, Pin, Rule, State
from gateway.core.problems import Code
from tests.core.asks import ASKS, INITIALIZE, PLAIN, SESSION, STATE, TABLES, VIEWS, chosen
from tests.core.builders import Seen, instance, table

FRA, AMS, EU, FAR = frozenset({"fra"}), frozenset({"ams"}), frozenset({"fra", "ams"}), frozenset({"syd"})
ANYWHERE = None
PIN = Pin("i-1", "k3j9")
LIMITED = Concurrency(soft=2, hard=4)
IDLE = Seen()

HERE = instance("i-0")
F1, F2, A3 = instance("i-1", region="fra"), instance("i-2", region="fra"), instance("i-3", region="ams")
ALL = table(HERE, F1, F2, A3, concurrency=LIMITED)

KEYS = pytest.mark.parametrize(("key", "rule"), [(b"", Rule.LEAST_LOADED), (b"k", Rule.HASH)], ids=["load", "hash"])


def asleep(id: str, region: str, **more: Any) -> Instance:
    more.setdefault("state", State.STOPPED)
    return instance(id, region=region, startable=True, **more)


def problem(decision: object) -> tuple[Code, str]:
    assert isinstance(decision, Refuse), decision
    return decision.problem.code, decision.problem.message


class TestOrder:
    @KEYS
    def test_the_first_region_that_can_take_it(self, key: bytes, rule: Rule) -> None:
        assert decide(ALL, Ask(PLAIN, key=key, regions=(AMS, FRA)), IDLE) == Forward(A3, rule)
        assert decide(ALL, Ask(PLAIN, key=key, regions=(FRA, AMS)), IDLE) == Forward(F1, rule)
        assert decide(ALL, Ask(PLAIN, key=key, regions=(FAR, AMS)), IDLE) == Forward(A3, rule)

    @KEYS
    def test_a_region_is_better_than_a_nearer_or_emptier_one_behind_it(self, key: bytes, rule: Rule) -> None:
        view = Seen(loads={"i-3": 3})
        assert decide(ALL, Ask(PLAIN, key=key, regions=(AMS, ANYWHERE)), view) == Forward(A3, rule)

    def test_the_regions_of_a_group_are_as_good_as_each_other(self) -> None:
        view = Seen(loads={"i-1": 1, "i-2": 1})
        assert decide(ALL, Ask(PLAIN, regions=(EU,)), view) == Forward(A3, Rule.LEAST_LOADED)
        assert decide(ALL, Ask(PLAIN, regions=(EU,)), Seen(loads={"i-3": 1})) == Forward(F1, Rule.LEAST_LOADED)

    @KEYS
    def test_any_is_every_region(self, key: bytes, rule: Rule) -> None:
        assert decide(ALL, Ask(PLAIN, key=key, regions=(FAR, ANYWHERE)), IDLE) == Forward(HERE, rule)

    def test_suspects_of_a_region_come_before_the_next_one(self) -> None:
        # Who asks for a region does so for a reason; a suspect is likely to answer.
        view = Seen(suspects=frozenset({"i-3"}))
        assert decide(ALL, Ask(PLAIN, regions=(AMS, FRA)), view) == Forward(A3, Rule.LEAST_LOADED)

    def test_within_a_region_the_keys_own_order_decides(self) -> None:
        view = Seen(order=("i-0", "i-3", "i-2", "i-1"))
        assert decide(ALL, Ask(PLAIN, key=b"k", regions=(FRA,)), view) == Forward(F2, Rule.HASH)
        assert decide(ALL, Ask(PLAIN, key=b"k", regions=(EU,)), view) == Forward(A3, Rule.HASH)

    @KEYS
    def test_what_was_ruled_out_is_passed_over(self, key: bytes, rule: Rule) -> None:
        elsewhere = Ask(PLAIN, key=key, exclude=frozenset({"i-1"}), regions=(FRA,), replayed=Rule.REPLAY)
        assert decide(ALL, elsewhere, IDLE) == Forward(F2, rule)
        both = replace(elsewhere, exclude=frozenset({"i-1", "i-2"}))
        assert problem(decide(ALL, both, IDLE))[0] is Code.PR03
        assert decide(ALL, replace(both, regions=(FRA, AMS)), IDLE) == Forward(A3, rule)


class TestAsleepAndFull:
    @KEYS
    def test_a_sleeping_one_is_woken_in_its_own_region(self, key: bytes, rule: Rule) -> None:
        sleeper = asleep("i-3", "ams")
        of_app = table(HERE, F1, sleeper)
        assert decide(of_app, Ask(PLAIN, key=key, regions=(AMS, FRA)), IDLE) == Wake(sleeper, rule)
        assert decide(of_app, Ask(PLAIN, key=key, regions=(FRA, AMS)), IDLE) == Forward(F1, rule)

    def test_of_sleeping_ones_only_those_of_the_region(self) -> None:
        near, far = asleep("i-1", "local"), asleep("i-2", "fra")
        assert decide(table(near, far), Ask(PLAIN, regions=(FRA,)), IDLE) == Wake(far, Rule.LEAST_LOADED)
        assert problem(decide(table(near), Ask(PLAIN, regions=(FRA,)), IDLE))[0] is Code.PR01

    @KEYS
    def test_a_full_region_is_passed_over(self, key: bytes, rule: Rule) -> None:
        full = Seen(hard={"i-1": 4, "i-2": 4})
        assert decide(ALL, Ask(PLAIN, key=key, regions=(FRA, AMS)), full) == Forward(A3, rule)
        sleeper = asleep("i-3", "ams")
        of_app = table(F1, F2, sleeper, concurrency=LIMITED)
        assert decide(of_app, Ask(PLAIN, key=key, regions=(FRA, AMS)), full) == Wake(sleeper, rule)

    @KEYS
    def test_full_regions_are_waited_for_when_no_other_can_take_it(self, key: bytes, rule: Rule) -> None:
        full = Seen(hard={"i-1": 4, "i-2": 4})
        assert decide(ALL, Ask(PLAIN, key=key, regions=(FRA,)), full) == Wait(rule)
        assert decide(ALL, Ask(PLAIN, key=key, regions=(FRA, FAR)), full) == Wait(rule)
        all_full = Seen(hard={"i-1": 4, "i-2": 4, "i-3": 4})
        assert decide(ALL, Ask(PLAIN, key=key, regions=(FAR, FRA, AMS)), all_full) == Wait(rule)

    @KEYS
    def test_nowhere_in_these_regions(self, key: bytes, rule: Rule) -> None:
        code, message = problem(decide(ALL, Ask(PLAIN, key=key, regions=(FAR,)), IDLE))
        assert code is Code.PR01
        assert "in the regions that were asked for" in message

    def test_nowhere_at_all_says_nothing_of_regions(self) -> None:
        code, message = problem(decide(table(), Ask(PLAIN, regions=(FRA, ANYWHERE)), IDLE))
        assert code is Code.PR01
        assert "regions" not in message


class TestWished:
    @pytest.mark.parametrize(("wish", "rule"), [({"cookie": PIN}, Rule.COOKIE), ({"prefer": "i-1"}, Rule.PREFER)])
    def test_a_wish_is_followed_in_any_of_the_regions_and_in_no_other(self, wish: dict[str, Any], rule: Rule) -> None:
        assert decide(ALL, Ask(PLAIN, regions=(AMS, FRA), **wish), IDLE) == Forward(F1, rule)
        assert decide(ALL, Ask(PLAIN, regions=(AMS, ANYWHERE), **wish), IDLE) == Forward(F1, rule)
        assert decide(ALL, Ask(PLAIN, regions=(AMS,), **wish), IDLE) == Forward(A3, Rule.LEAST_LOADED)

    def test_a_replays_wish_bears_its_rule(self) -> None:
        for rule in (Rule.REPLAY, Rule.REPLAY_CACHE):
            assert decide(ALL, Ask(PLAIN, prefer="i-1", replayed=rule), IDLE) == Forward(F1, rule)

    def test_a_replays_wish_that_was_ruled_out_is_not_followed(self) -> None:
        ask = Ask(PLAIN, prefer="i-1", exclude=frozenset({"i-1"}), regions=(FRA,), replayed=Rule.REPLAY)
        assert decide(ALL, ask, IDLE) == Forward(F2, Rule.LEAST_LOADED)


class TestForced:
    def test_only_within_the_regions(self) -> None:
        assert decide(ALL, Ask(PLAIN, force="i-1", regions=(AMS, FRA)), IDLE) == Forward(F1, Rule.FORCE)
        assert decide(ALL, Ask(PLAIN, force="i-1", regions=(AMS, ANYWHERE)), IDLE) == Forward(F1, Rule.FORCE)
        decision = decide(ALL, Ask(PLAIN, force="i-1", regions=(AMS, FAR)), IDLE)
        assert problem(decision)[0] is Code.PR01
        assert isinstance(decision, Refuse)
        # An instance does not move: asking again is no use.
        assert decision.problem.retry_after_s is None

    def test_by_a_replay_it_bears_its_rule(self) -> None:
        for rule in (Rule.REPLAY, Rule.REPLAY_CACHE):
            sleeper = asleep("i-4", "fra")
            assert decide(ALL, Ask(PLAIN, force="i-1", replayed=rule), IDLE) == Forward(F1, rule)
            assert decide(table(sleeper), Ask(PLAIN, force="i-4", replayed=rule), IDLE) == Wake(sleeper, rule)

    def test_who_named_no_instance_is_told_apart(self) -> None:
        code, message = problem(decide(ALL, Ask(PLAIN, force="i-9", replayed=Rule.REPLAY), IDLE))
        assert (code, message) == (Code.PR02, "the replay names no instance of app tools")
        code, message = problem(decide(ALL, Ask(PLAIN, force="i-9"), IDLE))
        assert (code, message) == (Code.PR02, "fly-force-instance-id names no instance of app tools")


class TestPinned:
    @pytest.mark.parametrize("regions", [(FRA,), (AMS,), (FAR, AMS), (ANYWHERE,)])
    def test_a_session_stays_where_it_is(self, regions: tuple[frozenset[str] | None, ...]) -> None:
        assert decide(ALL, Ask(SESSION, PIN, regions=regions), IDLE) == Forward(F1, Rule.SEALED)
        assert decide(ALL, Ask(SESSION, PIN, force="i-1", regions=regions), IDLE) == Forward(F1, Rule.SEALED)
        full = Seen(hard={"i-1": 4})
        assert decide(ALL, Ask(SESSION, PIN, regions=regions), full) == Wait(Rule.SEALED, F1)
        assert problem(decide(ALL, Ask(SESSION, PIN, force="i-2", regions=regions), IDLE))[0] is Code.PS05

    def test_a_state_whose_maker_is_gone_is_placed_by_region(self) -> None:
        gone = Pin("i-9", "k3j9")
        assert decide(ALL, Ask(STATE, gone, Rule.STORED, regions=(AMS,)), IDLE) == Forward(A3, Rule.LEAST_LOADED)
        assert problem(decide(ALL, Ask(STATE, gone, force="i-1", regions=(AMS,)), IDLE))[0] is Code.PR01


# --- what holds for every table ------------------------------------------------------------------


@given(TABLES, ASKS, VIEWS)
def test_nothing_is_sent_where_it_was_not_asked_for(of_app: AppTable, ask: Ask, view: Seen) -> None:
    one = chosen(decide(of_app, ask, view))
    if one is None:
        return
    assert one.id not in ask.exclude
    if ask.regions and not (ask.pin is not None and one.id == ask.pin.instance):
        assert any(place is None or one.region in place for place in ask.regions)


@given(TABLES, ASKS, VIEWS)
def test_any_region_is_the_same_as_none_named(of_app: AppTable, ask: Ask, view: Seen) -> None:
    unnamed = decide(of_app, replace(ask, regions=()), view)
    assert decide(of_app, replace(ask, regions=(ANYWHERE,)), view) == unnamed


@given(TABLES, ASKS, VIEWS)
def test_a_session_does_not_hear_of_regions(of_app: AppTable, ask: Ask, view: Seen) -> None:
    assume(ask.pin is not None and ask.intent is not STATE)
    assert decide(of_app, ask, view) == decide(of_app, replace(ask, regions=()), view)


@given(TABLES, ASKS, VIEWS)
def test_a_list_is_its_regions_tried_one_after_the_other(of_app: AppTable, ask: Ask, view: Seen) -> None:
    ask = replace(ask, pin=None, force="", cookie=None, prefer="")
    assume(ask.regions)
    single = [decide(of_app, replace(ask, regions=(place,)), view) for place in ask.regions]
    now = [decision for decision in single if isinstance(decision, Forward | Wake)]
    later = [decision for decision in single if isinstance(decision, Wait)]
    decision = decide(of_app, ask, view)
    assert decision == (now or later or [decision])[0]
    assert isinstance(decision, Refuse) == (not now and not later)


@given(TABLES, ASKS, VIEWS)
def test_a_region_is_as_if_there_were_no_other(of_app: AppTable, ask: Ask, view: Seen) -> None:
    ask = replace(ask, intent=INITIALIZE, pin=None, force="", cookie=None, prefer="", regions=ask.regions[:1])
    place = ask.regions[0] if ask.regions else None
    assume(place is not None)
    assert place is not None
    inside = AppTable(
        of_app.app,
        {id: one for id, one in of_app.instances.items() if one.region in place},
        tuple(one for one in of_app.placeable if one.region in place),
        tuple(one for one in of_app.wakeable if one.region in place),
        of_app.region,
    )
    there, alone = decide(of_app, ask, view), decide(inside, replace(ask, regions=()), view)
    assert type(there) is type(alone)
    if not isinstance(there, Refuse):
        assert there == alone
