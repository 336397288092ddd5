"""The docker driver when the engine's answers and events cross each other. A real engine shows this once in a while;
this one, as often as it is asked to. What a real one does is in tests/contract/test_docker_driver.py."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from gateway.agent.base import DriverError, DriverName, FailureKind, InstanceKey, Observed, Spec
from gateway.agent.docker import DockerDriver
from gateway.agent.docker_api import SILENCE_S, DockerApi, DockerError, Event
from gateway.agent.docker_container import Container, Named, read_inspected
from gateway.core.model import Address
from tests.net.yard import LIMIT_S

KEY = InstanceKey("tools", "i-1")
SPEC = Spec(KEY, platform=DriverName.DOCKER, target="x", port=8000)
EXITED: dict[str, Any] = {"Running": False, "ExitCode": 3}


def container(id: str = "x", started_s: int = 10, created_s: int = 1, **state: Any) -> Container:
    def moment(seconds: int) -> str:
        return f"2026-11-25T10:00:{seconds:02}Z"

    return read_inspected(
        {
            "Id": id,
            "Name": f"/{id}",
            "Created": moment(created_s),
            "State": {"Running": True, "StartedAt": moment(started_s), **state},
            "Config": {"Labels": {"moorage.app": "tools", "moorage.id": "i-1", "moorage.port": "8000"}},
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.2", "IPPrefixLen": 16}}},
        }
    )


def event(action: str, id: str = "x", time_ms: int = 0, **attributes: str) -> Event:
    return Event(action, id, attributes, time_ms)


class Engine(DockerApi):
    """Does as it is told: `then` is what an action leads to, `meanwhile` what happens before an answer is given."""

    def __init__(self, *containers: Container) -> None:
        super().__init__()
        self.now = {one.id: one for one in containers}
        self.then: Container | None = None
        self.refusal: DockerError | None = None
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.done: list[str] = []
        self.tell: Callable[[Event], Awaitable[None]] | None = None
        self._following = asyncio.Event()

    async def containers(self) -> Sequence[Named]:
        return [one.named for one in self.now.values()]

    async def inspect(self, id: str) -> Container | None:
        answer = self.now.get(id)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return answer

    async def _act(self, id: str, verb: str, limit_s: float, **query: str) -> None:
        self.done.append(verb)
        if self.then is not None:
            self.now[id] = self.then
        if self.refusal is not None:
            raise self.refusal

    async def follow(
        self,
        actions: Collection[str],
        connected: Callable[[], Awaitable[None]],
        happened: Callable[[Event], Awaitable[None]],
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        await connected()
        self.tell = happened
        self._following.set()
        await asyncio.get_running_loop().create_future()

    async def event(self, one: Event) -> None:
        await self._following.wait()
        assert self.tell is not None
        await self.tell(one)


@asynccontextmanager
async def watched(*containers: Container) -> AsyncIterator[tuple[Engine, DockerDriver, list[Observed]]]:
    """An engine, a driver that looked at it, and the news that were told since."""
    engine = Engine(*containers)
    driver = DockerDriver(engine, is_attached=lambda endpoint: True)
    await driver.refresh()
    news: list[Observed] = []

    async def collect() -> None:
        async with aclosing(driver.watch()) as seen:
            async for observed in seen:
                news.append(observed)

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        collecting = tasks.create_task(collect())
        await engine.event(event("stop", "nobody"))
        await settled()
        news.clear()
        yield engine, driver, news
        collecting.cancel()
    await engine.aclose()


async def settled() -> None:
    """Let what is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 - nothing is waited for


async def test_an_end_during_a_start_is_the_starts_and_no_news() -> None:
    async with watched(container(**EXITED)) as (engine, driver, news):
        engine.then = container(started_s=20)

        async def ends() -> None:
            engine.meanwhile = at_last

        async def at_last() -> None:
            engine.now["x"] = container(started_s=20, **EXITED)
            await engine.event(event("die"))

        engine.meanwhile = ends
        with pytest.raises(DriverError, match="exited with status 3") as caught:
            await driver.start(SPEC, "")
        assert caught.value.failure.kind is FailureKind.EXITED
        await settled()
        assert news == []


async def test_what_is_started_again_while_it_is_stopped_is_told() -> None:
    async with watched(container()) as (engine, driver, news):
        engine.then = container(started_s=20)
        await driver.stop(KEY, 1.0)
        await settled()
        assert [(each.running, each.incarnation) for each in news] == [(True, engine.then.incarnation)]
        assert driver.inspect(KEY) == news[0]


@pytest.mark.parametrize("refused", [True, False])
async def test_a_refusal_counts_only_when_it_is_not_as_wanted(refused: bool) -> None:
    async with watched(container()) as (engine, driver, _):
        engine.refusal = DockerError("container x is already paused", 409)
        engine.then = None if refused else container(Paused=True)
        if refused:
            with pytest.raises(DriverError, match="already paused") as caught:
                await driver.suspend(KEY)
            assert caught.value.failure.kind is FailureKind.NOT_SUSPENDABLE
        else:
            await driver.suspend(KEY)
        assert engine.done == ["pause"]


async def test_what_ends_while_it_is_frozen_is_not_frozen() -> None:
    async with watched(container()) as (engine, driver, _):
        engine.then = container(**EXITED)
        with pytest.raises(DriverError, match="does not run"):
            await driver.suspend(KEY)
        observed = driver.inspect(KEY)
        assert observed is not None
        assert not observed.running


async def test_a_look_at_everything_leaves_alone_what_is_acted_on() -> None:
    async with watched(container()) as (engine, driver, news):

        async def refresh() -> None:
            engine.now["x"] = container(Paused=True)
            await driver.refresh()

        engine.meanwhile = refresh
        await driver.start(SPEC, "")
        await settled()
        assert news == []


async def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    async with watched(container()) as (engine, driver, news), asyncio.TaskGroup() as tasks:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            asked.set()
            await go_on.wait()

        engine.meanwhile = slow  # the answer says that it runs
        refreshing = tasks.create_task(driver.refresh())
        await asked.wait()
        engine.now["x"] = container(**EXITED)
        dying = tasks.create_task(engine.event(event("die")))
        await settled()
        go_on.set()
        await asyncio.gather(refreshing, dying)
        await settled()
        observed = driver.inspect(KEY)
        assert observed is not None
        assert not observed.running
        assert [each.running for each in news] == [False]


async def test_a_stop_signal_of_an_earlier_life_explains_no_end() -> None:
    life = container(started_s=20)
    async with watched(life) as (engine, _, news):
        await engine.event(event("kill", time_ms=life.started_ms - 1, signal="15"))
        await engine.event(event("kill", time_ms=life.started_ms + 1, signal="1"))
        engine.now["x"] = container(started_s=20, **EXITED)
        await engine.event(event("die"))
        await settled()
        assert [each.failure is not None for each in news] == [True]


async def test_its_own_stop_signal_explains_an_end() -> None:
    life = dataclasses.replace(container(), stop_signal=3)
    async with watched(life) as (engine, _, news):
        await engine.event(event("kill", time_ms=life.started_ms + 1, signal="3"))
        engine.now["x"] = container(**EXITED)
        await engine.event(event("die"))
        await settled()
        assert [each.failure for each in news] == [None]


async def test_of_two_containers_the_older_is_it_until_it_is_gone() -> None:
    old, new = container("old", created_s=1), container("new", created_s=2, started_s=20)
    async with watched(new, old) as (engine, driver, news):
        observed = driver.inspect(KEY)
        assert observed is not None
        assert observed.detail == "container old (old)"
        assert len(driver.list()) == 1
        engine.now["new"] = dataclasses.replace(new, paused=True, running=False)
        await engine.event(event("pause", "new"))
        await settled()
        assert news == []
        del engine.now["old"]
        await engine.event(event("destroy", "old"))
        assert driver.inspect(KEY) == dataclasses.replace(
            observed,
            detail="container new (new)",
            incarnation=new.incarnation,
            running=False,
            suspended=True,
            address=None,
        )


async def test_the_container_that_was_started_for_it_is_it() -> None:
    old, new = container("old", created_s=1, **EXITED), container("new", created_s=2, started_s=20)
    async with watched(new, old) as (_, driver, _):
        running = await driver.start(dataclasses.replace(SPEC, target="new"), "")
        assert running == (Address("10.0.0.2", 8000), new.incarnation)
        observed = driver.inspect(KEY)
        assert observed is not None
        assert observed.detail == "container new (new)"


async def test_a_stop_before_anything_was_looked_at_looks_first() -> None:
    engine = Engine(container())
    driver = DockerDriver(engine)
    await driver.stop(KEY, 1.0)
    assert engine.done == ["stop"]
    await engine.aclose()


async def test_a_watch_can_be_closed_between_two_news() -> None:
    engine = Engine(container())
    driver = DockerDriver(engine)
    async with asyncio.timeout(LIMIT_S), aclosing(driver.watch()) as seen:
        assert (await anext(seen)).running
    await engine.aclose()


async def test_what_is_frozen_goes_on_before_it_is_stopped() -> None:
    async with watched(container(Paused=True)) as (engine, driver, _):
        await driver.stop(KEY, 1.0)
        assert engine.done == ["unpause", "stop"]


async def test_what_was_stopped_from_here_is_no_news_when_more_is_known_of_its_end() -> None:
    async with watched(container()) as (engine, driver, news):
        engine.then = container(**EXITED)
        await driver.stop(KEY, 1.0)
        engine.now["x"] = container(**EXITED, OOMKilled=True)
        await engine.event(event("oom"))
        await settled()
        assert news == []


async def test_the_removal_of_what_did_not_run_is_no_news() -> None:
    async with watched(container(**EXITED)) as (engine, driver, news):
        engine.now.clear()
        await engine.event(event("destroy"))
        await settled()
        assert news == []
        assert driver.list() == []


async def test_what_is_removed_while_it_is_started_is_unknown() -> None:
    async with watched(container(**EXITED)) as (engine, driver, _):

        async def removed() -> None:
            engine.now.clear()
            engine.refusal = DockerError("No such container: x", 404)

        engine.meanwhile = removed
        with pytest.raises(DriverError, match="no container any more") as caught:
            await driver.start(SPEC, "")
        assert caught.value.failure.kind is FailureKind.UNKNOWN_INSTANCE
        assert engine.done == ["start"]
        assert driver.inspect(KEY) is None
