"""The client side of one HTTP/1.1 keep-alive connection with one MCP session; answers are parsed by httptools.

What is sent when, and what is counted, is decided by the loads: posts.py and streams.py.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

from httptools import HttpResponseParser

INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize",'
    b'"params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"benchmark","version":"1"}}}'
)
_SESSION = b"mcp-session-id: %b\r\nmcp-protocol-version: 2025-11-25\r\n"
_POST = (
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\n%bcontent-type: application/json\r\n"
    b"accept: application/json, text/event-stream\r\ncontent-length: %d\r\n\r\n%b"
)
_GET = b"GET /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\n%baccept: text/event-stream\r\n\r\n"


class ExchangeFailed(Exception):
    """A proxy closed a connection in use, or refused what every benchmark needs."""


class Client(asyncio.Protocol):
    """One connection, one session, one request at a time."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self.session = b""
        self.status = 0
        self.body = b""
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None

    def send(self, request: bytes) -> None:
        self._transport.write(request)

    def post(self, body: bytes) -> bytes:
        """The bytes of one POST of this session."""
        return _POST % (self._session_headers(), len(body), body)

    def listen(self) -> bytes:
        """The bytes of the GET that opens this session's event stream."""
        return _GET % self._session_headers()

    async def initialize(self) -> None:
        """Open the session. Raises ExchangeFailed if the answer is not a 200 with an id."""
        self._waiter = asyncio.get_running_loop().create_future()
        self.send(self.post(INITIALIZE))
        await self._waiter
        if self.status != 200 or not self.session:
            raise ExchangeFailed(f"initialize was answered {self.status} {self.body[:200]!r}")

    def answered(self) -> None:
        """Hook: a whole response that `initialize` did not wait for is in `status` and `body`."""

    def _session_headers(self) -> bytes:
        return _SESSION % self.session if self.session else b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ExchangeFailed("the connection was closed during initialize"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.session and name.lower() == b"mcp-session-id":
            self.session = value.strip()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self._waiter is None:
            self.answered()
        else:
            self._waiter.set_result(None)
            self._waiter = None


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed (nearest rank); 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
