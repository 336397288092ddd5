"""The heads of one answer: 1xx ones go on to the client as they come, the final one is what is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.head import ResponseHead
from gateway.core.headers import response_head
from gateway.core.problems import Code, Problem

if TYPE_CHECKING:
    from gateway.data.exchange import Exchange

MAX_HEAD_BYTES = 65536
MAX_INFORMATIONAL = 16
"""1xx answers before the final one; more is a flood."""


class Heading:
    """Reads up to the end of the final head, or of a 101."""

    __slots__ = ("_buffer", "_informational")

    def __init__(self) -> None:
        self._buffer = b""
        self._informational = 0

    @property
    def begun(self) -> bool:
        """Whether anything of an answer came."""
        return bool(self._buffer or self._informational)

    def feed(self, exchange: Exchange, data: bytes) -> tuple[ResponseHead, bytes] | Problem | None:
        """The next bytes; the final head and what came behind it, once it is whole."""
        buffer = self._buffer + data if self._buffer else data
        while True:
            end = buffer.find(b"\r\n\r\n") + 4
            if end < 4 or end > MAX_HEAD_BYTES:
                self._buffer = buffer
                if len(buffer) > MAX_HEAD_BYTES:
                    return Problem(Code.PH02, f"a head of more than {MAX_HEAD_BYTES} bytes")
                return None
            head = exchange.gateway.heads.response(buffer[:end])
            rest = buffer[end:]
            if isinstance(head, Problem):
                return head
            if head.status >= 200 or head.status == 101:
                self._buffer = b""
                return head, rest
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                return Problem(Code.PH01, "a flood of 1xx answers")
            _pass_on(exchange, head)
            buffer = rest
            if not buffer:
                self._buffer = b""
                return None


def informal(exchange: Exchange, head: ResponseHead, extra: bytes = b"") -> bytes:
    """A 1xx head for the client."""
    request_id = exchange.request_id
    return response_head(head, length=None, session_id=None, request_id=request_id, close=False, extra=extra)


def _pass_on(exchange: Exchange, head: ResponseHead) -> None:
    # RFC 9110 15.2: a client of HTTP/1.0 knows no 1xx; a 100 is for who asked. Behind a final head none may follow.
    if not exchange.head.minor or exchange.early or (head.status == 100 and not exchange.awaits_continue):
        return
    exchange.edge.transport.write(informal(exchange, head))
    if head.status == 100:
        exchange.continued = True
        exchange.edge.await_body()
