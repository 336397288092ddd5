"""Every fault a file can have: named with its line, key and remedy, and all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config import Config, ConfigFaults, Fault, parse
from gateway.config.faults import key_text, shown
from gateway.config.unbuilt import UNBUILT, Unbuilt

APP = "[apps.tools]\n"
INSTANCE = APP + '[[apps.tools.instances]]\nid = "i-1"\n'
SECRET = "0123456789abcdef"


def faults(text: str, environ: Mapping[str, str] | None = None, folder: Path = Path()) -> tuple[Fault, ...]:
    with pytest.raises(ConfigFaults) as caught:
        parse(text, "m.toml", environ=environ or {}, folder=folder)
    assert all(fault.remedy and fault.message for fault in caught.value.faults)
    return caught.value.faults


def the_fault(text: str, environ: Mapping[str, str] | None = None) -> str:
    (fault,) = faults(text, environ)
    return str(fault)


def test_all_faults_of_a_file_are_reported_at_once_in_its_order() -> None:
    text = """\
[gateway]
listen = "nowhere"
admin = "0.0.0.0:8081"
[gateway.limits]
connections = 0
[apps.tools]
wake_timeout = "soon"
allowed_origins = ["x"]
concurrency = { soft = 9, hard = 3 }
[[apps.tools.instances]]
id = "i-1"
[[apps.tools.instances]]
id = "i-1"
address = "127.0.0.1:9001"
"""
    assert [(fault.line, fault.key) for fault in faults(text)] == [
        (2, "gateway.listen"),
        (3, "gateway.admin"),
        (5, "gateway.limits.connections"),
        (7, "apps.tools.wake_timeout"),
        (8, "apps.tools.allowed_origins"),
        (9, "apps.tools.concurrency.soft"),
        (10, "apps.tools.instances[0]"),
        (13, "apps.tools.instances[1].id"),
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('listen = "8080"', '2: gateway.listen: "8080" is not an address; write "host:port"'),
        ('listen = ":8080"', 'gateway.listen: ":8080" is not an address'),
        ('listen = "127.0.0.1:99999"', "gateway.listen: port 99999 is out of range; use 0 to 65535"),
        ('listen = "127.0.0.1:-1"', 'gateway.listen: "127.0.0.1:-1" is not an address'),
        ('listen = "300.0.0.1:80"', 'gateway.listen: "300.0.0.1" is not a host name or an IP address'),
        ('listen = "[::g]:80"', 'gateway.listen: "::g" is not an IPv6 address'),
        ('listen = "http://x:80"', 'gateway.listen: "http://x" is not a host name'),
        ("listen = 8080", "gateway.listen: 8080 is not a string"),
        (
            'admin = "0.0.0.0:8081"',
            'gateway.admin: "0.0.0.0:8081" is not a loopback address, and there is no admin_token',
        ),
        ('admin = "gateway.example.com:8081"', "is not a loopback address"),
        ('admin = "127.0.0.1:8080"', 'gateway.admin: "127.0.0.1:8080" is taken by the public listener'),
        ('listen = "0.0.0.0:8081"', "is taken by the public listener, 0.0.0.0:8081; use another port"),
        ('admin_token = ""', "gateway.admin_token: the secret is empty"),
        ('admin_token = "with blank"', "gateway.admin_token: the token has a character that no header can carry"),
        ('admin_token = "env:NOWHERE"', "the environment variable NOWHERE is not set; export NOWHERE"),
        ('admin_token = "env:NO WHERE"', '"env:NO WHERE" names no environment variable'),
        ('admin_token = "file:nothing-here"', "nothing-here cannot be read: No such file or directory"),
        ("admin_token = 7", "gateway.admin_token: is not a string"),
        ('secret = "0123456789abcdef"', 'gateway.secret: "0123456789abcdef" is not a list; put it in [ ]'),
        ('secret = ["short"]', "2: gateway.secret[0]: the secret is shorter than 16 bytes; make one with"),
        ('region = "Frankfurt am Main"', 'gateway.region: "Frankfurt am Main" is not a name'),
        ('region = "global"', 'gateway.region: "global" is reserved'),
        ('catalog = "redis://h:6379/0"', "1: gateway.secret: a Redis catalog needs a secret"),
        ('catalog = "redis://:6379/0"', "gateway.catalog: is not a Redis URL"),
        ('catalog = "redis://h:port/0"', "gateway.catalog: is not a Redis URL"),
        ('catalog = "redis://h/db"', "gateway.catalog: is not a Redis URL"),
        ('catalog = "redis+sentinel://h"', "gateway.catalog: redis+sentinel:// is not built yet"),
        ('catalog = "mysql://h"', 'gateway.catalog: is no kind of catalog; write "sqlite:PATH"'),
        ('catalog = "sqlite:"', "gateway.catalog: names no database file"),
        ('catalog = "sqlite:///tmp/x"', "gateway.catalog: names no database file"),
        ('catalog = "sqlite::memory:"', "gateway.catalog: names no database file"),
        ("catalog = 3", "gateway.catalog: is not a string"),
        (
            'trusted_proxies = ["10.0.0.1/8"]',
            '2: gateway.trusted_proxies[0]: "10.0.0.1/8" is not a network; write "10.0.0.0/8"',
        ),
        ('trusted_proxies = ["lan"]', 'write a network such as "10.0.0.0/8"'),
        ("trusted_proxies = true", "gateway.trusted_proxies: true is not a list"),
        ('drain_grace = "-1s"', 'gateway.drain_grace: "-1s" is not a duration'),
        ("drain_grace = -1", "gateway.drain_grace: -1 is out of range"),
        ("drain_grace = nan", "gateway.drain_grace: nan seconds is not a usable duration"),
        ("drain_grace = inf", "gateway.drain_grace: inf seconds is not a usable duration"),
        ('drain_grace = "400d"', 'gateway.drain_grace: "400d" is out of range'),
        ("drain_grace = true", "gateway.drain_grace: true is not a duration"),
        ("limits = 3", "gateway.limits: 3 is not a table"),
        ('limits.header_bytes = "64KB"', 'gateway.limits.header_bytes: "64KB" is not a size; write bytes as a number'),
        ("limits.header_bytes = 10", "gateway.limits.header_bytes: 10 is too small; write 1024 or more"),
        ('limits.header_bytes = "1GiB"', "is too large; write 1048576 or less"),
        ("limits.body_bytes = -1", "gateway.limits.body_bytes: -1 is not a size"),
        ("limits.connections = 1.5", "gateway.limits.connections: 1.5 is not a whole number"),
        ("limits.connections = true", "gateway.limits.connections: true is not a whole number"),
        ("limits.connect_timeout = 0", "gateway.limits.connect_timeout: must be longer than 0"),
        ("limits.conections = 1", "gateway.limits.conections: unknown key; did you mean `connections`?"),
        ("start_limit = 0", "gateway.start_limit: 0 is too small"),
        ("inside = false", "gateway.inside: unknown key here; it belongs in [agent]"),
        ("drain_grace_s = 1", "gateway.drain_grace_s: unknown key; did you mean `drain_grace`?"),
        ("wake_queue = 1", "gateway.wake_queue: unknown key here; it belongs in [apps.NAME]"),
        ("wake_quue = 1", "gateway.wake_quue: unknown key; did you mean `wake_queue` in [apps.NAME]?"),
        ("zzz = 1", "gateway.zzz: unknown key; remove it; known here: admin, "),
        ('"a\\nb" = 1', '2: gateway."a\\nb": unknown key'),
    ],
)
def test_faults_of_the_gateway(line: str, fault: str) -> None:
    assert fault in the_fault(f"[gateway]\n{line}\n{APP}")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('listen = "8082"', '2: agent.listen: "8082" is not an address; write "host:port"'),
        ("listen = 8082", "agent.listen: 8082 is not a string"),
        ('listen = "0.0.0.0:8082"', '"0.0.0.0:8082" is every address of this machine: none that others could be told'),
        ('listen = "[::0]:8082"', 'agent.listen: "[::0]:8082" is every address of this machine'),
        ('listen = "127.0.0.1:8080"', '"127.0.0.1:8080" is taken by the public listener, 127.0.0.1:8080'),
        ('listen = "127.0.0.1:8081"', "is taken by the admin listener"),
        ('url = "http://h:1"', "agent.url: is where an agent is asked, but this one does not listen; set listen too"),
        ('listen = "h:1"\nurl = "h:1"', '3: agent.url: "h:1" is not an agent\'s URL; write "http://host:port"'),
        ('listen = "h:1"\nurl = "http://h"', "is not an agent's URL"),
        ('listen = "h:1"\nurl = "http://h:1/"', "is not an agent's URL"),
        ('listen = "h:1"\nurl = "ftp://h:1"', "is not an agent's URL"),
        ('listen = "h:1"\nurl = "http://u@h:1"', 'agent.url: "u@h" is not a host name or an IP address'),
        ('listen = "h:1"\nurl = "http://h:0"', "agent.url: port 0 is out of range"),
        ('listen = "h:1"\nurl = "http://a_b:1"', 'agent.url: "a_b:1" is no address that gateways dial'),
        ('listen = "h:1"\nurl = "http://0x7f000001:1"', "is no address that gateways dial"),
        ('listen = "h:1"\nurl = 1', "agent.url: 1 is not a string"),
        ("inside = 0", "agent.inside: 0 is not true or false"),
        ('docker = "/var/run/docker.sock"', '"/var/run/docker.sock" is not where a Docker listens; write "unix:///'),
        ('docker = "unix://docker.sock"', "is not where a Docker listens"),
        ('docker = "tcp://h"', 'agent.docker: "h" is not an address'),
        ("lisen = 1", "agent.lisen: unknown key; did you mean `listen`?"),
        ("start_limit = 1", "agent.start_limit: unknown key here; it belongs in [gateway]"),
    ],
)
def test_faults_of_the_agent(line: str, fault: str) -> None:
    assert fault in the_fault(f"[agent]\n{line}\n{APP}")


def test_an_agent_outside_needs_a_catalog_that_is_shared() -> None:
    fault = the_fault(f'[gateway]\ncatalog = "memory:"\n[agent]\ninside = false\n{APP}')
    assert fault.startswith("m.toml:4: agent.inside: is false, but a memory: catalog is shared with no agent outside")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('hosts = ["*"]', '2: apps.tools.hosts[0]: "*" is not a host; leave `hosts` out'),
        ('hosts = ["*.*.com"]', 'apps.tools.hosts[0]: "*.*.com" is not a host'),
        ('hosts = ["a.b:80"]', 'apps.tools.hosts[0]: "a.b:80" is not a host'),
        ('hosts = ["http://a.b"]', 'apps.tools.hosts[0]: "http://a.b" is not a host'),
        ('hosts = ["büro.example"]', "write an international name in its xn-- form"),
        ('hosts = ["-a.b"]', '"-a.b" is not a host'),
        ('hosts = [""]', '"" is not a host'),
        ('hosts = "a.b"', 'apps.tools.hosts: "a.b" is not a list'),
        ('hosts = ["a.b", "A.B"]', '2: apps.tools.hosts[1]: "a.b" is listed twice'),
        ('path = "tools"', 'apps.tools.path: "tools" is not a path; start it with "/"'),
        ('path = "/a?b=c"', '"/a?b=c" is not a path'),
        ('path = "/a b"', '"/a b" is not a path'),
        ('strip_path = "yes"', 'apps.tools.strip_path: "yes" is not true or false'),
        ("strip_path = 1", "apps.tools.strip_path: 1 is not true or false"),
        ('protocol = "sse"', 'apps.tools.protocol: "sse" is not known; write "auto", "mcp" or "http"'),
        ('session_ids = 3', 'apps.tools.session_ids: 3 is not known; write "sealed" or "stored"'),
        ('key = ["X-Session"]', 'apps.tools.key[0]: "X-Session" is not a key rule; write "header:NAME"'),
        ('key = ["header:"]', 'apps.tools.key[0]: "" is not a header name'),
        ('key = ["header:a b"]', '"a b" is not a header name'),
        ('key = ["cookie:a;b"]', '"a;b" is not a cookie name'),
        ('key = ["query:a&b"]', '"a&b" is not a query parameter\'s name'),
        ('key = ["mcp-param:"]', '"" is not a header name'),
        ('key = ["principal:me"]', '"principal" takes no name'),
        ("key = [1]", "apps.tools.key[0]: 1 is not a string"),
        ('affinity_cookie = "a=b"', 'apps.tools.affinity_cookie: "a=b" is not a cookie name'),
        ("wake_queue = 0", "apps.tools.wake_queue: 0 is too small; write 1 or more"),
        ("wake_timeout = 0", "apps.tools.wake_timeout: must be longer than 0"),
        ('wake_timeout = "5 minutes"', 'apps.tools.wake_timeout: "5 minutes" is not a duration'),
        ("concurrency = 5", "apps.tools.concurrency: 5 is not a table"),
        ("concurrency = { soft = 9, hard = 3 }", "2: apps.tools.concurrency.soft: soft (9) is above hard (3)"),
        ("concurrency = { soft = 0 }", "apps.tools.concurrency.soft: 0 is too small"),
        ('concurrency = { kind = "x" }', "apps.tools.concurrency.kind: unknown key"),
        ('checks = [{ path = "healthz" }]', '2: apps.tools.checks[0].path: "healthz" is not a path'),
        ("checks = [{}]", "apps.tools.checks[0].path: is missing; add `path`"),
        ('checks = [{ path = "/", interval = 0 }]', "apps.tools.checks[0].interval: must be longer than 0"),
        ('checks = { path = "/" }', "is not a list"),
        ("checks = [" + '{ path = "/" }, ' * 17 + "]", "apps.tools.checks: has 17 entries; at most 16 are used"),
        ('instances = "i-1"', 'apps.tools.instances: "i-1" is not a list of tables; write [[apps.NAME.instances]]'),
        ("instances = [3]", "2: apps.tools.instances[0]: 3 is not a table"),
        ("drain_grace = 1", "apps.tools.drain_grace: unknown key here; it belongs in [gateway]"),
    ],
)  # fmt: skip
def test_faults_of_an_app(line: str, fault: str) -> None:
    assert fault in the_fault(f"[apps.tools]\n{line}\n")


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("", "2: apps.tools.instances[0]: has neither an address nor a command; add address"),
        ('address = "127.0.0.1"', '4: apps.tools.instances[0].address: "127.0.0.1" is not an address'),
        ('address = "127.0.0.1:0"', "port 0 is out of range; use 1 to 65535"),
        ('address = "127.0.0.1:8080"', "apps.tools.instances[0].address: is the gateway's own listener"),
        ('address = "127.0.0.1:9"\ncommand = ["x", "{port}"]', "5: apps.tools.instances[0].command: stands beside"),
        ('address = "127.0.0.1:9"\nenv = { A = "b" }', "5: apps.tools.instances[0].env: goes only with a"),
        ('address = "127.0.0.1:9"\ncwd = "x"', "apps.tools.instances[0].cwd: goes only with a command"),
        ('command = ["x"]', '4: apps.tools.instances[0].command: never says {port}; add "--port", "{port}"'),
        ('command = ["", "{port}"]', "apps.tools.instances[0].command: names no program"),
        ('command = "x {port}"', "apps.tools.instances[0].command: \"x {port}\" is not a list"),
        ('command = ["x", 8080]', "apps.tools.instances[0].command[1]: 8080 is not a string"),
        ('command = ["x", "{port}\\u0000"]', "apps.tools.instances[0].command[1]: has a NUL character"),
        ('command = ["x", "{port}"]\nenv = { "A-B" = "c" }', '.env.A-B: "A-B" is not an environment'),
        ('command = ["x", "{port}"]\nenv = { A = 3 }', "apps.tools.instances[0].env.A: 3 is not a string"),
        ('command = ["x", "{port}"]\nenv = "A=3"', "apps.tools.instances[0].env: \"A=3\" is not a table"),
        ('command = ["x", "{port}"]\ncwd = ""', "apps.tools.instances[0].cwd: is empty"),
        ('address = "127.0.0.1:9"\nregion = "EU"', 'apps.tools.instances[0].region: "EU" is not a name'),
        ('address = "127.0.0.1:9"\nport = 9', 'apps.tools.instances[0].port: goes only with `fly` or `kubernetes`'),
    ],
)  # fmt: skip
def test_faults_of_an_instance(lines: str, fault: str) -> None:
    assert fault in the_fault(f"{INSTANCE}{lines}\n")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "m.toml:1: apps: there is no app; add a table [apps.NAME]"),
        ("apps = 3", "1: apps: 3 is not a table"),
        ("apps.tools = 3", "1: apps.tools: 3 is not a table; write [tools]"),
        (APP + "[gatway]\n", "2: gatway: unknown key; did you mean `gateway`?"),
        (f'listen = "127.0.0.1:1"\n{APP}', "1: listen: unknown key here; it belongs in [gateway]"),
        (f"gateway = 3\n{APP}", "1: gateway: 3 is not a table"),
        (f"agent = 3\n{APP}", "1: agent: 3 is not a table"),
        ("[apps.Tools]", '1: apps.Tools: "Tools" is not a name'),
        (f'[apps."{"a" * 64}"]', "is not a name; use a-z, 0-9 and -, at most 63"),
        ('[apps.""]', '1: apps."": "" is not a name'),
        (f"{APP}[apps.b]\n", "2: apps.b: every host/ already belongs to app tools"),
        (f'{APP}path = "/x/"\n[apps.b]\npath = "/x"\n', "3: apps.b: every host/x already belongs to app tools"),
        (
            f'{APP}hosts = ["a.b"]\n[apps.b]\nhosts = ["c.d",\n"A.B"]',
            "5: apps.b.hosts[1]: a.b/ already belongs to app tools",
        ),
        (
            f'{INSTANCE}address = "h:1"\n[[apps.tools.instances]]\nid = "i-1"\naddress = "h:2"',
            '6: apps.tools.instances[1].id: "i-1" is the id of an instance above',
        ),
        (f'{APP}[[apps.tools.instances]]\naddress = "h:1"', "2: apps.tools.instances[0].id: is missing; add `id`"),
        (f'{APP}[[apps.tools.instances]]\nid = "i_1"\naddress = "h:1"', '3: apps.tools.instances[0].id: "i_1" is not'),
    ],
)
def test_faults_of_the_whole_file(text: str, fault: str) -> None:
    assert fault in the_fault(text)


def test_an_instance_whose_id_is_faulty_is_still_looked_at() -> None:
    keys = {fault.key for fault in faults(f"{APP}[[apps.tools.instances]]\nid = 3\naddress = 4\n")}
    assert keys == {"apps.tools.instances[0].id", "apps.tools.instances[0].address"}


# --- keys that are not built yet ------------------------------------------------------


def _document(row: Unbuilt, value: str) -> str:
    *tables, key = row.key.replace("*", "tools").split(".")
    app = "" if tables[0] == "apps" else APP
    return f"[{'.'.join(tables)}]\n{key} = {value}\n{app}"


@pytest.mark.parametrize("row", UNBUILT, ids=lambda row: row.key)
def test_a_key_that_is_not_built_is_never_silently_ignored(row: Unbuilt) -> None:
    (fault,) = faults(_document(row, '"anything"'))
    assert fault.line == 2
    assert fault.key == row.key.replace("*", "tools")
    assert fault.message == '"anything" is not built yet'
    assert fault.remedy.startswith("remove it")


@pytest.mark.parametrize("row", [row for row in UNBUILT if row.inert is not None], ids=lambda row: row.key)
def test_a_value_that_asks_for_nothing_may_be_written(row: Unbuilt) -> None:
    assert isinstance(parse(_document(row, shown(row.inert))), Config)


def test_the_remedy_for_an_unbuilt_value_names_the_one_that_works() -> None:
    expected = 'm.toml:2: apps.tools.allowed_origins: ["x"] is not built yet; remove it or set []'
    assert the_fault(APP + 'allowed_origins = ["x"]') == expected


def test_true_is_not_taken_for_the_inert_one() -> None:
    assert "true is not built yet" in the_fault("[gateway]\nworkers = true\n[apps.tools]\n")


def test_what_sleeps_must_be_able_to_wake() -> None:
    told = the_fault(APP + 'auto_stop = "stop"\nauto_start = false')
    assert "apps.tools.auto_stop" in told
    assert "would never wake" in told


def test_no_message_repeats_a_secret() -> None:
    text = f"""\
[gateway]
admin_token = "hunter2 hunter2"
secret = ["hunter2", "env:SHORT"]
catalog = "redis://user:hunter2@:1/0"
{APP}"""
    found = faults(text, {"SHORT": "hunter2"})
    assert len(found) == 4
    assert not [fault for fault in found if "hunter2" in str(fault)]


def test_keys_and_values_are_shown_on_one_line() -> None:
    assert key_text(("apps", "a b", "instances", 0, "id")) == 'apps."a b".instances[0].id'
    assert shown("x" * 100) == '"' + "x" * 56 + "..."
    assert shown({"a": [1, True, "b\n"]}) == '{ a = [1, true, "b\\n"] }'


@pytest.mark.parametrize("agent", ['docker = "unix:///var/run/docker.sock"', "inside = false"])
def test_a_file_needs_no_app_where_apps_come_from_elsewhere(agent: str) -> None:
    config = parse(f'[gateway]\ncatalog = "sqlite:moorage.db"\n[agent]\n{agent}\n')
    assert config.apps == ()


@pytest.mark.parametrize(("key", "what"), [("listen", "public"), ("admin", "admin")])
def test_the_private_listener_needs_a_port_of_its_own(key: str, what: str) -> None:
    told = the_fault(f'[gateway]\n{key} = "127.0.0.1:9999"\nprivate = "127.0.0.1:9999"\n[apps.tools]\n')
    assert f"taken by the {what} listener" in told


ON_FLY = """\
[agent]
fly_token = "t0ken-of-fly-of-some-length"
[apps.tools]
[[apps.tools.instances]]
id = "i-1"
port = 80
"""


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (ON_FLY + 'fly = "no slash"', "names no Fly Machine"),
        (ON_FLY + 'fly = "app/m1"\naddress = "127.0.0.1:1"', "stands beside `address`"),
        (ON_FLY.replace("port = 80\n", "") + 'fly = "app/m1"', "has no port"),
        (ON_FLY.partition("[apps")[2].join(["[apps", 'fly = "app/m1"']), "cannot be asked for without a token"),
        (ON_FLY + 'kubernetes = "deployment/default/tools"', "cannot be asked for"),
        (ON_FLY + 'kubernetes = "pod/x"', "names no workload"),
        ('[agent]\nkubernetes = "nowhere"\n[apps.tools]\n', "is no URL of an API"),
        ('[agent]\nfly_api = "ftp://x"\n[apps.tools]\n', "is no URL of an API"),
    ],
)
def test_faults_of_instances_on_platforms(document: str, message: str) -> None:
    assert message in the_fault(document)


def test_instances_on_platforms() -> None:
    config = parse(
        '[agent]\nfly_token = "t0ken-of-fly-of-some-length"\nkubernetes = "in-cluster"\n[apps.tools]\n'
        '[[apps.tools.instances]]\nid = "f-1"\nfly = "my-app/148e306f1d2089"\nport = 8080\n'
        '[[apps.tools.instances]]\nid = "k-1"\nkubernetes = "statefulset/default/tools/0"\nport = 8080\n'
    )
    machine, pod = config.apps[0].instances
    assert (machine.fly, machine.port) == ("my-app/148e306f1d2089", 8080)
    assert (pod.kubernetes, pod.port) == ("statefulset/default/tools/0", 8080)
