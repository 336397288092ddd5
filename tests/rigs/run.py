"""Child processes of a test: started, waited for, and ended by their recorded pid.

A `Bench` owns every process a test starts and a directory for their output; leaving it ends them all.
Nothing here knows what the processes are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

REPO = Path(__file__).resolve().parents[2]
_POLL_S = 0.02


class NeverHappened(AssertionError):
    """What a test waited for did not come about in time."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, within_s: float = 20.0) -> None:
    """Poll `condition` until it holds; NeverHappened names `what` after `within_s` seconds."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise NeverHappened(f"not within {within_s} s: {what}")
        await asyncio.sleep(_POLL_S)  # noqa: TID251 - a poller: other processes cannot set an asyncio.Event


async def accepts(port: int) -> bool:
    """Whether something accepts TCP connections on 127.0.0.1:`port`."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


class Process:
    """One child process, leader of its own process group, its output in a file."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, output: Path) -> None:
        self.name = name
        self.output_path = output
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative the signal that ended it."""
        return self._child.returncode

    def output(self) -> str:
        """All it has written to stdout and stderr so far."""
        return self.output_path.read_text(errors="replace")

    async def wait(self) -> int:
        return await self._child.wait()

    async def ready(self, port: int, within_s: float = 30.0) -> None:
        """Wait until it accepts connections on `port`; fail at once if it ends first."""

        async def up() -> bool:
            if self.returncode is not None:
                raise NeverHappened(f"{self.name} ended with {self.returncode} before it was ready:\n{self.output()}")
            return await accepts(port)

        await until(up, f"{self.name} accepts on {port}; it wrote:\n{self.output()}", within_s)

    async def says(self, text: str, within_s: float = 30.0) -> None:
        """Wait until its output contains `text`; fail at once if it ends first."""

        def said() -> bool:
            if text in self.output():
                return True
            if self.returncode is not None:
                raise NeverHappened(f"{self.name} ended with {self.returncode}, never said {text!r}:\n{self.output()}")
            return False

        await until(said, f"{self.name} says {text!r}", within_s)

    async def kill(self) -> None:
        """SIGKILL to this process alone, and wait: what a crash looks like."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
        await self.wait()

    def children(self) -> set[int]:
        """Pids of the processes it has started itself and that still run (Linux: /proc)."""
        found: set[int] = set()
        for listing in Path(f"/proc/{self.pid}/task").glob("*/children"):
            found.update(map(int, listing.read_text().split()))
        return found

    async def interrupt(self, within_s: float = 15.0) -> int:
        """What Ctrl-C does, to this process alone; the exit code. Raises TimeoutError when it goes on."""
        os.kill(self.pid, signal.SIGINT)
        async with asyncio.timeout(within_s):
            return await self.wait()

    async def stop(self, grace_s: float = 5.0) -> int:
        """SIGTERM to its group, SIGKILL to the group after `grace_s`; the exit code."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    await self.wait()
            except TimeoutError:
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return await self.wait()


class Bench:
    """The processes of one test and the directory of their files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for process in self.processes:
                group.create_task(process.stop(grace_s=3.0))

    async def start(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = REPO
    ) -> Process:
        """Start `argv`; `env` is added to this process's own. Output goes on in the same file for the same name."""
        output = self.directory / f"{name}.out"
        with output.open("ab") as sink:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        process = Process(name, child, output)
        self.processes.append(process)
        return process

    async def python(self, name: str, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Start `python -m module` with this interpreter, in the repository's root."""
        return await self.start(name, [sys.executable, "-m", module, *arguments], env)
