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
from tests.rigs.run import Bench

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
    """Each session's `initialize` is held until its instance is up; then it stays there."""
    names = ["s-1", "s-2", "s-3"]
    spec = AppSpec(
        "tools",
        [sleeping(bench, "mcp_server", name) for name in names],
        {"concurrency": {"type": "requests", "soft": 3}, "checks": [{"path": "/healthz", "interval": "1s"}]},
    )
    gateway = await Gateway.serve(bench, "gateway", spec)
    plan = Plan([f"{gateway.url}/mcp"], sessions=9, calls=10, seed=rng.randrange(10**6))
    outcome = await (run_fleet(plan) if language == "python" else node.run_ts_fleet(plan))
    assert outcome.errors == []
    entries = journal.read([bench.directory / f"{name}.jsonl" for name in names])
    verdict = journal.judge(entries)
    assert (verdict.misrouted, verdict.refused, verdict.repeated) == ([], [], [])
    assert len(verdict.sessions) == 9
    assert len(verdict.placed) > 1, f"not spread: {verdict.placed}"
    assert len({entry.where for entry in entries}) == len({entry.instance for entry in entries}), "started twice"
