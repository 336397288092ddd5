"""The server that the official conformance suite is run against: Python SDK, 2025-11-25, sessions in memory.

Journals like every rig server. What it holds is in `conformance_material`.
Run: python -m tests.rigs.conformance_server --port 9001 --name a --journal a.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    JSONRPCMessage,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    LoggingLevel,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)

from tests.rigs import conformance_material as material
from tests.rigs.journal import Journal, Journaled, Streams

Ctx = ServerRequestContext[Any, Any]

_PAUSE_S = 0.05
_RETRY_MS = 300
_INFO_AND_ABOVE: tuple[LoggingLevel, ...] = ("debug", "info")


class Events(EventStore):
    """Keeps every event, so that a dropped stream can be resumed by Last-Event-ID."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        if not last_event_id.isdecimal() or int(last_event_id) >= len(self._events):
            return None
        last = int(last_event_id)
        stream = self._events[last][0]
        for number, (owner, message) in enumerate(self._events[last + 1 :], last + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class Target:
    """The handlers."""

    def __init__(self) -> None:
        self._levels: dict[str, LoggingLevel] = {}
        self._acting: dict[str, Callable[[Ctx, dict[str, Any]], Coroutine[Any, Any, str]]] = {
            "test_tool_with_logging": self._logging,
            "test_tool_with_progress": self._progress,
            "test_sampling": self._sampling,
            "test_elicitation": self._elicitation,
            "test_elicitation_sep1034_defaults": self._defaults,
            "test_elicitation_sep1330_enums": self._enums,
            "test_reconnection": self._reconnection,
        }

    def server(self) -> Server[dict[str, Any]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)  # logging/setLevel is what 2025-11-25 has
            return Server(
                "conformance-target",
                version="1",
                on_list_tools=self.list_tools,
                on_call_tool=self.call_tool,
                on_list_resources=self.list_resources,
                on_list_resource_templates=self.list_templates,
                on_read_resource=self.read_resource,
                on_subscribe_resource=self.subscribe,
                on_unsubscribe_resource=self.unsubscribe,
                on_list_prompts=self.list_prompts,
                on_get_prompt=self.get_prompt,
                on_completion=self.complete,
                on_set_logging_level=self.set_level,
            )

    async def list_tools(self, _: Ctx, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=material.TOOLS)

    async def list_resources(self, _: Ctx, __: PaginatedRequestParams | None) -> ListResourcesResult:
        return ListResourcesResult(resources=material.RESOURCES)

    async def list_templates(self, _: Ctx, __: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=material.TEMPLATES)

    async def list_prompts(self, _: Ctx, __: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(prompts=material.PROMPTS)

    async def get_prompt(self, _: Ctx, params: GetPromptRequestParams) -> GetPromptResult:
        messages = material.prompt_messages(params.name, params.arguments or {})
        if messages is None:
            raise MCPError(INVALID_PARAMS, f"no prompt {params.name!r}")
        return GetPromptResult(messages=messages)

    async def read_resource(self, _: Ctx, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = str(params.uri)
        known = material.RESOURCE_CONTENTS.get(uri)
        if known is not None:
            return ReadResourceResult(contents=[known])
        prefix, suffix = "test://template/", "/data"
        if not (uri.startswith(prefix) and uri.endswith(suffix)):
            raise MCPError(INVALID_PARAMS, "Resource not found", data={"uri": uri})
        name = uri.removeprefix(prefix).removesuffix(suffix)
        content = json.dumps({"id": name, "templateTest": True, "data": f"Data for ID: {name}"})
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type="application/json", text=content)])

    async def subscribe(self, _: Ctx, __: SubscribeRequestParams) -> EmptyResult:
        return EmptyResult()

    async def unsubscribe(self, _: Ctx, __: UnsubscribeRequestParams) -> EmptyResult:
        return EmptyResult()

    async def complete(self, _: Ctx, params: CompleteRequestParams) -> CompleteResult:
        values = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
        return CompleteResult(completion=Completion(values=values, total=len(values), has_more=False))

    async def set_level(self, ctx: Ctx, params: SetLevelRequestParams) -> EmptyResult:
        self._levels[_session(ctx)] = params.level
        return EmptyResult()

    async def call_tool(self, ctx: Ctx, params: CallToolRequestParams) -> CallToolResult:
        plain = material.PLAIN_TOOLS.get(params.name)
        if plain is not None:
            return CallToolResult(content=plain)
        if params.name == "test_error_handling":
            complaint = material.text("This tool intentionally returns an error for testing")
            return CallToolResult(content=[complaint], is_error=True)
        act = self._acting.get(params.name)
        if act is None:
            raise MCPError(INVALID_PARAMS, f"no tool {params.name!r}")
        return CallToolResult(content=[material.text(await act(ctx, params.arguments or {}))])

    async def _logging(self, ctx: Ctx, _: dict[str, Any]) -> str:
        for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            if self._levels.get(_session(ctx), "info") in _INFO_AND_ABOVE:
                await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)
            await _pause()
        return "logged"

    async def _progress(self, ctx: Ctx, _: dict[str, Any]) -> str:
        for progress in (0, 50, 100):
            await ctx.session.report_progress(progress, 100)
            await _pause()
        return "done"

    async def _sampling(self, ctx: Ctx, arguments: dict[str, Any]) -> str:
        message = SamplingMessage(role="user", content=TextContent(type="text", text=arguments["prompt"]))
        result = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
        answer = result.content.text if isinstance(result.content, TextContent) else ""
        return f"LLM response: {answer}"

    async def _elicitation(self, ctx: Ctx, arguments: dict[str, Any]) -> str:
        result = await ctx.session.elicit_form(arguments["message"], material.USER_FORM, ctx.request_id)
        return f"User response: action: {result.action}, content: {json.dumps(result.content)}"

    async def _defaults(self, ctx: Ctx, _: dict[str, Any]) -> str:
        return await self._form(ctx, material.DEFAULTS_FORM)

    async def _enums(self, ctx: Ctx, _: dict[str, Any]) -> str:
        return await self._form(ctx, material.ENUMS_FORM)

    async def _form(self, ctx: Ctx, schema: dict[str, Any]) -> str:
        result = await ctx.session.elicit_form("Please fill in", schema, ctx.request_id)
        return f"Elicitation completed: action={result.action}, content={json.dumps(result.content)}"

    async def _reconnection(self, ctx: Ctx, _: dict[str, Any]) -> str:
        await _pause()  # the priming event has to be out before the stream ends
        if ctx.close_sse_stream is not None:
            await ctx.close_sse_stream()
        await _pause()
        return "Reconnection test completed successfully"


def _session(ctx: Ctx) -> str:
    headers = getattr(ctx.request, "headers", {})
    return str(headers.get("mcp-session-id", ""))


async def _pause() -> None:
    await asyncio.sleep(_PAUSE_S)  # noqa: TID251 - the scenarios ask for a real delay between messages


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    arguments = parser.parse_args()
    app = Target().server().streamable_http_app(event_store=Events(), retry_interval=_RETRY_MS)
    uvicorn.run(
        Journaled(app, Journal(arguments.journal, arguments.name), Streams()),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
