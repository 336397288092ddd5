"""Every error has one table row and one heading in the manual, and no body lets anything in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.problems import TABLE, Code, Problem, json_body, jsonrpc_body, status, text_body

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = dict(re.findall(r"^### (P[A-Z]\d\d): (.+)$", PAGE, re.MULTILINE))
STATUSES = dict(re.findall(r"^### (P[A-Z]\d\d): .+\n\nStatus (\d{3})", PAGE, re.MULTILINE))

ANY_TEXT = st.text(max_size=200)


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_row_and_a_heading(code: Code) -> None:
    row = TABLE[code]
    assert HEADINGS[code] == row.title
    assert STATUSES[code] == str(row.status)
    assert row.remedy.endswith(".")
    assert code.value == code.name


def test_the_manual_has_no_heading_without_a_code() -> None:
    assert set(HEADINGS) == {code.value for code in Code}
    assert set(TABLE) == set(Code)
    assert len(re.findall(r"^### ", PAGE, re.MULTILINE)) == len(Code)


@pytest.mark.parametrize("code", Code)
def test_statuses_are_errors_that_do_not_start_an_authorisation_flow(code: Code) -> None:
    # mcp.md 2.3: a 401 sends SDK clients into OAuth refresh loops.
    assert 400 <= TABLE[code].status <= 504
    assert TABLE[code].status != 401


@pytest.mark.parametrize("code", Code)
def test_rpc_codes_stay_out_of_the_reserved_range(code: Code) -> None:
    # MCP 2026-07-28: -32020..-32099 belong to the specification; -32020 is its own HeaderMismatch.
    rpc_code = TABLE[code].rpc_code
    assert not -32099 <= rpc_code <= -32020 or (rpc_code == -32020 and code is Code.PB12)
    assert -32768 <= rpc_code <= -32000


def test_a_json_body_has_the_shape_of_the_contract() -> None:
    problem = Problem(Code.PM03, "tools/i-1 was not ready after 60 s", "tools", "i-1", 5)
    assert status(problem) == 503
    assert json.loads(json_body(problem, "r-1")) == {
        "error": {
            "code": "PM03",
            "message": "tools/i-1 was not ready after 60 s",
            "app": "tools",
            "instance": "i-1",
            "request_id": "r-1",
            "remedy": TABLE[Code.PM03].remedy,
        }
    }


@pytest.mark.parametrize("code", [Code.PS01, Code.PS02, Code.PS03])
def test_a_lost_session_reads_as_sdks_expect_it(code: Code) -> None:
    body = json.loads(jsonrpc_body(Problem(code, "detail"), b"", "r-1"))
    assert body["jsonrpc"] == "2.0"
    assert body["id"] is None
    assert (body["error"]["code"], body["error"]["message"]) == (-32001, "Session not found")
    assert body["error"]["data"]["code"] == code
    assert status(Problem(code, "")) == 404


def test_a_lost_task_reads_as_a_server_would_say_it() -> None:
    error = json.loads(jsonrpc_body(Problem(Code.PS06, "detail"), b'"t"', "r"))["error"]
    assert (error["code"], error["message"]) == (-32602, "Task not found")


def test_an_rpc_error_keeps_the_id_and_the_message() -> None:
    body = json.loads(jsonrpc_body(Problem(Code.PR01, "nobody is up"), b'"a-1"', "r-1"))
    assert body["id"] == "a-1"
    assert body["error"]["message"] == "nobody is up"
    assert body["error"]["data"] == {"code": "PR01", "request_id": "r-1", "remedy": TABLE[Code.PR01].remedy}


def test_an_empty_message_falls_back_to_the_title() -> None:
    problem = Problem(Code.PG01, "")
    assert json.loads(json_body(problem, ""))["error"]["message"] == TABLE[Code.PG01].title
    assert json.loads(jsonrpc_body(problem, b"1", ""))["error"]["message"] == TABLE[Code.PG01].title


@pytest.mark.parametrize("code", [code for code in Code if TABLE[code].opaque])
def test_an_opaque_problem_hides_its_reason(code: Code) -> None:
    one, other = Problem(code, "forged", "tools", "i-1"), Problem(code, "of another principal", "tools", "i-2")
    assert json_body(one, "r") == json_body(other, "r")
    assert jsonrpc_body(one, b"", "r") == jsonrpc_body(other, b"", "r")
    assert text_body(one) == text_body(other)


def test_unknown_and_foreign_sessions_are_opaque() -> None:
    assert TABLE[Code.PS01].opaque
    assert TABLE[Code.PS04].opaque


@given(code=st.sampled_from(Code), message=ANY_TEXT, app=ANY_TEXT, instance=ANY_TEXT, request_id=ANY_TEXT)
def test_bodies_are_one_line_of_ascii(code: Code, message: str, app: str, instance: str, request_id: str) -> None:
    problem = Problem(code, message, app, instance)
    for body in (json_body(problem, request_id), jsonrpc_body(problem, b"1", request_id), text_body(problem)[:-1]):
        assert body.isascii()
        assert b"\n" not in body
        assert b"\r" not in body
    assert json.loads(json_body(problem, request_id))["error"]["request_id"] == request_id
