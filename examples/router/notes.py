"""One user's app that is an MCP server: every session has notes, in the memory of the process that made it.

Run: FLY_MACHINE_ID=c-1 TENANT=cyd TOKEN=cyd-token ROUTER_KEY=cyd-key python notes.py --port 9001
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from tenant import TENANT, Tenant

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
options = arguments.parse_args()

ME = os.environ["FLY_MACHINE_ID"]
server = MCPServer(f"notes of {TENANT}", log_level="WARNING")
notes: defaultdict[str, list[str]] = defaultdict(list)


@server.tool()
def note(text: str, ctx: Context) -> str:
    """Keep a note in this session; say which ones there are, and which process keeps them."""
    mine = notes[ctx.headers["mcp-session-id"]]
    mine.append(text)
    return f"{ME} keeps {', '.join(mine)}"


if __name__ == "__main__":
    app = Tenant(server.streamable_http_app())
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", timeout_graceful_shutdown=1)
