"""The shape of the package: who may import whom, what the core may not touch, how long a file may be.

ARCHITECTURE.md explains the rules; this enforces them by reading the source.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gateway"
MAX_LINES = 400

MAY_IMPORT = {
    "core": {"core"},
    "config": {"config", "core"},
    "log": {"log", "core"},
    "agent": {"agent", "core", "log.base", "admin.answers", "admin.asking"},
    "lifecycle": {"lifecycle", "core", "data", "agent.base", "log.base"},
    "sources": {"sources", "core", "config", "agent.base", "log.base"},
    "data": {"data", "core", "log.base"},
    "admin": {"admin", "core", "data", "lifecycle", "agent.base", "log.base", "sources.admin"},
    "control": {"control", "core"},
    "proxy": {"core", "data", "lifecycle", "log.base"},
    "admin_client": {"admin_client", "core"},
    "cli": {"cli", "config", "core", "admin_client", "app", "agent_app", "demo"},
    "__main__": {"cli"},
}
"""For each part of the package, the parts and modules it may import. Those of WIRING may import everything."""
WIRING = {"app", "agent_app", "agent_platforms", "demo", "__init__"}

NOT_IN_CORE = {
    "asyncio", "concurrent", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "selectors", "shutil",
    "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip
"""I/O, clocks, randomness, logging: they come in as values, or stay outside."""

SOURCES = sorted(PACKAGE.rglob("*.py"))
CORE = [path for path in SOURCES if path.is_relative_to(PACKAGE / "core")]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported module, `from a import b` as both `a` and `a.b`, also inside functions."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                yield node.lineno, str(argument.value)


def _within(module: str, allowed: set[str]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in allowed)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part in WIRING:
        return
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what {part} may import"
    wrong = [
        f"{_name(path)}:{line}: {module}"
        for line, module in _imports(path)
        if module.startswith("gateway.") and not _within(module.removeprefix("gateway."), MAY_IMPORT[part])
    ]
    assert not wrong


@pytest.mark.parametrize("path", CORE, ids=_name)
def test_the_core_is_pure(path: Path) -> None:
    wrong = []
    for line, module in _imports(path):
        if _within(module, NOT_IN_CORE) or module.split(".")[0] not in {*sys.stdlib_module_names, "gateway"}:
            wrong.append(f"{_name(path)}:{line}: imports {module}")
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            wrong.append(f"{_name(path)}:{node.lineno}: waits")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "input")
        ):
            wrong.append(f"{_name(path)}:{node.lineno}: {node.func.id}()")
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_stay_small_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    assert not text.strip() or ast.get_docstring(_tree(path)), "no module docstring"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_task_belongs_to_a_group(path: Path) -> None:
    wrong = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "create_task":
            receiver = ast.unparse(node.func.value)
            if "loop" in receiver or receiver == "asyncio":
                wrong.append(f"{_name(path)}:{node.lineno}: {receiver}.create_task")
    assert not wrong


@pytest.mark.parametrize(
    "path",
    [path for path in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))] if "node_modules" not in path.parts],
    ids=_name,
)
def test_an_exception_to_a_ban_says_why(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = re.compile(r"[#] noqa(?!: [A-Z0-9, ]+ - \S)")
    assert not [f"{_name(path)}:{number}" for number, line in enumerate(lines, 1) if bare.search(line)]
