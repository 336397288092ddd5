"""Bodies end where their head said, however the bytes are cut; what is no body is refused, however it is cut."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.framing import (
    MAX_FILL_BYTES,
    MAX_SIZE_LINE_BYTES,
    MAX_TRAILER_BYTES,
    Body,
    ChunkedBody,
    FramingFault,
    LengthBody,
    UntilCloseBody,
    body,
)
from gateway.core.head import CHUNKED, UNTIL_CLOSE

HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n"
"""What follows a body on its connection; no byte of it may ever be taken for the body's."""

SIZES = st.sampled_from(["%x", "%X", "0%x", "00000%x"])
EXTENSIONS = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b; c"', b";a=1;b=2", b';q="\\""'])
CHUNKS = st.tuples(SIZES, st.binary(min_size=1, max_size=40) | st.just(b"\r\n0\r\n\r\n"), EXTENSIONS)
TRAILERS = st.lists(st.sampled_from([b"x-sum: 1", b"X-Empty:", b"etag:  \xe9 ", b"x-long: " + b"v" * 1200]), max_size=3)
CUTS = st.lists(st.integers(1, 60), max_size=30)

ALPHABET = [b"0", b"1", b"a", b"F", b"10", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b";", b";x", b"=", b'"', b"\\", b" "]
ALPHABET += [b"\t", b"x", b"\0", b"\x80", b":", b"x-a: b\r\n", b"host: a\r\n", b"-", b"+", b"0x"]
NEARLY = st.lists(st.sampled_from(ALPHABET), max_size=30).map(b"".join)


def encoded(chunks: list[tuple[str, bytes, bytes]], trailers: list[bytes], last: bytes = b"") -> bytes:
    parts = [(size % len(data)).encode() + more + b"\r\n" + data + b"\r\n" for size, data, more in chunks]
    return b"".join([*parts, b"0", last, b"\r\n", *(line + b"\r\n" for line in trailers), b"\r\n"])


BODIES = st.builds(encoded, st.lists(CHUNKS, max_size=5), TRAILERS, EXTENSIONS)


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes cut into pieces of these sizes, over and over."""
    found: list[bytes] = []
    at, sizes = 0, cuts or [len(raw) or 1]
    while at < len(raw):
        size = sizes[len(found) % len(sizes)]
        found.append(raw[at : at + size])
        at += size
    return found


def read(into: Body, raw: bytes, cuts: list[int]) -> tuple[str, bytes, int]:
    """How it went, the payload, and how many bytes were the body's."""
    sink: list[bytes] = []
    taken = 0
    for piece in pieces(raw, cuts):
        if into.done:
            break
        try:
            now = into.feed(piece, sink)
        except FramingFault:
            return "refused", b"", 0
        taken += now
        assert now == len(piece) or into.done
    return "done" if into.done else "open", b"".join(sink), taken


class Llhttp:
    """What llhttp, the parser of Node and httptools, makes of the same bytes."""

    def __init__(self, raw: bytes) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self._url = self._body = b""
        self.refused = False
        try:
            httptools.HttpRequestParser(self).feed_data(raw)
        except httptools.HttpParserError:
            self.refused = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.messages.append((self._url, self._body))
        self._url = self._body = b""


@given(BODIES, CUTS)
def test_a_chunked_body_reads_the_same_however_it_is_cut(raw: bytes, cuts: list[int]) -> None:
    outcome, payload, taken = read(ChunkedBody(), raw + NEXT, cuts)
    assert (outcome, taken) == ("done", len(raw))
    assert Llhttp(HEAD + raw + NEXT).messages == [(b"/", payload), (b"/next", b"")]


@given(NEARLY, CUTS)
@example(b"0\r\nx: " + b"v" * 1500 + b"\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", [6, 2000])
@example(b"0;x=" + b"e" * (MAX_SIZE_LINE_BYTES - 4) + b"\r\n\r\n", [MAX_SIZE_LINE_BYTES + 1])
@example(b"0\r\n\n\r\n\r\n", [4, 1])
def test_what_is_nearly_a_body_is_read_the_same_however_it_is_cut(raw: bytes, cuts: list[int]) -> None:
    assert read(ChunkedBody(), raw, cuts) == read(ChunkedBody(), raw, [])
    assert read(ChunkedBody(), raw, [1]) == read(ChunkedBody(), raw, [])


@given(NEARLY | BODIES)
def test_what_is_accepted_reads_the_same_to_llhttp(raw: bytes) -> None:
    outcome, payload, taken = read(ChunkedBody(), raw, [])
    if outcome == "done":
        assert Llhttp(HEAD + raw[:taken] + NEXT).messages == [(b"/", payload), (b"/next", b"")]


@given(st.binary(max_size=200), CUTS)
def test_no_bytes_raise_but_the_fault(raw: bytes, cuts: list[int]) -> None:
    read(ChunkedBody(), raw, cuts)
    read(ChunkedBody(), b"0\r\n" + raw, cuts)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"5\nhello\r\n0\r\n\r\n", id="bare LF ends a size line"),
        pytest.param(b"5\rhello\r\n0\r\n\r\n", id="bare CR ends a size line"),
        pytest.param(b"5;a\nb\r\nhello\r\n0\r\n\r\n", id="LF in an extension"),
        pytest.param(b"5;a\rb\r\nhello\r\n0\r\n\r\n", id="CR in an extension"),
        pytest.param(b"5;a\0b\r\nhello\r\n0\r\n\r\n", id="NUL in an extension"),
        pytest.param(b"5;a\x80\r\nhello\r\n0\r\n\r\n", id="8-bit byte in an extension"),
        pytest.param(b"5 ;a\r\nhello\r\n0\r\n\r\n", id="blank before an extension"),
        pytest.param(b"5; a\r\nhello\r\n0\r\n\r\n", id="blank in an extension"),
        pytest.param(b"5;\r\nhello\r\n0\r\n\r\n", id="empty extension"),
        pytest.param(b'5;a="b\r\nhello\r\n0\r\n\r\n', id="open quote in an extension"),
        pytest.param(b"5 \r\nhello\r\n0\r\n\r\n", id="blank after a size"),
        pytest.param(b" 5\r\nhello\r\n0\r\n\r\n", id="blank before a size"),
        pytest.param(b"+5\r\nhello\r\n0\r\n\r\n", id="signed size"),
        pytest.param(b"-5\r\nhello\r\n0\r\n\r\n", id="negative size"),
        pytest.param(b"0x5\r\nhello\r\n0\r\n\r\n", id="size with 0x"),
        pytest.param(b"5_0\r\nhello\r\n0\r\n\r\n", id="size with an underscore, which Python's int takes"),
        pytest.param("\u0665\r\nhello\r\n0\r\n\r\n".encode(), id="size in other digits, which Python's int takes"),
        pytest.param(b"\r\n5\r\nhello\r\n0\r\n\r\n", id="no size"),
        pytest.param(b"1" * 16 + b"\r\n", id="size over 60 bits"),
        pytest.param(b"5;" + b"e" * MAX_SIZE_LINE_BYTES + b"\r\nhello\r\n0\r\n\r\n", id="long extension"),
        pytest.param(b"5;" + b"e" * 4 * MAX_SIZE_LINE_BYTES, id="endless extension"),
        pytest.param(b"4\r\nhello\r\n0\r\n\r\n", id="chunk longer than its size"),
        pytest.param(b"5\r\nhello0\r\n\r\n", id="no line end after a chunk"),
        pytest.param(b"5\r\nhello\n0\r\n\r\n", id="bare LF after a chunk"),
        pytest.param(b"5\r\nhello\r0\r\n\r\n", id="bare CR after a chunk"),
        pytest.param(b"5\r\nhelloXX0\r\n\r\n", id="two other bytes after a chunk"),
        pytest.param(b"0\r\nx-a: 1\n\r\n", id="bare LF ends a trailer"),
        pytest.param(b"0\r\n\nGET / HTTP/1.1\r\n\r\n", id="bare LF ends the trailers"),
        pytest.param(b"0\r\nx-a: 1\r\n x-b: 2\r\n\r\n", id="folded trailer"),
        pytest.param(b"0\r\nx-a : 1\r\n\r\n", id="blank before a trailer's colon"),
        pytest.param(b"0\r\nnothing\r\n\r\n", id="trailer without a colon"),
        pytest.param(b"0\r\n: 1\r\n\r\n", id="trailer without a name"),
        pytest.param(b"0\r\nx-a: \0\r\n\r\n", id="NUL in a trailer"),
        pytest.param(b"0\r\ncontent-length: 5\r\n\r\n", id="Content-Length as a trailer"),
        pytest.param(b"0\r\nTransfer-Encoding: chunked\r\n\r\n", id="Transfer-Encoding as a trailer"),
        pytest.param(b"0\r\nHost: b\r\n\r\n", id="Host as a trailer"),
        pytest.param(b"0\r\nauthorization: b\r\n\r\n", id="Authorization as a trailer"),
        pytest.param(b"0\r\nMcp-Session-Id: b\r\n\r\n", id="a session id as a trailer"),
        pytest.param(b"0\r\nmcp-param-x: b\r\n\r\n", id="an MCP header as a trailer"),
        pytest.param(b"0\r\nFLY-Force-Instance-Id: b\r\n\r\n", id="a steering header as a trailer"),
        pytest.param(b"0\r\nfly_replay_src: b\r\n\r\n", id="a control header as a trailer, with underscores"),
        pytest.param(b"0\r\nx-forwarded-for: b\r\n\r\n", id="a provenance header as a trailer"),
        pytest.param(b"0\r\nx-a: " + b"v" * MAX_TRAILER_BYTES + b"\r\n\r\n", id="long trailer"),
        pytest.param(b"0\r\nx-a: " + b"v" * 4 * MAX_TRAILER_BYTES, id="endless trailer"),
        pytest.param(b"0\r\n" + b"x-a: v\r\n" * MAX_TRAILER_BYTES, id="endless trailers"),
    ],
)
def test_a_trick_is_refused_however_it_is_cut(raw: bytes) -> None:
    assert read(ChunkedBody(), raw, [])[0] == "refused"
    assert read(ChunkedBody(), raw, [1])[0] == "refused"


@pytest.mark.parametrize("cut", [1, 2, 1024, 5000])
def test_long_lines_within_their_limits_are_accepted(cut: int) -> None:
    extension = b";" + b"e" * (MAX_SIZE_LINE_BYTES - 2)
    trailer = b"x-a: " + b"v" * (MAX_TRAILER_BYTES - 7)
    raw = b"1" + extension + b"\r\na\r\n0\r\n" + trailer + b"\r\n\r\n"
    assert read(ChunkedBody(), raw + NEXT, [cut]) == ("done", b"a", len(raw))


@given(BODIES, st.data())
def test_a_body_that_broke_off_can_be_ended(raw: bytes, data: st.DataObject) -> None:
    """Whatever came of it, filler, one more chunk and the last one make a body that every parser takes for whole."""
    cut = data.draw(st.integers(0, len(raw) - 1))
    broken = ChunkedBody()
    _, payload, _ = read(broken, raw[:cut], [7])
    assert not broken.end()
    filler = broken.filler()
    if filler is None:
        return
    ended = raw[:cut] + filler + b"4\r\nover\r\n0\r\n\r\n"
    outcome, filled, taken = read(ChunkedBody(), ended, [])
    assert (outcome, taken) == ("done", len(ended))
    assert filled.startswith(payload)
    assert filled.endswith(b"over")
    assert not filled[len(payload) : -4].strip(b" ")
    assert Llhttp(HEAD + ended + NEXT).messages == [(b"/", filled), (b"/next", b"")]


@pytest.mark.parametrize(
    ("raw", "filler"),
    [
        (b"", b""),
        (b"3", b"\r\n   \r\n"),
        (b"3\r", b"\n   \r\n"),
        (b"3;a", b"\r\n   \r\n"),
        (b"3;a=", None),
        (b"3\r\n", b"   \r\n"),
        (b"3\r\nab", b" \r\n"),
        (b"3\r\nabc", b"\r\n"),
        (b"3\r\nabc\r", b"\n"),
        (b"3\r\nabc\r\n", b""),
        (b"0", None),
        (b"0\r", None),
        (b"0\r\n", None),
        (b"0\r\nx-a", None),
        (b"0\r\n\r\n", None),
        (b"%x\r\n" % (MAX_FILL_BYTES + 1), None),
        (b"%x\r\na" % (MAX_FILL_BYTES + 1), b" " * MAX_FILL_BYTES + b"\r\n"),
        (b"%x" % (MAX_FILL_BYTES + 1), None),
        (b"%x" % MAX_FILL_BYTES, b"\r\n" + b" " * MAX_FILL_BYTES + b"\r\n"),
    ],
)
def test_what_fills_up_a_broken_chunk(raw: bytes, filler: bytes | None) -> None:
    broken = ChunkedBody()
    broken.feed(raw)
    assert broken.filler() == filler


@pytest.mark.parametrize(
    ("raw", "at_boundary"),
    [
        (b"", True),
        (b"3", False),
        (b"3\r\n", False),
        (b"3\r\nabc", False),
        (b"3\r\nabc\r\n", True),
        (b"0\r\n", False),
        (b"0\r\n\r\n", False),
    ],
)
def test_another_chunk_fits_in_only_between_chunks(raw: bytes, at_boundary: bool) -> None:
    fed = ChunkedBody()
    fed.feed(raw)
    assert fed.at_boundary is at_boundary


@given(st.integers(0, 60), st.binary(max_size=80), CUTS)
def test_a_body_of_known_length_takes_its_bytes_and_no_more(length: int, raw: bytes, cuts: list[int]) -> None:
    of_length = body(length)
    assert isinstance(of_length, LengthBody)
    outcome, payload, taken = read(of_length, raw, cuts)
    assert payload == raw[:length]
    assert taken == min(length, len(raw))
    assert of_length.done is of_length.end() is (outcome == "done") is (len(raw) >= length)
    assert not of_length.at_boundary


def test_a_body_without_a_sink_is_counted_all_the_same() -> None:
    assert LengthBody(3).feed(b"abcd") == 3
    assert ChunkedBody().feed(b"3\r\nabc\r\n0\r\n\r\nGET") == 13
    assert UntilCloseBody().feed(b"abcd") == 4


def test_nothing_is_appended_for_nothing() -> None:
    sink: list[bytes] = []
    done = LengthBody(0)
    assert done.feed(b"abc", sink) == 0
    assert UntilCloseBody().feed(b"", sink) == 0
    assert sink == []


@given(st.binary(max_size=80), CUTS)
def test_a_body_until_close_is_done_only_by_the_close(raw: bytes, cuts: list[int]) -> None:
    until_close = body(UNTIL_CLOSE)
    assert isinstance(until_close, UntilCloseBody)
    assert read(until_close, raw, cuts) == ("open", raw, len(raw))
    assert until_close.at_boundary
    assert until_close.end()
    assert until_close.done


def test_a_chunked_body_ends_only_by_its_last_chunk() -> None:
    chunked: Any = body(CHUNKED)
    assert isinstance(chunked, ChunkedBody)
    chunked.feed(b"3\r\nabc\r\n0\r\n")
    assert not chunked.end()
    chunked.feed(b"\r\n")
    assert chunked.end()
