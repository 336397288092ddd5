"""What a good file becomes: values with units, references, defaults, and nothing secret in any repr."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import AgentSettings, Config, GatewaySettings, load, parse
from gateway.config.references import redacted
from gateway.config.sections import AppSection
from gateway.config.unbuilt import UNBUILT
from gateway.config.values import seconds, size_bytes
from gateway.core.model import (
    Address,
    App,
    AppProtocol,
    Check,
    Concurrency,
    ConcurrencyType,
    KeyRule,
    KeySource,
    SessionIds,
)

SECRET = "a secret of 16 b"
EXAMPLE = Path(__file__).parents[2] / "examples" / "moorage.toml"


def gateway(lines: str, environ: Mapping[str, str] | None = None, folder: Path = Path()) -> GatewaySettings:
    return parse(f"[gateway]\n{lines}\n[apps.tools]\n", environ=environ or {}, folder=folder).gateway


def app(lines: str) -> App:
    return parse(f"[apps.tools]\n{lines}\n").apps[0].app


def test_every_key_but_apps_has_a_default() -> None:
    config = parse("[apps.tools]\n", folder=Path("/etc/moorage"))
    assert config.gateway.listen == Address("127.0.0.1", 8080)
    assert config.gateway.admin == Address("127.0.0.1", 8081)
    assert config.gateway.admin_token is None
    assert config.gateway.secret == ()
    assert config.gateway.catalog == "sqlite:/etc/moorage/moorage.db"
    assert config.gateway.limits.connections == 8000
    assert config.gateway.start_limit == 16
    assert config.agent == AgentSettings(listen=None, url="", inside=True, docker="")
    assert config.apps[0].app == App("tools")
    assert config.apps[0].instances == ()


def test_a_configuration_can_be_made_in_code() -> None:
    assert Config().gateway == GatewaySettings()
    assert GatewaySettings(catalog="memory:", drain_grace_s=1.5).drain_grace_s == 1.5


def test_every_setting_of_an_app_reaches_the_core() -> None:
    settings = set(AppSection.model_fields)
    unbuilt = {row.steps()[-1] for row in UNBUILT}
    assert {field.name for field in dataclasses.fields(App)} - {"name"} - unbuilt == settings


def test_all_keys_of_an_app() -> None:
    written = app("""
hosts = ["Tools.Example.com", "*.tools.internal", "127.0.0.1", "[::1]"]
path = "/tools/v1/"
strip_path = true
protocol = "mcp"
key = ["header:X-Session", "cookie:SID", "query:Session", "mcp-param:Basket", "principal"]
session_ids = "stored"
bind_principal = false
preserve_host = true
pristine = true
affinity_cookie = "moorage"
steering = false
auto_start = false
auto_stop = "off"
min_running = 1
wake_keepalive = "5s"
idle_after = "90s"
idle_grace = "2s"
wake_timeout = "1m30s"
wake_queue = 7
stop_grace = 0
session_idle = "2h"
sessions_survive_stop = true
concurrency = { type = "connections", soft = 3, hard = 4 }
checks = [{ path = "/healthz?deep=1", interval = 1, timeout = "250ms", grace = 0 }]
""")
    expected = App(
        "tools",
        hosts=("tools.example.com", "*.tools.internal", "127.0.0.1", "[::1]"),
        path="/tools/v1",
        strip_path=True,
        protocol=AppProtocol.MCP,
        key=(
            KeyRule(KeySource.HEADER, "x-session"),
            KeyRule(KeySource.COOKIE, "SID"),
            KeyRule(KeySource.QUERY, "Session"),
            KeyRule(KeySource.MCP_PARAM, "basket"),
            KeyRule(KeySource.PRINCIPAL, ""),
        ),
        session_ids=SessionIds.STORED,
        bind_principal=False,
        preserve_host=True,
        pristine=True,
        affinity_cookie="moorage",
        steering=False,
        auto_start=False,
        min_running=1,
        wake_keepalive_s=5.0,
        idle_after_s=90.0,
        idle_grace_s=2.0,
        wake_timeout_s=90.0,
        wake_queue=7,
        stop_grace_s=0.0,
        session_idle_s=7200.0,
        sessions_survive_stop=True,
        concurrency=Concurrency(ConcurrencyType.CONNECTIONS, 3, 4),
        checks=(Check("/healthz?deep=1", 1.0, 0.25, 0.0),),
    )
    assert written == expected


@pytest.mark.parametrize(
    ("written", "soft", "hard"),
    [("{}", 20, None), ("{ hard = 5 }", 5, 5), ("{ hard = 50 }", 20, 50), ("{ soft = 5, hard = 5 }", 5, 5)],
)
def test_a_hard_limit_alone_also_bounds_the_soft_one(written: str, soft: int, hard: int | None) -> None:
    assert app(f"concurrency = {written}").concurrency == Concurrency(ConcurrencyType.REQUESTS, soft, hard)


def test_instances() -> None:
    text = """
[gateway]
region = "iad"
[apps.tools]
[[apps.tools.instances]]
id = "I-1"
address = "[FD00::1]:9001"
[[apps.tools.instances]]
id = "i-2"
command = ["server", "--port", "{port}"]
region = "fra"
env = { KEY = "value" }
cwd = "tools"
[[apps.tools.instances]]
id = "i-3"
command = ["server"]
env = { PORT = "{port}" }
cwd = "/srv"
"""
    static, started, by_env = parse(text, folder=Path("/etc/moorage")).apps[0].instances
    assert (static.id, static.address, static.region) == ("I-1", Address("fd00::1", 9001), "iad")
    assert static.command is None
    assert (started.command, started.region) == (("server", "--port", "{port}"), "fra")
    assert (started.address, started.env, started.cwd) == (None, {"KEY": "value"}, Path("/etc/moorage/tools"))
    assert by_env.cwd == Path("/srv")


def test_apps_may_share_a_host_by_path_and_a_path_by_host() -> None:
    text = """
[apps.rest]
[apps.one]
hosts = ["a.b"]
[apps.two]
hosts = ["a.b", "*.a.b"]
path = "/two"
[apps.three]
hosts = ["c.d"]
path = "/two"
"""
    assert len(parse(text).apps) == 4


# --- values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value_s"),
    [
        (5, 5.0),
        (0.25, 0.25),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
        ("0s", 0),
    ],
)
def test_durations(written: object, value_s: float) -> None:
    assert seconds(written) == value_s


@given(st.integers(0, 10**6), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60)]))
def test_any_duration(number: int, unit: tuple[str, float]) -> None:
    if number * unit[1] <= 366 * 86400:
        assert seconds(f"{number}{unit[0]}") == pytest.approx(number * unit[1])


@pytest.mark.parametrize(
    ("written", "value"), [(0, 0), (10, 10), ("10B", 10), ("64KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)]
)
def test_sizes(written: object, value: int) -> None:
    assert size_bytes(written) == value


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("[::1]:0", Address("::1", 0)),
        ("LocalHost:1", Address("localhost", 1)),
        ("gw_1.internal:65535", Address("gw_1.internal", 65535)),
    ],
)
def test_listeners(written: str, address: Address) -> None:
    assert gateway(f'listen = "{written}"').listen == address


def test_networks() -> None:
    written = gateway('trusted_proxies = ["10.0.0.0/8", "192.0.2.1", "fd00::/8"]').trusted_proxies
    assert written == (ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32"), ip_network("fd00::/8"))


@pytest.mark.parametrize("admin", ["0.0.0.0:8081", "127.0.0.2:8081", "[::1]:8081", "localhost:8081"])
def test_an_admin_listener_with_a_token_may_be_anywhere_and_one_on_loopback_needs_none(admin: str) -> None:
    token = 'admin_token = "t"\n' if admin.startswith("0") else ""
    assert gateway(f'{token}admin = "{admin}"').admin.port == 8081


def test_two_listeners_on_port_0_do_not_clash() -> None:
    assert gateway('listen = "127.0.0.1:0"\nadmin = "127.0.0.1:0"').admin.port == 0


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('listen = ""', {}),
        ('listen = "127.0.0.1:0"', {"listen": Address("127.0.0.1", 0)}),
        ('listen = "0.0.0.0:9"\nurl = "http://Agents:8082"', {"url": "http://agents:8082"}),
        ('listen = "[::]:9"\nurl = "https://[FD00::5]:8082"', {"url": "https://[fd00::5]:8082"}),
        ("inside = false", {"inside": False}),
        ('docker = ""', {"docker": ""}),
    ],
)
def test_agents(written: str, value: Mapping[str, object]) -> None:
    agent = parse(f"[agent]\n{written}\n[apps.tools]\n").agent
    assert value.items() <= dict(agent).items()


# --- references ----------------------------------------------------------------------


def test_secrets_are_read_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    settings = gateway(
        'admin_token = "file:token"\nsecret = ["env:NEW", "old secret of 16"]', {"NEW": SECRET}, tmp_path
    )
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == "t0ken"
    assert [secret.get_secret_value() for secret in settings.secret] == [SECRET, "old secret of 16"]


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("memory:", "memory:"),
        ("sqlite:data/m.db", "sqlite:/folder/data/m.db"),
        ("sqlite:/var/lib/m.db", "sqlite:/var/lib/m.db"),
        ("redis://h", "redis://h"),
        ("rediss://u:p@h:6379/2?ssl_ca_certs=x", "rediss://u:p@h:6379/2?ssl_ca_certs=x"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
        ("redis://:env:PASSWORD@h:6379/0", "redis://:p%40%3A%2F@h:6379/0"),
        ("redis://user:env:PASSWORD@h", "redis://user:p%40%3A%2F@h"),
        ("env:URL", "redis://:pw@h"),
    ],
)
def test_catalog_urls(written: str, url: str) -> None:
    environ = {"PASSWORD": "p@:/", "URL": "redis://:pw@h", "SECRET": SECRET}
    settings = gateway(f'catalog = "{written}"\nsecret = ["env:SECRET"]', environ, Path("/folder"))
    assert settings.catalog == url


def test_a_catalog_password_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("word\n")
    settings = gateway('catalog = "redis://:file:pw@h/1"\nsecret = ["env:SECRET"]', {"SECRET": SECRET}, tmp_path)
    assert settings.catalog == "redis://:word@h/1"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hunter2@h:1/0?password=hunter2", "redis://user:***@h:1/0"),
        ("redis://:hunter2@h", "redis://:***@h"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("sqlite:/a@b/m.db", "sqlite:/a@b/m.db"),
        ("memory:", "memory:"),
    ],
)
def test_a_catalog_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_no_repr_shows_a_secret() -> None:
    text = """
[gateway]
admin_token = "hunter2-token"
secret = ["hunter2-secret-16"]
catalog = "redis://:hunter2@h"
[apps.tools]
[[apps.tools.instances]]
id = "i-1"
command = ["x", "{port}"]
env = { API_KEY = "hunter2" }
"""
    config = parse(text)
    assert "hunter2" not in f"{config!r} {config!s} {config.gateway!r} {config.gateway!s} {config.apps!r}"


def test_the_example_is_a_good_file() -> None:
    config = load(EXAMPLE, environ={})
    assert [(entry.app.name, len(entry.instances)) for entry in config.apps] == [("tools", 3), ("board", 2)]
    assert config.gateway.catalog == f"sqlite:{EXAMPLE.parent / 'moorage.db'}"
