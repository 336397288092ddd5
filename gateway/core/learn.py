"""What an answer teaches: the client's Mcp-Session-Id, sessions made, ended and lost, keys to be pinned.

The one rule behind it (MCP 2025-11-25, transports, "Session management"; and what SDKs do, which is more): a pin is
made by a 2xx answer to `initialize` and by nothing else. Python servers put a throw-away id on error answers to
requests without a session, and TypeScript clients adopt an id from any answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.core.ask import Asked, stored_key
from gateway.core.classify import state_key, task_key
from gateway.core.jsonrpc import load
from gateway.core.model import App, AppProtocol, Intent, Kind, Pin, SessionIds
from gateway.core.seal import MAX_UPSTREAM_ID_BYTES, Sealer

STATE_TTL_S = 900.0
"""How long a requestState's pin is kept. The Python SDK's own seal of it lives 600 s."""
TASK_TTL_S = 86_400.0
"""For tasks without a ttlMs."""
TASK_GRACE_S = 300.0
"""Added to a task's ttlMs: it may be asked about after it ended."""
MAX_TTL_S = 7 * 86_400.0

_SESSION_ID = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_UPSTREAM_ID_BYTES)


class Event(StrEnum):
    """What happened to a session. A closed set."""

    NOTHING = "nothing"
    MADE = "made"
    ENDED = "ended"
    """The client's DELETE was accepted: later requests get PS03, whatever the instance would say."""
    LOST = "lost"
    """The instance does not know the id that was pinned to it. Counted as a misroute until proved otherwise."""
    STRIPPED = "stripped"
    """An id that belongs to no session was kept from the client."""
    BAD_ID = "bad-id"
    """The instance minted an id that the specification does not allow; kept from the client."""


class Lesson(NamedTuple):
    """What to make of an answer's head."""

    session_id: bytes | None
    """The Mcp-Session-Id for the client; None: the answer carries none."""
    event: Event = Event.NOTHING
    store: bytes = b""
    """Put the instance's pin under this key into the pin store, before the client sees the answer."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A key that later requests will carry, to be put into the pin store before the client sees the answer."""

    kind: Kind
    """TASK or STATE."""
    key: bytes
    ttl_s: float


_NOTHING = Lesson(None)
_STRIPPED = Lesson(None, Event.STRIPPED)
_BAD_ID = Lesson(None, Event.BAD_ID)
_LOST = Lesson(None, Event.LOST)


def learn(
    app: App,
    asked: Asked,
    pin: Pin,
    sealer: Sealer,
    *,
    principal: bytes | None,
    method: bytes,
    status: int,
    session_id: bytes | None,
) -> Lesson:
    """What the head of a final answer teaches.

    Args:
        app: the one that the client addressed.
        pin: names who answered, as the catalog named it when the request was sent.
        principal: the caller, as for `build_ask`.
        session_id: the answer's Mcp-Session-Id.
    """
    intent = asked.ask.intent
    if intent.kind is Kind.IN_SESSION:
        return _in_session(app, asked, intent, pin, sealer, principal, method, status, session_id)
    if session_id is None:
        return _NOTHING
    if app.protocol is AppProtocol.HTTP:
        return Lesson(session_id)
    if intent.kind is not Kind.INITIALIZE or not 200 <= status < 300:
        return _STRIPPED
    return _minted(app, pin, sealer, principal, session_id)


def learn_result(data: bytes) -> Learned | None:
    """What a JSON-RPC answer to a request that `learns` teaches; None for nothing. Never raises.

    `data` is a whole JSON body or the data of one SSE event. Only a top-level `result.resultType` counts.
    """
    if b'"resultType"' not in data:
        return None
    message = load(data)
    result = message.get("result") if isinstance(message, dict) else None
    if not isinstance(result, dict):
        return None
    match result.get("resultType"):
        case "task":
            return _task(result)
        case "input_required":
            state = result.get("requestState")
            return Learned(Kind.STATE, state_key(state), STATE_TTL_S) if isinstance(state, str) else None
        case _:
            return None


def _in_session(
    app: App,
    asked: Asked,
    intent: Intent,
    pin: Pin,
    sealer: Sealer,
    principal: bytes | None,
    method: bytes,
    status: int,
    session_id: bytes | None,
) -> Lesson:
    if status == 404:
        # A dead id is not echoed: some clients adopt an id from any answer.
        return _LOST
    ok = 200 <= status < 300
    if method == b"DELETE" and ok:
        return Lesson(None, Event.ENDED)
    if session_id is None:
        return _NOTHING
    if session_id == asked.upstream_id:
        return Lesson(intent.token)
    return _minted(app, pin, sealer, principal, session_id) if ok else _STRIPPED


def _minted(app: App, pin: Pin, sealer: Sealer, principal: bytes | None, session_id: bytes) -> Lesson:
    """A new session: the id under which its client will come back."""
    if _SESSION_ID.fullmatch(session_id) is None:
        return _BAD_ID
    if app.session_ids is SessionIds.STORED:
        return Lesson(session_id, Event.MADE, stored_key(app, session_id, principal))
    sealed = sealer.seal_session(app.name, pin, session_id, principal if app.bind_principal else None)
    return Lesson(sealed, Event.MADE)


def _task(result: dict[str, Any]) -> Learned | None:
    task_id = result.get("taskId")
    if not isinstance(task_id, str) or not task_id:
        return None
    ttl_ms = result.get("ttlMs")
    ttl_s = TASK_TTL_S
    if isinstance(ttl_ms, (int, float)) and not isinstance(ttl_ms, bool) and ttl_ms >= 0:
        # The bound first: JSON's integers may be too large for a division.
        ttl_s = min(ttl_ms, MAX_TTL_S * 1000) / 1000 + TASK_GRACE_S
    return Learned(Kind.TASK, task_key(task_id.encode("utf-8", "surrogatepass")), ttl_s)
