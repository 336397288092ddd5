"""Clients of the 2026-07-28 revision: multi-round-trip calls, subscriptions, tasks, handles.

The official Python client negotiates by itself (`mode="auto"`, a discover probe first). Tasks are spoken by hand:
the SDK's client has no tasks of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext
from mcp.client.subscriptions import ResourceUpdated, SubscriptionLost
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from tests.rigs.detour import Clients
from tests.rigs.py_fleet import streamable

VERSION = "2026-07-28"
_STEP_S = 20.0


@dataclass(slots=True)
class Tally:
    """What modern calls came to."""

    succeeded: int = 0
    instances: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


def headers_of(principal: str) -> dict[str, str]:
    return {"authorization": f"Bearer {principal}"}


@asynccontextmanager
async def modern_client(urls: Sequence[str], principal: str) -> AsyncIterator[Client]:
    """A client that accepts every elicitation; with several `urls` its requests alternate between their ports."""
    clients = Clients([urlsplit(url).port or 80 for url in urls], headers=headers_of(principal))
    async with Client(
        streamable(urls[0], clients), mode="auto", read_timeout_seconds=_STEP_S, elicitation_callback=_accept
    ) as client:
        yield client


async def _accept(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept", content={"word": "yes"})


def answer(result: CallToolResult) -> dict[str, Any]:
    """The JSON object in a rig tool's answer; an error result is {"error": its text}."""
    text = next((block.text for block in result.content if isinstance(block, TextContent)), "")
    parsed: dict[str, Any] = {"error": text} if result.is_error else json.loads(text)
    return parsed


async def approvals(urls: Sequence[str], principals: int, calls_each: int, rounds: int = 2) -> Tally:
    """`principals` callers at once, each making `calls_each` calls that ask `rounds` times before they answer."""
    tally = Tally()
    async with asyncio.TaskGroup() as group:
        for number in range(principals):
            group.create_task(_approve(urls, f"principal-{number}", calls_each, rounds, tally))
    return tally


async def _approve(urls: Sequence[str], principal: str, calls: int, rounds: int, tally: Tally) -> None:
    async with modern_client(urls, principal) as client:
        tally.versions[client.protocol_version] += 1
        for number in range(calls):
            nonce = f"{principal}-{number}"
            try:
                result = answer(await client.call_tool("approve", {"nonce": nonce, "rounds": rounds}))
            except MCPError as error:
                tally.errors.append(f"{nonce}: {error!r}")
                continue
            if result.get("nonce") == nonce and result.get("rounds") == rounds:
                tally.succeeded += 1
                tally.instances[result["instance"]] += 1
            else:
                tally.errors.append(f"{nonce}: {result}")


async def watchers(urls: Sequence[str], principals: int, changes: int) -> Tally:
    """`principals` callers at once, each listening to a resource of its own and changing it `changes` times."""
    tally = Tally()
    async with asyncio.TaskGroup() as group:
        for number in range(principals):
            group.create_task(_watch(urls, f"watcher-{number}", changes, tally))
    return tally


async def _watch(urls: Sequence[str], principal: str, changes: int, tally: Tally) -> None:
    uri = f"rig://{principal}"
    async with modern_client(urls, principal) as client:
        tally.versions[client.protocol_version] += 1
        try:
            async with client.listen(resource_subscriptions=[uri]) as subscription:
                for number in range(changes):
                    touched = answer(await client.call_tool("touch", {"nonce": f"{principal}-{number}", "uri": uri}))
                    async with asyncio.timeout(_STEP_S):
                        event = await anext(subscription)
                    if isinstance(event, ResourceUpdated) and event.uri == uri:
                        tally.succeeded += 1
                        tally.instances[touched["instance"]] += 1
                    else:
                        tally.errors.append(f"{principal} heard {event}")
        except (MCPError, SubscriptionLost, StopAsyncIteration, TimeoutError) as error:
            tally.errors.append(f"{principal}: {error!r}")


async def fill_basket(urls: Sequence[str], principal: str, basket: str, items: Sequence[str]) -> list[dict[str, Any]]:
    """Add `items` to a basket whose name goes along as Mcp-Param-Basket; the answers."""
    async with modern_client(urls, principal) as client:
        await client.list_tools()
        return [
            answer(await client.call_tool("basket_add", {"nonce": f"{basket}-{item}", "item": item, "basket": basket}))
            for item in items
        ]


async def rpc(
    client: httpx2.AsyncClient, url: str, method: str, params: Mapping[str, object], name: str
) -> dict[str, Any]:
    """One 2026-07-28 request, `name` being its Mcp-Name; the whole JSON-RPC answer."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientInfo": {"name": "rig", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    }
    response = await client.post(
        url,
        json={"jsonrpc": "2.0", "id": f"{method}-{name}", "method": method, "params": {**params, "_meta": meta}},
        headers={
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": VERSION,
            "mcp-method": method,
            "mcp-name": name,
        },
    )
    body: dict[str, Any] = {"status": response.status_code, **_message(response)}
    return body


def _message(response: httpx2.Response) -> dict[str, Any]:
    text = response.text
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        text = next(line for line in reversed(text.splitlines()) if line.startswith("data:")).removeprefix("data:")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


async def run_task(urls: Sequence[str], creator: str, poller: str) -> list[dict[str, Any]]:
    """Make a task as `creator`, read it twice and cancel it as `poller`; all four answers."""
    ports = [urlsplit(url).port or 80 for url in urls]
    async with Clients(ports, headers=headers_of(creator))() as client:
        params = {"name": "long_job", "arguments": {"nonce": f"task-{creator}"}}
        made = await rpc(client, urls[0], "tools/call", params, "long_job")
    task = made["result"]["taskId"]
    async with Clients(ports, headers=headers_of(poller))() as client:
        polls = [await rpc(client, urls[0], "tasks/get", {"taskId": task}, task) for _ in range(2)]
        return [made, *polls, await rpc(client, urls[0], "tasks/cancel", {"taskId": task}, task)]
