"""What holds for any fleet: nothing that is needed sleeps, enough is left, and more load never makes more sleep."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.model import AppTable, AutoStop, Concurrency, IdleStreams, Instance, State
from gateway.core.presence import NEVER_S, NOTHING, Carried, Lease
from tests.core.builders import table
from tests.core.fleets import Facts, fleet, own

IDS = [f"i-{number}" for number in range(7)]
LOADS = st.builds(
    Carried,
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0.0, 299.0, 300.0, 900.0, NEVER_S]),
)
SETTINGS = st.fixed_dictionaries(
    {
        "auto_stop": st.sampled_from(AutoStop),
        "idle_streams": st.sampled_from(IdleStreams),
        "sessions_survive_stop": st.booleans(),
        "auto_start": st.sampled_from([True, True, True, False]),
        "min_running": st.sampled_from([0, 0, 1, 2, 3]),
        "concurrency": st.builds(Concurrency, soft=st.sampled_from([1, 2, 3])),
    }
)
USUALLY = st.sampled_from([True, True, True, True, False])
SELDOM = USUALLY.map(lambda usual: not usual)
ONES = st.fixed_dictionaries(
    {
        "region": st.sampled_from(["iad", "fra", "nrt"]),
        "state": st.sampled_from([State.STARTED] * 6 + [State.STOPPED, State.STOPPING]),
        "cordoned": SELDOM,
        "healthy": USUALLY,
        "held_down": SELDOM,
        "startable": USUALLY,
    }
)
LEASES = st.lists(st.builds(Lease, st.sampled_from(["tools", "x"]), st.sampled_from(IDS), st.just("job"), st.just(9.0)))


@st.composite
def fleets(draw: st.DrawFn) -> Facts:
    ids = IDS[: draw(st.integers(0, len(IDS)))]
    return Facts(
        fleet(*(own(id, **draw(ONES)) for id in ids), **draw(SETTINGS)) if ids else table(**draw(SETTINGS)),
        {id: draw(LOADS) for id in ids if draw(st.booleans())},
        draw(LEASES),
        {id: draw(st.sampled_from([0.0, 60.0, 1000.0])) for id in ids},
        draw(st.sampled_from([NEVER_S, NEVER_S, 500.0])),
    )


def serving(facts: Facts) -> list[Instance]:
    return [one for one in facts.table.instances.values() if one.running and one.healthy and not one.cordoned]


@given(fleets())
def test_nothing_that_is_needed_ever_sleeps(facts: Facts) -> None:
    app = facts.table.app
    for one, rest in facts.choose():
        carried = facts.carried.get(one.id, NOTHING)
        assert rest is app.auto_stop is not AutoStop.OFF
        assert app.auto_start
        assert one.running
        assert one.startable
        assert not one.held_down
        assert not one.cordoned
        assert not carried.requests
        assert not carried.streams or app.idle_streams is IdleStreams.PARK
        assert not carried.sessions or app.sessions_survive_stop or rest is AutoStop.SUSPEND
        assert carried.idle_s >= app.idle_after_s
        assert facts.up_s[one.id] >= app.idle_grace_s
        assert ("tools", one.id) not in {lease[:2] for lease in facts.leases}


@given(fleets())
def test_a_pass_takes_one_per_region_and_leaves_min_running(facts: Facts) -> None:
    slept = [sleep.instance for sleep in facts.choose()]
    assert max(Counter(one.region for one in slept).values(), default=0) <= 1
    before = serving(facts)
    left = [one for one in before if one not in slept]
    assert len(left) >= min(facts.table.app.min_running, len(before))


@given(fleets())
def test_while_one_is_full_another_has_room(facts: Facts) -> None:
    app = facts.table.app

    def is_full(one: Instance) -> bool:
        carried = facts.carried.get(one.id, NOTHING)
        streams = carried.streams if app.idle_streams is IdleStreams.COUNT else 0
        return carried.requests + streams >= app.concurrency.soft

    left = [one for one in serving(facts) if one not in [sleep.instance for sleep in facts.choose()]]
    for region, ones in itertools.groupby(sorted(left, key=lambda one: one.region), key=lambda one: one.region):
        still = list(ones)
        had = [one for one in serving(facts) if one.region == region]
        assert not all(map(is_full, still)) or all(map(is_full, had))


@given(fleets(), st.data())
def test_more_load_never_makes_more_sleep(facts: Facts, data: st.DataObject) -> None:
    assume(facts.table.instances)
    id = data.draw(st.sampled_from(sorted(facts.table.instances)))
    was, more = facts.carried.get(id, NOTHING), data.draw(LOADS)
    now = Carried(
        was.requests + more.requests,
        was.streams + more.streams,
        was.sessions + more.sessions,
        min(was.idle_s, more.idle_s),
    )
    lease = data.draw(st.sampled_from([(), (Lease("tools", id, "more", 5.0),)]))
    busier = replace(facts, carried={**facts.carried, id: now}, leases=[*facts.leases, *lease])
    assert len(busier.ids()) <= len(facts.ids())


@given(fleets(), st.randoms())
def test_the_order_of_what_is_given_does_not_matter(facts: Facts, rng: Any) -> None:
    instances, leases = list(facts.table.instances.items()), list(facts.leases)
    carried = list(facts.carried.items())
    for mixed in (instances, leases, carried):
        rng.shuffle(mixed)
    other = replace(facts, table=replace(facts.table, instances=dict(instances)), leases=leases, carried=dict(carried))
    assert other.choose() == facts.choose() == facts.choose()
    assert other.why() == facts.why()


@given(fleets())
def test_something_sleeps_as_long_as_not_everything_has_a_reason(facts: Facts) -> None:
    why = facts.why()
    assert set(why) == {id for id, one in facts.table.instances.items() if one.running}
    assert bool(facts.ids()) == (None in why.values())
    assert all(why[id] is None for id in facts.ids())


@given(fleets())
def test_pass_by_pass_all_that_may_sleep_does(facts: Facts) -> None:
    may = {id for id, why in facts.why().items() if why in (None, "the app's one spare", "min_running")}
    for _ in range(len(IDS) + 1):
        if not (slept := facts.choose()):
            break
        instances = dict(facts.table.instances)
        for one, _ in slept:
            assert one.id in may
            instances[one.id] = replace(one, state=State.STOPPED, address=None)
        facts = replace(facts, table=_again(facts.table, instances))
    assert not facts.choose()
    if not facts.carried and len(serving(facts)) > facts.table.app.min_running:
        assert all(why not in (None, "the app's one spare", "min_running") for why in facts.why().values())


def _again(before: AppTable, instances: Mapping[str, Instance]) -> AppTable:
    placeable = tuple(one for one in instances.values() if one.running and one.healthy and not one.cordoned)
    return replace(before, instances=instances, placeable=placeable)
