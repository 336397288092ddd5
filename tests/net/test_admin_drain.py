"""Drains over the admin API: what is left is told over all gateways, waited for, and never believed too early."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.admin.application import Admin
from gateway.admin.carried import in_all
from gateway.core.model import App, AutoStop, Instance, Pin
from gateway.core.presence import Carried, Said, encode
from gateway.data.sessions import Session
from tests.net.admin_bench import Bench, bench
from tests.net.test_admin_machines import error
from tests.net.yard import toy, until

TOOLS = App("tools", stop_grace_s=1.0, wake_timeout_s=20.0, session_idle_s=600.0)
MACHINE = "/v1/apps/tools/machines/i-1"
DRAIN = f"{MACHINE}/drain"
KEY = ("tools", "i-1")
SOMETHING = "something is left"
MOMENT = "it was cordoned a moment ago: other gateways may not know it yet"
UNHEARD = "other gateways are not heard: what they carry is not known"
LOST = b"no message"


async def register(on: Bench) -> None:
    body = {"id": "i-1", "address": "10.0.0.7:8000"}
    assert (await on.client.post("/v1/apps/tools/machines", json=body)).status_code == 201
    on.gateway.now_s = 10_000.0


def session(on: Bench, number: int, incarnation: str = "", id: str = "i-1") -> Session:
    pin = Pin(id, incarnation or on.instance(id).incarnation)
    token = on.gateway.sealer.seal_session("tools", pin, b"%d" % number, None)
    return on.gateway.sessions.touch(token, "tools", pin, on.gateway.now_s)


async def another_says(on: Bench, carried: Carried | None = None, message: bytes = b"", name: str = "other:1") -> None:
    """Another gateway lives, and is heard here."""
    said = Said(name, "ab", {KEY: carried} if carried is not None else {})
    await on.whereabouts.put(name, message or encode(said), 60.0)
    await on.presence.speak()


async def begin(on: Bench, **params: Any) -> Any:
    response = await on.client.post(DRAIN, params=params)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the machines that were looked at."""
    seen: list[str] = []

    def look(admin: Admin, instance: Instance, *known: Any) -> tuple[int, int, int]:
        seen.append(instance.id)
        return in_all(admin, instance, *known)

    monkeypatch.setattr("gateway.admin.drains.in_all", look)
    return seen


async def test_a_drain_is_a_cordon_and_tells_what_is_left() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        assert (await on.get(DRAIN))["draining"] is False
        on.gateway.loads.of(*KEY).requests = 2
        on.gateway.loads.of(*KEY).streams = 1
        old, young = session(on, 1), session(on, 2)
        old.created_s, old.last_s = 9_000.0, 9_900.0
        young.created_s, young.last_s = 9_950.0, 9_980.0
        assert await begin(on) == {
            "app": "tools",
            "instance": "i-1",
            "state": "started",
            "draining": True,
            "drained": False,
            "why": SOMETHING,
            "left": {"requests": 2, "streams": 1, "sessions": 2},
            "oldest_session_s": 1000.0,
            "last_used_s": 20.0,
        }
        assert on.instance("i-1").cordoned
        on.gateway.loads.of(*KEY).requests = on.gateway.loads.of(*KEY).streams = 0
        old.last_s = young.last_s = 9_400.0
        done = await on.get(DRAIN)
        assert (done["drained"], done["why"], done["left"]) == (True, "", {"requests": 0, "streams": 0, "sessions": 0})
        assert (done["oldest_session_s"], done["last_used_s"]) == (None, None)


async def test_what_is_not_cordoned_is_not_drained() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        progress = await on.get(DRAIN, timeout=30)
        assert (progress["draining"], progress["drained"]) == (False, False)
        assert progress["why"] == "it is not cordoned: new sessions come"


async def test_only_sessions_count_that_would_be_lost_with_it() -> None:
    async with bench(TOOLS, instances=[(TOOLS, toy("i-1"))]) as on:
        await on.client.post(f"{MACHINE}/start", timeout=30)
        session(on, 1)
        session(on, 2, "0before")
        await on.client.post("/v1/apps/tools/machines", json={"id": "i-2", "address": "10.0.0.7:8000"})
        session(on, 3, id="i-2")
        progress = await begin(on)
        assert progress["left"]["sessions"] == 1
        assert (progress["drained"], (await begin(on, sessions="false"))["drained"]) == (False, True)
        await on.client.post(f"{MACHINE}/suspend", timeout=30)
        assert (await on.get(DRAIN))["left"]["sessions"] == 1
        # A stop has ended them.
        await on.client.post(f"{MACHINE}/stop", timeout=30)
        assert (await on.get(DRAIN))["drained"]


async def test_sessions_that_survive_a_stop_are_left_after_one() -> None:
    app = App("tools", sessions_survive_stop=True)
    async with bench(app, instances=[(app, toy("i-1"))]) as on:
        session(on, 1, "0before")
        assert (await begin(on))["left"]["sessions"] == 1


async def test_a_wait_ends_when_nothing_is_left(looks: list[str]) -> None:
    async with bench(TOOLS) as on:
        await register(on)
        on.gateway.loads.of(*KEY).streams = 1
        await begin(on)
        soon = await on.get(DRAIN, timeout=0.05)
        assert (soon["drained"], soon["left"]["streams"]) == (False, 1)
        looks.clear()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(on.client.get(DRAIN, params={"timeout": 30}, timeout=40))
            await until(lambda: len(looks) > 1, "a wait")
            on.gateway.loads.of(*KEY).streams = 0
        assert waiting.result().json()["drained"] is True


@pytest.mark.parametrize("ends", ["uncordon", "remove"])
async def test_a_wait_ends_with_the_drain(ends: str, looks: list[str]) -> None:
    async with bench(TOOLS) as on:
        await register(on)
        on.gateway.loads.of(*KEY).streams = 1
        await begin(on)
        looks.clear()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(on.client.get(DRAIN, params={"timeout": 30}, timeout=40))
            await until(lambda: bool(looks), "a wait")
            if ends == "uncordon":
                await on.client.post(f"{MACHINE}/uncordon")
            else:
                await on.client.delete(MACHINE)
        if ends == "uncordon":
            assert (waiting.result().json()["draining"], waiting.result().json()["drained"]) == (False, False)
        else:
            assert waiting.result().status_code == 404


async def test_what_other_gateways_carry_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admin.drains.SETTLE_S", 0.0)
    async with bench(TOOLS) as on:
        await register(on)
        on.gateway.loads.of(*KEY).requests = 1
        await another_says(on, Carried(requests=2, streams=3, sessions=4))
        await another_says(on, Carried(sessions=1), name="third:1")
        # What this one said of itself a moment ago does not count twice.
        assert (await begin(on))["left"] == {"requests": 3, "streams": 3, "sessions": 5}
        view = await on.get(MACHINE)
        assert (view["requests"], view["streams"], view["sessions"]) == (1, 0, 0)
        assert (view["requests_all"], view["streams_all"], view["sessions_all"]) == (3, 3, 5)
        on.gateway.loads.of(*KEY).requests = 0
        await another_says(on, Carried())
        assert (await on.get(DRAIN))["drained"] is False
        await another_says(on, name="third:1")
        assert (await on.get(DRAIN))["drained"] is True


async def test_other_gateways_are_believed_when_they_know_the_cordon(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(TOOLS) as on:
        await register(on)
        await another_says(on)
        assert (await begin(on))["why"] == MOMENT
        monkeypatch.setattr("gateway.admin.drains.SETTLE_S", 0.2)
        assert (await on.get(DRAIN, timeout=30))["drained"] is True
        # A drain that begins anew begins anew, by whatever it begins.
        await on.client.post(f"{MACHINE}/uncordon")
        assert (await begin(on))["why"] == MOMENT
        assert (await on.get(DRAIN, timeout=30))["drained"] is True
        await on.client.post(f"{MACHINE}/uncordon")
        await on.get(DRAIN)
        await on.client.post(f"{MACHINE}/cordon")
        assert (await on.get(DRAIN))["why"] == MOMENT


async def test_nothing_is_drained_while_others_are_not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admin.drains.SETTLE_S", 0.0)
    async with bench(TOOLS) as on:
        await register(on)
        await another_says(on, message=LOST)
        assert (await begin(on))["why"] == UNHEARD
        part = encode(Said("other:1", "ab", {}, whole=False))
        await another_says(on, message=part)
        assert (await on.get(DRAIN))["why"] == UNHEARD
        on.whereabouts.board.away = True
        await on.presence.speak()
        assert (await on.get(DRAIN))["why"] == UNHEARD
        on.whereabouts.board.away = False
        await another_says(on)
        assert (await on.get(DRAIN))["drained"] is True


async def test_a_drained_machine_is_not_put_to_sleep() -> None:
    app = App("tools", auto_stop=AutoStop.STOP, idle_grace_s=0.0, idle_after_s=1.0, stop_grace_s=1.0)
    async with bench(app, instances=[(app, toy("i-1"))]) as on:
        await on.client.post(f"{MACHINE}/start", timeout=30)
        assert (await on.get(MACHINE))["up_because"] == "nothing: it sleeps soon"
        assert (await begin(on))["drained"] is True
        assert (await on.get(MACHINE))["up_because"] == "cordoned: it finishes what it has"


async def test_only_so_many_wait_for_drains_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admin.drains.MAX_WAITING", 0)
    async with bench(TOOLS) as on:
        await register(on)
        await begin(on)
        assert (await on.get(DRAIN))["drained"] is True
        response = await on.client.get(DRAIN, params={"timeout": 1})
        assert response.status_code == 503
        assert error(response)["code"] == "PL02"
        assert response.headers["retry-after"] == "1"


async def test_however_many_drain_they_are_told_of_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admin.drains.MAX_KNOWN", 2)
    async with bench(TOOLS) as on:
        await another_says(on)
        for number in range(4):
            body = {"id": f"i-{number}", "address": f"10.0.0.{number + 1}:8000"}
            await on.client.post("/v1/apps/tools/machines", json=body)
            told = (await on.client.post(f"/v1/apps/tools/machines/i-{number}/drain")).json()
            assert (told["instance"], told["why"]) == (f"i-{number}", MOMENT)


@pytest.mark.parametrize("query", ["timeout=61", "timeout=0", "timeout=x", "sessions=no", "wait=true"])
async def test_parameters_that_mean_nothing_are_faults(query: str) -> None:
    async with bench(TOOLS) as on:
        await register(on)
        response = await on.client.get(f"{DRAIN}?{query}")
        assert response.status_code == 422
        assert len(error(response)["faults"]) == 1


async def test_a_drain_takes_no_body_and_a_machine_that_is_there() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        assert (await on.client.post(DRAIN, json={"timeout": 3})).status_code == 422
        assert not on.instance("i-1").cordoned
        for response in (
            await on.client.post("/v1/apps/tools/machines/i-9/drain"),
            await on.client.get("/v1/apps/tools/machines/i-9/drain"),
        ):
            assert response.status_code == 404
            assert error(response)["code"] == "AD03"
