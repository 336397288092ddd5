"""Machines over the admin API: registered, listed, started, stopped, cordoned, waited for, refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.agent.base import InstanceKey, Spec
from gateway.core.model import Address, App, Check
from tests.net.admin_bench import Bench, bench
from tests.net.yard import toy

TOOLS = App("tools", hosts=("tools.localhost",), stop_grace_s=1.0, wake_timeout_s=20.0)
MACHINES = "/v1/apps/tools/machines"


async def register(on: Bench, **machine: Any) -> Any:
    return await on.client.post(MACHINES, json={"id": "i-9", "address": "10.0.0.7:8000", **machine})


def error(response: Any) -> Any:
    """The error of a refusal, in the one shape that all have."""
    body = response.json()["error"]
    assert {"code", "message", "app", "instance", "request_id", "remedy"} <= set(body)
    assert response.headers["moorage-error"] == body["code"]
    assert all(isinstance(body[key], str) for key in ("code", "message", "app", "instance", "request_id", "remedy"))
    return body


async def test_a_machine_is_registered_with_its_record_and_routable_at_once() -> None:
    async with bench(TOOLS) as on:
        response = await register(on, region="iad")
        assert response.status_code == 201
        assert response.headers["location"] == f"{MACHINES}/i-9"
        view = response.json()
        assert view["id"] == "i-9"
        assert view["address"] == "10.0.0.7:8000"
        assert view["region"] == "iad"
        assert view["state"] == "started"
        assert view["record"]["writer"] == view["owner"] == on.logs.admin_writer
        table = on.gateway.catalog.app("tools")
        assert table is not None
        assert [one.id for one in table.placeable] == ["i-9"]
        assert (await on.get(f"{MACHINES}/i-9"))["record"] == view["record"]


async def test_the_registered_machine_reaches_another_gateway_on_the_same_log() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        key = "instance/tools/i-9"
        version = on.gateway.catalog.version(key)
        assert version is not None
        # The follower of the region's log hears of it: it went through the store, not only through memory.
        follower = next(one for one in on.logs.followers if one.source == "local")
        await asyncio.wait_for(follower.seen(key, version), 5)
        assert follower.state().position != "0-0"


async def test_registering_it_again_keeps_its_sessions_and_another_address_ends_them() -> None:
    async with bench(TOOLS) as on:
        first = (await register(on)).json()["instance_id"]
        again = await register(on)
        assert again.status_code == 200
        assert again.json()["instance_id"] == first
        assert (await register(on, address="10.0.0.8:8000")).json()["instance_id"] != first
        assert (await on.client.delete(f"{MACHINES}/i-9")).status_code == 200
        assert (await register(on)).json()["instance_id"] == first


async def test_a_machine_that_moves_to_another_region_is_listed_once() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        await register(on, region="iad")
        assert [(one["id"], one["region"]) for one in await on.get(MACHINES)] == [("i-9", "iad")]


async def test_a_removed_machine_is_gone() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        assert (await on.client.delete(f"{MACHINES}/i-9")).json() == {"ok": True}
        assert await on.get(MACHINES) == []
        gone = await on.client.delete(f"{MACHINES}/i-9")
        assert gone.status_code == 404
        assert error(gone)["code"] == "AD03"


async def test_an_id_of_the_configuration_file_is_anothers() -> None:
    async with bench(TOOLS, instances=[(TOOLS, toy("i-1"))]) as on:
        for response in (await register(on, id="i-1"), await on.client.delete(f"{MACHINES}/i-1")):
            assert response.status_code == 409
            assert error(response)["code"] == "AD05"
            assert on.logs.agent_writer in error(response)["message"]
        assert on.instance("i-1").address is None


async def test_what_an_earlier_life_registered_is_still_owned() -> None:
    async with bench(TOOLS) as on:
        body = {"app": "tools", "id": "i-7", "address": "10.0.0.7:8000"}
        on.logs.admin.put("instance", "tools/i-7", body)
        assert (await on.client.delete(f"{MACHINES}/i-7")).status_code == 200


async def test_every_fault_is_told_at_once_and_nothing_is_changed() -> None:
    async with bench(TOOLS) as on:
        machine = {"id": "i_9!", "address": "169.254.169.254:80", "region": "global", "comand": ["x"], "command": ["x"]}
        response = await on.client.post(MACHINES, json=machine)
        assert response.status_code == 422
        faults = error(response)["faults"]
        assert sorted(fault["key"] for fault in faults) == ["address", "comand", "command", "id", "region"]
        assert all(fault["message"] and fault["remedy"] for fault in faults)
        assert await on.get(MACHINES) == []


async def test_a_machine_for_an_app_that_is_not_there_is_refused() -> None:
    async with bench(TOOLS) as on:
        response = await on.client.post("/v1/apps/other/machines", json={"id": "i", "address": "10.0.0.7:1"})
        assert response.status_code == 404
        assert error(response)["code"] == "AD03"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"id": NaN}', 400),
        (b'{"id": "a", "id": "b"}', 400),
        (b"[" * 60_000, 400),
        (b"\xff", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"id": "\\ud800", "address": "\\ud800"}', 422),
        (b'{"id": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
async def test_bodies_that_are_no_machine_are_refused_by_name(body: bytes, status: int) -> None:
    async with bench(TOOLS) as on:
        response = await on.client.post(MACHINES, content=body)
        assert response.status_code == status
        assert error(response)["code"] == {400: "AD09", 422: "AD07", 413: "AD08"}[status]
        # It serves on.
        assert await on.get(MACHINES) == []


async def test_start_waits_for_readiness_and_stop_holds_down() -> None:
    async with bench(TOOLS, instances=[(TOOLS, toy("i-1"))]) as on:
        started = await on.client.post(f"{MACHINES}/i-1/start", timeout=30)
        assert started.status_code == 200
        assert started.json()["previous_state"] == "created"
        assert started.json()["machine"]["state"] == "started"
        assert on.instance("i-1").running
        again = await on.client.post(f"{MACHINES}/i-1/start", timeout=30)
        assert again.json()["machine"]["instance_id"] == started.json()["machine"]["instance_id"]
        stopped = await on.client.post(f"{MACHINES}/i-1/stop", timeout=30)
        assert stopped.status_code == 200
        assert stopped.json()["machine"]["state"] == "stopped"
        assert stopped.json()["machine"]["held_down"] is True
        assert not on.instance("i-1").wakeable
        # The operator's start ends the operator's stop.
        resumed = await on.client.post(f"{MACHINES}/i-1/start", timeout=30)
        assert resumed.status_code == 200
        assert resumed.json()["machine"]["held_down"] is False
        assert on.instance("i-1").running


async def test_a_start_that_takes_longer_than_asked_for_goes_on(tmp_path: Any) -> None:
    unready = tmp_path / "unready"
    unready.touch()
    app = App("tools", checks=(Check("/", 0.05, 1.0, 0.0),), wake_timeout_s=20.0)
    async with bench(app, instances=[(app, toy("i-1", "--unready", str(unready)))]) as on:
        response = await on.client.post(f"{MACHINES}/i-1/start", params={"timeout": "0.05"})
        assert response.status_code == 202
        assert response.json()["machine"]["state"] == "starting"
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(on.client.get(f"{MACHINES}/i-1/wait", timeout=30))
            unready.unlink()
        assert waiting.result().json() == {"ok": True, "state": "started"}


async def test_a_start_that_fails_says_why_and_that_it_waits() -> None:
    async with bench(TOOLS, instances=[(TOOLS, toy("i-1", "--status", "3"))]) as on:
        response = await on.client.post(f"{MACHINES}/i-1/start", timeout=30)
        assert response.status_code == 503
        assert error(response)["code"] == "PM07"
        assert error(response)["instance"] == "i-1"
        view = await on.get(f"{MACHINES}/i-1")
        assert view["state"] == "failed"
        assert view["reason"]


async def test_plain_addresses_can_be_neither_started_nor_stopped() -> None:
    static = Spec(InstanceKey("tools", "i-1"), address=Address("127.0.0.1", 9001))
    async with bench(TOOLS, instances=[(TOOLS, static)]) as on:
        await register(on)
        for id in ("i-1", "i-9"):
            stop = await on.client.post(f"{MACHINES}/{id}/stop")
            assert stop.status_code == 409
            assert error(stop)["code"] == "AD06"
            # It runs, which is what was asked for.
            assert (await on.client.post(f"{MACHINES}/{id}/start")).status_code == 200


@pytest.mark.parametrize("id", ["i-1", "i-9"], ids=["the agent's", "registered here"])
async def test_a_cordon_takes_it_out_of_placement_and_back(id: str) -> None:
    async with bench(TOOLS, instances=[(TOOLS, toy("i-1"))]) as on:
        await register(on)
        response = await on.client.post(f"{MACHINES}/{id}/cordon")
        assert response.json()["machine"]["cordoned"] is True
        assert on.instance(id).cordoned
        if id == "i-9":
            # A cordon outlives a registration that says nothing about it.
            assert (await register(on)).json()["cordoned"] is True
        response = await on.client.post(f"{MACHINES}/{id}/uncordon")
        assert response.json()["machine"]["cordoned"] is False
        assert not on.instance(id).cordoned


async def test_a_machine_of_another_gateway_is_not_changed_here() -> None:
    async with bench(TOOLS) as on:
        on.logs.config.put(
            "instance", "tools/i-5", {"app": "tools", "id": "i-5", "owner": "agent@other:1", "state": "stopped"}
        )
        for action in ("start", "stop", "suspend", "cordon", "drain"):
            response = await on.client.post(f"{MACHINES}/i-5/{action}")
            assert response.status_code == 409
            assert error(response)["code"] == "AD05"
            assert "agent@other:1" in error(response)["message"]


async def test_suspend_keeps_the_memory_and_holds_down() -> None:
    async with bench(TOOLS, instances=[(TOOLS, toy("i-1"))]) as on:
        early = await on.client.post(f"{MACHINES}/i-1/suspend")
        assert early.status_code == 409
        assert error(early)["code"] == "AD11"
        assert error(early)["message"] == "tools/i-1 is created: only what is started can be suspended"
        started = (await on.client.post(f"{MACHINES}/i-1/start", timeout=30)).json()["machine"]
        suspended = await on.client.post(f"{MACHINES}/i-1/suspend", timeout=30)
        assert suspended.status_code == 200
        assert suspended.json()["previous_state"] == "started"
        view = suspended.json()["machine"]
        assert (view["state"], view["address"], view["held_down"]) == ("suspended", None, True)
        assert not on.instance("i-1").wakeable
        resumed = (await on.client.post(f"{MACHINES}/i-1/start", timeout=30)).json()["machine"]
        assert (resumed["state"], resumed["held_down"]) == ("started", False)
        assert resumed["instance_id"] == started["instance_id"]


async def test_plain_addresses_cannot_be_suspended() -> None:
    static = Spec(InstanceKey("tools", "i-1"), address=Address("127.0.0.1", 9001))
    async with bench(TOOLS, instances=[(TOOLS, static)]) as on:
        await register(on)
        for id, code in (("i-1", "AD11"), ("i-9", "AD06")):
            refused = await on.client.post(f"{MACHINES}/{id}/suspend")
            assert refused.status_code == 409
            assert error(refused)["code"] == code
            assert on.instance(id).running


async def test_wait_answers_at_once_in_time_and_too_late() -> None:
    async with bench(TOOLS) as on:
        await register(on)
        assert await on.get(f"{MACHINES}/i-9/wait") == {"ok": True, "state": "started"}
        late = await on.client.get(f"{MACHINES}/i-9/wait", params={"state": "stopped", "timeout": "0.05"})
        assert late.status_code == 408
        assert error(late)["code"] == "AD10"
        other = await on.client.get(f"{MACHINES}/i-9/wait", params={"instance_id": "other", "timeout": "0.05"})
        assert other.status_code == 408
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(on.client.get(f"{MACHINES}/i-9/wait", params={"state": "destroyed"}))
            await on.client.delete(f"{MACHINES}/i-9")
        assert waiting.result().status_code == 200
        assert (await on.client.get(f"{MACHINES}/i-9/wait")).status_code == 404


@pytest.mark.parametrize("timeout", ["61", "0", "-1", "nan", "inf", "x"])
async def test_wait_takes_up_to_a_minute(timeout: str) -> None:
    async with bench(TOOLS) as on:
        response = await on.client.get(f"{MACHINES}/i-9/wait", params={"timeout": timeout})
        assert response.status_code == 422
        assert [fault["key"] for fault in error(response)["faults"]] == ["timeout"]


async def test_lists_come_in_pages_and_by_region_and_state() -> None:
    async with bench(TOOLS) as on:
        for number in range(5):
            region = "iad" if number % 2 else "local"
            await register(on, id=f"i-{number}", address=f"10.0.0.{number + 1}:80", region=region)
        assert [one["id"] for one in await on.get(MACHINES, region="iad")] == ["i-1", "i-3"]
        assert await on.get(MACHINES, state="stopped") == []
        seen: list[str] = []
        path = f"{MACHINES}?limit=2&state=started"
        while path:
            response = await on.client.get(path)
            assert response.headers["total-count"] == "5"
            seen += [one["id"] for one in response.json()]
            path = response.links.get("next", {}).get("url", "")
        assert seen == [f"i-{number}" for number in range(5)]


async def test_apps_are_listed_by_name_in_pages() -> None:
    async with bench(TOOLS, App("alpha"), App("zeta", hosts=("*.z.example",))) as on:
        await register(on)
        first = await on.get("/v1/apps", limit=2)
        assert [one["name"] for one in first["apps"]] == ["alpha", "tools"]
        assert first["total_apps"] == 3
        assert first["apps"][1]["states"] == {"started": 1}
        rest = await on.get("/v1/apps", limit=2, after=first["next"])
        assert [one["name"] for one in rest["apps"]] == ["zeta"]
        assert rest["next"] is None


@pytest.mark.parametrize(
    "path", ["/v1/apps?x=1", f"{MACHINES}?limit=0", f"{MACHINES}?limit=1&limit=2", f"{MACHINES}?state=up"]
)
async def test_parameters_that_mean_nothing_are_faults(path: str) -> None:
    async with bench(TOOLS) as on:
        response = await on.client.get(path)
        assert response.status_code == 422
        assert len(error(response)["faults"]) == 1


async def test_only_so_many_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admin.machines.MAX_WAITING", 0)
    async with bench(TOOLS) as on:
        await register(on)
        # What is so already needs no waiting.
        assert (await on.client.get(f"{MACHINES}/i-9/wait")).status_code == 200
        response = await on.client.get(f"{MACHINES}/i-9/wait", params={"state": "stopped"})
        assert response.status_code == 503
        assert error(response)["code"] == "PL02"
        assert response.headers["retry-after"] == "1"
