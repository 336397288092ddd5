"""The agent with real processes: an instance's life as it is published, and what asking at odd moments does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.agent.base import (
    Cordoned,
    FailureKind,
    InstanceKey,
    NotReached,
    Reached,
    Refused,
    Spec,
    Started,
    StartFailed,
    Stopped,
)
from gateway.core.model import Address, App, Check, Instance, State
from tests.loops import both_loops
from tests.net.yard import (
    LIMIT_S,
    Folding,
    agent_of,
    environ_of,
    is_gone,
    lines,
    open_gate,
    pid_in,
    request,
    toy,
    until,
    until_gone,
)

APP = App("tools", stop_grace_s=LIMIT_S)


def gated(tmp_path: Path, id: str = "i-1", *options: str) -> tuple[Spec, Path, Path]:
    """A toy that listens only after `open_gate`; and its file of starts."""
    gate, starts = tmp_path / f"{id}.gate", tmp_path / f"{id}.starts"
    os.mkfifo(gate)
    return toy(id, "--gate", str(gate), "--starts", str(starts), *options), gate, starts


@both_loops
async def test_a_start_is_published_step_by_step_and_its_record_is_usable() -> None:
    async with agent_of(APP, toy("i-1", region="iad")) as (agent, publish):
        created = publish.instance("i-1")
        assert created == Instance(
            "tools",
            "i-1",
            region="iad",
            state=State.CREATED,
            incarnation=created.incarnation,
            startable=True,
            owner="test",
        )
        outcome = await agent.start("tools", "i-1")
        assert isinstance(outcome, Started)
        assert publish.states("tools/i-1") == ["created", "starting", "started"]
        instance = publish.instance("i-1")
        assert instance == outcome.instance
        assert instance.running
        assert instance.address is not None
        assert len(instance.incarnation) == len(created.incarnation) == 8
        assert instance.incarnation > created.incarnation
        assert instance.incarnation in await request(instance.address)
    assert publish.states("tools/i-1") == ["created", "starting", "started", "stopping", "stopped"]
    assert publish.instance("i-1").address is None


@both_loops
async def test_the_environment_names_the_instance_and_hides_the_gateways_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOORAGE_ADMIN_TOKEN", "hidden")
    monkeypatch.setenv("SHARED", "inherited")
    starts = tmp_path / "starts"
    spec = toy("i-1", "--starts", str(starts), region="iad", env={"URL": "http://x:{port}/{id}", "PORT": "1"})
    async with agent_of(APP, spec) as (agent, publish):
        await agent.start("tools", "i-1")
        instance = publish.instance("i-1")
        assert instance.address is not None
        environ = environ_of(int(lines(starts)[0].split()[1]))
    port = str(instance.address.port)
    assert environ["URL"] == f"http://x:{port}/{{id}}"
    assert environ["PORT"] == port
    assert environ["FLY_APP_NAME"] == "tools"
    assert environ["FLY_MACHINE_ID"] == "i-1"
    assert environ["FLY_REGION"] == "iad"
    assert environ["MOORAGE_INSTANCE"] == "tools/i-1"
    assert environ["MOORAGE_INCARNATION"] == instance.incarnation
    assert environ["SHARED"] == "inherited"
    assert "MOORAGE_ADMIN_TOKEN" not in environ


@both_loops
async def test_a_hundred_starts_are_one(tmp_path: Path) -> None:
    spec, gate, starts = gated(tmp_path)
    async with agent_of(APP, spec) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(agent.start("tools", "i-1")) for _ in range(100)]
            await until(lambda: len(lines(starts)) == 1, "the instance was started")
            assert publish.instance("i-1").state is State.STARTING
            await asyncio.to_thread(open_gate, gate)
        assert {task.result() for task in asked} == {Started(publish.instance("i-1"))}
        assert len(lines(starts)) == 1
        # One more, of what runs, changes nothing either.
        assert await agent.start("tools", "i-1") == Started(publish.instance("i-1"))
        assert publish.states("tools/i-1") == ["created", "starting", "started"]


@both_loops
async def test_a_cancelled_caller_does_not_cancel_the_start(tmp_path: Path) -> None:
    spec, gate, starts = gated(tmp_path)
    async with agent_of(APP, spec) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            impatient = tasks.create_task(agent.start("tools", "i-1"))
            await until(lambda: len(lines(starts)) == 1, "the instance was started")
            impatient.cancel()
        await asyncio.to_thread(open_gate, gate)
        assert isinstance(await agent.wait("tools", "i-1", State.STARTED, LIMIT_S), Reached)
        assert publish.states("tools/i-1") == ["created", "starting", "started"]


@both_loops
async def test_ready_means_that_the_checks_pass(tmp_path: Path) -> None:
    unready = tmp_path / "unready"
    unready.touch()
    app = App("tools", checks=(Check("/", timeout_s=LIMIT_S),))
    async with agent_of(app, toy("i-1", "--unready", str(unready))) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(agent.start("tools", "i-1"))
            listing = await agent.list()
            while "i-1 listens" not in listing[0].output:
                await agent.wait("tools", "i-1", State.STARTED, 0.01)
                listing = await agent.list()
            assert publish.instance("i-1").state is State.STARTING
            unready.unlink()
        assert asked.result() == Started(publish.instance("i-1"))


@both_loops
async def test_each_start_is_a_new_incarnation() -> None:
    async with agent_of(APP, toy("i-1")) as (agent, publish):
        seen = set()
        for _ in range(3):
            await agent.start("tools", "i-1")
            seen.add(publish.instance("i-1").incarnation)
            stopped = await agent.stop("tools", "i-1", hold=False)
            assert isinstance(stopped, Stopped)
            assert stopped.instance.state is State.STOPPED
        assert len(seen) == 3


@both_loops
async def test_what_an_operator_stopped_stays_stopped() -> None:
    async with agent_of(APP, toy("i-1")) as (agent, publish):
        await agent.start("tools", "i-1")
        await agent.stop("tools", "i-1")
        held = publish.instance("i-1")
        assert (held.state, held.held_down, held.wakeable) == (State.STOPPED, True, False)
        outcome = await agent.start("tools", "i-1")
        assert isinstance(outcome, StartFailed)
        assert outcome.failure.kind is FailureKind.HELD_DOWN
        assert isinstance(await agent.start("tools", "i-1", release=True), Started)
        assert not publish.instance("i-1").held_down


@both_loops
async def test_an_operators_stop_of_what_sleeps_holds_it_too() -> None:
    async with agent_of(APP, toy("i-1")) as (agent, publish):
        assert isinstance(await agent.stop("tools", "i-1"), Stopped)
        assert publish.instance("i-1").held_down
        assert publish.states("tools/i-1") == ["created"]


@both_loops
async def test_a_stop_ends_a_start(tmp_path: Path) -> None:
    spec, _, starts = gated(tmp_path)
    async with agent_of(APP, spec) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(agent.start("tools", "i-1"))
            await until(lambda: len(lines(starts)) == 1, "the instance was started")
            assert isinstance(await agent.stop("tools", "i-1", hold=False), Stopped)
        outcome = asked.result()
        assert isinstance(outcome, StartFailed)
        assert outcome.failure.kind is FailureKind.CANCELLED
        assert outcome.retry_after_s == 0.0
        assert publish.states("tools/i-1") == ["created", "starting", "stopping", "stopped"]
        assert is_gone(int(lines(starts)[0].split()[1]))


@both_loops
async def test_a_start_during_a_stop_waits_for_its_end(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    app = App("tools", stop_grace_s=0.2)
    async with agent_of(app, toy("i-1", "--starts", str(starts), "--ignore-term")) as (agent, publish):
        first = await agent.start("tools", "i-1")
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(agent.stop("tools", "i-1", hold=False))
            assert isinstance(await agent.wait("tools", "i-1", State.STOPPING, LIMIT_S), Reached)
            second = await agent.start("tools", "i-1")
        assert isinstance(stopping.result(), Stopped)
        assert isinstance(first, Started)
        assert isinstance(second, Started)
        assert first.instance.incarnation != second.instance.incarnation
        assert publish.states("tools/i-1")[2:] == ["started", "stopping", "stopped", "starting", "started"]
        assert is_gone(int(lines(starts)[0].split()[1]))


@both_loops
async def test_at_most_so_many_start_at_once(tmp_path: Path) -> None:
    (one, gate_one, starts_one), (two, gate_two, starts_two) = gated(tmp_path, "i-1"), gated(tmp_path, "i-2")
    (three, _, starts_three) = gated(tmp_path, "i-3")
    async with agent_of(APP, one, two, three, start_limit=1) as (agent, publish):
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(agent.start("tools", "i-1"))
            await until(lambda: len(lines(starts_one)) == 1, "the first was started")
            second = tasks.create_task(agent.start("tools", "i-2"))
            third = tasks.create_task(agent.start("tools", "i-3"))
            # One that waits for its turn can be stopped like any other.
            assert isinstance(await agent.wait("tools", "i-3", State.STARTING, LIMIT_S), Reached)
            await agent.stop("tools", "i-3", hold=False)
            assert not lines(starts_two)
            await asyncio.to_thread(open_gate, gate_one)
            await asyncio.to_thread(open_gate, gate_two)
        assert isinstance(first.result(), Started)
        assert isinstance(second.result(), Started)
        assert isinstance(third.result(), StartFailed)
        assert not lines(starts_three)
        assert publish.states("tools/i-3") == ["created", "starting", "stopping", "stopped"]


@both_loops
async def test_what_the_catalog_remembers_of_an_operators_word_is_kept() -> None:
    remembered = Instance(
        "tools", "i-1", state=State.STARTED, address=Address("127.0.0.1", 9), incarnation="old00000", cordoned=True,
        held_down=True,
    )  # fmt: skip
    async with agent_of(APP, toy("i-1"), remembered=lambda app, id: remembered) as (_, publish):
        instance = publish.instance("i-1")
        assert (instance.state, instance.address) == (State.STOPPED, None)
        # A life after the remembered one, whatever the clock says.
        assert (instance.incarnation, instance.cordoned, instance.held_down) == ("old00001", True, True)


@both_loops
async def test_cordon_and_uncordon() -> None:
    async with agent_of(APP, toy("i-1")) as (agent, publish):
        await agent.start("tools", "i-1")
        outcome = await agent.cordon("tools", "i-1", True)
        assert outcome == Cordoned(publish.instance("i-1"))
        assert publish.instance("i-1").cordoned
        assert publish.instance("i-1").running
        await agent.cordon("tools", "i-1", False)
        assert not publish.instance("i-1").cordoned


@both_loops
async def test_wait_says_when_the_time_is_over() -> None:
    async with agent_of(APP, toy("i-1")) as (agent, publish):
        assert await agent.wait("tools", "i-1", State.STARTED, 0.01) == NotReached(publish.instance("i-1"))
        assert await agent.wait("tools", "i-1", State.CREATED, 0.01) == Reached(publish.instance("i-1"))


@both_loops
async def test_what_is_not_owned_is_refused_by_name() -> None:
    async with agent_of(APP) as (agent, _):
        started = await agent.start("tools", "i-9")
        assert isinstance(started, StartFailed)
        assert started.failure.kind is FailureKind.UNKNOWN_INSTANCE
        assert "tools/i-9" in started.failure.message
        for outcome in (await agent.stop("tools", "i-9"), await agent.cordon("tools", "i-9", True)):
            assert isinstance(outcome, Refused)
            assert outcome.failure.kind is FailureKind.UNKNOWN_INSTANCE
        assert await agent.wait("tools", "i-9", State.STARTED, 1.0) == NotReached(None)
        assert not await agent.remove("tools", "i-9")


@both_loops
async def test_instances_come_and_go(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    async with agent_of(APP) as (agent, publish):
        spec = toy("i-1", "--starts", str(starts))
        await agent.add(APP, spec)
        with pytest.raises(ValueError, match="tools/i-1 exists twice"):
            await agent.add(APP, spec)
        await agent.start("tools", "i-1")
        assert [(each.instance.id, each.reason) for each in await agent.list()] == [("i-1", "")]
        assert await agent.remove("tools", "i-1")
        assert publish.catalog.instance("tools", "i-1") is None
        assert not await agent.list()
        assert is_gone(int(lines(starts)[0].split()[1]))


@both_loops
async def test_closing_stops_all_at_once_and_refuses_starts(tmp_path: Path) -> None:
    app = App("tools", stop_grace_s=0.4)
    publish = Folding()
    specs = [toy(f"i-{n}", "--ignore-term", "--child", str(tmp_path / f"{n}")) for n in range(4)]
    async with agent_of(app, *specs, publish=publish) as (agent, _):
        await asyncio.gather(*(agent.start("tools", f"i-{n}") for n in range(4)))
        began_s = asyncio.get_running_loop().time()
    took_s = asyncio.get_running_loop().time() - began_s
    assert took_s < 4 * 0.4, "stopped one after the other"
    for n in range(4):
        assert publish.instance(f"i-{n}").state is State.STOPPED
        await until_gone(await pid_in(tmp_path / f"{n}"))
    refused = await agent.start("tools", "i-0", release=True)
    assert isinstance(refused, StartFailed)
    assert refused.failure.kind is FailureKind.AGENT_CLOSING


def test_a_spec_says_how_to_run() -> None:
    with pytest.raises(ValueError, match="tools/i-1 needs an address or a command"):
        Spec(InstanceKey("tools", "i-1"))
