"""The table of fields: hop-by-hop ones stay here, routing ones come once, the gateway's own names are its own."""

from __future__ import annotations

import pytest

from gateway.core.fields import (
    FIELDS,
    LISTED_MEMBERS,
    Field,
    deletable,
    refused_in_trailer,
    reserved,
    settable,
    shadows,
)


def test_the_table_is_keyed_by_lower_case_names() -> None:
    assert all(name == name.lower() and b"_" not in name for name in FIELDS)


@pytest.mark.parametrize(
    "name",
    # RFC 9110 7.6.1, RFC 9112 6.1 and 9.6, RFC 9113 3.2.1; Proxy-Authorization is for the proxy that asked for it.
    [
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"http2-settings",
        b"proxy-authenticate", b"proxy-authorization", b"expect", b"host", b"content-length",
    ],
)  # fmt: skip
def test_fields_of_one_hop_never_go_on_as_they_came(name: bytes) -> None:
    assert FIELDS[name] in (Field.OWN, Field.LIST, Field.DROP)


@pytest.mark.parametrize(
    "name",
    # MCP, transports: first and last readers differ; the others decide who is asked, for what, on whose behalf.
    [
        b"host", b"content-length", b"transfer-encoding", b"mcp-session-id", b"mcp-protocol-version", b"mcp-method",
        b"mcp-name", b"authorization", b"content-type", b"origin", b"last-event-id", b"fly-force-instance-id",
        b"fly-prefer-instance-id", b"fly-prefer-region", b"fly-force-region", b"fly-replay-cache-control",
    ],
)  # fmt: skip
def test_routing_fields_may_not_repeat(name: bytes) -> None:
    assert FIELDS[name] in (Field.SINGLE, Field.STEER, Field.OWN)


def test_a_connection_field_may_name_what_a_hop_is_about() -> None:
    assert {b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings"} <= LISTED_MEMBERS


@pytest.mark.parametrize(
    ("name", "is_reserved"),
    [(b"fly-replay-src", True), (b"fly-x", True), (b"moorage-error", True), (b"flyer", False), (b"x-fly-a", False)],
)
def test_reserved_names(name: bytes, is_reserved: bool) -> None:
    assert reserved(name) is is_reserved


@pytest.mark.parametrize(
    ("name", "is_shadow"),
    [
        (b"content_length", True),
        (b"transfer_encoding", True),
        (b"mcp_session_id", True),
        (b"mcp_param_x", True),
        (b"fly_replay_src", True),
        (b"fly-replay_src", True),
        (b"moorage_error", True),
        (b"x_forwarded_for", True),
        (b"x_request_id", False),
        (b"_", False),
    ],
)
def test_names_that_shadow_a_routing_field(name: bytes, is_shadow: bool) -> None:
    assert shadows(name) is is_shadow


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        (b"content-length", True),
        (b"content_length", True),
        (b"host", True),
        (b"authorization", True),
        (b"mcp-param-x", True),
        (b"fly-anything", True),
        (b"moorage-anything", True),
        (b"x-forwarded-anything", True),
        (b"x_forwarded_for", True),
        (b"server-timing", False),
        (b"x-checksum", False),
        (b"grpc-status", False),
    ],
)
def test_what_may_come_as_a_trailer(name: bytes, refused: bool) -> None:
    assert refused_in_trailer(name) is refused


@pytest.mark.parametrize(
    ("name", "may_delete", "may_set"),
    [
        (b"cookie", True, True),
        (b"authorization", True, True),
        (b"content-type", True, True),
        (b"mcp-protocol-version", True, True),
        (b"mcp-param-basket", True, True),
        (b"x-tenant", True, True),
        (b"x_request_id", True, True),
        (b"x-forwarded-prefix", True, True),
        # Never reaches an app: may be named in vain, not written.
        (b"te", True, False),
        (b"forwarded", True, False),
        (b"proxy-authorization", True, False),
        (b"fly-force-instance-id", True, False),
        (b"fly-anything", True, False),
        (b"moorage-anything", True, False),
        (b"x_forwarded_for", True, False),
        (b"mcp_session_id", True, False),
        # Written anew for every hop.
        (b"host", False, False),
        (b"content-length", False, False),
        (b"transfer-encoding", False, False),
        (b"expect", False, False),
        (b"connection", False, False),
        (b"upgrade", False, False),
        (b"via", False, False),
        (b"x-forwarded-for", False, False),
        (b"x-forwarded-proto", False, False),
        (b"mcp-session-id", False, False),
    ],
)
def test_what_a_replay_may_do_to_a_field(name: bytes, may_delete: bool, may_set: bool) -> None:
    assert (deletable(name), settable(name)) == (may_delete, may_set)


def test_a_replay_writes_no_field_that_a_head_would_not_pass_on() -> None:
    for name, field in FIELDS.items():
        assert settable(name) is (field in (Field.PASS, Field.SINGLE))
