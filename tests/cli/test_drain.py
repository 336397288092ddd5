"""`moorage drain`: an instance is cordoned, what is left is shown, and the exit code says whether anything is."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gateway.agent.base import InstanceKey, Spec
from gateway.cli.drain import line
from gateway.core.model import Address, App, Pin
from tests.cli.test_admin_commands import at, moorage
from tests.net.admin_bench import Bench, bench
from tests.net.yard import until

TOOLS = App("tools")
STATIC = (TOOLS, Spec(InstanceKey("tools", "i-1"), address=Address("127.0.0.1", 9001)))


@pytest.fixture(autouse=True)
def silent_logs() -> Iterator[None]:
    """The gateway runs in this process and logs to where the command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    yield
    structlog.reset_defaults()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command is on a terminal; the lines of progress that it has shown."""
    # By its name, the module is hidden by the command of that name.
    module, lines = sys.modules["gateway.cli.drain"], list[str]()

    def noted(progress: dict[str, Any]) -> str:
        lines.append(line(progress))
        return lines[-1]

    monkeypatch.setattr(module, "_is_terminal", lambda: True)
    monkeypatch.setattr(module, "line", noted)
    monkeypatch.setattr(module, "STEP_S", 0.05)
    return lines


def carries(on: Bench, **counts: int) -> None:
    for what, count in counts.items():
        setattr(on.gateway.loads.of("tools", "i-1"), what, count)


async def test_a_drain_is_begun_and_says_what_is_left() -> None:
    async with bench(TOOLS, instances=[STATIC]) as on:
        carries(on, requests=2, streams=1)
        begun = await moorage("drain", "tools/i-1", *at(on))
        assert begun.code == 0, begun.err
        assert begun.out == "tools/i-1 drains: 2 requests, 1 stream left\n"
        assert on.instance("i-1").cordoned
        carries(on, requests=0, streams=0)
        assert (await moorage("drain", "tools/i-1", *at(on))).out == "tools/i-1 is drained\n"


async def test_it_waits_until_nothing_is_left_and_shows_how_that_goes(shown: list[str]) -> None:
    async with bench(TOOLS, instances=[STATIC]) as on:
        carries(on, requests=2)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(moorage("drain", "tools/i-1", "--wait", "--timeout", "1m", *at(on)))
            await until(lambda: shown == ["2 requests left"], "a line")
            carries(on, requests=1, streams=1)
            await until(lambda: len(shown) > 1, "another line")
            carries(on, requests=0, streams=0)
        done = waiting.result()
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines() == ["2 requests left", "1 request, 1 stream left", "tools/i-1 is drained"]


async def test_what_is_left_when_the_time_is_over_is_exit_code_1() -> None:
    async with bench(TOOLS, instances=[STATIC]) as on:
        on.gateway.sessions.touch(b"token", "tools", Pin("i-1", "0"), on.gateway.now_s)
        late = await moorage("drain", "tools/i-1", "--wait", "--timeout", "100ms", *at(on))
        assert (late.code, late.out) == (1, "")
        assert late.err == (
            "moorage: tools/i-1 is not drained after 100ms: 1 session left "
            "(the oldest session here began 0s ago, the last was used 0s ago)\n"
        )
        # The drain goes on.
        assert on.instance("i-1").cordoned
        assert (await moorage("drain", "tools/i-1", "--wait", "--no-sessions", *at(on))).code == 0


async def test_a_drain_that_is_ended_meanwhile_is_exit_code_1() -> None:
    async with bench(TOOLS, instances=[STATIC]) as on:
        carries(on, requests=1)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(moorage("drain", "tools/i-1", "--wait", *at(on)))
            await until(lambda: on.instance("i-1").cordoned, "the cordon")
            assert (await moorage("uncordon", "tools/i-1", *at(on))).code == 0
        assert waiting.result().code == 1
        assert waiting.result().err == "moorage: tools/i-1 was uncordoned meanwhile: the drain is over\n"


async def test_programs_get_the_last_progress(shown: list[str]) -> None:
    async with bench(TOOLS, instances=[STATIC]) as on:
        carries(on, streams=1)
        late = await moorage("drain", "tools/i-1", "--wait", "--timeout", "0.1", "--json", *at(on))
        assert late.code == 1
        assert shown == []
        assert late.json["left"] == {"requests": 0, "streams": 1, "sessions": 0}
        carries(on, streams=0)
        done = await moorage("drain", "tools/i-1", "--wait", "--json", *at(on))
        assert done.code == 0
        assert done.json["drained"] is True


async def test_what_cannot_be_drained_is_told() -> None:
    async with bench(TOOLS, instances=[STATIC]) as on:
        missing = await moorage("drain", "tools/i-9", *at(on))
        assert missing.code == 1
        assert missing.err.startswith("moorage: there is no machine tools/i-9 (AD03). ")
        for arguments, text in (
            (("tools",), "write APP/INSTANCE"),
            (("tools/i-1", "--timeout", "soon"), '--timeout: "soon" is not a duration'),
        ):
            wrong = await moorage("drain", *arguments, *at(on))
            assert wrong.code == 2
            assert text in wrong.err
        assert not on.instance("i-1").cordoned


def test_a_line_tells_what_is_left_or_why_that_is_not_known() -> None:
    nothing: dict[str, Any] = {
        "left": {"requests": 0, "streams": 0, "sessions": 0}, "oldest_session_s": None, "last_used_s": None,
        "why": "other gateways are not heard",
    }  # fmt: skip
    assert line(nothing) == "other gateways are not heard"
    sessions = {"requests": 1, "streams": 0, "sessions": 3}
    told = line({**nothing, "left": sessions, "oldest_session_s": 7300.0, "last_used_s": 130.0})
    assert told == "1 request, 3 sessions left (the oldest session here began 2h ago, the last was used 2m ago)"
