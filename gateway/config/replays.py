"""The kinds of value that app-directed routing is set by: who may replay, what a replay cache is for, region groups."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo

from gateway.config.faults import bad, shown
from gateway.config.values import RegionName, Written, seconds, size_bytes, text_of, token_name
from gateway.core.model import ReplayKey
from gateway.core.replay_settings import MIN_TTL_S, SOURCE, Scope, may_key, parse_scope

MAX_REPLAY_BUFFER_BYTES = 10 * 1024 * 1024
"""Fly keeps no more of a body (Fly, "Error codes", PA01)."""


def replay_source(value: object) -> str:
    """One entry of `replay_sources`."""
    text = text_of(value, 'such as "org:partner" or "app:router"')
    if not SOURCE.fullmatch(text):
        remedy = 'write "org:NAME", "app:NAME" or "NAME"; a name has a-z, 0-9 and -, at most 63, not - at either end'
        raise bad(f"{shown(text)} names no org and no app", remedy)
    return text


def scope(value: object) -> Scope:
    """The `path` of a replay cache: a path prefix, for every host or for one."""
    if isinstance(value, Scope):
        return value
    text = text_of(value, 'such as "/api"')
    found = parse_scope(text)
    if found is None:
        remedy = 'write "/", "/api" or "host/api"; no scheme, port or query, and no * but "/*" at the end'
        raise bad(f"{shown(text)} is neither a path nor a host with a path", remedy)
    return found


def replay_ttl_s(value: object) -> float:
    """How long an entry of a replay cache is kept."""
    result = seconds(value)
    if result < MIN_TTL_S:
        raise bad(f"{shown(value)} is too short", f'write "{MIN_TTL_S:g}s" or more')
    return result


def replay_key_name(value: object, info: ValidationInfo) -> str:
    """The name of the cookie or header that a replay cache goes by; a header's becomes lower case."""
    kind = info.data.get("type")  # absent when it is faulty
    name = token_name(text_of(value, "a name"), f"{kind} name" if kind else "name", "use letters, digits, - and _")
    if kind is not ReplayKey.HEADER:
        return name
    name = name.lower()
    if name == "mcp-session-id":
        raise bad(f"{shown(value)} cannot be a cache's key", "remove this rule: MCP sessions are pinned anyway")
    if not may_key(name):
        message = f"{shown(value)} cannot be a cache's key: no app sees it as the client sent it"
        raise bad(message, "name a header that the gateway passes on")
    return name


def _groups(value: object) -> object:
    if isinstance(value, dict):
        return value
    raise bad(f"{shown(value)} is not a table", 'write { eu = ["ams", "fra"] }')


ReplaySource = Annotated[str, PlainValidator(replay_source), Written("source")]
ReplayScope = Annotated[Scope, PlainValidator(scope), Written("path")]
ReplayTtl = Annotated[float, PlainValidator(replay_ttl_s), Written("duration")]
ReplayKeyName = Annotated[str, PlainValidator(replay_key_name), Written("name")]
ReplayBufferBytes = Annotated[int, PlainValidator(size_bytes), Field(ge=0, le=MAX_REPLAY_BUFFER_BYTES), Written("size")]
RegionGroups = Annotated[dict[RegionName, tuple[RegionName, ...]], BeforeValidator(_groups), Written("table of lists")]
