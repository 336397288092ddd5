"""The agent's end of the leash: the promise that no instance outlives its agent, however the agent dies.

One small process (reaper.py) per process driver knows every process group that runs and acts when the agent's pipe
closes. Compared with PR_SET_PDEATHSIG in each child: it ends grandchildren too, gives SIGTERM before SIGKILL, works
where there is no prctl, does not depend on which thread forked, and adds nothing to an instance's start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import sys
from pathlib import Path
from typing import Final

from gateway.agent import reaper
from gateway.agent.environ import inherited_environ

CLOSE_LIMIT_S: Final = 2 * reaper.GRACE_S + 1.0


class _Reaper(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def process_exited(self) -> None:
        self.ended.set()


class Leash:
    """Tells the reaper which process groups run. Its process is started when the first one does.

    Should the reaper itself be killed, the next `add` or `remove` starts another one and tells it everything.
    """

    def __init__(self) -> None:
        self._token = secrets.token_hex(8)
        self._groups: dict[int, str] = {}
        self._pipe: int | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._reaper: _Reaper | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        pid = self._transport.get_pid() if self._transport is not None else None
        return f"<Leash reaper={pid} groups={sorted(self._groups)}>"

    @property
    def reaper_pid(self) -> int | None:
        return self._transport.get_pid() if self._transport is not None else None

    def mark(self, incarnation: str) -> str:
        """The value of MOORAGE_LEASH for one incarnation's environment."""
        return f"{self._token}-{incarnation}"

    async def hold(self) -> None:
        """Make sure that a reaper runs; call before the first process of an instance exists."""
        async with self._opening:
            if self._reaper is not None and not self._reaper.ended.is_set() and not self._is_broken():
                return
            self._drop_process()
            await self._open()
            for group, incarnation in self._groups.items():
                self._tell("+", group, incarnation)

    def add(self, group: int, incarnation: str) -> None:
        self._groups[group] = incarnation
        self._tell("+", group, incarnation)

    def remove(self, group: int) -> None:
        """The group has ended; the reaper kills what left the group but not the instance."""
        incarnation = self._groups.pop(group, None)
        if incarnation is not None:
            self._tell("-", group, incarnation)

    async def aclose(self) -> None:
        """Let go: the reaper ends whatever is left and then itself."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._reaper is not None:
            try:
                async with asyncio.timeout(CLOSE_LIMIT_S):
                    await self._reaper.ended.wait()
            except (
                TimeoutError
            ):  # its work is bounded by the same limit, so it is stuck: closing the transport kills it
                pass
        self._drop_process()

    async def _open(self) -> None:
        read_end, self._pipe = os.pipe()
        # A reaper that is stopped must not stop the agent: a full pipe drops the line instead (see _tell).
        os.set_blocking(self._pipe, False)
        try:
            self._transport, self._reaper = await asyncio.get_running_loop().subprocess_exec(
                _Reaper,
                *(sys.executable, "-I", "-S", str(Path(reaper.__file__)), self._token),
                stdin=read_end,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=None,
                env=inherited_environ(),
                start_new_session=True,
            )
        except OSError:
            os.close(self._pipe)
            self._pipe = None
            raise
        finally:
            os.close(read_end)

    def _drop_process(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._transport is not None:
            self._transport.close()
        self._transport = self._reaper = None

    def _is_broken(self) -> bool:
        """Whether the reaper's end of the pipe is closed: true the moment it dies, before the loop hears of it."""
        if self._pipe is None:
            return True
        poll = select.poll()
        poll.register(self._pipe, 0)
        return bool(poll.poll(0))

    def _tell(self, sign: str, group: int, incarnation: str) -> None:
        if self._pipe is None:
            return
        # A stopped reaper blocks, a dead one breaks the pipe: the next `hold` replaces the latter.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            # Written at once, not through the event loop: what is buffered in a killed process is never sent.
            os.write(self._pipe, f"{sign}{group} {self.mark(incarnation)}\n".encode())
