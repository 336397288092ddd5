"""The rest of an answer that is a replay: dropped, or gathered where it is the replay itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.framing import FramingFault, body
from gateway.core.head import UNTIL_CLOSE, ResponseHead
from gateway.core.problems import Code, Problem
from gateway.core.replay_json import MAX_JSON_BYTES

if TYPE_CHECKING:
    from gateway.data.edge import Edge
    from gateway.data.state import Gateway
    from gateway.data.upstream import Upstream

MAX_DROPPED_BYTES = 65536
"""A longer rest is not read: its connection is closed instead."""


class Issuer:
    """Hears an issuer's connection after the head of its answer, in place of the relay."""

    __slots__ = ("_body", "_edge", "_gateway", "_left", "_payload", "_reusable", "_tell", "upstream")

    def __init__(
        self,
        gateway: Gateway,
        upstream: Upstream,
        head: ResponseHead,
        method: bytes,
        *,
        reusable: bool,
        edge: Edge | None = None,
        tell: Callable[[bytes | Problem], None] | None = None,
    ) -> None:
        """
        Args:
            method: the request's.
            reusable: the connection may carry another request once this answer has ended.
            edge: the client whose request is still being sent, if it is.
            tell: is given the body, once; None: it is dropped.
        """
        self.upstream = upstream
        self._gateway = gateway
        length = head.body_length(method)
        self._body = body(length)
        self._reusable = reusable and head.keep_alive and length != UNTIL_CLOSE
        self._edge = edge
        self._tell = tell
        self._left = MAX_DROPPED_BYTES if tell is None else MAX_JSON_BYTES
        self._payload: list[bytes] | None = None if tell is None else []

    # --- Answering -----------------------------------------------------------------

    def data(self, data: bytes) -> None:
        """What follows the head; called with nothing for an answer that may have no body."""
        sink: list[bytes] | None = [] if self._payload is not None else None
        try:
            taken = self._body.feed(data, sink)
        except FramingFault as fault:
            self._end(clean=False, problem=Problem(Code.PH01, f"the replay's body is malformed: {fault}"))
            return
        self._left -= taken
        if self._payload is not None and sink:
            self._payload += sink
        if self._body.done:
            self._end(clean=taken == len(data))
        elif self._left < 0:
            limit = f"the replay's body is longer than {MAX_JSON_BYTES} bytes"
            self._end(clean=False, problem=Problem(Code.PA03, limit))

    def lost(self, broken: bool) -> None:
        problem = None
        if broken or not self._body.end():
            problem = Problem(Code.PU05, "the instance closed the connection in the middle of its replay")
        self._end(clean=False, problem=problem)

    def drained(self, writable: bool) -> None:
        if self._edge is not None and writable:
            self._edge.resume_reading()
        elif self._edge is not None:
            self._edge.pause_reading()

    def _end(self, *, clean: bool, problem: Problem | None = None) -> None:
        if clean and self._reusable:
            self._gateway.pool.give(self.upstream, self._gateway.now_s)
        else:
            self.upstream.close()
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(problem or b"".join(self._payload or ()))
