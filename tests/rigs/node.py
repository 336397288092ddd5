"""The JavaScript peers: the SDK's TypeScript clients, server-everything, and the Node that runs them.

All of it comes from tests/live/node (package.json and its lock); Node itself too, since the conformance suite
needs 22 and a machine may have an older one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.rigs.py_fleet import Outcome, Plan, Session
from tests.rigs.run import REPO, Bench, Process

HOME = REPO / "tests" / "live" / "node"
_BIN = HOME / "node_modules" / ".bin"
_INSTALLED = HOME / "node_modules" / ".package-lock.json"
NODE = str(_BIN / "node")


class NoNode(RuntimeError):
    """There is no npm on this machine to install the JavaScript peers with."""


class NodeFailed(AssertionError):
    """A script ended with an error."""


async def install() -> None:
    """Install what the lock file names, unless that is done; raises NoNode, or NodeFailed with npm's words."""
    lock = HOME / "package-lock.json"
    if _INSTALLED.exists() and _INSTALLED.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise NoNode("npm is not on PATH")
    await _run([npm, "ci", "--no-audit", "--no-fund"], "", 300.0)
    _INSTALLED.touch()


async def script(name: str, config: Mapping[str, Any], within_s: float = 240.0) -> Any:
    """Run tests/live/node/`name` with `config` as JSON on its standard input; its standard output, parsed."""
    return json.loads(await _run([NODE, name], json.dumps(config), within_s))


async def run_ts_fleet(plan: Plan, within_s: float = 240.0) -> Outcome:
    """The fleet of `plan` with the TypeScript SDK 1.x."""
    result = await script("ts_fleet.mjs", asdict(plan), within_s)
    return Outcome([Session(**session) for session in result["sessions"]])


async def server_everything(bench: Bench, name: str, port: int, mode: str) -> Process:
    """`server-everything` in mode `sse` (GET /sse, POST /message) or `streamableHttp` (/mcp), ready on `port`."""
    entry = HOME / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    process = await bench.start(name, [NODE, str(entry), mode], {"PORT": str(port)}, HOME)
    await process.ready(port)
    return process


async def command(name: str, *arguments: str, cwd: Path, within_s: float) -> tuple[int, str]:
    """Run an installed package's command under our Node; exit code and all output."""
    argv = [NODE, str((_BIN / name).resolve()), *arguments]
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
    return {**os.environ, "PATH": f"{_BIN}:{os.environ.get('PATH', '')}"}


async def _run(argv: Sequence[str], stdin: str, within_s: float) -> str:
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=HOME
    )
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
