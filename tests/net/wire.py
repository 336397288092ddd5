"""One end of a TCP connection that speaks exact bytes: a raw client, or a raw instance. Its own small HTTP reader,
strict and independent of the gateway's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import cast

LIMIT_S = 5.0
"""For what must happen. Nothing waits this long when it works."""
BUFFER_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer, as it came."""

    first: bytes
    """The request line or the status line."""
    lines: list[bytes]
    body: bytes
    """The payload, without chunk framing."""
    raw: bytes
    """The body as it came."""
    trailers: list[bytes]
    framing: str
    """length, chunked, close or none."""

    @property
    def status(self) -> int:
        return int(self.first.split(b" ")[1])

    def all(self, name: str) -> list[str]:
        """The values of a field, in order."""
        wanted = name.lower()
        pairs = [line.decode("latin-1").split(":", 1) for line in self.lines]
        return [value.strip(" \t") for found, value in pairs if found.lower() == wanted]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def names(self) -> list[str]:
        """The fields' names in order, in the case they came in."""
        return [line.partition(b":")[0].decode("latin-1") for line in self.lines]


class Wire:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    # --- writing -------------------------------------------------------------------

    def send(self, *parts: bytes) -> None:
        """Send soon, in one piece."""
        self._writer.write(b"".join(parts))

    async def flush(self) -> None:
        """Return once everything was handed to the kernel."""
        async with asyncio.timeout(LIMIT_S):
            self._writer.transport.set_write_buffer_limits(high=0)
            await self._writer.drain()

    async def pieces(self, *parts: bytes) -> None:
        """Send each part so that it arrives by itself: the kernel has sent it before the next is written."""
        for part in parts:
            self.send(part)
            await self.flush()
            await until_acknowledged(self.socket)

    def end(self) -> None:
        """End this side in order; the other may go on."""
        self._writer.write_eof()

    def close(self) -> None:
        """End both sides in order."""
        self._writer.close()

    async def aclose(self) -> None:
        """End, and return once it has."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def reset(self) -> None:
        """End with a reset, dropping what was not yet sent."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def pause(self) -> None:
        """Read nothing more, so that the kernel's buffers fill up."""
        cast("asyncio.Transport", self._writer.transport).pause_reading()

    def resume(self) -> None:
        cast("asyncio.Transport", self._writer.transport).resume_reading()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._writer.transport.get_write_buffer_size()

    @property
    def socket(self) -> socket.socket:
        """The socket, for options."""
        found: socket.socket = self._writer.get_extra_info("socket")
        return found

    # --- reading -------------------------------------------------------------------

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            return await self._reader.readexactly(count)

    async def some(self) -> bytes:
        """What comes next, at least one byte; nothing at the end."""
        async with asyncio.timeout(LIMIT_S):
            return await self._reader.read(BUFFER_BYTES)

    async def until(self, mark: bytes) -> bytes:
        """Up to and with the mark."""
        async with asyncio.timeout(LIMIT_S):
            return await self._reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Everything up to an orderly end. Raises ConnectionResetError for another one."""
        async with asyncio.timeout(LIMIT_S):
            return await self._reader.read()

    async def is_cut(self) -> bool:
        """Wait for the end; whether it was a reset. What still came is dropped."""
        try:
            await self.rest()
        except ConnectionResetError:
            return True
        return False

    async def head(self) -> tuple[bytes, list[bytes]]:
        """The next head's first line and its other lines."""
        raw = await self.until(b"\r\n\r\n")
        first, *lines = raw[:-4].split(b"\r\n")
        return first, lines

    async def request(self) -> Message:
        """The next request, whole."""
        return await self._message(*await self.head(), otherwise="none")

    async def answer(self, method: str = "GET") -> Message:
        """The next answer to a request of this method, whole; a 1xx one counts as one."""
        first, lines = await self.head()
        status = int(first.split(b" ")[1])
        if method == "HEAD" or status < 200 or status in (204, 304):
            return Message(first, lines, b"", b"", [], "none")
        return await self._message(first, lines, otherwise="close")

    async def _message(self, first: bytes, lines: list[bytes], otherwise: str) -> Message:
        framing = Message(first, lines, b"", b"", [], otherwise)
        coding, length = framing.one("transfer-encoding"), framing.one("content-length")
        assert coding is None or length is None
        if coding is not None:
            assert coding == "chunked"
            return await self._chunked(first, lines)
        if length is not None:
            body = await self.exactly(int(length))
            return Message(first, lines, body, body, [], "length")
        body = await self.rest() if otherwise == "close" else b""
        return Message(first, lines, body, body, [], otherwise)

    async def _chunked(self, first: bytes, lines: list[bytes]) -> Message:
        raw, payload = b"", b""
        while True:
            line = await self.until(b"\r\n")
            raw += line
            size = int(line[:-2].partition(b";")[0], 16)
            if size == 0:
                break
            chunk = await self.exactly(size + 2)
            assert chunk.endswith(b"\r\n")
            raw += chunk
            payload += chunk[:-2]
        trailers: list[bytes] = []
        while True:
            line = await self.until(b"\r\n")
            raw += line
            if line == b"\r\n":
                return Message(first, lines, payload, raw, trailers, "chunked")
            trailers.append(line[:-2])

    async def chunk(self) -> bytes:
        """The payload of the next chunk of a body that is still open."""
        size = int((await self.until(b"\r\n")).partition(b";")[0].strip(), 16)
        return (await self.exactly(size + 2))[:-2]


async def until_acknowledged(sock: socket.socket) -> None:
    """Return once the peer's kernel has everything that was sent (Linux: SIOCOUTQ counts what it has not)."""
    import fcntl
    import termios

    async with asyncio.timeout(LIMIT_S):
        while struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)  # noqa: TID251 - the kernel tells nobody


async def dial(host: str, port: int, *, receive_bytes: int | None = None) -> Wire:
    """A connection; `receive_bytes` bounds what the kernel takes for a side that does not read."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except OSError:
        sock.close()
        raise
    return Wire(*await asyncio.open_connection(sock=sock, limit=BUFFER_BYTES))
