"""What is kept of a session so that it can begin anew elsewhere: its `initialize`, and where it went since.

Both come back from a store that others write to, so both are read strictly: what could not have been written here
counts as not there. Credentials, cookies and the query are never recorded. See
docs/adr/0017-lost-sessions-are-initialised-anew.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.core.jsonrpc import Message, load, read
from gateway.core.model import Pin
from gateway.core.seal import MAX_UPSTREAM_ID_BYTES

MAX_BODY_BYTES: Final = 65536
"""A longer `initialize` is not recorded. Those of the SDKs have some 300 bytes."""
MAX_VALUE_BYTES: Final = 1024
RECORDED: Final = (b"accept", b"content-type", b"mcp-protocol-version")
"""The header fields that are recorded, in this order."""

_FIRST: Final = b"moorage-recording 1"
_FIELD: Final = re.compile(rb"([a-z-]+): ([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)")
_HEAD_BYTES: Final = len(_FIRST) + len(RECORDED) * (MAX_VALUE_BYTES + 32)
MAX_RECORDING_BYTES: Final = _HEAD_BYTES + MAX_BODY_BYTES
MAX_BINDING_BYTES: Final = 2 * MAX_UPSTREAM_ID_BYTES + 512
_SESSION_ID: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_UPSTREAM_ID_BYTES)
_PIN_NAME: Final = re.compile(r"~?(?:[a-z0-9-]{1,63}/)?[A-Za-z0-9-]{1,64}", re.ASCII)
_INCARNATION: Final = re.compile(r"[0-9a-zA-Z]{1,16}", re.ASCII)


class Recording(NamedTuple):
    """An `initialize` that made a session."""

    fields: tuple[tuple[bytes, bytes], ...]
    """Those of RECORDED that it had."""
    body: bytes

    @property
    def rpc_id(self) -> bytes:
        """Its JSON-RPC id as raw JSON."""
        message = read(self.body)
        return message.id if isinstance(message, Message) else b""


class Binding(NamedTuple):
    """Where a session lives since it was initialised anew."""

    pin: Pin
    upstream_id: bytes
    """The Mcp-Session-Id that the instance knows; empty: send none."""


class Recorded(NamedTuple):
    """What is known of a session."""

    recording: Recording
    binding: Binding | None
    bound: bytes
    """The binding as it is stored, to be compared by."""


def record(values: Mapping[bytes, bytes], body: bytes | None) -> Recording | None:
    """The recording of a request with these header fields (lower-case names) and this body; None where it has none."""
    fields = tuple((name, values[name]) for name in RECORDED if values.get(name))
    if body is None or not _is_initialize(body) or any(len(value) > MAX_VALUE_BYTES for _, value in fields):
        return None
    return Recording(fields, body)


def is_session_id(value: bytes) -> bool:
    """Whether an instance may name a session so (MCP 2025-11-25, transports: visible ASCII)."""
    return _SESSION_ID.fullmatch(value) is not None


def encode(recording: Recording) -> bytes:
    lines = (_FIRST, *(b"%b: %b" % pair for pair in recording.fields), b"", recording.body)
    return b"\n".join(lines)


def decode(raw: bytes) -> Recording | None:
    """What `encode` wrote; None for anything else."""
    if len(raw) > MAX_RECORDING_BYTES:
        return None
    head, _, body = raw.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    found = [_FIELD.fullmatch(line) for line in lines]
    fields = tuple((one[1], one[2]) for one in found if one is not None)
    if first != _FIRST or len(fields) < len(lines):
        return None
    recording = record(dict(fields), body)
    # Twice the same field, another order, or one that is not recorded.
    return recording if recording is not None and recording.fields == fields else None


def encode_binding(binding: Binding) -> bytes:
    pin = binding.pin
    fields = {"instance": pin.name, "incarnation": pin.incarnation, "id": binding.upstream_id.decode("ascii")}
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_binding(raw: bytes) -> Binding | None:
    """What `encode_binding` wrote; None for anything else, as if there were none."""
    fields = load(raw) if len(raw) <= MAX_BINDING_BYTES else None
    if not isinstance(fields, dict):
        return None
    name, incarnation, upstream_id = fields.get("instance"), fields.get("incarnation"), fields.get("id")
    if not isinstance(name, str) or not isinstance(incarnation, str) or not isinstance(upstream_id, str):
        return None
    if not _PIN_NAME.fullmatch(name) or not _INCARNATION.fullmatch(incarnation):
        return None
    own = upstream_id.encode("utf-8", "surrogatepass")
    return Binding(Pin.named(name, incarnation), own) if is_session_id(own) else None


def _is_initialize(body: bytes) -> bool:
    """Whether a body is one `initialize` request, and short enough."""
    message = read(body) if len(body) <= MAX_BODY_BYTES else None
    return isinstance(message, Message) and message.method == "initialize" and bool(message.id)
