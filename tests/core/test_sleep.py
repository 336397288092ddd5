"""Which instances are put to sleep, and what keeps the others up."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.model import AppTable, AutoStop, Concurrency, IdleStreams, Instance, State
from gateway.core.presence import NOTHING, Carried, Lease, Said
from gateway.core.sleep import Reason, Sleep, Why, agreed, choose, why_up
from tests.core.fleets import Facts, fleet, own

AN_HOUR_S = 3600.0


def three(**settings: Any) -> AppTable:
    return fleet(own("i-1"), own("i-2"), own("i-3"), **settings)


FULL = Carried(requests=20)
SOME = Carried(requests=1)


# --- idle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [AutoStop.STOP, AutoStop.SUSPEND])
def test_an_idle_instance_is_put_to_sleep_as_its_app_says(rest: AutoStop) -> None:
    facts = Facts(fleet(auto_stop=rest))
    assert facts.choose() == [Sleep(own(), rest)]
    assert facts.why() == {"i-1": None}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (Facts(fleet(auto_stop=AutoStop.OFF)), "auto_stop is off"),
        (Facts(fleet(auto_start=False)), "auto_start is off: it would not come back"),
        (Facts(fleet(own(startable=False))), "a plain address: nobody here starts or stops it"),
        (Facts(fleet(own(held_down=True))), "an operator stops it"),
        (Facts(fleet(own(cordoned=True))), "cordoned: it finishes what it has"),
        (Facts(fleet(), {"i-1": Carried(requests=1)}), "requests in flight"),
        (Facts(fleet(), {"i-1": Carried(streams=1)}), "open streams"),
        (Facts(fleet(), {"i-1": Carried(sessions=1)}), "sessions"),
        (Facts(fleet(), leases=[Lease("tools", "i-1", "nightly", 1.0)]), "kept awake by nightly"),
        (Facts(fleet(), up_s={"i-1": 59.9}), "just started"),
        (Facts(fleet(), {"i-1": Carried(idle_s=299.9)}), "used a moment ago"),
        (Facts(fleet(min_running=1)), "min_running"),
        (Facts(fleet(own("i-1"), own("i-2")), {"i-2": FULL}), "the app's one spare"),
    ],
    ids=str,
)
def test_what_keeps_an_instance_up(facts: Facts, why: str) -> None:
    assert facts.ids() == []
    assert facts.why()["i-1"] == why
    assert {str(Why(reason)) for reason in Reason} >= {why.removesuffix(" nightly")}


def test_what_was_not_seen_running_has_just_started() -> None:
    assert why_up(fleet(), {}, [], {}) == {"i-1": Why(Reason.JUST_STARTED)}
    assert choose(fleet(), {}, [], {}) == []
    assert choose(fleet(idle_grace_s=0.0), {}, [], {}) == [Sleep(own(), AutoStop.STOP)]


def test_the_times_are_those_of_the_app() -> None:
    app = fleet(idle_after_s=10.0, idle_grace_s=5.0)
    assert Facts(app, {"i-1": Carried(idle_s=10.0)}, up_s={"i-1": 5.0}).ids() == ["i-1"]
    assert Facts(app, {"i-1": Carried(idle_s=9.9)}, up_s={"i-1": 5.0}).ids() == []
    assert Facts(app, {"i-1": Carried(idle_s=10.0)}, up_s={"i-1": 4.9}).ids() == []


def test_a_parked_stream_keeps_nothing_up() -> None:
    streams = Carried(streams=100)
    assert Facts(fleet(idle_streams=IdleStreams.PARK), {"i-1": streams}).ids() == ["i-1"]
    assert Facts(fleet(idle_streams=IdleStreams.PARK), {"i-1": Carried(requests=1, streams=1)}).ids() == []
    assert Facts(fleet(idle_streams=IdleStreams.COUNT), {"i-1": streams}).ids() == []


def test_a_session_holds_up_only_the_sleep_that_would_end_it() -> None:
    bound = {"i-1": Carried(sessions=1)}
    assert Facts(fleet(), bound).ids() == []
    assert Facts(fleet(sessions_survive_stop=True), bound).ids() == ["i-1"]
    assert Facts(fleet(auto_stop=AutoStop.SUSPEND), bound).ids() == ["i-1"]


def test_of_several_leases_the_one_that_lasts_longest_is_named() -> None:
    leases = [Lease("tools", "i-1", name, left_s) for name, left_s in [("a", 5.0), ("c", 60.0), ("b", 60.0)]]
    assert Facts(fleet(), leases=leases).why() == {"i-1": "kept awake by b"}
    assert Facts(fleet(), leases=[Lease("other", "i-1", "a", 5.0), Lease("tools", "i-2", "a", 5.0)]).ids() == ["i-1"]


@pytest.mark.parametrize("state", sorted(set(State) - {State.STARTED}))
def test_what_does_not_run_is_not_put_to_sleep(state: State) -> None:
    facts = Facts(fleet(own(state=state)))
    assert (facts.ids(), facts.why()) == ([], {})


# --- not watched for long enough -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "needed_s"),
    [
        ({}, AN_HOUR_S),
        ({"session_idle_s": 60.0}, 300.0),
        ({"sessions_survive_stop": True}, 300.0),
        ({"auto_stop": AutoStop.SUSPEND}, 300.0),
    ],
    ids=str,
)
def test_what_was_up_before_anybody_watched_may_be_in_use(settings: dict[str, Any], needed_s: float) -> None:
    app = fleet(**settings)
    before = Facts(app, watched_s=needed_s - 0.1)
    assert (before.ids(), before.why()) == ([], {"i-1": "not watched for long enough"})
    assert Facts(app, watched_s=needed_s).ids() == ["i-1"]
    assert Facts(app, up_s={"i-1": 100.0}, watched_s=100.0).ids() == ["i-1"]


# --- spare ---------------------------------------------------------------------------------------------


def test_of_idle_ones_the_one_that_is_idle_for_longest_sleeps_first() -> None:
    carried = {"i-1": Carried(idle_s=400.0), "i-2": Carried(idle_s=500.0), "i-3": Carried(idle_s=500.0)}
    assert Facts(three(), carried).ids() == ["i-2"]
    assert Facts(three(), {**carried, "i-2": SOME}).ids() == ["i-3"]
    assert Facts(three(), {}).ids() == ["i-1"]
    assert Facts(three(), {}, up_s={"i-1": 400.0, "i-2": 700.0, "i-3": 500.0}).ids() == ["i-2"]


def test_each_region_loses_one_in_a_pass() -> None:
    app = fleet(own("i-1", region="iad"), own("i-2", region="iad"), own("i-3", region="fra"), own("i-4", region="fra"))
    assert Facts(app).ids() == ["i-1", "i-3"]
    assert Facts(app, {"i-1": SOME, "i-3": SOME, "i-4": SOME}).ids() == ["i-2"]
    # The room of one region is none in another.
    assert Facts(app, {"i-1": FULL, "i-3": FULL}).ids() == []


@pytest.mark.parametrize(
    ("loads", "slept"),
    [
        ([NOTHING, NOTHING, NOTHING], 1),
        ([SOME, NOTHING, NOTHING], 1),
        ([FULL, NOTHING, NOTHING], 1),
        ([FULL, FULL, NOTHING], 0),
        ([FULL, SOME, NOTHING], 1),
        ([FULL, FULL, FULL], 0),
    ],
)
def test_flys_formula(loads: list[Carried], slept: int) -> None:
    """excess = running - (at or over soft + 1)."""
    assert len(Facts(three(), dict(zip(("i-1", "i-2", "i-3"), loads, strict=True))).ids()) == slept


def test_a_spare_is_kept_while_the_others_are_full_and_sleeps_when_they_are_not() -> None:
    two = fleet(own("i-1"), own("i-2"), concurrency=Concurrency(soft=5))
    assert Facts(two, {"i-1": Carried(requests=5)}).why() == {"i-1": "requests in flight", "i-2": "the app's one spare"}
    assert Facts(two, {"i-1": Carried(requests=2, streams=3)}).ids() == []
    assert Facts(two, {"i-1": Carried(requests=4)}).ids() == ["i-2"]


def test_parked_streams_need_no_spare() -> None:
    two = fleet(own("i-1"), own("i-2"), idle_streams=IdleStreams.PARK)
    assert Facts(two, {"i-1": Carried(streams=100), "i-2": SOME}).ids() == ["i-1"]
    assert Facts(two, {"i-1": FULL, "i-2": NOTHING}).ids() == []


def test_min_running_is_over_the_whole_app() -> None:
    instances = own("i-1", region="iad"), own("i-2", region="fra"), own("i-3", region="nrt")
    idle = {"i-1": Carried(idle_s=300.0), "i-2": Carried(idle_s=400.0), "i-3": Carried(idle_s=500.0)}
    slept = {least: Facts(fleet(*instances, min_running=least), idle).ids() for least in range(5)}
    assert slept == {0: ["i-3", "i-2", "i-1"], 1: ["i-3", "i-2"], 2: ["i-3"], 3: [], 4: []}


@pytest.mark.parametrize("flaw", [{"cordoned": True}, {"healthy": False}, {"state": State.STARTING}])
def test_min_running_counts_what_can_serve(flaw: dict[str, Any]) -> None:
    facts = Facts(fleet(own("i-1"), own("i-2", **flaw), min_running=1), {"i-2": SOME})
    assert (facts.ids(), facts.why()["i-1"]) == ([], "min_running")


def test_plain_addresses_count_as_running() -> None:
    two = own("i-1"), own("i-2", startable=False)
    assert Facts(fleet(*two, min_running=1)).ids() == ["i-1"]
    assert Facts(fleet(*two), {"i-2": FULL}).why()["i-1"] == "the app's one spare"


def test_what_is_cordoned_is_left_alone_and_is_no_room() -> None:
    two = own("i-1"), own("i-2", cordoned=True)
    assert Facts(fleet(*two)).ids() == ["i-1"]
    assert Facts(fleet(*two), {"i-1": FULL}).ids() == []


def test_what_is_unhealthy_and_idle_goes_first_and_is_nobodys_room() -> None:
    instances = own("i-1"), own("i-2"), own("i-3", healthy=False)
    idle = {"i-3": Carried(idle_s=300.0)}
    assert Facts(fleet(*instances), idle).ids() == ["i-3"]
    assert Facts(fleet(*instances, min_running=2), idle).ids() == ["i-3"]
    assert Facts(fleet(*instances), {**idle, "i-1": FULL, "i-2": FULL}).ids() == ["i-3"]
    assert Facts(fleet(*instances), {"i-1": FULL, "i-3": SOME}).why() == {
        "i-1": "requests in flight",
        "i-2": "the app's one spare",
        "i-3": "requests in flight",
    }


# --- agreed --------------------------------------------------------------------------------------------

TOKEN = "0123456789abcdef"
KNOWS = Carried(sleep=TOKEN)


def prepared(state: State = State.STOPPING, sleep: str = TOKEN) -> Instance:
    return own(state=state, address=None, sleep=sleep)


def says(carried: Carried, key: tuple[str, str] = ("tools", "i-1")) -> Said:
    return Said("gw", "ab", {key: carried})


STOP = fleet().app
SUSPEND = fleet(auto_stop=AutoStop.SUSPEND).app


def test_all_gateways_must_agree() -> None:
    assert agreed(STOP, prepared(), [says(KNOWS)])
    assert agreed(STOP, prepared(), [says(KNOWS), says(KNOWS)])
    assert agreed(STOP, prepared(), iter([says(KNOWS)]))


@pytest.mark.parametrize(
    "other",
    [
        None,
        Said("gw", "ab"),
        says(KNOWS, ("tools", "i-2")),
        says(KNOWS, ("other", "i-1")),
        says(KNOWS._replace(sleep="")),
        says(KNOWS._replace(sleep="fedcba9876543210")),
        says(KNOWS._replace(requests=1)),
        says(KNOWS._replace(streams=1)),
        says(KNOWS._replace(sessions=1)),
    ],
)
def test_one_that_does_not_agree_is_enough(other: Said | None) -> None:
    assert not agreed(STOP, prepared(), [says(KNOWS), other])


def test_nobody_and_no_token_are_no_agreement() -> None:
    assert not agreed(STOP, prepared(), [])
    assert not agreed(STOP, prepared(sleep=""), [says(NOTHING)])


@pytest.mark.parametrize(
    ("app", "state", "carried", "agrees"),
    [
        (SUSPEND, State.SUSPENDING, KNOWS._replace(sessions=1), True),
        # Its agent cannot suspend it.
        (SUSPEND, State.STOPPING, KNOWS._replace(sessions=1), False),
        (SUSPEND, State.SUSPENDING, KNOWS._replace(streams=1), False),
        (fleet(sessions_survive_stop=True).app, State.STOPPING, KNOWS._replace(sessions=1), True),
        (fleet(idle_streams=IdleStreams.PARK).app, State.STOPPING, KNOWS._replace(streams=1), True),
        (fleet(idle_streams=IdleStreams.PARK).app, State.STOPPING, KNOWS._replace(requests=1), False),
        # Used since it was chosen, and done: nothing of it would be lost.
        (STOP, State.STOPPING, KNOWS._replace(idle_s=0.1), True),
    ],
)
def test_what_a_sleep_would_end_holds_it_up(app: Any, state: State, carried: Carried, agrees: bool) -> None:
    assert agreed(app, prepared(state), [says(carried)]) is agrees
