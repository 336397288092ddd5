"""The words of `explain`: each says what is so, and none contradicts the decision."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.admin.reasons import Looked, chosen, deciding_rule, notes, others, steps, unfit
from gateway.core.ask import Asked
from gateway.core.decide import decide
from gateway.core.decision import Ask, Forward, Refuse
from gateway.core.model import Concurrency, Dialect, Instance, Intent, Kind, Pin, ReplayKey, ReplayRule, Rule, State
from gateway.core.problems import Code, Problem
from gateway.core.remember import Target
from gateway.core.remembered import Entry
from gateway.core.seal import SealFault
from tests.core.builders import Seen, app, instance, table

PLAIN = Intent(Kind.PLAIN, Dialect.HTTP)
STATE = Intent(Kind.STATE, Dialect.STATELESS_2026, b"key")
ASLEEP: Any = {"state": State.STOPPED, "startable": True}


@pytest.mark.parametrize(
    ("one", "settings", "seen", "why"),
    [
        (instance(), {}, Seen(), ""),
        (instance(cordoned=True), {}, Seen(), "cordoned: it takes no new sessions"),
        (instance(healthy=False), {}, Seen(), "its checks fail"),
        (instance(), {}, Seen(suspects=frozenset({"i-1"})), "connections to it failed a moment ago"),
        (instance(), {"concurrency": Concurrency(hard=2)}, Seen(hard={"i-1": 2}), "at its hard limit: 2 of 2"),
        (instance(**ASLEEP), {}, Seen(), ""),
        (instance(**ASLEEP, held_down=True), {}, Seen(), "stopped by an operator"),
        (instance(**ASLEEP), {"auto_start": False}, Seen(), "stopped, and auto_start is off"),
        (instance(state=State.STOPPED), {}, Seen(), "stopped, and nothing here can start it"),
        (instance(state=State.STARTING, startable=True), {}, Seen(), "starting"),
        (instance(state=State.FAILED, startable=True), {}, Seen(), "its last start failed"),
    ],
)
def test_what_keeps_requests_away(one: Instance, settings: Any, seen: Seen, why: str) -> None:
    assert unfit(app(**settings), one, seen) == why


def told(*instances: Instance, ask: Ask | None = None, seen: Seen | None = None, **settings: Any) -> dict[str, str]:
    """Why each instance that was not chosen was not."""
    of = table(*instances, **settings)
    ask, seen = ask or Ask(PLAIN), seen or Seen()
    decision = decide(of, ask, seen)
    return {one.instance.id: one.why for one in others(of, ask, decision, deciding_rule(decision, ask), seen)}


def test_placement_tells_the_order_it_goes_by() -> None:
    two, three = instance("i-2"), instance("i-3")
    assert told(instance(), two) == {"i-2": "carries as much, and its turn comes later"}
    assert told(instance(), two, seen=Seen({"i-1": 4, "i-2": 3})) == {"i-1": "carries 4, the chosen one 3"}
    assert told(instance(), instance("i-2", region="iad"), seen=Seen({"i-1": 3})) == {
        "i-2": "in region iad; the own one comes first"
    }
    assert told(instance(region="iad"), instance("i-2", region="fra"), seen=Seen()) == {
        "i-2": "carries as much, and its turn comes later"
    }
    assert told(instance(), instance("i-2", **ASLEEP)) == {
        "i-2": "asleep: started when all that run are at their soft limit"
    }
    assert told(instance("i-2", **ASLEEP), instance("i-3", **ASLEEP)) == {
        "i-3": "asleep, and later in the order of starting"
    }
    assert told(two, three, seen=Seen({"i-2": 25, "i-3": 30})) == {"i-3": "at its soft limit: 30 of 20"}


def test_a_refused_pin_tells_why_its_own_instance_did_not_take_it() -> None:
    ask = Ask(PLAIN, pin=Pin("i-1", "k3j9"))
    assert told(instance(**ASLEEP, held_down=True, incarnation="k3j9"), instance("i-2"), ask=ask) == {
        "i-1": "the request is pinned to it, but it cannot take it",
        "i-2": "the request is pinned to i-1",
    }


def outcomes(*instances: Instance, asked: Asked, looked: Looked | None = None, **settings: Any) -> dict[Rule, str]:
    of, seen = table(*instances, **settings), Seen()
    decision = decide(of, asked.ask, seen)
    rule = deciding_rule(decision, asked.ask)
    return {one.rule: one.outcome for one in steps(of.app, of, asked, rule, seen, looked or Looked())}


def test_wishes_that_were_not_fulfilled_say_why() -> None:
    asleep = instance("i-2", **ASLEEP, held_down=True)
    ask = Ask(PLAIN, cookie=Pin("i-9", "x"), prefer="i-2")
    found = outcomes(instance(), asleep, asked=Asked(ask), affinity_cookie="sid")
    assert found[Rule.COOKIE] == "names i-9, which is no instance of this app"
    assert found[Rule.PREFER] == "names i-2, which is not fit: stopped by an operator"
    assert found[Rule.LEAST_LOADED] == "decides"
    forged = outcomes(instance(), asked=Asked(Ask(PLAIN), cookie_fault=SealFault.FORGED), affinity_cookie="sid")
    assert forged[Rule.COOKIE] == "the affinity cookie does not hold: forged"
    absent = outcomes(instance(), asked=Asked(Ask(PLAIN)), affinity_cookie="sid")
    assert absent[Rule.COOKIE] == "no affinity cookie came"


def test_a_request_state_goes_on_when_its_instance_is_gone() -> None:
    asked = Asked(Ask(STATE, pin=Pin("i-9", "x"), pin_rule=Rule.STORED))
    found = outcomes(instance(), asked=asked)
    assert found[Rule.STORED].startswith("pinned to i-9, whose memory is gone")
    assert found[Rule.LEAST_LOADED] == "decides"


def test_exactly_one_rule_decides_and_the_chosen_one_is_never_among_the_others(rng: random.Random) -> None:
    states = list(State)
    for _ in range(500):
        instances = [
            instance(
                f"i-{number}",
                state=rng.choice(states),
                startable=rng.random() < 0.7,
                held_down=rng.random() < 0.2,
                cordoned=rng.random() < 0.2,
                healthy=rng.random() < 0.8,
                region=rng.choice(["local", "iad"]),
            )
            for number in range(rng.randrange(5))
        ]
        name = f"i-{rng.randrange(5)}"
        ask = Ask(
            rng.choice([PLAIN, STATE]),
            pin=rng.choice([None, None, Pin(name, rng.choice(["k3j9", "old"]))]),
            cookie=rng.choice([None, Pin(name, "k3j9")]),
            force=rng.choice(["", "", "", name]),
            prefer=rng.choice(["", name]),
            key=rng.choice([b"", b"key"]),
            regions=rng.choice([(), (frozenset({"iad"}),), (frozenset({"iad"}), None), (frozenset({"iad", "local"}),)]),
            replayed=rng.choice([None, Rule.REPLAY, Rule.REPLAY_CACHE]),
        )
        loads = {one.id: rng.randrange(30) for one in instances}
        seen = Seen(loads, loads)
        of = table(*instances, concurrency=Concurrency(soft=10, hard=20), auto_start=rng.random() < 0.8)
        decision = decide(of, ask, seen)
        rule = deciding_rule(decision, ask)
        told_steps = [one.outcome for one in steps(of.app, of, Asked(ask), rule, seen, Looked())]
        # A replay is not among the rules of a request that was not answered yet.
        assert told_steps.count("decides") == (rule is not Rule.REPLAY)
        assert all(told_steps)
        passed = list(others(of, ask, decision, rule, seen))
        taken = chosen(decision)
        assert all(one.why for one in passed)
        assert {one.instance.id for one in passed} == {one.id for one in instances} - {taken.id if taken else ""}
        assert isinstance(decision, Refuse) or rule is decision.rule
        assert not isinstance(decision, Forward) or taken is decision.instance


# --- regions ---------------------------------------------------------------------------


def test_instances_elsewhere_are_ruled_out_or_come_later() -> None:
    here, iad, fra = instance(), instance("i-2", region="iad"), instance("i-3", region="fra")
    forced = Ask(PLAIN, regions=(frozenset({"fra"}),))
    assert told(here, iad, fra, ask=forced) == {
        "i-1": "in region local, which the request rules out",
        "i-2": "in region iad, which the request rules out",
    }
    preferred = Ask(PLAIN, regions=(frozenset({"fra"}), frozenset({"iad"}), None))
    assert told(here, iad, fra, ask=preferred) == {
        "i-1": "in region local; the request asks for fra first",
        "i-2": "in region iad; the request asks for fra first",
    }
    assert told(here, iad, instance("i-3", region="fra", cordoned=True), ask=preferred) == {
        "i-1": "in region local; the request asks for iad first",
        "i-3": "cordoned: it takes no new sessions",
    }
    hashed = Ask(PLAIN, key=b"key", regions=(frozenset({"fra"}), None))
    assert told(here, iad, fra, ask=hashed)["i-1"] == "in region local; the request asks for fra first"
    replayed = Ask(PLAIN, regions=(frozenset({"fra"}),), replayed=Rule.REPLAY_CACHE)
    assert told(here, fra, ask=replayed) == {"i-1": "in region local, which the replay rules out"}


def test_where_no_region_can_take_it_every_instance_says_why() -> None:
    ask = Ask(PLAIN, regions=(frozenset({"fra"}),))
    asleep = instance("i-2", region="fra", state=State.STOPPED)
    assert told(instance(), asleep, ask=ask) == {
        "i-1": "in region local, which the request rules out",
        "i-2": "stopped, and nothing here can start it",
    }


def test_a_named_instance_elsewhere_says_so() -> None:
    regions = (frozenset({"fra"}),)
    found = outcomes(instance(), instance("i-2", region="fra"), asked=Asked(Ask(PLAIN, prefer="i-1", regions=regions)))
    assert found[Rule.PREFER] == "names i-1, which is in region local, which the request rules out"
    assert told(instance(), ask=Ask(PLAIN, force="i-1", regions=regions)) == {
        "i-1": "in region local, which the request rules out"
    }
    assert told(instance(**ASLEEP, held_down=True), instance("i-2"), ask=Ask(PLAIN, force="i-1")) == {
        "i-1": "fly-force-instance-id names it, but it cannot take the request",
        "i-2": "fly-force-instance-id names i-1",
    }


# --- replays ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("looked", "outcome"),
    [
        (Looked(), "nothing is remembered for this request"),
        (Looked(resting=True), "the caches rest while the catalog's store is away"),
        (Looked(skipped=True), "the client skips the cache"),
        (Looked(dropped=True), "what was remembered cannot be used: it is dropped, and the app is asked"),
        (Looked(lacking=ReplayRule(ReplayKey.COOKIE, "sid", 60.0)), "the request carries no `sid` cookie"),
        (Looked(lacking=ReplayRule(ReplayKey.HEADER, "x-id", 60.0)), "the request carries no `x-id` header"),
    ],
)
def test_why_no_remembered_replay_decides(looked: Looked, outcome: str) -> None:
    found = outcomes(instance(), asked=Asked(Ask(PLAIN)), looked=looked)
    assert found[Rule.REPLAY_CACHE] == outcome
    assert list(found)[1:4] == [Rule.SEALED, Rule.REPLAY_CACHE, Rule.COOKIE]


def test_the_caches_are_not_looked_into_for_a_pin() -> None:
    asked = Asked(Ask(STATE, pin=Pin("i-9", "x"), pin_rule=Rule.STORED))
    assert outcomes(instance(), asked=asked)[Rule.REPLAY_CACHE] == "not looked into for a request with a pin"


def test_what_a_replay_names_is_told_of_the_others() -> None:
    for rule in (Rule.REPLAY, Rule.REPLAY_CACHE):
        for ask in (Ask(PLAIN, force="i-2", replayed=rule), Ask(PLAIN, prefer="i-2", replayed=rule)):
            assert told(instance(), instance("i-2"), ask=ask) == {"i-1": "the replay names i-2"}
        assert told(instance(), ask=Ask(PLAIN, force="i-9", replayed=rule)) == {"i-1": "the replay names i-9"}


def test_a_session_in_another_app_is_told_by_both_names() -> None:
    asked = Asked(Ask(PLAIN, pin=Pin("i-1", "x", "user")))
    of, seen = table(instance()), Seen()
    gone = Refuse(Problem(Code.PS02, "gone", "tools", "i-1"))
    (other,) = others(of, asked.ask, gone, deciding_rule(gone, asked.ask), seen)
    assert other.why == "the request is pinned to user/i-1"
    assert list(notes(app(), asked, None, 0.0)) == [
        "the session lives in app user: a replay of app tools made it there"
    ]


def test_a_session_by_way_of_its_app_is_asked_for_there_first() -> None:
    asked = Asked(Ask(PLAIN, pin=Pin("u-1", "x", "user", via=True)))
    of, seen = table(instance()), Seen()
    found = {one.rule: one.outcome for one in steps(of.app, of, asked, Rule.LEAST_LOADED, seen, Looked())}
    assert found[Rule.SEALED] == "pinned to user/u-1 by way of its app, which is asked first"
    assert list(notes(app(), asked, None, 0.0)) == [
        "the session lives on user/u-1; app tools is asked first, and its replay leads there"
    ]


def test_a_remembered_replay_is_told_with_its_end() -> None:
    by_path = Entry("tools", bytes(32), Target("user"), 100.0, host="tools.localhost")
    by_session = Entry("tools", bytes(32), Target("user"), 100.0)
    told_of = [next(notes(app(), Asked(Ask(PLAIN)), entry, 41.7)) for entry in (by_path, by_session)]
    assert told_of == [
        "app tools is not asked: its replay to app user is remembered by path, for 42 s more",
        "app tools is not asked: its replay to app user is remembered by session, for 42 s more",
    ]
