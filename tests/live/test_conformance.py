"""The official conformance suite through the gateway over three replicas: the same counts as direct."""

from __future__ import annotations

from tests.rigs import conformance, servers
from tests.rigs.gateway import Gateway
from tests.rigs.run import Bench


async def test_the_same_counts_as_direct(bench: Bench, peers: None) -> None:
    alone = await servers.start(bench, "conformance_server", 1, prefix="alone")
    replicas = await servers.start(bench, "conformance_server", 3)
    gateway = await Gateway.serve(bench, "gateway", replicas.app())
    direct = await conformance.run(alone.urls("/mcp")[0], bench.directory)
    through = await conformance.run(f"{gateway.url}/mcp", bench.directory)
    assert direct.failed == 0, direct.output
    assert direct.passed == 84
    assert through.scenarios == direct.scenarios, through.output
    verdict = replicas.verdict()
    assert verdict.misrouted == []
    assert len(verdict.placed) > 1, f"one replica served everything: {verdict.placed}"
