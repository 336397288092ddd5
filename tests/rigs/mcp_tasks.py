"""The tasks extension of 2026-07-28, as far as routing is concerned: tasks live in one process's memory.

The Python SDK 2.3 has the seam for extensions but no tasks; this is the smallest server side of it
(`tools/call` of `long_job` answers `resultType: task`; `tasks/get` and `tasks/cancel` find it by id).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding, ToolBinding
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, CallToolRequestParams, RequestParams

MODERN = frozenset({"2026-07-28"})
_TOOL = "long_job"


class TaskParams(RequestParams):
    """Params of tasks/get and tasks/cancel."""

    task_id: str


class Tasks(Extension):
    """Tasks of one process; another process does not know them."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._polls: dict[str, int] = {}

    def tools(self) -> Sequence[ToolBinding]:
        return [ToolBinding(fn=long_job, kwargs={"structured_output": False})]

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self._get, MODERN),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, MODERN),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        if params.name != _TOOL or ctx.protocol_version not in MODERN:
            return await call_next(ctx)
        task = secrets.token_hex(8)
        self._polls[task] = 0
        return {"resultType": "task", **self._state(task, "working")}

    async def _get(self, _: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        polls = self._known(params.task_id)
        self._polls[params.task_id] = polls + 1
        if polls == 0:
            return {"resultType": "complete", **self._state(params.task_id, "working")}
        text = json.dumps({"instance": self._instance, "task": params.task_id})
        result = {"content": [{"type": "text", "text": text}]}
        return {"resultType": "complete", **self._state(params.task_id, "completed"), "result": result}

    async def _cancel(self, _: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        self._known(params.task_id)
        del self._polls[params.task_id]
        return {"resultType": "complete"}

    def _known(self, task: str) -> int:
        if task not in self._polls:
            raise MCPError(INVALID_PARAMS, "Task not found")
        return self._polls[task]

    @staticmethod
    def _state(task: str, status: str) -> dict[str, object]:
        stamp = datetime.now(UTC).isoformat()
        return {
            "taskId": task, "status": status, "createdAt": stamp, "lastUpdatedAt": stamp, "ttlMs": 60_000,
            "pollIntervalMs": 50,
        }  # fmt: skip


async def long_job(nonce: str) -> str:
    """A job that runs as a task; on a legacy connection it answers at once."""
    return nonce
