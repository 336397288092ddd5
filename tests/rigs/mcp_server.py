"""An MCP server with per-session state in memory, on the official Python SDK, that journals what it serves.

One process is one instance. `--mode http` speaks both eras on /mcp (2025 sessions and 2026-07-28 with the SDK's
default per-process keys), `json` answers with JSON instead of SSE, `sse` is the SDK's 2024-11-05 server.
Run: python -m tests.rigs.mcp_server --port 9001 --name a --journal a.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import (
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.rigs.journal import Journal, Journaled, Streams
from tests.rigs.mcp_tasks import Tasks


class Answer(BaseModel):
    """What the user is asked for."""

    word: str


@dataclass(slots=True)
class Memory:
    """What one session has in this process."""

    values: dict[str, str] = field(default_factory=dict)
    count: int = 0
    nonces: list[str] = field(default_factory=list)


class Instance:
    """The tools of one instance, and the memory behind them."""

    def __init__(self, name: str, journal: Journal, streams: Streams) -> None:
        self._name = name
        self._journal = journal
        self._streams = streams
        self._sessions: defaultdict[str, Memory] = defaultdict(Memory)
        self._baskets: defaultdict[str, list[str]] = defaultdict(list)

    def server(self) -> MCPServer[Any]:
        server: MCPServer[Any] = MCPServer(name="rig", version="1", log_level="ERROR", extensions=[Tasks(self._name)])
        for tool in (
            self.whoami, self.put, self.get, self.incr, self.history, self.ask_model, self.ask_user,
            self.announce, self.hang, self.approve, self.touch, self.basket_add,
        ):  # fmt: skip
            server.add_tool(tool, structured_output=False)
        server.custom_route("/healthz", methods=["GET"])(self._healthz)
        return server

    async def _healthz(self, _: Request) -> Response:
        return JSONResponse({"instance": self._name, "boot": self._journal.boot})

    def _me(self, **more: object) -> str:
        return json.dumps({"instance": self._name, "boot": self._journal.boot, **more})

    def _session(self, ctx: Context[Any, Any], nonce: str) -> Memory:
        memory = self._sessions[session_id(ctx)]
        memory.nonces.append(nonce)
        return memory

    # --- per-session state ------------------------------------------------------------

    async def whoami(self, ctx: Context[Any, Any], nonce: str) -> str:
        """Name the instance, its boot and the session as the instance knows it."""
        self._session(ctx, nonce)
        return self._me(session=session_id(ctx))

    async def put(self, ctx: Context[Any, Any], nonce: str, key: str, value: str) -> str:
        """Keep a value in the session."""
        self._session(ctx, nonce).values[key] = value
        return self._me(value=value)

    async def get(self, ctx: Context[Any, Any], nonce: str, key: str) -> str:
        """Read a value that the session kept; null when this process does not have it."""
        return self._me(value=self._session(ctx, nonce).values.get(key))

    async def incr(self, ctx: Context[Any, Any], nonce: str) -> str:
        """Add one to the session's counter."""
        memory = self._session(ctx, nonce)
        memory.count += 1
        return self._me(count=memory.count)

    async def history(self, ctx: Context[Any, Any], nonce: str) -> str:
        """All nonces this session was called with, in order."""
        return self._me(nonces=self._session(ctx, nonce).nonces)

    # --- towards the client -----------------------------------------------------------

    async def ask_model(self, ctx: Context[Any, Any], nonce: str, prompt: str) -> str:
        """Have the client sample: a request on this call's stream, answered by a new POST."""
        self._session(ctx, nonce)
        message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
        result = await ctx.session.create_message([message], max_tokens=16, related_request_id=ctx.request_id)
        text = result.content.text if isinstance(result.content, TextContent) else ""
        return self._me(text=text)

    async def ask_user(self, ctx: Context[Any, Any], nonce: str, question: str) -> str:
        """Elicit a word from the client's user."""
        self._session(ctx, nonce)
        result = await ctx.elicit(question, Answer)
        return self._me(text=result.data.word if result.action == "accept" else result.action)

    async def announce(self, ctx: Context[Any, Any], nonce: str, uri: str) -> str:
        """Send `resources/updated` on the session's own GET stream, once the client has it open."""
        self._session(ctx, nonce)
        await self._streams.wait_open(session_id(ctx))
        await ctx.session.send_resource_updated(uri)
        return self._me()

    async def hang(self, ctx: Context[Any, Any], nonce: str) -> str:
        """Report once, then never answer: this call is in the middle of its SSE response when the process dies."""
        await ctx.report_progress(1, 2)
        await asyncio.Event().wait()
        return nonce

    # --- 2026-07-28 -------------------------------------------------------------------

    async def approve(self, ctx: Context[Any, Any], nonce: str, rounds: int = 1) -> str | InputRequiredResult:
        """Ask `rounds` times, keeping the progress in requestState (sealed with this process's own key)."""
        passed = int(ctx.request_state or "0")
        responses = ctx.input_responses or {}
        answer = responses.get("word")
        if ctx.request_state is not None and isinstance(answer, ElicitResult) and answer.action == "accept":
            passed += 1
        if passed >= rounds:
            return self._me(nonce=nonce, rounds=passed)
        asked = ElicitRequest(
            params=ElicitRequestFormParams(
                message=f"round {passed + 1} of {nonce}",
                requested_schema={"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
            )
        )
        return InputRequiredResult(input_requests={"word": asked}, request_state=str(passed))

    async def touch(self, ctx: Context[Any, Any], nonce: str, uri: str) -> str:
        """Change a resource: listeners on this process's bus hear of it, and of no other process's."""
        await ctx.notify_resource_updated(uri)
        return self._me(nonce=nonce)

    async def basket_add(
        self, nonce: str, item: str, basket: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Basket"})]
    ) -> str:
        """Add to a basket named by the client; its name is mirrored in Mcp-Param-Basket."""
        self._baskets[basket].append(item)
        return self._me(nonce=nonce, items=self._baskets[basket])


def session_id(ctx: Context[Any, Any]) -> str:
    """The session as this server knows it: its own id from the header, or from the 2024-11-05 endpoint."""
    request = ctx.request_context.request
    if not isinstance(request, Request):
        return ""
    return request.headers.get("mcp-session-id") or request.query_params.get("session_id") or ""


def application(mode: str, server: MCPServer[Any]) -> Starlette:
    """The SDK's own ASGI application for `mode`."""
    if mode == "sse":
        return server.sse_app()
    return server.streamable_http_app(json_response=mode == "json")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--mode", choices=("http", "json", "sse"), default="http")
    arguments = parser.parse_args()
    journal, streams = Journal(arguments.journal, arguments.name), Streams()
    app = application(arguments.mode, Instance(arguments.name, journal, streams).server())
    uvicorn.run(
        Journaled(app, journal, streams),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
