"""The end of sessions that began anew, and what becomes of them while their store is away
(docs/adr/0017-lost-sessions-are-initialised-anew.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.log.base import LogUnavailable
from tests.net.anew import Anew, at, call, carrying, initialize
from tests.net.replies import get
from tests.net.rig import Rig, until

AWAY = LogUnavailable("redis://x", "away", "wait")


@pytest.fixture
async def anew(rig: Rig) -> AsyncIterator[Anew]:
    async with carrying(rig) as one:
        yield one


# --- its end ---------------------------------------------------------------------------------


async def test_the_end_of_a_lost_session_is_its_end(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    other = await anew.server("i-2")
    rig.forget("i-1")
    assert at(await rig.ask(get("/mcp", session, method="DELETE"))) == "404 PS02"
    assert at(await rig.ask(call(session))) == "404 PS02"
    assert other.raw.untouched


@pytest.mark.parametrize("knows", [True, False])
async def test_the_end_of_a_session_that_began_anew(rig: Rig, anew: Anew, knows: bool) -> None:
    """Also at a gateway that has not heard of it."""
    await anew.server("i-1")
    session = await anew.opened()
    other = await anew.server("i-2")
    rig.forget("i-1")
    await rig.ask(call(session))
    if not knows:
        rig.gateway.bindings.drop(anew.keys[0])
    assert (await rig.ask(get("/mcp", session, method="DELETE"))).status == 200
    assert other.deleted == ["i-2.1"]
    assert at(await rig.ask(call(session))) == "404 PS03"
    rig.gateway.sessions._ended.clear()
    assert at(await rig.ask(call(session))) == "404 PS02"


async def test_a_session_that_ended_does_not_begin_anew(rig: Rig, anew: Anew) -> None:
    """At another gateway, which does not know of its end."""
    await anew.server("i-1")
    session = await anew.opened()
    other = await anew.server("i-2")
    assert (await rig.ask(get("/mcp", session, method="DELETE"))).status == 200
    rig.gateway.sessions._ended.clear()
    rig.forget("i-1")
    assert at(await rig.ask(call(session))) == "404 PS02"
    assert other.raw.untouched


# --- a store that is away ----------------------------------------------------------------------


async def test_sessions_are_made_without_the_store(rig: Rig, anew: Anew, capsys: pytest.CaptureFixture[str]) -> None:
    await anew.server("i-1")
    anew.store.fault = AWAY
    session = await anew.opened()
    assert "a session is not recorded" in capsys.readouterr().out
    assert at(await rig.ask(call(session))) == "i-1.1"
    await anew.server("i-2")
    rig.forget("i-1")
    assert at(await rig.ask(call(session))) == "503 PG04"
    assert at(await rig.ask(get("/mcp", session, method="DELETE"))) == "503 PG04"
    anew.store.fault = None
    assert at(await rig.ask(call(session))) == "404 PS02"


async def test_a_session_ends_without_the_store(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    anew.store.fault = AWAY
    assert (await rig.ask(get("/mcp", session, method="DELETE"))).status == 200


async def test_what_cannot_be_bound_is_closed_again(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    session = await anew.opened()
    other = await anew.server("i-2")
    rig.forget("i-1")

    async def goes() -> None:
        anew.store.fault = AWAY

    anew.store.before_bind = goes
    assert at(await rig.ask(call(session))) == "503 PG04"
    await until(lambda: other.deleted == ["i-2.1"], "the end of the new session")
    anew.store.fault = None
    assert at(await rig.ask(call(session))) == "i-2.2"
    assert anew.reinitialised == 1


async def test_no_answer_goes_out_before_its_session_is_recorded(rig: Rig, anew: Anew) -> None:
    await anew.server("i-1")
    stored, asked = asyncio.Event(), asyncio.Event()
    put = anew.store.put

    async def slow(*args: object) -> None:
        asked.set()
        await stored.wait()
        await put(*args)

    anew.store.put = slow  # type: ignore[method-assign]
    client = await rig.client()
    client.send(initialize())
    await asked.wait()
    (edge,) = rig.gateway.edges
    assert edge.exchange is not None
    assert not edge.exchange.over
    stored.set()
    assert (await client.answer()).status == 200
