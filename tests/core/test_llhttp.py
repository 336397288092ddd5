"""What is accepted means the same to llhttp, the parser of Node and of httptools, and no bytes raise."""

from __future__ import annotations

import re

import httptools
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.fields import FIELDS, Field
from gateway.core.head import CHUNKED, parse_request, parse_response
from gateway.core.problems import Problem


class Llhttp:
    """What llhttp makes of a message and of what follows it."""

    def __init__(self, raw: bytes) -> None:
        self.urls: list[bytes] = []
        self.bodies: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.whole = 0
        self.upgrade = False
        self.keep_alive: bool | None = None
        self.method = b""
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            self.upgrade = True

    def on_message_begin(self) -> None:
        self.urls.append(b"")
        self.bodies.append(b"")

    def on_url(self, url: bytes) -> None:
        self.urls[-1] += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.urls) == 1:
            self.headers.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.keep_alive is None:
            self.keep_alive = self._parser.should_keep_alive()
            self.method = self._parser.get_method()

    def on_body(self, data: bytes) -> None:
        self.bodies[-1] += data

    def on_message_complete(self) -> None:
        self.whole += 1


METHODS = [b"GET", b"POST", b"DELETE", b"OPTIONS", b"HEAD", b"PUT"]
TARGETS = [b"/", b"/mcp", b"/a%2f..%2fb/../c?x=1&y=%00", b"/?", b"//x", b"*", b"http://tools.localhost/a", b"/[]|^`{}"]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]
ODD_LINES = [
    b"Host: tools.localhost",
    b"content-length: 5",
    b"Content-Length: 0",
    b"Content-Length:5 ",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"content_length: 5",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: Chunked\t",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Connection: close",
    b"Connection: keep-alive",
    b"connection: Keep-Alive, Close",
    b"Connection: upgrade",
    b"Connection: X-Drop, keep-alive",
    b"X-Drop: me",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Mcp-Session-Id: a.b",
    b"mcp-session-id: c",
    b"Accept: text/event-stream, application/json",
    b"X-Empty:",
    b"X-Tail: a \t ",
    b"X-High: \xe9\xff",
    b"X-Colon: a:b:c",
    b" folded: line",
    b"\tfolded",
    b"X-Nul: \0",
    b"X-Cr: a\rb",
    b"X-Lf: a\nb",
    b"no colon",
    b": no name",
    b"fly-force-instance-id: i-1",
    b"X-Forwarded-For: 1.2.3.4",
]
GOOD_LINES = [
    b"Connection: close",
    b"connection: Keep-Alive, X-Drop",
    b"X-Drop: me",
    b"Mcp-Session-Id: a.b",
    b"X-Tail: a \t ",
    b"X-High: \xe9\xff",
    b"Expect: 100-Continue",
]
LENGTHS = [b"content-length: 5 ", b"Content-Length: 0", b"content-length:005", b"Transfer-Encoding: Chunked"]
RAW = st.builds(
    lambda method, target, version, lines: b"\r\n".join([b" ".join([method, target, version]), *lines, b"", b""]),
    st.sampled_from(METHODS),
    st.sampled_from(TARGETS),
    st.sampled_from(VERSIONS),
    st.lists(st.sampled_from(ODD_LINES), max_size=6).map(lambda lines: [ODD_LINES[0], *lines])
    | st.lists(st.sampled_from(ODD_LINES), max_size=3)
    | st.tuples(st.sampled_from(LENGTHS), st.lists(st.sampled_from(GOOD_LINES), max_size=4, unique=True)).map(
        lambda drawn: [ODD_LINES[0], *drawn[1], drawn[0]]
    ),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A head with a few bytes changed, anywhere."""
    raw = bytearray(draw(RAW))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw) - 1))
        how = draw(st.sampled_from(["set", "insert", "delete"]))
        byte = draw(st.sampled_from(b"\r\n \t:;,_-/\0\x7f\x80aZ05%#?*@[]"))
        if how == "set":
            raw[at] = byte
        elif how == "insert":
            raw.insert(at, byte)
        elif len(raw) > 1:
            del raw[at]
    return bytes(raw)


FOLLOWING = b"GET /following HTTP/1.1\r\nhost: a\r\n\r\n"


@given(mutated() | RAW)
def test_what_is_accepted_means_the_same_to_llhttp(raw: bytes) -> None:
    end = raw.find(b"\r\n\r\n") + 4
    raw = raw[:end] if end >= 4 else raw
    head = parse_request(raw)
    if isinstance(head, Problem) or end < 4 or head.method not in METHODS:
        # llhttp knows a closed list of methods.
        return
    if re.search(rb"(?i)transfer-encoding:[^\r]*\t\r", raw):
        # Blanks around a value are not part of it (RFC 9110 5.5), but llhttp takes no tab behind this one.
        return
    body = b"5\r\nhello\r\n0\r\n\r\n" if head.length == CHUNKED else b"x" * min(head.length, 1000)
    if head.length > 1000:
        return
    other = Llhttp(raw + body)
    assert other.method == head.method
    assert other.urls[0].endswith(head.target) or head.target == b"/"
    assert other.whole == 1
    if other.upgrade:
        assert head.upgrade or b"h2c" in head.values[b"upgrade"].lower() or not head.minor
        return
    assert other.bodies == [b"hello" if head.length == CHUNKED else body]
    assert not head.keep_alive or other.keep_alive
    if head.minor:
        assert head.keep_alive == other.keep_alive
    if other.keep_alive:
        # And what follows is the next request, not a rest of this one.
        assert Llhttp(raw + body + FOLLOWING).urls[1:] == [b"/following"]
    assert {name.lower() for name, _ in other.headers} == set(head.values)
    kept = [tuple(line.split(b":", 1)) for line in head.kept.split(b"\r\n")[:-1]]
    theirs = [(name, value) for name, value in other.headers if FIELDS.get(name.lower()) in (None, Field.SINGLE)]
    gone = {name for name, _ in theirs} - {name for name, _ in kept}
    assert (
        gone <= {b"fly-force-instance-id", b"X-Drop"}
        or all(name.lower().startswith(b"fly-") for name in gone)
        or (b"connection" in head.values)
    )
    assert [(name, value.strip(b" \t")) for name, value in kept] == [one for one in theirs if one[0] not in gone]


@given(st.binary(max_size=300) | mutated())
@example(b"")
@example(b"\r\n")
@example(b"\r\n\r\n")
@example(b"GET / HTTP/1.1\r\n")
def test_no_bytes_raise(raw: bytes) -> None:
    parse_request(raw)
    parse_response(raw)
    parse_response(b"HTTP/1.1 200 OK\r\n" + raw)
