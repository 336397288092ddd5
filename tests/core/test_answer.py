"""The caller's protocol chooses the form of an error."""

from __future__ import annotations

import json

import pytest

from gateway.core.answer import problem_body
from gateway.core.model import Dialect, Intent, Kind
from gateway.core.problems import Code, Problem

PROBLEM = Problem(Code.PR01, "nobody is up", "tools")


@pytest.mark.parametrize(
    "intent",
    [None, Intent(Kind.PLAIN, Dialect.HTTP), Intent(Kind.LEGACY_STREAM, Dialect.SSE_2024)],
)
def test_plain_callers_get_json(intent: Intent | None) -> None:
    content_type, body = problem_body(PROBLEM, intent, b"", "r")
    assert content_type == b"application/json"
    assert json.loads(body)["error"]["code"] == "PR01"


@pytest.mark.parametrize("dialect", [Dialect.SESSION_2025, Dialect.STATELESS_2026])
def test_mcp_callers_get_a_json_rpc_error(dialect: Dialect) -> None:
    content_type, body = problem_body(PROBLEM, Intent(Kind.IN_SESSION, dialect), b"7", "r")
    assert content_type == b"application/json"
    assert (json.loads(body)["id"], json.loads(body)["error"]["data"]["code"]) == (7, "PR01")


def test_2024_posts_get_words() -> None:
    content_type, body = problem_body(PROBLEM, Intent(Kind.LEGACY_POST, Dialect.SSE_2024), b"7", "r")
    assert content_type.startswith(b"text/plain")
    assert body.startswith(b"PR01: ")
