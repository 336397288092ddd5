"""Two MCP sessions of cyd's, open side by side, through the router.

Run: python client.py [URL]
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/u/cyd/mcp"
# Not every resolver knows the names under .localhost; the gateway goes by the header.
HEADERS = {"authorization": "Bearer cyd-token", "host": "users.localhost"}


async def main() -> None:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=HEADERS, timeout=60.0, trust_env=False))
        # Revisions up to 2025-11-25 have sessions; the newer one, which the SDK would choose, has none to show.
        sessions = [
            await stack.enter_async_context(Client(streamable_http_client(URL, http_client=http), mode="legacy"))
            for _ in range(2)
        ]
        for text in ("bread", "salt", "tea"):
            for number, client in enumerate(sessions, 1):
                result = await client.call_tool("note", {"text": f"{text} for {number}"})
                print(f"session {number}: {result.content[0].text}")


asyncio.run(main())
