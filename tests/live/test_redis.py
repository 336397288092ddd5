"""Two gateways on one real Redis: what one learns the other routes; Redis may die, and come back empty."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx2

from tests.rigs import servers
from tests.rigs.gateway import Gateway
from tests.rigs.py_fleet import Plan, run_fleet
from tests.rigs.redis import Redis
from tests.rigs.run import Bench, until
from tests.rigs.servers import Instances

WHOLE_WITHIN_S = 10.0


async def pair(bench: Bench, redis: Redis, instances: Instances) -> list[Gateway]:
    """Two gateways with the same file but for their ports, on one Redis."""
    return [await Gateway.serve(bench, name, instances.app(), catalog=redis.url) for name in ("gateway-a", "gateway-b")]


async def forced(gateway: Gateway, instance: str) -> dict[str, Any]:
    """The health document of one instance, fetched through a gateway by its id; the problem where that fails."""
    async with httpx2.AsyncClient(trust_env=False, timeout=10.0) as client:
        response = await client.get(f"{gateway.url}/healthz", headers={"fly-force-instance-id": instance})
    document: dict[str, Any] = response.json()
    return document


async def digest(gateway: Gateway) -> object:
    return (await gateway.admin("/v1/catalog"))["digest"]


async def test_an_instance_registered_at_one_is_routable_at_the_other(bench: Bench) -> None:
    instances = await servers.start(bench, "mcp_server", 2)
    late = await servers.start(bench, "mcp_server", 1, prefix="late")
    redis = Redis(bench)
    await redis.start()
    one, other = await pair(bench, redis, instances)
    assert (await forced(other, "late-1"))["error"]["code"] == "PR02"
    answer = await one.register("tools", {"id": "late-1", "address": f"127.0.0.1:{late.ports[0]}", "region": "local"})
    assert answer.status_code == 201, answer.text

    async def routable() -> bool:
        return (await forced(other, "late-1")).get("instance") == "late-1"

    await until(routable, "late-1 is routable at the other gateway", within_s=5.0)


async def test_redis_dies_and_comes_back_empty(bench: Bench, rng: random.Random) -> None:
    """Sessions go on while it is away; a new session can be made; then the table is whole again by itself."""
    instances = await servers.start(bench, "mcp_server", 2)
    late = await servers.start(bench, "mcp_server", 1, prefix="late")
    redis = Redis(bench)
    await redis.start()
    gateways = await pair(bench, redis, instances)
    one = gateways[0]
    machine = {"id": "late-1", "address": f"127.0.0.1:{late.ports[0]}", "region": "local"}
    assert (await one.register("tools", machine)).status_code == 201

    async def agree() -> bool:
        return len({str(await digest(gateway)) for gateway in gateways}) == 1

    async def both_route_late() -> bool:
        return all([(await forced(gateway, "late-1")).get("instance") == "late-1" for gateway in gateways])

    await until(both_route_late, "both route late-1")
    await until(agree, "both have the same table")
    before = await digest(one)

    urls = [f"{gateway.url}/mcp" for gateway in gateways]
    plan = Plan(urls, sessions=10, calls=60, seed=rng.randrange(10**6))
    async with asyncio.TaskGroup() as group:
        fleet = group.create_task(run_fleet(plan))
        await until(lambda: instances.lines() > plan.sessions * plan.calls / 2 or fleet.done(), "the fleet is at work")
        assert not fleet.done(), "the fleet was done before Redis died"
        await redis.kill()
    assert fleet.result().errors == []
    new = await run_fleet(Plan(urls, sessions=3, calls=10, name="new", seed=plan.seed))
    assert new.errors == []
    assert instances.verdict().misrouted == []
    assert await both_route_late()

    await redis.start()

    async def whole() -> bool:
        return {str(await digest(gateway)) for gateway in gateways} == {str(before)} and await both_route_late()

    await until(whole, "both have the whole table again", within_s=WHOLE_WITHIN_S)
    third = await Gateway.serve(bench, "gateway-c", instances.app(), catalog=redis.url)
    assert (await forced(third, "late-1")).get("instance") == "late-1", "Redis itself does not have the table again"
