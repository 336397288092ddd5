"""The Fly driver against a Machines API of our own (tests/rigs/fake_fly.py): what every platform's driver does, and
what is Fly's alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.agent.base import (
    DriverError,
    DriverName,
    FailureKind,
    InstanceKey,
    Prepared,
    Rest,
    Running,
    Spec,
    Started,
    Stopped,
)
from gateway.agent.fly import FlyDriver
from gateway.agent.fly_api import ACTIONS, Bucket, FlyApi
from gateway.agent.rest import ApiError
from gateway.agent.tempo import Tempo
from gateway.core.model import Address, App, State
from tests.contract.platforms import BEHAVIOURS, Bench, key, news_of, no_answer
from tests.loops import both_loops
from tests.net.yard import LIMIT_S, agent_of, request, until
from tests.rigs.fake_fly import TOKEN, FakeFly, FakeMachine
from tests.rigs.platforms import SPEED, Leaping, served

ONE = InstanceKey("tools", "i-1")
APP = App("tools", wake_timeout_s=LIMIT_S, stop_grace_s=1.0)


@dataclass(frozen=True, slots=True)
class Yard:
    """A fake API with two machines, and a driver for both."""

    fly: FakeFly
    driver: FlyDriver
    one: FakeMachine
    two: FakeMachine
    url: str

    def again(self, limit_s: float = LIMIT_S * SPEED) -> FlyDriver:
        """Another driver of both machines."""
        return driver_of(self.url, self.fly.tempo, [self.spec("i-1"), self.spec("i-2")], limit_s)

    def spec(self, id: str) -> Spec:
        return spec_of(id, {"i-1": self.one, "i-2": self.two}[id])

    async def start(self, id: str = "i-1") -> Running:
        return await self.driver.start(self.spec(id), "ignored1")

    def refuse(self, *reasons: str) -> None:
        self.one.refusals.extend(reasons)


def free(host: str) -> Address:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        return Address(host, listener.getsockname()[1])


def spec_of(id: str, machine: FakeMachine) -> Spec:
    target = f"{machine.app}/{machine.id}"
    return Spec(InstanceKey("tools", id), platform=DriverName.FLY, target=target, port=machine.address.port)


def driver_of(url: str, tempo: Tempo, specs: list[Spec], limit_s: float) -> FlyDriver:
    """A limit of `LIMIT_S` real seconds: how soon all that is to happen happens is this machine's affair."""
    return FlyDriver(FlyApi(TOKEN, url=url, tempo=tempo), specs, tempo=tempo, limit_s=limit_s)


@asynccontextmanager
async def yard() -> AsyncIterator[Yard]:
    """At the end, whatever the driver asked must have been what the API allows."""
    tempo = Leaping()
    caught: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        fly = FakeFly(tasks, tempo)
        one, two = fly.add("3d8d9014", free("127.0.0.2")), fly.add("5683210c", free("127.0.0.3"))
        async with served(fly.starlette) as url:
            driver = driver_of(url, tempo, [spec_of("i-1", one), spec_of("i-2", two)], LIMIT_S * SPEED)
            try:
                yield Yard(fly, driver, one, two, url)
            except BaseException as error:  # noqa: BLE001 - raised again below, outside of the group
                caught = error
            await driver.aclose()
        fly.close()
    if caught is not None:
        raise caught
    assert not fly.faults


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with yard() as at:
        machines = {"i-1": at.one, "i-2": at.two}

        async def crash(id: str, status: int) -> None:
            machines[id].end(status)

        async def restart(id: str) -> None:
            await machines[id].restart_by_policy()

        async def start(id: str) -> None:
            await machines[id].boot("proxy")

        async def stop(id: str) -> None:
            machines[id].begin_stop()

        yield Bench(
            driver=at.driver,
            spec=at.spec,
            again=at.again,
            crash=crash,
            recover=lambda id: None,
            restart=restart,
            start=start,
            stop=stop,
            away=lambda away: setattr(at.fly, "away", away),
            forbid=lambda forbidden: setattr(at.fly, "forbidden", forbidden),
            secret=TOKEN,
        )


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
@both_loops
async def test_as_every_platform(behaviour: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async with bench() as at:
        await behaviour(at)


# --- starts ----------------------------------------------------------------------------


async def test_a_start_waits_again_when_a_wait_ran_out() -> None:
    async with yard() as at:
        at.one.free.clear()
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(at.start())
            await until(lambda: at.one.waits >= 2, "two waits ran out")
            assert not starting.done()
            at.one.free.set()
        assert "life" in await request((await starting).address)
        assert at.one.asked == ["start"], "it is asked for once"


@pytest.mark.parametrize(
    "reason",
    [
        "unable to start machine from current state: 'replacing'",
        "machine still active, refusing to start",
    ],
)
async def test_a_start_that_the_state_does_not_allow_yet_is_asked_for_again(reason: str) -> None:
    async with yard() as at:
        at.refuse(reason, reason)
        assert "life" in await request((await at.start()).address)
        assert at.one.asked == ["start"]


async def test_a_machine_that_is_being_replaced_is_started_when_it_has_been() -> None:
    async with yard() as at:
        at.one.be("replacing")
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(at.start())
            await until(lambda: at.fly.asked.count(f"start {at.one.id}") >= 2, "it was refused, and asked for again")
            await at.one.deploy()
        assert "life" in await request((await starting).address)


async def test_a_start_is_given_up_in_time() -> None:
    async with yard() as at:
        at.one.be("replacing")
        driver = at.again(5.0)
        with pytest.raises(DriverError, match="was not started within 5 s") as caught:
            await driver.start(at.spec("i-1"), "ignored1")
        assert caught.value.failure.kind is FailureKind.REFUSED
        assert "replacing" in caught.value.failure.detail
        await driver.aclose()


async def test_a_machine_that_exits_as_it_starts_is_a_failed_start_with_its_status() -> None:
    async with yard() as at:
        at.one.stays_down = True
        with pytest.raises(DriverError, match="exited with status 3") as caught:
            await at.start()
        assert caught.value.failure.kind is FailureKind.EXITED


async def test_a_private_address_of_ipv6_is_an_address() -> None:
    async with yard() as at:
        at.one.address = free("::1")
        running = await at.start()
        assert str(running.address) == f"[::1]:{at.one.address.port}"
        assert "life" in await request(running.address)


async def test_a_machine_without_a_private_address_is_no_instance() -> None:
    async with yard() as at:
        at.one.shown_ip = ""
        with pytest.raises(DriverError, match="no private address"):
            await at.start()


@pytest.mark.parametrize("target", ["toys", "toys/", "Toys/3d8d9014", "toys/3d8d9014/x", "toys/../../x"])
async def test_a_target_that_is_no_machine_is_refused_before_anybody_is_asked(target: str) -> None:
    async with yard() as at:
        with pytest.raises(DriverError, match="has no machine"):
            await at.driver.start(Spec(ONE, platform=DriverName.FLY, target=target, port=80), "ignored1")
        assert not at.fly.asked


async def test_a_machine_that_fly_does_not_know_cannot_be_started_and_is_stopped() -> None:
    async with yard() as at:
        at.one.destroy()
        with pytest.raises(DriverError, match="no such machine"):
            await at.start()
        await at.driver.stop(ONE, 1.0)


async def test_a_call_that_may_succeed_later_is_repeated() -> None:
    async with yard() as at:
        at.fly.failures = [502, 429]
        assert "life" in await request((await at.start()).address)


# --- stops -----------------------------------------------------------------------------


async def test_a_stop_has_the_grace_and_the_signal_of_every_driver() -> None:
    async with yard() as at:
        await at.start()
        await at.driver.stop(ONE, 7.0)
        await at.start()
        await at.driver.stop(ONE, 0.0)
        await at.start()
        await at.driver.stop(ONE, 4000.0)
        stops = [asked for asked in at.one.asked if asked != "start"]
        assert stops == ["stop SIGTERM 7s", "stop SIGKILL 1s", "stop SIGTERM 300s"]


async def test_a_stop_ends_when_the_machine_has_stopped() -> None:
    async with yard() as at:
        await at.start()
        at.one.free.clear()
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(at.driver.stop(ONE, 5.0))
            await until(lambda: at.one.waits >= 1, "a wait ran out")
            assert not stopping.done()
            at.one.free.set()
        assert at.one.state == "stopped"


async def test_a_stop_that_the_state_does_not_allow_yet_is_asked_for_again() -> None:
    async with yard() as at:
        await at.start()
        at.refuse("machine is being updated", "machine is being updated")
        await at.driver.stop(ONE, 5.0)
        assert at.one.asked == ["start", "stop SIGTERM 5s"]


async def test_a_stop_is_given_up_in_time() -> None:
    async with yard() as at:
        driver = at.again(5.0)
        await driver.start(at.spec("i-1"), "ignored1")
        at.one.free.clear()
        with pytest.raises(DriverError, match="did not stop in time") as caught:
            await driver.stop(ONE, 5.0)
        assert "stopping" in caught.value.failure.detail
        await driver.aclose()


async def together(asked: Coroutine[Any, Any, None], meanwhile: Coroutine[Any, Any, None]) -> None:
    """Both, and what `asked` raised as it is."""
    outcomes = await asyncio.gather(asked, meanwhile, return_exceptions=True)
    if outcomes[0] is not None:
        raise outcomes[0]


# --- suspending ------------------------------------------------------------------------


async def suspended(at: Yard) -> tuple[Running, str]:
    """Started, asked once, and suspended."""
    running = await at.start()
    memory = (await request(running.address)).rpartition("\n")[2].partition(",")[0]
    await at.driver.suspend(ONE)
    return running, memory


@both_loops
async def test_a_suspended_machine_goes_on_where_it_was() -> None:
    async with yard() as at:
        running, memory = await suspended(at)
        await no_answer(running.address)
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert (observed.running, observed.suspended, observed.address) == (False, True, None)
        assert observed.incarnation == running.incarnation
        await at.driver.suspend(ONE)
        assert at.one.asked == ["start", "suspend"], "freezing what is frozen is success"
        assert await at.start() == running
        assert f"{memory}, request 2" in await request(running.address)


async def test_a_suspend_that_takes_long_is_waited_for() -> None:
    async with yard() as at:
        await at.start()
        at.one.free.clear()
        async with asyncio.TaskGroup() as tasks:
            suspending = tasks.create_task(at.driver.suspend(ONE))
            await until(lambda: at.one.waits >= 2, "two waits ran out")
            assert not suspending.done()
            at.one.free.set()
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert observed.suspended


async def test_a_suspend_that_cannot_be_asked_for_changes_nothing() -> None:
    async with yard() as at:
        running = await at.start()
        at.fly.away = True
        with pytest.raises(DriverError, match="would not suspend") as caught:
            await at.driver.suspend(ONE)
        assert caught.value.failure.kind is FailureKind.REFUSED
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert (observed.running, observed.incarnation) == (True, running.incarnation)


async def test_a_life_keeps_its_name_over_many_suspends_also_for_a_driver_that_saw_none_of_them() -> None:
    async with yard() as at:
        running, _ = await suspended(at)
        for _ in range(2):
            assert await at.start() == running
            await at.driver.suspend(ONE)
        driver = at.again()
        await driver.refresh()
        observed = driver.inspect(ONE)
        assert observed is not None
        assert (observed.suspended, observed.incarnation) == (True, running.incarnation)
        assert await driver.start(at.spec("i-1"), "ignored1") == running
        await driver.aclose()


async def test_a_life_whose_beginning_fly_has_forgotten_keeps_the_name_that_is_known() -> None:
    async with yard() as at:
        at.one.kept_events = 3
        running, _ = await suspended(at)
        assert await at.start() == running
        # Who knows nothing cannot tell when it began: a name that is not yet anybody's.
        driver = at.again()
        await driver.refresh()
        observed = driver.inspect(ONE)
        assert observed is not None
        assert observed.incarnation > running.incarnation
        await driver.aclose()


async def test_a_machine_that_went_to_another_host_has_lost_its_memory() -> None:
    async with yard() as at:
        running, memory = await suspended(at)
        at.one.migrates = True
        after = await at.start()
        assert after.incarnation > running.incarnation
        assert memory not in await request(after.address)


async def test_a_machine_of_another_version_has_lost_its_memory() -> None:
    async with yard() as at:
        running, _ = await suspended(at)
        async with aclosing(at.driver.watch()) as seen:
            await at.one.deploy()
            observed = await news_of(seen)
        assert observed.running
        assert observed.incarnation > running.incarnation


async def test_a_stop_of_what_is_suspended_throws_its_memory_away() -> None:
    async with yard() as at:
        running, _ = await suspended(at)
        await at.driver.stop(ONE, 1.0)
        assert (await at.start()).incarnation > running.incarnation
        # Somebody else's stop, between two looks.
        again, _ = await suspended(at)
        at.one.memory = None
        at.one.tell("stop", "stopped", "user")
        at.one.be("stopped")
        assert (await at.start()).incarnation > again.incarnation


async def test_a_stop_is_remembered_where_fly_has_forgotten_it() -> None:
    async with yard() as at:
        at.one.kept_events = 1
        running, _ = await suspended(at)
        await at.driver.stop(ONE, 1.0)
        async with aclosing(at.driver.watch()) as seen:
            await at.one.boot("proxy")
            while not (observed := await news_of(seen)).running:
                pass
        assert observed.incarnation > running.incarnation


async def test_a_snapshot_that_was_lost_without_a_word_is_not_noticed() -> None:
    async with yard() as at:
        running, memory = await suspended(at)
        at.one.snapshot_lost = True
        assert await at.start() == running
        assert memory not in await request(running.address)


async def test_what_others_suspend_and_resume_is_news_of_the_same_life() -> None:
    async with yard() as at:
        running = await at.start()
        async with aclosing(at.driver.watch()) as seen:
            at.one.begin_suspend()
            frozen = await news_of(seen)
            await until(lambda: at.one.state == "suspended", "it is suspended")
            await at.one.boot("proxy")
            while not (resumed := await news_of(seen)).running:
                pass
        assert (frozen.running, frozen.suspended, frozen.incarnation) == (False, True, running.incarnation)
        assert resumed.incarnation == running.incarnation


async def test_a_start_interrupts_a_suspend() -> None:
    async with yard() as at:
        running = await at.start()
        at.one.free.clear()
        at.one.begin_suspend()
        assert await at.start() == running
        assert "life" in await request(running.address)


async def test_a_machine_that_is_not_eligible_goes_on() -> None:
    async with yard() as at:
        at.one.eligible = False
        running = await at.start()
        with pytest.raises(DriverError, match="not eligible") as caught:
            await at.driver.suspend(ONE)
        assert caught.value.failure.kind is FailureKind.NOT_SUSPENDABLE
        assert "swap" in caught.value.failure.detail
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert (observed.running, observed.incarnation) == (True, running.incarnation)
        assert "life" in await request(running.address)


async def test_a_machine_that_stopped_instead_of_being_suspended_is_not_suspended() -> None:
    async with yard() as at:
        await at.start()
        at.one.free.clear()

        async def end() -> None:
            await until(lambda: at.one.state == "suspending", "it is being suspended")
            at.one.end(0)

        with pytest.raises(DriverError, match="is stopped") as caught:
            await together(at.driver.suspend(ONE), end())
        assert caught.value.failure.kind is FailureKind.NOT_SUSPENDABLE
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert (observed.running, observed.suspended) == (False, False)


async def test_what_does_not_run_cannot_be_suspended() -> None:
    async with yard() as at:
        for id in ("i-1", "nobody"):
            with pytest.raises(DriverError) as caught:
                await at.driver.suspend(key(id))
            assert caught.value.failure.kind is FailureKind.NOT_SUSPENDABLE


# --- seeing ----------------------------------------------------------------------------


async def test_a_machine_killed_for_its_memory_says_so() -> None:
    async with yard() as at:
        await at.start()
        at.one.end(137, oom=True)
        await at.driver.refresh()
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert observed.failure is not None
        assert "ran out of memory" in observed.failure.message


@pytest.mark.parametrize("state", ["failed", "launch_failed", "destroyed", "replaced", "migrated"])
async def test_states_from_which_nothing_runs_are_ends(state: str) -> None:
    async with yard() as at:
        await at.start()
        at.one.be(state)
        await at.driver.refresh()
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert not observed.running
        assert observed.failure is not None
        assert state in observed.detail


async def test_a_machine_that_is_destroyed_ends_and_is_named_once() -> None:
    async with yard() as at:
        await at.start()
        at.one.destroy()
        with capture_logs() as logs:
            for _ in range(3):
                await at.driver.refresh()
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert observed.failure is not None
        assert "no longer exists" in observed.failure.message
        assert [line["event"] for line in logs] == ["fly machine does not exist"]


@pytest.mark.parametrize(("state", "stuck_after_s"), [("stopping", 300.0), ("updating", 600.0)])
async def test_a_machine_that_is_stuck_is_named_once(state: str, stuck_after_s: float) -> None:
    async with yard() as at:
        await at.start()
        at.one.be(state)
        await at.driver.refresh()
        with capture_logs() as logs:
            at.fly.tempo.leap(stuck_after_s - 100.0)
            await at.driver.refresh()
            observed = at.driver.inspect(ONE)
            assert observed is not None
            assert not observed.running
            assert "stuck" not in observed.detail
            at.fly.tempo.leap(200.0)
            await at.driver.refresh()
            await at.driver.refresh()
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert f"is {state}, for" in observed.detail
        assert observed.detail.endswith("stuck")
        assert [line["event"] for line in logs] == ["fly machine is stuck"]


async def test_one_list_tells_of_all_machines_of_an_app() -> None:
    async with yard() as at:
        await at.driver.refresh()
        assert at.fly.asked == ["list toys"]


async def test_an_answer_from_before_a_stop_does_not_bring_the_machine_back() -> None:
    async with yard() as at:
        await at.start()
        listed = await at.driver._api.machines("toys")
        late: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def machines(app: str) -> object:
            await late
            return listed

        at.driver._api.machines = machines  # type: ignore[method-assign, assignment]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(at.driver.refresh())
            await asyncio.sleep(0)  # noqa: TID251 - until the list was asked for
            await at.driver.stop(ONE, 1.0)
            late.set_result(None)
        assert at.driver.inspect(ONE) is None


# --- with an agent ---------------------------------------------------------------------


async def test_an_agent_suspends_and_wakes_a_machine_in_one_life() -> None:
    async with yard() as at, agent_of(APP, at.spec("i-1"), drivers={DriverName.FLY: at.driver}) as (agent, folding):
        started = await agent.start("tools", "i-1")
        assert isinstance(started, Started)
        prepared = await agent.prepare("tools", "i-1", started.instance.incarnation, Rest.SUSPEND)
        assert isinstance(prepared, Prepared)
        slept = await agent.sleep("tools", "i-1", prepared.token)
        assert isinstance(slept, Stopped)
        assert slept.instance.state is State.SUSPENDED
        woken = await agent.start("tools", "i-1")
        assert isinstance(woken, Started)
        assert woken.instance.incarnation == started.instance.incarnation
        assert folding.instance("i-1").address == woken.instance.address


async def test_an_agent_takes_up_what_runs_and_leaves_it_running() -> None:
    async with yard() as at:
        running = await at.start()
        driver = at.again()
        async with agent_of(APP, at.spec("i-1"), drivers={DriverName.FLY: driver}) as (agent, folding):
            assert isinstance(await agent.start("tools", "i-1"), Started)
            instance = folding.instance("i-1")
            assert (instance.state, instance.incarnation) == (State.STARTED, running.incarnation)
        assert "life" in await request(running.address)


# --- the API ---------------------------------------------------------------------------


class Still(Tempo):
    """Time that passes in pauses only."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s = 100.0
        self.pauses: list[float] = []

    def now_s(self) -> float:
        return self.at_s

    async def pause(self, pause_s: float) -> None:
        self.pauses.append(round(pause_s, 3))
        self.at_s += pause_s


async def test_calls_are_paced() -> None:
    tempo = Still()
    bucket = Bucket(ACTIONS, tempo)
    for _ in range(4):
        await bucket.take()
    assert tempo.pauses == [1.0, 1.0], "two at once, then one a second"
    tempo.at_s += 60.0
    for _ in range(3):
        await bucket.take()
    assert tempo.pauses == [1.0, 1.0, 1.0]


async def test_a_rate_limit_is_waited_for_as_long_as_it_says() -> None:
    tempo = Still()
    async with asyncio.TaskGroup() as tasks:
        fly = FakeFly(tasks, Leaping(1e-6))
        fly.add("3d8d9014", Address("127.0.0.2", 1))
        fly.retry_after_s = 7
        async with served(fly.starlette) as url:
            for _ in range(3):
                await ask_list(url, Still())
            with pytest.raises(ApiError, match="429: rate limit exceeded") as caught:
                await ask_list(url, tempo)
    assert caught.value.status == 429
    assert tempo.pauses == [7.0, 7.0]


async def ask_list(url: str, tempo: Tempo) -> None:
    api = FlyApi(TOKEN, url=url, tempo=tempo)
    try:
        await api.machines("toys")
    finally:
        await api.aclose()


@pytest.mark.parametrize("token", ["another token", "bad\ntoken"], ids=["wrong", "not one"])
async def test_a_token_is_never_in_an_error(token: str) -> None:
    async with yard() as at:
        api = FlyApi(token, url=at.url, tempo=Still())
        with pytest.raises(ApiError) as caught:
            await api.machines("toys")
        assert token not in str(caught.value)
        assert repr(token)[1:-1] not in str(caught.value)
        assert token not in repr(api)
        await api.aclose()


async def test_an_answer_that_is_none_is_an_error_of_the_api() -> None:
    async with yard() as at:
        await at.start()
        at.fly.nonsense = True
        with pytest.raises(DriverError, match="something else than expected"):
            await at.driver.refresh()
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert observed.running


async def test_a_rate_limit_that_others_use_up_is_named() -> None:
    async with yard() as at:
        at.fly.failures = [429] * 3
        with pytest.raises(DriverError, match="rate limit is used up"):
            await at.start()


async def test_no_answer_at_all_is_an_error_of_the_api() -> None:
    api = FlyApi(TOKEN, url=f"http://{free('127.0.0.2')}", tempo=Still())
    with pytest.raises(ApiError, match="GET /v1/apps/toys/machines was not answered") as caught:
        await api.machines("toys")
    assert caught.value.status == 0
    await api.aclose()
