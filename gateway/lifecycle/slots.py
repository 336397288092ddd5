"""Requests that wait because every instance that will do is at its hard limit: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.core.model import App
from gateway.core.problems import Code, Problem


class Slots:
    """The queues of one gateway, one per app, each bounded by the app's `wake_queue`."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def waiting(self, app: str) -> int:
        """How many requests wait."""
        return len(self._waiting.get(app, ()))

    async def wait(self, app: App, deadline_s: float) -> Problem | None:
        """Return None when an instance of the app carries less; a problem when the queue is full or time is up.

        Whoever returns decides anew, and may have to wait again: another request may have been faster.
        """
        queue = self._waiting.setdefault(app.name, deque())
        if len(queue) >= app.wake_queue:
            return Problem(Code.PL02, f"{len(queue)} requests already wait for a free slot", app.name, "", 1)
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        queue.append(turn)
        got = False
        try:
            async with asyncio.timeout_at(deadline_s):
                await turn
            got = True
        except TimeoutError:
            return Problem(
                Code.PR01, f"every instance stayed at its hard limit for {app.wake_timeout_s:g} s", app.name, "", 1
            )
        finally:
            if turn in queue:
                queue.remove(turn)
            elif not got:
                # The turn came in the moment the request left: it is the next one's.
                self.freed(app.name)
            if not queue:
                self._waiting.pop(app.name, None)
        return None

    def freed(self, app: str) -> None:
        """An instance of the app carries less, or the table changed: the first in the queue tries again."""
        queue = self._waiting.get(app)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
