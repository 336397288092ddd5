"""After a 101: two connections joined, bytes to bytes, until either side ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Splice(asyncio.Protocol):
    """One end of a tunnel; its partner is the other."""

    __slots__ = ("_ended", "_over", "partner", "transport")

    def __init__(self, transport: asyncio.Transport, over: Callable[[], None]) -> None:
        self.transport = transport
        self.partner: Splice
        self._over = over
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Never called: the connection was made before the tunnel."""

    def data_received(self, data: bytes) -> None:
        self.partner.transport.write(data)

    def eof_received(self) -> bool:
        # A half-closed tunnel goes on in the other direction (RFC 9110 7.8 leaves it to the new protocol).
        if self.partner.transport.can_write_eof() and not self.partner.transport.is_closing():
            self.partner.transport.write_eof()
        self._ended = True
        return not self.partner._ended

    def pause_writing(self) -> None:
        if not self.partner.transport.is_closing():
            self.partner.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.partner.transport.is_closing():
            self.partner.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.partner.transport.is_closing():
            if exc is None:
                self.partner.transport.close()
            else:
                self.partner.transport.abort()
        self._over()


def join(client: asyncio.Transport, instance: asyncio.Transport, over: Callable[[], None]) -> None:
    """Join two transports; `over` is called once for each end that closes."""
    one, other = Splice(client, over), Splice(instance, over)
    one.partner, other.partner = other, one
    client.set_protocol(one)
    instance.set_protocol(other)
    client.resume_reading()
    instance.resume_reading()
