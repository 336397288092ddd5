"""What the gateway writes into heads: its own lines, framing, provenance; nothing that a client or an app forged."""

from __future__ import annotations

import pytest

from gateway.core.head import CHUNKED, UNTIL_CLOSE, RequestHead, parse_request
from gateway.core.headers import (
    Peer,
    client_ip,
    framing_line,
    is_trusted,
    peer,
    request_lines,
    response_head,
)
from tests.core.builders import head
from tests.core.through import PROXY, STRANGER, TRUSTED, answer, downstream, lines, upstream

# --- provenance ------------------------------------------------------------------------


def lines_of_provenance(sent: RequestHead, by: Peer) -> list[bytes]:
    return request_lines(sent, by, TRUSTED).split(b"\r\n")[:-1]


def test_a_strangers_provenance_is_overwritten() -> None:
    sent = head(
        x_forwarded_for="1.1.1.1, 2.2.2.2",
        x_forwarded_proto="https",
        x_forwarded_port="443",
        x_forwarded_ssl="on",
        x_forwarded_host="evil",
        forwarded="for=1.1.1.1",
        via="1.1 a, 1.0 b",
    )
    assert lines_of_provenance(sent, STRANGER) == [
        b"Fly-Client-IP: 192.0.2.7",
        b"Fly-Forwarded-Port: 8080",
        b"Fly-Region: local",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Port: 8080",
        b"X-Forwarded-SSL: off",
        # Kept as hearsay, but the last entry is the peer.
        b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.7",
        b"X-Forwarded-Host: tools.localhost",
        b"Via: 1.1 a, 1.0 b, 1.1 moorage",
    ]
    assert client_ip(sent, STRANGER, TRUSTED) == "192.0.2.7"


def test_a_trusted_proxys_provenance_is_believed() -> None:
    sent = head(
        x_forwarded_for="1.1.1.1, 2.2.2.2, 10.9.9.9",
        x_forwarded_proto="HTTPS",
        x_forwarded_port="443",
        x_forwarded_host="shop.example",
    )
    assert lines_of_provenance(sent, PROXY) == [
        b"Fly-Client-IP: 2.2.2.2",
        b"Fly-Forwarded-Port: 8080",
        b"Fly-Region: local",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Port: 443",
        b"X-Forwarded-SSL: on",
        b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.9.9.9, 10.0.0.1",
        b"X-Forwarded-Host: shop.example",
        b"Via: 1.1 moorage",
    ]


@pytest.mark.parametrize(
    ("proto", "port", "expected"),
    [
        ("ftp", "x", (b"http", b"8080", b"off")),
        ("https, http", "443, 80", (b"http", b"8080", b"off")),
        ("", "", (b"http", b"8080", b"off")),
        ("http", "65535", (b"http", b"65535", b"off")),
        ("https", "123456", (b"https", b"8080", b"on")),
    ],
)
def test_nonsense_is_not_believed_even_from_a_proxy(proto: str, port: str, expected: tuple[bytes, ...]) -> None:
    written = request_lines(head(x_forwarded_proto=proto, x_forwarded_port=port), PROXY, TRUSTED)
    for name, value in zip((b"Proto", b"Port", b"SSL"), expected, strict=True):
        assert b"X-Forwarded-" + name + b": " + value + b"\r\n" in written


def test_a_proxy_that_says_nothing() -> None:
    written = request_lines(head(), PROXY, TRUSTED)
    assert b"Fly-Client-IP: 10.0.0.1\r\n" in written
    assert b"X-Forwarded-Proto: http\r\nX-Forwarded-Port: 8080\r\nX-Forwarded-SSL: off\r\n" in written
    assert b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: tools.localhost\r\n" in written


@pytest.mark.parametrize(
    ("forwarded_for", "ip"),
    [
        ("1.1.1.1", "1.1.1.1"),
        ("1.1.1.1, 10.0.0.9", "1.1.1.1"),
        ("9.9.9.9, 1.1.1.1, 10.0.0.9,10.0.0.8", "1.1.1.1"),
        ("2001:db8::1, fd00::1", "2001:db8::1"),
        ("1.1.1.1, unknown", "10.0.0.1"),
        ("1.1.1.1, ", "10.0.0.1"),
        ("1.1.1.1:80", "10.0.0.1"),
        ("10.0.0.9, 10.0.0.8", "10.0.0.1"),
        ("\xff", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_the_client_behind_proxies_is_the_last_one_that_is_no_proxy(forwarded_for: str, ip: str) -> None:
    assert client_ip(head(x_forwarded_for=forwarded_for.encode("latin-1")), PROXY, TRUSTED) == ip


@pytest.mark.parametrize(
    ("ip", "trusted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("fd12::1", True),
        ("fe80::1%eth0", False),
        ("", False),
        ("name", False),
    ],
)
def test_who_is_trusted(ip: str, trusted: bool) -> None:
    assert is_trusted(ip, TRUSTED) is trusted
    assert peer(ip, 80, "local", TRUSTED).trusted is trusted
    assert not is_trusted(ip, ())


@pytest.mark.parametrize(("name", "field"), [("x_forwarded_for", b"X-Forwarded-For"), ("via", b"Via")])
def test_an_empty_list_has_no_entry(name: str, field: bytes) -> None:
    assert field + b": ," not in request_lines(head(**{name: ""}), STRANGER, ())
    assert field + b": ," not in downstream(answer(field + b":"))


def test_a_client_of_http_1_0_without_a_host() -> None:
    sent = parse_request(b"GET / HTTP/1.0\r\n\r\n")
    assert isinstance(sent, RequestHead)
    written = request_lines(sent, STRANGER, ())
    assert b"X-Forwarded-Host: \r\nVia: 1.0 moorage\r\n" in written


# --- requests --------------------------------------------------------------------------


def test_the_head_for_an_instance() -> None:
    sent = parse_request(
        b"POST /a%2F?b HTTP/1.1\r\nACCEPT:  x\r\nHost: tools.localhost\r\nMcp-Session-Id: sealed\r\n"
        b"Content-Length: 007\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nx-b:2 \r\nx-B: 3\r\n"
        b"Expect: 100-continue\r\nfly-force-instance-id: i-1\r\n\r\n"
    )
    assert isinstance(sent, RequestHead)
    assert upstream(sent, session_id=b"own-id", waits=True) == (
        b"POST /a%2F?b HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nACCEPT:  x\r\nx-b: 2\r\nx-B: 3\r\n"
        b"Mcp-Session-Id: own-id\r\nContent-Length: 7\r\nExpect: 100-continue\r\n"
        + request_lines(sent, STRANGER, TRUSTED)
        + b"Fly-Request-Id: abc-local\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("sent", "framing"),
    [
        ({}, []),
        ({"content_length": "0"}, [b"Content-Length: 0"]),
        ({"content_length": "12"}, [b"Content-Length: 12"]),
        ({"transfer_encoding": "Chunked"}, [b"Transfer-Encoding: chunked"]),
    ],
)
def test_a_request_is_framed_anew(sent: dict[str, str], framing: list[bytes]) -> None:
    written = lines(upstream(head("POST", **sent)))
    assert [one for one in written if one.lower().startswith((b"content-length", b"transfer-enc"))] == framing


def test_an_upgrade_goes_on() -> None:
    sent = head(connection="Upgrade, X-A", upgrade="websocket", sec_websocket_key="x", x_a="1")
    assert lines(upstream(sent))[1:4] == [b"sec-websocket-key: x", b"Connection: Upgrade", b"Upgrade: websocket"]


def test_an_upgrade_to_http_2_does_not() -> None:
    sent = head(connection="Upgrade, HTTP2-Settings", upgrade="h2c", http2_settings="x")
    written = upstream(sent).lower()
    assert b"upgrade" not in written
    assert b"http2" not in written


def test_an_http_1_0_request_is_sent_on_as_1_1() -> None:
    sent = parse_request(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert isinstance(sent, RequestHead)
    assert upstream(sent).startswith(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nFly-Client-IP:")


# --- responses -------------------------------------------------------------------------


def test_the_head_for_a_client() -> None:
    sent = answer(b"content-TYPE: a", b"Via: 1.0 b", b"Set-Cookie: a", b"set-cookie: b", line=b"HTTP/1.0 201 Yes \xe9")
    written = response_head(
        sent, length=7, session_id=b"sealed", request_id=b"abc-local", close=True, extra=b"Set-Cookie: c\r\n"
    )
    assert written == (
        b"HTTP/1.1 201 Yes \xe9\r\ncontent-TYPE: a\r\nSet-Cookie: a\r\nset-cookie: b\r\nMcp-Session-Id: sealed\r\n"
        b"Content-Length: 7\r\nConnection: close\r\nSet-Cookie: c\r\nVia: 1.0 b, 1.0 moorage\r\n"
        b"Fly-Request-Id: abc-local\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("line", "told", "length", "framing"),
    [
        (b"HTTP/1.1 200 OK", b"Content-Length: 5", 5, [b"Content-Length: 5"]),
        (b"HTTP/1.1 200 OK", b"Content-Length: 5", CHUNKED, [b"Transfer-Encoding: chunked"]),
        (b"HTTP/1.1 200 OK", b"X: y", UNTIL_CLOSE, []),
        # The answer to a HEAD, and 304, tell what a GET would have got (RFC 9110 8.6); 204 and 1xx may not.
        (b"HTTP/1.1 200 OK", b"Content-Length: 5", None, [b"Content-Length: 5"]),
        (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", None, []),
        (b"HTTP/1.1 304 Not Modified", b"Content-Length: 5", None, [b"Content-Length: 5"]),
        (b"HTTP/1.1 204 No Content", b"Content-Length: 0", None, []),
        (b"HTTP/1.1 103 Early Hints", b"Content-Length: 5", None, []),
    ],
)
def test_an_answer_is_framed_anew(line: bytes, told: bytes, length: int | None, framing: list[bytes]) -> None:
    written = lines(downstream(answer(told, line=line), length))
    assert [one for one in written if one.startswith((b"Content-Length", b"Transfer-Encoding"))] == framing


def test_an_informational_answer_carries_nothing_of_the_gateways() -> None:
    sent = answer(b"Link: </a>", b"Via: x", line=b"HTTP/1.1 103 Early Hints")
    assert downstream(sent, None) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def test_a_pristine_answer_carries_what_its_app_sent() -> None:
    def written(*lines: bytes) -> bytes:
        return response_head(
            answer(*lines), length=5, session_id=b"sealed", request_id=b"abc-local", close=True, pristine=True
        )

    head = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nMcp-Session-Id: sealed\r\nContent-Length: 5\r\nConnection: close\r\n"
    assert written(b"X-A: 1") == head + b"\r\n"
    assert written(b"X-A: 1", b"Via: 1.0 b", b"Fly-Request-Id: x") == head + b"Via: 1.0 b\r\n\r\n"


def test_switching_protocols() -> None:
    line = b"HTTP/1.1 101 Switching Protocols"
    sent = answer(b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Accept: x", line=line)
    assert downstream(sent, None) == (
        line + b"\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    with_cookie = response_head(
        sent, length=None, session_id=None, request_id=b"abc-local", close=False, extra=b"Set-Cookie: c\r\n"
    )
    assert with_cookie.endswith(b"Upgrade: websocket\r\nSet-Cookie: c\r\n\r\n")


def test_an_upgrade_that_is_only_offered_is_not_passed_on() -> None:
    assert b"upgrade" not in downstream(answer(b"Connection: upgrade", b"Upgrade: h2")).lower()


@pytest.mark.parametrize(
    ("length", "line"),
    [(0, b"Content-Length: 0\r\n"), (5, b"Content-Length: 5\r\n"), (CHUNKED, b"Transfer-Encoding: chunked\r\n")],
)
def test_framing_lines(length: int, line: bytes) -> None:
    assert framing_line(length) == line


def test_a_body_until_close_has_no_framing_line() -> None:
    assert framing_line(UNTIL_CLOSE) == b""
