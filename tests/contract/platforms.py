"""What every driver of a platform does: instances that exist there, lives that the platform names, an API that may be
away. One list of behaviours; each driver's tests run all of them on a bench of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.agent.base import Driver, DriverError, FailureKind, InstanceKey, Observed, Running, Spec
from gateway.core.model import Address
from tests.net.yard import LIMIT_S, request


@dataclass(frozen=True, slots=True)
class Bench:
    """A driver and its platform, on which `i-1` and `i-2` exist and do not run; `i-2` can be stopped before `i-1`."""

    driver: Driver
    spec: Callable[[str], Spec]
    again: Callable[[], Driver]
    """Another driver, as after a restart of the agent; it knows both specs."""
    crash: Callable[[str, int], Awaitable[None]]
    """It exits with a status, and nobody starts it again."""
    recover: Callable[[str], None]
    """The platform no longer keeps what crashed from running."""
    restart: Callable[[str], Awaitable[None]]
    """It crashes, and the platform starts it again at once."""
    start: Callable[[str], Awaitable[None]]
    """Somebody else starts it."""
    stop: Callable[[str], Awaitable[None]]
    """Somebody else stops it."""
    away: Callable[[bool], None]
    """The API fails, or no longer."""
    forbid: Callable[[bool], None]
    """The token may do nothing, or what it needs."""
    secret: str


async def news_of(seen: AsyncGenerator[Observed, None]) -> Observed:
    async with asyncio.timeout(LIMIT_S):
        return await anext(seen)


async def no_answer(address: Address) -> None:
    with pytest.raises(OSError, match=r"."):
        await request(address)


def key(id: str) -> InstanceKey:
    return InstanceKey("tools", id)


# --- behaviours ------------------------------------------------------------------------


async def a_started_instance_is_known_and_answers(bench: Bench) -> None:
    running = await bench.driver.start(bench.spec("i-1"), "ignored1")
    assert "life" in await request(running.address)
    observed = bench.driver.inspect(key("i-1"))
    assert observed is not None
    assert (observed.key, observed.running, observed.suspended) == (key("i-1"), True, False)
    assert (observed.incarnation, observed.address, observed.failure) == (running.incarnation, running.address, None)
    assert bench.driver.list() == [observed]


async def starting_what_runs_changes_nothing(bench: Bench) -> None:
    running = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    first = await request(running.address)
    assert await bench.driver.start(bench.spec("i-1"), "aaaa0001") == running
    # The platform names lives: another name is for nobody.
    assert await bench.driver.start(bench.spec("i-1"), "aaaa0002") == running
    assert await request(running.address) == first.replace("request 1", "request 2")


async def a_stopped_instance_is_forgotten_and_starts_as_a_newer_life(bench: Bench) -> None:
    first = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    memory = await request(first.address)
    await bench.driver.stop(key("i-1"), 2.0)
    await no_answer(first.address)
    assert bench.driver.inspect(key("i-1")) is None
    assert not bench.driver.list()
    second = await bench.driver.start(bench.spec("i-1"), "aaaa0002")
    assert second.incarnation > first.incarnation
    assert await request(second.address) != memory


async def stopping_the_absent_is_success(bench: Bench) -> None:
    await bench.driver.stop(key("nobody"), 1.0)
    await bench.driver.refresh()
    await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    await asyncio.gather(*(bench.driver.stop(key("i-1"), 1.0) for _ in range(3)))
    await bench.driver.stop(key("i-1"), 1.0)
    assert bench.driver.inspect(key("i-1")) is None


async def instances_are_independent(bench: Bench) -> None:
    one = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    two = await bench.driver.start(bench.spec("i-2"), "aaaa0001")
    assert one.address != two.address
    await bench.driver.stop(key("i-2"), 1.0)
    assert [observed.key.id for observed in bench.driver.list()] == ["i-1"]
    assert "request 1" in await request(one.address)


async def what_was_asked_for_is_no_news(bench: Bench) -> None:
    async with aclosing(bench.driver.watch()) as seen, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(news_of(seen))
        await bench.driver.start(bench.spec("i-1"), "aaaa0001")
        await bench.driver.refresh()
        await bench.driver.stop(key("i-1"), 1.0)
        await bench.driver.refresh()
        await bench.driver.start(bench.spec("i-1"), "aaaa0002")
        assert not first.done()
        await bench.crash("i-1", 3)
        assert not (await first).running


async def an_end_is_news_with_its_reason(bench: Bench) -> None:
    running = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    async with aclosing(bench.driver.watch()) as seen:
        await bench.crash("i-1", 3)
        observed = await news_of(seen)
    assert (observed.key, observed.running, observed.address) == (key("i-1"), False, None)
    assert observed.incarnation == running.incarnation
    assert observed.failure is not None
    assert observed.failure.kind is FailureKind.EXITED
    assert "tools/i-1 exited with status 3" in observed.failure.message
    assert bench.driver.inspect(key("i-1")) == observed
    # Nothing runs, so it is a start.
    bench.recover("i-1")
    assert (await bench.driver.start(bench.spec("i-1"), "aaaa0002")).incarnation > running.incarnation


async def an_end_with_success_has_no_reason(bench: Bench) -> None:
    await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    async with aclosing(bench.driver.watch()) as seen:
        await bench.crash("i-1", 0)
        observed = await news_of(seen)
    assert (observed.running, observed.failure) == (False, None)


async def a_restart_is_a_new_life(bench: Bench) -> None:
    running = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    memory = await request(running.address)
    async with aclosing(bench.driver.watch()) as seen:
        await bench.restart("i-1")
        while not (observed := await news_of(seen)).running:
            assert observed.incarnation == running.incarnation
    assert observed.incarnation > running.incarnation
    assert observed.address is not None
    assert await request(observed.address) != memory


async def what_others_start_and_stop_is_news(bench: Bench) -> None:
    await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    await bench.driver.stop(key("i-1"), 1.0)
    async with aclosing(bench.driver.watch()) as seen:
        await bench.start("i-1")
        while not (started := await news_of(seen)).running:
            pass
        assert started.address is not None
        assert "life" in await request(started.address)
        await bench.stop("i-1")
        stopped = await news_of(seen)
    assert (stopped.running, stopped.failure, stopped.incarnation) == (False, None, started.incarnation)


async def a_refresh_finds_what_runs_already(bench: Bench) -> None:
    running = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    driver = bench.again()
    assert driver.inspect(key("i-1")) is None
    await driver.refresh()
    observed = driver.inspect(key("i-1"))
    assert observed is not None
    assert Running(observed.address or Address("", 0), observed.incarnation) == running
    assert driver.inspect(key("i-2")) is None
    await driver.aclose()


async def a_refresh_tells_what_events_missed(bench: Bench) -> None:
    await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    await bench.crash("i-1", 3)
    await bench.driver.refresh()
    observed = bench.driver.inspect(key("i-1"))
    assert observed is not None
    assert not observed.running
    async with aclosing(bench.driver.watch()) as seen:
        assert await news_of(seen) == observed


async def a_platform_that_is_away_fails_what_is_asked(bench: Bench) -> None:
    running = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    bench.away(True)
    asks: list[Coroutine[Any, Any, object]] = [
        bench.driver.start(bench.spec("i-2"), "aaaa0001"),
        bench.driver.stop(key("i-1"), 1.0),
        bench.driver.refresh(),
    ]
    for ask in asks:
        with pytest.raises(DriverError) as caught:
            await ask
        assert caught.value.failure.kind is FailureKind.REFUSED
    observed = bench.driver.inspect(key("i-1"))
    assert observed is not None
    assert (observed.running, observed.address) == (True, running.address)
    bench.away(False)
    await bench.driver.refresh()
    assert await bench.driver.start(bench.spec("i-1"), "aaaa0001") == running


async def a_stop_that_failed_leaves_news_of_what_runs(bench: Bench) -> None:
    running = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    async with aclosing(bench.driver.watch()) as seen:
        bench.away(True)
        with pytest.raises(DriverError):
            await bench.driver.stop(key("i-1"), 1.0)
        observed = await news_of(seen)
    assert (observed.running, observed.incarnation) == (True, running.incarnation)
    bench.away(False)


async def a_watch_outlives_a_platform_that_is_away(bench: Bench) -> None:
    await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    async with aclosing(bench.driver.watch()) as seen, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(news_of(seen))
        bench.away(True)
        with pytest.raises(DriverError):
            await bench.driver.refresh()
        await bench.crash("i-1", 3)
        assert not first.done()
        bench.away(False)
        assert not (await first).running


async def a_token_that_may_not_is_named_and_not_shown(bench: Bench) -> None:
    bench.forbid(True)
    with pytest.raises(DriverError) as caught:
        await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    failure = caught.value.failure
    assert failure.kind is FailureKind.REFUSED
    assert "token may not" in failure.message
    assert bench.secret not in failure.message + failure.detail
    assert "http" not in failure.message, "a client need not know where the API is"


async def closing_leaves_everything_running(bench: Bench) -> None:
    running = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    await bench.driver.aclose()
    await bench.driver.aclose()
    assert "life" in await request(running.address)


async def what_cannot_be_suspended_goes_on(bench: Bench) -> None:
    if bench.driver.suspendable:
        return
    running = await bench.driver.start(bench.spec("i-1"), "aaaa0001")
    with pytest.raises(DriverError) as caught:
        await bench.driver.suspend(key("i-1"))
    assert caught.value.failure.kind is FailureKind.NOT_SUSPENDABLE
    assert "life" in await request(running.address)


BEHAVIOURS: tuple[Callable[[Bench], Coroutine[Any, Any, None]], ...] = (
    a_started_instance_is_known_and_answers,
    starting_what_runs_changes_nothing,
    a_stopped_instance_is_forgotten_and_starts_as_a_newer_life,
    stopping_the_absent_is_success,
    instances_are_independent,
    what_was_asked_for_is_no_news,
    an_end_is_news_with_its_reason,
    an_end_with_success_has_no_reason,
    a_restart_is_a_new_life,
    what_others_start_and_stop_is_news,
    a_refresh_finds_what_runs_already,
    a_refresh_tells_what_events_missed,
    a_platform_that_is_away_fails_what_is_asked,
    a_stop_that_failed_leaves_news_of_what_runs,
    a_watch_outlives_a_platform_that_is_away,
    a_token_that_may_not_is_named_and_not_shown,
    closing_leaves_everything_running,
    what_cannot_be_suspended_goes_on,
)
