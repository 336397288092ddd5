"""An MCP server with state: a list for each session, in this process's memory and nowhere else.

Run: python server.py NAME
"""

from __future__ import annotations

import sys
from collections import defaultdict

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

name = sys.argv[1]
# The gateway in front names this container by its address; the check of the Host is for servers on a desk.
server = MCPServer(name, log_level="WARNING")
lists: defaultdict[str, list[str]] = defaultdict(list)


@server.tool()
def add(item: str, ctx: Context) -> str:
    """Put something on this session's list, and say what is on it."""
    mine = lists[ctx.headers["mcp-session-id"]]
    mine.append(item)
    return f"{name} keeps {', '.join(mine)}"


@server.custom_route("/healthz", methods=["GET"])
async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


if __name__ == "__main__":
    app = server.streamable_http_app(host="0.0.0.0")
    uvicorn.run(app, host="0.0.0.0", port=9000, log_level="warning", timeout_graceful_shutdown=1)
