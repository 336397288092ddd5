"""The `endpoint` event leads POSTs back here, under every cut and line end; all other bytes stay what they were."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.classify import PIN_PARAM, classify
from gateway.core.endpoint import (
    MAX_BEFORE_EVENT_BYTES,
    EndpointRewriter,
    Found,
    own_authorities,
    rewrite_endpoint,
)
from gateway.core.model import Address, Intent, Kind
from gateway.core.target import target
from tests.core.builders import app, head
from tests.core.streams import ENDS, STREAMS, Cut, cut, read_whole

OWN = own_authorities(Address("10.0.0.1", 9001), [b"tools.localhost:8080"])
PIN = b"the-PIN_1"


def rewriter(prefix: bytes = b"") -> EndpointRewriter:
    return EndpointRewriter(PIN, prefix, OWN)


def rewrite(data: bytes, prefix: bytes = b"") -> bytes | None:
    return rewrite_endpoint(data, PIN, prefix, OWN)


class TestUri:
    @pytest.mark.parametrize(
        ("data", "rewritten"),
        [
            (b"/messages/?session_id=1", b"/messages/?session_id=1&moorage_pin=the-PIN_1"),
            (b"/message", b"/message?moorage_pin=the-PIN_1"),
            (b"/message?", b"/message?moorage_pin=the-PIN_1"),
            (b"/m/%2e%2f;x=1?a=%26&b=c+d", b"/m/%2e%2f;x=1?a=%26&b=c+d&moorage_pin=the-PIN_1"),
            (b"/m?a=1#frag?x", b"/m?a=1&moorage_pin=the-PIN_1#frag?x"),
            (b"/m#f", b"/m?moorage_pin=the-PIN_1#f"),
            (b"messages?sid=1", b"messages?sid=1&moorage_pin=the-PIN_1"),
            (b"../m", b"../m?moorage_pin=the-PIN_1"),
            (b"?sid=1", b"?sid=1&moorage_pin=the-PIN_1"),
            (b"m:8/x", None),
            (b"./m:8/x", b"./m:8/x?moorage_pin=the-PIN_1"),
            (b"/m?to=http://elsewhere/", b"/m?to=http://elsewhere/&moorage_pin=the-PIN_1"),
            (b"  /m \t", b"/m?moorage_pin=the-PIN_1"),
            (b"/me\nssa\tges\r", b"/messages?moorage_pin=the-PIN_1"),
            (b"\\m", b"\\m?moorage_pin=the-PIN_1"),
            (b"/m?moorage_pin=inner", b"/m?moorage_pin=inner&moorage_pin=the-PIN_1"),
        ],
    )
    def test_references_keep_their_form(self, data: bytes, rewritten: bytes | None) -> None:
        assert rewrite(data) == rewritten

    @pytest.mark.parametrize(
        "origin",
        [
            b"http://10.0.0.1:9001",
            b"HTTP://10.0.0.1:9001",
            b"https://10.0.0.1:9001",
            b"http://localhost:9001",
            b"http://127.0.0.1:9001",
            b"http://[::1]:9001",
            b"http://Tools.LOCALHOST:8080",
            b"//10.0.0.1:9001",
        ],
    )
    def test_the_instances_own_urls_become_path_absolute(self, origin: bytes) -> None:
        assert rewrite(origin + b"/m?a=1") == b"/m?a=1&moorage_pin=the-PIN_1"
        assert rewrite(origin + b"/m?a=1", b"/tools") == b"/tools/m?a=1&moorage_pin=the-PIN_1"
        assert rewrite(origin) == b"/?moorage_pin=the-PIN_1"
        assert rewrite(origin + b"?a") == b"/?a&moorage_pin=the-PIN_1"

    @pytest.mark.parametrize(
        "data",
        [
            b"http://evil.example/m",
            b"http://10.0.0.1:9002/m",
            b"http://10.0.0.1/m",
            b"http://user@10.0.0.1:9001/m",
            b"http://10.0.0.1:9001@evil.example/m",
            b"http://10.0.0.1:9001\\@evil.example/m",
            b"//evil.example/m",
            b"/\\evil.example/m",
            b"\\\\evil.example/m",
            b"\\/evil.example/m",
            b"/\t/evil.example/m",
            b"http:/m",
            b"http:m",
            b"javascript:alert(1)",
            b"ftp://10.0.0.1:9001/m",
            b"http://localhost:/m",
            b"http://",
        ],
    )
    def test_other_origins_are_left_alone(self, data: bytes) -> None:
        assert rewrite(data) is None

    def test_a_path_never_turns_into_an_origin(self) -> None:
        assert rewrite(b"http://10.0.0.1:9001//evil.example/m") == b"/.//evil.example/m?moorage_pin=the-PIN_1"
        assert rewrite(b"http://10.0.0.1:9001/\\evil.example/m") == b"/./\\evil.example/m?moorage_pin=the-PIN_1"
        assert rewrite(b"http://10.0.0.1:9001//m", b"/tools") == b"/tools//m?moorage_pin=the-PIN_1"

    def test_a_stripped_prefix_is_put_back_on_absolute_paths_only(self) -> None:
        assert rewrite(b"/m", b"/tools") == b"/tools/m?moorage_pin=the-PIN_1"
        assert rewrite(b"m", b"/tools") == b"m?moorage_pin=the-PIN_1"
        assert rewrite(b"?a", b"/tools") == b"?a&moorage_pin=the-PIN_1"

    @given(st.binary(max_size=80), st.binary(max_size=10))
    def test_nothing_it_writes_breaks_a_line(self, data: bytes, prefix: bytes) -> None:
        rewritten = rewrite(data, b"/" + prefix)
        assert rewritten is None or not re.search(rb"[\r\n]", rewritten)

    @given(
        st.lists(st.sampled_from([b"a", b"%2F", b"m;x", b"~"]), max_size=3),
        st.none() | st.lists(st.sampled_from([b"a=1", b"b", b"", b"c=%26"]), max_size=3),
        st.sampled_from([b"", b"http://10.0.0.1:9001", b"//localhost:9001"]),
        st.booleans(),
    )
    def test_a_post_to_it_comes_out_as_the_instance_named_it(
        self, path: list[bytes], query: list[bytes] | None, origin: bytes, strips: bool
    ) -> None:
        named = b"/" + b"/".join(path) + (b"" if query is None else b"?" + b"&".join(query))
        of_app = app(path="/tools", strip_path=strips)
        rewritten = rewrite(origin + named, b"/tools" if strips else b"")
        assert rewritten is not None
        # As both SDKs do: resolved against the stream's URL, the same origin demanded.
        url = urlsplit(urljoin("http://gw:8080/tools/sse", rewritten.decode()))
        assert url.netloc == "gw:8080"
        request = head("POST", f"{url.path}?{url.query}", content_type="application/json")
        intent = classify(of_app, request)
        assert isinstance(intent, Intent)
        assert (intent.kind, intent.token) == (Kind.LEGACY_POST, PIN)
        assert target(of_app, request, intent.kind, None) == named.removesuffix(b"?")


@pytest.mark.parametrize(
    ("address", "also", "own"),
    [
        (Address("Host.Example", 80), (), {b"host.example:80", b"localhost:80", b"127.0.0.1:80", b"[::1]:80"}),
        (Address("::1", 9), (), {b"[::1]:9", b"localhost:9", b"127.0.0.1:9"}),
        (
            Address("h", 9),
            (b"A.example", b"b:81", b"[::2]"),
            {
                *(b"h:9", b"localhost:9", b"127.0.0.1:9", b"[::1]:9"),
                *(b"a.example:80", b"a.example:443", b"b:81", b"[::2]:80", b"[::2]:443"),
            },
        ),
    ],
)
def test_the_names_of_an_instance(address: Address, also: tuple[bytes, ...], own: set[bytes]) -> None:
    assert own_authorities(address, also) == own


def test_a_default_port_may_be_left_out() -> None:
    own = own_authorities(Address("h", 80))
    assert rewrite_endpoint(b"http://h/m", PIN, b"", own) == b"/m?moorage_pin=the-PIN_1"
    assert rewrite_endpoint(b"//h/m", PIN, b"", own) == b"/m?moorage_pin=the-PIN_1"
    assert rewrite_endpoint(b"https://h/m", PIN, b"", own) is None
    secure = own_authorities(Address("::2", 443))
    assert rewrite_endpoint(b"https://[::2]/m", PIN, b"", secure) == b"/m?moorage_pin=the-PIN_1"


# --- streams ---------------------------------------------------------------------------------------


def run(pieces: list[bytes], prefix: bytes = b"") -> tuple[bytes, Found]:
    one = rewriter(prefix)
    out = [one.feed(piece) for piece in pieces]
    return b"".join(out) + one.end(), one.found


@given(cut())
def test_only_the_first_event_changes_and_only_its_data(drawn: Cut) -> None:
    stream, pieces = drawn
    out, found = run(pieces)
    assert run([stream]) == (out, found)
    events = read_whole(stream)
    first = next((one for one in events if one.data.strip(b"\n")), None)
    if first is not None and first.type == b"endpoint" and found is Found.REWRITTEN:
        at = events.index(first)
        expected = first._replace(data=rewrite(first.data) or b"")
        assert read_whole(out) == [*events[:at], expected, *events[at + 1 :]]
    else:
        assert out == stream
        assert found in (Found.NOTHING, Found.FOREIGN, Found.OTHER_EVENT)


@given(
    st.lists(st.sampled_from([b"id: 3", b": note", b"retry: 5", b"x: y"]), max_size=3),
    st.permutations([b"event: endpoint", b"data: /m?s=1"]),
    ENDS,
    STREAMS,
    st.data(),
)
def test_an_endpoint_is_found_among_other_lines(
    around: list[bytes], fields: list[bytes], end: bytes, rest: bytes, data: st.DataObject
) -> None:
    lines = data.draw(st.permutations([*around, *fields]))
    stream = b"".join(line + end for line in [*lines, b""]) + rest
    stream, pieces = data.draw(cut(st.just(stream)))
    out, found = run(pieces)
    assert found is Found.REWRITTEN
    # CR, then LF at the beginning of the rest, is one line end.
    assert out == stream.replace(b"data: /m?s=1", b"data: /m?s=1&moorage_pin=the-PIN_1", 1)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_split_point(end: bytes) -> None:
    before = b": hi" + end + end + b"id: 1" + end + b"data:" + end + end
    event = (
        b"event: endpoint" + end + b": note" + end + b"data: /m" + end + b"data:essages" + end + b"id: 2" + end + end
    )
    after = b"event: message" + end + b"data: {}" + end + end
    stream = before + event + after
    rewritten = event.replace(b"data: /m" + end + b"data:essages", b"data: /messages?moorage_pin=the-PIN_1")
    for at in range(len(stream)):
        assert run([stream[:at], stream[at:]]) == (before + rewritten + after, Found.REWRITTEN)
    assert run([stream[at : at + 1] for at in range(len(stream))]) == (before + rewritten + after, Found.REWRITTEN)


def test_crlf_cut_after_a_replaced_data_line() -> None:
    one = rewriter()
    assert one.feed(b"event: endpoint\r\ndata: /m\r") == b""
    assert one.feed(b"") == b""
    assert one.feed(b"\n\r") == b"event: endpoint\r\ndata: /m?moorage_pin=the-PIN_1\r\n\r"
    assert one.done
    assert one.feed(b"\n: rest") == b"\n: rest"


def test_line_ends_around_a_dropped_line_do_not_meet() -> None:
    out, found = run([b"data: /m\nevent: endpoint\rdata\n\ndata: next\n\n"])
    assert found is Found.REWRITTEN
    assert out == b"data: /m?moorage_pin=the-PIN_1\nevent: endpoint\r\n\ndata: next\n\n"


def test_what_comes_before_the_event_passes_at_once() -> None:
    one = rewriter()
    assert one.feed(b": ping\r") == b": ping\r"
    assert one.feed(b"\n\r\nid: 0\nretry: 3\n") == b"\n\r\nid: 0\nretry: 3\n"
    assert one.feed(b"data:\n\n") == b"data:\n\n"
    assert not one.done
    assert one.feed(b": x\nev") == b": x\n"
    assert one.feed(b"ent: endpoint\nda") == b""
    assert one.feed(b"ta: /m\n\n") == b"event: endpoint\ndata: /m?moorage_pin=the-PIN_1\n\n"
    assert (one.done, one.found) == (True, Found.REWRITTEN)
    assert one.feed(b"event: endpoint\ndata: /second\n\n") == b"event: endpoint\ndata: /second\n\n"
    assert one.end() == b""


def test_a_byte_order_mark_stays_in_front() -> None:
    out, found = run([b"\xef\xbb", b"\xbfdata: /m\nevent: endpoint\n\n"])
    assert (out, found) == (b"\xef\xbb\xbfdata: /m?moorage_pin=the-PIN_1\nevent: endpoint\n\n", Found.REWRITTEN)


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"data: x\n\nevent: endpoint\ndata: /m\n\n", Found.OTHER_EVENT),
        (b"event: endpoint\nevent: message\ndata: /m\n\n", Found.OTHER_EVENT),
        (b"event: endpoint\ndata: http://evil.example/m\n\n", Found.FOREIGN),
        (b"event: endpoint\ndata: /m\n", Found.NOTHING),
        (b"event: endpoint\n\n", Found.NOTHING),
        (b"", Found.NOTHING),
    ],
)
def test_other_streams_pass_as_they_came(stream: bytes, found: Found) -> None:
    assert run([stream]) == (stream, found)
    assert run([stream[at : at + 1] for at in range(len(stream))]) == (stream, found)


def test_a_stream_without_an_event_is_given_up_in_time() -> None:
    for filler in (b": " + b"x" * 998, b"data: " + b"x" * 994, b": " + b"x" * 997 + b"\n"):
        one = rewriter()
        sent = b""
        got = b""
        while not one.done:
            sent += filler
            got += one.feed(filler)
            assert len(sent) <= MAX_BEFORE_EVENT_BYTES + 1000
        assert (got, one.found) == (sent, Found.TOO_LATE)
        assert one.feed(b"\n\nevent: endpoint\ndata: /m\n\n") == b"\n\nevent: endpoint\ndata: /m\n\n"


def test_the_pins_name_is_safe_in_a_query() -> None:
    assert re.fullmatch(rb"[a-z_]+", PIN_PARAM)
