"""Where bytes of the gateway's own may go into an event stream, and how one that breaks is ended. Values only."""

from __future__ import annotations

from gateway.core.framing import Body, ChunkedBody
from gateway.core.head import CHUNKED
from gateway.core.problems import Problem
from gateway.core.sse import EventTail, error_event

LAST_CHUNK = b"0\r\n\r\n"
COMMENT = b": keepalive\n\n"
COMMENT_CHUNK = b"%x\r\n%b\r\n" % (len(COMMENT), COMMENT)
_EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")


def between_events(body: Body | None, encode: int, last: bytes) -> bool:
    """Whether a stream stands between two events, and between two chunks.

    Args:
        encode: 0 when the body goes on as it came; else the framing that the relay gives it.
        last: the last bytes that were written of it: payload when encoded, raw otherwise; empty for none yet.
    """
    if encode:
        return not last or last.endswith(_EVENT_ENDS)
    if not isinstance(body, ChunkedBody) or not body.at_boundary:
        return False
    # A chunk may be one line end alone: the one before it is then its size line's, and no blank line.
    return not last or any(last.endswith(end + b"\r\n") and body.chunk_bytes >= len(end) for end in _EVENT_ENDS)


def error_ending(body: Body | None, encode: int, tail: EventTail, problem: Problem, request_id: str) -> bytes | None:
    """What ends a POST's event stream when its instance broke off: a JSON-RPC error, so that its caller does not wait
    for its own timeout. None when the answer had already passed, or when the framing does not let an event in."""
    if tail.answered:
        return None
    filler: bytes | None = b""
    if not encode:
        if not isinstance(body, ChunkedBody):
            return None
        encode, filler = CHUNKED, body.filler()
    if filler is None:
        return None
    event = error_event(tail.rpc_id, problem, request_id, bool(filler) or tail.mid_event)
    return filler + (b"%x\r\n%b\r\n%b" % (len(event), event, LAST_CHUNK) if encode == CHUNKED else event)
