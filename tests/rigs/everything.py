"""Sessions with the official `server-everything` (a Node program), and what its own log says of them.

Its per-session state is whether simulated logging is on; its log names the session of every POST in sse mode.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext
from mcp.client.sse import sse_client
from mcp.types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    TextContent,
)

from tests.rigs import node
from tests.rigs.detour import Clients
from tests.rigs.py_fleet import streamable
from tests.rigs.run import Process

_STEP_S = 20.0
_CONNECTED = re.compile(r"(?:Client Connected:|Session initialized with ID:)\s+([0-9a-f-]{36})")
_MESSAGE = re.compile(r"Client Message from ([0-9a-f-]{36})")
_UNKNOWN = re.compile(r"No transport found for sessionId (\S+)")


@dataclass(frozen=True, slots=True)
class Visit:
    """Sessions to be held; the same words as in `ts_everything.mjs`."""

    urls: Sequence[str]
    transport: str
    sessions: int
    calls: int
    name: str


@dataclass(slots=True)
class Visited:
    """What the clients found."""

    calls: int = 0
    errors: list[str] = field(default_factory=list)


async def visit_from_typescript(visit: Visit, generation: int = 1) -> Visited:
    """Hold the sessions with the TypeScript SDK 1.x, or with its successor."""
    return Visited(**await node.script("ts_everything.mjs", {**asdict(visit), "generation": generation}))


async def visit_from_python(visit: Visit) -> Visited:
    """Hold the sessions with the Python SDK, all at once."""
    visited = Visited()
    async with asyncio.TaskGroup() as group:
        for number in range(visit.sessions):
            group.create_task(_session(visit, f"{visit.name}-{number}", visited))
    return visited


def _transport(visit: Visit) -> AbstractAsyncContextManager[Any]:
    clients = Clients([urlsplit(url).port or 80 for url in visit.urls])
    if visit.transport == "sse":
        return sse_client(visit.urls[0], httpx_client_factory=clients)
    return streamable(visit.urls[0], clients)


async def _session(visit: Visit, mine: str, visited: Visited) -> None:
    async def sample(context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
        content = TextContent(type="text", text=f"model of {mine}")
        return CreateMessageResult(role="assistant", model="rig", content=content)

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"name": mine, "check": True})

    async def call(name: str, expected: str, **arguments: object) -> None:
        result = await client.call_tool(name, arguments)
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        visited.calls += 1
        if expected not in text:
            visited.errors.append(f"{mine}: {name} said {text!r}, not {expected!r}")

    try:
        async with Client(
            _transport(visit),
            mode="legacy",
            read_timeout_seconds=_STEP_S,
            sampling_callback=sample,
            elicitation_callback=elicit,
        ) as client:
            await call("toggle-simulated-logging", "Started")
            for number in range(visit.calls - 4):
                await call("echo", f"{mine}-{number}", message=f"{mine}-{number}")
            await call("trigger-sampling-request", f"model of {mine}", prompt="p")
            await call("trigger-elicitation-request", mine)
            await call("toggle-simulated-logging", "Stopped")
    except (MCPError, httpx2.HTTPError, OSError, TimeoutError, ExceptionGroup) as error:
        visited.errors.append(f"{mine} ended by {error!r}")


@dataclass(frozen=True, slots=True)
class EverythingLog:
    """What the servers' own output says."""

    sessions: dict[str, str]
    """Session -> the process that made it."""
    messages: int
    misrouted: int
    """POSTs of a session at a process that did not make it."""


def read_log(servers: Iterable[Process]) -> EverythingLog:
    """Count from what the servers wrote; messages are only named in sse mode."""
    outputs = {server.name: server.output() for server in servers}
    sessions = {session: name for name, output in outputs.items() for session in _CONNECTED.findall(output)}
    served = [(name, session) for name, output in outputs.items() for session in _MESSAGE.findall(output)]
    unknown = [session for output in outputs.values() for session in _UNKNOWN.findall(output)]
    wrong = [session for name, session in served if sessions.get(session) != name]
    return EverythingLog(sessions, len(served), len(wrong) + len(unknown))
