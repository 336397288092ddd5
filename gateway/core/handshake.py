"""The messages of a session's second beginning: what the new instance is sent, and what its answer means.

Follows MCP 2025-11-25, "Lifecycle" and transports, "Session management": `initialize`, its answer with the session's
id and the negotiated version, then `notifications/initialized`. The fields that a client sends with every request of a
session, credentials among them, are those of the request that waits for the handshake.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from gateway.core.jsonrpc import load, raw_id
from gateway.core.recording import Recording

INITIALIZED: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'

Fields = list[tuple[bytes, bytes]]
"""Header fields in order."""

_NOT_SHARED: Final = frozenset({b"accept", b"accept-encoding", b"cache-control", b"last-event-id", b"range"})
_NOT_SHARED_BEGIN: Final = (b"content-", b"if-", b"mcp-")
_VERSION: Final = re.compile(r"[0-9A-Za-z.-]{1,64}", re.ASCII)


class Shown(NamedTuple):
    """How instances are shown the requests of a session."""

    target: bytes
    """The request target."""
    lines: bytes
    """Whole header lines: the client's, and what the gateway adds."""
    authority: bytes
    """The Host; empty for the instance's own."""


class Welcome(NamedTuple):
    """The answer to an `initialize` that was accepted."""

    version: bytes
    """The negotiated protocol version; empty where none that could be said again was named."""


class Refusal(NamedTuple):
    """The answer to one that was not."""

    reason: str


def opening(recording: Recording, shown: Shown) -> Fields:
    """The fields of the `initialize` request."""
    return [*_shared(shown), *recording.fields]


def following(shown: Shown, session_id: bytes, version: bytes) -> Fields:
    """The fields of every later message of the gateway's own in the new session."""
    fields = [
        *_shared(shown),
        (b"accept", b"application/json, text/event-stream"),
        (b"content-type", b"application/json"),
        (b"mcp-session-id", session_id),
    ]
    return [*fields, (b"mcp-protocol-version", version)] if version else fields


def read_answer(data: bytes, rpc_id: bytes) -> Welcome | Refusal | None:
    """What a message from the instance says of the request with this id (raw JSON); None for another message.

    `data` is a whole JSON body or the data of one SSE event.
    """
    message = load(data)
    if not isinstance(message, dict) or "method" in message or raw_id(message.get("id")) != rpc_id:
        return None
    result = message.get("result")
    if not isinstance(result, dict):
        error = message.get("error")
        said = error.get("message") if isinstance(error, dict) else None
        return Refusal(said[:200] if isinstance(said, str) else "it answered without a result")
    version = result.get("protocolVersion")
    return Welcome(version.encode() if isinstance(version, str) and _VERSION.fullmatch(version) else b"")


def _shared(shown: Shown) -> Fields:
    """The fields of a request that are not about that request alone. Bodies come uncompressed."""
    fields: Fields = [(b"host", shown.authority)] if shown.authority else []
    for line in shown.lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        lower = name.lower()
        if colon and lower not in _NOT_SHARED and not lower.startswith(_NOT_SHARED_BEGIN):
            fields.append((name, value.strip(b" \t")))
    return [*fields, (b"accept-encoding", b"identity")]
