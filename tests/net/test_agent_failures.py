"""Starts that fail and instances that crash: each way has its name and words, and none is tried again too soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.agent.base import FailureKind, InstanceKey, Spec, Started, StartFailed
from gateway.core.lifecycle import SETTLED_S
from gateway.core.model import App, Check, State
from tests.loops import both_loops
from tests.net.yard import Clock, agent_of, lines, request, toy, until

KEY = InstanceKey("tools", "i-1")
APP = App("tools")
HASTY = App("tools", wake_timeout_s=0.5)


def command(*words: str, cwd: Path | None = None) -> Spec:
    return Spec(KEY, command=words, cwd=cwd)


def no_command(tmp_path: Path) -> Spec:
    return command("no-such-command")


def no_path(tmp_path: Path) -> Spec:
    return command("./missing", cwd=tmp_path)


def no_permission(tmp_path: Path) -> Spec:
    (tmp_path / "server").write_text("#!/bin/sh\n", encoding="utf-8")
    return command("./server", cwd=tmp_path)


def no_interpreter(tmp_path: Path) -> Spec:
    script = tmp_path / "server"
    script.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    script.chmod(0o755)
    return command(str(script))


def no_cwd(tmp_path: Path) -> Spec:
    return command("true", cwd=tmp_path / "missing")


def fails(tmp_path: Path) -> Spec:
    return toy("i-1", "--status", "3")


def ends(tmp_path: Path) -> Spec:
    return toy("i-1", "--status", "0")


def dies(tmp_path: Path) -> Spec:
    return command("sh", "-c", "kill -SEGV $$")


def deaf(tmp_path: Path) -> Spec:
    return toy("i-1", "--deaf")


def loses_every_port(tmp_path: Path) -> Spec:
    return toy("i-1", "--starts", str(tmp_path / "starts"), "--lose-port", "99")


@pytest.mark.parametrize(
    ("spec_of", "app", "kind", "message", "detail"),
    [
        (
            no_command,
            APP,
            FailureKind.COMMAND_NOT_FOUND,
            "its command was not found",
            "'no-such-command' is not in PATH",
        ),
        (no_path, APP, FailureKind.COMMAND_NOT_FOUND, "its command was not found", "/missing"),
        (no_permission, APP, FailureKind.NOT_EXECUTABLE, "is not executable", "/server"),
        (no_interpreter, APP, FailureKind.NOT_EXECUTABLE, "is not executable", "interpreter"),
        (no_cwd, APP, FailureKind.CWD_MISSING, "its cwd is not a directory", "/missing"),
        (fails, APP, FailureKind.EXITED, "exited with status 3", "about to fail"),
        (ends, APP, FailureKind.EXITED, "exited before it was ready", "about to fail"),
        (dies, APP, FailureKind.EXITED, "was killed by SIGSEGV", "it printed nothing"),
        (deaf, HASTY, FailureKind.NEVER_LISTENED, "did not listen on its port in time", "nothing answers at"),
        (loses_every_port, APP, FailureKind.PORT_TAKEN, "which is taken", "Address already in use"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@both_loops
async def test_every_failure_has_a_name_and_words(
    spec_of: Callable[[Path], Spec], app: App, kind: FailureKind, message: str, detail: str, tmp_path: Path
) -> None:
    async with agent_of(app, spec_of(tmp_path)) as (agent, publish):
        outcome = await agent.start("tools", "i-1")
        assert isinstance(outcome, StartFailed)
        assert outcome.failure.kind is kind
        assert message in outcome.failure.message
        assert "tools/i-1" in outcome.failure.message
        assert detail in outcome.failure.detail
        assert str(tmp_path) not in outcome.failure.message, "a path of this host would reach clients"
        assert 0.75 <= outcome.retry_after_s <= 1.0
        assert publish.states("tools/i-1") == ["created", "starting", "failed"]
        assert publish.instance("i-1").address is None
        assert publish.bodies["tools/i-1"]["reason"] == outcome.failure.message
        assert (await agent.list())[0].reason == outcome.failure.message


@both_loops
async def test_checks_that_never_pass_are_named(tmp_path: Path) -> None:
    app = replace(HASTY, checks=(Check("/healthz"),))
    (tmp_path / "unready").touch()
    async with agent_of(app, toy("i-1", "--unready", str(tmp_path / "unready"))) as (agent, _):
        outcome = await agent.start("tools", "i-1")
        assert isinstance(outcome, StartFailed)
        assert outcome.failure.kind is FailureKind.CHECK_FAILED
        assert "/healthz answered 503" in outcome.failure.detail
        assert "i-1 listens" in outcome.failure.detail


@both_loops
async def test_a_failed_start_is_remembered_for_a_while(tmp_path: Path) -> None:
    starts, clock = tmp_path / "starts", Clock()
    spec = toy("i-1", "--starts", str(starts), "--status", "3")
    async with agent_of(APP, spec, clock_s=clock) as (agent, _):
        outcomes = await asyncio.gather(*(agent.start("tools", "i-1") for _ in range(100)))
        assert len(set(outcomes)) == 1
        first = outcomes[0]
        assert isinstance(first, StartFailed)
        # Within the back-off: the same words at once, and nothing is started.
        assert await agent.start("tools", "i-1") == first
        assert len(lines(starts)) == 1
        clock.now_s += first.retry_after_s
        second = await agent.start("tools", "i-1")
        assert isinstance(second, StartFailed)
        assert len(lines(starts)) == 2
        assert 1.5 <= second.retry_after_s <= 2.0
        # An operator does not wait, and starts from the beginning.
        third = await agent.start("tools", "i-1", release=True)
        assert isinstance(third, StartFailed)
        assert third.retry_after_s <= 1.0
        assert len(lines(starts)) == 3


@both_loops
async def test_a_lost_port_is_tried_again_with_another(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    async with agent_of(APP, toy("i-1", "--starts", str(starts), "--lose-port", "2")) as (agent, publish):
        assert isinstance(await agent.start("tools", "i-1"), Started)
        incarnations = [line.split()[0] for line in lines(starts)]
        assert len(set(incarnations)) == 3
        assert publish.instance("i-1").incarnation == incarnations[-1]
        assert publish.states("tools/i-1") == ["created", "starting", "started"]


@pytest.mark.parametrize(("status", "state"), [(0, State.STOPPED), (7, State.FAILED)])
@both_loops
async def test_an_exit_is_published_at_once(status: int, state: State) -> None:
    clock = Clock()
    async with agent_of(APP, toy("i-1"), clock_s=clock) as (agent, publish):
        await agent.start("tools", "i-1")
        address, before = publish.instance("i-1").address, publish.instance("i-1").incarnation
        assert address is not None
        clock.now_s += SETTLED_S
        await request(address, f"/exit/{status}", "POST")
        await until(lambda: publish.instance("i-1").state is state, "the exit was published")
        assert publish.instance("i-1").address is None
        assert publish.bodies["tools/i-1"]["reason"] == ("tools/i-1 exited with status 7" if status else "")
        # It ran long enough: the next request may start it at once, as a new incarnation.
        assert isinstance(await agent.start("tools", "i-1"), Started)
        assert publish.instance("i-1").incarnation != before


@both_loops
async def test_a_crash_soon_after_the_start_is_held_against_the_next() -> None:
    clock = Clock()
    async with agent_of(APP, toy("i-1"), clock_s=clock) as (agent, publish):
        for least_s in (0.75, 1.5):
            assert isinstance(await agent.start("tools", "i-1"), Started)
            address = publish.instance("i-1").address
            assert address is not None
            await request(address, "/exit/7", "POST")
            await until(lambda: publish.instance("i-1").state is State.FAILED, "the crash was published")
            outcome = await agent.start("tools", "i-1")
            assert isinstance(outcome, StartFailed)
            assert outcome.failure.kind is FailureKind.EXITED
            assert outcome.retry_after_s >= least_s
            clock.now_s += outcome.retry_after_s


@both_loops
async def test_a_fixed_address_is_used_and_a_taken_one_is_refused(tmp_path: Path) -> None:
    async with agent_of(APP, toy("i-1")) as (agent, publish):
        await agent.start("tools", "i-1")
        address = publish.instance("i-1").address
        assert address is not None
        # Whoever listens there would be taken for the instance, so that nothing is started.
        second = replace(toy("i-2", "--starts", str(tmp_path / "starts")), address=address)
        await agent.add(APP, second)
        outcome = await agent.start("tools", "i-2")
        assert isinstance(outcome, StartFailed)
        assert outcome.failure.kind is FailureKind.PORT_TAKEN
        assert not lines(tmp_path / "starts")
        await agent.stop("tools", "i-1")
        outcome = await agent.start("tools", "i-2", release=True)
        assert isinstance(outcome, Started)
        assert outcome.instance.address == address
