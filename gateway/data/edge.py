"""The client's side: a uvicorn protocol class that cuts the byte stream into exchanges.

One exchange at a time per connection; what a client sends ahead (pipelining) waits in a bounded buffer. All
deadlines are looked at once a second by the gateway's sweep, so that no request pays for a timer.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any, cast

from gateway.core.headers import Peer, peer
from gateway.core.problems import Code, Problem
from gateway.data.exchange import Exchange
from gateway.data.responses import bare_response

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from gateway.data.state import Gateway

WRITE_HIGH_BYTES = 65536
"""Bytes that may wait for a slow client before its instance is paused."""
AHEAD_BYTES = 65536
"""Bytes a client may send ahead of its turn before it is paused."""
LINGER_S = 2.0
"""How long a refused body is still read, so that the answer is not lost to a reset (RFC 9112 9.6)."""
FOREVER_S = float("inf")
BLANK_LINES = re.compile(rb"(?:\r\n)++")
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 s: closing resets."""


class Edge(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_connections",
        "_deadline_problem",
        "_deadline_s",
        "_lingering",
        "_read_paused",
        "buffer",
        "exchange",
        "gateway",
        "peer",
        "private",
        "transport",
        "write_paused_s",
    )

    def __init__(self, gateway: Gateway, connections: set[Any], *, private: bool = False) -> None:
        self.gateway = gateway
        self.private = private
        """It came in on the private listener, which knows apps by name."""
        self._connections = connections
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.peer: Peer = cast("Peer", None)
        self.exchange: Exchange | None = None
        self.buffer = b""
        """Bytes that belong to no exchange yet."""
        self.write_paused_s = 0.0
        """Since when the client takes no bytes; 0 when it does."""
        self._read_paused = False
        self._lingering = False
        self._deadline_s = 0.0
        self._deadline_problem: Problem | None = None

    def __repr__(self) -> str:
        state = "LINGERING" if self._lingering else "BUSY" if self.exchange else "IDLE"
        return f"<Edge {state}>"

    # --- asyncio.Protocol ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gateway = self.gateway
        self.transport = cast("asyncio.Transport", transport)
        gateway.counters.connections += 1
        if len(gateway.edges) >= gateway.limits.connections:
            gateway.counters.connections_refused += 1
            problem = Problem(Code.PL01, f"more than {gateway.limits.connections} connections", retry_after_s=1)
            self.transport.write(bare_response(problem, gateway.request_id()))
            self.transport.close()
            return
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        name = transport.get_extra_info("peername") or ("", 0)
        local = transport.get_extra_info("sockname") or ("", 0)
        self.peer = peer(str(name[0]), int(local[1]), gateway.region, gateway.trusted_proxies)
        gateway.edges.add(self)
        self._connections.add(self)
        self.expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.left()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def eof_received(self) -> bool:
        # A client that closes its side has left: for an event stream nothing else would tell (MCP 2026-07-28:
        # the disconnect is the cancellation).
        return False

    def pause_writing(self) -> None:
        self.write_paused_s = self.gateway.now_s or 0.001
        if self.exchange is not None:
            self.exchange.client_slow(True)

    def resume_writing(self) -> None:
        self.write_paused_s = 0.0
        if self.exchange is not None:
            self.exchange.client_slow(False)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self._lingering:
                return
            self._take(self.buffer + data if self.buffer else data)
            return
        if not exchange.body.done:
            taken = exchange.feed(data)
            if taken == len(data):
                return
            data = data[taken:]
        self.buffer += data
        if len(self.buffer) > AHEAD_BYTES:
            self.pause_reading()

    # --- cutting -------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Start the exchange that `data` begins, or wait for the rest of its head."""
        if data.startswith(b"\r\n"):
            # RFC 9112 2.2: empty lines before the request line are to be ignored.
            data = BLANK_LINES.sub(b"", data, count=1)
        end = data.find(b"\r\n\r\n")
        limit = self.gateway.limits.header_bytes
        if end < 0 or end > limit:
            if len(data) > limit:
                self.refuse(Problem(Code.PB03, f"the head is longer than {limit} bytes"))
            elif b"\n" in data and data.count(b"\n") != data.count(b"\r\n"):
                self.refuse(Problem(Code.PB01, "a line of the head ends in a bare LF"))
            else:
                if not self.buffer and data:
                    self._await_head()
                self.buffer = data
            return
        self.buffer = b""
        end += 4
        head = self.gateway.heads.request(data if end == len(data) else data[:end])
        if isinstance(head, Problem):
            self.refuse(head)
            return
        exchange = self.exchange = Exchange(self, head)
        if exchange.body.done or head.expects_continue:
            self.no_deadline()
        else:
            self.await_body()
        if end < len(data):
            if exchange.body.done:
                self.buffer = data[end:]
            else:
                rest = data[end:]
                self.buffer = rest[exchange.feed(rest) :]
            if len(self.buffer) > AHEAD_BYTES:
                self.pause_reading()
        exchange.begin()

    def expect_head(self) -> None:
        """The connection is idle: it may stay so for the keep-alive time."""
        self._deadline_s = self.gateway.now_s + self.gateway.limits.keep_alive_s
        self._deadline_problem = None

    def _await_head(self) -> None:
        timeout_s = self.gateway.limits.head_timeout_s
        self._deadline_s = self.gateway.now_s + timeout_s
        self._deadline_problem = Problem(Code.PB11, f"the head did not arrive within {timeout_s:g} s")

    def await_body(self) -> None:
        """The exchange cannot go on without more of the request's body."""
        timeout_s = self.gateway.limits.body_timeout_s
        self._deadline_s = self.gateway.now_s + timeout_s
        self._deadline_problem = Problem(Code.PB11, f"the body made no progress for {timeout_s:g} s")

    def no_deadline(self) -> None:
        self._deadline_s = FOREVER_S

    # --- for the exchange ------------------------------------------------------------

    def pause_reading(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused and len(self.buffer) <= AHEAD_BYTES and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()
            if self.exchange is not None and not self.exchange.body.done:
                self.await_body()

    def finished(self, keep_alive: bool, body_done: bool) -> None:
        """The exchange is over and its answer written."""
        self.exchange = None
        if self.transport.is_closing():
            return
        if not body_done:
            self._linger()
        elif not keep_alive or self.gateway.draining:
            self._close()
        else:
            self.expect_head()
            if self.buffer:
                asyncio.get_running_loop().call_soon(self._next)
            self.resume_reading()

    def _close(self) -> None:
        """End the connection once the client took what was written; it gets the time for writing."""
        self._deadline_s = self.gateway.now_s + self.gateway.limits.write_timeout_s
        self._deadline_problem = None
        self.transport.close()

    def _next(self) -> None:
        data, self.buffer = self.buffer, b""
        if self.exchange is None and data and not self.transport.is_closing():
            self._take(data)
        elif data:
            self.buffer = data + self.buffer
        self.resume_reading()

    def leave(self) -> bytes:
        """The connection stops being HTTP, until `left`; the bytes that came ahead."""
        self.exchange = None
        self.write_paused_s = 0.0
        data, self.buffer = self.buffer, b""
        return data

    def left(self) -> None:
        """The connection that stopped being HTTP has ended."""
        self.gateway.edges.discard(self)
        self._connections.discard(self)

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of an answer, so that nobody can take it for a complete one.

        `reset`: the answer's framing does not tell where it ends (HTTP/1.0), so that only a reset can. Otherwise what
        was written still goes out.
        """
        self.exchange = None
        if reset:
            self.reset()
        else:
            self._close()

    def reset(self) -> None:
        """End it now, in disorder: an orderly end makes an answer without a length complete (RFC 9112 8)."""
        self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, RESET)
        self.transport.abort()

    def refuse(self, problem: Problem) -> None:
        """Answer what is not a request, and end the connection."""
        gateway = self.gateway
        gateway.counters.problems["", problem.code] += 1
        gateway.counters.outcomes["", "refused"] += 1
        self.buffer = b""
        self.transport.write(bare_response(problem, gateway.request_id()))
        self._linger()

    def _linger(self) -> None:
        self._lingering = True
        self.buffer = b""
        self._read_paused = False
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline_s = self.gateway.now_s + LINGER_S
        self._deadline_problem = None

    # --- for the gateway -------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Once a second: end what is late."""
        if self.write_paused_s and now_s - self.write_paused_s > self.gateway.limits.write_timeout_s:
            self.reset()
        elif now_s > self._deadline_s:
            problem = self._deadline_problem
            if self._lingering or self.transport.is_closing():
                self.reset()
            elif problem is None:
                self._close()
            elif self._read_paused:
                # It is not the client that holds the body up.
                self.await_body()
            elif self.exchange is not None:
                self.exchange.refuse(problem)
            else:
                self.refuse(problem)

    def shutdown(self) -> None:
        """uvicorn: the server stops. An idle connection is closed, a busy one after its answer."""
        if self.exchange is None:
            self.transport.close()


def protocol_class(gateway: Gateway, *, private: bool = False) -> Callable[..., Edge]:
    """What uvicorn's `Config(http=...)` takes: makes the Edge of each connection of one listener."""

    def make(
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Edge:
        return Edge(gateway, server_state.connections, private=private)

    return make
