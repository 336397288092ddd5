"""An instance dies in the middle of an answer: no official client is left to wait for its own timeout."""

from __future__ import annotations

import asyncio

import pytest
from mcp import Client, MCPError

from tests.rigs import node, servers
from tests.rigs.detour import Clients
from tests.rigs.gateway import Gateway
from tests.rigs.modern import modern_client
from tests.rigs.py_fleet import streamable
from tests.rigs.run import Bench, until
from tests.rigs.servers import Instances

TOLD_WITHIN_S = 10.0
"""The clients' own timeouts are 60 s (TypeScript) and none (Python)."""


async def kill_who_hangs(instances: Instances, nonce: str) -> None:
    """SIGKILL to the instance that has the call `nonce`, once it has it."""

    def has() -> list[str]:
        return [entry.instance for entry in instances.entries() if entry.nonce == nonce]

    await until(lambda: bool(has()), f"{nonce} arrives")
    await instances.processes[instances.names.index(has()[0])].kill()


@pytest.mark.parametrize(
    ("generation", "modern"), [(1, False), (2, False), (2, True)], ids=["sdk-1", "sdk-2", "sdk-2-modern"]
)
async def test_a_typescript_client_is_told(bench: Bench, peers: None, generation: int, modern: bool) -> None:
    instances = await servers.start(bench, "mcp_server", 2)
    gateway = await Gateway.serve(bench, "gateway", instances.app())
    config = {"urls": [f"{gateway.url}/mcp"], "generation": generation, "modern": modern, "nonce": "h"}
    async with asyncio.TaskGroup() as group:
        result = group.create_task(node.script("ts_hang.mjs", config, within_s=130.0))
        await kill_who_hangs(instances, "h")
    told = result.result()
    assert "timed out" not in told["error"]
    assert not told["error"].startswith("answered")
    assert told["ms"] < TOLD_WITHIN_S * 1000
    assert told["then_ms"] < TOLD_WITHIN_S * 1000
    assert modern or not told["then"].startswith("answered"), "a session went on at an instance that never had it"


@pytest.mark.parametrize("modern", [False, True])
async def test_a_python_client_is_told(bench: Bench, modern: bool) -> None:
    instances = await servers.start(bench, "mcp_server", 2)
    gateway = await Gateway.serve(bench, "gateway", instances.app())
    url = f"{gateway.url}/mcp"
    legacy = Client(streamable(url, Clients([gateway.port])), mode="legacy")
    async with modern_client([url], "p") if modern else legacy as client, asyncio.TaskGroup() as group:
        group.create_task(kill_who_hangs(instances, "h"))
        async with asyncio.timeout(TOLD_WITHIN_S):
            with pytest.raises(MCPError):
                await client.call_tool("hang", {"nonce": "h"})
        if not modern:
            async with asyncio.timeout(TOLD_WITHIN_S):
                with pytest.raises(MCPError):
                    await client.call_tool("whoami", {"nonce": "h-then"})
    assert instances.verdict().misrouted == []
