"""Connections to instances, and the pool that keeps the idle ones.

A connection carries one exchange at a time. It goes back to the pool only when the answer was complete, framed
without doubt and followed by nothing; in every other case it is closed, so that no byte of one answer can ever
reach another request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from gateway.core.model import Address
from gateway.core.problems import Code

if TYPE_CHECKING:
    from collections.abc import Coroutine

DROP_S = 2.0
"""How long the rest of an answer that nobody wants may take before its connection is closed."""
IDLE_S = 4.0
"""How long an idle connection is kept: Fly's figure, and under the 5 s of uvicorn and Node, so that an instance
seldom closes a connection in the moment it is used again."""
WRITE_HIGH_BYTES = 65536
"""Bytes that may wait for a slow instance before the client is paused."""


class Answering(Protocol):
    """Who hears what an instance says: one attempt at one exchange."""

    def data(self, data: bytes) -> None:
        """Bytes of the answer."""

    def lost(self, broken: bool) -> None:
        """The connection ended; `broken` when it did not end in order."""

    def drained(self, writable: bool) -> None:
        """The instance takes bytes again (True), or takes no more for now (False)."""


class Dialling(Protocol):
    """Who asked for a connection."""

    def connected(self, upstream: Upstream) -> None: ...

    def connect_failed(self, code: Code, reason: str) -> None: ...


class Upstream(asyncio.Protocol):
    """One connection to an instance."""

    __slots__ = ("_pool", "address", "expires_at_s", "listener", "reused", "transport")

    def __init__(self, pool: Pool, address: Address) -> None:
        self._pool = pool
        self.address = address
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.listener: Answering | None = None
        self.reused = False
        self.expires_at_s = 0.0

    def __repr__(self) -> str:
        state = "BUSY" if self.listener else "CLOSED" if self.expires_at_s < 0 else "IDLE"
        return f"<Upstream {self.address} {state}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        listener = self.listener
        if listener is not None:
            listener.data(data)
        else:
            # An instance that speaks unasked cannot be trusted with the next request.
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        listener, self.listener = self.listener, None
        self._pool.forget(self)
        if listener is not None:
            listener.lost(exc is not None)

    def pause_writing(self) -> None:
        if self.listener is not None:
            self.listener.drained(False)

    def resume_writing(self) -> None:
        if self.listener is not None:
            self.listener.drained(True)

    def close(self) -> None:
        """End it now. The listener hears nothing more."""
        self.listener = None
        self._pool.forget(self)
        self.transport.abort()


class Pool:
    """Idle connections by address, and dialling."""

    def __init__(self, spawn: Callable[[Coroutine[object, object, None]], object], connect_timeout_s: float) -> None:
        self._spawn = spawn
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Address, list[Upstream]] = {}
        self._dropping: list[tuple[Upstream, Answering, float]] = []
        self.open = 0
        """Connections that exist, idle ones included."""
        self.dialled = 0
        self.reused = 0

    def take(self, address: Address) -> Upstream | None:
        """An idle connection, the one used last, or None."""
        idle = self._idle.get(address)
        while idle:
            upstream = idle.pop()
            if not upstream.transport.is_closing():
                upstream.reused = True
                self.reused += 1
                return upstream
        return None

    def dial(self, address: Address, asker: Dialling) -> None:
        """Open a connection; `asker` hears the outcome later, exactly once."""
        self._spawn(self._dial(address, asker))

    async def _dial(self, address: Address, asker: Dialling) -> None:
        loop = asyncio.get_running_loop()
        upstream = Upstream(self, address)
        self.dialled += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await loop.create_connection(lambda: upstream, address.host, address.port)
        except TimeoutError:
            asker.connect_failed(
                Code.PC05, f"{address} did not accept a connection within {self._connect_timeout_s:g} s"
            )
        except ConnectionRefusedError:
            asker.connect_failed(Code.PC01, f"{address} refused the connection")
        except OSError as error:
            asker.connect_failed(Code.PU03, f"{address} cannot be reached: {error.strerror or error}")
        else:
            self.open += 1
            asker.connected(upstream)

    def give(self, upstream: Upstream, now_s: float) -> None:
        """Take back a connection whose exchange is complete."""
        upstream.listener = None
        if upstream.transport.is_closing():
            return
        # It may have been paused for a slow client; paused in the pool it would hang its next exchange.
        upstream.transport.resume_reading()
        upstream.expires_at_s = now_s + IDLE_S
        self._idle.setdefault(upstream.address, []).append(upstream)

    def drop(self, upstream: Upstream, rest: Answering, now_s: float) -> None:
        """Let `rest` hear the end of an answer that nobody wants; what takes too long is closed."""
        upstream.listener = rest
        upstream.transport.resume_reading()
        self._dropping.append((upstream, rest, now_s + DROP_S))

    def forget(self, upstream: Upstream) -> None:
        """A connection is closed, or about to be."""
        if upstream.expires_at_s != -1.0:
            upstream.expires_at_s = -1.0
            self.open -= 1
            idle = self._idle.get(upstream.address)
            if idle is not None and upstream in idle:
                idle.remove(upstream)

    def sweep(self, now_s: float) -> None:
        """Close what was idle, or took its time to end, for too long."""
        still = []
        for upstream, rest, until_s in self._dropping:
            if upstream.listener is rest and until_s <= now_s:
                upstream.close()
            elif upstream.listener is rest:
                still.append((upstream, rest, until_s))
        self._dropping = still
        for address, idle in list(self._idle.items()):
            for upstream in [one for one in idle if one.expires_at_s <= now_s]:
                upstream.close()
            if not idle:
                del self._idle[address]

    def close(self) -> None:
        """Close all idle connections."""
        self.sweep(float("inf"))

    def idle_count(self) -> int:
        return sum(map(len, self._idle.values()))
