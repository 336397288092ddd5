"""The smuggling families, one by one: whatever two parsers could read differently is refused as the caller's fault."""

from __future__ import annotations

import pytest

from gateway.core.head import RequestHead, parse_request
from gateway.core.problems import Code, Problem, status


def request(*lines: bytes) -> RequestHead | Problem:
    head = b"POST /mcp HTTP/1.1\r\nHost: tools.localhost\r\n"
    return parse_request(head + b"".join(one + b"\r\n" for one in lines) + b"\r\n")


TRICKS = [
    # two lengths, or one that readers read differently
    ("CL.TE", (b"Content-Length: 5", b"Transfer-Encoding: chunked"), Code.PB04),
    ("TE.CL", (b"Transfer-Encoding: chunked", b"Content-Length: 5"), Code.PB04),
    ("CL.TE with a length of 0", (b"Content-Length: 0", b"Transfer-Encoding: chunked"), Code.PB04),
    ("CL twice, alike", (b"Content-Length: 5", b"Content-Length: 5"), Code.PB05),
    ("CL twice, unlike", (b"Content-Length: 5", b"Content-Length: 6"), Code.PB05),
    ("CL twice in other case", (b"Content-Length: 5", b"cONTENT-lENGTH: 5"), Code.PB05),
    ("CL as a list", (b"Content-Length: 5, 5",), Code.PB04),
    ("CL signed", (b"Content-Length: +5",), Code.PB04),
    ("CL negative", (b"Content-Length: -5",), Code.PB04),
    ("CL empty", (b"Content-Length:",), Code.PB04),
    ("CL in hex", (b"Content-Length: 0x5",), Code.PB04),
    ("CL with an underscore, which Python's int takes", (b"Content-Length: 1_0",), Code.PB04),
    ("CL with a fraction", (b"Content-Length: 5.0",), Code.PB04),
    ("CL with a blank inside", (b"Content-Length: 5 0",), Code.PB04),
    ("CL in other digits, which Python's int takes", (b"Content-Length: \xd9\xa5",), Code.PB04),
    ("CL too long for 64 bits", (b"Content-Length: 99999999999999999999",), Code.PB04),
    ("CL with an underscore in its name", (b"Content_Length: 5",), Code.PB06),
    # transfer codings
    ("TE twice", (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), Code.PB05),
    ("TE twice, identity last", (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), Code.PB05),
    ("TE identity", (b"Transfer-Encoding: identity",), Code.PB04),
    ("TE gzip, chunked", (b"Transfer-Encoding: gzip, chunked",), Code.PB04),
    ("TE chunked, identity", (b"Transfer-Encoding: chunked, identity",), Code.PB04),
    ("TE chunked, chunked", (b"Transfer-Encoding: chunked, chunked",), Code.PB04),
    ("TE xchunked", (b"Transfer-Encoding: xchunked",), Code.PB04),
    ("TE quoted", (b'Transfer-Encoding: "chunked"',), Code.PB04),
    ("TE with a parameter", (b"Transfer-Encoding: chunked;q=1",), Code.PB04),
    ("TE empty", (b"Transfer-Encoding:",), Code.PB04),
    ("TE behind a vertical tab", (b"Transfer-Encoding:\x0bchunked",), Code.PB01),
    ("TE behind a form feed", (b"Transfer-Encoding: \x0cchunked",), Code.PB01),
    ("TE with a blank before the colon", (b"Transfer-Encoding : chunked",), Code.PB01),
    ("TE with a tab before the colon", (b"Transfer-Encoding\t: chunked",), Code.PB01),
    ("TE with a NUL before the colon", (b"Transfer-Encoding\0: chunked",), Code.PB01),
    ("TE folded", (b"Transfer-Encoding:", b" chunked"), Code.PB01),
    ("TE behind a fold", (b"X: y", b" Transfer-Encoding: chunked"), Code.PB01),
    ("TE behind a bare LF", (b"X: y\nTransfer-Encoding: chunked",), Code.PB01),
    ("TE behind a bare CR", (b"X: y\rTransfer-Encoding: chunked",), Code.PB01),
    ("TE with a bare CR in front", (b"\rTransfer-Encoding: chunked",), Code.PB01),
    ("TE with an underscore in its name", (b"Transfer_Encoding: chunked",), Code.PB06),
    ("TE nominated by Connection", (b"Transfer-Encoding: chunked", b"Connection: Transfer-Encoding"), Code.PB05),
    ("CL nominated by Connection", (b"Content-Length: 5", b"Connection: close, content-length"), Code.PB05),
    # lines
    ("obs-fold", (b"X-A: 1", b"\tfolded"), Code.PB01),
    ("a line without a colon", (b"X-A",), Code.PB01),
    ("a line without a name", (b": x",), Code.PB01),
    ("a name with a blank", (b"X A: x",), Code.PB01),
    ("a name with a control character", (b"X\x01A: x",), Code.PB01),
    ("a name beyond ASCII", (b"X\xc3\xa9: x",), Code.PB01),
    ("a value with a NUL", (b"X-A: a\0b",), Code.PB01),
    ("a value with a DEL", (b"X-A: a\x7fb",), Code.PB01),
    ("a bare LF", (b"X-A: a\nX-B: b",), Code.PB01),
    ("a bare CR", (b"X-A: a\rX-B: b",), Code.PB01),
    # hosts
    ("two hosts", (b"Host: tools.localhost",), Code.PB05),
    ("two hosts, unlike", (b"hOST: evil",), Code.PB05),
    ("a host by underscore? It has none", (b"_host: evil", b"Host_: evil"), None),
    # routing and steering fields
    ("two session ids", (b"Mcp-Session-Id: a", b"mcp-session-id: b"), Code.PB05),
    ("two session ids, alike", (b"Mcp-Session-Id: a", b"Mcp-Session-Id: a"), Code.PB05),
    ("a session id by underscore", (b"Mcp_Session_Id: a",), Code.PB06),
    ("a session id by one underscore", (b"Mcp-Session_Id: a",), Code.PB06),
    ("an unknown MCP field by underscore", (b"mcp_param_x: a",), Code.PB06),
    ("two protocol versions", (b"MCP-Protocol-Version: a", b"mcp-protocol-version: b"), Code.PB05),
    ("two methods", (b"Mcp-Method: a", b"Mcp-Method: a"), Code.PB05),
    ("two names", (b"Mcp-Name: a", b"Mcp-Name: b"), Code.PB05),
    ("two parameters", (b"Mcp-Param-X: a", b"mcp-param-x: b"), Code.PB05),
    ("two credentials", (b"Authorization: a", b"authorization: b"), Code.PB05),
    ("two steering headers", (b"fly-force-instance-id: a", b"Fly-Force-Instance-Id: b"), Code.PB05),
    ("steering by underscore", (b"fly_force_instance_id: a",), Code.PB06),
    ("a control header by underscore", (b"FLY_REPLAY_SRC: a",), Code.PB06),
    ("an internal name by underscore", (b"moorage_error: a",), Code.PB06),
    ("provenance by underscore", (b"X_Forwarded_For: a",), Code.PB06),
    ("Connection names the session id", (b"Mcp-Session-Id: a", b"Connection: mcp-session-id"), Code.PB05),
    ("Connection names the credentials", (b"Authorization: a", b"Connection: close, AUTHORIZATION"), Code.PB05),
    ("Connection names a steering header", (b"Connection: fly-force-instance-id",), Code.PB05),
    ("Connection names an unknown fly header", (b"Connection: fly-new-thing",), Code.PB05),
    ("Connection names an MCP parameter", (b"Connection: Mcp-Param-X",), Code.PB05),
    ("Connection names the host", (b"Connection: host",), Code.PB05),
    ("Connection names provenance", (b"Connection: x-forwarded-for",), Code.PB05),
    # expectations
    ("an unknown expectation", (b"Expect: 200-ok",), Code.PB08),
    ("an obfuscated expectation", (b"Expect: x 100-continue",), Code.PB08),
    ("two expectations", (b"Expect: 100-continue", b"Expect: 100-continue"), Code.PB05),
    ("an expectation by list", (b"Expect: 100-continue, 100-continue",), Code.PB08),
    # upgrades
    ("an upgrade with a body", (b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 5"), Code.PB10),
    ("an upgrade with chunks", (b"Connection: upgrade", b"Upgrade: x", b"Transfer-Encoding: chunked"), Code.PB10),
]


@pytest.mark.parametrize(("lines", "code"), [pytest.param(*rest, id=name) for name, *rest in TRICKS])
def test_tricks_with_fields(lines: tuple[bytes, ...], code: Code | None) -> None:
    head = request(*lines)
    if code is None:
        assert isinstance(head, RequestHead)
    else:
        assert isinstance(head, Problem)
        assert head.code is code


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", Code.PB02, id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Code.PB02, id="a host with a blank"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Code.PB02, id="a host with a path"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Code.PB02, id="a host with a user"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Code.PB02, id="a list of hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Code.PB02, id="a port that is none"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", Code.PB02, id="a port of six digits"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Code.PB02, id="half an address"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: " + b"a" * 254 + b"\r\n\r\n", Code.PB02, id="a host too long"),
        pytest.param(b"GET http://evil/ HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB02, id="a target of another host"),
        pytest.param(b"GET http://a:81/ HTTP/1.1\r\nHost: a:80\r\n\r\n", Code.PB02, id="a target of another port"),
        pytest.param(b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB02, id="a target of no host"),
        pytest.param(b"GET http://a@evil/ HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a target with a user"),
        pytest.param(b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", Code.PB01, id="a target with a user, of the host"),
        pytest.param(b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="another scheme"),
        pytest.param(b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a target that is no path"),
        pytest.param(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="an asterisk with GET"),
        pytest.param(b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a fragment"),
        pytest.param(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a blank in the target"),
        pytest.param(b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a target beyond ASCII"),
        pytest.param(b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a NUL in the target"),
        pytest.param(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="two blanks"),
        pytest.param(b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="tabs for blanks"),
        pytest.param(b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a blank in front"),
        pytest.param(b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Code.PB01, id="a blank behind"),
        pytest.param(b"GET / HTTP/1.1\nHost: a\r\n\r\n", Code.PB01, id="a bare LF"),
        pytest.param(b"GET /\r\nHost: a\r\n\r\n", Code.PB01, id="HTTP/0.9"),
        pytest.param(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Code.PB01, id="HTTP/1.2"),
        pytest.param(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Code.PB01, id="HTTP/2.0"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\n", Code.PB01, id="the preface of HTTP/2"),
        pytest.param(b"GET / http/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a version in lower case"),
        pytest.param(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Code.PB01, id="a blank before the first field"),
        pytest.param(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Code.PB07, id="CONNECT"),
        pytest.param(b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB07, id="CONNECT with a path"),
        pytest.param(b"G\xe9T / HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a method beyond ASCII"),
        pytest.param(b"M" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", Code.PB01, id="a method too long"),
        pytest.param(
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Code.PB04, id="chunks in HTTP/1.0"
        ),
    ],
)  # fmt: skip
def test_tricks_with_the_request_line_and_the_host(raw: bytes, code: Code) -> None:
    problem = parse_request(raw)
    assert isinstance(problem, Problem)
    assert problem.code is code


def test_every_refusal_is_the_callers_fault() -> None:
    for _, lines, code in TRICKS:
        head = request(*lines)
        if code is not None:
            assert isinstance(head, Problem)
            assert 400 <= status(head) < 500
            assert head.message.isascii()
            assert head.message.isprintable()
