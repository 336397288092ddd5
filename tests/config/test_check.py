"""`moorage check`, as a person and as a program would use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app

GOOD = """\
[gateway]
catalog = "redis://:hunter2@h:6379/0"
secret = ["env:MOORAGE_TEST_SECRET"]
[apps.tools]
hosts = ["tools.localhost"]
[[apps.tools.instances]]
id = "i-1"
address = "127.0.0.1:9001"
"""
BAD = """\
[gateway]
lisen = "127.0.0.1:8080"
[apps.tools]
allowed_origins = ["x"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOORAGE_TEST_SECRET", "0123456789abcdef")
    return tmp_path / "moorage.toml"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_good_file_is_summed_up_without_secrets(file: Path) -> None:
    file.write_text(GOOD)
    result = run("check")
    assert result.exit_code == 0
    assert (
        result.stdout
        == """\
moorage.toml: OK
  listens on 127.0.0.1:8080, admin API on 127.0.0.1:8081
  region local, catalog redis://:***@h:6379/0
  app tools: tools.localhost/, 1 instance (1 static)
"""
    )


def test_a_bad_file_gets_every_fault_and_exit_code_2(file: Path) -> None:
    file.write_text(BAD)
    result = run("check", "-c", "moorage.toml")
    assert result.exit_code == 2
    assert (
        result.stdout
        == """\
moorage.toml:2: gateway.lisen: unknown key; did you mean `listen`?
moorage.toml:4: apps.tools.allowed_origins: ["x"] is not built yet; remove it or set []
moorage.toml: 2 faults
"""
    )


def test_programs_get_json(file: Path) -> None:
    file.write_text(GOOD)
    assert json.loads(run("check", "--json").stdout)["apps"] == [
        {"name": "tools", "hosts": ["tools.localhost"], "path": "/", "instances": ["i-1"]}
    ]
    file.write_text(BAD)
    result = run("check", "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert answer["faults"][0] == {
        "file": "moorage.toml",
        "line": 2,
        "key": "gateway.lisen",
        "message": "unknown key",
        "remedy": "did you mean `listen`?",
    }


def test_a_missing_file_is_a_fault_too(file: Path) -> None:
    result = run("check", "-c", "other.toml")
    assert result.exit_code == 2
    assert result.stdout.startswith("other.toml:1: cannot be read: No such file or directory; name a file with -c\n")


def test_check_writes_nothing(file: Path) -> None:
    file.write_text("[apps.tools]\n")
    assert run("check").exit_code == 0
    assert list(file.parent.iterdir()) == [file]


def test_serve_refuses_a_bad_file_before_it_starts(file: Path) -> None:
    file.write_text(BAD)
    result = run("serve")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "moorage.toml:2: gateway.lisen" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["check"], ["serve"], ["agent"], ["demo"]])
def test_help_shows_how_it_is_used(arguments: list[str]) -> None:
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "moorage" in result.stdout
    assert not arguments or "Example" in result.stdout


def test_the_version_is_printed() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("moorage 0.")
