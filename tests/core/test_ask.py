"""Tokens are opened, steering is read, and every token that does not hold is the same problem."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ask import Asked, Lookup, LookUpPin, build_ask, key_in, stored_key
from gateway.core.decision import Ask
from gateway.core.model import App, Dialect, Intent, KeyRule, KeySource, Kind, Pin, Rule, SessionIds
from gateway.core.principal import address_key
from gateway.core.problems import Code, Problem, json_body, jsonrpc_body, text_body
from gateway.core.regions import Regions
from gateway.core.seal import Sealer, SealFault, Stream
from tests.core.builders import app, head

SEALER = Sealer([b"the secret of these tests"])
APP = app()
STORED = app(session_ids=SessionIds.STORED)
PIN = Pin("i-1", "k3j9")
ALICE, BOB = b"a" * 16, b"b" * 16
PLAIN = Intent(Kind.PLAIN, Dialect.HTTP)


def ask(of_app: App, intent: Intent, request: Any = None, **known: Any) -> Asked | LookUpPin | Problem:
    known.setdefault("principal", None)
    return build_ask(of_app, intent, request or head(), SEALER, client_ip="10.0.0.7", **known)


def asked(of_app: App, intent: Intent, request: Any = None, **known: Any) -> Asked:
    built = ask(of_app, intent, request, **known)
    assert isinstance(built, Asked), built
    return built


def in_session(token: bytes) -> Intent:
    return Intent(Kind.IN_SESSION, Dialect.SESSION_2025, token)


def modern(kind: Kind, **more: Any) -> Intent:
    return Intent(kind, Dialect.STATELESS_2026, **more)


def test_a_plain_request_asks_nothing_special() -> None:
    assert asked(APP, PLAIN) == Asked(Ask(PLAIN))


def test_a_sealed_session_names_its_instance() -> None:
    intent = in_session(SEALER.seal_session("tools", PIN, b"up-1", ALICE))
    assert asked(APP, intent, principal=ALICE) == Asked(Ask(intent, PIN, Rule.SEALED), b"up-1")


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"unknown",
        SEALER.seal_session("tools", PIN, b"up-1", ALICE),
        SEALER.seal_session("other", PIN, b"up-1", None),
        SEALER.seal_session("tools", PIN, b"up-1", None)[:-1],
        Sealer([b"a secret of somebody else"]).seal_session("tools", PIN, b"up-1", None),
    ],
)
def test_every_other_session_looks_unknown(token: bytes) -> None:
    problem = ask(APP, in_session(token), principal=BOB)
    reference = ask(APP, in_session(b"made-up"), principal=BOB)
    assert isinstance(problem, Problem)
    assert isinstance(reference, Problem)
    assert problem.code is Code.PS01
    assert jsonrpc_body(problem, b"", "r") == jsonrpc_body(reference, b"", "r")
    assert json_body(problem, "r") == json_body(reference, "r")


def test_a_stored_session_is_looked_up_first() -> None:
    intent = in_session(b"up-1")
    lookup = ask(STORED, intent, principal=ALICE)
    assert lookup == LookUpPin(Kind.IN_SESSION, stored_key(STORED, b"up-1", ALICE))
    found = asked(STORED, intent, principal=ALICE, stored=PIN)
    assert found == Asked(Ask(intent, PIN, Rule.STORED), b"up-1")
    missing = ask(STORED, intent, principal=ALICE, stored=Lookup.MISSING)
    assert isinstance(missing, Problem)
    assert missing.code is Code.PS01


def test_stored_sessions_are_bound_by_their_key() -> None:
    assert stored_key(STORED, b"id", ALICE) != stored_key(STORED, b"id", BOB)
    assert stored_key(STORED, b"id", ALICE) != stored_key(STORED, b"id", None)
    assert stored_key(STORED, ALICE + b"id", None) != stored_key(STORED, b"id", ALICE)
    unbound = app(session_ids=SessionIds.STORED, bind_principal=False)
    assert stored_key(unbound, b"id", ALICE) == stored_key(unbound, b"id", None)


def test_a_2024_post_names_its_stream() -> None:
    stream = Stream("boot", 7, strip_prefix=True)
    intent = Intent(Kind.LEGACY_POST, Dialect.SSE_2024, SEALER.seal_stream("tools", PIN, stream, ALICE))
    assert asked(APP, intent, principal=ALICE) == Asked(Ask(intent, PIN, Rule.SEALED), b"", stream)
    foreign, unknown = (
        ask(APP, intent, principal=BOB),
        ask(APP, Intent(Kind.LEGACY_POST, Dialect.SSE_2024, b"x"), principal=BOB),
    )
    assert isinstance(foreign, Problem)
    assert isinstance(unknown, Problem)
    assert foreign.code is Code.PS04
    assert text_body(foreign) == text_body(unknown)


@pytest.mark.parametrize("kind", [Kind.TASK, Kind.STATE])
def test_tasks_and_states_are_looked_up(kind: Kind) -> None:
    intent = modern(kind, token=b"t-1")
    assert ask(APP, intent, principal=ALICE) == LookUpPin(kind, b"t-1")
    assert asked(APP, intent, principal=ALICE, stored=PIN).ask == Ask(intent, PIN, Rule.STORED)


@pytest.mark.parametrize("kind", [Kind.TASK, Kind.STATE])
def test_an_unknown_task_goes_where_its_caller_goes(kind: Kind) -> None:
    # Never a 404: the instance knows what to say to it.
    unknown = asked(APP, modern(kind, token=b"t-1"), principal=ALICE, stored=Lookup.MISSING).ask
    assert unknown.pin is None
    assert unknown.key == asked(APP, modern(Kind.PRINCIPAL), principal=ALICE).ask.key


def test_modern_callers_stay_together_by_credentials_else_by_address() -> None:
    alice = asked(APP, modern(Kind.PRINCIPAL), principal=ALICE).ask.key
    assert alice == b"principal:=" + ALICE
    assert asked(APP, modern(Kind.PRINCIPAL), principal=BOB).ask.key != alice
    assert asked(APP, modern(Kind.PRINCIPAL)).ask.key == address_key("10.0.0.7")


def test_a_key_rule_stands_above_the_principal() -> None:
    assert asked(APP, modern(Kind.PRINCIPAL, key=b"k"), principal=ALICE).ask.key == b"k"


@pytest.mark.parametrize("intent", [PLAIN, modern(Kind.ANYWHERE), Intent(Kind.INITIALIZE, Dialect.SESSION_2025)])
def test_others_have_no_key_of_their_own(intent: Intent) -> None:
    assert asked(APP, intent, principal=ALICE).ask.key == b""


def test_steering_headers_are_read_unless_the_app_says_no() -> None:
    request = head(fly_force_instance_id="i-1", fly_prefer_instance_id="i-2")
    steered = asked(APP, PLAIN, request).ask
    assert (steered.force, steered.prefer) == ("i-1", "i-2")
    ignored = asked(app(steering=False), PLAIN, request).ask
    assert (ignored.force, ignored.prefer) == ("", "")


def test_a_forced_instance_must_be_named() -> None:
    problem = ask(APP, PLAIN, head(fly_force_instance_id=""))
    assert isinstance(problem, Problem)
    assert (problem.code, problem.message) == (Code.PB01, "fly-force-instance-id names nothing")
    assert asked(app(steering=False), PLAIN, head(fly_force_instance_id="")).ask == Ask(PLAIN)
    assert asked(APP, PLAIN, head(fly_prefer_instance_id="")).ask == Ask(PLAIN)


FRA, EU = frozenset({"fra"}), frozenset({"ams", "fra"})
GROUPS = {"eu": ("ams", "fra")}


@pytest.mark.parametrize(
    ("fields", "regions"),
    [
        ({}, ()),
        ({"fly_force_region": "fra"}, (FRA,)),
        ({"fly_force_region": " FRA , eu"}, (FRA, EU)),
        ({"fly_force_region": "eu,any,fra"}, (EU, None)),
        ({"fly_prefer_region": "fra"}, (FRA, None)),
        ({"fly_prefer_region": "fra,eu"}, (FRA, EU, None)),
        ({"fly_force_region": "fra", "fly_prefer_region": "eu"}, (FRA,)),
        ({"fly_force_region": "fra", "fly_prefer_region": "!"}, (FRA,)),
    ],
)
def test_regions_are_read_from_the_clients_headers(fields: dict[str, str], regions: Regions) -> None:
    assert asked(APP, PLAIN, head(**fields), groups=GROUPS).ask == Ask(PLAIN, regions=regions)
    assert asked(app(steering=False), PLAIN, head(**fields), groups=GROUPS).ask.regions == ()


def test_a_preference_that_holds_any_already_asks_for_nothing_else() -> None:
    regions = asked(APP, PLAIN, head(fly_prefer_region="fra,any"), groups=GROUPS).ask.regions
    assert regions[:2] == (FRA, None)
    assert set(regions[2:]) <= {None}


def test_groups_are_flys_where_none_are_given() -> None:
    (apac,) = asked(APP, PLAIN, head(fly_force_region="apac")).ask.regions
    assert apac is not None
    assert {"nrt", "syd"} <= apac
    assert asked(APP, PLAIN, head(fly_force_region="apac"), groups={}).ask.regions == (frozenset({"apac"}),)


TOO_MANY = ",".join(["fra"] * 33)


@pytest.mark.parametrize("name", ["fly-force-region", "fly-prefer-region"])
@pytest.mark.parametrize("value", ["", ",", "fra,,ams", "fra ams", "fra;ams", "-fra", b"fr\xe9", TOO_MANY])
def test_a_malformed_list_of_regions_is_the_clients_fault(name: str, value: str | bytes) -> None:
    request = head(**{name: value})
    problem = ask(APP, PLAIN, request)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.message, problem.app) == (Code.PB01, f"{name} is not a list of regions", "tools")
    assert asked(app(steering=False), PLAIN, request).ask == Ask(PLAIN)


def test_a_session_carries_regions_like_any_other_request() -> None:
    # `decide` does not move a pin for them; a malformed list is refused nevertheless.
    intent = in_session(SEALER.seal_session("tools", PIN, b"up-1", None))
    assert asked(APP, intent, head(fly_force_region="fra")).ask == Ask(intent, PIN, Rule.SEALED, regions=(FRA,))
    assert isinstance(ask(APP, intent, head(fly_force_region="?")), Problem)


@given(st.binary(max_size=60).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F)))
def test_no_list_of_regions_raises(value: bytes) -> None:
    for name in ("fly_force_region", "fly_prefer_region"):
        built = ask(APP, PLAIN, head(**{name: value}))
        assert isinstance(built, Problem) or (isinstance(built, Asked) and built.ask.regions)


BY_TENANT = App("other", key=(KeyRule(KeySource.HEADER, "x-tenant"),))


def test_in_another_app_a_request_is_hashed_by_that_apps_own_rules() -> None:
    request = head(x_tenant="7", x_user="8")
    intent = Intent(Kind.PLAIN, Dialect.HTTP, key=b"header:x-user=8")
    assert key_in(BY_TENANT, intent, request, principal=ALICE, client_ip="10.0.0.7") == b"header:x-tenant=7"
    assert key_in(BY_TENANT, intent, head(), principal=ALICE, client_ip="10.0.0.7") == b""
    assert key_in(App("other"), intent, request, principal=ALICE, client_ip="10.0.0.7") == b""


@pytest.mark.parametrize("of_app", [App("other"), BY_TENANT])
def test_in_another_app_modern_callers_stay_together_too(of_app: App) -> None:
    intent = modern(Kind.PRINCIPAL, key=b"header:x-user=8")
    assert key_in(of_app, intent, head(), principal=ALICE, client_ip="10.0.0.7") == b"principal:=" + ALICE
    assert key_in(of_app, intent, head(), principal=None, client_ip="10.0.0.7") == address_key("10.0.0.7")
    anywhere = modern(Kind.ANYWHERE, key=b"header:x-user=8")
    assert key_in(of_app, anywhere, head(), principal=ALICE, client_ip="10.0.0.7") == b""


def test_in_another_app_parameters_count_for_modern_requests_only() -> None:
    by_param = App("other", key=(KeyRule(KeySource.MCP_PARAM, "tenant"),))
    request = head(mcp_param_tenant="7")
    for intent, key in ((modern(Kind.PRINCIPAL), b"mcp-param:tenant=7"), (PLAIN, b"")):
        assert key_in(by_param, intent, request, principal=None, client_ip="10.0.0.7") == key


@given(st.sampled_from(Kind), st.sampled_from(Dialect), st.none() | st.just(ALICE))
def test_the_addressed_apps_key_has_no_say_in_another_app(kind: Kind, dialect: Dialect, caller: bytes | None) -> None:
    keyed, unkeyed = Intent(kind, dialect, key=b"header:x-user=8"), Intent(kind, dialect)
    for of_app in (App("other"), BY_TENANT):
        with_key = key_in(of_app, keyed, head(), principal=caller, client_ip="10.0.0.7")
        assert with_key == key_in(of_app, unkeyed, head(), principal=caller, client_ip="10.0.0.7")


def test_the_affinity_cookie_is_a_wish_that_must_hold() -> None:
    sticky = app(affinity_cookie="berth")
    good = SEALER.seal_cookie("tools", PIN)
    assert asked(sticky, PLAIN, head(cookie=b"a=b; berth=" + good)).ask.cookie == PIN
    forged = asked(sticky, PLAIN, head(cookie=b"berth=" + good[:-1] + b"0"))
    assert (forged.ask.cookie, forged.cookie_fault) == (None, SealFault.FORGED)
    assert asked(sticky, PLAIN, head(cookie="a=b")) == Asked(Ask(PLAIN))
    assert asked(sticky, PLAIN, head()) == Asked(Ask(PLAIN))
    assert asked(APP, PLAIN, head(cookie=b"berth=" + good)).ask.cookie is None


@given(st.sampled_from([Kind.IN_SESSION, Kind.LEGACY_POST]), st.binary(max_size=100))
def test_no_token_raises(kind: Kind, token: bytes) -> None:
    problem = ask(APP, Intent(kind, Dialect.SESSION_2025, token), principal=ALICE)
    assert isinstance(problem, Problem)
    assert problem.code in (Code.PS01, Code.PS04)
