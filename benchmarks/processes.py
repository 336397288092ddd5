"""Processes under measurement: started on a given core, spoken to in lines, read from the kernel's accounts.

Linux only: it reads /proc.
"""

import contextlib
import json
import os
import random
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from gateway.agent import ports

STOP_S = 5.0
ANSWER_S = 120.0
POLL_S = 0.02
WORDS_CHARACTERS = 4000


class Broken(Exception):
    """A process ended, or did not do what it was started for. `words` is the end of what it printed."""

    def __init__(self, reason: str, words: str = "") -> None:
        *_, last = [line for line in words.splitlines() if line.strip()] or [""]
        super().__init__(f"{reason}: {last}" if last else reason)
        self.words = words


class Child:
    """A started process and all it started itself. Errors go to `log`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.pid = process.pid
        self.log = log
        self._process = process

    def tell(self, line: str) -> None:
        stdin = _pipe(self._process.stdin)
        stdin.write(line.encode() + b"\n")
        stdin.flush()

    def answer(self) -> str:
        """The next line it prints. Raises Broken if it ends instead, or prints nothing for ANSWER_S."""
        stdout = _pipe(self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            line = stdout.readline().decode().strip() if selector.select(ANSWER_S) else ""
        if not line:
            raise Broken(f"{self.log.stem} gave no answer", self._words())
        return line

    def result(self) -> dict[str, Any]:
        """The next line, which is a JSON object."""
        value = json.loads(self.answer())
        assert isinstance(value, dict)
        return value

    def await_listening(self, port: int) -> None:
        """Return when `port` accepts. Raises Broken if the process ends first or takes longer than ANSWER_S."""
        self.until(lambda: _accepts(port), f"nothing listens on port {port}")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when the condition holds. Raises Broken if the process ends first or it takes longer than ANSWER_S;
        `what` says what did not come about."""
        deadline_s = time.monotonic() + ANSWER_S
        while self._process.poll() is None and time.monotonic() < deadline_s:
            if condition():
                return
            time.sleep(POLL_S)
        raise Broken(what, self._words())

    def tree(self) -> list[int]:
        """Its process id and those of all descendants that live."""
        found = [self.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found

    def cpu_s(self) -> float:
        """CPU seconds, user and system, that the living processes of the tree have used so far."""
        # The clock of a whole process is made from its id (linux/posix-timers.h, CPUCLOCK_SCHED). It counts
        # nanoseconds, where utime and stime of /proc/PID/stat come in steps of 10 ms.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.tree())

    def descriptors(self) -> int:
        """Open files of the process alone."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_bytes(self, *, alone: bool = False) -> int:
        """Memory of the tree, or of the process alone, shared pages counted once; not mapped files, whose sharers come
        and go."""
        kib = 0
        for pid in [self.pid] if alone else self.tree():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    kib += int(line.split()[1])
        return kib * 1024

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after STOP_S, for the whole process group."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=STOP_S)
                return

    def _words(self) -> str:
        return self.log.read_text(errors="replace")[-WORDS_CHARACTERS:]


@contextlib.contextmanager
def started(command: Sequence[str], *, core: int | None, log: Path, talks: bool = False) -> Iterator[Child]:
    """Run `command` on `core`, or on any for None, for the length of the block; all it prints goes to `log`, unless it
    `talks` in lines."""
    allowed = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})  # inherited, so that the child is never anywhere else
    try:
        with log.open("wb") as words:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else words,
                stderr=words,
                process_group=0,
            )
    finally:
        os.sched_setaffinity(0, allowed)
    child = Child(process, log)
    try:
        yield child
    finally:
        child.stop()


def python(module: str, *arguments: object) -> list[str]:
    """The command line that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def cores() -> tuple[int, int]:
    """A core for the proxy and one for all else; the same one where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def free_port() -> int:
    """A port that nobody has, and that the kernel gives to no connection meanwhile."""
    return ports.free_port((), random.Random())


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def descriptor_limit() -> int:
    """The open files that the system lets this user have. From now on, children may have that many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "started() opens both pipes"
    return pipe
