"""An MCP server with state: every session has a list, kept in this process's memory and nowhere else.

Written with the official SDK, as it stands in its documentation; it knows nothing of the gateway in front.
Run: python server.py --port 9001 --name i-1
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
arguments.add_argument("--name", required=True)
given = arguments.parse_args()

server = MCPServer("shopping", log_level="WARNING")
lists: defaultdict[str, list[str]] = defaultdict(list)


@server.tool()
def add(item: str, ctx: Context) -> str:
    """Put something on this session's list; say what is on it, and which process keeps it."""
    mine = lists[ctx.headers["mcp-session-id"]]
    mine.append(item)
    return f"{given.name} keeps {', '.join(mine)}"


if __name__ == "__main__":
    # One second for open streams at the end: the gateway gives an instance `stop_grace` before it kills it.
    uvicorn.run(
        server.streamable_http_app(),
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
