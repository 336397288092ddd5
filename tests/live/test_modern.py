"""2026-07-28 through the gateway: servers with the SDK's defaults (a key and a bus per process), three replicas."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.rigs import modern, node, servers
from tests.rigs.gateway import Gateway
from tests.rigs.run import Bench
from tests.rigs.servers import Instances

REPLICAS = 3


async def serve(bench: Bench, gateways: int, **settings: object) -> tuple[Instances, list[str]]:
    """Three replicas behind `gateways` gateways that share secret and configuration; the URLs to call."""
    instances = await servers.start(bench, "mcp_server", REPLICAS)
    rigs = [await Gateway.serve(bench, f"gateway-{number}", instances.app(**settings)) for number in range(gateways)]
    return instances, [f"{gateway.url}/mcp" for gateway in rigs]


def used(instances: Instances, tool: str) -> set[str]:
    """The instances that served a tool."""
    return {entry.instance for entry in instances.entries() if entry.tool == tool}


def assert_nothing_was_repeated(instances: Instances, urls: Sequence[str]) -> None:
    """A tool call is served once, whatever the gateway tries."""
    assert instances.verdict().repeated == [], urls


@pytest.mark.parametrize("gateways", [1, 2])
async def test_30_of_30_multi_round_trip_calls(bench: Bench, gateways: int) -> None:
    instances, urls = await serve(bench, gateways)
    tally = await modern.approvals(urls, principals=10, calls_each=3, rounds=1)
    assert tally.errors == []
    assert tally.succeeded == 30
    assert set(tally.versions) == {modern.VERSION}, "the client fell back to an older revision"
    assert len(tally.instances) > 1, "one instance served every caller: nothing was shown"
    assert_nothing_was_repeated(instances, urls)


async def test_several_rounds_each_with_a_state_of_its_own(bench: Bench) -> None:
    _, urls = await serve(bench, 1)
    tally = await modern.approvals(urls, principals=8, calls_each=2, rounds=3)
    assert (tally.succeeded, tally.errors) == (16, [])
    assert len(tally.instances) > 1


@pytest.mark.parametrize("gateways", [1, 2])
async def test_a_subscription_sees_the_changes_of_its_own_principal(bench: Bench, gateways: int) -> None:
    instances, urls = await serve(bench, gateways)
    tally = await modern.watchers(urls, principals=9, changes=3)
    assert tally.errors == []
    assert tally.succeeded == 27
    assert len(used(instances, "touch")) > 1, "one instance served every caller: nothing was shown"


async def test_the_typescript_client(bench: Bench, peers: None) -> None:
    instances, urls = await serve(bench, 2)
    tally = await node.script("ts_modern.mjs", {"urls": urls, "principals": 9, "calls": 3, "rounds": 2, "changes": 2})
    assert tally["errors"] == []
    assert (tally["succeeded"], tally["heard"]) == (27, 18)
    assert set(tally["versions"]) == {modern.VERSION}
    assert len(used(instances, "approve")) > 1


async def test_a_task_is_found_by_its_id(bench: Bench) -> None:
    instances, urls = await serve(bench, 1)
    for number in range(12):
        made, working, completed, cancelled = await modern.run_task(urls, f"owner-{number}", f"owner-{number}")
        assert made["result"]["resultType"] == "task"
        assert [working["result"]["status"], completed["result"]["status"]] == ["working", "completed"]
        assert "result" in cancelled
    assert len(used(instances, "long_job")) > 1


async def test_a_handle_in_a_header_is_a_key(bench: Bench) -> None:
    """`key = ["mcp-param:Basket"]`: whoever asks for a basket asks the instance that has it."""
    instances, urls = await serve(bench, 2, key=["mcp-param:Basket"])
    for number in range(8):
        first = await modern.fill_basket(urls, f"a-{number}", f"basket-{number}", ["x", "y"])
        second = await modern.fill_basket(urls, f"b-{number}", f"basket-{number}", ["z"])
        assert [answer.get("items") for answer in first + second] == [["x"], ["x", "y"], ["x", "y", "z"]]
    assert len(used(instances, "basket_add")) > 1
