"""Pins bind, wishes fail over, limits place: each rule, its order, and what a lost instance is answered with."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given

from gateway.core.decide import decide
from gateway.core.decision import Ask, Decision, Forward, Refuse, Wait, Wake
from gateway.core.model import AppTable, Concurrency, Instance, Pin, Rule, State
from gateway.core.problems import TABLE, Code
from tests.core.asks import (
    ASKS,
    INITIALIZE,
    PLAIN,
    SESSION,
    STATE,
    STREAM_POST,
    TABLES,
    TASK,
    VIEWS,
    chosen,
)
from tests.core.builders import Seen, instance, table

IDLE = Seen()
PIN = Pin("i-1", "k3j9")
LIMITED = Concurrency(soft=2, hard=4)

I1, I2, I3 = instance("i-1"), instance("i-2"), instance("i-3")


def asleep(id: str = "i-1", state: State = State.STOPPED, **more: Any) -> Instance:
    more.setdefault("startable", True)
    return instance(id, state=state, **more)


def session(**more: Any) -> Ask:
    return Ask(SESSION, PIN, **more)


def refused(decision: Decision) -> Code:
    assert isinstance(decision, Refuse), decision
    return decision.problem.code


class TestPinned:
    def test_a_running_instance_gets_its_session(self) -> None:
        assert decide(table(I1, I2), session(), IDLE) == Forward(I1, Rule.SEALED)
        assert decide(table(I1, I2), session(pin_rule=Rule.STORED), IDLE) == Forward(I1, Rule.STORED)

    @pytest.mark.parametrize("state", [{"cordoned": True}, {"healthy": False}, {"held_down": True}, {"region": "far"}])
    def test_what_keeps_new_sessions_away_moves_no_old_one(self, state: dict[str, Any]) -> None:
        mine = instance("i-1", **state)
        view = Seen(loads={"i-1": 10**6}, suspects=frozenset({"i-1"}))
        assert decide(table(mine, I2), session(), view) == Forward(mine, Rule.SEALED)

    def test_wishes_and_keys_do_not_move_it(self) -> None:
        ask = session(cookie=Pin("i-2", "k3j9"), prefer="i-2", key=b"k")
        assert decide(table(I1, I2), ask, IDLE) == Forward(I1, Rule.SEALED)

    def test_at_the_hard_limit_it_waits_for_its_own_slot(self) -> None:
        full = Seen(hard={"i-1": 4})
        assert decide(table(I1, I2, concurrency=LIMITED), session(), full) == Wait(Rule.SEALED, I1)
        assert decide(table(I1, I2, concurrency=LIMITED), session(), Seen(hard={"i-1": 3})) == Forward(I1, Rule.SEALED)

    def test_another_that_was_tried_does_not_matter(self) -> None:
        assert decide(table(I1, I2), session(exclude=frozenset({"i-2"})), IDLE) == Forward(I1, Rule.SEALED)

    def test_at_the_hard_limit_it_waits_after_another_was_tried(self) -> None:
        ask = session(exclude=frozenset({"i-2"}))
        assert decide(table(I1, concurrency=LIMITED), ask, Seen(hard={"i-1": 4})) == Wait(Rule.SEALED, I1)

    def test_unreachable_is_not_gone(self) -> None:
        decision = decide(table(I1, I2), session(exclude=frozenset({"i-1"})), IDLE)
        assert refused(decision) is Code.PS07
        assert isinstance(decision, Refuse)
        assert decision.problem.retry_after_s
        assert TABLE[Code.PS07].status == 503

    @pytest.mark.parametrize("state", [State.SUSPENDED, State.SUSPENDING, State.STARTING, State.STOPPING])
    def test_asleep_with_its_memory_it_is_woken(self, state: State) -> None:
        mine = asleep(state=state)
        assert decide(table(mine, I2), session(), IDLE) == Wake(mine, Rule.SEALED)

    def test_cordoned_and_suspended_it_is_woken(self) -> None:
        mine = asleep(state=State.SUSPENDED, cordoned=True)
        assert decide(table(mine, I2), session(), IDLE) == Wake(mine, Rule.SEALED)

    def test_starting_by_itself_it_is_waited_for(self) -> None:
        mine = asleep(state=State.STARTING, startable=False)
        assert decide(table(mine), session(), IDLE) == Wake(mine, Rule.SEALED)

    def test_started_without_an_address_it_is_waited_for(self) -> None:
        mine = instance("i-1", address=None)
        assert decide(table(mine), session(), IDLE) == Wake(mine, Rule.SEALED)

    @pytest.mark.parametrize("state", [State.STOPPED, State.FAILED, State.CREATED])
    def test_a_process_that_ended_took_its_sessions_along(self, state: State) -> None:
        assert refused(decide(table(asleep(state=state), I2), session(), IDLE)) is Code.PS02

    @pytest.mark.parametrize("state", list(State))
    def test_another_incarnation_has_lost_its_memory(self, state: State) -> None:
        other = instance("i-1", state=state, incarnation="zzzz", startable=True)
        assert refused(decide(table(other, I2), session(), IDLE)) is Code.PS02

    @pytest.mark.parametrize("state", list(State))
    def test_a_life_that_is_not_known_here_yet_is_waited_for(self, state: State) -> None:
        behind = instance("i-1", state=state, incarnation="k3j8", startable=True)
        assert decide(table(behind, I2), session(), IDLE) == Wait(Rule.SEALED, behind)
        assert decide(table(behind, I2), session(force="i-1"), IDLE) == Wait(Rule.SEALED, behind)

    def test_a_life_not_known_here_whose_instance_was_tried_is_unreachable(self) -> None:
        behind = instance("i-1", incarnation="k3j8", startable=True)
        assert refused(decide(table(behind), session(exclude=frozenset({"i-1"})), IDLE)) is Code.PS07

    def test_lives_of_plain_addresses_do_not_sort(self) -> None:
        assert refused(decide(table(instance("i-1", incarnation="k3j8"), I2), session(), IDLE)) is Code.PS02

    def test_an_instance_that_is_no_more_is_gone(self) -> None:
        decision = decide(table(I2), session(), IDLE)
        assert refused(decision) is Code.PS02
        assert isinstance(decision, Refuse)
        assert decision.problem.retry_after_s is None

    @pytest.mark.parametrize(
        ("mine", "settings"),
        [
            (asleep(state=State.SUSPENDED, held_down=True), {}),
            (asleep(state=State.SUSPENDED, startable=False), {}),
            (asleep(state=State.SUSPENDED), {"auto_start": False}),
            (asleep(state=State.STOPPING, held_down=True), {}),
        ],
    )
    def test_what_may_not_be_woken_may_come_back(self, mine: Instance, settings: dict[str, Any]) -> None:
        decision = decide(table(mine, I2, **settings), session(), IDLE)
        assert refused(decision) is Code.PM08
        assert isinstance(decision, Refuse)
        assert decision.problem.retry_after_s

    @pytest.mark.parametrize("state", [state for state in State if state is not State.STARTED])
    def test_sessions_that_survive_a_stop_wake_their_instance(self, state: State) -> None:
        mine = asleep(state=state, incarnation="zzzz")
        assert decide(table(mine, sessions_survive_stop=True), session(), IDLE) == Wake(mine, Rule.SEALED)

    def test_sessions_that_survive_a_stop_go_to_the_next_life(self) -> None:
        mine = instance("i-1", incarnation="zzzz")
        assert decide(table(mine, sessions_survive_stop=True), session(), IDLE) == Forward(mine, Rule.SEALED)
        assert refused(decide(table(I2, sessions_survive_stop=True), session(), IDLE)) is Code.PS02


class TestOtherPins:
    def test_a_2024_post_is_answered_for_its_stream(self) -> None:
        assert refused(decide(table(I2), Ask(STREAM_POST, PIN), IDLE)) is Code.PS04

    def test_a_lost_task_is_answered_as_a_server_would(self) -> None:
        assert refused(decide(table(I2), Ask(TASK, PIN, Rule.STORED, key=b"k"), IDLE)) is Code.PS06

    def test_a_state_goes_to_its_maker_while_that_lives(self) -> None:
        ask = Ask(STATE, PIN, Rule.STORED, key=b"k")
        assert decide(table(I1, I2), ask, IDLE) == Forward(I1, Rule.STORED)
        mine = asleep(state=State.SUSPENDED)
        assert decide(table(mine, I2), ask, IDLE) == Wake(mine, Rule.STORED)

    def test_a_state_whose_maker_is_gone_goes_by_its_key(self) -> None:
        ask = Ask(STATE, PIN, Rule.STORED, key=b"k")
        assert decide(table(I2), ask, IDLE) == Forward(I2, Rule.HASH)
        assert decide(table(asleep(), I2), ask, Seen(order=("i-2", "i-1"))) == Forward(I2, Rule.HASH)


class TestForced:
    def test_only_that_instance(self) -> None:
        assert decide(table(I1, I2), Ask(PLAIN, force="i-2", key=b"k"), IDLE) == Forward(I2, Rule.FORCE)

    def test_in_whatever_shape_it_is(self) -> None:
        poor = instance("i-2", cordoned=True, healthy=False)
        view = Seen(loads={"i-2": 99}, suspects=frozenset({"i-2"}))
        assert decide(table(I1, poor), Ask(PLAIN, force="i-2"), view) == Forward(poor, Rule.FORCE)

    def test_asleep_it_is_woken(self) -> None:
        mine = asleep("i-2")
        assert decide(table(I1, mine), Ask(PLAIN, force="i-2"), IDLE) == Wake(mine, Rule.FORCE)

    def test_full_it_is_waited_for(self) -> None:
        ask = Ask(PLAIN, force="i-2")
        assert decide(table(I1, I2, concurrency=LIMITED), ask, Seen(hard={"i-2": 4})) == Wait(Rule.FORCE, I2)

    def test_never_another(self) -> None:
        assert refused(decide(table(I1), Ask(PLAIN, force="i-2"), IDLE)) is Code.PR02
        assert refused(decide(table(I1, asleep("i-2", startable=False)), Ask(PLAIN, force="i-2"), IDLE)) is Code.PM08
        tried = Ask(PLAIN, force="i-2", exclude=frozenset({"i-2"}))
        assert refused(decide(table(I1, I2), tried, IDLE)) is Code.PS07

    def test_a_session_is_not_taken_to_a_stranger(self) -> None:
        assert refused(decide(table(I1, I2), session(force="i-2"), IDLE)) is Code.PS05
        assert refused(decide(table(I2), session(force="i-2"), IDLE)) is Code.PS05
        assert refused(decide(table(I1), session(force="i-9"), IDLE)) is Code.PS05

    def test_a_session_may_name_its_own_instance(self) -> None:
        assert decide(table(I1, I2), session(force="i-1"), IDLE) == Forward(I1, Rule.SEALED)
        assert refused(decide(table(asleep("i-1")), session(force="i-1"), IDLE)) is Code.PS02

    def test_a_state_may_be_taken_anywhere(self) -> None:
        assert decide(table(I1, I2), Ask(STATE, PIN, Rule.STORED, force="i-2"), IDLE) == Forward(I2, Rule.FORCE)


class TestWished:
    @pytest.mark.parametrize(("wish", "rule"), [({"cookie": PIN}, Rule.COOKIE), ({"prefer": "i-1"}, Rule.PREFER)])
    def test_a_fit_instance_is_taken(self, wish: dict[str, Any], rule: Rule) -> None:
        view = Seen(loads={"i-1": 3})
        assert decide(table(I1, I2, concurrency=LIMITED), Ask(PLAIN, **wish), view) == Forward(I1, rule)

    def test_the_cookie_comes_first(self) -> None:
        ask = Ask(PLAIN, cookie=PIN, prefer="i-2", key=b"k")
        assert decide(table(I1, I2), ask, IDLE) == Forward(I1, Rule.COOKIE)
        assert decide(table(I2, I3), ask, IDLE) == Forward(I2, Rule.PREFER)
        assert decide(table(I3), ask, IDLE) == Forward(I3, Rule.HASH)

    @pytest.mark.parametrize("wish", [{"cookie": PIN}, {"prefer": "i-1"}])
    @pytest.mark.parametrize(
        ("first", "view", "exclude"),
        [
            (instance("i-1", healthy=False), IDLE, frozenset[str]()),
            (I1, Seen(suspects=frozenset({"i-1"})), frozenset[str]()),
            (I1, Seen(hard={"i-1": 4}), frozenset[str]()),
            (I1, IDLE, frozenset({"i-1"})),
            (asleep(startable=False), IDLE, frozenset[str]()),
            (asleep(state=State.FAILED), IDLE, frozenset[str]()),
        ],
    )
    def test_an_unfit_one_is_passed_over(
        self, wish: dict[str, Any], first: Instance, view: Seen, exclude: frozenset[str]
    ) -> None:
        ask = Ask(PLAIN, exclude=exclude, **wish)
        assert decide(table(first, I2, concurrency=LIMITED), ask, view) == Forward(I2, Rule.LEAST_LOADED)

    @pytest.mark.parametrize(("wish", "rule"), [({"cookie": PIN}, Rule.COOKIE), ({"prefer": "i-1"}, Rule.PREFER)])
    def test_a_sleeping_one_is_woken(self, wish: dict[str, Any], rule: Rule) -> None:
        mine = asleep()
        assert decide(table(mine, I2), Ask(PLAIN, **wish), IDLE) == Wake(mine, rule)
        assert decide(table(mine, I2, auto_start=False), Ask(PLAIN, **wish), IDLE) == Forward(I2, Rule.LEAST_LOADED)

    def test_a_cordon_keeps_what_lives_there_and_nothing_else(self) -> None:
        cordoned = instance("i-1", cordoned=True)
        assert decide(table(cordoned, I2), Ask(PLAIN, cookie=PIN), IDLE) == Forward(cordoned, Rule.COOKIE)
        for ask in (Ask(INITIALIZE, cookie=PIN), Ask(PLAIN, prefer="i-1")):
            assert decide(table(cordoned, I2), ask, IDLE) == Forward(I2, Rule.LEAST_LOADED)


class TestHashed:
    def test_the_keys_own_order_decides(self) -> None:
        view = Seen(order=("i-3", "i-1", "i-2"), loads={"i-3": 50})
        assert decide(table(I1, I2, I3), Ask(PLAIN, key=b"k"), view) == Forward(I3, Rule.HASH)
        assert view.asked_for == [b"k"]

    @pytest.mark.parametrize(
        ("view", "exclude"),
        [
            (Seen(order=("i-3", "i-1"), hard={"i-3": 4}), frozenset[str]()),
            (Seen(order=("i-3", "i-1"), suspects=frozenset({"i-3"})), frozenset[str]()),
            (Seen(order=("i-3", "i-1")), frozenset({"i-3"})),
        ],
    )
    def test_the_next_one_takes_over(self, view: Seen, exclude: frozenset[str]) -> None:
        ask = Ask(PLAIN, key=b"k", exclude=exclude)
        assert decide(table(I1, I3, concurrency=LIMITED), ask, view) == Forward(I1, Rule.HASH)

    def test_a_sleeping_one_is_woken_in_its_turn(self) -> None:
        mine = asleep("i-3")
        view = Seen(order=("i-3", "i-1"))
        assert decide(table(I1, mine), Ask(PLAIN, key=b"k"), view) == Wake(mine, Rule.HASH)
        assert decide(table(I1, mine, auto_start=False), Ask(PLAIN, key=b"k"), view) == Forward(I1, Rule.HASH)

    def test_what_failed_to_start_comes_last(self) -> None:
        failed = asleep("i-3", State.FAILED)
        view = Seen(order=("i-3", "i-1"))
        assert decide(table(I1, failed), Ask(PLAIN, key=b"k"), view) == Forward(I1, Rule.HASH)
        assert decide(table(failed), Ask(PLAIN, key=b"k"), Seen()) == Wake(failed, Rule.HASH)

    def test_suspects_are_better_than_nothing_in_order(self) -> None:
        view = Seen(order=("i-3", "i-1"), suspects=frozenset({"i-1", "i-3"}))
        assert decide(table(I1, I3), Ask(PLAIN, key=b"k"), view) == Forward(I3, Rule.HASH)

    def test_all_full_means_waiting(self) -> None:
        view = Seen(hard={"i-1": 4, "i-2": 9})
        assert decide(table(I1, I2, concurrency=LIMITED), Ask(PLAIN, key=b"k"), view) == Wait(Rule.HASH)

    def test_nothing_left(self) -> None:
        assert refused(decide(table(), Ask(PLAIN, key=b"k"), IDLE)) is Code.PR01
        tried = Ask(PLAIN, key=b"k", exclude=frozenset({"i-1"}))
        assert refused(decide(table(I1), tried, IDLE)) is Code.PR03


class TestLeastLoaded:
    def test_the_least_loaded_of_the_own_region_below_soft(self) -> None:
        far = instance("i-0", region="far")
        view = Seen(loads={"i-1": 9, "i-2": 3})
        assert decide(table(far, I1, I2), Ask(PLAIN), view) == Forward(I2, Rule.LEAST_LOADED)

    def test_ties_are_settled_by_turn_and_then_by_id(self) -> None:
        assert decide(table(I1, I2, I3), Ask(PLAIN), IDLE) == Forward(I1, Rule.LEAST_LOADED)
        view = Seen(turns={"i-1": 8, "i-2": 7, "i-3": 9})
        assert decide(table(I1, I2, I3), Ask(PLAIN), view) == Forward(I2, Rule.LEAST_LOADED)
        heavier = Seen(loads={"i-2": 1}, turns={"i-1": 8, "i-2": 7, "i-3": 9})
        assert decide(table(I1, I2, I3), Ask(PLAIN), heavier) == Forward(I1, Rule.LEAST_LOADED)

    def test_another_region_below_soft_is_better_than_a_full_one_here(self) -> None:
        far = instance("i-9", region="far")
        view = Seen(loads={"i-1": 2, "i-9": 1})
        assert decide(table(I1, far, concurrency=LIMITED), Ask(PLAIN), view) == Forward(far, Rule.LEAST_LOADED)

    def test_all_at_soft_wake_one_more(self) -> None:
        more = asleep("i-2")
        view = Seen(loads={"i-1": 2})
        assert decide(table(I1, more, concurrency=LIMITED), Ask(PLAIN), view) == Wake(more, Rule.LEAST_LOADED)
        below = Seen(loads={"i-1": 1})
        assert decide(table(I1, more, concurrency=LIMITED), Ask(PLAIN), below) == Forward(I1, Rule.LEAST_LOADED)

    def test_all_at_soft_and_none_asleep_fill_up_to_hard(self) -> None:
        view = Seen(loads={"i-1": 3, "i-2": 2}, hard={"i-1": 3, "i-2": 2})
        assert decide(table(I1, I2, concurrency=LIMITED), Ask(PLAIN), view) == Forward(I2, Rule.LEAST_LOADED)

    def test_at_soft_load_counts_more_than_region(self) -> None:
        far = instance("i-9", region="far")
        view = Seen(loads={"i-1": 3, "i-9": 2})
        assert decide(table(I1, far, concurrency=LIMITED), Ask(PLAIN), view) == Forward(far, Rule.LEAST_LOADED)

    def test_at_hard_one_more_is_woken_else_waited(self) -> None:
        view = Seen(loads={"i-1": 4}, hard={"i-1": 4})
        more = asleep("i-2")
        assert decide(table(I1, more, concurrency=LIMITED), Ask(PLAIN), view) == Wake(more, Rule.LEAST_LOADED)
        assert decide(table(I1, concurrency=LIMITED), Ask(PLAIN), view) == Wait(Rule.LEAST_LOADED)

    def test_streams_above_hard_do_not_queue(self) -> None:
        # Under `requests` an open stream is load for placement but does not count against `hard`.
        view = Seen(loads={"i-1": 100}, hard={"i-1": 0})
        assert decide(table(I1, concurrency=LIMITED), Ask(PLAIN), view) == Forward(I1, Rule.LEAST_LOADED)

    def test_none_running_wakes_the_first_of_the_own_region(self) -> None:
        far, near, next_ = asleep("i-0", region="far"), asleep("i-1"), asleep("i-2")
        assert decide(table(far, near, next_), Ask(PLAIN), IDLE) == Wake(near, Rule.LEAST_LOADED)
        assert decide(table(far), Ask(PLAIN), IDLE) == Wake(far, Rule.LEAST_LOADED)

    def test_what_failed_is_started_last(self) -> None:
        failed, sound = asleep("i-1", State.FAILED), asleep("i-2", region="far")
        assert decide(table(failed, sound), Ask(PLAIN), IDLE) == Wake(sound, Rule.LEAST_LOADED)
        assert decide(table(failed), Ask(PLAIN), IDLE) == Wake(failed, Rule.LEAST_LOADED)

    def test_suspects_come_after_all_others(self) -> None:
        view = Seen(loads={"i-2": 50}, suspects=frozenset({"i-1"}))
        assert decide(table(I1, I2), Ask(PLAIN), view) == Forward(I2, Rule.LEAST_LOADED)
        more = asleep("i-3")
        assert decide(table(I1, more), Ask(PLAIN), view) == Wake(more, Rule.LEAST_LOADED)
        assert decide(table(I1), Ask(PLAIN), view) == Forward(I1, Rule.LEAST_LOADED)

    def test_what_was_tried_is_left_out(self) -> None:
        tried = Ask(PLAIN, exclude=frozenset({"i-1"}))
        assert decide(table(I1, I2), tried, IDLE) == Forward(I2, Rule.LEAST_LOADED)
        assert refused(decide(table(I1), tried, IDLE)) is Code.PR03
        assert refused(decide(table(asleep()), tried, IDLE)) is Code.PR03

    @pytest.mark.parametrize(
        ("of_app", "settings"),
        [
            ((), {}),
            ((instance("i-1", healthy=False),), {}),
            ((instance("i-1", cordoned=True),), {}),
            ((asleep(held_down=True),), {}),
            ((asleep(),), {"auto_start": False}),
        ],
    )
    def test_nowhere_to_go(self, of_app: tuple[Instance, ...], settings: dict[str, Any]) -> None:
        decision = decide(table(*of_app, **settings), Ask(PLAIN), IDLE)
        assert refused(decision) is Code.PR01
        assert isinstance(decision, Refuse)
        assert decision.problem.retry_after_s


# --- what holds for every table ------------------------------------------------------------------


def is_ruled_out(of_app: AppTable, ask: Ask) -> bool:
    """Whether the forced instance is in a region that the request does not want; a session's own is always wanted."""
    one = of_app.instances.get(ask.force)
    if one is None or not ask.regions or (ask.pin is not None and ask.intent is not STATE):
        return False
    return not any(place is None or one.region in place for place in ask.regions)


@given(TABLES, ASKS, VIEWS)
def test_decisions_are_sound(of_app: AppTable, ask: Ask, view: Seen) -> None:
    decision = decide(of_app, ask, view)
    assert decision == decide(of_app, ask, view)
    one = chosen(decision)
    if one is not None:
        assert one is of_app.instances[one.id]
        assert one.id not in ask.exclude
    if isinstance(decision, Forward):
        assert decision.instance.running
        hard = of_app.app.concurrency.hard
        assert hard is None or view.hard_load(decision.instance) < hard
    if isinstance(decision, Wake):
        assert not decision.instance.running
        assert decision.instance.state in (State.STARTING, State.STARTED) or (
            decision.instance.wakeable and of_app.app.auto_start
        )
    if isinstance(decision, Refuse):
        # 404 only where it can be proved: everything else may come back, but for an instance into another region.
        may_come_back = TABLE[decision.problem.code].status == 503 and not is_ruled_out(of_app, ask)
        assert may_come_back == (decision.problem.retry_after_s is not None)


@given(TABLES, ASKS.filter(lambda ask: ask.pin is not None and ask.intent is not STATE), VIEWS)
def test_a_pinned_request_reaches_its_own_instance_or_none(of_app: AppTable, ask: Ask, view: Seen) -> None:
    assert ask.pin is not None
    decision = decide(of_app, ask, view)
    one = chosen(decision)
    if one is not None:
        assert one.id == ask.pin.instance
        same = one.incarnation == ask.pin.incarnation or of_app.app.sessions_survive_stop
        # Waiting sends nothing: the life that is waited for is decided upon anew.
        assert same or (isinstance(decision, Wait) and one.startable and ask.pin.incarnation > one.incarnation)
    else:
        assert isinstance(decision, Refuse)


@given(TABLES, ASKS.filter(lambda ask: bool(ask.force)), VIEWS)
def test_a_forced_request_reaches_that_instance_or_none(of_app: AppTable, ask: Ask, view: Seen) -> None:
    decision = decide(of_app, ask, view)
    one = chosen(decision)
    assert (one.id == ask.force) if one is not None else isinstance(decision, Refuse)


@given(TABLES, ASKS, VIEWS)
def test_new_work_is_placed_only_where_it_may_live(of_app: AppTable, ask: Ask, view: Seen) -> None:
    decision = decide(of_app, ask, view)
    if isinstance(decision, Forward) and decision.rule in (Rule.HASH, Rule.LEAST_LOADED, Rule.PREFER):
        assert decision.instance in of_app.placeable


def test_every_order_of_two_idle_instances_gives_the_same_choice() -> None:
    for order in itertools.permutations([I1, I2, I3]):
        by_id = table(*sorted(order, key=lambda one: one.id))
        assert decide(by_id, Ask(INITIALIZE), IDLE) == Forward(I1, Rule.LEAST_LOADED)
