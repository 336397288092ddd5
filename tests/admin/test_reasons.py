"""The words of `explain`: each says what is so, and none contradicts the decision."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.admin.reasons import chosen, deciding_rule, others, steps, unfit
from gateway.core.ask import Asked
from gateway.core.decide import decide
from gateway.core.model import Ask, Concurrency, Dialect, Forward, Instance, Intent, Kind, Pin, Refuse, Rule, State
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


def outcomes(*instances: Instance, asked: Asked, **settings: Any) -> dict[Rule, str]:
    of, seen = table(*instances, **settings), Seen()
    decision = decide(of, asked.ask, seen)
    return {one.rule: one.outcome for one in steps(of, asked, deciding_rule(decision, asked.ask), seen)}


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
        )
        loads = {one.id: rng.randrange(30) for one in instances}
        seen = Seen(loads, loads)
        of = table(*instances, concurrency=Concurrency(soft=10, hard=20), auto_start=rng.random() < 0.8)
        decision = decide(of, ask, seen)
        rule = deciding_rule(decision, ask)
        assert [one.outcome for one in steps(of, Asked(ask), rule, seen)].count("decides") == 1
        passed = list(others(of, ask, decision, rule, seen))
        taken = chosen(decision)
        assert all(one.why for one in passed)
        assert {one.instance.id for one in passed} == {one.id for one in instances} - {taken.id if taken else ""}
        assert isinstance(decision, Refuse) or rule is decision.rule
        assert not isinstance(decision, Forward) or taken is decision.instance
