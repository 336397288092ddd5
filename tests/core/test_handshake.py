"""The messages of a session's second beginning: what the new instance is shown, and what its answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.handshake import INITIALIZED, Refusal, Shown, Welcome, following, opening, read_answer
from gateway.core.jsonrpc import Message, read
from gateway.core.recording import Recording

RECORDING = Recording(((b"accept", b"application/json"), (b"content-type", b"application/json")), b"{}")
LINES = (
    b"Authorization: Bearer now\r\nX-Tenant:  seven \r\nCookie: a=b\r\nuser-agent: mine\r\nAccept: text/html\r\n"
    b"ACCEPT-ENCODING: br\r\nContent-Type: text/plain\r\nContent-Encoding: br\r\nLast-Event-ID: 9\r\nRange: x\r\n"
    b"If-None-Match: x\r\nCache-Control: no-store\r\nMcp-Protocol-Version: 2025-06-18\r\nmcp-method: x\r\n"
    b"Accept-Language: de\r\nX-Empty:\r\nVia: 1.1 moorage\r\n"
)
SHOWN = Shown(b"/mcp?a=b", LINES, b"")
SHARED = [
    (b"Authorization", b"Bearer now"),
    (b"X-Tenant", b"seven"),
    (b"Cookie", b"a=b"),
    (b"user-agent", b"mine"),
    (b"Accept-Language", b"de"),
    (b"X-Empty", b""),
    (b"Via", b"1.1 moorage"),
    (b"accept-encoding", b"identity"),
]


def answer(**fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 0, **fields}).encode()


# --- what is sent --------------------------------------------------------------------------


def test_the_handshake_has_the_requests_fields_but_for_those_about_its_own_body() -> None:
    assert opening(RECORDING, SHOWN) == [*SHARED, *RECORDING.fields]


def test_later_messages_name_the_session_and_the_version_that_was_agreed() -> None:
    mine = [
        (b"accept", b"application/json, text/event-stream"),
        (b"content-type", b"application/json"),
        (b"mcp-session-id", b"up-2"),
    ]
    assert following(SHOWN, b"up-2", b"2025-11-25") == [*SHARED, *mine, (b"mcp-protocol-version", b"2025-11-25")]
    assert following(SHOWN, b"up-2", b"") == [*SHARED, *mine]


def test_an_app_that_wants_the_clients_host_gets_it() -> None:
    shown = SHOWN._replace(authority=b"tools.example:80")
    assert opening(RECORDING, shown) == [(b"host", b"tools.example:80"), *SHARED, *RECORDING.fields]


def test_the_second_message_is_the_notification() -> None:
    assert read(INITIALIZED) == Message("notifications/initialized", b"", {})


@given(st.lists(st.sampled_from(LINES.split(b"\r\n")[:-1]) | st.binary(max_size=20)))
def test_no_line_makes_the_handshake_something_else(lines: list[bytes]) -> None:
    shown = Shown(b"/", b"".join(line + b"\r\n" for line in lines), b"")
    names = [name.lower() for name, _ in opening(RECORDING, shown)]
    assert names.count(b"accept") == names.count(b"content-type") == names.count(b"accept-encoding") == 1
    assert not any(name.startswith(b"mcp-") for name in names)


# --- what the answer means -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("2025-11-25", b"2025-11-25"),
        ("DRAFT-2026.1", b"DRAFT-2026.1"),
        (None, b""),
        (7, b""),
        ("", b""),
        ("2025\r\nx: y", b""),
        ("\u0662", b""),
        ("a" * 65, b""),
    ],
)
def test_an_answer_with_a_result_is_a_welcome_in_its_version(version: object, said: bytes) -> None:
    assert read_answer(answer(result={"protocolVersion": version}), b"0") == Welcome(said)
    assert read_answer(answer(result={}), b"0") == Welcome(b"")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"error": {"code": -32602, "message": "unsupported version"}}, "unsupported version"),
        ({"error": {"code": -32602, "message": "x" * 500}}, "x" * 200),
        ({"error": {"code": -32602}}, "it answered without a result"),
        ({"error": "no"}, "it answered without a result"),
        ({"result": []}, "it answered without a result"),
        ({}, "it answered without a result"),
    ],
)
def test_an_answer_without_a_result_is_a_refusal(fields: dict[str, Any], reason: str) -> None:
    assert read_answer(answer(**fields), b"0") == Refusal(reason)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        answer(method="roots/list"),
        answer(method="notifications/message", params={}),
        answer(id=1, result={}),
        answer(id="0", result={}),
        answer(id=None, error={}),
    ],
)
def test_another_message_is_passed_over(data: bytes) -> None:
    assert read_answer(data, b"0") is None


@given(st.binary(max_size=100))
def test_whatever_an_instance_says_is_read(data: bytes) -> None:
    assert read_answer(data, b"0") is None or b"0" in data
