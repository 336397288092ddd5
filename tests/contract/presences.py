"""What the tests of presence share: how long things may take, and short ways to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.log.presence import Presence

LONG_S = 10.0
"""Longer than anything takes here; a test that needs it fails."""
TTL_S = 600.0
SHORT_S = 0.06
"""For what is to end while a test looks on."""

Asks = list[Callable[[], Awaitable[object]]]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return once it holds: nothing announces that something expired."""
    async with asyncio.timeout(LONG_S):
        while not await holds():  # noqa: ASYNC110 - a store announces nothing
            await asyncio.sleep(0.005)  # noqa: TID251 - a poller


async def names(presence: Presence, app: str | None = None) -> list[tuple[str, str, str]]:
    return [lease[:3] for lease in await presence.held(app)]


def everything(presence: Presence) -> Asks:
    """Each operation once."""
    return [
        lambda: presence.put("gw-1", b"a", TTL_S),
        presence.all,
        lambda: presence.drop("gw-1"),
        lambda: presence.lead("sleeper", "gw-1", TTL_S),
        lambda: presence.resign("sleeper", "gw-1"),
        lambda: presence.hold("tools", "i-1", "job", 60.0, replace=True),
        lambda: presence.release("tools", "i-1", "job"),
        presence.held,
    ]


async def is_(asked: Awaitable[object], expected: object) -> bool:
    return await asked == expected
