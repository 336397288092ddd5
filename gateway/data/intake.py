"""A request's body on its way in: where it ends, and what is kept of it while it may still be needed."""

from __future__ import annotations

from gateway.core.framing import Body, body
from gateway.core.head import CHUNKED

PEEK_BYTES = 1 << 20
"""How much of a body is read to find out what it asks; MCP servers refuse bodies over 4 MiB."""
HELD_BYTES = 65536
"""How much of a body waits for its instance before the client is paused, and is kept in any case."""
MAX_KEPT_BYTES = 256 << 20
"""Of all requests of one gateway. Past this no more than HELD_BYTES of a body is kept: it streams, unreplayable."""


class Kept:
    """How much of all bodies is kept."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Intake:
    """The body of one request. Whoever made it calls `over` once."""

    __slots__ = ("_all", "_body", "_payload", "held", "size")

    def __init__(self, length: int, kept: Kept) -> None:
        self._all = kept
        self._body: Body = body(length)
        self.held: list[bytes] | None = []
        """The raw bytes so far; None once they are no longer kept."""
        self._payload: list[bytes] | None = [] if length == CHUNKED else None
        self.size = 0
        """Raw bytes so far."""

    @property
    def done(self) -> bool:
        return self._body.done

    @property
    def kept(self) -> bool:
        """Whether all of it came and is still here: it could be sent again."""
        return self._body.done and self.held is not None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; returns those that belong to the body. Raises FramingFault."""
        taken = self._body.feed(data, self._payload)
        piece = data if taken == len(data) else data[:taken]
        self.size += taken
        if self.held is not None:
            self.held.append(piece)
            self._all.bytes += taken
        return piece

    def whole(self) -> bytes | None:
        """The whole payload, or None when it is not complete, not kept, or too long to be read."""
        if not self.kept or self.size > PEEK_BYTES:
            return None
        pieces = self.held if self._payload is None else self._payload
        if not pieces:
            return b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def sent(self, kept_bytes: int) -> None:
        """An instance has what came so far: a body longer than this, and than what waits for one, is kept no longer."""
        if self.size > HELD_BYTES and (self.size > kept_bytes or self._all.bytes > MAX_KEPT_BYTES):
            self.over()

    def answered(self) -> None:
        """The answer's head goes out: a long body is kept no longer."""
        if self.size > HELD_BYTES:
            self.over()

    def over(self) -> None:
        """Nothing of it is needed any more."""
        if self.held is not None:
            self._all.bytes -= self.size
            self.held = self._payload = None
