"""A client for the demo: a few sessions at once, each counting at the instance that holds it.

Run: python -m gateway.demo.client http://127.0.0.1:8080/mcp --sessions 3 --calls 5
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent


async def count(client: Client) -> str:
    """Count one further in a session; what the counter said."""
    result = await client.call_tool("counter", {})
    return next(block.text for block in result.content if isinstance(block, TextContent))


async def run(url: str, sessions: int, calls: int) -> None:
    """Open the sessions one after another, all of them staying open, then count in all of them at once."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(sessions):
            # The 2025 revision has sessions; the newer one, which the SDK would negotiate, has none to show.
            client = await stack.enter_async_context(Client(streamable_http_client(url), mode="legacy"))
            clients.append((client, [await count(client)]))
        for _ in range(calls - 1):
            for (_, said), now in zip(clients, await asyncio.gather(*(count(one) for one, _ in clients)), strict=True):
                said.append(now)
        for number, (_, said) in enumerate(clients, 1):
            print(f"session {number}: {', '.join(said)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--calls", type=int, default=5)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.url, arguments.sessions, arguments.calls))


if __name__ == "__main__":
    main()
