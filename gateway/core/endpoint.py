"""The `endpoint` event of 2024-11-05 streams: rewritten so that POSTs come back to this gateway with their pin.

Both SDKs resolve the event's data against the stream's URL and refuse another origin, so an absolute URL of the
instance becomes path-absolute, and a stripped path prefix is put back. Everything else of the stream stays byte
for byte what it was; after the first event nothing is looked at any more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import Enum

from gateway.core.classify import PIN_PARAM
from gateway.core.model import Address
from gateway.core.sse import BOM, EOL, field

MAX_BEFORE_EVENT_BYTES = 65_536
"""A stream without an event by then is none of 2024-11-05, whose first event is `endpoint`."""

_PIN_MARK = PIN_PARAM + b"="
_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*):")
_AUTHORITY = re.compile(rb"//([^/?#\\]*)")
_LOOPBACK = (b"localhost", b"127.0.0.1", b"[::1]")
_PORTS = {b"http": b":80", b"https": b":443"}
# WHATWG URL, "basic URL parser": edge controls and blanks are stripped, tabs and line ends removed.
_EDGES = bytes(range(0x21))
_REMOVED = b"\t\r\n"


class Found(Enum):
    """What the stream's first event was. A closed set."""

    NOTHING = "nothing"
    """No event yet, or none before the stream ended."""
    REWRITTEN = "rewritten"
    FOREIGN = "foreign"
    """An endpoint on an origin that is not the instance's: passed as it came, and its POSTs do not come here."""
    OTHER_EVENT = "other-event"
    TOO_LATE = "too-late"


class EndpointRewriter:
    """Body bytes of one answer in, body bytes out; `done` once nothing more will be changed."""

    __slots__ = (
        "_after_cr",
        "_authorities",
        "_first",
        "_held",
        "_partial",
        "_pin",
        "_prefix",
        "_seen",
        "done",
        "found",
    )

    def __init__(self, pin: bytes, prefix: bytes, authorities: Collection[bytes]) -> None:
        """
        Args:
            pin: as `Sealer.seal_stream` makes it.
            prefix: what the app's strip_path took off, without a `/` at its end; empty for nothing.
            authorities: `own_authorities` of the instance.
        """
        self._pin = pin
        self._prefix = prefix
        self._authorities = authorities
        self._held: list[tuple[bytes, bytes]] = []
        """The current event's lines and their ends, from its first `event` or `data` field on."""
        self._partial: list[bytes] = []
        self._after_cr = False
        self._first = True
        self._seen = 0
        self.done = False
        self.found = Found.NOTHING

    def feed(self, chunk: bytes) -> bytes:
        """What may go on to the client now. Once `done`, the chunk itself."""
        if self.done or not chunk:
            return chunk
        out: list[bytes] = []
        self._seen += len(chunk)
        at = self._rest_of_crlf(chunk, out)
        for end in EOL.finditer(chunk, at):
            self._partial.append(chunk[at : end.start()])
            line = b"".join(self._partial)
            self._partial.clear()
            at = end.end()
            self._line(line, end[0], out)
            if self.done:
                out.append(chunk[at:])
                return b"".join(out)
        if at < len(chunk):
            self._partial.append(chunk[at:])
        self._after_cr = chunk.endswith(b"\r")
        if self._seen > MAX_BEFORE_EVENT_BYTES:
            self.found = Found.TOO_LATE
            out.append(self.end())
        return b"".join(out)

    def end(self) -> bytes:
        """What was held back, when nothing follows that could decide about it."""
        self.done = True
        held = [part for line in self._held for part in line] + self._partial
        self._held, self._partial = [], []
        return b"".join(held)

    def _rest_of_crlf(self, chunk: bytes, out: list[bytes]) -> int:
        """Put an LF that belongs to the CR before it there; returns how many bytes it took."""
        if not self._after_cr or not chunk.startswith(b"\n"):
            return 0
        self._after_cr = False
        if self._held:
            line, end = self._held[-1]
            self._held[-1] = (line, end + b"\n")
        else:
            out.append(b"\n")
        return 1

    def _line(self, line: bytes, end: bytes, out: list[bytes]) -> None:
        if self._first:
            self._first = False
            if line.startswith(BOM):
                out.append(BOM)
                line = line[len(BOM) :]
        if not line:
            self._blank(end, out)
        elif self._held or field(line)[0] in (b"event", b"data"):
            self._held.append((line, end))
        else:
            out += (line, end)

    def _blank(self, end: bytes, out: list[bytes]) -> None:
        """A blank line: what is held is an event, if it has data."""
        kind, data = b"", []
        for line, _ in self._held:
            name, value = field(line)
            if name == b"data":
                data.append(value)
            elif name == b"event":
                kind = value
        if any(data):
            self.done = True
            self.found = Found.OTHER_EVENT
            if kind == b"endpoint":
                self._rewrite(b"\n".join(data))
                if self._held[-1][1] == b"\r" and end.startswith(b"\n"):
                    # A data line between the two was dropped; together they would be one line end.
                    self._held.append((b"", b"\n"))
        # An event without data is none, or one that only carries an id (MCP 2025-11-25 primes streams by those).
        for held_line, held_end in self._held:
            out += (held_line, held_end)
        self._held = []
        out.append(end)

    def _rewrite(self, data: bytes) -> None:
        rewritten = rewrite_endpoint(data, self._pin, self._prefix, self._authorities)
        if rewritten is None:
            self.found = Found.FOREIGN
            return
        self.found = Found.REWRITTEN
        lines: list[tuple[bytes, bytes]] = []
        written = False
        for line, end in self._held:
            if field(line)[0] != b"data":
                lines.append((line, end))
            elif not written:
                written = True
                lines.append((b"data: " + rewritten, end))
        self._held = lines


def rewrite_endpoint(data: bytes, pin: bytes, prefix: bytes, authorities: Collection[bytes]) -> bytes | None:
    """The URI reference for the client, without line breaks; None when it leads to another origin.

    Path-absolute and relative references keep their form; every query parameter is kept, the pin is added last.
    """
    uri = data.strip(_EDGES).translate(None, _REMOVED)
    scheme = _SCHEME.match(uri)
    rest = uri
    if scheme is not None:
        port = _PORTS.get(scheme[1].lower())
        rest = uri[scheme.end() :]
        if port is None or not rest.startswith(b"//"):
            return None
    else:
        port = b":80"
    if rest[:2] in (b"//", b"/\\", b"\\/", b"\\\\"):
        # WHATWG URL reads backslashes as slashes here; only the plain spelling can be one of ours.
        named = _AUTHORITY.match(rest)
        if named is None or not _is_own(named[1].lower(), port, authorities):
            return None
        rest = rest[named.end() :]
        if rest.startswith(b"\\"):
            return None
        if not rest.startswith(b"/"):
            rest = b"/" + rest
    rest, hash_, fragment = rest.partition(b"#")
    path, _, query = rest.partition(b"?")
    if path.startswith((b"/", b"\\")):
        path = prefix + path
    if path.startswith((b"//", b"/\\")):
        # Without its authority this would read as one (WHATWG URL serialises such a path in the same way).
        path = b"/." + path
    joined = b"".join((path, b"?", query, b"&" if query else b"", _PIN_MARK, pin, hash_, fragment))
    # Once more over the whole: nothing that a record puts into `prefix` may end the event's line.
    return joined.translate(None, _REMOVED)


def own_authorities(address: Address, also: Iterable[bytes] = ()) -> frozenset[bytes]:
    """The authorities under which an instance may name itself: its address, loopback names, and those given.

    `also` are authorities as in a Host header; without a port they stand for port 80 and 443.
    """
    port = b":%d" % address.port
    host = address.host.encode("utf-8", "replace").lower()
    own = {name + port for name in (*_LOOPBACK, b"[" + host + b"]" if b":" in host else host)}
    for one in also:
        name = one.lower()
        own |= {name} if _has_port(name) else {name + default for default in _PORTS.values()}
    return frozenset(own)


def _is_own(authority: bytes, default_port: bytes, authorities: Collection[bytes]) -> bool:
    return (authority if _has_port(authority) else authority + default_port) in authorities


def _has_port(authority: bytes) -> bool:
    return authority.rpartition(b":")[2].isdigit() if not authority.endswith(b"]") else False
