"""From a fly.toml to an app: what is taken, what is noted, and that `moorage check` accepts whatever comes out."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import AppConfig, parse
from gateway.config.faults import key_text
from gateway.config.fly_render import quoted, render
from gateway.config.fly_tables import MAX_CHECKS, Setting, duration
from gateway.config.fly_toml import MAX_DEPTH, Imported, NoHttp, import_fly
from gateway.config.unbuilt import take_unbuilt
from gateway.core.model import Check, ConcurrencyType, ReplayKey, ReplayRule
from gateway.core.replay_settings import MAX_RULES

FLY = Path(__file__).parent / "fly"
SERVICE = 'app = "tools"\n[http_service]\ninternal_port = 8080\n'


def accepted(text: str) -> str:
    """The printed file without the keys that this version does not have yet."""
    document = tomllib.loads(text)
    take_unbuilt(document)
    return "\n".join(f"{key} = {_toml(value)}" for key, value in document.items()) + "\n"


def _toml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return quoted(value)
        case _:
            return json.dumps(value)


def taken(text: str, name: str | None = None, hosts: tuple[str, ...] = ()) -> Imported:
    result = import_fly(tomllib.loads(text), name, hosts)
    assert isinstance(result, Imported)
    return result


def sample(name: str) -> Imported:
    return taken((FLY / f"{name}.toml").read_text())


def checked(imported: Imported) -> AppConfig:
    (app,) = parse(accepted(render(imported, 1)), environ={}).apps
    return app


def said(imported: Imported | NoHttp) -> dict[str, str]:
    """Every note, by its key. No key has two, but `app`."""
    notes = [note for note in imported.notes if note.path != ("app",)]
    found = {key_text(note.path): f"{note.reason}; {note.remedy}" for note in notes}
    assert len(found) == len(notes)
    return found


def settings(found: tuple[Setting, ...]) -> dict[str, Any]:
    return {setting.key: setting.value for setting in found}


# --- files as Fly writes them --------------------------------------------------------------


def test_what_fly_launch_writes() -> None:
    imported = sample("launch")
    assert settings(imported.settings) == {
        "hosts": ["harbour-notes.localhost"],
        "auto_stop": "stop",
        "auto_start": True,
        "min_running": 0,
    }
    assert set(said(imported)) == {"http_service.force_https", "primary_region", "vm"}
    app = checked(imported).app
    assert app.name == "harbour-notes"
    assert app.concurrency.type is ConcurrencyType.CONNECTIONS


def test_what_fly_mcp_launch_writes() -> None:
    imported = sample("mcp-launch")
    assert settings(imported.settings)["auto_stop"] == "suspend"
    assert set(said(imported)) == {"build", "primary_region", "vm"}
    assert checked(imported).app.hosts == ("tide-server.localhost",)


def test_the_service_that_speaks_http_on_a_public_port_is_taken() -> None:
    imported = sample("services")
    assert settings(imported.settings)["stop_grace"] == "2m"
    assert imported.machine.port == 8081
    app = checked(imported).app
    assert app.stop_grace_s == 120.0
    assert (app.concurrency.type, app.concurrency.soft, app.concurrency.hard) == (ConcurrencyType.REQUESTS, 20, 25)
    assert app.checks == (Check("/healthz", interval_s=10.0, timeout_s=2.0, grace_s=5.0),)
    assert app.replay_cache == (ReplayRule(ReplayKey.HEADER, "x-tenant", 60.0, "ledger.example.com", "/api", True),)
    notes = said(imported)
    assert notes["services[0]"].startswith("is not HTTP; ")
    assert notes["services[1]"].startswith("is one more HTTP service")
    assert notes["services[2].http_checks[1].method"].startswith('"POST" is not used to check')
    assert {
        "kill_signal",
        "experimental",
        "services[2].ports[0].force_https",
        "services[2].ports[1].http_options.compress",
        "services[2].tcp_checks",
    } == notes.keys() - {"services[0]", "services[1]", "services[2].http_checks[1].method"}


def test_everything_is_taken_or_noted() -> None:
    imported = sample("everything")
    app = checked(imported).app
    assert app.pristine is True
    assert app.stop_grace_s == 90.0
    assert (app.concurrency.soft, app.concurrency.hard) == (200, 250)
    assert app.checks == (Check("/", interval_s=30.0, timeout_s=5.0, grace_s=10.0),)
    assert app.replay_cache == (ReplayRule(ReplayKey.COOKIE, "session_id", 300.0),)
    assert settings(imported.settings)["min_running"] == 2
    notes = said(imported)
    assert set(notes) == {
        "primary_region", "swap_size_mb", "console_command", "experimental", "build", "deploy", "processes.worker",
        "http_service.force_https", "http_service.http_options.compress", "http_service.http_options.h2_backend",
        "http_service.http_options.idle_timeout", "http_service.http_options.headers_read_timeout",
        "http_service.http_options.replay_cache[1].ttl_seconds", "http_service.http_options.response.headers",
        "http_service.tls_options", "http_service.checks[0].headers", "http_service.machine_checks", "services[0]",
        "checks", "mounts", "vm", "statics", "files", "restart", "metrics",
    }  # fmt: skip
    assert not [key for key, text in notes.items() if "no key that is known" in text]


def test_every_setting_says_where_it_comes_from() -> None:
    text = render(sample("everything"), 1)
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            assert lines[at - 1].startswith("# ")
    assert "# http_service.http_options.replay_cache[0].ttl_seconds\n" in text
    remark = "on Fly of the primary region alone, here of the whole app"
    assert f"# http_service.min_machines_running: {remark}\nmin_running = 2\n" in text
    assert 'concurrency.type: not set, and this is what Fly takes then\ntype = "connections"' in text


# --- names and hosts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "name", "reason"),
    [
        ('"tools-1"', "tools-1", None),
        ('"My_App "', "my-app", '"My_App " is not a name here, and became "my-app"'),
        (f'"{"a" * 62}--b"', "a" * 62, "is not a name here"),
        ('"--"', "app", '"--" is no name'),
        ("5", "app", "5 is no name"),
    ],
)
def test_the_name_is_made_valid(app: str, name: str, reason: str | None) -> None:
    imported = taken(f"app = {app}\n[http_service]\n")
    assert imported.name == name
    assert checked(imported).app.name == name
    reasons = [note.reason for note in imported.notes if "its host is" not in note.reason]
    assert len(reasons) == (reason is not None)
    assert not reason or reason in reasons[0]


def test_a_file_without_a_name_gets_one() -> None:
    imported = taken("[http_service]\n")
    assert imported.name == "app"
    assert [note.reason for note in imported.notes] == [
        "is not set",
        'its host is "app.localhost" here',
    ]


def test_a_given_name_and_given_hosts_need_no_note() -> None:
    imported = taken('app = "My App"\n[http_service]\n', "cart", ("cart.example.com", "*.shop.example.com"))
    assert not imported.notes
    assert checked(imported).app.hosts == ("cart.example.com", "*.shop.example.com")
    assert taken(SERVICE, None, ("a.b", "a.b")).settings[0].value == ["a.b"]


# --- sleeping ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [('"off"', "off"), ('"stop"', "stop"), ('"suspend"', "suspend"), ("true", "stop"), ("false", "off")],
)
def test_auto_stop_in_all_its_forms(written: str, value: str) -> None:
    imported = taken(f"{SERVICE}auto_stop_machines = {written}\n")
    assert settings(imported.settings)["auto_stop"] == value
    assert not said(imported)


def test_what_is_not_set_is_not_written() -> None:
    assert settings(taken(SERVICE).settings) == {"hosts": ["tools.localhost"]}


def test_what_would_never_start_again_is_not_stopped() -> None:
    imported = taken(f'{SERVICE}auto_stop_machines = "stop"\nauto_start_machines = false\n')
    assert settings(imported.settings) == {"hosts": ["tools.localhost"], "auto_start": False}
    assert "nothing would start again" in said(imported)["http_service.auto_stop_machines"]
    assert checked(imported).app.auto_start is False
    both = taken(f'{SERVICE}auto_stop_machines = "off"\nauto_start_machines = false\n')
    assert settings(both.settings)["auto_stop"] == "off"
    assert not said(both)


# --- durations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "unit_s", "value"),
    [
        ("10s", 1, "10s"),
        ("1m", 1, "60s"),
        ("1m21s", 1, "81s"),
        ("2h", 1, "2h"),
        ("1.5h", 1, "90m"),
        (".5s", 1, "0.5s"),
        ("250ms", 1, "0.25s"),
        ("10us", 1, "0.00001s"),
        ("0", 1, "0s"),
        (120, 1, "2m"),
        (10_000, 0.001, "10s"),
        (1.5, 1, "1.5s"),
        ("10", 1, None),
        ("-5s", 1, None),
        ("5 s", 1, None),
        ("s", 1, None),
        ("9" * 39 + "h", 1, None),
        ("9" * 400 + "h", 1, None),
        (-1, 1, None),
        (10**400, 1, None),
        (float("nan"), 1, None),
        (float("inf"), 1, None),
        (True, 1, None),
        ([], 1, None),
    ],
)
def test_durations(written: object, unit_s: float, value: str | None) -> None:
    assert duration(written, unit_s) == value


# --- checks, replay caches, concurrency ----------------------------------------------------


def check_notes(check: str) -> tuple[tuple[dict[str, Any], ...], dict[str, str]]:
    imported = taken(f"{SERVICE}[[http_service.checks]]\n{check}\n")
    checked(imported)
    return tuple(map(settings, imported.checks)), said(imported)


def test_a_check_without_a_path_asks_for_the_root() -> None:
    assert check_notes('timeout = "1s"') == (({"path": "/", "timeout": "1s"},), {})


@pytest.mark.parametrize(
    ("check", "key"),
    [
        ('method = "HEAD"', "method"),
        ("method = 5", "method"),
        ('protocol = "https"', "protocol"),
        ('path = "no"', "path"),
        ("path = 5", "path"),
    ],
)
def test_a_check_that_cannot_be_made_is_left_out(check: str, key: str) -> None:
    found, notes = check_notes(check)
    assert found == ()
    assert list(notes) == [f"http_service.checks[0].{key}"]


@pytest.mark.parametrize("wrong", ['interval = "soon"', "interval = 0", "interval = -5", "interval = [1]"])
def test_a_check_with_an_odd_time_keeps_the_rest(wrong: str) -> None:
    found, notes = check_notes(f'{wrong}\ntimeout = "1s"')
    assert found == ({"path": "/", "timeout": "1s"},)
    assert list(notes) == ["http_service.checks[0].interval"]


def test_what_is_no_check_is_told_of() -> None:
    imported = taken(f'{SERVICE}[http_service.checks.alive]\npath = "/"\n')
    assert imported.checks == ()
    assert "is no check" in said(imported)["http_service.checks"]


def test_an_app_has_so_many_checks() -> None:
    imported = taken(SERVICE + '[[http_service.checks]]\npath = "/"\n' * (MAX_CHECKS + 1))
    assert len(checked(imported).app.checks) == MAX_CHECKS
    assert list(said(imported)) == [f"http_service.checks[{MAX_CHECKS}]"]


def rules(rule: str) -> tuple[tuple[dict[str, Any], ...], dict[str, str]]:
    imported = taken(f"{SERVICE}{rule}\n")
    checked(imported)
    return tuple(map(settings, imported.replay_cache)), said(imported)


RULE = '[[http_service.http_options.replay_cache]]\ntype = "cookie"\nname = "sid"\n'


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("ttl_seconds = 9", "ttl_seconds"),
        ("ttl_seconds = -1", "ttl_seconds"),
        ('path_prefix = "https://a.b/c"', "path_prefix"),
        ('allow_bypass = "yes"', "allow_bypass"),
    ],
)
def test_a_rule_with_a_fault_is_left_out_whole(line: str, key: str) -> None:
    found, notes = rules(RULE + line)
    assert found == ()
    assert list(notes) == [f"http_service.http_options.replay_cache[0].{key}"]
    assert ", so this rule is left out; " in next(iter(notes.values()))


def test_a_rule_by_the_mcp_session_is_not_needed() -> None:
    _, notes = rules('[[http_service.http_options.replay_cache]]\ntype = "header"\nname = "Mcp-Session-Id"\n')
    assert "MCP sessions are pinned anyway" in notes["http_service.http_options.replay_cache[0].name"]


def test_a_rule_without_a_name_or_a_path() -> None:
    assert rules('[[http_service.http_options.replay_cache]]\ntype = "cookie"\n')[0] == ()
    assert rules(RULE) == (({"path": "/", "type": "cookie", "name": "sid"},), {})


def test_two_rules_for_one_path_and_too_many_rules() -> None:
    found, notes = rules(RULE + 'path_prefix = "/a/*"\n' + RULE + 'path_prefix = "/a"\n')
    assert len(found) == 1
    assert "is the path of a rule above" in notes["http_service.http_options.replay_cache[1].path_prefix"]
    many = "".join(f'{RULE}path_prefix = "/{number}"\n' for number in range(MAX_RULES + 1))
    found, notes = rules(many)
    assert len(found) == MAX_RULES
    assert list(notes) == [f"http_service.http_options.replay_cache[{MAX_RULES}]"]


@pytest.mark.parametrize(
    ("written", "limits", "noted"),
    [
        ('concurrency = { type = "requests" }', ("requests", None, None), []),
        ("concurrency = { hard_limit = 10 }", ("connections", None, 10), []),
        ("concurrency = { soft_limit = 0, hard_limit = 0 }", ("connections", None, None), []),
        ('concurrency = "12,23"', ("requests", 12, 23), []),
        ('concurrency = "many"', ("connections", None, None), [""]),
        ("concurrency = { soft_limit = 30, hard_limit = 20 }", ("connections", None, 20), [".soft_limit"]),
        ('concurrency = { type = "donuts" }', (None, None, None), [".type"]),
        ('concurrency = { soft_limit = "20" }', ("connections", None, None), [".soft_limit"]),
        ("concurrency = { hard_limit = -1 }", ("connections", None, None), [".hard_limit"]),
        ("concurrency = { max = 5 }", ("connections", None, None), [".max"]),
    ],
)
def test_concurrency(written: str, limits: tuple[object, object, object], noted: list[str]) -> None:
    imported = taken(f"{SERVICE}{written}\n")
    checked(imported)
    found = settings(imported.concurrency)
    assert (found.get("type"), found.get("soft"), found.get("hard")) == limits
    assert list(said(imported)) == [f"http_service.concurrency{key}" for key in noted]


# --- services and ports --------------------------------------------------------------------


def ports(*ports: str, more: str = "") -> str:
    written = "".join(f"[[services.ports]]\n{port}\n" for port in ports)
    return f'app = "tools"\n[[services]]\ninternal_port = 1\n{more}{written}'


HTTP = 'handlers = ["http"]'


def test_the_first_http_service_is_taken_when_none_is_on_a_public_port() -> None:
    imported = taken(ports(f"{HTTP}\nport = 9000") + "[[services]]\ninternal_port = 2\n[[services.ports]]\nport = 80\n")
    assert imported.machine.port == 1
    assert set(said(imported)) == {"services[0].ports[0]", "services[1]"}


def test_http_service_comes_before_services() -> None:
    imported = taken(ports(f"{HTTP}\nport = 443") + "[http_service]\ninternal_port = 2\n")
    assert imported.machine.port == 2
    assert said(imported)["services[0]"].startswith("is one more HTTP service")


def test_a_range_of_ports_may_hold_a_public_one() -> None:
    assert not said(taken(ports(f"{HTTP}\nstart_port = 1\nend_port = 100")))
    assert list(said(taken(ports(f"{HTTP}\nstart_port = 100\nend_port = 200")))) == ["services[0].ports[0]"]


def test_options_are_those_of_the_port_that_has_some() -> None:
    pristine = "[services.ports.http_options.response]\npristine = true"
    imported = taken(ports(f"{HTTP}\nport = 443", f"{HTTP}\nport = 80\n{pristine}"))
    assert settings(imported.settings)["pristine"] is True
    assert not said(imported)
    imported = taken(ports(f"{HTTP}\nport = 80\n{pristine}", f"{HTTP}\nport = 443\n{pristine}", "port = 5"))
    assert [setting.source for setting in imported.settings][-1].startswith("services[0].ports[1].")
    assert set(said(imported)) == {"services[0].ports[0].http_options", "services[0].ports[2]"}


def test_one_table_where_a_list_is_meant() -> None:
    imported = taken('app = "tools"\n[services]\ninternal_port = 1\nports = { port = 80, handlers = "http" }\n')
    assert imported.machine.port == 1
    assert imported.machine.port_source == "services.internal_port"


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("", None, ""),
        ('app = "db"\n[[services]]\n[[services.ports]]\nport = 5432\n', "services[0]", "is not HTTP"),
        ('[[services]]\n[[services.ports]]\nhandlers = ["tls"]\nport = 443\n', "services[0]", "is not HTTP"),
        ("http_service = 5\n", "http_service", "5 is not a table"),
        ("services = 5\n", "services", "5 is not a list of tables"),
        ("services = [5]\n", "services[0]", "5 is not a table"),
        ("services = []\nhttp_service = []\n", None, ""),
    ],
)
def test_there_may_be_nothing_for_a_gateway(text: str, key: str | None, reason: str) -> None:
    result = import_fly(tomllib.loads(text))
    assert isinstance(result, NoHttp)
    notes = said(result)
    assert list(notes) == ([key] if key else [])
    assert not key or notes[key].startswith(reason)


# --- instances -----------------------------------------------------------------------------


def filled(text: str, keep: str) -> AppConfig:
    """The app with its commented instance filled in, as a static one or as one that is started."""
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    begin = next(at for at, line in enumerate(lines) if ".instances]]" in line)
    drop = ("command", "env") if keep == "address" else ("address",)
    body = [line for line in lines[begin:] if line != "#" and not line.startswith(drop)]
    head = "\n".join(text.splitlines()[:begin])
    (app,) = parse(accepted(head + "\n" + "\n".join(body)), environ={}).apps
    return app


@pytest.mark.parametrize("name", ["launch", "mcp-launch", "services", "everything"])
def test_a_filled_in_instance_is_accepted(name: str) -> None:
    text = render(sample(name), 2)
    assert [instance.id for instance in filled(text, "address").instances] == ["i-1", "i-2"]
    assert all(instance.command for instance in filled(text, "command").instances)


def test_an_instance_has_what_fly_says_of_every_machine() -> None:
    (instance,) = filled(render(sample("everything"), 1), "command").instances
    assert instance.command == ("atlas", "serve", "--bind", "[::]:8080")
    assert instance.env == {"LOG_LEVEL": "debug", "PORT": "{port}", "WORKERS": "4", "VERBOSE": "true"}
    assert instance.region == "sea"
    assert "(http_service.internal_port)" in render(sample("everything"), 1)
    (static,) = filled(render(sample("services"), 1), "address").instances
    assert str(static.address) == "host:8081"


def test_no_instances_when_none_are_asked_for() -> None:
    assert "instances" not in render(sample("everything"), 0)


@pytest.mark.parametrize(
    ("more", "notes"),
    [
        ("[http_service]\ninternal_port = 0\n", ["http_service.internal_port"]),
        ('[http_service]\ninternal_port = "x"\n', ["http_service.internal_port"]),
        ("[http_service]\ninternal_port = true\n", ["http_service.internal_port"]),
        ('primary_region = "any"\n[http_service]\n', ["primary_region"]),
        ("primary_region = 5\n[http_service]\n", ["primary_region"]),
        ("processes = 5\n[http_service]\n", ["processes"]),
        ("env = 5\n[http_service]\n", ["env"]),
        ('[http_service]\n[processes]\napp = "un\'closed"\n', ["processes.app"]),
        ("[http_service]\n[processes]\napp = 5\n", ["processes.app"]),
        ('[http_service]\n[processes]\napp = "a\\u0000"\n', ["processes.app"]),
        ('[http_service]\n[env]\n"a b" = ""\nC = "\\u0000"\nD = []\n', ['env."a b"', "env.C", "env.D"]),
        ('[http_service]\nprocesses = ["a", "b"]\n[processes]\na = "x"\nb = "y"\n', ["processes.b"]),
        ('[http_service]\n[processes]\nz = "x"\nb = "y"\n', ["processes.z"]),
        ("kill_timeout = true\n[http_service]\n", ["kill_timeout"]),
        ('kill_timeout = "400d"\n[http_service]\n', ["kill_timeout"]),
        ('kill_timeout = "90000h"\n[http_service]\n', ["kill_timeout"]),
        ('kill_signal = "SIGQUIT"\n[http_service]\n', ["kill_signal"]),
        ('[http_service]\nauto_stop_machines = "later"\n', ["http_service.auto_stop_machines"]),
        ('[http_service]\nauto_start_machines = "yes"\n', ["http_service.auto_start_machines"]),
        ("[http_service]\nmin_machines_running = -1\n", ["http_service.min_machines_running"]),
        ("[http_service]\nhttp_options = 5\n", ["http_service.http_options"]),
        ("[http_service.http_options]\nresponse = 5\n", ["http_service.http_options.response"]),
        ("[http_service.http_options.response]\npristine = 1\n", ["http_service.http_options.response.pristine"]),
        ('[http_service]\nhttp_checks = [{ path = "/" }]\n', ["http_service.http_checks"]),
        ("unheard_of = 1979-05-27\n[http_service]\n", ["unheard_of"]),
        ('"a\\nb" = "c"\n[http_service]\n', ['"a\\nb"']),
    ],
)
def test_odd_values_are_told_of(more: str, notes: list[str]) -> None:
    imported = taken('app = "tools"\n' + more)
    checked(imported)
    assert list(said(imported)) == notes
    assert all(line.isprintable() for line in render(imported, 1).split("\n"))


def test_text_cannot_leave_its_quotes() -> None:
    hostile = 'a"\\\n[apps.x]\r\x1b[2J\x7f\x9b\u2028\U000e0001é😀'
    assert tomllib.loads(f"key = {quoted(hostile)}") == {"key": hostile}
    assert quoted(hostile).isprintable()
    imported = taken(f"{SERVICE}[env]\nKEY = {quoted(hostile)}\n[processes]\napp = {quoted('run ' + hostile[3:])}\n")
    text = render(imported, 1)
    assert all(line.isprintable() for line in text.split("\n"))
    assert tomllib.loads(text)["apps"].keys() == {"tools"}
    assert filled(text, "command").instances[0].env["KEY"] == hostile


def test_a_file_that_nests_without_end_is_told_of() -> None:
    deep = "a." * MAX_DEPTH * 50
    for text in (f"{deep}a = 1\n", f"{SERVICE}{deep}a = 1\n"):
        result = import_fly(tomllib.loads(text))
        assert isinstance(result, NoHttp)
        assert list(said(result)) == [""]


# --- anything ------------------------------------------------------------------------------

_KEYS = (
    "app primary_region kill_signal kill_timeout env processes http_service services ports port handlers internal_port"
    " auto_stop_machines auto_start_machines min_machines_running concurrency type soft_limit hard_limit checks path"
    " http_checks interval timeout grace_period method protocol headers http_options replay_cache path_prefix name"
    " ttl_seconds allow_bypass response pristine compress start_port end_port x"
)
_WORDS = "http tls GET get off stop suspend requests cookie header sid / /a a.b/c 10s 1m 80 12,23 any ams"
_keys = st.sampled_from(_KEYS.split())
_leaves = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.sampled_from(_WORDS.split()), st.just(["http"])
)
_tables = st.dictionaries(
    _keys,
    st.recursive(_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=5)),
    max_size=6,
)


@given(_tables, _tables)
def test_whatever_is_taken_is_accepted(document: dict[str, object], http: dict[str, object]) -> None:
    for each in (document, {**document, "http_service": http}, {**document, "services": [http]}):
        result = import_fly(each)
        for note in result.notes:
            assert note.reason.isprintable()
            assert note.remedy
        if isinstance(result, Imported):
            text = render(result, 1)
            assert all(line.isprintable() for line in text.split("\n"))
            checked(result)
