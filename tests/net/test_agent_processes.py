"""Nothing outlives its owner: what is left of processes after a stop, a crash, and the death of the agent itself."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gateway.agent import output
from gateway.agent.base import DriverName, FailureKind, InstanceKey, Spec
from gateway.agent.output import LINE_BYTES, LINES_PER_S, Lines, to_stderr
from gateway.agent.ports import RANGE, free_port, in_use
from gateway.agent.process import ProcessDriver, describe_status, explain_exec
from gateway.core.model import Address, App, State
from tests.loops import FACTORIES, both_loops
from tests.net.yard import LIMIT_S, Clock, agent_of, is_gone, lines, pid_in, quiet, request, toy, until, until_gone

ROOT = Path(__file__).parents[2]
KEY = InstanceKey("tools", "i-1")


def family(tmp_path: Path, *options: str) -> Spec:
    """A toy with a child in its group and one that left it."""
    child, daemon, starts = tmp_path / "child", tmp_path / "daemon", tmp_path / "starts"
    return toy("i-1", "--child", str(child), "--daemon", str(daemon), "--starts", str(starts), *options)


async def pids(tmp_path: Path) -> dict[str, int]:
    await until(lambda: lines(tmp_path / "starts") != [], "the instance runs")
    return {
        "itself": int(lines(tmp_path / "starts")[0].split()[1]),
        "child": await pid_in(tmp_path / "child"),
        "daemon": await pid_in(tmp_path / "daemon"),
    }


@both_loops
async def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    async with agent_of(App("tools"), family(tmp_path)) as (agent, _):
        await agent.start("tools", "i-1")
        running = await pids(tmp_path)
        assert not any(is_gone(pid) for pid in running.values())
        await agent.stop("tools", "i-1")
        assert is_gone(running["itself"])
        assert is_gone(running["child"])
        await until_gone(running["daemon"])


@both_loops
async def test_who_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    app = App("tools", stop_grace_s=0.3)
    async with agent_of(app, family(tmp_path, "--ignore-term")) as (agent, _):
        await agent.start("tools", "i-1")
        running = await pids(tmp_path)
        began_s = asyncio.get_running_loop().time()
        await agent.stop("tools", "i-1")
        assert asyncio.get_running_loop().time() - began_s >= 0.3
        assert is_gone(running["itself"])
        assert is_gone(running["child"])


@both_loops
async def test_half_an_instance_is_ended(tmp_path: Path) -> None:
    async with agent_of(App("tools"), family(tmp_path)) as (agent, publish):
        await agent.start("tools", "i-1")
        running = await pids(tmp_path)
        os.kill(running["itself"], signal.SIGKILL)
        await until_gone(running["child"])
        await until_gone(running["daemon"])
        await until(lambda: publish.instance("i-1").state is State.FAILED, "the crash was published")
        assert publish.bodies["tools/i-1"]["reason"] == "tools/i-1 was killed by SIGKILL"


AGENT_PROGRAM = """
    import asyncio, json, sys
    from gateway.agent.agent import Agent
    from gateway.core.model import App
    from tests.loops import FACTORIES
    from tests.net.yard import Folding, toy

    async def main():
        loop_name, *options = sys.argv[1:]
        specs = [toy("i-1", *options), toy("i-2")]
        async with asyncio.TaskGroup() as tasks:
            publish = Folding()
            instances = [(App("tools"), spec) for spec in specs]
            async with Agent(tasks, publish, owner="test", instances=instances) as agent:
                await asyncio.gather(agent.start("tools", "i-1"), agent.start("tools", "i-2"))
                print(json.dumps([each.detail for each in await agent.list()]), flush=True)
                await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        runner.run(main())
"""


@pytest.mark.parametrize("loop_name", list(FACTORIES))
@pytest.mark.parametrize("ignoring", [(), ("--ignore-term",)], ids=["polite", "ignoring SIGTERM"])
def test_no_instance_outlives_a_killed_agent(loop_name: str, ignoring: tuple[str, ...], tmp_path: Path) -> None:
    starts, child, daemon = (tmp_path / name for name in ("starts", "child", "daemon"))
    options = ("--starts", str(starts), "--child", str(child), "--daemon", str(daemon), *ignoring)
    program = (sys.executable, "-c", textwrap.dedent(AGENT_PROGRAM), loop_name, *options)
    with subprocess.Popen(
        program,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as agent:
        assert agent.stdout is not None
        details: list[str] = []
        for line in agent.stdout:  # the log is on it too
            if line.startswith(b"["):
                details = json.loads(line)
                break
        agent.kill()
    running = [int(detail.removeprefix("pid ")) for detail in details]
    assert len(running) == 2
    running += [int(path.read_text(encoding="utf-8")) for path in (child, daemon)]

    async def all_gone() -> None:
        for pid in running:
            await until_gone(pid)

    asyncio.run(all_gone())


@both_loops
async def test_a_killed_reaper_is_replaced(tmp_path: Path) -> None:
    driver = ProcessDriver(output=quiet)
    async with agent_of(App("tools"), family(tmp_path), toy("i-2"), drivers={DriverName.PROCESS: driver}) as (agent, _):
        await agent.start("tools", "i-1")
        first = driver.leash.reaper_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until_gone(first)
        await agent.start("tools", "i-2")
        second = driver.leash.reaper_pid
        assert second not in {None, first}
        # The new one knows what was started before it: it sweeps what left the group.
        running = await pids(tmp_path)
        await agent.stop("tools", "i-1")
        await until_gone(running["daemon"])


@both_loops
async def test_leaving_the_agent_leaves_no_process(tmp_path: Path) -> None:
    driver = ProcessDriver(output=quiet)
    async with agent_of(App("tools"), family(tmp_path), drivers={DriverName.PROCESS: driver}) as (agent, _):
        await agent.start("tools", "i-1")
        running = await pids(tmp_path)
        reaper = driver.leash.reaper_pid
        assert reaper is not None
    assert is_gone(reaper)
    assert all(is_gone(pid) for pid in running.values())


@both_loops
async def test_being_ready_is_noticed_soon(tmp_path: Path) -> None:
    listening = tmp_path / "listening"
    async with agent_of(App("tools"), toy("i-1", "--listening", str(listening))) as (agent, _):
        late_s = []
        for n in range(1, 6):
            await agent.start("tools", "i-1")
            # CLOCK_MONOTONIC is the same for all processes.
            ready_s = time.monotonic()
            await until(lambda n=n: len(lines(listening)) == n, "the instance said when it listened")  # type: ignore[misc]
            late_s.append(ready_s - float(lines(listening)[-1]))
            await agent.stop("tools", "i-1", hold=False)
        # The target is 50 ms on a quiet machine; the best of five shows it on a busy one.
        assert min(late_s) < 0.05, late_s


@both_loops
async def test_a_group_that_is_over_is_never_signalled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another program's by then."""
    async with agent_of(App("tools"), toy("i-1"), toy("i-2", "--status", "0")) as (agent, publish):
        await agent.start("tools", "i-1")
        await agent.start("tools", "i-2")
        address = publish.instance("i-1").address
        assert address is not None
        await request(address, "/exit/1", "POST")
        await agent.wait("tools", "i-1", State.FAILED, LIMIT_S)
        signalled: list[int] = []
        monkeypatch.setattr(os, "killpg", lambda group, number: signalled.append(group))
    assert not signalled


@both_loops
async def test_what_is_seen_of_it_says_its_state() -> None:
    driver = ProcessDriver(output=quiet)
    async with agent_of(App("tools"), toy("i-1"), drivers={DriverName.PROCESS: driver}) as (agent, publish):
        await agent.start("tools", "i-1")
        incarnation = publish.instance("i-1").incarnation
        assert repr(agent) == f"<Agent test [<Owned tools/i-1 started {incarnation}>]>"
        assert repr(driver).startswith("<ProcessDriver running=1 <Leash reaper=")


# --- parts -----------------------------------------------------------------------------


def test_long_lines_are_cut_and_the_last_ones_kept() -> None:
    seen: list[bytes] = []
    kept = Lines(KEY, lambda key, line: seen.append(line), Clock())
    kept.feed(b"one\ntw")
    kept.feed(b"o\r\n" + b"x" * 3 * LINE_BYTES)
    kept.feed(b"y" * LINE_BYTES + b"\nlast")
    kept.end()
    assert seen == [b"one", b"two", b"x" * LINE_BYTES, b"last"]
    assert kept.tail().splitlines()[-1] == "last"
    for n in range(3 * output.TAIL_LINES):
        kept.feed(b"%d\n" % n)
    assert len(kept.tail().splitlines()) == output.TAIL_LINES


def test_a_flood_is_dropped_and_counted() -> None:
    seen: list[bytes] = []
    clock = Clock()
    kept = Lines(KEY, lambda key, line: seen.append(line), clock)
    kept.feed(b"x\n" * (LINES_PER_S + 7))
    assert len(seen) == LINES_PER_S
    clock.now_s += 1.0
    kept.feed(b"again\n")
    assert seen[-2:] == [b"(7 lines dropped: more than 500 a second)", b"again"]


def test_output_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    to_stderr(KEY, b"hello")
    assert capfd.readouterr().err == "tools/i-1 | hello\n"


def test_ports_are_free_and_below_the_ephemeral_range(rng: random.Random) -> None:
    port = free_port(set(), rng)
    assert port in RANGE
    assert not in_use(Address("127.0.0.1", port))
    # A crowded range: the kernel's choice.
    assert free_port(RANGE, rng) not in RANGE


def test_in_use_knows_its_own_addresses_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert in_use(Address("127.0.0.1", port))
        assert in_use(Address("localhost", port))
        assert not in_use(Address("192.0.2.1", port))
        assert not in_use(Address("example.invalid", port))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOEXEC, FailureKind.NOT_EXECUTABLE),
        (errno.EACCES, FailureKind.NOT_EXECUTABLE),
        (errno.EAGAIN, FailureKind.REFUSED),
        (errno.ENOMEM, FailureKind.REFUSED),
    ],
)
def test_what_the_system_says_has_a_kind(number: int, kind: FailureKind) -> None:
    failure = explain_exec(KEY, "/bin/server", OSError(number, os.strerror(number)))
    assert failure.kind is kind
    assert "/bin/server" not in failure.message
    assert os.strerror(number) in failure.detail


def test_statuses_have_words() -> None:
    assert describe_status(2) == "exited with status 2"
    assert describe_status(-9) == "was killed by SIGKILL"
    assert describe_status(-200) == "was killed by signal 200"
    assert describe_status(None) == "ended in an unknown way"


@both_loops
async def test_output_without_an_end_does_not_hide_an_exit(tmp_path: Path) -> None:
    """A process that left the group holds the pipe; the exit is news all the same."""
    async with agent_of(App("tools"), family(tmp_path)) as (agent, publish):
        await agent.start("tools", "i-1")
        address = publish.instance("i-1").address
        assert address is not None
        await request(address, "/exit/0", "POST")
        async with asyncio.timeout(LIMIT_S):
            await agent.wait("tools", "i-1", State.STOPPED, LIMIT_S)
        assert publish.instance("i-1").state is State.STOPPED
