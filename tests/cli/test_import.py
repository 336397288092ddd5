"""`moorage import`, as a person and as a program would use it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.cli.import_ import MAX_FILE_BYTES
from tests.config.test_fly_toml import FLY, accepted

MINIMAL = """\
app = "tools"
primary_region = "ams"

[http_service]
  internal_port = 9000
  force_https = true
  auto_start_machines = true
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fly.toml"
    path.write_text(MINIMAL)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_the_app_is_printed_and_what_is_missing_is_told_on_stderr(file: Path) -> None:
    result = run("import")
    assert result.exit_code == 0
    assert (
        result.stdout
        == """\
# Made from a fly.toml by `moorage import`. Above each key stands the key of fly.toml that it comes from.

[apps.tools]
# app: on Fly "tools.fly.dev"
hosts = ["tools.localhost"]
# http_service.auto_start_machines
auto_start = true

[apps.tools.concurrency]
# http_service.concurrency.type: not set, and this is what Fly takes then
type = "connections"

# Its instances. On Fly they listen on port 9000 (http_service.internal_port).
# Remove `# ` before the lines of one. Of these keep either `address`, for one that runs by itself, or
# `command` and `env`, for one that is started when needed; {port} is where it has to listen.
#
# [[apps.tools.instances]]
# id = "i-1"
# address = "HOST:9000"
# command = ["program", "--port", "{port}"]
# region = "ams"
"""
    )
    lines = result.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["fly.toml:1", "fly.toml:2", "fly.toml:6", "fly.toml"]
    assert all(re.fullmatch(r"fly\.toml:\d+: [\w.]+: [^;]+; [^;]+", line) for line in lines[:-1])
    assert lines[-1] == "fly.toml: app tools; what was not taken over is above"


@pytest.mark.parametrize("name", ["launch", "mcp-launch", "services", "everything"])
def test_check_accepts_what_is_written(file: Path, name: str) -> None:
    result = run("import", str(FLY / f"{name}.toml"), "-o", "made.toml")
    assert result.exit_code == 0
    assert result.stdout == ""
    Path("moorage.toml").write_text(accepted(Path("made.toml").read_text()))
    checked = run("check")
    assert checked.exit_code == 0, checked.stdout
    assert checked.stdout.startswith("moorage.toml: OK")


def test_name_hosts_and_instances_are_as_asked_for(file: Path) -> None:
    result = run(
        "import", "fly.toml", "--app", "cart", "--host", "Cart.example.com", "--host", "*.b", "--instances", "3"
    )
    assert '[apps.cart]\n# --host\nhosts = ["cart.example.com", "*.b"]\n' in result.stdout
    assert re.findall(r'^# id = "(.+)"$', result.stdout, re.MULTILINE) == ["i-1", "i-2", "i-3"]
    assert not [line for line in result.stderr.splitlines() if ": app: " in line]
    assert "instances" not in run("import", "--instances", "0").stdout


def test_nothing_to_note_is_one_line(file: Path) -> None:
    file.write_text("[http_service]\n")
    result = run("import", "--app", "tools", "--host", "tools.localhost")
    assert result.stderr == "fly.toml: app tools\n"


def test_a_file_without_an_http_service_gives_nothing(file: Path) -> None:
    file.write_text('app = "db"\n\n[[services]]\n  [[services.ports]]\n    port = 5432\n')
    result = run("import", "-o", "made.toml")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "fly.toml:3: services[0]: is not HTTP; publish its ports past the gateway\n"
        "fly.toml: no HTTP service, so nothing was taken over\n"
    )
    assert not Path("made.toml").exists()
    as_json = run("import", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout) == {
        "ok": False,
        "notes": [
            {"line": 3, "key": "services[0]", "message": "is not HTTP", "remedy": "publish its ports past the gateway"}
        ],
    }


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"[http_service]\ninternal_port = \n", "fly.toml:2: TOML: Invalid value; correct the syntax"),
        (b'app = "a"\napp = "b"\n', "fly.toml:2: TOML: Cannot overwrite a value; correct the syntax"),
        (b"a = 1\n# caf\xe9\n", "fly.toml:2: is not UTF-8; save it as UTF-8: TOML is nothing else"),
        (b"a = " + b"[" * 100_000, "fly.toml:1: TOML: "),
        (b"a = " + b"9" * 10_000, "fly.toml:1: TOML: "),
        (b"#" * (MAX_FILE_BYTES + 1), f"fly.toml:1: is larger than {MAX_FILE_BYTES} bytes; name the fly.toml"),
    ],
)
def test_a_file_that_is_no_toml_is_told_of_with_its_line(file: Path, raw: bytes, said: str) -> None:
    file.write_bytes(raw)
    result = run("import")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(said)
    as_json = run("import", "--json")
    assert as_json.exit_code == 2
    (fault,) = json.loads(as_json.stdout)["faults"]
    assert fault["line"] == int(said.split(":")[1])


@pytest.mark.parametrize(("name", "reason"), [("other.toml", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_told_of(file: Path, name: str, reason: str) -> None:
    result = run("import", name)
    assert result.exit_code == 2
    assert result.stderr == f"{name}:1: cannot be read: {reason}; name the fly.toml\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--app", "My App"),
        ("--host", "https://tools.example.com"),
        ("--instances", "-1"),
        ("-o", "fly.toml"),
        ("-o", "no/such/folder.toml"),
    ],
)
def test_wrong_options_change_nothing(file: Path, arguments: tuple[str, str]) -> None:
    result = run("import", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert arguments[0] in result.stderr.replace("--output", "-o")
    assert file.read_text() == MINIMAL
    assert list(file.parent.iterdir()) == [file]


def test_programs_get_json(file: Path) -> None:
    result = run("import", str(FLY / "everything.toml"), "--json", "-o", "made.toml")
    assert result.exit_code == 0
    assert result.stderr == ""
    answer = json.loads(result.stdout)
    assert answer["ok"] is True
    assert answer["app"] == "atlas"
    assert answer["toml"] == Path("made.toml").read_text()
    assert {"key": "hosts", "value": ["atlas.localhost"], "from": "app"} in answer["taken"]
    assert {"key": "checks[0].grace", "value": "10s", "from": "http_service.checks[0].grace_period"} in answer["taken"]
    assert {"key": "concurrency.hard", "value": 250, "from": "http_service.concurrency.hard_limit"} in answer["taken"]
    assert answer["instance"] == {
        "port": 8080,
        "region": "sea",
        "command": ["atlas", "serve", "--bind", "[::]:8080"],
        "env": {"LOG_LEVEL": "debug", "PORT": "8080", "WORKERS": "4", "VERBOSE": "true"},
    }
    assert {note["line"] for note in answer["notes"]} >= {2, 3, 90}
    assert all(note["message"] and note["remedy"] for note in answer["notes"])


def test_help_shows_how_it_is_used() -> None:
    result = run("import", "--help")
    assert result.exit_code == 0
    assert "moorage import fly.toml --host tools.example.com -o moorage.toml" in result.stdout
