"""The process driver: instances are child processes of the agent, each in a session and process group of its own.

No readiness here (the agent probes) and no restarts (traffic or an operator starts). What keeps processes from
outliving the agent is the leash. Limits are listed in docs/reference/lifecycle.md.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import signal
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.agent.base import DriverError, Failure, FailureKind, InstanceKey, Observed, Running, Spec
from gateway.agent.child import Child
from gateway.agent.environ import fill_port, instance_environ
from gateway.agent.leash import Leash
from gateway.agent.output import Lines, Output, to_stderr
from gateway.agent.ports import LOOPBACK, free_port, in_use
from gateway.core.model import Address

_PORT_TAKEN_WORDS: Final = ("address already in use", "eaddrinuse")


@dataclass(slots=True)
class _Run:
    """One incarnation of one instance, from its start until it is stopped or replaced."""

    spec: Spec
    incarnation: str
    address: Address
    child: Child
    suspended: bool = False

    def observed(self) -> Observed:
        ended = self.child.ended.is_set()
        return Observed(
            key=self.spec.key,
            incarnation=self.incarnation,
            running=not ended and not self.suspended,
            suspended=self.suspended and not ended,
            address=None if ended or self.suspended else self.address,
            failure=self._failure() if ended and not self.child.stop_asked else None,
            detail=f"pid {self.child.pid}",
            output=self.child.lines.tail(),
        )

    def _failure(self) -> Failure | None:
        status = self.child.status
        if status == 0:
            return None
        tail = self.child.lines.tail()
        detail = f"its last output:\n{tail}" if tail else "it printed nothing"
        if any(words in tail.lower() for words in _PORT_TAKEN_WORDS) or in_use(self.address):
            text = f"{self.spec.key} could not listen on port {self.address.port}, which is taken"
            return Failure(FailureKind.PORT_TAKEN, text, detail)
        return Failure(FailureKind.EXITED, f"{self.spec.key} {describe_status(status)}", detail)


class ProcessDriver:
    """Runs commands. Works on any asyncio event loop; close it on the loop that used it."""

    def __init__(
        self,
        *,
        output: Output = to_stderr,
        rng: random.Random | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._rng = rng or random.Random()
        self._clock_s = clock_s
        self._runs: dict[InstanceKey, _Run] = {}
        self._given: set[int] = set()
        """Ports of starts under way."""
        self._leash = Leash()
        self._news: dict[InstanceKey, Observed] = {}
        self._has_news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ProcessDriver running={len(self._runs)} {self._leash!r}>"

    @property
    def startable(self) -> bool:
        return True

    @property
    def leash(self) -> Leash:
        return self._leash

    @property
    def suspendable(self) -> bool:
        return True

    async def start(self, spec: Spec, incarnation: str) -> Running:
        run = self._runs.get(spec.key)
        if run is not None and not run.child.ended.is_set():
            if run.incarnation == incarnation:
                if run.suspended:
                    run.suspended = False
                    run.child.signal_group(signal.SIGCONT)
                return Running(run.address, incarnation)
            text = f"{spec.key} still runs as incarnation {run.incarnation}; stop it before {incarnation} is started"
            raise DriverError(Failure(FailureKind.REFUSED, text))
        address = self._choose_address(spec)
        self._given.add(address.port)
        try:
            return Running(await self._launch(spec, incarnation, address), incarnation)
        finally:
            self._given.discard(address.port)

    async def _launch(self, spec: Spec, incarnation: str, address: Address) -> Address:
        environ = instance_environ(spec.key.app, spec.key.id, spec.region, incarnation, address.port, spec.env)
        environ["MOORAGE_LEASH"] = self._leash.mark(incarnation)
        argv = [fill_port(word, address.port) for word in spec.command]
        executable = find_executable(spec, argv[0], environ.get("PATH", os.defpath))
        child = await self._spawn(spec, executable, argv[1:], environ)
        self._leash.add(child.pid, incarnation)
        self._news.pop(spec.key, None)
        run = self._runs[spec.key] = _Run(spec, incarnation, address, child)
        if child.ended.is_set():  # before it was entered above, so that `_on_end` did not know it
            self._leash.remove(child.pid)
            self._tell(run)
        return address

    async def suspend(self, key: InstanceKey) -> None:
        """SIGSTOP to the whole group: it keeps its memory and its connections, and uses no CPU."""
        run = self._runs.get(key)
        if run is None or run.child.ended.is_set():
            raise DriverError(Failure(FailureKind.NOT_SUSPENDABLE, f"{key} does not run"))
        run.child.signal_group(signal.SIGSTOP)
        run.suspended = True

    async def refresh(self) -> None:
        """Nothing of a child of this process goes unnoticed."""

    async def stop(self, key: InstanceKey, grace_s: float) -> None:
        run = self._runs.get(key)
        if run is None:
            return
        if run.suspended:
            # A frozen process acts on SIGTERM only once it goes on.
            run.suspended = False
            run.child.signal_group(signal.SIGCONT)
        await run.child.stop(grace_s)
        self._leash.remove(run.child.pid)
        if self._runs.get(key) is run:
            del self._runs[key]
            self._news.pop(key, None)

    def inspect(self, key: InstanceKey) -> Observed | None:
        run = self._runs.get(key)
        return run.observed() if run is not None else None

    def list(self) -> Sequence[Observed]:
        return [run.observed() for run in self._runs.values()]

    async def watch(self) -> AsyncGenerator[Observed, None]:
        while True:
            await self._has_news.wait()
            while self._news:
                _, observed = self._news.popitem()
                yield observed
            self._has_news.clear()

    async def aclose(self) -> None:
        async with asyncio.TaskGroup() as stops:
            for run in self._runs.values():
                stops.create_task(run.child.stop(0.0))
        self._runs.clear()
        await self._leash.aclose()

    # --- parts of a start --------------------------------------------------------------

    def _choose_address(self, spec: Spec) -> Address:
        if spec.address is not None:
            if in_use(spec.address):
                # Else whoever listens there would be taken for the instance.
                text = f"{spec.key} cannot listen on port {spec.address.port}, which is taken"
                raise DriverError(Failure(FailureKind.PORT_TAKEN, text, str(spec.address)))
            return spec.address
        # A port given away is not seen in use until the instance listens on it.
        taken = {run.address.port for run in self._runs.values()} | self._given
        try:
            return Address(LOOPBACK, free_port(taken, self._rng))
        except OSError as error:
            raise DriverError(Failure(FailureKind.REFUSED, f"{spec.key}: no port is free", str(error))) from error

    async def _spawn(self, spec: Spec, executable: str, arguments: Sequence[str], environ: dict[str, str]) -> Child:
        lines = Lines(spec.key, self._output, self._clock_s)
        try:
            await self._leash.hold()
            _, child = await asyncio.get_running_loop().subprocess_exec(
                lambda: Child(lines, self._on_end),
                executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=spec.cwd,
                env=environ,
                start_new_session=True,
            )
        except OSError as error:
            raise DriverError(explain_exec(spec.key, executable, error)) from error
        return child

    def _on_end(self, child: Child) -> None:
        for run in self._runs.values():
            if run.child is child:
                self._leash.remove(child.pid)
                self._tell(run)
                return

    def _tell(self, run: _Run) -> None:
        if not run.child.stop_asked:
            self._news[run.spec.key] = run.observed()
            self._has_news.set()


def find_executable(spec: Spec, command: str, search_path: str) -> str:
    """Return the path to execute, so that each mistake gets its own words instead of one ENOENT.

    Raises:
        DriverError: no such directory, no such command, or not executable.
    """
    if spec.cwd is not None and not spec.cwd.is_dir():
        raise DriverError(Failure(FailureKind.CWD_MISSING, f"{spec.key}: its cwd is not a directory", str(spec.cwd)))
    # As the shell does: a word with a slash is a path (from cwd), any other is searched for.
    if "/" not in command:
        found = shutil.which(command, path=search_path)
        if found is None:
            detail = f"{command!r} is not in PATH ({search_path})"
            raise DriverError(Failure(FailureKind.COMMAND_NOT_FOUND, f"{spec.key}: its command was not found", detail))
        return str(Path(found).absolute())
    path = (spec.cwd or Path.cwd()) / command
    if not path.is_file():
        raise DriverError(Failure(FailureKind.COMMAND_NOT_FOUND, f"{spec.key}: its command was not found", str(path)))
    if not os.access(path, os.X_OK):
        raise DriverError(Failure(FailureKind.NOT_EXECUTABLE, f"{spec.key}: its command is not executable", str(path)))
    return str(path)


def explain_exec(key: InstanceKey, executable: str, error: OSError) -> Failure:
    """Name what the kernel said when it would not execute an existing file."""
    match error.errno:
        case errno.ENOENT:
            detail = f"the interpreter in the first line of {executable} does not exist"
            return Failure(FailureKind.NOT_EXECUTABLE, f"{key}: its command is not executable", detail)
        case errno.EACCES | errno.EPERM | errno.ENOEXEC | errno.EISDIR:
            detail = f"{executable}: {error.strerror}"
            return Failure(FailureKind.NOT_EXECUTABLE, f"{key}: its command is not executable", detail)
        case _:
            return Failure(FailureKind.REFUSED, f"{key}: the system would not start it", f"{executable}: {error}")


def describe_status(status: int | None) -> str:
    """Say how a process ended."""
    if status is None:
        return "ended in an unknown way"
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"
