"""The fleet: each call goes to the instance's own agent, here or elsewhere, and what cannot be asked is said so."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from gateway.agent import fleet as fleet_module
from gateway.agent.base import (
    Cordoned,
    FailureKind,
    NotReached,
    Prepared,
    Reached,
    Refused,
    Rest,
    Started,
    StartFailed,
    Stopped,
)
from gateway.agent.fleet import Fleet
from gateway.core.model import Instance, State
from tests.net.fleet_bench import INSTANCE, TOKENS, ScriptedAgent, lying, serving
from tests.net.yard import until

OWN = "agent@here:8080"
ASLEEP = dataclasses.replace(INSTANCE, state=State.STOPPED, address=None, startable=True)


def fleet_of(local: ScriptedAgent | None, *instances: Instance) -> Fleet:
    catalog = {(one.app, one.id): one for one in instances}
    return Fleet(local, OWN, lambda app, id: catalog.get((app, id)), TOKENS)


async def everything(fleet: Fleet) -> list[Any]:
    """Every call of the API but `list`, about one instance."""
    outcomes = [
        await fleet.start("tools", "i-1", release=True),
        await fleet.stop("tools", "i-1", hold=False),
        await fleet.suspend("tools", "i-1", hold=False),
        await fleet.prepare("tools", "i-1", "0mbench1", Rest.STOP),
        await fleet.sleep("tools", "i-1", "0a1b"),
        await fleet.cordon("tools", "i-1", True),
        await fleet.wait("tools", "i-1", State.STARTED, 1.0),
    ]
    await fleet.stay("tools", "i-1", "0a1b")
    return outcomes


ASKED = ["start", "stop", "suspend", "prepare", "sleep", "cordon", "wait", "stay"]
ANSWERED = [Started, Stopped, Stopped, Prepared, Stopped, Cordoned, Reached]


def ready() -> ScriptedAgent:
    agent = ScriptedAgent()
    agent.waits = Reached(INSTANCE)
    return agent


async def test_what_is_its_own_is_asked_here_also_where_it_has_a_url() -> None:
    local = ready()
    mine = dataclasses.replace(ASLEEP, owner=OWN, agent="http://127.0.0.1:1")
    fleet = fleet_of(local, mine)
    assert [type(one) for one in await everything(fleet)] == ANSWERED
    assert [call[0] for call in local.asked] == ASKED
    assert local.asked[0] == ("start", "tools", "i-1", True)
    assert await fleet.list() == local.owned
    await fleet.aclose()


async def test_what_no_record_names_yet_is_asked_here_too() -> None:
    local = ready()
    assert await fleet_of(local).start("tools", "i-1") == Started(INSTANCE)


async def test_what_belongs_to_another_agent_is_asked_there() -> None:
    local, other = ready(), ready()
    async with serving(other) as url:
        fleet = fleet_of(local, dataclasses.replace(ASLEEP, owner="agent@there:8082", agent=url))
        assert [type(one) for one in await everything(fleet)] == ANSWERED
        # What others own stands in the catalog, not in a list.
        assert await fleet.list() == local.owned
        await fleet.aclose()
    assert [call[0] for call in other.asked] == ASKED
    assert local.asked == []


@pytest.mark.parametrize("local", [None, ScriptedAgent()], ids=["no own agent", "own agent"])
@pytest.mark.parametrize(
    ("instance", "kind", "said"),
    [
        (dataclasses.replace(ASLEEP, owner="agent@there:1"), FailureKind.AGENT_AWAY, "set [agent] listen"),
        (dataclasses.replace(ASLEEP, agent="http://u@h:1"), FailureKind.AGENT_AWAY, "cannot be asked"),
        (dataclasses.replace(ASLEEP, agent="http://h"), FailureKind.AGENT_AWAY, "cannot be asked"),
        (dataclasses.replace(ASLEEP, startable=False, owner="admin@there:1"), FailureKind.UNKNOWN_INSTANCE, "owns"),
    ],
)
async def test_what_cannot_be_asked_for_is_said_so(
    local: ScriptedAgent | None, instance: Instance, kind: FailureKind, said: str
) -> None:
    fleet = fleet_of(local, instance)
    outcomes = await everything(fleet)
    assert isinstance(outcomes[0], StartFailed)
    assert all(isinstance(one, Refused) for one in outcomes[1:-1])
    assert outcomes[-1] == NotReached(None)
    assert {one.failure.kind for one in outcomes[:-1]} == {kind}
    assert all(said in one.failure.message for one in outcomes[:-1])
    assert local is None or local.asked == []


async def test_without_an_agent_of_its_own_there_is_nothing_of_its_own() -> None:
    fleet = fleet_of(None, dataclasses.replace(ASLEEP, owner=OWN))
    assert await fleet.list() == ()
    gone = await fleet.start("tools", "i-2")
    assert isinstance(gone, StartFailed)
    assert gone.failure.kind is FailureKind.UNKNOWN_INSTANCE
    left = await fleet.start("tools", "i-1")
    assert isinstance(left, StartFailed)
    assert left.failure.kind is FailureKind.AGENT_AWAY


async def test_connections_to_few_agents_are_kept_and_none_in_use_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "MAX_AGENTS", 2)
    slow = ready()
    slow.gate.clear()
    async with (
        serving(slow) as first,
        serving(ready()) as second,
        serving(ready()) as third,
        lying(b"") as (liar, stuck),
    ):
        urls = {"i-1": first, "i-2": second, "i-3": third, "i-4": stuck}
        fleet = fleet_of(None, *(dataclasses.replace(ASLEEP, id=id, agent=url) for id, url in urls.items()))
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(fleet.start("tools", "i-1"))
            await slow.begun.wait()
            # What the scripted agents answer is about i-1, and not what is asked for: they were asked all the same.
            for id in ("i-2", "i-3", "i-2"):
                outcome = await fleet.cordon("tools", id, True)
                assert isinstance(outcome, Refused)
                assert "about another instance" in outcome.failure.detail
            waiting = tasks.create_task(fleet.cordon("tools", "i-4", True))
            await until(lambda: bool(liar.heads), "the liar is asked")
            full = await fleet.cordon("tools", "i-3", True)
            assert isinstance(full, Refused)
            assert full.failure.detail == "too many are asked now"
            waiting.cancel()
            slow.gate.set()
            assert await starting == Started(INSTANCE)
        await fleet.aclose()
        closed = await fleet.cordon("tools", "i-2", True)
        assert isinstance(closed, Refused)
        assert closed.failure.detail == "this gateway is closing"


async def test_the_agent_that_was_not_asked_for_the_longest_time_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "MAX_AGENTS", 2)
    nobody = {f"i-{number}": f"http://127.0.0.1:{number}" for number in (1, 2, 3)}
    fleet = fleet_of(None, *(dataclasses.replace(ASLEEP, id=id, agent=url) for id, url in nobody.items()))
    for id in ("i-1", "i-2", "i-1", "i-3"):
        assert isinstance(await fleet.cordon("tools", id, True), Refused)
    assert str(["http://127.0.0.1:1", "http://127.0.0.1:3"]) in repr(fleet)
    await fleet.aclose()
