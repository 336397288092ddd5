"""Keep-awake leases over the admin API: made, renewed, ended, refused; and what they do to the sleeper."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.model import App, AutoStop
from gateway.core.presence import MAX_LEASES
from gateway.lifecycle.sleeper import Sleeper
from tests.net.admin_bench import Bench, bench
from tests.net.test_admin_machines import error
from tests.net.yard import toy, until

TOOLS = App("tools", stop_grace_s=1.0, wake_timeout_s=20.0, auto_stop=AutoStop.STOP, idle_grace_s=0.0, idle_after_s=1.0)
MACHINE = "/v1/apps/tools/machines/i-1"
TASKS = f"{MACHINE}/tasks"


async def register(on: Bench) -> None:
    """A plain address is enough for a lease."""
    body = {"id": "i-1", "address": "10.0.0.7:8000"}
    assert (await on.client.post("/v1/apps/tools/machines", json=body)).status_code == 201


async def listed(on: Bench) -> dict[str, float]:
    return {one["name"]: one["left_s"] for one in (await on.get(TASKS))["tasks"]}


async def test_a_lease_is_made_renewed_and_ended() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        assert await listed(on) == {}
        made = await on.client.post(TASKS, json={"name": "import", "expire": "5m"})
        assert made.status_code == 201
        assert made.json() == {"name": "import", "left_s": 300.0}
        assert made.headers["location"] == f"{TASKS}/import"
        assert 290 < (await listed(on))["import"] <= 300
        again = await on.client.post(TASKS, json={"name": "import", "expire": 10})
        assert again.status_code == 409
        assert error(again)["code"] == "AD12"
        # What is live was left as it is.
        assert (await listed(on))["import"] > 290
        renewed = await on.client.put(f"{TASKS}/import", json={"expire": 60})
        assert (renewed.status_code, renewed.json()) == (200, {"name": "import", "left_s": 60.0})
        assert (await listed(on))["import"] <= 60
        new = await on.client.put(f"{TASKS}/other", json={"name": "other", "expire": 60})
        assert new.status_code == 200
        assert list(await listed(on)) == ["import", "other"]
        ended = await on.client.delete(f"{TASKS}/import")
        assert (ended.status_code, ended.content) == (204, b"")
        assert list(await listed(on)) == ["other"]
        for name in ("import", "no%20name"):
            gone = await on.client.delete(f"{TASKS}/{name}")
            assert gone.status_code == 404
            assert error(gone)["code"] == "AD03"


async def test_a_lease_is_one_instances() -> None:
    async with bench(TOOLS, App("other")) as on:
        await register(on)
        for app, id in (("tools", "i-2"), ("other", "i-1")):
            await on.client.post(f"/v1/apps/{app}/machines", json={"id": id, "address": "10.0.0.8:8000"})
            await on.client.post(f"/v1/apps/{app}/machines/{id}/tasks", json={"name": "import", "expire": 60})
        assert await listed(on) == {}
        assert (await on.client.post(TASKS, json={"name": "import", "expire": 60})).status_code == 201


@pytest.mark.parametrize(
    ("expire", "left_s"),
    [(90, 90.0), (1.5, 1.5), ("90s", 90.0), ("1m30s", 90.0), ("0.5h", 1800.0), ("1500ms", 1.5), (3600, 3600.0)],
)
async def test_durations_are_seconds_or_have_units(expire: object, left_s: float) -> None:
    async with bench(TOOLS) as on:
        await register(on)
        made = await on.client.post(TASKS, json={"name": "import", "expire": expire})
        assert made.json()["left_s"] == left_s


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ([], [""]),
        ({}, ["expire", "name"]),
        ({"name": "a b", "expire": "5 m"}, ["expire", "name"]),
        ({"name": "x" * 65, "expire": 0}, ["expire", "name"]),
        ({"name": 1, "expire": True}, ["expire", "name"]),
        ({"name": "import", "expire": -1}, ["expire"]),
        ({"name": "import", "expire": "0s"}, ["expire"]),
        ({"name": "import", "expire": 3600.5}, ["expire"]),
        ({"name": "import", "expire": "1h1s"}, ["expire"]),
        ({"name": "import", "expire": 10**400}, ["expire"]),
        ({"name": "import", "expire": 60, "expires": 60}, ["expires"]),
    ],
)
async def test_every_fault_of_a_lease_is_told(body: Any, keys: list[str]) -> None:
    async with bench(TOOLS) as on:
        await register(on)
        response = await on.client.post(TASKS, json=body)
        assert response.status_code == 422
        assert sorted(fault["key"] for fault in error(response)["faults"]) == keys
        assert await listed(on) == {}


async def test_a_renewal_names_no_other_lease_than_its_path() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        for name, body in (("import", {"name": "other", "expire": 60}), ("no%20name", {"expire": 60})):
            response = await on.client.put(f"{TASKS}/{name}", json=body)
            assert [fault["key"] for fault in error(response)["faults"]] == ["name"]


async def test_an_instance_has_so_many_leases_and_each_can_be_renewed() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        for number in range(MAX_LEASES):
            await on.whereabouts.hold("tools", "i-1", f"t-{number}", 60.0, replace=False)
        for response in (
            await on.client.post(TASKS, json={"name": "more", "expire": 60}),
            await on.client.put(f"{TASKS}/more", json={"expire": 60}),
        ):
            assert response.status_code == 409
            assert error(response)["code"] == "AD12"
        assert (await on.client.put(f"{TASKS}/t-7", json={"expire": 60})).status_code == 200


async def test_there_are_no_leases_of_machines_that_are_not_there() -> None:
    async with bench(TOOLS) as on:
        for response in (
            await on.client.get(TASKS),
            await on.client.post(TASKS, json={"name": "import", "expire": 60}),
            await on.client.put(f"{TASKS}/import", json={"expire": 60}),
            await on.client.delete(f"{TASKS}/import"),
        ):
            assert response.status_code == 404
            assert error(response)["code"] == "AD03"


async def test_without_the_store_there_are_none_and_the_answer_says_so() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        await on.client.post(TASKS, json={"name": "import", "expire": 60})
        on.whereabouts.board.away = True
        for response in (
            await on.client.get(TASKS),
            await on.client.post(TASKS, json={"name": "other", "expire": 60}),
            await on.client.put(f"{TASKS}/import", json={"expire": 60}),
            await on.client.delete(f"{TASKS}/import"),
        ):
            assert response.status_code == 503
            assert error(response)["code"] == "AD13"
            assert "it is switched off" in error(response)["detail"]
            assert response.headers["retry-after"] == "1"
        # Machines and metrics are told of all the same.
        assert (await on.get(MACHINE))["leases"] is None
        assert "moorage_leases{" not in (await on.client.get("/metrics")).text
        await on.presence.speak()
        assert (await on.get(MACHINE))["leases"] is None
        assert "moorage_gateways_live 0.0" in (await on.client.get("/metrics")).text
        on.whereabouts.board.away = False
        await on.presence.speak()
        assert (await on.get(MACHINE))["leases"] == ["import"]
        assert 'moorage_leases{app="tools"} 1.0' in (await on.client.get("/metrics")).text


async def test_a_machine_says_what_keeps_it_awake() -> None:
    async with bench(TOOLS, instances=[(TOOLS, toy("i-1"))]) as on:
        assert (await on.get(MACHINE))["up_because"] == ""
        await on.client.post(f"{MACHINE}/start", timeout=30)
        assert (await on.get(MACHINE))["up_because"] == "nothing: it sleeps soon"
        for name, expire in (("short", 60), ("long", 600), ("middle", 300)):
            await on.client.post(TASKS, json={"name": name, "expire": expire})
        view = await on.get(MACHINE)
        assert view["leases"] == ["long", "middle", "short"]
        assert view["up_because"] == "kept awake by long"
        # What counts before a lease is told before it.
        await on.client.post(f"{MACHINE}/cordon")
        assert (await on.get(MACHINE))["up_because"] == "cordoned: it finishes what it has"
        await on.client.post(f"{MACHINE}/stop", timeout=30)
        view = await on.get(MACHINE)
        assert (view["state"], view["up_because"], view["leases"]) == ("stopped", "", ["long", "middle", "short"])


async def test_an_instance_sleeps_when_its_lease_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no other gateway whose word it would have to wait for.
    monkeypatch.setattr("gateway.lifecycle.sleeper.LIVE_S", 0.0)
    async with bench(TOOLS, instances=[(TOOLS, toy("i-1")), (TOOLS, toy("i-2"))]) as on:
        for id in ("i-1", "i-2"):
            await on.client.post(f"/v1/apps/tools/machines/{id}/start", timeout=30)
        await on.client.post(TASKS, json={"name": "import", "expire": "1h"})
        # It has been watched for long.
        on.gateway.now_s += 86400.0
        assert isinstance(on.admin.sleeper, Sleeper)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one.run()) for one in (on.presence, on.admin.sleeper)]
            await until(lambda: on.instance("i-2").state == "stopped", "the sleep of i-2")
            assert on.instance("i-1").running
            await on.client.delete(f"{TASKS}/import")
            await until(lambda: on.instance("i-1").state == "stopped", "the sleep of i-1")
            for task in running:
                task.cancel()
        text = (await on.client.get("/metrics")).text.splitlines()
        for line in (
            "moorage_slept_total 2.0",
            "moorage_sleeps_called_off_total 0.0",
            "moorage_sleeper_leads 1.0",
            "moorage_gateways_live 1.0",
        ):
            assert line in text
