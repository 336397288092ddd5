"""A real Redis for tests: its own port and folder, ended by its recorded process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import IO

import redis

PROGRAM = "redis-server"


class RedisServer:
    """One server; `kill` and `start` as often as wanted, always on the same port."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which(PROGRAM)
        assert found is not None, f"{PROGRAM} is not on PATH: these tests need a real one (Debian: redis-server)"
        self._program = found
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, protocol=2)

    def start(self, *options: str) -> None:
        """Start it empty; ready when this returns."""
        fixed = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ]
        command = [self._program, *fixed, "--dir", str(self._folder), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output: IO[str] | None = self._process.stdout
        assert output is not None
        for line in output:
            if "Ready to accept connections" in line:
                return
        raise AssertionError(f"{PROGRAM} ended before it was ready")

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def wait_for_replica(self) -> None:
        """Return once one replica has everything that was written."""
        with self.client() as client:
            # WAIT is about what its own connection wrote.
            client.set("waited-for", "")
            assert client.wait(1, 10_000) == 1, "the replica did not catch up"

    def kill(self) -> None:
        """Everything in it is gone."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
