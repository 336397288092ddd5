"""Where a message body ends: incremental, strict, without copying.

A body is fed the bytes that arrive and says how many of them are its own, so that they can be relayed as they
came and what follows can be kept for the next message. Follows RFC 9112 sections 6 and 7; a chunk's line endings
must be CRLF, its extensions well-formed and without blanks around their marks, its trailers free of routing and
framing fields: chunks go on as they came, so what is accepted must read the same to every parser behind.
"""

from __future__ import annotations

import re

from gateway.core.fields import refused_in_trailer
from gateway.core.head import CHUNKED, UNTIL_CLOSE

MAX_SIZE_LINE_BYTES = 1024
"""A chunk's size line with its extensions; nginx and llhttp bound it likewise."""
MAX_TRAILER_BYTES = 8192
MAX_FILL_BYTES = 65536
"""How much of a broken chunk is filled up."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb"\"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*+\""
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*+")
_TRAILER_LINE = re.compile(rb"(" + _TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*+")


class FramingFault(Exception):
    """The body is not framed as its head said; the text says how."""


class LengthBody:
    """A body of a known number of bytes."""

    __slots__ = ("done", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0

    def feed(self, data: bytes, sink: list[bytes] | None = None) -> int:
        """Take the next bytes; returns how many belong to this body and appends them to `sink`."""
        size = len(data)
        if size < self.left:
            self.left -= size
            taken = size
        else:
            taken, self.left = self.left, 0
            self.done = True
        if sink is not None and taken:
            sink.append(data if taken == size else data[:taken])
        return taken

    def end(self) -> bool:
        """The connection ended here; whether the body is complete."""
        return self.done

    @property
    def at_boundary(self) -> bool:
        """Whether bytes of another make could be put in here without breaking the framing."""
        return False


class UntilCloseBody:
    """A response body that ends with its connection."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes, sink: list[bytes] | None = None) -> int:
        if sink is not None and data:
            sink.append(data)
        return len(data)

    def end(self) -> bool:
        self.done = True
        return True

    @property
    def at_boundary(self) -> bool:
        return True


MAX_KNOWN_SIZES = 4096
_KNOWN_SIZES: dict[bytes, int] = {}
"""Size lines that were parsed before, without the last chunk's: a memo of a pure function."""

_SIZE, _DATA, _AFTER, _TRAILER = range(4)


class ChunkedBody:
    """A chunked body (RFC 9112 7.1), trailers included."""

    __slots__ = ("_left", "_line", "_state", "_trailer_bytes", "chunk_bytes", "done")

    def __init__(self) -> None:
        self.done = False
        self.chunk_bytes = 0
        """The size of the chunk that was begun last."""
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte starts a chunk: another chunk may be put in before it."""
        return self._state == _SIZE and not self._line and not self.done

    def end(self) -> bool:
        return self.done

    def filler(self) -> bytes | None:
        """Bytes that bring a body that broke off to a boundary, its chunk filled up with blanks; None: impossible."""
        if self._state == _AFTER:
            return b"\n" if self._line else b"\r\n"
        if self._state == _DATA:
            return b" " * self._left + b"\r\n" if self._left <= MAX_FILL_BYTES else None
        if self._state == _TRAILER or self.done:
            return None
        if not self._line:
            return b""
        match = _SIZE_LINE.fullmatch(self._line.removesuffix(b"\r"))
        size = int(match[1], 16) if match is not None else 0
        if not 0 < size <= MAX_FILL_BYTES:
            return None
        return (b"\n" if self._line.endswith(b"\r") else b"\r\n") + b" " * size + b"\r\n"

    def feed(self, data: bytes, sink: list[bytes] | None = None) -> int:
        """Take the next bytes; returns how many belong to this body and appends its payload to `sink`.

        Raises:
            FramingFault: the bytes are not a chunked body. Nothing further may be fed.
        """
        size = len(data)
        pos = self._whole_chunks(data, sink) if self._state == _SIZE and not self._line else 0
        while pos < size and not self.done:
            if self._state == _DATA:
                taken = min(self._left, size - pos)
                if sink is not None:
                    sink.append(data[pos : pos + taken])
                pos += taken
                self._left -= taken
                if self._left == 0:
                    self._state = _AFTER
            else:
                line, pos = self._take_line(data, pos)
                if line is None:
                    break
                if self._state == _SIZE:
                    self._size_line(line)
                elif self._state == _AFTER:
                    if line:
                        raise FramingFault("a chunk is longer than its size")
                    self._state = _SIZE
                else:
                    self._trailer_line(line)
        return pos

    def _whole_chunks(self, data: bytes, sink: list[bytes] | None) -> int:
        """Take the whole chunks that `data` begins with, as far as their size lines are known; returns their length.

        What event streams consist of, at a third of the cost.
        """
        pos, size = 0, len(data)
        while pos < size:
            at = data.find(b"\r\n", pos, pos + 18)
            left = _KNOWN_SIZES.get(data[pos:at]) if at > 0 else None
            if left is None:
                break
            end = at + 2 + left
            if data[end : end + 2] != b"\r\n":
                break
            if sink is not None:
                sink.append(data[at + 2 : end])
            self.chunk_bytes = left
            pos = end + 2
        return pos

    def _take_line(self, data: bytes, pos: int) -> tuple[bytes | None, int]:
        """The line that ends next, without its CRLF, and where it ends; None when it has not ended yet."""
        line = self._line
        limit = MAX_TRAILER_BYTES if self._state == _TRAILER else MAX_SIZE_LINE_BYTES
        if line:
            rest = line + data[pos : pos + limit + 2]
            at = rest.find(b"\r\n")
            if at >= 0:
                self._line = b""
                return rest[:at], pos + at + 2 - len(line)
        else:
            at = data.find(b"\r\n", pos)
            if at >= 0:
                return data[pos:at], at + 2
            rest = data[pos : pos + limit + 2]
        # The CRLF itself may be cut in two.
        if len(rest) > limit + rest.endswith(b"\r") or (self._state == _AFTER and rest != b"\r") or b"\n" in rest:
            raise FramingFault("a chunk's line does not end in CRLF")
        self._line = rest
        return None, len(data)

    def _size_line(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None or len(line) > MAX_SIZE_LINE_BYTES:
            raise FramingFault("a chunk's size line is malformed")
        self._left = self.chunk_bytes = int(match[1], 16)
        self._state = _DATA if self._left else _TRAILER
        if self._left and len(_KNOWN_SIZES) < MAX_KNOWN_SIZES:
            _KNOWN_SIZES[line] = self._left

    def _trailer_line(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line) + 2
        match = _TRAILER_LINE.fullmatch(line)
        if match is None or self._trailer_bytes > MAX_TRAILER_BYTES:
            raise FramingFault("the trailer is malformed or too long")
        if refused_in_trailer(match[1].lower()):
            raise FramingFault("the trailer holds a framing or routing field")


Body = LengthBody | ChunkedBody | UntilCloseBody


def body(length: int) -> Body:
    """The body that a head's length announces."""
    if length == CHUNKED:
        return ChunkedBody()
    if length == UNTIL_CLOSE:
        return UntilCloseBody()
    return LengthBody(length)
