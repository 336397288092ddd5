"""A real Redis (or Valkey, which speaks the same), empty whenever it starts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.rigs.run import Bench, Process, free_port


class NoRedis(RuntimeError):
    """No server program on this machine."""


class Redis:
    """One server on a port of its own; `kill` and `start` as often as wanted."""

    def __init__(self, bench: Bench, name: str = "redis") -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._bench = bench
        self._name = name
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it with nothing in it and nothing kept on disk; ready when this returns."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = await self._bench.start(self._name, [_program(), *options], cwd=self._bench.directory)
        await self._process.ready(self.port)

    async def kill(self) -> None:
        """SIGKILL: every connection is reset and everything in it is gone."""
        if self._process is not None:
            await self._process.kill()


def _program() -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    found = shutil.which("redis-server", path=path)
    if found is None:
        raise NoRedis("redis-server is neither on PATH nor in the virtual environment: run scripts/install")
    return found
