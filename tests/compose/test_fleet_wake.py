"""A thousand first requests over two gateways to one stopped container: one start, and an answer to each; also when the
agent is killed in the middle of it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.compose.test_compose import docker, has_docker
from tests.rigs.agent import Agent
from tests.rigs.gateway import Gateway
from tests.rigs.redis import Redis
from tests.rigs.run import Bench, until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not has_docker() and "MOORAGE_NEEDS_DOCKER" not in os.environ,
        reason="no Docker engine here; MOORAGE_NEEDS_DOCKER=1 makes this a failure",
    ),
]

CALLERS = 1000
IMAGE = "python:3.13-slim"
SERVER = """
import asyncio, os, time
boot = os.urandom(4).hex().encode()
time.sleep(1)
async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 8\\r\\n\\r\\n" + boot)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 8000, backlog=2048) as server:
        await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture
def container() -> Iterator[str]:
    """A stopped container whose server takes a second to listen; it is an instance of the app of the same name."""
    name = f"moorage-fleet-{secrets.token_hex(3)}"
    labels = ["--label", f"moorage.app={name}", "--label", "moorage.port=8000", "--label", "moorage.id=one"]
    docker("create", "--name", name, "--init", *labels, IMAGE, "python", "-c", SERVER)
    yield name
    docker("rm", "-f", name)


async def fleet(bench: Bench, container: str) -> tuple[Agent, list[Gateway]]:
    redis = Redis(bench)
    await redis.start()
    own = {"docker": "unix:///var/run/docker.sock"}
    agent = await Agent.serve(bench, "agent", own=own, catalog=redis.url)
    gateways = [
        await Gateway.serve(bench, name, agent={"inside": False}, catalog=redis.url)
        for name in ("gateway-a", "gateway-b")
    ]

    async def known() -> bool:
        apps = [(await one.admin("/v1/apps"))["apps"] for one in gateways]
        return all(any(app["name"] == container for app in of_one) for of_one in apps)

    await until(known, "both gateways know the container")
    return agent, gateways


async def asked(gateway: Gateway, count: int) -> list[httpx2.Response]:
    limits = httpx2.Limits(max_connections=count)
    async with httpx2.AsyncClient(trust_env=False, timeout=90.0, limits=limits) as client:
        return list(await asyncio.gather(*(client.get(f"{gateway.url}/") for _ in range(count))))


def starts(container: str, since_s: int) -> int:
    until_s = str(int(time.time()) + 1)  # noqa: TID251 - Docker's events are asked for by wall time
    told = docker(
        "events", "--since", str(since_s), "--until", until_s,
        "--filter", f"container={container}", "--filter", "event=start", "--format", "{{.Action}}",
    )  # fmt: skip
    return len(told.split())


@pytest.mark.parametrize("killed", [False, True], ids=["agent-lives", "agent-is-killed"])
async def test_a_thousand_first_requests_over_two_gateways_cause_one_start(
    bench: Bench, container: str, killed: bool
) -> None:
    agent, gateways = await fleet(bench, container)
    since_s = int(time.time())  # noqa: TID251 - see above
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(asked(one, CALLERS // 2)) for one in gateways]
        if killed:
            await until(lambda: starts(container, since_s) > 0, "the container was started")
            await agent.kill()
            await agent.start()
    answers = [answer for task in asking for answer in task.result()]
    assert [answer.status_code for answer in answers] == [200] * CALLERS
    assert len({answer.text for answer in answers}) == 1
    assert starts(container, since_s) == 1
    waits_s = sorted(answer.elapsed.total_seconds() for answer in answers)
    print(f"first answer after {waits_s[0]:.2f} s, p99 {waits_s[int(CALLERS * 0.99)]:.2f} s, last {waits_s[-1]:.2f} s")
