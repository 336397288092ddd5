"""What a request is, as far as affinity is concerned: from its head, and where the head leaves it open, its body.

Eras by header, as the SDKs do: a request is of the 2026-07-28 era when MCP-Protocol-Version names neither nothing
nor one of the handshake revisions. What is *not* decided here: whether a token is genuine (`gateway.core.ask`) and
where the request goes (`gateway.core.decide`). Never raises, whatever the bytes.
"""

from __future__ import annotations

import hashlib

from gateway.core.jsonrpc import Message, Shape, read
from gateway.core.keys import Head, decode_mcp_value, key_of
from gateway.core.model import App, AppProtocol, Dialect, Intent, Kind
from gateway.core.problems import Code, Problem

PIN_PARAM = b"moorage_pin"
"""The query parameter that carries a 2024-11-05 stream's pin in the endpoint's URI."""
HANDSHAKE_VERSIONS = frozenset({b"2024-11-05", b"2025-03-26", b"2025-06-18", b"2025-11-25"})
"""Revisions that open with `initialize`. A closed list: from 2026-07-28 on there is none."""

_PIN_MARK = PIN_PARAM + b"="
_VERSION_CLAIM = "io.modelcontextprotocol/protocolVersion"

# MCP 2026-07-28: methods whose answer may ask for a retry with `requestState` or hand out a task.
_MAY_CONTINUE = frozenset({b"tools/call", b"prompts/get", b"resources/read"})
# Methods that any instance answers alike.
_STATELESS = frozenset(
    {
        b"server/discover",
        b"tools/list",
        b"prompts/list",
        b"resources/list",
        b"resources/templates/list",
        b"completion/complete",
    }
)

_PLAIN = Intent(Kind.PLAIN, Dialect.HTTP)
_NEEDS_BODY = Intent(Kind.NEEDS_BODY, Dialect.HTTP)
_LEGACY_STREAM = Intent(Kind.LEGACY_STREAM, Dialect.SSE_2024)


def classify(app: App, head: Head) -> Intent | Problem:
    """What a request is by its head. `Kind.NEEDS_BODY`: read the body and ask `classify_body`."""
    if app.protocol is AppProtocol.HTTP:
        return Intent(Kind.PLAIN, Dialect.HTTP, key=key_of(app, head, modern=False)) if app.key else _PLAIN
    values = head.values
    token = values.get(b"mcp-session-id")
    version = values.get(b"mcp-protocol-version")
    if version is not None and version not in HANDSHAKE_VERSIONS:
        mcp_method = values.get(b"mcp-method")
        # Without Mcp-Method it is no request of that era: a session id in it is still somebody's session.
        if mcp_method is not None or token is None:
            return _classify_modern(app, head, mcp_method)
    key = key_of(app, head, modern=False) if app.key else b""
    if token is not None:
        return Intent(Kind.IN_SESSION, Dialect.SESSION_2025, token, key=key)
    method = head.method
    if method == b"POST":
        pin = stream_pin(head.query)
        if pin is not None:
            return Intent(Kind.LEGACY_POST, Dialect.SSE_2024, pin, key=key)
        if _is_json(values.get(b"content-type", b"")):
            return Intent(Kind.NEEDS_BODY, Dialect.HTTP, key=key) if key else _NEEDS_BODY
    elif method == b"GET" and b"text/event-stream" in values.get(b"accept", b"").lower():
        return Intent(Kind.LEGACY_STREAM, Dialect.SSE_2024, key=key) if key else _LEGACY_STREAM
    return Intent(Kind.PLAIN, Dialect.HTTP, key=key) if key else _PLAIN


def classify_body(app: App, head: Head, body: bytes) -> Intent | Problem:
    """What a `Kind.NEEDS_BODY` request is, by its whole body.

    A Problem here is the caller's disagreement with itself; answer it with the id that `jsonrpc.peek_id` finds.
    """
    message = read(body)
    if _is_modern(head):
        return _modern_body(app, head, message)
    key = key_of(app, head, modern=False) if app.key else b""
    if isinstance(message, Shape):
        dialect = Dialect.SESSION_2025 if message is Shape.BATCH else Dialect.HTTP
        return Intent(Kind.PLAIN, dialect, key=key)
    if _claims_modern(message):
        # The header is missing. Servers that read the body first take it for 2026-07-28 all the same.
        return Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026, b"", message.method, message.id, key)
    kind = Kind.INITIALIZE if message.method == "initialize" else Kind.PLAIN
    return Intent(kind, Dialect.SESSION_2025, b"", message.method, message.id, key)


def classify_unread(app: App, head: Head) -> Intent:
    """What a `Kind.NEEDS_BODY` request is taken for when its body is too long to be kept."""
    if _is_modern(head):
        method = head.values.get(b"mcp-method", b"")
        key = key_of(app, head, modern=True)
        return Intent(
            Kind.PRINCIPAL, Dialect.STATELESS_2026, b"", _text(method), key=key, learns=method in _MAY_CONTINUE
        )
    return Intent(Kind.PLAIN, Dialect.HTTP, key=key_of(app, head, modern=False))


def stream_pin(query: bytes) -> bytes | None:
    """The pin of a 2024-11-05 stream in a raw query; of several, the last: gateways may stand in a row."""
    if _PIN_MARK not in query:
        return None
    for part in reversed(query.split(b"&")):
        if part.startswith(_PIN_MARK):
            return part[len(_PIN_MARK) :]
    return None


def without_pin(query: bytes) -> bytes:
    """A raw query without the pin that `stream_pin` finds; what else there is stays as it was."""
    parts = query.split(b"&")
    for at in range(len(parts) - 1, -1, -1):
        if parts[at].startswith(_PIN_MARK):
            del parts[at]
            return b"&".join(parts)
    return query


def task_key(task_id: bytes) -> bytes:
    """The pin store's key of a task id, as Mcp-Name carries it and as results name it."""
    return task_id


def state_key(request_state: str) -> bytes:
    """The pin store's key of a requestState, which may be long."""
    return hashlib.blake2b(request_state.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def _classify_modern(app: App, head: Head, mcp_method: bytes | None) -> Intent | Problem:
    """The ladder for 2026-07-28: the first rung that fits."""
    key = key_of(app, head, modern=True) if app.key else b""
    if head.method != b"POST":
        # The revision knows POST only; any instance says so.
        return Intent(Kind.ANYWHERE, Dialect.STATELESS_2026, key=key)
    if mcp_method is None or mcp_method == b"initialize" or mcp_method in _MAY_CONTINUE:
        learns = mcp_method in _MAY_CONTINUE
        return Intent(Kind.NEEDS_BODY, Dialect.STATELESS_2026, b"", _text(mcp_method or b""), key=key, learns=learns)
    method = _text(mcp_method)
    if mcp_method.startswith(b"tasks/"):
        raw = head.values.get(b"mcp-name")
        name = None if raw is None else decode_mcp_value(raw)
        if raw is not None and name is None:
            return Problem(Code.PB12, "Mcp-Name is a broken base64 sentinel", app.name)
        if name:
            return Intent(Kind.TASK, Dialect.STATELESS_2026, task_key(name), method, key=key)
    elif mcp_method in _STATELESS:
        return Intent(Kind.ANYWHERE, Dialect.STATELESS_2026, b"", method, key=key)
    return Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026, b"", method, key=key)


def _modern_body(app: App, head: Head, message: Message | Shape) -> Intent | Problem:
    key = key_of(app, head, modern=True)
    header = head.values.get(b"mcp-method")
    if isinstance(message, Shape):
        # The instance says what is wrong with it.
        return Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026, key=key)
    if message.method == "initialize" and not _claims_modern(message):
        return Intent(Kind.INITIALIZE, Dialect.SESSION_2025, b"", message.method, message.id, key)
    if header is not None and header != message.method.encode("utf-8", "surrogatepass"):
        return Problem(Code.PB12, "Mcp-Method header does not match the request body's method", app.name)
    learns = header in _MAY_CONTINUE
    state = message.params.get("requestState")
    if learns and isinstance(state, str):
        kind, token = Kind.STATE, state_key(state)
    else:
        kind, token = (Kind.PLAIN if key else Kind.PRINCIPAL), b""
    return Intent(kind, Dialect.STATELESS_2026, token, message.method, message.id, key, learns)


def _is_modern(head: Head) -> bool:
    version = head.values.get(b"mcp-protocol-version")
    return version is not None and version not in HANDSHAKE_VERSIONS


def _claims_modern(message: Message) -> bool:
    """Whether the body itself says that it is of the 2026-07-28 era (the TypeScript SDK reads it first)."""
    meta = message.params.get("_meta")
    version = meta.get(_VERSION_CLAIM) if isinstance(meta, dict) else None
    return isinstance(version, str) and version.encode("utf-8", "surrogatepass") not in HANDSHAKE_VERSIONS


def _is_json(content_type: bytes) -> bool:
    """`application/json`, with or without parameters (RFC 9110 8.3.1: case does not matter)."""
    return content_type[:16].lower() == b"application/json" and content_type[16:17] in (b"", b";", b" ", b"\t")


def _text(method: bytes) -> str:
    return method.decode("latin-1")
