"""Requests that wait for a slot, every instance that will do being at its hard limit, or for news: first come, first
served.

Who waits for one instance (a pinned session) goes before who waits for any: only that instance will do.
"""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.core.model import App
from gateway.core.problems import Code, Problem
from gateway.lifecycle.holds import Holds

ANY = ""
"""The queue of those whom any instance of the app will do."""


class Slots:
    """The queues of one gateway. An app's `wake_queue` bounds what waits here and for its wakes together."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self._queues: dict[tuple[str, str], deque[asyncio.Future[None]]] = {}

    async def wait(self, app: App, instance: str, deadline_s: float) -> Problem | None:
        """Return None when the instance (or any, for ANY) carries less; a problem when the queue is full or time is up.

        Whoever returns decides anew, and may have to wait again: another request may have been faster.
        """
        refusal = self._holds.enter(app)
        if refusal is not None:
            return refusal
        key = (app.name, instance)
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(key, deque()).append(turn)
        got = False
        try:
            async with asyncio.timeout_at(deadline_s):
                await turn
            got = True
        except TimeoutError:
            text = f"no instance that will do could take the request for {app.wake_timeout_s:g} s"
            return Problem(Code.PR01, text, app.name, instance, 1)
        finally:
            self._holds.leave(app)
            queue = self._queues.get(key)
            if queue is not None and turn in queue:
                queue.remove(turn)
                if not queue:
                    del self._queues[key]
            elif not got:
                # The turn came in the moment this request left: it is the next one's.
                self.freed(app.name, instance)
        return None

    def freed(self, app: str, instance: str) -> None:
        """An instance of the app carries less: the first in its queue tries again, or the first of those for any."""
        if self._queues and not self._wake(app, instance):
            self._wake(app, ANY)

    def changed(self, app: str) -> None:
        """The app's table is another: everybody in its queues tries again."""
        for key in [key for key in self._queues if key[0] == app]:
            while self._wake(*key):
                pass

    def _wake(self, app: str, instance: str) -> bool:
        queue = self._queues.get((app, instance))
        while queue:
            turn = queue.popleft()
            if not queue:
                del self._queues[app, instance]
            if not turn.done():
                turn.set_result(None)
                return True
        return False
