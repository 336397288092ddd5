"""Three sessions, open side by side, each putting things on its own list.

Run: python client.py [URL]
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from mcp import Client
from mcp.client.streamable_http import streamable_http_client

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/mcp"


async def main() -> None:
    async with AsyncExitStack() as stack:
        sessions: list[Client] = []
        for item in ("bread", "salt", "tea"):
            # Revisions up to 2025-11-25 have sessions; the newer one, which the SDK would choose, has none to show.
            sessions.append(await stack.enter_async_context(Client(streamable_http_client(URL), mode="legacy")))
            for number, client in enumerate(sessions, 1):
                result = await client.call_tool("add", {"item": f"{item} for {number}"})
                print(f"session {number}: {result.content[0].text}")
        if sys.stdin.isatty():
            await asyncio.to_thread(input, "Three sessions are open; Enter ends them. ")


asyncio.run(main())
