"""What this gateway says to the others, and what all of them say: once a second, and at once when a sleep is prepared.

Without the store nobody is heard, so nothing is put to sleep; loads count as this gateway knows them by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from gateway.core.model import AppTable, AutoStop, IdleStreams
from gateway.core.presence import NEVER_S, Carried, Key, Said, encode, heard, merge
from gateway.data.state import Gateway
from gateway.log.base import LogUnavailable

SAY_EVERY_S: Final = 1.0
LIVE_S: Final = 5.0
"""A gateway that has said nothing for this long is taken for gone."""

logger = structlog.get_logger(__name__)


class Store(Protocol):
    """What is used of the presence store (`gateway.log.presence`)."""

    async def put(self, gateway: str, message: bytes, ttl_s: float) -> None:
        """Raises LogUnavailable."""

    async def all(self) -> Mapping[str, bytes]:
        """Raises LogUnavailable."""


class Presence:
    """One gateway's voice and ears. `run` in a task of its own."""

    def __init__(self, gateway: Gateway, store: Store, name: str) -> None:
        self.all_said: Sequence[Said | None] = ()
        """What every live gateway said last, this one's own among them; empty while the store is away."""
        self.merged: Mapping[Key, Carried] = {}
        self.since_s: float | None = None
        """Since when all that happens anywhere is heard, by the gateway's coarse clock; None while it is not."""
        self._gateway = gateway
        self._store = store
        self._name = name
        self._sleeping: dict[Key, str] = {}
        self._news = asyncio.Event()
        self._unsubscribe: Callable[[], None] = gateway.catalog.subscribe(self._changed)

    def heard_for_s(self) -> float:
        """For how long all that happens anywhere has been heard."""
        return max(0.0, self._gateway.now_s - self.since_s) if self.since_s is not None else 0.0

    def close(self) -> None:
        self._unsubscribe()

    async def run(self) -> None:
        """Speak and listen until cancelled."""
        while True:
            self._news.clear()
            await self.speak()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAY_EVERY_S):
                    await self._news.wait()

    async def speak(self) -> None:
        """Say what is carried here, and hear what the others do."""
        try:
            await self._store.put(self._name, encode(self.said()), LIVE_S)
            await self.listen()
        except LogUnavailable as error:
            if self.since_s is not None:
                logger.warning("other gateways are not heard", error=str(error))
            self.all_said, self.merged, self.since_s = (), {}, None
            self._gateway.loads.others = {}

    async def listen(self) -> None:
        """Hear what all gateways said. Raises LogUnavailable."""
        before, self.all_said = self.all_said, heard(await self._store.all())
        if _had_sessions(before) - _lives(self.all_said):
            # A gateway has ended, and with it what it knew of sessions: who has some is not known for a while.
            self.since_s = self._gateway.now_s
        self.merged = merge(self.all_said)
        others = merge(one for one in self.all_said if one is None or one.gateway != self._name)
        self._gateway.loads.others = {key: one.load for key, one in others.items() if one.load}
        if self.since_s is None:
            self.since_s = self._gateway.now_s

    def said(self) -> Said:
        """What is carried here now."""
        gateway = self._gateway
        sessions = self._sessions()
        # A stream that answers a request is that request, where streams may be parked.
        parks = {name for name in {app for (app, _), _ in gateway.loads.items()} if self._parks(name)}
        carried = {
            key: Carried(
                load.requests + (load.streams - load.parkable if key[0] in parks else 0),
                load.parkable if key[0] in parks else load.streams,
                sessions.pop(key, 0),
                max(0.0, gateway.now_s - load.last_s) if load.last_s else NEVER_S,
                self._sleeping.get(key, ""),
            )
            for key, load in gateway.loads.items()
        }
        for key, count in sessions.items():
            carried[key] = Carried(sessions=count, sleep=self._sleeping.get(key, ""))
        for key, token in self._sleeping.items():
            if key not in carried:
                carried[key] = Carried(sleep=token)
        return Said(self._name, gateway.boot, carried)

    def _parks(self, app: str) -> bool:
        table = self._gateway.catalog.app(app)
        return table is not None and table.app.idle_streams is IdleStreams.PARK

    def _sessions(self) -> dict[Key, int]:
        """Live sessions by instance, of the apps where they matter to somebody."""
        gateway, counts = self._gateway, dict[Key, int]()
        tables: dict[str, AppTable | None] = {}
        for session in gateway.sessions:
            home = session.home
            if home not in tables:
                table = gateway.catalog.app(home)
                tables[home] = table if table is not None and _counts(table) else None
            table = tables[home]
            if table is None or gateway.now_s - session.last_s >= table.app.session_idle_s:
                continue
            instance = table.instances.get(session.pin.instance)
            if instance is not None and instance.incarnation == session.pin.incarnation:
                key = (home, session.pin.instance)
                counts[key] = counts.get(key, 0) + 1
        return counts

    def _changed(self, app: str) -> None:
        """An app's table is another: who of it is about to sleep is told at once."""
        table = self._gateway.catalog.app(app)
        before = {key: token for key, token in self._sleeping.items() if key[0] == app}
        now = {}
        if table is not None and (before or table.app.auto_stop is not AutoStop.OFF):
            now = {(app, one.id): one.sleep for one in table.instances.values() if one.sleep}
        if now != before:
            for key in before:
                del self._sleeping[key]
            self._sleeping |= now
            if table is not None and table.app.idle_streams is IdleStreams.PARK:
                for relay in list(self._gateway.streams):
                    relay.rest(now)
            self._news.set()


def _counts(table: AppTable) -> bool:
    """Whether its sessions are counted: a sleep may end them (a suspend does not, but an agent that cannot suspend
    stops), or a cordoned instance is waited for."""
    app = table.app
    ends = app.auto_stop is not AutoStop.OFF and not app.sessions_survive_stop
    return ends or any(one.cordoned for one in table.instances.values())


def _lives(all_said: Sequence[Said | None]) -> set[tuple[str, str]]:
    return {(one.gateway, one.boot) for one in all_said if one is not None}


def _had_sessions(all_said: Sequence[Said | None]) -> set[tuple[str, str]]:
    """The lives of gateways that knew of sessions."""
    return {
        (one.gateway, one.boot)
        for one in all_said
        if one is not None and any(carried.sessions for carried in one.carried.values())
    }
