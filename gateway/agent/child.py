"""One child process with its group: its output, its end, and how it is ended. Callbacks only; no task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final, cast

from gateway.agent.output import Lines
from gateway.agent.reaper import group_lives

DRAIN_S: Final = 0.2
"""How long the output of an ended process is awaited: a process it left behind may hold the pipe open for ever."""
GROUP_POLL_S: Final = 0.01
KILLED_S: Final = 2.0
"""SIGKILL takes effect at once, but for a process in uninterruptible sleep, which nothing can end."""


class Child(asyncio.SubprocessProtocol):
    """Knows when the process has ended *and* its output was read, whichever comes last; `ended` is set then.

    When its first process ends, whatever else is in its process group is killed: half an instance serves nobody. During
    an asked stop the others have the rest of the grace.
    """

    def __init__(self, lines: Lines, on_end: Callable[[Child], None]) -> None:
        self.lines = lines
        self.ended = asyncio.Event()
        self.stop_asked = False
        self.pid = 0
        self.status: int | None = None
        """Exit status, or the negative number of the signal that killed it (as `subprocess` has it)."""
        self._on_end = on_end
        self._exited = asyncio.Event()
        self._over = asyncio.Event()
        """Nothing of the group is left to be signalled: its number may soon be another group's."""
        self._transport: asyncio.SubprocessTransport | None = None
        self._output_over = False
        self._drain: asyncio.TimerHandle | None = None

    # --- what the event loop reports ---------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transport has the interface but not the base class.
        self._transport = cast(asyncio.SubprocessTransport, transport)
        pid = self._transport.get_pid()
        assert pid is not None
        self.pid = pid

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self.lines.feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._output_over = True
        if self._exited.is_set():
            self._finish()

    def process_exited(self) -> None:
        assert self._transport is not None
        self.status = self._transport.get_returncode()
        self._exited.set()
        if not self.stop_asked:
            self.signal_group(signal.SIGKILL)
        if self._output_over:
            self._finish()
        else:
            self._drain = asyncio.get_running_loop().call_later(DRAIN_S, self._finish)

    def _finish(self) -> None:
        if self.ended.is_set():
            return
        if self._drain is not None:
            self._drain.cancel()
        self.lines.end()
        self.ended.set()
        if not self.stop_asked:
            self._over.set()
        assert self._transport is not None
        self._transport.close()
        self._on_end(self)

    # --- what the driver does ----------------------------------------------------------

    def signal_group(self, number: int) -> bool:
        """Signal every process of the group; return whether there was one."""
        try:
            # start_new_session made the child the leader: its pid is the group's id, and stays so while a member lives.
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # macOS says so of a group of zombies; setuid members are out of reach anyway
            return False
        return True

    async def stop(self, grace_s: float) -> None:
        """Return when nothing of the group runs: SIGTERM, then SIGKILL when `grace_s` are over.

        Who asks while it is being stopped waits for that stop.
        """
        if self.stop_asked or self._over.is_set():
            await self._over.wait()
            return
        self.stop_asked = True
        group_empty = False
        try:
            async with asyncio.timeout(grace_s):
                self.signal_group(signal.SIGTERM)
                await self._exited.wait()
                await self._group_empty()
                group_empty = True
        except TimeoutError:
            pass
        finally:
            # Also when cancelled: what was told to end may not be left half-ended.
            if not group_empty:
                self.signal_group(signal.SIGKILL)
            try:
                await self._killed()
            finally:
                self._over.set()

    async def _killed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILLED_S):
                await self.ended.wait()
                await self._group_empty()

    async def _group_empty(self) -> None:
        while group_lives(self.pid):  # noqa: ASYNC110 - nobody is told when a grandchild ends
            await asyncio.sleep(GROUP_POLL_S)  # noqa: TID251 - as above
