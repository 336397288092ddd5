"""What each request of the four MCP dialects, and of none, is taken for."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.classify import (
    HANDSHAKE_VERSIONS,
    classify,
    classify_body,
    classify_unread,
    state_key,
    stream_pin,
    task_key,
    without_pin,
)
from gateway.core.keys import Head
from gateway.core.model import AppProtocol, Dialect, Intent, KeyRule, KeySource, Kind
from gateway.core.problems import Code, Problem
from tests.core.builders import app, head

APP = app()
BY_HEADER = app(key=(KeyRule(KeySource.HEADER, "x-tenant"),))
BY_PARAM = app(key=(KeyRule(KeySource.MCP_PARAM, "Basket"),))
MODERN = "2026-07-28"
CLAIM = {"_meta": {"io.modelcontextprotocol/protocolVersion": MODERN}}


def message(method: str = "tools/call", id: object = 1, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def modern(method: str, /, **fields: str | bytes) -> Any:
    return head("POST", "/mcp", mcp_protocol_version=MODERN, mcp_method=method, **fields)


def json_post(**fields: str) -> Any:
    return head("POST", "/mcp", content_type="application/json", **fields)


def test_an_http_app_is_not_looked_into() -> None:
    plain = app(protocol=AppProtocol.HTTP)
    for request in (json_post(mcp_session_id="x"), head(accept="text/event-stream"), modern("tools/call")):
        assert classify(plain, request) == Intent(Kind.PLAIN, Dialect.HTTP)
    keyed = app(protocol=AppProtocol.HTTP, key=BY_HEADER.key)
    assert classify(keyed, head(x_tenant="a")) == Intent(Kind.PLAIN, Dialect.HTTP, key=b"header:x-tenant=a")


@pytest.mark.parametrize("protocol", [AppProtocol.AUTO, AppProtocol.MCP])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("version", [None, *sorted(HANDSHAKE_VERSIONS)])
def test_a_session_id_is_a_session(protocol: AppProtocol, method: str, version: bytes | None) -> None:
    fields = {} if version is None else {"mcp_protocol_version": version}
    request = head(method, "/mcp?moorage_pin=x", mcp_session_id="seal.id", accept="text/event-stream", **fields)
    assert classify(app(protocol=protocol), request) == Intent(Kind.IN_SESSION, Dialect.SESSION_2025, b"seal.id")


def test_a_session_id_on_a_modern_request_is_ignored() -> None:
    request = modern("server/discover", mcp_session_id="seal.id")
    assert classify(APP, request) == Intent(Kind.ANYWHERE, Dialect.STATELESS_2026, rpc_method="server/discover")


def test_a_session_id_under_an_unknown_version_is_still_a_session() -> None:
    # Its instance says that the version is unknown; any other would say that the session is.
    request = head("POST", "/mcp", mcp_session_id="seal.id", mcp_protocol_version="1999-01-01")
    assert classify(APP, request) == Intent(Kind.IN_SESSION, Dialect.SESSION_2025, b"seal.id")


def test_the_key_rules_count_for_every_kind() -> None:
    key = b"header:x-tenant=a"
    for request in (
        head(x_tenant="a"),
        head(x_tenant="a", accept="text/event-stream"),
        json_post(x_tenant="a"),
        head(x_tenant="a", mcp_session_id="x"),
        head("POST", "/?moorage_pin=x", x_tenant="a"),
        modern("tools/list", x_tenant="a"),
        modern("tools/call", x_tenant="a"),
    ):
        intent = classify(BY_HEADER, request)
        assert isinstance(intent, Intent)
        assert intent.key == key


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json, Text/Event-Stream;q=0.9"])
def test_a_get_for_events_may_open_a_2024_stream(accept: str) -> None:
    assert classify(APP, head(accept=accept)) == Intent(Kind.LEGACY_STREAM, Dialect.SSE_2024)


@pytest.mark.parametrize(
    "request_",
    [head(), head(accept="text/html"), head("HEAD", accept="text/event-stream"), head("DELETE"), head("POST")],
)
def test_the_rest_is_plain(request_: Head) -> None:
    assert classify(APP, request_) == Intent(Kind.PLAIN, Dialect.HTTP)


def test_a_pin_in_the_query_makes_a_2024_post() -> None:
    request = head("POST", "/messages/?session_id=1&moorage_pin=abc", content_type="application/json")
    assert classify(APP, request) == Intent(Kind.LEGACY_POST, Dialect.SSE_2024, b"abc")
    assert classify(APP, head("GET", "/?moorage_pin=abc")) == Intent(Kind.PLAIN, Dialect.HTTP)


@pytest.mark.parametrize(
    ("query", "pin"),
    [
        (b"", None),
        (b"moorage_pin", None),
        (b"xmoorage_pin=a", None),
        (b"moorage_pin=", b""),
        (b"moorage_pin=a&x=1", b"a"),
        (b"moorage_pin=inner&moorage_pin=outer", b"outer"),
    ],
)
def test_the_last_pin_is_this_gateways(query: bytes, pin: bytes | None) -> None:
    assert stream_pin(query) == pin


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        (b"", b""),
        (b"a=1&b", b"a=1&b"),
        (b"moorage_pin=x", b""),
        (b"a=1&moorage_pin=x&b=2", b"a=1&b=2"),
        (b"moorage_pin=inner&moorage_pin=outer", b"moorage_pin=inner"),
        (b"a=&&moorage_pin=x&", b"a=&&"),
    ],
)
def test_only_this_gateways_pin_is_taken_out(query: bytes, rest: bytes) -> None:
    assert without_pin(query) == rest


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/json", Kind.NEEDS_BODY),
        ("Application/JSON; charset=utf-8", Kind.NEEDS_BODY),
        ("application/json ;x=1", Kind.NEEDS_BODY),
        ("application/json-patch+json", Kind.PLAIN),
        ("application/jsonl", Kind.PLAIN),
        ("text/plain", Kind.PLAIN),
    ],
)
def test_a_json_post_may_be_mcp(content_type: str, kind: Kind) -> None:
    assert classify(APP, head("POST", "/", content_type=content_type)) == Intent(kind, Dialect.HTTP)


class TestBodies:
    def test_initialize_makes_a_session(self) -> None:
        assert classify_body(APP, json_post(), message("initialize", "i")) == Intent(
            Kind.INITIALIZE, Dialect.SESSION_2025, rpc_method="initialize", rpc_id=b'"i"'
        )

    def test_initialize_may_name_its_version(self) -> None:
        request = json_post(mcp_protocol_version="2025-06-18")
        claim = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2025-06-18"}}
        intent = classify_body(APP, request, message("initialize", **claim))
        assert isinstance(intent, Intent)
        assert intent.kind is Kind.INITIALIZE

    def test_other_messages_go_anywhere_and_get_json_rpc_errors(self) -> None:
        assert classify_body(BY_HEADER, json_post(x_tenant="a"), message("tools/list", 5)) == Intent(
            Kind.PLAIN, Dialect.SESSION_2025, b"", "tools/list", b"5", b"header:x-tenant=a"
        )

    def test_initialize_in_a_batch_makes_no_session(self) -> None:
        batch = b"[" + message("initialize") + b"]"
        assert classify_body(APP, json_post(), batch) == Intent(Kind.PLAIN, Dialect.SESSION_2025)

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"method": "initialize"}', b"[" * 100_000, b"\xff"])
    def test_other_json_is_plain_http(self, body: bytes) -> None:
        assert classify_body(APP, json_post(), body) == Intent(Kind.PLAIN, Dialect.HTTP)

    @pytest.mark.parametrize("method", ["initialize", "tools/call"])
    def test_a_body_may_claim_the_modern_era_by_itself(self, method: str) -> None:
        assert classify_body(APP, json_post(), message(method, **CLAIM)) == Intent(
            Kind.PRINCIPAL, Dialect.STATELESS_2026, b"", method, b"1"
        )

    @pytest.mark.parametrize("meta", [1, None, {}, {"io.modelcontextprotocol/protocolVersion": 7}])
    def test_a_broken_claim_is_none(self, meta: object) -> None:
        intent = classify_body(APP, json_post(), message("initialize", _meta=meta))
        assert isinstance(intent, Intent)
        assert intent.kind is Kind.INITIALIZE


class TestModern:
    @pytest.mark.parametrize(
        "method",
        [
            "server/discover",
            "tools/list",
            "prompts/list",
            "resources/list",
            "resources/templates/list",
            "completion/complete",
        ],
    )
    def test_lists_and_discovery_go_anywhere(self, method: str) -> None:
        assert classify(APP, modern(method)) == Intent(Kind.ANYWHERE, Dialect.STATELESS_2026, rpc_method=method)

    @pytest.mark.parametrize("method", ["subscriptions/listen", "notifications/x", "tasks/get", "vendor/thing"])
    def test_the_rest_goes_by_principal(self, method: str) -> None:
        assert classify(APP, modern(method)) == Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026, rpc_method=method)

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_what_is_no_post_goes_anywhere(self, method: str) -> None:
        request = head(method, "/mcp", mcp_protocol_version=MODERN, accept="text/event-stream")
        assert classify(APP, request) == Intent(Kind.ANYWHERE, Dialect.STATELESS_2026)

    @pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
    def test_tasks_go_by_their_name(self, method: str) -> None:
        plain = classify(APP, modern(method, mcp_name="t-1"))
        assert plain == Intent(Kind.TASK, Dialect.STATELESS_2026, task_key(b"t-1"), method)
        encoded = b"=?base64?" + base64.b64encode("t\u00e9".encode()) + b"?="
        intent = classify(APP, modern(method, mcp_name=encoded))
        assert isinstance(intent, Intent)
        assert intent.token == task_key("t\u00e9".encode())

    def test_a_broken_name_is_refused_as_the_specification_says(self) -> None:
        problem = classify(APP, modern("tasks/get", mcp_name="=?base64?!?="))
        assert isinstance(problem, Problem)
        assert problem.code is Code.PB12

    def test_an_empty_name_is_none(self) -> None:
        intent = classify(APP, modern("tasks/get", mcp_name=""))
        assert isinstance(intent, Intent)
        assert intent.kind is Kind.PRINCIPAL

    @pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
    def test_what_may_continue_is_looked_into(self, method: str) -> None:
        intent = Intent(Kind.NEEDS_BODY, Dialect.STATELESS_2026, rpc_method=method, learns=True)
        assert classify(APP, modern(method)) == intent

    @pytest.mark.parametrize("fields", [{}, {"mcp_method": "initialize"}])
    def test_what_may_be_a_handshake_is_looked_into(self, fields: dict[str, str]) -> None:
        # Servers that read the body first take `initialize` without a claim for the old era.
        request = head("POST", "/mcp", mcp_protocol_version=MODERN, **fields)
        intent = classify(APP, request)
        assert isinstance(intent, Intent)
        assert (intent.kind, intent.learns) == (Kind.NEEDS_BODY, False)
        assert classify_body(APP, request, message("initialize")) == Intent(
            Kind.INITIALIZE, Dialect.SESSION_2025, b"", "initialize", b"1"
        )

    def test_a_claiming_initialize_is_no_handshake(self) -> None:
        assert classify_body(APP, modern("initialize"), message("initialize", **CLAIM)) == Intent(
            Kind.PRINCIPAL, Dialect.STATELESS_2026, b"", "initialize", b"1"
        )

    def test_a_retry_goes_by_its_state(self) -> None:
        intent = classify_body(APP, modern("tools/call"), message(requestState="opaque", name="x"))
        assert intent == Intent(
            Kind.STATE, Dialect.STATELESS_2026, state_key("opaque"), "tools/call", b"1", learns=True
        )

    @pytest.mark.parametrize("params", [{}, {"requestState": None}, {"requestState": 7}, {"x": {"requestState": "s"}}])
    def test_a_first_call_goes_by_principal(self, params: dict[str, object]) -> None:
        intent = classify_body(APP, modern("tools/call"), message("tools/call", 1, **params))
        assert intent == Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026, b"", "tools/call", b"1", learns=True)

    def test_a_handle_stands_above_the_principal_and_below_the_state(self) -> None:
        request = modern("tools/call", mcp_param_basket="b-1")
        key = b"mcp-param:Basket=b-1"
        assert classify_body(BY_PARAM, request, message()) == Intent(
            Kind.PLAIN, Dialect.STATELESS_2026, b"", "tools/call", b"1", key, learns=True
        )
        retry = classify_body(BY_PARAM, request, message(requestState="s"))
        assert isinstance(retry, Intent)
        assert (retry.kind, retry.key) == (Kind.STATE, key)

    def test_state_in_other_methods_is_not_looked_for(self) -> None:
        request = head("POST", "/mcp", mcp_protocol_version=MODERN)
        intent = classify_body(APP, request, message("vendor/thing", requestState="s"))
        assert intent == Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026, b"", "vendor/thing", b"1")

    @pytest.mark.parametrize("method", ["tools/list", "tools/call2", "", "t\u00e9"])
    def test_a_header_that_lies_about_the_method_is_refused(self, method: str) -> None:
        problem = classify_body(APP, modern("tools/call"), message(method))
        assert isinstance(problem, Problem)
        assert problem.code is Code.PB12
        assert problem.app == "tools"

    @pytest.mark.parametrize("body", [b"", b"[]", b"[" + message() + b"]", b"{"])
    def test_what_is_no_message_is_for_the_instance_to_refuse(self, body: bytes) -> None:
        assert classify_body(APP, modern("tools/call"), body) == Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026)


class TestUnread:
    def test_a_long_modern_call_goes_by_principal(self) -> None:
        intent = Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026, rpc_method="tools/call", learns=True)
        assert classify_unread(APP, modern("tools/call")) == intent
        assert not classify_unread(APP, modern("x")).learns

    def test_a_long_json_post_is_plain(self) -> None:
        intent = Intent(Kind.PLAIN, Dialect.HTTP, key=b"header:x-tenant=a")
        assert classify_unread(BY_HEADER, json_post(x_tenant="a")) == intent


def test_states_of_any_text_have_a_key() -> None:
    assert state_key("a") != state_key("b")
    assert len(state_key("\ud800" * 10_000)) == 32


NAMES = st.sampled_from(
    [
        b"mcp-session-id",
        b"mcp-protocol-version",
        b"mcp-method",
        b"mcp-name",
        b"mcp-param-basket",
        b"content-type",
        b"accept",
        b"authorization",
        b"cookie",
        b"x-tenant",
    ]
)
TELLING = st.sampled_from(
    [
        b"2026-07-28",
        b"2025-11-25",
        b"application/json",
        b"text/event-stream",
        b"tools/call",
        b"tasks/get",
        b"initialize",
    ]
)
ALL_RULES = app(key=tuple(KeyRule(source, "basket") for source in KeySource))


@given(
    method=st.sampled_from([b"GET", b"POST", b"DELETE"]) | st.binary(max_size=8),
    query=st.binary(max_size=60) | st.binary(max_size=20).map(lambda raw: b"moorage_pin=" + raw),
    values=st.dictionaries(NAMES, st.binary(max_size=60) | TELLING),
    body=st.binary(max_size=120)
    | st.builds(message, st.text(max_size=12) | st.sampled_from(["initialize", "tools/call"]), requestState=st.text()),
)
def test_no_bytes_raise(method: bytes, query: bytes, values: dict[bytes, bytes], body: bytes) -> None:
    request = cast(Head, SimpleNamespace(method=method, query=query, values=values))
    for of_app in (APP, ALL_RULES):
        assert isinstance(classify(of_app, request), (Intent, Problem))
        read = classify_body(of_app, request, body)
        assert isinstance(read, (Intent, Problem))
        assert not (isinstance(read, Intent) and read.kind is Kind.NEEDS_BODY)
        assert isinstance(classify_unread(of_app, request), Intent)
