"""Who may replay where, what a target is then asked, and what people are told of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decide import decide
from gateway.core.decision import Ask, Forward, Refuse
from gateway.core.detour import (
    allows,
    back,
    border,
    question,
    told,
)
from gateway.core.model import App, AppTable, Instance, Pin, Rule
from gateway.core.problems import Code, Problem
from gateway.core.replay import CacheOrder, Fallback, Replay, Transform
from tests.core.asks import PLAIN, SESSION, STATE
from tests.core.builders import Seen, instance

IDLE = Seen()
PIN = Pin("u-1", "k3j9", "user", via=True)
GROUPS = {"eu": ("ams", "fra")}
FRA, EU = frozenset({"fra"}), frozenset({"ams", "fra"})


def table_of(app: App, *instances: Instance) -> AppTable:
    own = tuple(replace(one, app=app.name) for one in instances)
    return AppTable(app, {one.id: one for one in own}, own)


ROUTER = App("router", org="acme")
HOME = table_of(ROUTER, instance("r-1", region="fra"), instance("r-2", region="ams"))
USER = table_of(App("user", org="acme"), instance("u-1", region="fra"), instance("u-2", region="syd"))
ISSUER = HOME.instances["r-1"]


def asked(replay: Replay, target: AppTable = USER, **known: Any) -> Ask | Problem:
    return question(replay, PLAIN, ISSUER, target, HOME, GROUPS, **known)


def refused(replay: Replay, target: AppTable = USER, **known: Any) -> Problem:
    problem = asked(replay, target, **known)
    assert isinstance(problem, Problem), problem
    return problem


# --- borders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "allowed"),
    [
        ((), False),
        (("org:acme",), True),
        (("app:router",), True),
        (("acme",), True),
        (("router",), True),
        (("org:router",), False),
        (("app:acme",), False),
        (("org:acm", "app:route", "acme2", "org:", "app:", ""), False),
        (("org:partner", "app:router"), True),
    ],
)
def test_another_org_is_let_in_by_name(sources: tuple[str, ...], allowed: bool) -> None:
    target = App("user", org="other", replay_sources=sources)
    assert allows(target, ROUTER) is allowed


def test_within_an_org_every_app_may_replay() -> None:
    assert allows(App("user", org="acme"), ROUTER)
    assert allows(App("user", org="acme", replay_sources=("app:other",)), ROUTER)
    assert allows(ROUTER, ROUTER)
    assert allows(App("a"), App("b"))


def test_who_lets_in_another_is_not_let_in_by_it() -> None:
    target = App("user", org="other", replay_sources=("org:acme",))
    assert not allows(ROUTER, target)


def test_an_org_and_an_app_of_one_name_are_told_apart_by_their_prefix() -> None:
    # The app `acme` of org `other`, and the app `router` of the org `acme`.
    by_org, by_app, either = (App("t", org="x", replay_sources=(one,)) for one in ("org:acme", "app:acme", "acme"))
    namesake = App("acme", org="other")
    assert [allows(one, ROUTER) for one in (by_org, by_app, either)] == [True, False, True]
    assert [allows(one, namesake) for one in (by_org, by_app, either)] == [False, True, True]


def test_a_border_says_who_is_not_let_in_where() -> None:
    assert border(ROUTER, USER.app, "user") is None
    missing, closed = border(ROUTER, None, "user-9"), border(ROUTER, App("user", org="other"), "user")
    assert missing is not None
    assert closed is not None
    assert (missing.code, missing.app) == (Code.PA04, "router")
    assert missing.message == "the replay names app user-9, which does not exist"
    assert (closed.code, closed.app) == (Code.PA05, "router")
    assert closed.message == "app user takes no replays from app router of org acme"


# --- the question ------------------------------------------------------------------------------------


def test_a_replay_of_an_app_alone_asks_for_any_of_its_instances() -> None:
    assert asked(Replay("user")) == Ask(PLAIN, replayed=Rule.REPLAY)


def test_every_field_becomes_a_part_of_the_question() -> None:
    assert asked(Replay("user", "u-1")) == Ask(PLAIN, force="u-1", replayed=Rule.REPLAY)
    assert asked(Replay("user", prefer_instance="u-1")) == Ask(PLAIN, prefer="u-1", replayed=Rule.REPLAY)
    regions = asked(Replay("user", regions=("eu", "fra", "any", "syd")))
    assert regions == Ask(PLAIN, regions=(EU, FRA, None), replayed=Rule.REPLAY)
    ruled_out = asked(Replay(elsewhere=True), HOME, exclude=frozenset({"r-1"}))
    assert ruled_out == Ask(PLAIN, exclude=frozenset({"r-1"}), replayed=Rule.REPLAY)
    assert asked(Replay("user"), key=b"k") == Ask(PLAIN, key=b"k", replayed=Rule.REPLAY)
    whole = asked(
        Replay("user", "u-1", regions=("eu",), state="x", timeout_s=5.0, fallback=Fallback.FORCE_SELF),
        key=b"k",
        exclude=frozenset({"u-2"}),
    )
    assert whole == Ask(PLAIN, force="u-1", key=b"k", exclude=frozenset({"u-2"}), regions=(EU,), replayed=Rule.REPLAY)


def test_the_kind_of_the_request_stays() -> None:
    for intent in (SESSION, STATE):
        asked = question(Replay("user"), intent, ISSUER, USER, HOME, GROUPS)
        assert isinstance(asked, Ask)
        assert asked.intent is intent


def test_the_sessions_own_instance_is_used_where_the_replay_names_none() -> None:
    for replay in (Replay("user"), Replay("user", regions=("syd",))):
        ask = asked(replay, pin=PIN)
        assert isinstance(ask, Ask)
        assert ask.pin == PIN
    for replay in (Replay("user", "u-2"), Replay("user", prefer_instance="u-2")):
        ask = asked(replay, pin=PIN)
        assert isinstance(ask, Ask)
        assert ask.pin is None
        decision = decide(USER, ask, IDLE)
        assert isinstance(decision, Forward)
        assert (decision.instance.id, decision.rule) == ("u-2", Rule.REPLAY)


def test_an_instance_of_the_issuers_app_beside_another_app_is_a_contradiction() -> None:
    for replay in (Replay("user", "r-2"), Replay("user", prefer_instance="r-2")):
        problem = refused(replay)
        assert (problem.code, problem.app, problem.instance) == (Code.PA03, "router", "r-1")
        assert problem.message == "the replay names app user and an instance of app router"


def test_an_instance_that_both_apps_have_is_the_targets() -> None:
    both = table_of(App("user", org="acme"), instance("r-2"))
    assert asked(Replay("user", "r-2"), both) == Ask(PLAIN, force="r-2", replayed=Rule.REPLAY)


def test_an_instance_of_neither_app_is_an_unknown_one() -> None:
    ask = asked(Replay("user", "x-9"))
    assert isinstance(ask, Ask)
    decision = decide(USER, ask, IDLE)
    assert isinstance(decision, Refuse)
    assert decision.problem.code is Code.PR02
    own = asked(Replay(instance="x-9"), HOME)
    assert isinstance(own, Ask)
    unknown = decide(HOME, own, IDLE)
    assert isinstance(unknown, Refuse)
    assert unknown.problem.code is Code.PR02


def test_a_preferred_instance_of_neither_app_is_not_there() -> None:
    ask = asked(Replay("user", prefer_instance="x-9"))
    assert isinstance(ask, Ask)
    decision = decide(USER, ask, IDLE)
    assert isinstance(decision, Forward)
    assert decision.rule is Rule.LEAST_LOADED


def test_an_instance_may_not_be_ruled_out_and_named() -> None:
    problem = refused(Replay(instance="r-1", elsewhere=True), HOME, exclude=frozenset({"r-1"}))
    assert (problem.code, problem.app, problem.instance) == (Code.PA03, "router", "r-1")
    assert "elsewhere" in problem.message
    other = asked(Replay(instance="r-2", elsewhere=True), HOME, exclude=frozenset({"r-1"}))
    assert other == Ask(PLAIN, force="r-2", exclude=frozenset({"r-1"}), replayed=Rule.REPLAY)
    # A preference that cannot be followed is none.
    assert isinstance(asked(Replay(prefer_instance="r-1", elsewhere=True), HOME, exclude=frozenset({"r-1"})), Ask)


def test_an_instance_must_be_in_one_of_the_regions_beside_it() -> None:
    problem = refused(Replay("user", "u-2", regions=("fra", "eu")))
    assert (problem.code, problem.app, problem.instance) == (Code.PA03, "router", "r-1")
    assert "region" in problem.message
    for regions in (("syd",), ("fra", "syd"), ("fra", "any")):
        assert isinstance(asked(Replay("user", "u-2", regions=regions)), Ask)
    assert isinstance(asked(Replay("user", prefer_instance="u-2", regions=("fra",))), Ask)
    # Where there is no such instance, that is what is said.
    assert isinstance(asked(Replay("user", "x-9", regions=("fra",))), Ask)


def test_the_way_back() -> None:
    assert back(SESSION, ISSUER, Fallback.FORCE_SELF) == Ask(SESSION, force="r-1", replayed=Rule.REPLAY)
    assert back(SESSION, ISSUER, Fallback.PREFER_SELF) == Ask(SESSION, prefer="r-1", replayed=Rule.REPLAY)


# --- what people are told ----------------------------------------------------------------------------


def test_a_replay_is_told_field_by_field() -> None:
    assert told(Replay("user")) == {"app": "user"}
    assert told(
        Replay(
            "user",
            "u-1",
            regions=("fra", "eu"),
            elsewhere=True,
            timeout_s=1.5,
            fallback=Fallback.PREFER_SELF,
            cache=CacheOrder("x.example", b"/u/1", 60.0),
        )
    ) == {
        "app": "user",
        "instance": "u-1",
        "region": "fra,eu",
        "elsewhere": "true",
        "timeout": "1.5s",
        "fallback": "prefer_self",
        "cache": "x.example/u/1/* for 60 s",
    }
    assert told(Replay(prefer_instance="u-1", cache=CacheOrder(invalidate=True))) == {
        "prefer_instance": "u-1",
        "cache": "invalidate",
    }
    assert told(Replay("user", cache=CacheOrder(ttl_s=10.0)))["cache"] == "/* for 10 s"


def test_a_transform_is_told_by_its_names() -> None:
    transform = Transform(b"/secret?x", frozenset({b"cookie", b"accept"}), ((b"X-A", b"hidden"), (b"X-B", b"hidden")))
    assert told(Replay("user", transform=transform)) == {
        "app": "user",
        "transform.path": "given",
        "transform.delete_headers": "accept, cookie",
        "transform.set_headers": "X-A, X-B",
    }
    assert told(Replay("user", transform=Transform())) == {"app": "user"}


@given(st.text("SECRET-", min_size=4, max_size=9), st.booleans())
def test_a_state_and_a_set_value_are_never_told(secret: str, path: bool) -> None:
    value = secret.encode()
    transform = Transform(b"/" + value if path else b"", frozenset(), ((b"X-A", value), (b"X-B", value)))
    text = json.dumps(told(Replay("user", state=secret, transform=transform)))
    assert secret not in text
    assert told(Replay("user", state=""))["state"] == "given"
