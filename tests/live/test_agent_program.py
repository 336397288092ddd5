"""The agent as a program of its own, and gateways that ask it: wakes, stops, deaths, from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from tests.live.test_wake import sleeping
from tests.net.yard import is_gone
from tests.rigs import journal
from tests.rigs.agent import Agent
from tests.rigs.gateway import AppSpec, Gateway
from tests.rigs.redis import Redis
from tests.rigs.run import Bench, until

CALLERS = 100
OUTSIDE = {"inside": False}
MACHINE = "/v1/apps/web/machines/s-1"


def web(bench: Bench) -> AppSpec:
    return AppSpec("web", [sleeping(bench, "web_server", "s-1")])


async def catalog(bench: Bench, kind: str) -> str:
    if kind == "sqlite":
        return f"sqlite:{bench.directory}/catalog.db"
    redis = Redis(bench)
    await redis.start()
    return redis.url


async def hello(gateway: Gateway, count: int = 1) -> list[httpx2.Response]:
    limits = httpx2.Limits(max_connections=count)
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0, limits=limits) as client:
        urls = [f"{gateway.url}/hello?client=c-{number}" for number in range(count)]
        return await asyncio.gather(*(client.get(url) for url in urls))


async def operator(gateway: Gateway, action: str) -> Any:
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0) as client:
        response = await client.post(f"{gateway.admin_url}{MACHINE}/{action}")
        response.raise_for_status()
        return response.json()["machine"]


async def knows(gateway: Gateway, **wanted: object) -> dict[str, Any]:
    """The instance as the gateway has it, once it is as wanted."""
    seen: dict[str, Any] = {}

    async def so() -> bool:
        seen.update(await gateway.admin(MACHINE))
        return wanted.items() <= seen.items()

    await until(so, f"{gateway.name} knows {wanted}; it knows {seen}")
    return seen


def boots(bench: Bench) -> set[str]:
    return {entry.boot for entry in journal.read([bench.directory / "s-1.jsonl"])}


def error(response: httpx2.Response) -> Any:
    return response.json()["error"]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_an_agent_outside_runs_what_gateways_ask_for(bench: Bench, kind: str) -> None:
    url = await catalog(bench, kind)
    agent = await Agent.serve(bench, "agent", web(bench), catalog=url)
    gateway = await Gateway.serve(bench, "gateway", web(bench), agent=OUTSIDE, catalog=url)
    asleep = await knows(gateway, state="created")
    assert asleep["owner"].startswith("agent@")
    assert asleep["owner"].endswith(f":{agent.port}")
    # The first request wakes it; it is a child of the agent, not of the gateway.
    assert [answer.status_code for answer in await hello(gateway)] == [200]
    assert gateway.process.children() == set()
    (listed,) = await agent.get("/v1/machines")
    pid = int(listed["detail"].removeprefix("pid "))
    assert pid in agent.process.children()

    # An operator's stop reaches it, holds, and ends with the operator's start.
    stopped = await operator(gateway, "stop")
    assert (stopped["state"], stopped["held_down"]) == ("stopped", True)
    await until(lambda: is_gone(pid), f"process {pid} has ended")
    assert (await hello(gateway))[0].status_code == 503
    assert (await operator(gateway, "cordon"))["cordoned"] is True
    assert (await operator(gateway, "uncordon"))["cordoned"] is False
    assert (await operator(gateway, "start"))["state"] == "started"
    assert (await hello(gateway))[0].status_code == 200
    assert len(boots(bench)) == 2

    # Its end takes the processes with it, and the gateways learn of it.
    (listed,) = await agent.get("/v1/apps/web/machines")
    pid = int(listed["detail"].removeprefix("pid "))
    assert await agent.stop() == 0
    assert is_gone(pid)
    await knows(gateway, state="stopped")


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_an_agent_that_is_killed_takes_its_processes_with_it_and_comes_back(bench: Bench, kind: str) -> None:
    url = await catalog(bench, kind)
    agent = await Agent.serve(bench, "agent", web(bench), catalog=url)
    gateway = await Gateway.serve(bench, "gateway", web(bench), agent=OUTSIDE, catalog=url)
    await knows(gateway, state="created")
    assert (await hello(gateway))[0].status_code == 200
    (listed,) = await agent.get("/v1/machines")
    await agent.kill()
    pid = int(listed["detail"].removeprefix("pid "))
    await until(lambda: is_gone(pid), f"process {pid} is gone by its leash")
    # The record still says that it runs: nobody is there to say otherwise.
    (refused,) = await hello(gateway)
    assert (refused.status_code, error(refused)["code"]) == (503, "PM02")
    assert int(refused.headers["retry-after"]) >= 1
    assert error(refused)["message"] == "the agent of web/s-1 cannot be asked"

    await agent.start()
    assert (await hello(gateway))[0].status_code == 200
    assert len(boots(bench)) == 2
    again = await knows(gateway, state="started")
    assert again["owner"] == listed["instance"]["owner"]
    assert again["instance_id"] > listed["instance"]["incarnation"]


async def test_two_gateways_and_a_hundred_first_requests_cause_one_start(bench: Bench) -> None:
    url = await catalog(bench, "redis")
    await Agent.serve(bench, "agent", web(bench), catalog=url)
    gateways = [
        await Gateway.serve(bench, name, web(bench), agent=OUTSIDE, catalog=url) for name in ("gateway-a", "gateway-b")
    ]
    for gateway in gateways:
        await knows(gateway, state="created")
    answers = await asyncio.gather(*(hello(gateway, CALLERS // 2) for gateway in gateways))
    assert {answer.status_code for each in answers for answer in each} == {200}
    assert len({answer.json()["boot"] for each in answers for answer in each}) == 1
    assert len(boots(bench)) == 1


async def test_an_agent_outlives_its_redis(bench: Bench) -> None:
    redis = Redis(bench)
    await redis.start()
    agent = await Agent.serve(bench, "agent", web(bench), catalog=redis.url)
    gateway = await Gateway.serve(bench, "gateway", web(bench), agent=OUTSIDE, catalog=redis.url)
    await knows(gateway, state="created")
    assert (await hello(gateway))[0].status_code == 200
    await redis.kill()
    assert (await hello(gateway))[0].status_code == 200
    (listed,) = await agent.get("/v1/machines")
    assert listed["instance"]["state"] == "started"
    await redis.start()
    late = await Gateway.serve(bench, "gateway-b", web(bench), agent=OUTSIDE, catalog=redis.url)
    await knows(late, state="started", instance_id=listed["instance"]["incarnation"])
    assert (await hello(late))[0].status_code == 200


async def test_ctrl_c_ends_it_and_a_catalog_that_nobody_shares_is_refused(bench: Bench) -> None:
    agent = await Agent.serve(bench, "agent", web(bench), catalog=await catalog(bench, "sqlite"))
    assert await agent.process.interrupt() == 0
    agent.file.write_text(agent.file.read_text().replace("inside = false", "inside = true"))
    memory = bench.directory / "memory.toml"
    memory.write_text('[gateway]\ncatalog = "memory:"\n[apps.web]\n')
    refused = await bench.python("memory", "gateway", "agent", "-c", str(memory))
    assert await refused.wait() == 2
    assert "a memory: catalog is shared with no gateway" in refused.output()
    await agent.start()
    await agent.process.says("inside is true: a gateway with this file runs the same instances once more")
