"""App-directed routing in the file: whom an app belongs to, who may replay to it, its replay caches, region groups."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.config import ConfigFaults, GatewaySettings, LimitSettings, parse
from gateway.config.sections import ReplayCacheSection
from gateway.core.bodies import app_body, parse_app
from gateway.core.model import App, ReplayKey, ReplayRule
from gateway.core.replay_settings import MAX_RULES, MAX_SOURCES, Scope
from gateway.data.state import Limits


def app(lines: str) -> App:
    read = parse(f"[apps.tools]\n{lines}\n").apps[0].app
    assert parse_app("tools", app_body(read)) == read, "the record is not what the file says"
    return read


def gateway(lines: str) -> GatewaySettings:
    return parse(f"[gateway]\n{lines}\n[apps.tools]\n").gateway


def the_fault(text: str) -> str:
    with pytest.raises(ConfigFaults) as caught:
        parse(text, "m.toml", environ={})
    (fault,) = caught.value.faults
    assert fault.message
    assert fault.remedy
    return str(fault)


# --- apps ------------------------------------------------------------------------------


def test_without_a_word_an_app_is_of_the_default_org_and_remembers_nothing() -> None:
    plain = app("")
    assert plain.org == "default"
    assert plain.replay_sources == ()
    assert plain.replay_cache == ()


def test_an_org_and_its_sources() -> None:
    written = app('org = "acme"\nreplay_sources = ["org:partner", "app:router", "router", "app:elsewhere"]')
    assert written.org == "acme"
    assert written.replay_sources == ("org:partner", "app:router", "router", "app:elsewhere")


def test_a_cache_rule_with_its_defaults() -> None:
    assert app('replay_cache = [{ type = "cookie", name = "SID" }]').replay_cache == (
        ReplayRule(ReplayKey.COOKIE, "SID", 600.0, host="", path="", allow_bypass=False),
    )


def test_all_keys_of_cache_rules() -> None:
    written = app("""
[[apps.tools.replay_cache]]
path = "Tools.Example.com/api/*"
ttl = "1m30s"
type = "header"
name = "X-Session"
allow_bypass = true
[[apps.tools.replay_cache]]
path = "/api"
ttl = 10
type = "cookie"
name = "Sid"
""")
    assert written.replay_cache == (
        ReplayRule(ReplayKey.HEADER, "x-session", 90.0, "tools.example.com", "/api", True),
        ReplayRule(ReplayKey.COOKIE, "Sid", 10.0, "", "/api"),
    )


@pytest.mark.parametrize(
    ("written", "host", "path"),
    [
        ("/", "", ""),
        ("/*", "", ""),
        ("/api/", "", "/api"),
        ("a.b", "a.b", ""),
        ("A.b/*", "a.b", ""),
        ("a.b/API/v1/", "a.b", "/API/v1"),
    ],
)
def test_paths_of_cache_rules(written: str, host: str, path: str) -> None:
    (rule,) = app(f'replay_cache = [{{ path = "{written}", type = "cookie", name = "a" }}]').replay_cache
    assert (rule.host, rule.path) == (host, path)


@pytest.mark.parametrize("name", ["Authorization", "Origin", "X-Session", "X_Session", "Cookie"])
def test_headers_that_are_passed_on_can_be_a_key(name: str) -> None:
    (rule,) = app(f'replay_cache = [{{ type = "header", name = "{name}" }}]').replay_cache
    assert rule.name == name.lower()


def test_a_name_that_no_header_may_have_can_be_a_cookies() -> None:
    assert app('replay_cache = [{ type = "cookie", name = "Mcp-Session-Id" }]').replay_cache[0].name == "Mcp-Session-Id"


def test_as_many_as_there_may_be() -> None:
    rules = "".join(f'{{ path = "/{n}", type = "cookie", name = "a" }}, ' for n in range(MAX_RULES))
    sources = [f"app:a{n}" for n in range(MAX_SOURCES)]
    written = app(f"replay_cache = [{rules}]\nreplay_sources = {sources}")
    assert (len(written.replay_cache), len(written.replay_sources)) == (32, 256)


def test_a_rule_can_be_made_in_code() -> None:
    section = ReplayCacheSection(path=Scope("h", "/a"), type=ReplayKey.HEADER, name="X-A", ttl_s=20.0)
    assert section.value() == ReplayRule(ReplayKey.HEADER, "x-a", 20.0, "h", "/a")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('org = "Acme"', '2: apps.tools.org: "Acme" is not a name; use a-z, 0-9 and -, at most 63'),
        ('org = ""', '2: apps.tools.org: "" is not a name'),
        ("org = 3", "2: apps.tools.org: 3 is not a string"),
        ('replay_sources = "app:a"', '2: apps.tools.replay_sources: "app:a" is not a list; put it in [ ]'),
        ("replay_sources = [3]", "2: apps.tools.replay_sources[0]: 3 is not a string; write such as"),
        (
            'replay_sources = ["a",\n"team:a"]',
            '3: apps.tools.replay_sources[1]: "team:a" names no org and no app; write "org:NAME", "app:NAME" or "NAME"',
        ),
        ('replay_sources = ["app:"]', '"app:" names no org and no app'),
        ('replay_sources = ["app:A"]', '"app:A" names no org and no app'),
        ('replay_sources = ["org:a-"]', '"org:a-" names no org and no app'),
        (f'replay_sources = ["org:{"a" * 64}"]', "names no org and no app"),
        (
            'replay_sources = ["app:a", "a",\n"app:a"]',
            '3: apps.tools.replay_sources[2]: "app:a" is listed twice; remove one',
        ),
        (
            f"replay_sources = {[f'a{n}' for n in range(MAX_SOURCES + 1)]}",
            "2: apps.tools.replay_sources: has 257 entries; at most 256 are used",
        ),
        ("replay_cache = 3", "2: apps.tools.replay_cache: 3 is not a list"),
        ('replay_cache = ["sid"]', '2: apps.tools.replay_cache[0]: "sid" is not a table; write { ... }'),
        (
            "replay_cache = [" + '{ type = "cookie", name = "a" }, ' * (MAX_RULES + 1) + "]",
            "2: apps.tools.replay_cache: has 33 entries; at most 32 are used",
        ),
        ('replay_cache = [{ name = "a" }]', "2: apps.tools.replay_cache[0].type: is missing; add `type`"),
        ('replay_cache = [{ type = "cookie" }]', "2: apps.tools.replay_cache[0].name: is missing; add `name`"),
    ],
)
def test_faults_of_an_app(line: str, fault: str) -> None:
    assert fault in the_fault(f"[apps.tools]\n{line}\n")


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        *(
            (
                f'path = "{path}"',
                f'5: apps.tools.replay_cache[0].path: "{path}" is neither a path nor a host with a path; write "/", ',
            )
            for path in (
                "", "*.a.b/api", "a.b:80/api", "http://a.b/api", "/api?x=1", "/api*", "/*/api", "/a b", "-a/api",
            )
        ),
        ("path = 3", "5: apps.tools.replay_cache[0].path: 3 is not a string"),
        ("ttl = 9.5", '5: apps.tools.replay_cache[0].ttl: 9.5 is too short; write "10s" or more'),
        ('ttl = "5s"', 'apps.tools.replay_cache[0].ttl: "5s" is too short; write "10s" or more'),
        ('ttl = "soon"', 'apps.tools.replay_cache[0].ttl: "soon" is not a duration'),
        ("allow_bypass = 1", "5: apps.tools.replay_cache[0].allow_bypass: 1 is not true or false"),
        ("ttl_seconds = 60", "5: apps.tools.replay_cache[0].ttl_seconds: unknown key; remove it; known here: allow_b"),
    ],
)  # fmt: skip
def test_faults_of_a_cache_rule(lines: str, fault: str) -> None:
    assert fault in the_fault(f'[apps.tools]\n[[apps.tools.replay_cache]]\ntype = "cookie"\nname = "sid"\n{lines}\n')


@pytest.mark.parametrize(
    ("type_", "name", "fault"),
    [
        ('"query"', '"a"', '2: apps.tools.replay_cache[0].type: "query" is not known; write "cookie" or "header"'),
        ('"cookie"', "3", "2: apps.tools.replay_cache[0].name: 3 is not a string"),
        ('"cookie"', '""', '2: apps.tools.replay_cache[0].name: "" is not a cookie name; use letters, digits, - and _'),
        ('"cookie"', '"a=b"', '"a=b" is not a cookie name'),
        ('"header"', '"a b"', '2: apps.tools.replay_cache[0].name: "a b" is not a header name; use letters'),
        ('"header"', '"a:"', '"a:" is not a header name'),
        (
            '"header"',
            '"Mcp-Session-Id"',
            '"Mcp-Session-Id" cannot be a cache\'s key; remove this rule: MCP sessions are pinned anyway',
        ),
        *(
            (
                '"header"',
                f'"{name}"',
                f'2: apps.tools.replay_cache[0].name: "{name}" cannot be a cache\'s key: no app sees it as',
            )
            for name in (
                "Host", "Connection", "TE", "Forwarded", "X-Forwarded-For", "Via", "Proxy-Authorization", "Expect",
                "Fly-Client-IP", "Fly-Force-Instance-Id", "Moorage-Session", "mcp_session_id",
            )
        ),
    ],
)  # fmt: skip
def test_faults_of_what_a_cache_goes_by(type_: str, name: str, fault: str) -> None:
    assert fault in the_fault(f"[apps.tools]\nreplay_cache = [{{ type = {type_}, name = {name} }}]\n")


def test_a_faulty_type_is_one_fault_and_a_faulty_name_beside_it_another() -> None:
    with pytest.raises(ConfigFaults) as caught:
        parse('[apps.tools]\nreplay_cache = [{ type = "query", name = "a b" }]')
    assert [fault.message for fault in caught.value.faults] == ['"a b" is not a name', '"query" is not known']


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [("/api", "/api/*", "/api"), ("/", "/*", "/"), ("h/api", "H/api/", "h/api"), ("h", "h/", "h/")],
)
def test_two_rules_for_one_place(one: str, other: str, shown: str) -> None:
    rule = '[[apps.tools.replay_cache]]\ntype = "cookie"\nname = "a"\npath = "{}"\n'.format
    assert the_fault(f"[apps.tools]\n{rule(one)}{rule(other)}") == (
        f'm.toml:9: apps.tools.replay_cache[1].path: "{shown}" is the path of a rule above; '
        "remove one, or give it another path"
    )


def test_two_rules_without_a_path_are_two_for_everything() -> None:
    rule = '[[apps.tools.replay_cache]]\ntype = "cookie"\nname = "a"\n'
    assert 'm.toml:5: apps.tools.replay_cache[1].path: "/" is the path of a rule above' in the_fault(
        f"[apps.tools]\n{rule}{rule}"
    )


def test_one_path_on_two_hosts_is_two_places() -> None:
    rules = ", ".join(f'{{ path = "{host}/api", type = "cookie", name = "a" }}' for host in ("", "a", "b"))
    assert len(app(f"replay_cache = [{rules}]").replay_cache) == 3


# --- the gateway -------------------------------------------------------------------------


def test_no_group_is_set_by_default() -> None:
    assert gateway("").region_groups == {}


def test_region_groups() -> None:
    written = gateway('region_groups = { eu = ["fra", "ams"], nordics = ["arn"], us = ["us"] }').region_groups
    assert written == {"eu": ("fra", "ams"), "nordics": ("arn",), "us": ("us",)}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('region_groups = ["eu"]', '2: gateway.region_groups: ["eu"] is not a table; write { eu = ["ams", "fra"] }'),
        ('region_groups.eu = "fra"', '2: gateway.region_groups.eu: "fra" is not a list; put it in [ ]'),
        ("region_groups.eu = [3]", "2: gateway.region_groups.eu[0]: 3 is not a string"),
        ('region_groups.any = ["fra"]', '2: gateway.region_groups.any: "any" is reserved; choose another name'),
        ('region_groups.global = ["fra"]', '2: gateway.region_groups.global: "global" is reserved'),
        ('region_groups.EU = ["fra"]', '2: gateway.region_groups.EU: "EU" is not a name'),
        ('region_groups.eu = ["FRA"]', '2: gateway.region_groups.eu[0]: "FRA" is not a name'),
        ('region_groups.eu = ["any"]', '2: gateway.region_groups.eu[0]: "any" is reserved'),
        ("region_groups.eu = []", "2: gateway.region_groups.eu: has no region; name at least one, or remove the group"),
        ('region_groups.eu = ["fra",\n"fra"]', '3: gateway.region_groups.eu[1]: "fra" is listed twice; remove one'),
        ('region_group = { eu = ["fra"] }', "gateway.region_group: unknown key; did you mean `region_groups`?"),
        (
            'limits.replay_buffer_bytes = "11MiB"',
            '2: gateway.limits.replay_buffer_bytes: "11MiB" is too large; write 10485760 or less',
        ),
        ("limits.replay_buffer_bytes = -1", "2: gateway.limits.replay_buffer_bytes: -1 is not a size"),
        ('limits.replay_buffer_bytes = "1MB"', '2: gateway.limits.replay_buffer_bytes: "1MB" is not a size'),
    ],
)
def test_faults_of_the_gateway(line: str, fault: str) -> None:
    assert fault in the_fault(f"[gateway]\n{line}\n[apps.tools]\n")


@pytest.mark.parametrize(("written", "bytes_"), [("0", 0), ('"64KiB"', 65536), ('"10MiB"', 10485760)])
def test_what_is_kept_of_a_body(written: str, bytes_: int) -> None:
    assert gateway(f"limits.replay_buffer_bytes = {written}").limits.replay_buffer_bytes == bytes_


def test_what_is_kept_of_a_body_when_nothing_is_said() -> None:
    assert LimitSettings().replay_buffer_bytes == 1024 * 1024


def test_every_limit_reaches_the_connections_with_its_default() -> None:
    assert dataclasses.asdict(Limits()) == LimitSettings().model_dump()
