"""The unmodified compose.yaml on a real Docker engine: idle servers sleep by themselves, the next call wakes them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from tests.rigs.run import until

ROOT = Path(__file__).parents[2]
PROJECT = "moorage-test"
URL = "http://127.0.0.1:8080/mcp"
WITHIN_S = 90.0


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def compose(*arguments: str) -> str:
    return docker("compose", "-p", PROJECT, *arguments)


def has_docker() -> bool:
    try:
        done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        engine = subprocess.run(["docker", "version"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0 == engine.returncode


pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not has_docker() and "MOORAGE_NEEDS_DOCKER" not in os.environ,
        reason="no Docker engine with Compose here; MOORAGE_NEEDS_DOCKER=1 makes this a failure",
    ),
]


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    """Everything of compose.yaml, healthy; and nothing of it afterwards."""
    compose("down", "-v", "--remove-orphans")
    try:
        compose("up", "-d", "--build", "--wait")
        yield
        print(compose("logs", "--no-color", "--tail", "50", "gateway", "agent"))
    finally:
        compose("down", "-v", "--remove-orphans")
    mine = f"label=com.docker.compose.project={PROJECT}"
    assert docker("ps", "-aq", "--filter", mine) == ""
    assert docker("volume", "ls", "-q", "--filter", mine) == ""
    assert docker("network", "ls", "-q", "--filter", mine) == ""


class Named(httpx2.AsyncHTTPTransport):
    """Connects to 127.0.0.1 and says another Host, as a resolver for *.localhost would have it."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["host"] = self._host
        return await super().handle_async_request(request)


@asynccontextmanager
async def session(app: str) -> AsyncIterator[Client]:
    """A session of the official SDK at this app."""
    async with httpx2.AsyncClient(transport=Named(f"{app}.localhost"), timeout=60.0) as http:
        transport = streamable_http_client(URL, http_client=http)
        async with Client(transport, mode="legacy") as client:
            yield client


async def add(client: Client, item: str) -> str:
    result = await client.call_tool("add", {"item": item})
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


async def in_state(service: str, word: str) -> None:
    def is_there() -> bool:
        return docker("inspect", "-f", "{{.State.Status}}", f"{PROJECT}-{service}-1") == word

    await until(is_there, f"{service} is {word}", within_s=WITHIN_S)


async def test_a_session_goes_on_at_the_server_that_was_suspended(stack: None) -> None:
    """Its event stream was open all the time, parked at the gateway."""
    async with session("notes") as client:
        assert await add(client, "a") == "notes keeps a"
        for items in ("a, b", "a, b, c"):
            await in_state("notes", "paused")
            assert await add(client, items[-1]) == f"notes keeps {items}"


async def test_an_idle_server_stops_and_the_next_call_starts_it(stack: None) -> None:
    async with session("lists") as client:
        assert await add(client, "x") == "lists keeps x"
    await in_state("lists", "exited")
    async with session("lists") as client:
        assert await add(client, "y") == "lists keeps y"


async def test_a_thousand_first_requests_to_a_stopped_container_cause_one_start(stack: None) -> None:
    await in_state("lists", "exited")
    began = int(time.time())  # noqa: TID251 - Docker's events are asked for by wall time
    limits = httpx2.Limits(max_connections=1000)
    async with httpx2.AsyncClient(transport=Named("lists.localhost"), timeout=90.0, limits=limits) as http:
        answers = await asyncio.gather(*(http.get("http://127.0.0.1:8080/healthz") for _ in range(1000)))
    assert [answer.status_code for answer in answers] == [200] * 1000
    until_s = str(int(time.time()) + 1)  # noqa: TID251 - see above
    events = docker(
        "events", "--since", str(began), "--until", until_s,
        "--filter", f"container={PROJECT}-lists-1", "--filter", "event=start", "--format", "{{.Action}}",
    )  # fmt: skip
    assert events.split() == ["start"]


async def test_the_gateway_has_no_docker_socket(stack: None) -> None:
    mounts = docker("inspect", "-f", "{{range .Mounts}}{{.Source}} {{end}}", f"{PROJECT}-gateway-1")
    assert "docker.sock" not in mounts
    assert docker("inspect", "-f", "{{.HostConfig.ReadonlyRootfs}}", f"{PROJECT}-gateway-1") == "true"
    assert docker("exec", f"{PROJECT}-gateway-1", "id", "-u") != "0"
