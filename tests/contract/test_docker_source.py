"""Containers of a real engine as instances of an agent: found by label, woken, replaced by Compose, and gone again."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.agent.agent import Agent
from gateway.agent.base import DriverName, Started
from gateway.agent.docker import DockerDriver
from gateway.core.bodies import app_body
from gateway.core.catalog import Catalog
from gateway.core.model import App, Instance, State
from gateway.core.record import Record, RecordKind
from gateway.sources.docker import DockerSource
from tests.contract import docker_engine
from tests.contract.docker_engine import IMAGE, PORT, TOY, Engine, Following, answers, needed
from tests.net.yard import LIMIT_S

shared = pytest.fixture(scope="module")(docker_engine.whole_engine)


@pytest.fixture
def engine(shared: Engine) -> Iterator[Engine]:
    yield from docker_engine.emptied(shared)


class Published:
    """A `Publish` that folds at once, and wakes whoever waits."""

    def __init__(self) -> None:
        self.catalog = Catalog("local")
        self._counter = 0
        self._changed = asyncio.Event()

    def put(self, kind: str, id: str, body: Mapping[str, object]) -> None:
        self._fold(kind, id, False, body)

    def delete(self, kind: str, id: str) -> None:
        self._fold(kind, id, True, {})

    def app(self, app: App) -> None:
        self.put("app", app.name, app_body(app))

    def _fold(self, kind: str, id: str, deleted: bool, body: Mapping[str, object]) -> None:
        self._counter += 1
        self.catalog.fold(Record(RecordKind(kind), id, "test", 1, self._counter, deleted, dict(body)))
        self._changed.set()

    async def until(self, wanted: Callable[[Mapping[str, Instance]], bool]) -> Mapping[str, Instance]:
        """The app's instances, once they are as wanted."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                self._changed.clear()
                table = self.catalog.app("tools")
                instances = table.instances if table is not None else {}
                if wanted(instances):
                    return instances
                await self._changed.wait()


@dataclass
class Bench:
    agent: Agent
    published: Published


@asynccontextmanager
async def following(engine: Engine) -> AsyncIterator[Bench]:
    published = Published()
    async with Following(engine.socket, engine.label) as api, asyncio.TaskGroup() as tasks:
        drivers = {DriverName.DOCKER: DockerDriver(api)}
        async with Agent(tasks, published, owner="test", drivers=drivers) as agent:
            source = tasks.create_task(DockerSource(api, agent, published.app).run())
            for _ in ("driver", "source"):
                await api.until_connected()
            yield Bench(agent, published)
            source.cancel()


def states(instances: Mapping[str, Instance]) -> dict[str, State]:
    return {id: instance.state for id, instance in instances.items()}


async def test_what_runs_is_taken_up_and_what_sleeps_is_woken(engine: Engine) -> None:
    awake, asleep = await asyncio.gather(engine.create("i-1"), engine.create("i-2"))
    await engine.docker("start", awake.target)
    async with following(engine) as bench:
        await bench.published.until(lambda instances: states(instances) == {"i-1": State.STARTED, "i-2": State.CREATED})
        outcome = await bench.agent.start(*asleep.key)
        assert isinstance(outcome, Started)
        address = outcome.instance.address
        assert address is not None
        assert await answers(address)
        await engine.docker("rm", "--force", awake.target)
        await bench.published.until(lambda instances: states(instances) == {"i-2": State.STARTED})
    assert await answers(address), "the agent is gone, the container goes on"


async def test_what_is_made_later_is_found(engine: Engine) -> None:
    async with following(engine) as bench:
        spec = await engine.create("i-1", labels={"app": "tools", "port": str(PORT), "id": "i-1", "org": "us"})
        await bench.published.until(lambda instances: states(instances) == {"i-1": State.CREATED})
        table = bench.published.catalog.app("tools")
        assert table is not None
        assert table.app.org == "us"
        await engine.docker("start", spec.target)
        await bench.published.until(lambda instances: states(instances) == {"i-1": State.STARTED})


# --- Compose ---------------------------------------------------------------------------

COMPOSE = """
services:
  web:
    image: {image}
    init: true
    command: ["python", "-I", "-S", "/toy.py", "{port}"]
    configs: [{{source: toy, target: /toy.py}}]
    network_mode: bridge
    labels: {{"{name}": "", "{name}.app": "tools", "{name}.port": "{port}", "{name}.org": "${{ORG:-us}}"}}
configs:
  toy: {{file: ./toy.py}}
"""


class Compose:
    """A project of Docker Compose."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        (folder / "toy.py").write_text(TOY, encoding="utf-8")
        text = COMPOSE.format(image=IMAGE, port=PORT, name=engine.name)
        (folder / "compose.yaml").write_text(text, encoding="utf-8")
        self._words = ["compose", "--project-name", engine.name, "--project-directory", str(folder)]
        self._engine = engine

    async def __call__(self, *words: str) -> None:
        await self._engine.docker(*self._words, *words)

    @staticmethod
    def missing() -> str:
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        return "" if found.returncode == 0 else "there is no docker compose"


async def test_composes_replicas_are_instances_also_when_they_are_replaced(engine: Engine, tmp_path: Path) -> None:
    needed(Compose.missing())
    compose = Compose(engine, tmp_path)
    ids = {f"{engine.name}-web-{number}" for number in (1, 2)}
    async with following(engine) as bench:
        await compose("up", "--detach", "--scale", "web=2")
        first = await bench.published.until(
            lambda instances: set(instances) == ids and {*states(instances).values()} == {State.STARTED}
        )
        (tmp_path / ".env").write_text("ORG=them", encoding="utf-8")
        await compose("up", "--detach", "--scale", "web=2")

        def replaced(instances: Mapping[str, Instance]) -> bool:
            later = [one.incarnation > first[id].incarnation for id, one in instances.items()]
            return set(instances) == ids and all(later) and {*states(instances).values()} == {State.STARTED}

        found = await bench.published.until(replaced)
        table = bench.published.catalog.app("tools")
        assert table is not None
        assert table.app.org == "them"
        for instance in found.values():
            assert instance.address is not None
            assert await answers(instance.address)
        await compose("down", "--timeout", "5")
        await bench.published.until(lambda instances: not instances)
