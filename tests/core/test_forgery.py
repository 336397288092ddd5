"""No header that a client or an app forged goes through, in any spelling; what went through once goes through again."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.head import RequestHead, ResponseHead, parse_request, parse_response
from gateway.core.headers import Peer
from gateway.core.problems import Problem
from tests.core.through import PROXY, STRANGER, answer, downstream, lines, upstream

CANARY = b"f0rged"

FORGED = [
    b"fly-replay-src", b"fly-replay-failed", b"fly-replay-cache-status", b"fly-preferred-instance-unavailable",
    b"fly-client-ip", b"fly-region", b"fly-forwarded-port", b"fly-request-id", b"fly-force-instance-id",
    b"fly-prefer-instance-id", b"fly-force-region", b"fly-prefer-region", b"fly-replay-cache-control", b"fly-replay",
    b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-ssl", b"x-forwarded-host", b"forwarded", b"mcp-session-id",
    b"moorage-error", b"moorage-anything", b"proxy-authorization", b"host",
]  # fmt: skip
SPELLINGS = [
    lambda name: [name],
    lambda name: [name.title()],
    lambda name: [name.upper()],
    lambda name: [name.swapcase()],
    lambda name: [bytes(char ^ 0x20 if at % 2 and char >= 0x61 else char for at, char in enumerate(name))],
    lambda name: [name.replace(b"-", b"_")],
    lambda name: [name.replace(b"-", b"_").upper()],
    lambda name: [name.replace(b"-", b"_", 1)],
    lambda name: [name, name],
    lambda name: [name, name.upper()],
    lambda name: [name, name.replace(b"-", b"_")],
    lambda name: [b" " + name],
    lambda name: [name + b" "],
    lambda name: [name + b"\t"],
    lambda name: [name + b"\0"],
    lambda name: [name + b"\r"],
]
AROUND = [b"", b"Connection: %s", b"connection: close, %s", b"X-A: b\n%s: " + CANARY, b"X-A: b\r%s: " + CANARY]


@pytest.mark.parametrize("name", FORGED, ids=bytes.decode)
def test_no_spelling_of_a_forged_header_reaches_an_instance(name: bytes) -> None:
    """Refused, or gone: in no case do a name of the gateway's and a value of the client's arrive together."""
    tried = 0
    for spell, around, by in itertools.product(SPELLINGS, AROUND, (STRANGER, PROXY)):
        if by is PROXY and name.startswith(b"x-forwarded-"):
            continue
        forged = [one + b": " + CANARY for one in spell(name)]
        raw = [b"GET / HTTP/1.1", *([b"Host: a"] if name != b"host" else []), *forged]
        raw += [around.replace(b"%s", name)] if around else []
        sent = parse_request(b"\r\n".join(raw) + b"\r\n\r\n")
        tried += 1
        if isinstance(sent, RequestHead):
            assert CANARY not in sent.kept
            # The client's own Host is told as such, in the field that is there for it.
            assert CANARY not in upstream(sent, by).replace(b"X-Forwarded-Host: " + CANARY, b"")
    assert tried >= 40


@pytest.mark.parametrize(
    "line",
    [
        b"fly-replay: app=x", b"Fly-Replay-Cache: /", b"fly-request-id: x", b"moorage-error: PM03", b"MOORAGE-X: y",
        b"Keep-Alive: timeout=5", b"Connection: X-Mine", b"X-Mine: 1", b"Proxy-Authenticate: x", b"TE: x",
        b"Mcp-Session-Id: own", b"x-forwarded-for: 1.1.1.1",
    ],
)  # fmt: skip
def test_no_control_header_of_an_app_reaches_a_client(line: bytes) -> None:
    sent = answer(b"Content-Type: a", b"Connection: x-mine", line)
    assert sent.kept == b"Content-Type: a\r\n"
    assert lines(downstream(sent)) == [
        b"Content-Type: a",
        b"Content-Length: 5",
        b"Via: 1.1 moorage",
        b"Fly-Request-Id: abc-local",
    ]


# --- the policy is idempotent ----------------------------------------------------------

LINES = st.lists(
    st.sampled_from(
        [
            b"Accept: a", b"accept:b ", b"X-Own: 1", b"Cookie: a=b", b"Authorization: x", b"Mcp-Session-Id: s",
            b"Mcp-Method: tools/call", b"Connection: keep-alive, X-Own", b"Keep-Alive: x", b"Via: 1.1 a",
            b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Host: b", b"fly-prefer-instance-id: i", b"fly-replay-src: x",
            b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"Trailer: x", b"TE: trailers", b"Set-Cookie: a",
        ]
    ),
    max_size=10,
    unique=True,
)  # fmt: skip


@given(LINES, st.sampled_from([STRANGER, PROXY]))
def test_a_head_that_went_through_goes_through_unchanged(drawn: list[bytes], by: Peer) -> None:
    sent = parse_request(b"\r\n".join([b"POST /a?b HTTP/1.1", b"Host: a", *drawn]) + b"\r\n\r\n")
    assert isinstance(sent, RequestHead)
    again = parse_request(upstream(sent, by, session_id=sent.get(b"mcp-session-id"), waits=sent.expects_continue))
    assert isinstance(again, RequestHead)
    assert again.kept == sent.kept
    assert (again.length, again.target, again.method) == (sent.length, sent.target, sent.method)
    assert again.expects_continue == sent.expects_continue
    assert again.get(b"mcp-session-id") == sent.get(b"mcp-session-id")
    assert again.keep_alive
    # A second gateway writes the same lines, less what the first one added to the chains.
    third = parse_request(upstream(again, by))
    assert isinstance(third, RequestHead)
    assert third.kept == sent.kept


@given(LINES)
def test_an_answer_that_went_through_goes_through_unchanged(drawn: list[bytes]) -> None:
    sent = parse_response(b"\r\n".join([b"HTTP/1.1 200 Fine", *drawn]) + b"\r\n\r\n")
    if isinstance(sent, Problem):
        return
    again = parse_response(downstream(sent, sent.length, session_id=b"sealed", close=True))
    assert isinstance(again, ResponseHead)
    assert (again.kept, again.length, again.reason) == (sent.kept, sent.length, sent.reason)
    assert not again.keep_alive
