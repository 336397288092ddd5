"""Recorded sessions that are in use are kept from expiring, off the requests' way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from gateway.core.model import OnLost
from gateway.data.bindings import Key
from gateway.data.state import Gateway
from gateway.log.base import LogUnavailable

AT_LEAST_S: Final = 1.0
AT_MOST_S: Final = 900.0
"""It is done every quarter of the shortest `session_idle`, within these bounds."""

logger = structlog.get_logger(__name__)


class Store(Protocol):
    """What is used of the recorded sessions (`gateway.log.recordings`)."""

    async def renew(self, keys: Sequence[Key]) -> None:
        """Raises LogUnavailable."""


class Renewal:
    """One gateway's. `run` in a task of its own."""

    def __init__(self, gateway: Gateway, store: Store) -> None:
        self._gateway = gateway
        self._store = store
        self._done_s = 0.0
        """What was used before, by the gateway's coarse clock, is renewed."""

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self.every_s())  # noqa: TID251 - expiry is time
            await self.renew()

    async def renew(self) -> None:
        """Once: the recordings of the sessions that were used since the last time live on."""
        now_s = self._gateway.now_s
        keys = self._gateway.bindings.in_use(self._done_s)
        if not keys:
            return
        try:
            await self._store.renew(keys)
        except LogUnavailable as error:
            # They are tried again with the next ones.
            logger.warning("recorded sessions are not renewed", sessions=len(keys), error=str(error))
        else:
            self._done_s = now_s

    def every_s(self) -> float:
        """How often it is done now."""
        catalog = self._gateway.catalog
        apps = [table.app for name in catalog.apps() if (table := catalog.app(name)) is not None]
        if all(app.on_lost is not OnLost.REINITIALIZE for app in apps):
            return AT_MOST_S
        return min(max(min(app.session_idle_s for app in apps) / 4, AT_LEAST_S), AT_MOST_S)
