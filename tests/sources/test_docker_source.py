"""Containers as a source: what is handed to the agent when they come, change and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import pytest
import structlog

from gateway.agent.base import Spec
from gateway.agent.docker_container import Named, read_listed
from gateway.core.model import App
from gateway.sources.docker import ACTIONS, DockerSource
from tests.net.yard import LIMIT_S


class Engine:
    """Lists what it is given."""

    label = "moorage.app"

    def __init__(self) -> None:
        self.listed: list[Named] = []
        self.away = False
        self.followed: list[tuple[Collection[str], float]] = []

    async def containers(self) -> list[Named]:
        if self.away:
            raise OSError("away")
        return self.listed

    async def follow(
        self,
        actions: Collection[str],
        connected: Callable[[], Awaitable[None]],
        happened: Callable[[Any], Awaitable[None]],
        *,
        silence_s: float,
    ) -> None:
        self.followed.append((actions, silence_s))
        await connected()
        self.listed = []
        await happened("an event")


class Owner:
    """An agent that writes down what it is told, together with what is published."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.refusal = ""

    async def add(self, app: App, spec: Spec) -> None:
        if self.refusal:
            raise ValueError(self.refusal)
        self.told.append(("add", f"{spec.key} {spec.target} {app.org}"))

    async def remove(self, app: str, id: str) -> None:
        self.told.append(("remove", f"{app}/{id}"))

    def publish_app(self, app: App) -> None:
        self.told.append(("app", f"{app.name} {app.org}"))

    def taken(self) -> list[tuple[str, str]]:
        told, self.told = self.told, []
        return told


def container(name: str, target: str = "", **texts: str) -> Named:
    labels = {f"moorage.{key}": text for key, text in {"app": "tools", "port": "8000", **texts}.items()}
    return read_listed({"Id": target or f"id-of-{name}", "Names": [f"/{name}"], "Labels": labels})


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def source(engine: Engine, owner: Owner) -> DockerSource:
    return DockerSource(engine, owner, owner.publish_app, settled={"shop": App("shop", org="file")})


async def test_what_comes_is_added_after_its_app(engine: Engine, owner: Owner, source: DockerSource) -> None:
    engine.listed = [container("b"), container("a", org="us")]
    await source.reconcile()
    assert owner.taken() == [
        ("app", "tools us"),
        ("add", "tools/a id-of-a us"),
        ("add", "tools/b id-of-b us"),
    ]
    await source.reconcile()
    assert owner.taken() == []


async def test_what_goes_is_removed(engine: Engine, owner: Owner, source: DockerSource) -> None:
    engine.listed = [container("a"), container("b")]
    await source.reconcile()
    owner.taken()
    engine.listed = [container("b")]
    await source.reconcile()
    assert owner.taken() == [("remove", "tools/a")]


async def test_another_container_under_the_same_id_is_another_instance(
    engine: Engine, owner: Owner, source: DockerSource
) -> None:
    engine.listed = [container("a")]
    await source.reconcile()
    owner.taken()
    engine.listed = [container("a", "another", org="us")]
    await source.reconcile()
    assert owner.taken() == [("remove", "tools/a"), ("app", "tools us"), ("add", "tools/a another us")]


async def test_settings_that_change_are_published_and_disturb_no_instance(
    engine: Engine, owner: Owner, source: DockerSource
) -> None:
    engine.listed = [container("b")]
    await source.reconcile()
    owner.taken()
    engine.listed = [container("b"), container("a", org="us")]
    await source.reconcile()
    assert owner.taken() == [("app", "tools us"), ("add", "tools/a id-of-a us")]


async def test_an_app_of_the_file_is_joined_and_not_published(
    engine: Engine, owner: Owner, source: DockerSource
) -> None:
    engine.listed = [container("a", app="shop")]
    await source.reconcile()
    assert owner.taken() == [("add", "shop/a id-of-a file")]


async def test_what_the_agent_refuses_is_offered_again(engine: Engine, owner: Owner, source: DockerSource) -> None:
    engine.listed = [container("a")]
    owner.refusal = "instance tools/a exists twice"
    with structlog.testing.capture_logs() as logs:
        await source.reconcile()
        await source.reconcile()
    assert [log["fault"] for log in logs] == ["instance tools/a exists twice"]
    owner.refusal = ""
    await source.reconcile()
    assert owner.taken()[-1] == ("add", "tools/a id-of-a default")


async def test_a_fault_is_logged_once_as_long_as_it_lasts(engine: Engine, owner: Owner, source: DockerSource) -> None:
    bad = container("bad", port="x")
    with structlog.testing.capture_logs() as logs:
        for listed in ([bad], [bad, container("good")], [], [bad]):
            engine.listed = listed
            await source.reconcile()
    said = '"x" is not a port'
    assert [(log["container"], said in log["fault"], log["log_level"]) for log in logs] == [
        ("bad", True, "warning")
    ] * 2


async def test_nothing_changes_while_the_engine_is_away(engine: Engine, owner: Owner, source: DockerSource) -> None:
    engine.listed = [container("a")]
    await source.reconcile()
    owner.taken()
    engine.away = True
    with pytest.raises(OSError, match="away"):
        await source.reconcile()
    assert owner.taken() == []


async def test_it_looks_when_it_is_told_to(engine: Engine, owner: Owner, source: DockerSource) -> None:
    engine.listed = [container("a")]
    await source.run()
    assert engine.followed == [(ACTIONS, 30.0)]
    assert [what for what, _ in owner.taken()] == ["app", "add", "remove"]


async def test_what_was_found_is_told_after_the_first_look(engine: Engine, source: DockerSource) -> None:
    engine.listed = [container("a"), container("b", app="shop"), container("bad", port="x")]
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        found = tasks.create_task(source.settled())
        await asyncio.sleep(0)  # noqa: TID251 - it waits now
        assert not found.done()
        await source.reconcile()
        assert set(await found) == {"app/tools", "instance/tools/a", "instance/shop/b"}
