"""The docker driver against a real engine: the contract of test_drivers.py, what the engine does by itself, and what is
never asked of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from gateway.agent.base import DriverError, Failure, FailureKind, InstanceKey, Observed, Spec
from gateway.agent.docker import DockerDriver
from gateway.agent.docker_api import DockerApi
from gateway.core.model import Address
from tests.contract import docker_engine
from tests.contract.docker_engine import (
    PORT,
    SLEEP,
    Engine,
    Following,
    OwnEngine,
    answers,
    needed,
    relayed,
)
from tests.loops import both_loops
from tests.net.yard import LIMIT_S, request

shared = pytest.fixture(scope="module")(docker_engine.whole_engine)


@pytest.fixture
def engine(shared: Engine) -> Iterator[Engine]:
    yield from docker_engine.emptied(shared)


@asynccontextmanager
async def driving(engine: Engine, socket: Path | None = None) -> AsyncIterator[DockerDriver]:
    async with DockerApi(f"unix://{socket or engine.socket}", label=engine.label) as api:
        driver = DockerDriver(api)
        await driver.refresh()
        yield driver
        await driver.aclose()


class Watch:
    """A driver whose news are collected."""

    def __init__(self, driver: DockerDriver, api: Following) -> None:
        self.driver = driver
        self.api = api
        self.news: asyncio.Queue[Observed] = asyncio.Queue()

    async def collect(self) -> None:
        async with aclosing(self.driver.watch()) as seen:
            async for observed in seen:
                self.news.put_nowait(observed)

    async def until(self, wanted: Callable[[Observed], bool]) -> Observed:
        async with asyncio.timeout(LIMIT_S):
            while not wanted(observed := await self.news.get()):
                pass
        return observed


@asynccontextmanager
async def watching(engine: Engine, socket: Path | None = None) -> AsyncIterator[Watch]:
    """A driver that is being watched and follows the engine."""
    async with Following(socket or engine.socket, engine.label) as api:
        driver = DockerDriver(api)
        await driver.refresh()
        watch = Watch(driver, api)
        async with asyncio.TaskGroup() as tasks:
            collecting = tasks.create_task(watch.collect())
            await api.until_connected()
            yield watch
            collecting.cancel()
        await driver.aclose()


def known(driver: DockerDriver, spec: Spec) -> Observed:
    observed = driver.inspect(spec.key)
    assert observed is not None
    return observed


async def refused(driver: DockerDriver, spec: Spec) -> Failure:
    with pytest.raises(DriverError) as caught:
        await driver.start(spec, "aaaa0001")
    return caught.value.failure


async def status(engine: Engine, spec: Spec) -> str:
    return await engine.docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", spec.target)


# --- the contract ----------------------------------------------------------------------


@both_loops
async def test_a_started_instance_is_known_and_reachable(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with driving(engine) as driver:
        address, incarnation = await driver.start(spec, "aaaa0001")
        assert await answers(address) == "1"
        observed = known(driver, spec)
        assert observed == Observed(
            spec.key, incarnation, True, address, detail=f"container {engine.name}-i-1 ({spec.target[:12]})"
        )
        assert driver.list() == [observed]
        assert incarnation != "aaaa0001", "the engine names its own lives"


async def test_starting_what_runs_changes_nothing(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with driving(engine) as driver:
        first = await driver.start(spec, "aaaa0001")
        before = known(driver, spec)
        assert await driver.start(spec, "aaaa0002") == first
        assert known(driver, spec) == before


async def test_a_stopped_instance_is_forgotten_and_begins_a_later_life(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with driving(engine) as driver:
        first = await driver.start(spec, "aaaa0001")
        await answers(first.address)
        await driver.stop(spec.key, LIMIT_S)
        assert driver.inspect(spec.key) is None
        assert not driver.list()
        assert await status(engine, spec) == "exited 0"
        second = await driver.start(spec, "aaaa0002")
        assert await answers(second.address) == "1"
        assert second.incarnation > first.incarnation


async def test_stopping_the_absent_is_success(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with driving(engine) as driver:
        await driver.stop(InstanceKey("tools", "nobody"), 1.0)
        await driver.stop(spec.key, 1.0)
        await answers((await driver.start(spec, "aaaa0001")).address)
        await asyncio.gather(*(driver.stop(spec.key, LIMIT_S) for _ in range(3)))
        await driver.stop(spec.key, 1.0)
        assert driver.inspect(spec.key) is None


async def test_what_does_not_stop_is_killed_after_its_grace(engine: Engine) -> None:
    spec = await engine.create("i-1", more=["stubborn"])
    async with driving(engine) as driver:
        await answers((await driver.start(spec, "aaaa0001")).address)
        await driver.stop(spec.key, 0.1)
        assert driver.inspect(spec.key) is None
    assert await status(engine, spec) == "exited 137"


async def test_instances_are_independent(engine: Engine) -> None:
    one, two = await asyncio.gather(engine.create("i-1"), engine.create("i-2"))
    async with driving(engine) as driver:
        first, second = await asyncio.gather(driver.start(one, "aaaa0001"), driver.start(two, "aaaa0002"))
        assert first.address != second.address
        await answers(first.address)
        await driver.stop(one.key, LIMIT_S)
        assert driver.inspect(one.key) is None
        assert await answers(second.address) == "1"


async def test_what_was_asked_for_is_no_news(engine: Engine) -> None:
    spec, other = await asyncio.gather(engine.create("i-1"), engine.create("i-2"))
    async with watching(engine) as watch:
        await driver_life(watch.driver, spec)
        await engine.docker("start", other.target)
        assert (await watch.until(lambda observed: True)).key == other.key


async def driver_life(driver: DockerDriver, spec: Spec) -> None:
    await answers((await driver.start(spec, "aaaa0001")).address)
    await driver.suspend(spec.key)
    await driver.start(spec, "aaaa0001")
    await driver.stop(spec.key, LIMIT_S)


async def test_closing_leaves_containers_running(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with driving(engine) as driver:
        first = await driver.start(spec, "aaaa0001")
        assert await answers(first.address) == "1"
        await driver.aclose()
        await driver.aclose()
        assert not driver.list()
    async with driving(engine) as other:
        assert known(other, spec).incarnation == first.incarnation, "whoever asks computes the same"
        assert await answers(first.address) == "2"


# --- suspend and resume ----------------------------------------------------------------


@both_loops
async def test_a_suspended_instance_keeps_its_memory_and_its_life(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with driving(engine) as driver:
        first = await driver.start(spec, "aaaa0001")
        assert await answers(first.address) == "1"
        await driver.suspend(spec.key)
        await driver.suspend(spec.key)
        observed = known(driver, spec)
        assert (observed.suspended, observed.running, observed.address) == (True, False, None)
        assert observed.incarnation == first.incarnation
        assert await driver.start(spec, "aaaa0002") == first
        assert await answers(first.address) == "2"


async def test_a_suspended_instance_stops_politely(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with driving(engine) as driver:
        await answers((await driver.start(spec, "aaaa0001")).address)
        await driver.suspend(spec.key)
        await driver.stop(spec.key, LIMIT_S)
        assert driver.inspect(spec.key) is None
    assert await status(engine, spec) == "exited 0"


async def test_what_does_not_run_cannot_be_suspended(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with driving(engine) as driver:
        for key in (spec.key, InstanceKey("tools", "nobody")):
            with pytest.raises(DriverError) as caught:
                await driver.suspend(key)
            assert caught.value.failure.kind is FailureKind.NOT_SUSPENDABLE


# --- what happens by itself ------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"), [(0, None), (3, "tools/i-1 exited with status 3")], ids=["with success", "with a failure"]
)
@both_loops
async def test_an_exit_is_news_with_its_reason(engine: Engine, status: int, said: str | None) -> None:
    spec = await engine.create("i-1")
    async with watching(engine) as watch:
        address, incarnation = await watch.driver.start(spec, "aaaa0001")
        await answers(address)
        await request(address, f"/exit/{status}", "POST")
        observed = await watch.until(lambda observed: not observed.running)
        assert (observed.key, observed.incarnation, observed.address) == (spec.key, incarnation, None)
        failure = observed.failure
        assert (failure and (failure.kind, failure.message)) == (said and (FailureKind.EXITED, said))
        assert watch.driver.inspect(spec.key) == observed
        assert (await watch.driver.start(spec, "aaaa0002")).incarnation > incarnation


async def test_a_killed_container_has_failed_and_a_stopped_one_has_not(engine: Engine) -> None:
    kill, stop = await asyncio.gather(engine.create("i-1"), engine.create("i-2", more=["stubborn"]))
    async with watching(engine) as watch:
        for spec in (kill, stop):
            await answers((await watch.driver.start(spec, "aaaa0001")).address)
        await engine.docker("kill", kill.target)
        killed = await watch.until(lambda observed: not observed.running)
        assert killed.failure is not None
        assert killed.failure.message == "tools/i-1 exited with status 137"
        await engine.docker("stop", "--time", "1", stop.target)
        stopped = await watch.until(lambda observed: not observed.running)
        assert (stopped.key, stopped.failure) == (stop.key, None)


async def test_running_out_of_memory_is_named(engine: Engine) -> None:
    spec = await engine.create("i-1", "--memory", "32m", "--memory-swap", "32m")
    async with watching(engine) as watch:
        address = (await watch.driver.start(spec, "aaaa0001")).address
        await answers(address)
        await request(address, "/eat", "POST")
        observed = await watch.until(lambda observed: observed.failure is not None)
        assert observed.failure is not None
        assert observed.failure.message == "tools/i-1 was killed: it ran out of memory"


async def test_a_restart_by_somebody_else_is_another_life(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with watching(engine) as watch:
        first = await watch.driver.start(spec, "aaaa0001")
        await answers(first.address)
        await engine.docker("restart", spec.target)
        observed = await watch.until(lambda observed: observed.running)
        assert observed.incarnation > first.incarnation
        assert observed.address is not None
        assert await answers(observed.address) == "1"
        assert await watch.driver.start(spec, "aaaa0001") == (observed.address, observed.incarnation)


async def test_what_somebody_else_freezes_and_thaws_is_told(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with watching(engine) as watch:
        first = await watch.driver.start(spec, "aaaa0001")
        await engine.docker("pause", spec.target)
        frozen = await watch.until(lambda observed: observed.suspended)
        assert (frozen.incarnation, frozen.running) == (first.incarnation, False)
        await engine.docker("unpause", spec.target)
        thawed = await watch.until(lambda observed: observed.running)
        assert (thawed.incarnation, thawed.address) == (first.incarnation, first.address)


async def test_a_removed_container_is_gone_for_good(engine: Engine) -> None:
    spec = await engine.create("i-1")
    async with watching(engine) as watch:
        incarnation = (await watch.driver.start(spec, "aaaa0001")).incarnation
        await engine.docker("rm", "--force", spec.target)
        gone = await watch.until(lambda observed: not observed.running)
        assert gone.incarnation == incarnation
        assert (await refused(watch.driver, spec)).kind is FailureKind.UNKNOWN_INSTANCE
        assert watch.driver.inspect(spec.key) is None


async def test_a_container_with_another_name_is_another_instance(engine: Engine) -> None:
    made = await engine.create("i-1", labels={"app": "tools", "port": str(PORT)})
    async with watching(engine) as watch:
        await engine.docker("start", made.target)
        first = await watch.until(lambda observed: observed.running)
        await engine.docker("rename", made.target, f"{engine.name}-i-2")
        second = await watch.until(lambda observed: observed.running)
        assert [one.key.id for one in (first, second)] == [f"{engine.name}-i-{number}" for number in (1, 2)]
        assert (second.incarnation, second.address) == (first.incarnation, first.address)
        assert watch.driver.inspect(first.key) is None


async def test_a_restarting_container_is_taken_up_again(engine: Engine) -> None:
    spec = await engine.create("i-1", "--restart", "always")
    async with watching(engine) as watch:
        first = await watch.driver.start(spec, "aaaa0001")
        await answers(first.address)
        await request(first.address, "/exit/3", "POST")
        observed = await watch.until(lambda observed: observed.running)
        assert observed.incarnation > first.incarnation
        await answers(first.address)
        await watch.driver.stop(spec.key, LIMIT_S)
    assert await status(engine, spec) == "exited 0"


# --- what the engine refuses -----------------------------------------------------------


async def test_an_early_exit_is_told_at_once(engine: Engine) -> None:
    spec = await engine.create("i-1", more=["fail"])
    async with watching(engine) as watch:
        # The engine answers as soon as the container runs; how it ended is then told by the start or by the watch.
        try:
            await watch.driver.start(spec, "aaaa0001")
        except DriverError as error:
            failure: Failure | None = error.failure
        else:
            failure = (await watch.until(lambda observed: not observed.running)).failure
        assert failure is not None
        assert (failure.kind, failure.message) == (FailureKind.EXITED, "tools/i-1 exited with status 3")


async def test_the_engines_refusals_have_its_words(engine: Engine) -> None:
    lost = await engine.create("i-1", command=["no-such-program"])
    one = await engine.create("i-2", "--publish", f"127.0.0.1::{PORT}")
    async with driving(engine) as driver:
        failure = await refused(driver, lost)
        assert (failure.kind, "no-such-program" in failure.detail) == (FailureKind.REFUSED, True)
        await driver.start(one, "aaaa0001")
        taken = (await engine.docker("port", one.target)).rpartition(":")[2]
        two = await engine.create("i-3", "--publish", f"127.0.0.1:{taken}:{PORT}")
        failure = await refused(driver, two)
        assert (failure.kind, "already allocated" in failure.detail) == (FailureKind.REFUSED, True)
        assert str(two.key) in failure.message


async def test_only_what_carries_the_labels_is_touched(engine: Engine, tmp_path: Path) -> None:
    plain = await engine.create("i-1", labels={})
    other = await engine.create("i-2", labels={"app": "other", "id": "i-2", "port": str(PORT)})
    another_port = await engine.create("i-3", labels={"app": "tools", "id": "i-3", "port": "9"})
    async with relayed(engine, tmp_path) as relay, driving(engine, relay.socket) as driver:
        for spec in (plain, other, another_port):
            assert (await refused(driver, spec)).kind is FailureKind.REFUSED
        for spec in (plain, other):
            await driver.stop(spec.key, 0.0)
        assert {observed.key.app for observed in driver.list()} == {"tools", "other"}
        assert not [path for method, path in relay.asked if method == "POST"]


async def test_the_labels_are_read_again_before_each_action(engine: Engine, tmp_path: Path) -> None:
    made = await engine.create("i-1", labels={"app": "tools", "port": str(PORT)})
    spec = dataclasses.replace(made, key=InstanceKey("tools", f"{engine.name}-i-1"))
    async with relayed(engine, tmp_path) as relay:
        await engine.docker("start", spec.target)
        actions: list[Callable[[DockerDriver], Awaitable[object]]] = [
            lambda driver: driver.start(spec, "aaaa0001"),
            lambda driver: driver.suspend(spec.key),
            lambda driver: driver.stop(spec.key, 0.0),
        ]
        for act in actions:
            async with driving(engine, relay.socket) as driver:
                assert known(driver, spec).running
                await engine.docker("rename", spec.target, f"{engine.name}-i-2")
                with pytest.raises(DriverError) as caught:
                    await act(driver)
                assert caught.value.failure.kind is FailureKind.REFUSED
                await engine.docker("rename", spec.target, f"{engine.name}-i-1")
        assert not [path for method, path in relay.asked if method == "POST"]


async def test_no_more_than_needed_is_asked_of_the_engine(engine: Engine, tmp_path: Path) -> None:
    spec = await engine.create("i-1")
    async with relayed(engine, tmp_path) as relay, watching(engine, relay.socket) as watch:
        await driver_life(watch.driver, spec)
        await watch.driver.refresh()
        await engine.docker("start", spec.target)
        await watch.until(lambda observed: observed.running)
    assert set(relay.asked) == {
        ("GET", "/version"),
        ("GET", "/events"),
        ("GET", "/containers/json"),
        ("GET", "/containers/ID/json"),
        *(("POST", f"/containers/ID/{verb}") for verb in ("start", "stop", "pause", "unpause")),
    }


# --- addresses -------------------------------------------------------------------------


async def test_a_label_chooses_the_network(engine: Engine) -> None:
    network = f"{engine.name}-front"
    await engine.docker("network", "create", "--label", engine.name, network)
    labels = {"app": "tools", "port": str(PORT), "network": network}
    one = await engine.create("i-1", labels={**labels, "id": "i-1"})
    async with driving(engine) as driver:
        failure = await refused(driver, one)
        assert failure.message == f"tools/i-1 has no address on the network {network}"
        await engine.docker("network", "connect", network, one.target)
        address = (await driver.start(one, "aaaa0001")).address
        shown = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        assert address == Address(await engine.docker("inspect", "--format", shown, one.target), PORT)
        assert await answers(address) == "1"


async def test_without_a_network_of_its_own_it_is_reached_at_the_host(engine: Engine) -> None:
    host = await engine.create("i-1", "--network", "host", command=["sleep", "1000"])
    none = await engine.create("i-2", "--network", "none", command=["sleep", "1000"])
    async with driving(engine) as driver:
        assert (await driver.start(host, "aaaa0001")).address == Address("127.0.0.1", PORT)
        failure = await refused(driver, none)
        assert (failure.kind, failure.message) == (FailureKind.REFUSED, "tools/i-2 has no address")


# --- when the engine is away -----------------------------------------------------------


async def test_what_happened_while_the_connection_was_cut_is_told(engine: Engine, tmp_path: Path) -> None:
    one, two = await asyncio.gather(engine.create("i-1"), engine.create("i-2"))
    async with relayed(engine, tmp_path) as relay, watching(engine, relay.socket) as watch:
        incarnation = (await watch.driver.start(one, "aaaa0001")).incarnation
        relay.cut()
        await engine.docker("kill", one.target)
        await engine.docker("start", two.target)
        with pytest.raises(DriverError, match="cannot be asked"):
            await watch.driver.refresh()
        for call in (watch.driver.start(one, "aaaa0002"), watch.driver.stop(one.key, 1.0)):
            with pytest.raises(DriverError) as caught:
                await call
            assert caught.value.failure.kind is FailureKind.REFUSED
        assert known(watch.driver, one).running, "as it was known last"
        relay.mend()
        seen = [await watch.until(lambda observed: True) for _ in range(2)]
        assert {(each.key, each.running) for each in seen} == {(one.key, False), (two.key, True)}
        assert known(watch.driver, one).incarnation == incarnation
        await answers((await watch.driver.start(one, "aaaa0003")).address)


@pytest.fixture
async def own_engine(shared: Engine, tmp_path: Path) -> AsyncIterator[OwnEngine]:
    needed(OwnEngine.missing())
    own = OwnEngine(tmp_path)
    try:
        await own.start()
        await asyncio.to_thread(own.make_image)
        yield own
    finally:
        await own.stop()


async def test_an_engine_that_is_restarted_is_followed_again(own_engine: OwnEngine) -> None:
    engine = Engine(own_engine.socket)
    spec = await engine.create("i-1", "--network", "host", "--stop-signal", "SIGKILL", command=[SLEEP, "1000"])
    async with watching(engine) as watch:
        first = await watch.driver.start(spec, "aaaa0001")
        await own_engine.stop()
        await own_engine.start()
        ended = await watch.until(lambda observed: not observed.running)
        assert ended.incarnation == first.incarnation
        assert (await watch.driver.start(spec, "aaaa0002")).incarnation > first.incarnation
        await engine.docker("kill", spec.target)
        await watch.until(lambda observed: not observed.running)
    await asyncio.to_thread(engine.clean)
