"""Sessions of both official SDKs through the gateway: no request of a session at another instance, ever.

Everything is counted from the instances' own journals. A run in which the fault did not bite fails.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence

import pytest

from tests.rigs import node, servers
from tests.rigs.gateway import Gateway
from tests.rigs.py_fleet import Outcome, Plan, run_fleet
from tests.rigs.run import Bench, until
from tests.rigs.servers import Instances

PYTHON_SESSIONS, TYPESCRIPT_SESSIONS, CALLS = 60, 20, 20
UPSTREAM_ID = re.compile(r"[0-9a-f]{32}")


async def both_fleets(
    urls: Sequence[str], sizes: tuple[int, int], calls: int, seed: int, patience_s: float = 0.0, generation: int = 1
) -> list[Outcome]:
    """The Python and the TypeScript fleet at the same time."""
    python, typescript = sizes
    async with asyncio.TaskGroup() as group:
        fleets = [
            group.create_task(run_fleet(Plan(urls, python, calls, name="py", seed=seed, patience_s=patience_s))),
            group.create_task(
                node.run_ts_fleet(
                    Plan(urls, typescript, calls, name="ts", seed=seed, patience_s=patience_s), generation
                )
            ),
        ]
    return [fleet.result() for fleet in fleets]


def assert_all_is_well(outcomes: list[Outcome], instances: Instances, calls: int) -> None:
    """No client complained, and no instance saw a request of a session that it had not made."""
    errors = [error for outcome in outcomes for error in outcome.errors]
    assert not errors, f"{len(errors)} errors, the first: {errors[:5]}"
    verdict = instances.verdict()
    assert verdict.misrouted == []
    assert verdict.refused == []
    assert verdict.repeated == []
    sessions = sum(len(outcome.sessions) for outcome in outcomes)
    assert len(verdict.sessions) == sessions, "a session was initialised again"
    assert verdict.deleted == sessions
    assert verdict.requests > sessions * calls
    assert set(verdict.placed) == set(instances.names), f"not spread: {verdict.placed}"
    # Every instance saw its own ids, as it had made them.
    assert [session for session in verdict.sessions if not UPSTREAM_ID.fullmatch(session)] == []


@pytest.mark.parametrize("generation", [1, 2])
async def test_80_sessions_over_3_instances(bench: Bench, rng: random.Random, peers: None, generation: int) -> None:
    instances = await servers.start(bench, "mcp_server", 3)
    gateway = await Gateway.serve(bench, "gateway", instances.app())
    sizes = (PYTHON_SESSIONS, TYPESCRIPT_SESSIONS)
    seed = rng.randrange(10**6)
    outcomes = await both_fleets([f"{gateway.url}/mcp"], sizes, CALLS, seed, generation=generation)
    assert_all_is_well(outcomes, instances, CALLS)
    assert sum(outcome.total("calls") for outcome in outcomes) == sum(sizes) * CALLS
    assert sum(outcome.total("asks") for outcome in outcomes) == sum(sizes) * 2
    assert sum(outcome.total("notices") for outcome in outcomes) == sum(sizes) * 2


async def test_requests_alternate_between_two_gateways(bench: Bench, rng: random.Random, peers: None) -> None:
    """The two share a secret and their configuration, and nothing else: no catalog, no Redis."""
    instances = await servers.start(bench, "mcp_server", 3)
    gateways = [await Gateway.serve(bench, name, instances.app()) for name in ("gateway-a", "gateway-b")]
    urls = [f"{gateway.url}/mcp" for gateway in gateways]
    outcomes = await both_fleets(urls, (PYTHON_SESSIONS, TYPESCRIPT_SESSIONS), CALLS, rng.randrange(10**6))
    assert_all_is_well(outcomes, instances, CALLS)


async def test_a_gateway_is_killed_in_the_middle(bench: Bench, rng: random.Random, peers: None) -> None:
    """SIGKILL under load, a start on the same port: what was in flight is lost, no session is."""
    instances = await servers.start(bench, "mcp_server", 3)
    gateway = await Gateway.serve(bench, "gateway", instances.app())
    sizes, calls = (30, 10), 60
    # A call is two journal lines or more; the TypeScript fleet is the faster one, and must not be done yet.
    a_third = int(sum(sizes) * calls * 0.6)
    async with asyncio.TaskGroup() as group:
        urls = [f"{gateway.url}/mcp"]
        fleets = group.create_task(both_fleets(urls, sizes, calls, rng.randrange(10**6), patience_s=30.0))
        await until(lambda: instances.lines() >= a_third or fleets.done(), "a third of the calls is served", 120.0)
        before = instances.verdict()
        await gateway.kill()
        await gateway.start()
    outcomes = fleets.result()
    assert len(before.sessions) == sum(sizes), "the kill came before every session was made"
    assert before.deleted == 0, "the kill came too late"
    assert sum(outcome.total("lost") for outcome in outcomes) > 0, "nothing was in flight: the kill did not bite"
    assert_all_is_well(outcomes, instances, calls)


async def test_json_responses(bench: Bench, rng: random.Random, peers: None) -> None:
    """Servers that answer with JSON instead of SSE: the same session header, on another kind of response."""
    instances = await servers.start(bench, "mcp_server", 3, "--mode", "json")
    gateway = await Gateway.serve(bench, "gateway", instances.app())
    plan = Plan([f"{gateway.url}/mcp"], sessions=12, calls=12, seed=rng.randrange(10**6), asks=False)
    outcome = await run_fleet(plan)
    assert_all_is_well([outcome], instances, calls=12)


async def test_requests_of_a_forged_or_foreign_session_reach_no_instance(bench: Bench, peers: None) -> None:
    instances = await servers.start(bench, "mcp_server", 2)
    gateway = await Gateway.serve(bench, "gateway", instances.app())
    served = instances.lines()
    for identity in ("0" * 32, "a.b", "x" * 300, "AAAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef"):
        answer = await gateway.post("/mcp", {"jsonrpc": "2.0", "id": 7, "method": "ping"}, {"mcp-session-id": identity})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] in (-32001, -32600)
        assert "mcp-session-id" not in answer.headers
    assert instances.lines() == served
