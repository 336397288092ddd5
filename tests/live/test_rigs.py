"""The rigs themselves, without a gateway: they pass against one server, and see every misroute between two.

The second half is what makes the other live tests worth anything: the same fleets, sent to two instances in turn,
must be found out.
"""

from __future__ import annotations

import random

import pytest

from tests.rigs import conformance, everything, modern, node, servers
from tests.rigs.everything import Visit
from tests.rigs.py_fleet import Plan, run_fleet
from tests.rigs.run import Bench, free_port
from tests.rigs.web_clients import web_client

PATHS = {"http": "/mcp", "sse": "/sse"}


@pytest.mark.parametrize("transport", PATHS)
@pytest.mark.parametrize("language", ["python", "typescript", "typescript-2"])
async def test_a_fleet_finds_nothing_wrong_with_one_server(
    bench: Bench, rng: random.Random, peers: None, transport: str, language: str
) -> None:
    one = await servers.start(bench, "mcp_server", 1, "--mode", transport)
    plan = Plan(one.urls(PATHS[transport]), sessions=4, calls=10, transport=transport, seed=rng.randrange(10**6))
    if language == "python":
        outcome = await run_fleet(plan)
    else:
        outcome = await node.run_ts_fleet(plan, generation=2 if language == "typescript-2" else 1)
    verdict = one.verdict()
    assert outcome.errors == []
    assert [outcome.total(what) for what in ("calls", "asks", "notices", "lost")] == [40, 8, 8, 0]
    assert len(verdict.sessions) == 4
    assert (verdict.misrouted, verdict.refused, verdict.repeated) == ([], [], [])
    assert verdict.deleted == (4 if transport == "http" else 0)


async def test_a_fleet_between_two_servers_is_found_out(bench: Bench, rng: random.Random, peers: None) -> None:
    two = await servers.start(bench, "mcp_server", 2)
    plan = Plan(two.urls("/mcp"), sessions=2, calls=8, name="ts", seed=rng.randrange(10**6))
    outcome = await node.run_ts_fleet(plan)
    assert outcome.errors
    assert two.verdict().misrouted


async def test_2026_calls_pass_at_one_server_and_fail_between_two(bench: Bench) -> None:
    two = await servers.start(bench, "mcp_server", 2)
    urls = two.urls("/mcp")
    at_one = await modern.approvals(urls[:1], principals=2, calls_each=3)
    assert (at_one.succeeded, at_one.errors) == (6, [])
    assert set(at_one.versions) == {modern.VERSION}
    assert (await modern.watchers(urls[:1], principals=2, changes=2)).succeeded == 4
    assert [answer["items"] for answer in await modern.fill_basket(urls[:1], "p", "b", "xy")] == [["x"], ["x", "y"]]
    assert all("result" in answer for answer in await modern.run_task(urls[:1], "p", "p"))

    between = await modern.approvals(urls, principals=2, calls_each=3)
    assert between.errors
    assert [answer["items"] for answer in await modern.fill_basket(urls, "p", "c", "xy")] != [["x"], ["x", "y"]]
    assert any("error" in answer for answer in await modern.run_task(urls, "p", "p"))


@pytest.mark.parametrize(("mode", "path", "transport"), [("sse", "/sse", "sse"), ("streamableHttp", "/mcp", "http")])
async def test_server_everything(bench: Bench, peers: None, mode: str, path: str, transport: str) -> None:
    port = free_port()
    server = await node.server_everything(bench, "everything", port, mode)
    visit = Visit([f"http://127.0.0.1:{port}{path}"], transport, sessions=2, calls=6, name="v")
    for visited in (await everything.visit_from_python(visit), await everything.visit_from_typescript(visit)):
        assert (visited.calls, visited.errors) == (12, [])
    log = everything.read_log([server])
    assert (len(log.sessions), log.misrouted) == (4, 0)


async def test_cookies_are_needed_between_two_web_servers(bench: Bench, peers: None) -> None:
    two = await servers.start(bench, "web_server", 2)
    told = await web_client(two.urls("")[:1], "one", sockets=2, messages=3, events=6)
    assert (told.errors, told.echoes, told.events, len(told.instances)) == ([], 6, 6, 1)
    told = await web_client(two.urls(""), "two", sockets=2, messages=1, events=6)
    assert told.errors
    assert len(told.instances) == 2


async def test_the_conformance_target_conforms(bench: Bench, peers: None) -> None:
    one = await servers.start(bench, "conformance_server", 1)
    report = await conformance.run(one.urls("/mcp")[0], bench.directory)
    assert report.bad == {}
    assert (len(report.scenarios), report.passed, report.failed) == (33, 84, 0), report.output
