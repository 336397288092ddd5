"""Events are the same however their bytes are cut; broken streams end so that no client hangs or is misled."""

from __future__ import annotations

import json
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.problems import Code, Problem
from gateway.core.sse import TAIL_BYTES, Event, EventTail, SseReader, error_event, field
from tests.core.streams import STREAMS, Cut, cut, read_whole

PROBLEM = Problem(Code.PU05, "broke\r\n\r\ndata: off", "tools", "i-1")


def message(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def event(data: bytes, end: bytes = b"\n") -> bytes:
    return b"event: message" + end + b"data: " + data + end + end


ANSWER = message(id=7, result={"ok": True})


class TestReader:
    @given(cut())
    def test_the_events_of_the_specification_under_every_cut(
        self, stream_and_pieces: tuple[bytes, list[bytes]]
    ) -> None:
        stream, pieces = stream_and_pieces
        reader = SseReader()
        assert [one for piece in pieces for one in reader.feed(piece)] == read_whole(stream)
        assert reader.skipped == 0

    @given(STREAMS)
    def test_byte_by_byte(self, stream: bytes) -> None:
        reader = SseReader()
        events = [one for at in range(len(stream)) for one in reader.feed(stream[at : at + 1])]
        assert events == read_whole(stream)

    @given(st.lists(st.binary(max_size=40), max_size=6))
    def test_no_bytes_raise(self, pieces: list[bytes]) -> None:
        reader = SseReader(max_event_bytes=16)
        for piece in pieces:
            reader.feed(piece)

    def test_an_event_is_there_as_soon_as_it_can_be(self) -> None:
        # A CR alone ends a line: waiting for a possible LF would hold the event back.
        reader = SseReader()
        assert reader.feed(b"data: a\r\r") == [Event(b"message", b"a", b"")]
        assert reader.feed(b"\ndata: b\r\n\r") == [Event(b"message", b"b", b"")]
        assert reader.feed(b"") == []
        assert reader.feed(b"\ndata: c\n\n") == [Event(b"message", b"c", b"")]

    def test_a_priming_event_has_an_id_and_no_data(self) -> None:
        assert SseReader().feed(b"id: 1\ndata:\n\nid: 2\n\ndata: x\n\n") == [
            Event(b"message", b"", b"1"),
            Event(b"message", b"x", b"2"),
        ]

    @pytest.mark.parametrize("piece_bytes", [1, 3, 50, 1000])
    def test_a_long_event_is_skipped_and_only_that(self, piece_bytes: int) -> None:
        stream = b"data: a\n\nevent: x\ndata: " + b"x" * 90 + b"\ndata: y\nid: 9\n\n\ndata: b\n\n"
        reader = SseReader(max_event_bytes=60)
        pieces = [stream[at : at + piece_bytes] for at in range(0, len(stream), piece_bytes)]
        events = [one for piece in pieces for one in reader.feed(piece)]
        assert [one.data for one in events] == [b"a", b"b"]
        assert [one.type for one in events] == [b"message", b"message"]
        assert reader.skipped == 1

    def test_an_event_at_the_bound_is_read(self) -> None:
        reader = SseReader(max_event_bytes=10)
        assert reader.feed(b"data: abcd\n\n") == [Event(b"message", b"abcd", b"")]
        assert reader.feed(b"data: abcde\n\n") == []
        assert reader.skipped == 1

    def test_what_is_kept_of_a_long_event_is_bounded(self) -> None:
        reader = SseReader(max_event_bytes=100)
        for _ in range(1000):
            reader.feed(b"x" * 100)
        assert sum(map(len, reader._partial)) <= 201


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b"data: a:b", (b"data", b"a:b")),
        (b"data:a", (b"data", b"a")),
        (b"data:  a", (b"data", b" a")),
        (b"data", (b"data", b"")),
        (b": x", (b"", b"x")),
    ],
)
def test_fields(line: bytes, parts: tuple[bytes, bytes]) -> None:
    assert field(line) == parts


class TestErrorEvent:
    @given(STREAMS)
    def test_after_any_stream_it_is_the_last_message_and_nothing_else_is_added(self, stream: bytes) -> None:
        ended = stream + error_event(b'"7"', PROBLEM, "r\r\n1", mid_event=True)
        before, after = read_whole(stream), read_whole(ended)
        assert after[-1].type == b"message"
        said = json.loads(after[-1].data)
        assert (said["id"], said["error"]["data"]["code"], said["error"]["data"]["request_id"]) == (
            "7",
            "PU05",
            "r\r\n1",
        )
        # At most the fragment is added, under a type that no client acts on.
        assert after[: len(before)] == before
        assert all(one.type == b"discarded" for one in after[len(before) : -1])

    def test_between_events_nothing_needs_to_be_discarded(self) -> None:
        written = error_event(b"7", PROBLEM, "r", mid_event=False)
        assert written.startswith(b"event: message\ndata: {")
        assert len(read_whole(event(ANSWER) + written)) == 2

    @given(st.text(), st.text())
    def test_it_is_one_event_of_two_lines(self, text: str, request_id: str) -> None:
        written = error_event(b"1", Problem(Code.PU05, text), request_id, mid_event=False)
        assert written.count(b"\n") == 3
        assert b"\r" not in written


class TestTail:
    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
    @pytest.mark.parametrize("piece_bytes", [1, 2, 7, 100, 10_000])
    def test_it_knows_the_answer_under_every_cut(self, end: bytes, piece_bytes: int) -> None:
        progress = event(message(method="notifications/progress", params={"x": 1}), end)
        for stream, mid_event, answered in (
            (b"", False, False),
            (progress, False, False),
            (progress + event(ANSWER, end), False, True),
            (event(ANSWER, end) + progress, False, False),
            (progress + b"event: mess", True, False),
            (progress + event(ANSWER, end)[:-3], True, False),
            (progress + b": pi", True, False),
            (event(ANSWER, end) + b"data: {", True, True),
        ):
            tail = EventTail(b"7")
            for at in range(0, len(stream), piece_bytes):
                tail.note(stream[at : at + piece_bytes])
            assert (tail.mid_event, tail.answered) == (mid_event, answered), stream

    @given(cut())
    def test_it_is_mid_event_exactly_when_something_has_begun(
        self, stream_and_pieces: tuple[bytes, list[bytes]]
    ) -> None:
        stream, pieces = stream_and_pieces
        tail = EventTail(b"7")
        for piece in pieces:
            tail.note(piece)
        if not tail.mid_event:
            # Then an event can be added as it is, and is read as it is.
            added = read_whole(stream + event(ANSWER))
            assert added[:-1] == read_whole(stream)
            assert added[-1].data == ANSWER

    @given(cut())
    def test_the_last_event_is_known_under_every_cut(self, drawn: Cut) -> None:
        stream, pieces = drawn
        stream, pieces = event(ANSWER) + stream, [event(ANSWER), *pieces]
        tail = EventTail(b"7")
        for piece in pieces:
            tail.note(piece)
        if tail.answered:
            assert any(one.data == ANSWER for one in read_whole(stream))

    @pytest.mark.parametrize(
        ("data", "answered"),
        [
            (message(id=7, result={}), True),
            (message(id=7, error={"code": 1}), True),
            (message(id="7", result={}), False),
            (message(id=8, result={}), False),
            (message(id=7, method="sampling/createMessage"), False),
            (message(method="notifications/x"), False),
            (b"[" + message(id=6, result={}) + b", " + message(id=7, result={}) + b"]", True),
            (b"[" + message(id=6, result={}) + b", 7]", False),
            (b"[]", False),
            (b"7", False),
            (b"{", False),
            (b"", False),
        ],
    )
    def test_only_the_answer_to_this_request_counts(self, data: bytes, answered: bool) -> None:
        tail = EventTail(b"7")
        tail.note(event(data))
        assert tail.answered is answered

    @pytest.mark.parametrize(
        ("template", "answered"),
        [
            (b'{"jsonrpc":"2.0","id":7,"result":{"t":"%s"}}', True),
            (b'{"id": 7, "jsonrpc": "2.0", "result": {"t":"%s"}}', True),
            (b'{"result":{"t":"%s"},"jsonrpc":"2.0","id":7}', True),
            (b'{"jsonrpc":"2.0","result":{"t":"%s"},"id":7}', True),
            (b'{"error":{"t":"%s"},"id":7,"jsonrpc":"2.0"}', True),
            (b'{"jsonrpc":"2.0","id":8,"result":{"t":"%s"}}', False),
            (b'{"jsonrpc":"2.0","id":77,"result":{"t":"%s"}}', False),
            (b'{"result":{"t":"%s"},"jsonrpc":"2.0","id":8}', False),
            (b'{"result":{"t":"%s","x":{"id":7}}}', False),
            (b'{"method":"x","params":{"t":"%s"},"jsonrpc":"2.0","id":7}', False),
            (b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"t":"%s"}}', False),
            (b'{"jsonrpc":"2.0","method":"x","params":{"t":"%s","id":7}}', False),
        ],
    )
    @pytest.mark.parametrize("size", [2 * TAIL_BYTES, 200_000])
    @pytest.mark.parametrize("piece_bytes", [5000, 300_000])
    @pytest.mark.parametrize("middle", [b'"%s"', b"[%s0]"])
    def test_a_long_answer_is_told_by_its_two_ends(
        self, template: bytes, answered: bool, size: int, piece_bytes: int, middle: bytes
    ) -> None:
        filled = middle.replace(b"%s", b"1," * (size // 2))
        stream = event(template.replace(b'"%s"', filled))
        tail = EventTail(b"7")
        for at in range(0, len(stream), piece_bytes):
            tail.note(stream[at : at + piece_bytes])
        assert (tail.mid_event, tail.answered) == (False, answered)

    def test_an_id_is_no_pattern(self) -> None:
        tail = EventTail(b'"a.c"')
        tail.note(event(b'{"jsonrpc":"2.0","id":"abc","result":"' + b"x" * 3 * TAIL_BYTES + b'"}'))
        assert not tail.answered
        tail.note(event(b'{"jsonrpc":"2.0","id":"a.c","result":"' + b"x" * 3 * TAIL_BYTES + b'"}'))
        assert tail.answered

    def test_line_ends_at_the_cut_do_not_meet(self) -> None:
        begun = b"data: x" + b"\n" * 1 + b"y" * (TAIL_BYTES - 8)
        lines = b"data: " + b"a" * (TAIL_BYTES - 7) + b"\n" + b"b" * 9000 + b"\n" + b"c" * (TAIL_BYTES - 1)
        for stream in (begun, lines):
            tail = EventTail(b"7")
            tail.note(stream)
            assert tail.mid_event
            tail.note(b"z")
            assert tail.mid_event

    def test_it_keeps_no_more_than_it_says(self) -> None:
        tail = EventTail(b"7")
        for _ in range(50):
            tail.note(b"data: " + b"x" * 70_000)
            assert len(tail._begun) + len(tail._recent) <= 4 * TAIL_BYTES + 6
        tail.note(b"\n\n" + event(b"y" * 100_000) + event(b"z" * 100_000))
        assert len(tail._begun) + len(tail._recent) <= 4 * TAIL_BYTES + 6

    def test_a_chunk_costs_microseconds(self) -> None:
        tail, chunk = EventTail(b"7"), event(message(method="notifications/progress", params={"x": "y" * 200}))
        best_s = min(timeit.repeat(lambda: tail.note(chunk), number=2000, repeat=5)) / 2000
        assert best_s < 20e-6
