"""Heads: what is read from them, and what of them is passed on.

What is refused stands in test_smuggling.py; test_llhttp.py compares with another parser.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.head import CHUNKED, UNTIL_CLOSE, RequestHead, ResponseHead, parse_request, parse_response
from gateway.core.problems import Code, Problem, status

HOST = b"Host: tools.localhost\r\n"


def request(*lines: bytes, line: bytes = b"POST /mcp HTTP/1.1", host: bytes = HOST) -> RequestHead | Problem:
    return parse_request(line + b"\r\n" + host + b"".join(one + b"\r\n" for one in lines) + b"\r\n")


def accepted(*lines: bytes, line: bytes = b"POST /mcp HTTP/1.1", host: bytes = HOST) -> RequestHead:
    head = request(*lines, line=line, host=host)
    assert isinstance(head, RequestHead), head
    return head


def response(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> ResponseHead | Problem:
    return parse_response(line + b"\r\n" + b"".join(one + b"\r\n" for one in lines) + b"\r\n")


def answered(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    head = response(*lines, line=line)
    assert isinstance(head, ResponseHead), head
    return head


# --- requests --------------------------------------------------------------------------


def test_the_parts_of_a_request() -> None:
    head = accepted(
        b"Accept:  a", b"x-Multi: 1", b"X-MULTI: 2 ", b"content-length: 5", line=b"POST /a%2F../b?c=d?e HTTP/1.1"
    )
    assert (head.method, head.target, head.path, head.query) == (b"POST", b"/a%2F../b?c=d?e", b"/a%2F../b", b"c=d?e")
    assert (head.authority, head.host, head.minor) == (b"tools.localhost", "tools.localhost", 1)
    assert (head.length, head.keep_alive, head.upgrade, head.expects_continue) == (5, True, b"", False)
    assert head.get(b"x-multi") == b"1, 2"
    assert head.get(b"x-none") is None
    assert head.repeated == {b"x-multi"}
    # Order and case are kept, and the inner blanks; only what stands behind a value goes.
    assert head.kept == b"Accept:  a\r\nx-Multi: 1\r\nX-MULTI: 2\r\n"


def test_a_head_without_anything_to_pass_on() -> None:
    assert accepted().kept == b""
    assert answered().kept == b""


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/?", b"/", b""),
        (b"/a%2f..%2fb/../c", b"/a%2f..%2fb/../c", b""),
        (b"//evil/x", b"//evil/x", b""),
        (b"/a;b=c?d=%00&e", b"/a;b=c", b"d=%00&e"),
        (b'/a\\b|c^`{}"<>', b'/a\\b|c^`{}"<>', b""),
    ],
)
def test_the_target_is_kept_byte_for_byte(target: bytes, path: bytes, query: bytes) -> None:
    head = accepted(line=b"GET " + target + b" HTTP/1.1")
    assert (head.target, head.path, head.query) == (target, path, query)


@pytest.mark.parametrize(
    ("target", "host", "seen"),
    [
        (b"http://tools.localhost/a?b", b"tools.localhost", b"/a?b"),
        (b"HTTPS://Tools.Localhost/a", b"tools.LOCALHOST", b"/a"),
        (b"http://tools.localhost:8080/a", b"tools.localhost:8080", b"/a"),
        (b"http://tools.localhost", b"tools.localhost", b"/"),
        (b"http://tools.localhost?b", b"tools.localhost", b"/?b"),
        (b"http://tools.localhost//a", b"tools.localhost", b"//a"),
    ],
)
def test_an_absolute_target_becomes_a_path(target: bytes, host: bytes, seen: bytes) -> None:
    head = accepted(line=b"GET " + target + b" HTTP/1.1", host=b"Host: " + host + b"\r\n")
    assert head.target == seen
    assert head.target == head.path + (b"?" + head.query if head.query else b"")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"tools.localhost", "tools.localhost"),
        (b"TOOLS.localhost:80", "tools.localhost"),
        (b"127.0.0.1:8080", "127.0.0.1"),
        (b"[::1]", "[::1]"),
        (b"[FE80::1]:8080", "[fe80::1]"),
        (b"", ""),
    ],
)
def test_the_host_is_lower_case_and_without_a_port(host: bytes, name: str) -> None:
    head = accepted(host=b"Host: " + host + b"\r\n")
    assert (head.host, head.authority) == (name, host)


def test_a_client_of_http_1_0_needs_no_host_and_is_closed() -> None:
    head = accepted(b"Connection: keep-alive", b"Expect: 100-continue", line=b"GET / HTTP/1.0", host=b"")
    assert (head.minor, head.host, head.authority) == (0, "", b"")
    assert not head.keep_alive
    assert not head.expects_continue


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        ((), True),
        ((b"Connection: keep-alive",), True),
        ((b"Connection: close",), False),
        ((b"Connection: CLOSE",), False),
        ((b"Connection: keep-alive", b"connection:\tx , Close\t"), False),
    ],
)
def test_whether_a_request_keeps_its_connection(lines: tuple[bytes, ...], keep_alive: bool) -> None:
    assert accepted(*lines).keep_alive is keep_alive


def test_expecting_to_continue() -> None:
    assert accepted(b"Expect: 100-Continue", b"content-length: 5").expects_continue
    assert not accepted(b"content-length: 5").expects_continue


@pytest.mark.parametrize(
    ("lines", "line", "upgrade"),
    [
        ((b"Connection: Upgrade", b"Upgrade: websocket"), b"GET / HTTP/1.1", b"websocket"),
        ((b"Connection: keep-alive, upgrade", b"Upgrade: WebSocket"), b"GET / HTTP/1.1", b"WebSocket"),
        ((b"Connection: Upgrade", b"Upgrade: a", b"Upgrade: b"), b"GET / HTTP/1.1", b"a, b"),
        ((b"Upgrade: websocket",), b"GET / HTTP/1.1", b""),
        ((b"Connection: Upgrade",), b"GET / HTTP/1.1", b""),
        ((b"Connection: Upgrade", b"Upgrade: websocket"), b"GET / HTTP/1.0", b""),
        ((b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"), b"GET / HTTP/1.1", b""),
        ((b"Connection: Upgrade", b"Upgrade: websocket, H2C"), b"GET / HTTP/1.1", b""),
    ],
)
def test_leaving_http(lines: tuple[bytes, ...], line: bytes, upgrade: bytes) -> None:
    head = accepted(*lines, line=line)
    assert head.upgrade == upgrade
    assert head.kept == b""


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ((), 0),
        ((b"Content-Length: 0",), 0),
        ((b"Content-Length:12 ",), 12),
        ((b"content-length: 00012",), 12),
        ((b"Content-Length: 999999999999999999",), 999999999999999999),
        ((b"Transfer-Encoding: chunked",), CHUNKED),
        ((b"transfer-encoding:\tCHUNKED \t",), CHUNKED),
    ],
)
def test_the_length_of_a_request_body(lines: tuple[bytes, ...], length: int) -> None:
    assert accepted(*lines).length == length


def test_options_for_the_server_as_a_whole() -> None:
    head = accepted(line=b"OPTIONS * HTTP/1.1")
    assert (head.target, head.path, head.query) == (b"*", b"*", b"")


def test_the_number_of_fields_is_bounded() -> None:
    lines = tuple(b"X-%d: a" % number for number in range(99))
    assert isinstance(request(*lines), RequestHead)
    problem = request(*lines, b"X-99: a")
    assert isinstance(problem, Problem)
    assert problem.code is Code.PB03


def test_fields_for_the_next_hop_only_stay_here() -> None:
    head = accepted(
        b"Connection: keep-alive, X-Mine , x-also",
        b"X-Mine: 1",
        b"X-ALSO: 2",
        b"X-Also-Not: 3",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Trailer: x-sum",
        b"Proxy-Connection: close",
        b"Proxy-Authorization: x",
        b"HTTP2-Settings: x",
    )
    assert head.kept == b"X-Also-Not: 3\r\nTrailer: x-sum\r\n"


@pytest.mark.parametrize(
    "name",
    [
        b"fly-force-instance-id",
        b"fly-prefer-instance-id",
        b"fly-force-region",
        b"Fly-Prefer-Region",
        b"fly-replay-cache-control",
    ],
)
def test_what_steers_is_read_and_stays_here(name: bytes) -> None:
    head = accepted(name + b": x ", b"X-A: 1")
    assert head.values[name.lower()] == b"x"
    assert head.kept == b"X-A: 1\r\n"
    problem = request(name + b": x", name.upper() + b": x")
    assert isinstance(problem, Problem)
    assert problem.code is Code.PB05


@pytest.mark.parametrize(
    "name",
    [
        b"fly-replay",
        b"fly-replay-src",
        b"Fly-Replay-Cache-Status",
        b"fly-replay-failed",
        b"fly-preferred-instance-unavailable",
    ],
)
def test_what_the_gateway_tells_of_replays_does_not_come_from_a_client(name: bytes) -> None:
    assert accepted(name + b": x", b"X-A: 1").kept == b"X-A: 1\r\n"
    problem = request(name.replace(b"-", b"_") + b": x")
    assert isinstance(problem, Problem)
    assert problem.code is Code.PB06


NAMES = st.from_regex(rb"X-[A-Za-z0-9!#$%&'*+.^`|~-]{1,12}", fullmatch=True)
VALUES = (
    st.binary(max_size=20)
    .map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F))
    .map(lambda raw: raw.strip(b" "))
)


@given(st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b":\t "]), VALUES), max_size=12))
def test_what_is_nobodys_business_goes_through_untouched(fields: list[tuple[bytes, bytes, bytes]]) -> None:
    fields = [one for one in fields if not one[0].lower().startswith(b"x-forwarded-")]
    lines = tuple(name + colon + value if value else name + b":" for name, colon, value in fields)
    whole = b"".join(line + b"\r\n" for line in lines)
    assert accepted(*lines).kept == whole
    assert answered(*lines).kept == whole


@given(VALUES, st.sampled_from([b" ", b"\t", b" \t  "]))
def test_blanks_around_a_value_are_not_part_of_it(value: bytes, blanks: bytes) -> None:
    head = accepted(b"X-A:" + blanks + value + blanks)
    assert head.values[b"x-a"] == value
    assert head.kept == b"X-A: " + value + b"\r\n"


# --- responses -------------------------------------------------------------------------


def test_the_parts_of_a_response() -> None:
    head = answered(
        b"content-TYPE: text/event-stream",
        b"Mcp-Session-Id: abc",
        b"Via: 1.1 x",
        b"Connection: X-Mine",
        b"X-Mine: 1",
        b"fly-replay: app=x",
        b"moorage-error: PM03",
        b"Set-Cookie: a=b",
        b"Set-Cookie: c=d",
        line=b"HTTP/1.1 201 Very well \xe9",
    )
    assert (head.status, head.reason, head.minor) == (201, b"Very well \xe9", 1)
    assert head.get(b"mcp-session-id") == b"abc"
    assert head.kept == b"content-TYPE: text/event-stream\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n"
    assert (head.keep_alive, head.upgrade, head.length) == (True, b"", UNTIL_CLOSE)


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.0 404 Not Found", 404, b"Not Found"),
        (b"HTTP/1.1 799 \xff\t", 799, b"\xff\t"),
    ],
)
def test_status_lines(line: bytes, status: int, reason: bytes) -> None:
    head = answered(line=line)
    assert (head.status, head.reason) == (status, reason)


@pytest.mark.parametrize(
    ("line", "method", "lines", "length"),
    [
        (b"HTTP/1.1 200 OK", b"GET", (), UNTIL_CLOSE),
        (b"HTTP/1.1 200 OK", b"GET", (b"Content-Length: 5",), 5),
        (b"HTTP/1.1 200 OK", b"GET", (b"Transfer-Encoding: chunked",), CHUNKED),
        (b"HTTP/1.1 200 OK", b"HEAD", (b"Content-Length: 5",), 0),
        (b"HTTP/1.1 200 OK", b"HEAD", (b"Transfer-Encoding: chunked",), 0),
        (b"HTTP/1.1 200 OK", b"HEAD", (), 0),
        (b"HTTP/1.1 204 No Content", b"GET", (b"Content-Length: 5",), 0),
        (b"HTTP/1.1 304 Not Modified", b"GET", (b"Content-Length: 5",), 0),
        (b"HTTP/1.1 103 Early Hints", b"GET", (b"Content-Length: 5",), 0),
        (b"HTTP/1.1 101 Switching Protocols", b"GET", (), 0),
        (b"HTTP/1.1 205 Reset Content", b"GET", (b"Content-Length: 0",), 0),
    ],
)
def test_the_length_of_an_answer(line: bytes, method: bytes, lines: tuple[bytes, ...], length: int) -> None:
    assert answered(*lines, line=line).body_length(method) == length


@pytest.mark.parametrize(
    ("line", "lines", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", (), True),
        (b"HTTP/1.1 200 OK", (b"Connection: close",), False),
        (b"HTTP/1.0 200 OK", (), False),
        (b"HTTP/1.0 200 OK", (b"Connection: keep-alive",), True),
    ],
)
def test_whether_an_instance_keeps_its_connection(line: bytes, lines: tuple[bytes, ...], keep_alive: bool) -> None:
    assert answered(*lines, line=line).keep_alive is keep_alive


def test_an_answer_that_leaves_http() -> None:
    line = b"HTTP/1.1 101 Switching Protocols"
    assert answered(b"Connection: Upgrade", b"Upgrade: websocket", line=line).upgrade == b"websocket"
    assert answered(b"Upgrade: websocket", line=line).upgrade == b""


@pytest.mark.parametrize(
    ("lines", "replays"),
    [
        ((), False),
        ((b"Fly-Replay: app=x",), True),
        ((b"fly-replay:",), True),
        ((b"fly-replay-cache: invalidate",), False),
        ((b"X-Fly-Replay: app=x",), False),
        ((b"Content-Type: application/vnd.fly.replay+json",), True),
        ((b"Content-Type: Application/VND.fly.replay+JSON ; charset=utf-8",), True),
        ((b"Content-Type: application/json",), False),
        ((b"Content-Type: application/vnd.fly.replay+json2",), False),
        ((b"fly-replay: app=x", b"Content-Type: application/vnd.fly.replay+json"), True),
    ],
)
@pytest.mark.parametrize("line", [b"HTTP/1.1 200 OK", b"HTTP/1.1 307 Temporary Redirect", b"HTTP/1.1 500 Oh"])
def test_an_answer_that_asks_for_a_replay(line: bytes, lines: tuple[bytes, ...], replays: bool) -> None:
    head = answered(*lines, line=line)
    assert head.replays is replays
    assert b"fly-replay" not in head.kept.lower().replace(b"x-fly-replay", b"")


def test_an_answers_fields_that_came_more_than_once() -> None:
    head = answered(b"fly-replay: app=x", b"Set-Cookie: a", b"Fly-Replay: app=y", b"set-cookie: b", b"ETag: c")
    assert head.repeated == {b"fly-replay", b"set-cookie"}
    assert head.values[b"fly-replay"] == b"app=x, app=y"
    assert answered(b"ETag: c").repeated == frozenset()


@pytest.mark.parametrize(
    ("line", "lines", "code"),
    [
        (b"HTTP/1.1 20 OK", (), Code.PH01),
        (b"HTTP/1.1 099 OK", (), Code.PH01),
        (b"HTTP/1.1 2000 OK", (), Code.PH01),
        (b"HTTP/1.1  200 OK", (), Code.PH01),
        (b"HTTP/1.1 200 O\rK", (), Code.PH01),
        (b"HTTP/1.1 200 OK\nX: y", (), Code.PH01),
        (b"HTTP/2 200", (), Code.PH01),
        (b"HTTP/0.9 200 OK", (), Code.PH01),
        (b"ICY 200 OK", (), Code.PH01),
        (b"", (), Code.PH01),
        (b"HTTP/1.1 200 OK", (b"X-A: a\nX-B: b",), Code.PH01),
        (b"HTTP/1.1 200 OK", (b"X-A: a\rX-B: b",), Code.PH01),
        (b"HTTP/1.1 200 OK", (b"X-A: a", b" folded"), Code.PH01),
        (b"HTTP/1.1 200 OK", (b"X-A : a",), Code.PH01),
        (b"HTTP/1.1 200 OK", (b"Mcp-Session-Id: a", b"Mcp-Session-Id: b"), Code.PH01),
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5", b"Content-Length: 5"), Code.PH01),
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5", b"Transfer-Encoding: chunked"), Code.PH03),
        (b"HTTP/1.1 200 OK", (b"Content-Length: -5",), Code.PH03),
        (b"HTTP/1.1 200 OK", (b"Transfer-Encoding: gzip",), Code.PH03),
        (b"HTTP/1.0 200 OK", (b"Transfer-Encoding: chunked",), Code.PH03),
        (b"HTTP/1.1 200 OK", tuple(b"X-%d: a" % number for number in range(201)), Code.PH01),
    ],
)
def test_answers_that_cannot_be_passed_on(line: bytes, lines: tuple[bytes, ...], code: Code) -> None:
    problem = response(*lines, line=line)
    assert isinstance(problem, Problem)
    assert problem.code is code
    assert status(problem) == 502
