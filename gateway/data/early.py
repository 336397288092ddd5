"""Answers that begin before there is one: a held request that accepts event streams gets a head and comments, so that
no proxy or client on the way gives up; the instance's answer follows as events.

Never for `initialize`, whose answer's head must carry the session's id, and only where an event can say everything: to
a GET for an event stream, or to a JSON-RPC request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.head import RequestHead, ResponseHead
from gateway.core.model import Intent, Kind
from gateway.core.problems import Code, Problem
from gateway.core.sse import error_event
from gateway.data.endings import COMMENT_CHUNK, LAST_CHUNK

if TYPE_CHECKING:
    from gateway.data.exchange import Exchange

_EVENTS = b"text/event-stream"
_MCP = frozenset({Kind.IN_SESSION, Kind.TASK, Kind.STATE, Kind.PRINCIPAL, Kind.ANYWHERE, Kind.PLAIN})


def keep_waiting(exchange: Exchange) -> None:
    """The request is held for long: tell its client, if it can be told."""
    if exchange.over or exchange.status or exchange.attempts.upstream is not None:
        return
    if exchange.early:
        exchange.edge.transport.write(COMMENT_CHUNK)
    elif may_begin(exchange.head, exchange.routing.intent, exchange.rpc_id()):
        exchange.early = True
        exchange.edge.transport.write(begin(exchange.request_id))


def may_begin(head: RequestHead, intent: Intent | None, rpc_id: bytes) -> bool:
    """Whether this held request can be answered by events."""
    if intent is None or not head.minor or head.upgrade or _EVENTS not in head.values.get(b"accept", b"").lower():
        return False
    return head.method == b"GET" or (head.method == b"POST" and bool(rpc_id) and intent.kind in _MCP)


def begin(request_id: bytes) -> bytes:
    """The head of such an answer, and its first comment."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n"
        b"X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\nVia: 1.1 moorage\r\nFly-Request-Id: %b\r\n\r\n%b"
    ) % (request_id, COMMENT_CHUNK)


def error_end(problem: Problem, rpc_id: bytes, request_id: bytes) -> bytes:
    """The end of an answer that began early and comes to nothing."""
    event = error_event(rpc_id, problem, request_id.decode(), mid_event=False)
    return b"%x\r\n%b\r\n%b" % (len(event), event, LAST_CHUNK)


class AsEvent:
    """A JSON answer on its way into one event; anything else becomes an error. Has the shape of `EndpointRewriter`."""

    __slots__ = ("_begun", "_instead", "done")

    def __init__(self, instead: bytes) -> None:
        """`instead`: the event that is told in place of the answer; empty: the answer is JSON, and told itself."""
        self.done = False
        self._begun = False
        self._instead = instead

    def feed(self, chunk: bytes) -> bytes:
        if self._instead or not chunk:
            return b""
        # A line end within JSON is a blank (RFC 8259 2), and must not end the event's data.
        data = chunk.replace(b"\r", b" ").replace(b"\n", b" ")
        begun, self._begun = self._begun, True
        return data if begun else b"event: message\ndata: " + data

    def end(self) -> bytes:
        self.done = True
        if self._instead or not self._begun:
            return self._instead
        return b"\n\n"


def as_events(exchange: Exchange, head: ResponseHead) -> AsEvent | None:
    """What makes events of an instance's answer; None for an event stream, which is passed on."""
    rpc_id, kind = exchange.rpc_id(), head.values.get(b"content-type", b"")
    if head.status == 200 and kind[:17].lower() == _EVENTS:
        return None
    if rpc_id and kind[:16].lower() == b"application/json":
        # An error that speaks JSON-RPC says more than anything that could be said of its status.
        return AsEvent(b"")
    if not rpc_id:
        return AsEvent(b": the instance has no stream\n\n")
    untold = exchange.problem(Code.PH06, f"the instance answered {head.status} to a request that was held")
    return AsEvent(error_event(rpc_id, untold, exchange.request_id.decode(), mid_event=False))
