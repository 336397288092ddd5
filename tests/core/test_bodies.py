"""Bodies of records: what was written is read back, what is absent has its default, one wrong field makes all bad."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bodies import app_body, instance_body, parse_app, parse_instance
from gateway.core.fields import FIELDS, Field
from gateway.core.head import RequestHead, parse_request
from gateway.core.model import (
    Address,
    App,
    AppProtocol,
    AutoStop,
    Check,
    Concurrency,
    ConcurrencyType,
    IdleStreams,
    Instance,
    KeyRule,
    KeySource,
    OnLost,
    ReplayKey,
    ReplayRule,
    SessionIds,
    State,
)
from gateway.core.record import BadRecord
from gateway.core.replay_settings import MAX_RULES, MAX_SOURCES, Scope, may_key, parse_scope

# --- any value -------------------------------------------------------------------------

_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
_HOSTS = st.from_regex(r"[a-z0-9_]{1,9}(\.[a-z0-9_-]{0,5}[a-z0-9_]){0,3}", fullmatch=True).filter(
    lambda host: not re.search(r"\.-|-\.", host)
) | st.ip_addresses(v=6).map(lambda ip: f"[{ip}]")
_TOKENS = st.text("!#$%&'*+.^_`|~0Az-", min_size=1, max_size=12)
_HEADERS = _TOKENS.map(str.lower).filter(may_key)
_SEGMENTS = st.text("aZ0-._~%2F:@!$&'()+,;=\"<>[]{}|\\^`", min_size=1, max_size=6)
_PATHS = st.lists(_SEGMENTS, max_size=4).map(lambda parts: "".join(f"/{part}" for part in parts))
_COUNTS = st.integers(1, 10_000_000)
_SECONDS = st.floats(0.001, 366 * 86400.0)


def _keys() -> st.SearchStrategy[KeyRule]:
    return st.one_of(
        st.builds(KeyRule, st.sampled_from([KeySource.HEADER, KeySource.MCP_PARAM]), _TOKENS.map(str.lower)),
        st.builds(KeyRule, st.just(KeySource.COOKIE), _TOKENS),
        st.builds(KeyRule, st.just(KeySource.QUERY), st.text('!"#$%<>~:aZ', min_size=1, max_size=8)),
        st.just(KeyRule(KeySource.PRINCIPAL, "")),
    )


def _rules() -> st.SearchStrategy[ReplayRule]:
    named = st.tuples(st.just(ReplayKey.COOKIE), _TOKENS) | st.tuples(st.just(ReplayKey.HEADER), _HEADERS)
    return st.builds(
        lambda key, *rest: ReplayRule(key[0], key[1], *rest),
        named,
        st.floats(10, 366 * 86400.0),
        st.just("") | _HOSTS,
        _PATHS,
        st.booleans(),
    )


APPS = st.builds(
    App,
    name=_NAMES,
    hosts=st.lists(_HOSTS | _HOSTS.filter(lambda host: host[0] != "[").map("*.{}".format), max_size=3).map(tuple),
    path=_PATHS.map(lambda path: path or "/"),
    strip_path=st.booleans(),
    org=_NAMES,
    protocol=st.sampled_from(AppProtocol),
    key=st.lists(_keys(), max_size=3).map(tuple),
    session_ids=st.sampled_from(SessionIds),
    on_lost=st.sampled_from(OnLost),
    bind_principal=st.booleans(),
    sessions_survive_stop=st.booleans(),
    preserve_host=st.booleans(),
    pristine=st.booleans(),
    affinity_cookie=st.just("") | _TOKENS,
    steering=st.booleans(),
    auto_start=st.booleans(),
    wake_keepalive_s=st.floats(0, 1e6),
    auto_stop=st.sampled_from(AutoStop),
    min_running=st.integers(0, 10),
    idle_after_s=st.floats(0.001, 1e6),
    idle_grace_s=st.floats(0, 1e6),
    idle_streams=st.sampled_from(IdleStreams),
    wake_timeout_s=_SECONDS,
    wake_queue=_COUNTS,
    stop_grace_s=st.just(0.0) | _SECONDS,
    session_idle_s=_SECONDS,
    concurrency=st.builds(Concurrency, st.sampled_from(ConcurrencyType), _COUNTS, st.none() | _COUNTS),
    checks=st.lists(
        st.builds(Check, _PATHS.map(lambda path: f"{path}/?a=b"), _SECONDS, _SECONDS, st.just(0.0) | _SECONDS),
        max_size=2,
    ).map(tuple),
    replay_sources=st.lists(
        st.builds("{}{}".format, st.sampled_from(["", "org:", "app:"]), _NAMES), max_size=4, unique=True
    ).map(tuple),
    replay_cache=st.lists(_rules(), max_size=4, unique_by=lambda rule: (rule.host, rule.path)).map(tuple),
)
INSTANCES = st.builds(
    Instance,
    app=_NAMES,
    id=st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True),
    address=st.none()
    | st.builds(
        Address,
        st.ip_addresses().map(str) | st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9}){0,3}", fullmatch=True),
        st.integers(1, 65535),
    ),
    region=_NAMES,
    state=st.sampled_from(State),
    incarnation=st.text("0aZ", min_size=1, max_size=16),
    cordoned=st.booleans(),
    healthy=st.booleans(),
    held_down=st.booleans(),
    startable=st.booleans(),
    owner=st.text("agent-1@:!~", max_size=128),
)


def through_json(body: dict[str, object]) -> dict[str, object]:
    value: dict[str, object] = json.loads(json.dumps(body, allow_nan=False))
    return value


def test_every_field_is_among_the_values_that_are_tried() -> None:
    assert set(app_body(App(""))) == {
        field.name.removesuffix("_s") for field in dataclasses.fields(App) if field.name != "name"
    }


@given(APPS)
def test_an_app_is_read_back_as_it_was_written(app: App) -> None:
    assert parse_app(app.name, through_json(app_body(app))) == app


@given(INSTANCES)
def test_an_instance_is_read_back_as_it_was_written(instance: Instance) -> None:
    assert parse_instance(f"{instance.app}/{instance.id}", through_json(instance_body(instance))) == instance


def test_what_is_absent_has_its_default_and_what_is_unknown_is_ignored() -> None:
    assert parse_app("tools", {}) == App("tools")
    assert parse_app("tools", {"colour": "red"}) == App("tools")
    assert parse_instance("tools/i-1", {}) == Instance("tools", "i-1")
    assert parse_app("tools", {"replay_cache": [{"type": "cookie", "name": "SID", "weight": 1}]}) == App(
        "tools", replay_cache=(ReplayRule(ReplayKey.COOKIE, "SID", 600.0),)
    )


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_PLAUSIBLE = st.sampled_from(
    ["/", "/a", "*.a.b", "[::1]", "h/*", "cookie", "header", "cookie:a", "query:", "app:x", "sid", 10, 600.0, "auto"]
)
_INNER = ["path", "ttl", "type", "name", "allow_bypass", "soft", "hard", "interval", "timeout", "grace"]
_VALUES = st.recursive(
    _SCALARS | _PLAUSIBLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_INNER), inner, max_size=5),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(app_body(App("")))), _VALUES))
def test_any_app_body_is_an_app_or_says_why_not(body: dict[str, object]) -> None:
    app = parse_app("tools", body)
    if isinstance(app, App):
        assert parse_app("tools", through_json(app_body(app))) == app
    else:
        assert app.key == "app/tools"
        assert app.reason.isprintable()


@given(st.dictionaries(st.sampled_from(sorted(instance_body(Instance("", "")))), _VALUES))
def test_any_instance_body_is_an_instance_or_says_why_not(body: dict[str, object]) -> None:
    instance = parse_instance("tools/i-1", body)
    assert isinstance(instance, Instance) or instance.key == "instance/tools/i-1"


# --- what is wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hosts", "a.b"),
        ("hosts", ["a.b"] * 1001),
        ("hosts", ["A.b"]),
        ("hosts", ["*"]),
        ("hosts", ["*.[::1]"]),
        ("hosts", ["[::1%eth0]"]),
        ("hosts", ["[127.0.0.1]"]),
        ("hosts", ["a." * 126 + "ab"]),
        ("hosts", ["*." + "a." * 125 + "ab"]),
        ("hosts", [7]),
        ("path", "api"),
        ("path", "/a?b"),
        ("path", None),
        ("strip_path", 1),
        ("org", "Acme"),
        ("org", ""),
        ("org", None),
        ("org", "a" * 64),
        ("protocol", "sse"),
        ("protocol", []),
        ("key", ["header:"]),
        ("key", ["header:a b"]),
        ("key", ["cookie:a;b"]),
        ("key", ["query:a&b"]),
        ("key", ["body:a"]),
        ("key", [{}]),
        ("affinity_cookie", "a b"),
        ("wake_timeout", 0),
        ("wake_timeout", True),
        ("wake_timeout", "5m"),
        ("stop_grace", -1),
        ("stop_grace", 10**400),
        ("wake_queue", 0),
        ("wake_queue", 1.0),
        ("wake_queue", True),
        ("wake_queue", 10**9),
        ("concurrency", []),
        ("concurrency", {"type": "sessions"}),
        ("concurrency", {"soft": 0}),
        ("concurrency", {"hard": 0}),
        ("checks", {}),
        ("checks", ["/"]),
        ("checks", [{}]),
        ("checks", [{"path": "/", "interval": 0}]),
    ],
)
def test_one_wrong_field_makes_an_app_bad(field: str, value: object) -> None:
    bad = parse_app("tools", app_body(App("tools")) | {field: value})
    assert isinstance(bad, BadRecord)
    assert bad.key == "app/tools"
    assert bad.reason.startswith(field)


@pytest.mark.parametrize(
    "value",
    [
        "app:a",
        None,
        [""],
        ["app:"],
        ["team:a"],
        ["app:A"],
        ["app:a "],
        ["app:a\n"],
        ["app:-a"],
        ["org:" + "a" * 64],
        ["app:app:a"],
        [["app:a"]],
        [1],
        ["app:a", "org:a", "app:a"],
        [f"a{number}" for number in range(MAX_SOURCES + 1)],
    ],
)
def test_replay_sources_that_cannot_be_used(value: object) -> None:
    bad = parse_app("tools", {"replay_sources": value})
    assert isinstance(bad, BadRecord)
    assert bad.reason.startswith("replay_sources")


def test_as_many_replay_sources_and_rules_as_there_may_be() -> None:
    sources = [f"app:a{number}" for number in range(MAX_SOURCES)]
    rules = [{"path": f"/{number}", "type": "cookie", "name": "sid"} for number in range(MAX_RULES)]
    app = parse_app("tools", {"replay_sources": sources, "replay_cache": rules})
    assert isinstance(app, App)
    assert (len(app.replay_sources), len(app.replay_cache)) == (256, 32)


@pytest.mark.parametrize(
    "rule",
    [
        {"path": ""},
        {"path": None},
        {"path": "http://a.b/c"},
        {"ttl": 9.999},
        {"ttl": 366 * 86400.0 + 1},
        {"ttl": "10m"},
        {"ttl": None},
        {"ttl": True},
        {"type": "query"},
        {"type": None},
        {"name": ""},
        {"name": "a b"},
        {"name": "a=b"},
        {"name": None},
        {"name": "é"},
        {"allow_bypass": "yes"},
        {"allow_bypass": 1},
        {"type": "header", "name": "Mcp-Session-Id"},
        {"type": "header", "name": "x-forwarded-for"},
    ],
)
def test_a_rule_that_cannot_be_used(rule: dict[str, object]) -> None:
    good = {"path": "/", "ttl": 10, "type": "cookie", "name": "sid", "allow_bypass": False}
    assert isinstance(parse_app("tools", {"replay_cache": [good]}), App)
    bad = parse_app("tools", {"replay_cache": [good | rule]})
    assert isinstance(bad, BadRecord)
    assert bad.reason.startswith("replay_cache.")


def test_a_header_is_known_by_its_lower_case_name_and_a_cookie_by_its_own() -> None:
    rules = [{"type": "header", "name": "X-Session"}, {"path": "/a", "type": "cookie", "name": "Sid"}]
    app = parse_app("tools", {"replay_cache": rules})
    assert isinstance(app, App)
    assert [rule.name for rule in app.replay_cache] == ["x-session", "Sid"]


@pytest.mark.parametrize("missing", ["type", "name"])
def test_a_rule_that_leaves_out_its_key(missing: str) -> None:
    rule = {"type": "cookie", "name": "sid"}
    del rule[missing]
    assert isinstance(parse_app("tools", {"replay_cache": [rule]}), BadRecord)


@pytest.mark.parametrize(
    "rules",
    [
        {},
        ["cookie:sid"],
        [{"path": f"/{number}", "type": "cookie", "name": "sid"} for number in range(MAX_RULES + 1)],
        [{"path": "/a", "type": "cookie", "name": "a"}, {"path": "/a/*", "type": "header", "name": "b"}],
        [{"type": "cookie", "name": "a"}, {"path": "/", "type": "cookie", "name": "b"}],
        [{"path": "H/a", "type": "cookie", "name": "a"}, {"path": "h/a", "type": "cookie", "name": "a"}],
    ],
)
def test_rules_that_cannot_be_used_together(rules: object) -> None:
    bad = parse_app("tools", {"replay_cache": rules})
    assert isinstance(bad, BadRecord)
    assert bad.reason.startswith("replay_cache")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("app", "other"),
        ("id", "i-2"),
        ("address", 9001),
        ("address", "10.0.0.1"),
        ("address", "10.0.0.1:0"),
        ("address", "10.0.0.1:65536"),
        ("address", "10.0.0.1:٣"),
        ("address", "0x7f000001:80"),
        ("address", "2130706433:80"),
        ("address", "127.1:80"),
        ("address", "[::1%lo]:80"),
        ("address", "[10.0.0.1]:80"),
        ("address", "a b:80"),
        ("address", "a" * 260 + ":80"),
        ("region", "EU"),
        ("state", "asleep"),
        ("incarnation", "a-b"),
        ("incarnation", ""),
        ("cordoned", None),
        ("owner", "a b"),
    ],
)
def test_one_wrong_field_makes_an_instance_bad(field: str, value: object) -> None:
    bad = parse_instance("tools/i-1", instance_body(Instance("tools", "i-1")) | {field: value})
    assert isinstance(bad, BadRecord)
    assert bad.key == "instance/tools/i-1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:80", Address("10.0.0.1", 80)),
        ("[FE80::1]:65535", Address("fe80::1", 65535)),
        ("Node-1.example:1", Address("node-1.example", 1)),
    ],
)
def test_an_address_is_read_in_its_usual_form(text: str, address: Address) -> None:
    read = parse_instance("tools/i-1", instance_body(Instance("tools", "i-1")) | {"address": text})
    assert isinstance(read, Instance)
    assert read.address == address


def test_a_reason_is_short_and_on_one_line() -> None:
    bad = parse_app("tools", {"path": "\n" * 1000})
    assert isinstance(bad, BadRecord)
    assert len(bad.reason) < 100
    assert bad.reason.isprintable()


# --- what a rule is for, and what it goes by -----------------------------------------------


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("/", Scope("", "")),
        ("/*", Scope("", "")),
        ("/api", Scope("", "/api")),
        ("/api/", Scope("", "/api")),
        ("/api/*", Scope("", "/api")),
        ("/API/v1", Scope("", "/API/v1")),
        ("/a%20b/(c)", Scope("", "/a%20b/(c)")),
        ("a.b/api", Scope("a.b", "/api")),
        ("A.B/Api/*", Scope("a.b", "/Api")),
        ("a.b", Scope("a.b", "")),
        ("a.b/", Scope("a.b", "")),
        ("a.b/*", Scope("a.b", "")),
        ("localhost/api", Scope("localhost", "/api")),
        ("127.0.0.1/api", Scope("127.0.0.1", "/api")),
        ("[::1]/api", Scope("[::1]", "/api")),
        ("", None),
        ("*", None),
        ("*.a.b/api", None),
        ("/api*", None),
        ("/*/api", None),
        ("/api/*/", None),
        ("a.b:80/api", None),
        ("[::1]:80/api", None),
        ("[127.0.0.1]/api", None),
        ("http://a.b/api", None),
        ("/api?x=1", None),
        ("a.b?x=1", None),
        ("/api#x", None),
        ("/a b", None),
        ("/büro", None),
        ("\u212a.b/api", None),  # lower() makes an ASCII "k" of the Kelvin sign
        ("-a.b/api", None),
        ("a..b/api", None),
        ("a." * 127 + "a/api", None),
        ("/api\n", None),
    ],
)
def test_scopes(text: str, scope: Scope | None) -> None:
    assert parse_scope(text) == scope


@given(st.text(st.sampled_from("/*a.:[]?AK- é"), max_size=12))
def test_any_text_is_a_scope_that_reads_back_or_none(text: str) -> None:
    scope = parse_scope(text)
    if scope is not None:
        assert parse_scope(str(scope)) == scope
        assert not scope.path.endswith("/")
        assert scope.host == scope.host.lower()


@pytest.mark.parametrize(
    "header", ["x-session", "authorization", "cookie", "origin", "user-agent", "x_session", "mcp-param-cart"]
)
def test_headers_that_can_be_a_key(header: str) -> None:
    assert may_key(header)


@pytest.mark.parametrize(
    "header",
    [
        *(name.decode() for name, field in FIELDS.items() if field not in (Field.PASS, Field.SINGLE)),
        "fly-anything",
        "moorage-anything",
        "fly_client_ip",
        "mcp_session_id",
        "x_forwarded_for",
    ],
)
def test_headers_that_no_app_sees_as_they_were_sent_cannot_be_one(header: str) -> None:
    assert not may_key(header)


@given(_HEADERS)
def test_a_header_that_can_be_a_key_is_passed_on(header: str) -> None:
    head = parse_request(f"GET / HTTP/1.1\r\nhost: a\r\n{header}: value\r\n\r\n".encode())
    assert isinstance(head, RequestHead)
    assert head.kept == f"{header}: value\r\n".encode()
