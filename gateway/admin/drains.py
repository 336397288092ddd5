"""Draining a machine: it is cordoned, and what it still has is told until nothing is left.

A drain is a cordon, and ends with it: there is no state of its own. The sleeper leaves what is cordoned alone, so a
drained machine runs until somebody stops it.

*Nothing is left* has to hold for all gateways, and what others say is a moment old. So it is believed only if all are
heard, and, where there are others, only when all that counts of them was said after the cordon was seen here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import Trouble, answer
from gateway.admin.asking import Query, no_body
from gateway.admin.carried import heard, in_all, is_alone, live_sessions
from gateway.admin.machines import MAX_WAIT_S, Machines, named
from gateway.admin.needs import Admin
from gateway.core.model import Instance
from gateway.core.presence import Key
from gateway.core.problems import Code, Problem
from gateway.data.sessions import Session
from gateway.lifecycle.presence import LIVE_S

LOOK_EVERY_S: Final = 0.25
SETTLE_S: Final = LIVE_S
"""What is heard this long after the cordon was said after it."""
MAX_WAITING: Final = 20
"""Requests that wait at once; each looks at every session of this gateway, again and again."""
MAX_KNOWN: Final = 1000
"""Cordoned machines whose first look is remembered."""


class Left(NamedTuple):
    """What a machine still carries, over all gateways."""

    requests: int
    streams: int
    sessions: int


class Drains:
    """The endpoints under /v1/apps/{app}/machines/{id}/drain."""

    def __init__(self, admin: Admin, machines: Machines) -> None:
        self._admin = admin
        self._machines = machines
        self._waiting = 0
        self._seen_s: dict[Key, float] = {}
        """Since when a machine is seen to be cordoned."""

    async def drain(self, request: Request) -> Response:
        """Cordon it, and say what it has."""
        query = Query(request)
        sessions = query.word("sessions", ["true", "false"], "true") == "true"
        query.done()
        await no_body(request)
        before = named(self._admin, request)
        if not before.cordoned:
            self._seen_s.pop((before.app, before.id), None)
        await self._machines.set_cordon(before, True)
        return answer(self._progress(named(self._admin, request), sessions))

    async def drain_progress(self, request: Request) -> Response:
        """What it has; with `timeout`, as soon as nothing is left, or the drain is ended, or the time is over."""
        query = Query(request)
        sessions = query.word("sessions", ["true", "false"], "true") == "true"
        timeout_s = query.seconds("timeout", 0.0, MAX_WAIT_S)
        query.done()
        progress = self._progress(named(self._admin, request), sessions)
        if timeout_s and self._waiting >= MAX_WAITING:
            raise Trouble(Problem(Code.PL02, f"{MAX_WAITING} requests wait for drains already", retry_after_s=1))
        until_s = asyncio.get_running_loop().time() + timeout_s
        self._waiting += 1
        try:
            while progress["draining"] and not progress["drained"]:
                left_s = until_s - asyncio.get_running_loop().time()
                if left_s <= 0:
                    break
                # What other gateways carry is no event here.
                await asyncio.sleep(min(LOOK_EVERY_S, left_s))  # noqa: TID251 - see above
                progress = self._progress(named(self._admin, request), sessions)
        finally:
            self._waiting -= 1
        return answer(progress)

    # --- parts -------------------------------------------------------------------------

    def _progress(self, instance: Instance, count_sessions: bool) -> dict[str, object]:
        own = self._live_sessions(instance)
        load = self._admin.gateway.loads.of(instance.app, instance.id)
        left = Left(*in_all(self._admin, instance, load, len(own)))
        why = self._why_not(instance, left if count_sessions else left._replace(sessions=0))
        now_s = self._admin.gateway.now_s
        return {
            "app": instance.app,
            "instance": instance.id,
            "state": instance.state.value,
            "draining": instance.cordoned,
            "drained": not why,
            "why": why,
            "left": left._asdict(),
            "oldest_session_s": max((round(now_s - one.created_s, 1) for one in own), default=None),
            "last_used_s": min((round(now_s - one.last_s, 1) for one in own), default=None),
        }

    def _live_sessions(self, instance: Instance) -> Sequence[Session]:
        gateway = self._admin.gateway
        table = gateway.catalog.app(instance.app)
        if table is None:
            return ()
        return [one for one in live_sessions(gateway, table) if one.pin.instance == instance.id]

    def _why_not(self, instance: Instance, left: Left) -> str:
        """Why it cannot be taken away yet; empty when it can."""
        seen_s = self._seen_for_s(instance)
        if not instance.cordoned:
            return "it is not cordoned: new sessions come"
        if any(left):
            return "something is left"
        if not heard(self._admin):
            return "other gateways are not heard: what they carry is not known"
        if not is_alone(self._admin) and seen_s < SETTLE_S:
            return "it was cordoned a moment ago: other gateways may not know it yet"
        return ""

    def _seen_for_s(self, instance: Instance) -> float:
        key, now_s = (instance.app, instance.id), asyncio.get_running_loop().time()
        if not instance.cordoned:
            self._seen_s.pop(key, None)
            return 0.0
        if key not in self._seen_s and len(self._seen_s) >= MAX_KNOWN:
            # The oldest is settled by far; if it is asked for again, it settles again.
            del self._seen_s[next(iter(self._seen_s))]
        return now_s - self._seen_s.setdefault(key, now_s)
