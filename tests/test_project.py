"""What surrounds the package is in order: lock files, scripts, the version."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPTS = [path for folder in ("scripts", ".ci") for path in sorted((ROOT / folder).iterdir()) if path.is_file()]
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"]


def _locked(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): pinned for name, pinned in found}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_the_lock_has_every_requirement_and_no_place_of_one_machine(path: Path) -> None:
    project = PROJECT["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["demo"],
        *PROJECT["dependency-groups"]["build"],
    ]
    if path.name == "requirements-dev.lock":
        wanted += PROJECT["dependency-groups"]["dev"]
    locked = _locked(path)
    for requirement in map(Requirement, wanted):
        pinned = locked.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement.name} is not locked; run scripts/lock"
        assert requirement.specifier.contains(pinned), f"{requirement.name} {pinned} is locked; run scripts/lock"
    assert "://" not in path.read_text(encoding="utf-8")


def test_the_locks_agree() -> None:
    run, dev = map(_locked, LOCKS)
    assert run.items() <= dev.items()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run(path: Path) -> None:
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


def test_the_installed_version_is_this_one() -> None:
    assert version("moorage") == PROJECT["project"]["version"], "run scripts/install"
    assert f"## {PROJECT['project']['version']} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
