"""Following a feed: what its listener is told, and what becomes of what is published."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.log.feed import CHUNK, MAX_MESSAGE_BYTES, MAX_OUTGOING, Feed, Following
from gateway.log.feed_memory import MemoryFeed, MemoryMessages
from gateway.log.follower import BACKOFF_MAX_S
from tests.contract.feeds import LONG_S, Closing, numbered
from tests.contract.redis_server import RedisServer
from tests.contract.stores import FeedStore, RedisFeedStore


class Seen:
    """A listener that keeps what it is told, and tells when it is told something."""

    def __init__(self) -> None:
        self.known: list[bytes] = []
        self.told: list[str] = []
        """What happened, takes without `restart` left out."""
        self.refused: list[bytes] = []
        self._told = asyncio.Event()

    def take(self, messages: Sequence[bytes], restart: bool) -> None:
        if restart:
            self.known.clear()
            self.told.append("restart")
        self.known += messages
        self._told.set()

    def lost(self) -> None:
        self.known.clear()
        self.told.append("lost")
        self._told.set()

    def failed(self, message: bytes) -> None:
        self.refused.append(message)
        self._told.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG_S):
            while not true():
                self._told.clear()
                await self._told.wait()


class NoDelay(random.Random):
    """Keeps what it was asked for, and answers the least."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[tuple[float, float]] = []
        self.enough = asyncio.Event()
        """Set at the eighth time."""

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        if len(self.asked) >= 8:
            self.enough.set()
        return a


class Gateway:
    def __init__(self, feed: Feed, seen: Seen | None = None) -> None:
        self.seen = seen if seen is not None else Seen()
        self.rng = NoDelay()
        self.following = Following(feed, self.seen, self.rng)


@asynccontextmanager
async def running(*gateways: Gateway) -> AsyncIterator[None]:
    """While they run, and know what is kept."""
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(gateway.following.run()) for gateway in gateways]
        for gateway in gateways:
            await gateway.seen.until(lambda gateway=gateway: gateway.following.connected)  # type: ignore[misc]
        yield
        for run in runs:
            run.cancel()


async def test_two_gateways_see_each_others_messages_and_their_own(feeds: FeedStore, closing: Closing) -> None:
    gateways = [Gateway(closing(feeds.open())), Gateway(closing(feeds.open()))]
    async with running(*gateways):
        for number in range(10):
            for which, gateway in enumerate(gateways):
                gateway.following.publish(b"%d of %d" % (number, which))
        for gateway in gateways:
            await gateway.seen.until(lambda seen=gateway.seen: len(seen.known) == 20)  # type: ignore[misc]
    assert gateways[0].seen.known == gateways[1].seen.known
    for which, gateway in enumerate(gateways):
        own = [message for message in gateway.seen.known if message.endswith(b"%d" % which)]
        assert own == [b"%d of %d" % (number, which) for number in range(10)]
        assert (gateway.seen.refused, gateway.following.dropped) == ([], 0)
        assert "lost" not in gateway.seen.told


async def test_a_redis_that_dies_is_an_outage_and_an_empty_one_afterwards_a_restart(
    on_redis: RedisFeedStore, redis_server: RedisServer, closing: Closing
) -> None:
    gateway = Gateway(closing(on_redis.open()))
    gateway.rng.uniform = random.Random(1).uniform  # type: ignore[method-assign]
    seen, following = gateway.seen, gateway.following
    async with running(gateway):
        following.publish(b"a")
        await seen.until(lambda: seen.known == [b"a"])
        seen.told.clear()
        redis_server.kill()
        await seen.until(lambda: seen.told == ["lost"])
        assert not following.connected
        following.publish(b"b")
        await seen.until(lambda: seen.refused == [b"b"])
        redis_server.start()
        await seen.until(lambda: following.connected)
        following.publish(b"c")
        await seen.until(lambda: seen.known == [b"c"])
    # The first append begins a history, which is a restart too.
    assert seen.told == ["lost", "restart", "restart"]


@pytest.fixture
async def messages() -> MemoryMessages:
    return MemoryMessages()


def switch(messages: MemoryMessages, *, away: bool) -> None:
    messages.away = away
    messages.changed()


async def test_an_outage_is_told_once_and_ends_with_what_is_kept(messages: MemoryMessages) -> None:
    messages.append([b"a", b"b"])
    gateway = Gateway(MemoryFeed(messages))
    async with running(gateway):
        seen, following = gateway.seen, gateway.following
        assert (seen.told, seen.known, following.received) == (["restart"], [b"a", b"b"], 2)
        switch(messages, away=True)
        async with asyncio.timeout(LONG_S):
            await gateway.rng.enough.wait()
        assert not following.connected
        assert (seen.told, seen.known) == (["restart", "lost"], [])
        messages.append([b"c"])
        switch(messages, away=False)
        await seen.until(lambda: following.connected)
        assert (seen.told, seen.known) == (["restart", "lost", "restart"], [b"a", b"b", b"c"])
        assert following.received == 5
        # Full jitter, doubling, from the start again after a success.
        tries = len(gateway.rng.asked)
        assert gateway.rng.asked[:6] == [(0.0, 0.1), (0.0, 0.2), (0.0, 0.4), (0.0, 0.8), (0.0, 1.6), (0.0, 2.0)]
        assert {most for _, most in gateway.rng.asked[6:]} == {BACKOFF_MAX_S}
        switch(messages, away=True)
        await seen.until(lambda: seen.told[3:] == ["lost"])
        assert gateway.rng.asked[tries] == (0.0, 0.1)


async def test_a_store_that_is_away_from_the_start_is_an_outage_too(messages: MemoryMessages) -> None:
    messages.away = True
    gateway = Gateway(MemoryFeed(messages))
    assert not gateway.following.connected
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(gateway.following.run())
        await gateway.seen.until(lambda: gateway.seen.told == ["lost"])
        messages.append([b"a"])
        switch(messages, away=False)
        await gateway.seen.until(lambda: gateway.following.connected)
        assert (gateway.seen.told, gateway.seen.known) == (["lost", "restart"], [b"a"])
        run.cancel()


async def test_it_is_connected_when_the_end_was_reached_and_stays_so_while_it_lags(messages: MemoryMessages) -> None:
    connected: list[bool] = []

    class Watching(Seen):
        def take(self, messages: Sequence[bytes], restart: bool) -> None:
            connected.append(following.connected)
            super().take(messages, restart)

    seen = Watching()
    following = Following(MemoryFeed(messages), seen)
    messages.append(numbered(2 * CHUNK + 1))
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(following.run())
        await seen.until(lambda: following.connected)
        assert connected == [False, False, False]
        messages.append(numbered(2 * CHUNK + 1))
        await seen.until(lambda: following.received == 2 * (2 * CHUNK + 1))
        assert connected[3:] == [True, True, True]
        # Everything is taken once more, and is worth nothing until the end.
        messages.restore((*messages.copy()[:1], 2 * CHUNK + 1, numbered(2 * CHUNK + 1)))
        await seen.until(lambda: len(connected) == 9)
        assert connected[6:] == [True, False, False]
        await seen.until(lambda: following.connected)
        run.cancel()


async def test_other_tasks_run_between_the_chunks(messages: MemoryMessages) -> None:
    turns: list[int] = []

    class Counting(Seen):
        def take(self, messages: Sequence[bytes], restart: bool) -> None:
            turns.append(0)
            super().take(messages, restart)

    def turn() -> None:
        if turns:
            turns[-1] += 1
        if not gateway.following.connected:
            asyncio.get_running_loop().call_soon(turn)

    messages.append(numbered(4 * CHUNK))
    gateway = Gateway(MemoryFeed(messages), Counting())
    turn()
    async with running(gateway):
        pass
    assert len(turns) == 4
    assert all(turns[:-1])


async def test_what_is_published_while_the_store_is_away_is_reported(messages: MemoryMessages) -> None:
    gateway = Gateway(MemoryFeed(messages))
    seen, following = gateway.seen, gateway.following
    async with running(gateway):
        switch(messages, away=True)
        for message in (b"a", b"b"):
            following.publish(message)
        await seen.until(lambda: seen.refused == [b"a", b"b"])
        switch(messages, away=False)
        await seen.until(lambda: following.connected)
        following.publish(b"c")
        await seen.until(lambda: seen.known == [b"c"])
    assert (following.sent, following.dropped) == (1, 2)


async def test_what_waits_is_bounded_and_goes_out_in_chunks(messages: MemoryMessages) -> None:
    sizes: list[int] = []

    class Counting(MemoryFeed):
        async def append(self, messages: Sequence[bytes]) -> None:
            sizes.append(len(messages))
            await super().append(messages)

    gateway = Gateway(Counting(messages))
    seen, following = gateway.seen, gateway.following
    for message in numbered(MAX_OUTGOING + 2):
        following.publish(message)
    assert seen.refused == numbered(2, MAX_OUTGOING)
    assert following.dropped == 2
    async with running(gateway):
        await seen.until(lambda: seen.known == numbered(MAX_OUTGOING))
    assert sizes == [CHUNK] * (MAX_OUTGOING // CHUNK)
    assert following.sent == MAX_OUTGOING


async def test_publishing_what_is_over_the_bound_is_the_callers_error(messages: MemoryMessages) -> None:
    gateway = Gateway(MemoryFeed(messages))
    with pytest.raises(ValueError, match="4097 bytes"):
        gateway.following.publish(b"x" * (MAX_MESSAGE_BYTES + 1))
    assert (gateway.seen.refused, gateway.following.dropped) == ([], 0)


async def test_cancelling_ends_both_sides(messages: MemoryMessages) -> None:
    gateway = Gateway(MemoryFeed(messages))
    before = asyncio.all_tasks()
    async with running(gateway):
        assert len(asyncio.all_tasks() - before) == 3
    assert asyncio.all_tasks() == before
