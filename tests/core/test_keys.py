"""The first `key` rule present decides; values are decoded as the sender meant them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.keys import cookie_value, decode_mcp_value, key_of, query_value
from gateway.core.model import KeyRule, KeySource
from gateway.core.principal import principal
from tests.core.builders import app, head

HEADER = KeyRule(KeySource.HEADER, "x-session")
COOKIE = KeyRule(KeySource.COOKIE, "sid")
QUERY = KeyRule(KeySource.QUERY, "session")
PARAM = KeyRule(KeySource.MCP_PARAM, "Basket")
PRINCIPAL = KeyRule(KeySource.PRINCIPAL, "")


def sentinel(text: str) -> bytes:
    return b"=?base64?" + base64.b64encode(text.encode()) + b"?="


def test_each_source_is_read() -> None:
    request = head(
        "GET",
        "/?a=1&session=s%201",
        x_session="h",
        cookie="a=b; sid=c; sid=d",
        mcp_param_basket=sentinel("b\u00fc"),
        authorization="Bearer t",
    )
    who = principal(b"Bearer t")
    assert who is not None
    assert key_of(app(key=(HEADER,)), request, modern=False) == b"header:x-session=h"
    assert key_of(app(key=(COOKIE,)), request, modern=False) == b"cookie:sid=c"
    assert key_of(app(key=(QUERY,)), request, modern=False) == b"query:session=s 1"
    assert key_of(app(key=(PARAM,)), request, modern=True) == b"mcp-param:Basket=" + "b\u00fc".encode()
    assert key_of(app(key=(PRINCIPAL,)), request, modern=False) == b"principal:=" + who


def test_the_first_rule_present_counts() -> None:
    rules = (COOKIE, HEADER, PRINCIPAL)
    assert key_of(app(key=rules), head(x_session="h", authorization="x"), modern=False) == b"header:x-session=h"
    assert key_of(app(key=rules), head(x_session="h", cookie="sid=1"), modern=False) == b"cookie:sid=1"
    assert key_of(app(key=rules), head(), modern=False) == b""
    assert key_of(app(key=rules), head(x_session=""), modern=False) == b""


def test_mirrored_params_count_on_modern_requests_only() -> None:
    assert key_of(app(key=(PARAM,)), head(mcp_param_basket="b"), modern=False) == b""
    assert key_of(app(key=(PARAM,)), head(mcp_param_basket="b"), modern=True) == b"mcp-param:Basket=b"
    assert key_of(app(key=(PARAM,)), head(mcp_param_basket="=?base64?!?="), modern=True) == b""


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        (b"plain", b"plain"),
        (b"", b""),
        (sentinel("\u00e9"), "\u00e9".encode()),
        (sentinel(""), b""),
        (b"=?BASE64?YQ==?=", b"=?BASE64?YQ==?="),
        (b"=?base64?YQ==", b"=?base64?YQ=="),
        (b"=?base64?YQ?=", None),
        (b"=?base64?YR==?=", None),
        (b"=?base64?Y Q==?=", None),
        (b"=?base64?/w==?=", None),
        (b"=?base64?-_-_?=", None),
    ],
)
def test_the_sentinel_is_decoded(value: bytes, decoded: bytes | None) -> None:
    assert decode_mcp_value(value) == decoded


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_survives_the_sentinel(text: str) -> None:
    assert decode_mcp_value(sentinel(text)) == text.encode()


@given(st.binary(max_size=60))
def test_no_bytes_raise(raw: bytes) -> None:
    decode_mcp_value(raw)
    decode_mcp_value(b"=?base64?" + raw + b"?=")
    query_value(raw, b"a")
    cookie_value(raw, b"a")


def test_queries_are_percent_decoded() -> None:
    assert query_value(b"x=1&%61=b+c%2Bd", b"a") == b"b c+d"
    assert query_value(b"a=1&a=2", b"a") == b"1"
    assert query_value(b"a=", b"a") == b""
    assert query_value(b"a", b"a") is None
    assert query_value(b"", b"a") is None


def test_cookies_are_split_at_semicolons() -> None:
    assert cookie_value(b"x=1;a=b=c ; y=2", b"a") == b"b=c"
    assert cookie_value(b"aa=1; a", b"a") is None
    assert cookie_value(b"", b"a") is None
