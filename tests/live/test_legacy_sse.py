"""2024-11-05 HTTP+SSE through the gateway: the `endpoint` event brings every POST back to its stream's instance."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.rigs import everything, node, servers
from tests.rigs.everything import Visit
from tests.rigs.gateway import AppSpec, Gateway, Static
from tests.rigs.py_fleet import Plan, run_fleet
from tests.rigs.run import Bench, free_port

SESSIONS, CALLS = 10, 12


@pytest.mark.parametrize("gateways", [1, 2])
async def test_the_python_sdk_server(bench: Bench, rng: random.Random, peers: None, gateways: int) -> None:
    """Both SDKs' clients over two instances; with two gateways the POSTs of a stream alternate between them."""
    instances = await servers.start(bench, "mcp_server", 2, "--mode", "sse")
    rigs = [await Gateway.serve(bench, f"gateway-{number}", instances.app()) for number in range(gateways)]
    urls = [f"{gateway.url}/sse" for gateway in rigs]
    seed = rng.randrange(10**6)
    outcomes = await asyncio.gather(
        run_fleet(Plan(urls, SESSIONS, CALLS, "sse", "py", seed)),
        node.run_ts_fleet(Plan(urls, SESSIONS, CALLS, "sse", "ts", seed)),
        node.run_ts_fleet(Plan(urls, SESSIONS, CALLS, "sse", "ts2", seed), generation=2),
    )
    assert [outcome.errors for outcome in outcomes] == [[], [], []]
    assert [outcome.total("calls") for outcome in outcomes] == [SESSIONS * CALLS] * 3
    verdict = instances.verdict()
    assert (verdict.misrouted, verdict.refused, verdict.repeated) == ([], [], [])
    assert len(verdict.sessions) == 3 * SESSIONS
    assert set(verdict.placed) == set(instances.names), f"not spread: {verdict.placed}"


async def test_server_everything_in_sse_mode(bench: Bench, peers: None) -> None:
    """The official Node server, two instances; it never answers a POST of a session that it does not know."""
    ports = {name: free_port() for name in ("every-1", "every-2")}
    processes = [await node.server_everything(bench, name, port, "sse") for name, port in ports.items()]
    app = AppSpec("every", [Static(name, port) for name, port in ports.items()])
    gateway = await Gateway.serve(bench, "gateway", app)
    urls = [f"{gateway.url}/sse"]
    visits = await asyncio.gather(
        everything.visit_from_python(Visit(urls, "sse", SESSIONS, CALLS, "py")),
        everything.visit_from_typescript(Visit(urls, "sse", SESSIONS, CALLS, "ts")),
        everything.visit_from_typescript(Visit(urls, "sse", SESSIONS, CALLS, "ts2"), generation=2),
    )
    assert [visited.errors for visited in visits] == [[], [], []]
    log = everything.read_log(processes)
    assert len(log.sessions) == 3 * SESSIONS
    assert set(log.sessions.values()) == set(ports)
    assert log.messages > 3 * SESSIONS * CALLS
    assert log.misrouted == 0


async def test_server_everything_over_streamable_http(bench: Bench, peers: None) -> None:
    """Its HTTP mode says 400 to a session that it does not know, sends priming events and stores its events."""
    ports = {name: free_port() for name in ("every-1", "every-2")}
    processes = [await node.server_everything(bench, name, port, "streamableHttp") for name, port in ports.items()]
    app = AppSpec("every", [Static(name, port) for name, port in ports.items()])
    gateway = await Gateway.serve(bench, "gateway", app)
    urls = [f"{gateway.url}/mcp"]
    visits = await asyncio.gather(
        everything.visit_from_python(Visit(urls, "http", SESSIONS, CALLS, "py")),
        everything.visit_from_typescript(Visit(urls, "http", SESSIONS, CALLS, "ts")),
    )
    assert [visited.errors for visited in visits] == [[], []]
    log = everything.read_log(processes)
    assert len(log.sessions) == 2 * SESSIONS
    assert set(log.sessions.values()) == set(ports)


async def test_a_prefix_before_the_backend_path(bench: Bench, rng: random.Random, peers: None) -> None:
    """The app lives under /tools at the gateway and at / behind it: the endpoint gets the prefix back."""
    instances = await servers.start(bench, "mcp_server", 2, "--mode", "sse")
    gateway = await Gateway.serve(bench, "gateway", instances.app(path="/tools", strip_path=True))
    seed = rng.randrange(10**6)
    urls = [f"{gateway.url}/tools/sse"]
    outcomes = await asyncio.gather(
        run_fleet(Plan(urls, 4, 10, "sse", "py", seed)), node.run_ts_fleet(Plan(urls, 4, 10, "sse", "ts", seed))
    )
    assert [outcome.errors for outcome in outcomes] == [[], []]
    assert instances.verdict().misrouted == []
