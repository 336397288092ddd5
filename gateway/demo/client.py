"""A client for the demo: a few sessions at once, each counting at the instance that holds it.

Run: python -m gateway.demo.client http://127.0.0.1:8080/mcp --sessions 3 --calls 5
"""

from __future__ import annotations

import argparse
import asyncio

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent


async def session(url: str, number: int, calls: int) -> None:
    """Count to `calls` in one session, saying who keeps the count."""
    # The 2025 revision has sessions; the newer one, which the SDK would negotiate, has none to show.
    async with Client(streamable_http_client(url), mode="legacy") as client:
        said = []
        for _ in range(calls):
            result = await client.call_tool("counter", {})
            said.append(next(block.text for block in result.content if isinstance(block, TextContent)))
        print(f"session {number}: {', '.join(said)}")


async def run(url: str, sessions: int, calls: int) -> None:
    """All sessions at once."""
    async with asyncio.TaskGroup() as group:
        for number in range(1, sessions + 1):
            group.create_task(session(url, number, calls))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--calls", type=int, default=5)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.url, arguments.sessions, arguments.calls))


if __name__ == "__main__":
    main()
