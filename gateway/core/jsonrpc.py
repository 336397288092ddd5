"""Cheap, bounded looks into JSON-RPC messages. Nothing here validates: the instance does.

JSON from strangers: `json.loads` raises RecursionError on deep nesting, accepts NaN, and gives lone surrogates.
All of it ends here, as one of the shapes below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple, NoReturn

MAX_PEEK_BYTES = 1 << 20
"""Longer bodies are not parsed: 1 MiB costs some 10 ms, in which nothing else is served."""
MAX_ID_BYTES = 1024
"""Longer ids are not echoed in errors."""

_NO_PARAMS: Mapping[str, Any] = {}


class Shape(Enum):
    """What a body is when it is not one JSON-RPC message."""

    OPAQUE = "opaque"
    """Not JSON, not JSON-RPC, or too long to be looked into."""
    BATCH = "batch"
    """A JSON array, which MCP 2025-03-26 alone knows."""


class Message(NamedTuple):
    """A request, a notification, or a response (which has no method)."""

    method: str
    id: bytes
    """Raw JSON, ASCII; empty when there is none, and for responses, whose id is the other side's."""
    params: Mapping[str, Any]


def read(body: bytes) -> Message | Shape:
    """The single JSON-RPC 2.0 message in a body, or what it is instead. Never raises."""
    value = load(body)
    if isinstance(value, list):
        return Shape.BATCH if value and all(_is_message(one) for one in value) else Shape.OPAQUE
    if not _is_message(value):
        return Shape.OPAQUE
    method = value.get("method")
    if not isinstance(method, str):
        return Message("", b"", _NO_PARAMS)
    params = value.get("params")
    return Message(method, raw_id(value.get("id")), params if isinstance(params, dict) else _NO_PARAMS)


def peek_id(body: bytes) -> tuple[str, bytes]:
    """The method and the id of a request body, each empty when there is none to be found."""
    message = read(body)
    return (message.method, message.id) if isinstance(message, Message) else ("", b"")


def load(body: bytes) -> Any:
    """The JSON value of a body; None when it is not JSON or longer than MAX_PEEK_BYTES. Never raises."""
    if len(body) > MAX_PEEK_BYTES:
        return None
    try:
        # Decoded here: json would guess UTF-16 and UTF-32 too, which no MCP peer speaks.
        return json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def raw_id(value: object) -> bytes:
    """A request id as raw JSON; empty for what cannot be one (JSON-RPC 2.0, section 4: a string or a number)."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return b""
    # Infinite only as a literal like 1e999, which no client could match again.
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return b""
    raw = json.dumps(value).encode("ascii")
    return raw if len(raw) <= MAX_ID_BYTES else b""


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and value.get("jsonrpc") == "2.0"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
