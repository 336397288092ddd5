"""Request and response heads: raw bytes in, values out, strictly.

Follows RFC 9112 (message syntax) and RFC 9110 (field semantics), and refuses whatever two parsers could read
differently: bare CR or LF, folded lines, doubled or conflicting body lengths, doubled routing headers, names with
`_` that would shadow a routing header, an absolute target that names another host. The raw target and the raw
lines of every field that is passed on are kept byte for byte.

What a field is to the gateway is decided by `gateway.core.fields`; what is added for the next hop, by
`gateway.core.headers`.
"""

from __future__ import annotations

import re

from gateway.core.fields import (
    FIELDS,
    LISTED_MEMBERS,
    Field,
    reserved,
    shadows,
)
from gateway.core.problems import Code, Problem
from gateway.core.replay import REPLAY
from gateway.core.replay_json import is_replay_json

CHUNKED = -1
"""Body length of a message whose body is chunked."""
UNTIL_CLOSE = -2
"""Body length of a response that ends with its connection."""

_TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE = re.compile(rb"(" + _TCHAR + rb"{1,32}) ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELDS = re.compile(rb"(?:" + _TCHAR + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]*)((?:[/?].*)?)", re.IGNORECASE)
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._\-]{1,253})(?::([0-9]{1,5}))?")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class RequestHead:
    """A request's head, valid once it exists. Never changed after it was parsed: heads are shared between requests."""

    __slots__ = (
        "authority",
        "expects_continue",
        "host",
        "keep_alive",
        "kept",
        "length",
        "memo",
        "method",
        "minor",
        "path",
        "query",
        "repeated",
        "target",
        "upgrade",
        "values",
    )

    method: bytes
    target: bytes
    """Origin form, as sent: path and query, undecoded."""
    path: bytes
    query: bytes
    """Without the `?`; empty for none."""
    minor: int
    """HTTP/1.x of the client."""
    authority: bytes
    """The Host field as sent."""
    host: str
    """Lower case, without a port."""
    values: dict[bytes, bytes]
    """Lower-case field name -> value without surrounding blanks; repeated fields joined by `, `."""
    repeated: frozenset[bytes]
    """Names of fields that came more than once."""
    kept: bytes
    """The raw lines, in order, of the fields that are passed on as they are."""
    length: int
    """Body length in bytes, or CHUNKED."""
    expects_continue: bool
    upgrade: bytes
    """The Upgrade field's value when the request asks to leave HTTP, else empty."""
    keep_alive: bool
    memo: object
    """Room for what was concluded from this head alone; no part of its value."""

    def get(self, name: bytes) -> bytes | None:
        """The value of a field by its lower-case name."""
        return self.values.get(name)


class ResponseHead:
    """A response's head, valid once it exists. Never changed after it was parsed."""

    __slots__ = (
        "keep_alive",
        "kept",
        "length",
        "minor",
        "reason",
        "repeated",
        "replays",
        "status",
        "upgrade",
        "values",
    )

    status: int
    reason: bytes
    minor: int
    values: dict[bytes, bytes]
    kept: bytes
    length: int
    """As the fields say: bytes, CHUNKED or UNTIL_CLOSE. `body_length` says what follows for a given request."""
    keep_alive: bool
    upgrade: bytes
    repeated: frozenset[bytes]
    """Names of fields that came more than once."""
    replays: bool
    """Its app asks for a replay, by header or by body."""

    def get(self, name: bytes) -> bytes | None:
        return self.values.get(name)

    def body_length(self, method: bytes) -> int:
        """The length of the body that follows this head (RFC 9112 6.3)."""
        if method == b"HEAD" or self.status in (204, 304) or self.status < 200:
            return 0
        return self.length


class _Sorted:
    """The fields of one head, sorted by what they are to the gateway."""

    __slots__ = ("connection", "kept", "repeated", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.kept: list[bytes] = []
        self.repeated: set[bytes] = set()
        self.connection: frozenset[bytes] = frozenset()


def _bad(message: str, code: Code = Code.PB01) -> Problem:
    return Problem(code, message)


def _text(raw: bytes) -> str:
    """A field name for an error message; names are tokens, so this cannot inject anything."""
    return raw[:64].decode("ascii", "backslashreplace")


def _sort(block: bytes, max_count: int) -> _Sorted | Problem:
    """Sort the field lines of a head (each ending in CRLF)."""
    if _FIELDS.fullmatch(block) is None:
        return _bad(
            "a header line is malformed: bare CR or LF, a folded line, a blank before the colon or a control character"
        )
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > max_count:
        return _bad(f"{len(lines)} header fields, more than {max_count}", Code.PB03)
    out = _Sorted()
    values, kept = out.values, out.kept
    for line in lines:
        name, _, value = line.partition(b":")
        key = name.lower()
        stripped = value.strip(b" \t")
        field = FIELDS.get(key)
        if field is None:
            if b"_" in key and shadows(key):
                return _bad(f"header {_text(name)} would shadow {_text(key.replace(b'_', b'-'))}", Code.PB06)
            field = Field.DROP if reserved(key) else Field.SINGLE if key.startswith(b"mcp-") else Field.PASS
        if key in values:
            if field is Field.SINGLE or field is Field.OWN or field is Field.STEER:
                return _bad(f"header {_text(name)} came twice", Code.PB05)
            out.repeated.add(key)
            values[key] += b", " + stripped
        else:
            values[key] = stripped
        if field is Field.PASS or field is Field.SINGLE:
            kept.append(line if line[-1] not in b" \t" else name + b": " + stripped)
    listed = values.get(b"connection")
    if listed is not None:
        out.connection = frozenset(part.strip(b" \t").lower() for part in listed.split(b","))
        nominated = out.connection - LISTED_MEMBERS
        if nominated:
            known = sorted(name for name in nominated if name in FIELDS or reserved(name) or name.startswith(b"mcp-"))
            if known:
                return _bad(f"the Connection header names {_text(known[0])}", Code.PB05)
            kept[:] = [line for line in kept if line.partition(b":")[0].lower() not in nominated]
    return out


def _length(values: dict[bytes, bytes], minor: int) -> int | Problem | None:
    """The body length that the framing fields declare; None when they declare nothing."""
    coding = values.get(b"transfer-encoding")
    length = values.get(b"content-length")
    if coding is not None:
        # RFC 9112 6.1: both together, or with HTTP/1.0, "ought to be handled as an error".
        if length is not None:
            return _bad("both Content-Length and Transfer-Encoding", Code.PB04)
        if minor == 0:
            return _bad("Transfer-Encoding in an HTTP/1.0 message", Code.PB04)
        if coding.lower() != b"chunked":
            return _bad("a Transfer-Encoding other than `chunked`", Code.PB04)
        return CHUNKED
    if length is None:
        return None
    if _LENGTH.fullmatch(length) is None:
        return _bad("Content-Length is not a number", Code.PB04)
    return int(length)


def _keep_alive(connection: frozenset[bytes], minor: int) -> bool:
    return b"close" not in connection if minor else b"keep-alive" in connection


def parse_request(raw: bytes, max_count: int = 100) -> RequestHead | Problem:
    """Parse a request's head: everything up to and including the empty line.

    A Problem's code is one of the PB family; the connection cannot be used further.
    """
    end = raw.find(b"\r\n")
    line = _REQUEST_LINE.fullmatch(raw, 0, end)
    if line is None:
        return _bad("the request line is malformed")
    sorted_ = _sort(raw[end + 2 : -2], max_count)
    if isinstance(sorted_, Problem):
        return sorted_
    values = sorted_.values
    head = RequestHead()
    head.memo = None
    method, target = line[1], line[2]
    head.method = method
    head.minor = 1 if line[3] == b"1" else 0
    length = _length(values, head.minor)
    if isinstance(length, Problem):
        return length
    problem = _place(head, method, target, values.get(b"host"))
    if problem is not None:
        return problem
    connection = sorted_.connection
    head.length = length or 0
    head.values = values
    head.repeated = frozenset(sorted_.repeated)
    kept = sorted_.kept
    head.kept = b"\r\n".join(kept) + b"\r\n" if kept else b""
    # An HTTP/1.0 client that asks for keep-alive is answered and closed: it is rare, and half of it is ambiguous.
    head.keep_alive = bool(head.minor) and b"close" not in connection
    expect = values.get(b"expect")
    # RFC 9110 10.1.1: an HTTP/1.0 client's 100-continue is ignored.
    head.expects_continue = expect is not None and expect.lower() == b"100-continue" and head.minor == 1
    if expect is not None and expect.lower() != b"100-continue":
        return _bad("an Expect header other than 100-continue", Code.PB08)
    upgrade = values.get(b"upgrade", b"")
    # RFC 9113 removed the h2c upgrade; passing it on would let bytes past the gateway unread.
    head.upgrade = upgrade if b"upgrade" in connection and head.minor and b"h2c" not in upgrade.lower() else b""
    if head.upgrade and head.length != 0:
        return _bad("an upgrade request with a body", Code.PB10)
    return head


def _place(head: RequestHead, method: bytes, target: bytes, host: bytes | None) -> Problem | None:
    """Fill in where the request goes: target, path, query, authority, host."""
    if method == b"CONNECT":
        return _bad("CONNECT is not served", Code.PB07)
    if host is None:
        if head.minor:
            return _bad("no Host header", Code.PB02)
        host = b""
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is not None:
            if absolute[1].lower() != host.lower():
                return _bad("the target names another host than the Host header", Code.PB02)
            target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        elif not (target == b"*" and method == b"OPTIONS"):
            return _bad("the target is neither a path nor a URL")
    named = _HOST.fullmatch(host)
    if named is None and host:
        return _bad("the Host header is malformed", Code.PB02)
    head.target = target
    head.path, _, head.query = target.partition(b"?")
    head.authority = host
    head.host = named[1].decode("ascii").lower() if named is not None else ""
    return None


def parse_response(raw: bytes, max_count: int = 200) -> ResponseHead | Problem:
    """Parse a response's head: everything up to and including the empty line. A Problem's code is PH01 or PH03."""
    end = raw.find(b"\r\n")
    line = _STATUS_LINE.fullmatch(raw, 0, end)
    if line is None:
        return _bad("the status line is malformed", Code.PH01)
    sorted_ = _sort(raw[end + 2 : -2], max_count)
    if isinstance(sorted_, Problem):
        return _bad(sorted_.message, Code.PH01)
    head = ResponseHead()
    head.minor = 1 if line[1] == b"1" else 0
    head.status = int(line[2])
    head.reason = line[3] or b""
    length = _length(sorted_.values, head.minor)
    if isinstance(length, Problem):
        return _bad(length.message, Code.PH03)
    head.length = UNTIL_CLOSE if length is None else length
    head.values = sorted_.values
    kept = sorted_.kept
    head.kept = b"\r\n".join(kept) + b"\r\n" if kept else b""
    head.keep_alive = _keep_alive(sorted_.connection, head.minor)
    head.upgrade = sorted_.values.get(b"upgrade", b"") if b"upgrade" in sorted_.connection else b""
    head.repeated = frozenset(sorted_.repeated)
    head.replays = REPLAY in head.values or is_replay_json(head.values.get(b"content-type", b""))
    return head
