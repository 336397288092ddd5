"""One of the demo's MCP servers: a counter and notes that live in this process's memory, a session at a time.

Written with the official Python SDK, as a user's own server would be; it knows nothing of the gateway in front.
Run: python -m gateway.demo.server --port 9001 --name harbour
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

GRACE_S = 1
"""How long open streams may hold up the exit."""


@dataclass(slots=True)
class Memory:
    """What one session has here; gone with the process."""

    count: int = 0
    notes: list[str] = field(default_factory=list)


def build(name: str) -> MCPServer[Any]:
    """The server called `name`, with its tools."""
    server: MCPServer[Any] = MCPServer(
        name=f"demo-{name}",
        version="1",
        log_level="WARNING",
        instructions="Count and take notes. Everything is remembered for one session, in one process.",
    )
    sessions: defaultdict[str, Memory] = defaultdict(Memory)

    @server.tool()
    async def counter(ctx: Context[Any, Any], by: int = 1) -> str:
        """Add to this session's counter and say where it stands."""
        memory = sessions[_session(ctx)]
        memory.count += by
        return f"{memory.count} (kept by {name})"

    @server.tool()
    async def notes(ctx: Context[Any, Any], add: str = "") -> str:
        """Note something down, or read what this session has noted."""
        memory = sessions[_session(ctx)]
        if add:
            memory.notes.append(add)
        return "\n".join(memory.notes) or "no notes yet"

    @server.tool()
    async def whoami(ctx: Context[Any, Any]) -> str:
        """Say which instance answers, and how many sessions it remembers."""
        return f"{name}, session {_session(ctx) or 'none'}, {len(sessions)} remembered"

    async def healthz(_: Request) -> Response:
        return JSONResponse({"name": name, "sessions": len(sessions)})

    server.custom_route("/healthz", methods=["GET"])(healthz)
    return server


def _session(ctx: Context[Any, Any]) -> str:
    headers = ctx.headers
    return headers.get("mcp-session-id", "") if headers is not None else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        build(arguments.name).streamable_http_app(),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_S,
    )


if __name__ == "__main__":
    main()
