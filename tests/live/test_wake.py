"""Instances that sleep: the first requests start them, once, and all of them are answered."""

from __future__ import annotations

import asyncio
import random
import sys

import httpx2
import pytest

from tests.rigs import journal, node
from tests.rigs.gateway import AppSpec, Gateway, Started
from tests.rigs.py_fleet import Plan, run_fleet
from tests.rigs.run import Bench, until

CALLERS = 100


def sleeping(bench: Bench, module: str, name: str) -> Started:
    """A rig server as an instance that the gateway starts."""
    path = bench.directory / f"{name}.jsonl"
    arguments = ["--port", "{port}", "--name", name, "--journal", str(path)]
    return Started(name, [sys.executable, "-W", "ignore", "-m", f"tests.rigs.{module}", *arguments])


async def test_100_first_requests_cause_one_start(bench: Bench) -> None:
    gateway = await Gateway.serve(bench, "gateway", AppSpec("web", [sleeping(bench, "web_server", "s-1")]))
    limits = httpx2.Limits(max_connections=CALLERS)
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0, limits=limits) as client:
        urls = [f"{gateway.url}/hello?client=c-{number}" for number in range(CALLERS)]
        answers = await asyncio.gather(*(client.get(url) for url in urls))
    assert [answer.status_code for answer in answers] == [200] * CALLERS
    assert len({answer.json()["boot"] for answer in answers}) == 1
    entries = journal.read([bench.directory / "s-1.jsonl"])
    assert len({entry.boot for entry in entries}) == 1
    assert sorted(entry.session for entry in entries) == sorted(f"c-{number}" for number in range(CALLERS))


@pytest.mark.parametrize("language", ["python", "typescript"])
async def test_sessions_begin_at_servers_that_slept(
    bench: Bench, rng: random.Random, peers: None, language: str
) -> None:
    """Each session's `initialize` is held until its instance is up; then it stays there.

    The first wave wakes one instance; while that is at its soft limit, the second wakes another.
    """
    names = ["s-1", "s-2", "s-3"]
    journals = [bench.directory / f"{name}.jsonl" for name in names]
    spec = AppSpec(
        "tools",
        [sleeping(bench, "mcp_server", name) for name in names],
        {"concurrency": {"type": "requests", "soft": 3}, "checks": [{"path": "/healthz", "interval": "1s"}]},
    )
    gateway = await Gateway.serve(bench, "gateway", spec)
    run = run_fleet if language == "python" else node.run_ts_fleet
    seed = rng.randrange(10**6)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(run(Plan([f"{gateway.url}/mcp"], 3, 200, name="first", seed=seed)))
        await until(lambda: journal.judge(journal.read(journals)).requests > 30, "the first wave is at work")
        second = group.create_task(run(Plan([f"{gateway.url}/mcp"], 6, 10, name="second", seed=seed)))
    assert first.result().errors + second.result().errors == []
    entries = journal.read(journals)
    verdict = journal.judge(entries)
    assert (verdict.misrouted, verdict.refused, verdict.repeated) == ([], [], [])
    assert len(verdict.sessions) == 9
    assert verdict.placed["s-1"] < 9, f"not spread: {verdict.placed}"
    assert len({entry.where for entry in entries}) == len({entry.instance for entry in entries}), "started twice"


async def test_what_an_operator_stopped_stays_stopped_across_a_restart(bench: Bench) -> None:
    spec = AppSpec("web", [sleeping(bench, "web_server", "s-1")])
    gateway = await Gateway.serve(bench, "gateway", spec, catalog=f"sqlite:{bench.directory}/catalog.db")
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0) as client:
        assert (await client.get(f"{gateway.url}/hello?client=c-1")).status_code == 200
        machine = f"{gateway.admin_url}/v1/apps/web/machines/s-1"
        assert (await client.post(f"{machine}/stop")).status_code == 200
        await gateway.kill()
        await gateway.start()
        refused = await client.get(f"{gateway.url}/hello?client=c-1")
        assert refused.status_code == 503
        assert (await client.get(machine)).json()["held_down"] is True
        assert (await client.post(f"{machine}/start")).status_code == 200
        assert (await client.get(f"{gateway.url}/hello?client=c-1")).status_code == 200
