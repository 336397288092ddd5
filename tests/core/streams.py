"""Event streams for tests: every line end, every cut, and a plain reading of the specification to compare with."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from gateway.core.sse import Event

ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.sampled_from(
    [
        b"",
        b"",
        b"data",
        b"data:",
        b"data: a",
        b"data:b ",
        b"data:  {}",
        b"event: message",
        b"event:endpoint",
        b"event",
        b"id: 7",
        b"id: a\0b",
        b"retry: 10",
        b": comment",
        b":",
        b"unknown: x",
        b"data: /messages/?session_id=1",
        b"\xef\xbb\xbfdata: late mark",
        b"data: \xff\xfe",
    ]
)
STREAMS = st.builds(
    lambda mark, lines, rest: mark + b"".join(line + end for line, end in lines) + rest,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(LINES, ENDS), max_size=14),
    st.sampled_from([b"", b"dat", b"data: cut"]),
)

Cut = tuple[bytes, list[bytes]]
"""A stream, and the same stream in pieces."""


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes] = STREAMS) -> Cut:
    """A stream, and the same stream in pieces."""
    stream = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return stream, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def read_whole(stream: bytes) -> list[Event]:
    """WHATWG HTML 9.2.6, word for word, over a whole stream at once."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    lines = re.split(rb"\r\n|\r|\n", stream)
    events = []
    data, kind, last_id = b"", b"", b""
    for line in lines[:-1]:
        if line == b"":
            if data != b"":
                events.append(Event(kind or b"message", data.removesuffix(b"\n"), last_id))
            data, kind = b"", b""
            continue
        if line.startswith(b":"):
            continue
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ") if colon else b""
        if name == b"event":
            kind = value
        elif name == b"data":
            data += value + b"\n"
        elif name == b"id" and b"\0" not in value:
            last_id = value
    return events
