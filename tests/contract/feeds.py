"""What the tests of feeds share: a reader, and how long things may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.log.base import LogUnavailable
from gateway.log.feed import CHUNK, Feed, Read

LONG_S = 10.0
"""Longer than anything takes here; a test that needs it fails."""
FOREVER_S = 1000.0
NOTICED_S = 5.0
"""A stopped server is noticed within this."""

Closing = Callable[[Feed], Feed]
"""The fixture that closes at the end what it is given."""


class Reader:
    """One reader's place in a feed."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.at = ("", "")

    async def next(self, wait_s: float = 0.0) -> Read:
        async with asyncio.timeout(LONG_S):
            read = await self.feed.read(*self.at, wait_s)
        self.at = read.history, read.position
        return read

    async def after_failures(self) -> Read:
        """What the next answer says; connections that were cut are made again."""
        async with asyncio.timeout(NOTICED_S):
            while True:
                try:
                    return await self.next()
                except LogUnavailable:
                    continue

    async def known(self) -> list[bytes]:
        """What a reader knows at the end that forgets at every restart."""
        known: list[bytes] = []
        while True:
            read = await self.next()
            known = [*([] if read.restart else known), *read.messages]
            assert len(read.messages) <= CHUNK
            if read.end:
                return known


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]
