"""Server-sent events, incrementally: reading them, ending a stream that broke, knowing where one stands.

Follows WHATWG HTML 9.2.6: lines end in CR, LF or CRLF, in any mix and cut anywhere; one byte order mark may lead.
Streams that pass through are never re-serialised: only `error_event` writes, and it writes ASCII without line
breaks inside a field. The rewriting of 2024-11-05 `endpoint` events is in `gateway.core.endpoint`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.core.jsonrpc import load, raw_id
from gateway.core.problems import Problem, jsonrpc_body

BOM = b"\xef\xbb\xbf"
EOL = re.compile(rb"\r\n|\r|\n")
MAX_EVENT_BYTES = 1 << 20
"""Longer events are skipped. The Python SDK's client breaks off at the same size."""
TAIL_BYTES = 4096
"""How much of a stream's last event is kept from its beginning, and as much from its end."""

_BLANK_ENDS = (b"\n\n", b"\r\r", b"\n\r", b"\n\r\n", b"\r\r\n")
"""How a stream ends when its last line is blank."""


class Event(NamedTuple):
    """A dispatched event; `data` has its lines joined by LF."""

    type: bytes
    data: bytes
    id: bytes
    """The stream's last event id so far."""


def field(line: bytes) -> tuple[bytes, bytes]:
    """A line's field name and value; the name of a comment is empty."""
    name, _, value = line.partition(b":")
    return name, value[1:] if value.startswith(b" ") else value


class SseReader:
    """Bytes in, events out; the same events however the bytes are cut.

    An event of more than `max_event_bytes` is skipped as a whole and counted in `skipped`.
    """

    __slots__ = ("_after_cr", "_data", "_first", "_id", "_max", "_partial", "_size", "_skipping", "_type", "skipped")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._partial: list[bytes] = []
        self._size = 0
        """Bytes of the current event, without line ends."""
        self._after_cr = False
        self._first = True
        self._skipping = False
        self._type = b""
        self._data: list[bytes] = []
        self._id = b""
        self.skipped = 0

    @property
    def last_id(self) -> bytes:
        """The stream's last event id so far (WHATWG HTML 9.2.6)."""
        return self._id

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete."""
        events: list[Event] = []
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        lines = EOL.split(chunk)
        rest = lines.pop()
        for piece in lines:
            self._grow(piece)
            line = b"".join(self._partial)
            self._partial.clear()
            if self._first:
                self._first = False
                line = line.removeprefix(BOM)
            if line:
                self._take(line)
            else:
                self._dispatch(events)
        if rest:
            self._grow(rest)
        # Kept when the chunk was empty: an LF may still follow.
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        return events

    def _grow(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max:
            # Enough is kept to see that the line is not blank.
            self._skipping = True
            piece = piece[:1]
            self._data.clear()
            del self._partial[1:]
        self._partial.append(piece)

    def _take(self, line: bytes) -> None:
        if self._skipping:
            return
        name, value = field(line)
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value
        elif name == b"id" and b"\0" not in value:
            self._id = value

    def _dispatch(self, events: list[Event]) -> None:
        if self._skipping:
            self.skipped += 1
        elif self._data:
            events.append(Event(self._type or b"message", b"\n".join(self._data), self._id))
        self._skipping = False
        self._size = 0
        self._type = b""
        self._data.clear()


def error_event(rpc_id: bytes, problem: Problem, request_id: str, mid_event: bool) -> bytes:
    """The bytes that end a broken stream: the JSON-RPC error answer to the request that it belongs to.

    `mid_event`: the stream stopped inside an event. That fragment is then given a type that no client acts on
    (of several `event` fields the last counts) and ended.
    """
    # The colon: at the start of a line it makes a comment, where a line end alone would complete the event.
    neutralised = b":\nevent: discarded\n\n" if mid_event else b""
    return b"%bevent: message\ndata: %b\n\n" % (neutralised, jsonrpc_body(problem, rpc_id, request_id))


class EventTail:
    """Where a POST's event stream stands: told of every chunk, asked only when the stream breaks.

    Keeps the last chunk, and of an event that spans chunks no more than its two ends.
    """

    __slots__ = ("_begun", "_recent", "rpc_id")

    def __init__(self, rpc_id: bytes) -> None:
        self.rpc_id = rpc_id
        """Raw JSON, as in `gateway.core.jsonrpc.Message`."""
        self._recent = b""
        """Bytes up to the last known end of an event."""
        self._begun = b""
        """Bytes after it."""

    def note(self, chunk: bytes) -> None:
        """The next bytes of the stream."""
        if not self._begun and len(chunk) <= 2 * TAIL_BYTES and chunk.endswith(_BLANK_ENDS):
            self._recent = chunk
        else:
            self._join(chunk)

    @property
    def mid_event(self) -> bool:
        """Whether the stream stopped inside an event."""
        return bool(self._begun)

    @property
    def answered(self) -> bool:
        """Whether the last complete event is the answer to `rpc_id`.

        An answer too long to be kept is told by its two ends; in doubt False: a second answer harms no client,
        none at all leaves it waiting for its timeout.
        """
        events = SseReader().feed(self._recent + b"\n\n")
        data = events[-1].data if events else b""
        loaded = load(data)
        for message in loaded if isinstance(loaded, list) else [loaded]:
            if isinstance(message, dict) and "method" not in message and raw_id(message.get("id")) == self.rpc_id:
                return True
        return loaded is None and _looks_answered(data, re.escape(self.rpc_id))

    def _join(self, chunk: bytes) -> None:
        """The case that is not whole events in one short chunk."""
        joined = self._begun + chunk if self._begun else chunk.lstrip(b"\r\n")
        end = _after_blank_line(joined)
        if end:
            complete = joined[:end].rstrip(b"\r\n")
            self._recent = _two_ends(complete[_after_blank_line(complete) :].lstrip(b"\r\n"))
            joined = joined[end:].lstrip(b"\r\n")
        self._begun = _two_ends(joined)


def _after_blank_line(stream: bytes) -> int:
    """Where the last blank line ends (its own line end may be cut after CR); 0 when there is none."""
    at = stream.rfind(b"\n\n")
    if b"\r" in stream:
        at = max(at, stream.rfind(b"\r\r"), stream.rfind(b"\n\r"))
    return at + 2 if at >= 0 else 0


def _two_ends(event: bytes) -> bytes:
    if len(event) <= 2 * TAIL_BYTES:
        return event
    # The dots keep line ends at the cut from meeting.
    return event[:TAIL_BYTES] + b"..." + event[-TAIL_BYTES:]


def _looks_answered(data: bytes, rpc_id: bytes) -> bool:
    """Whether a message without its middle is the answer to `rpc_id` (escaped for re), as SDKs order its members."""
    version = rb'(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?'
    if re.match(rb'\s*\{\s*%b"id"\s*:\s*%b\s*,\s*%b"(?:result|error)"' % (version, rpc_id, version), data):
        return True
    if not re.match(rb'\s*\{\s*%b"(?:result|error)"' % version, data):
        return False
    tail = data[-TAIL_BYTES:]
    return re.search(rb'"id"\s*:\s*%b\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$' % rpc_id, tail) is not None
