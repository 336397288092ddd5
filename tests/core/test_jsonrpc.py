"""Looks into bodies are right about messages and harmless about everything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import jsonrpc
from gateway.core.jsonrpc import MAX_ID_BYTES, MAX_PEEK_BYTES, Message, Shape, load, peek_id, raw_id, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def body(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def test_a_request_has_method_id_and_params() -> None:
    assert read(body(id=7, method="tools/call", params={"a": 1})) == Message("tools/call", b"7", {"a": 1})


def test_a_notification_has_no_id() -> None:
    assert read(body(method="notifications/initialized")) == Message("notifications/initialized", b"", {})


@pytest.mark.parametrize("answer", [{"result": {}}, {"error": {}}, {"method": 1}])
def test_the_id_of_a_response_is_the_other_sides(answer: dict[str, object]) -> None:
    assert read(body(id=7, **answer)) == Message("", b"", {})
    assert peek_id(body(id=7, **answer)) == ("", b"")


def test_params_that_are_no_object_count_as_none() -> None:
    assert read(body(method="m", params=[1])) == Message("m", b"", {})


def test_a_batch_is_all_messages() -> None:
    assert read(b"[" + body(method="m") + b"]") is Shape.BATCH
    assert read(b"[]") is Shape.OPAQUE
    assert read(b"[" + body(method="m") + b", 1]") is Shape.OPAQUE
    assert peek_id(b"[" + body(id=1, method="m") + b"]") == ("", b"")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b'"text"',
        b"{}",
        b'{"jsonrpc": "1.0", "method": "m"}',
        b'{"jsonrpc": "2.0", "method": "m", "x": NaN}',
        b'{"jsonrpc": "2.0", "method": "m", "x": -Infinity}',
        b'{"jsonrpc": "2.0", "id": ' + b"9" * 5000 + b', "method": "m"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe" + '{"jsonrpc": "2.0", "method": "m"}'.encode("utf-16-le"),
        b'{"jsonrpc": "2.0", "method": "m\xff"}',
    ],
)
def test_what_is_not_json_rpc_is_opaque(raw: bytes) -> None:
    assert read(raw) is Shape.OPAQUE
    assert peek_id(raw) == ("", b"")


def test_a_byte_order_mark_is_forgiven() -> None:
    assert peek_id(b"\xef\xbb\xbf" + body(id=1, method="m")) == ("m", b"1")


def test_what_is_too_long_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    long = body(method="m", params={"a": "x" * MAX_PEEK_BYTES})
    assert read(long) is Shape.OPAQUE
    monkeypatch.setattr(jsonrpc, "MAX_PEEK_BYTES", len(long))
    assert isinstance(read(long), Message)
    monkeypatch.setattr(jsonrpc, "MAX_PEEK_BYTES", len(long) - 1)
    assert load(long) is None


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (1, b"1"),
        (-0.5, b"-0.5"),
        ("a", b'"a"'),
        ("\u00e9\ud800\r\n", b'"\\u00e9\\ud800\\r\\n"'),
        (True, b""),
        (None, b""),
        ([1], b""),
        ({}, b""),
        (float("inf"), b""),
        (float("-inf"), b""),
        ("x" * MAX_ID_BYTES, b""),
        ("x" * (MAX_ID_BYTES - 2), b'"' + b"x" * (MAX_ID_BYTES - 2) + b'"'),
    ],
)
def test_ids_are_strings_and_numbers(value: object, raw: bytes) -> None:
    assert raw_id(value) == raw


@given(JSON)
def test_any_json_is_read(value: object) -> None:
    assert isinstance(read(json.dumps(value).encode()), (Message, Shape))
    assert load(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    assert isinstance(read(raw), (Message, Shape))


@given(st.text(max_size=50) | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_an_id_comes_back_as_it_was(value: object) -> None:
    raw = peek_id(body(id=value, method="m"))[1]
    assert json.loads(raw) == value
    assert raw.isascii()
    assert b"\n" not in raw
    assert b"\r" not in raw
