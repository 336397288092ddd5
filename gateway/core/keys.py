"""An app's `key` rules: which value of a request it is pinned by.

A key is the value under its rule's name, so that values of different rules never meet on one place of the hash
ring. Values are compared byte for byte after decoding; nothing is trimmed or folded.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Protocol, assert_never
from urllib.parse import unquote_to_bytes

from gateway.core.model import App, KeyRule, KeySource
from gateway.core.principal import principal

_SENTINEL_START = b"=?base64?"
_SENTINEL_END = b"?="


class Head(Protocol):
    """What classification needs of a request's head (`gateway.core.head.RequestHead`)."""

    @property
    def method(self) -> bytes: ...

    @property
    def query(self) -> bytes: ...

    @property
    def values(self) -> Mapping[bytes, bytes]: ...


def key_of(app: App, head: Head, *, modern: bool) -> bytes:
    """The first `key` rule's value that the request carries, under the rule's name; empty for none.

    `mcp-param` rules count on 2026-07-28 requests only: on others nothing makes the header agree with the body
    (MCP 2026-07-28, transports: intermediaries check the protocol version before they trust mirrored headers).
    """
    for rule in app.key:
        value = _value(rule, head, modern)
        if value:
            return f"{rule.source}:{rule.name}=".encode() + value
    return b""


def decode_mcp_value(value: bytes) -> bytes | None:
    """The text behind an Mcp-Name or Mcp-Param-* header; None for a broken base64 sentinel.

    MCP 2026-07-28, transports, "Header value encoding": the sentinel's markers are lower case, its payload is
    canonical standard base64 of UTF-8.
    """
    if not (value.startswith(_SENTINEL_START) and value.endswith(_SENTINEL_END)):
        return value
    payload = value[len(_SENTINEL_START) : -len(_SENTINEL_END)]
    try:
        decoded = binascii.a2b_base64(payload, strict_mode=True)
        decoded.decode()
    except ValueError:
        return None
    return decoded if binascii.b2a_base64(decoded, newline=False) == payload else None


def query_value(query: bytes, name: bytes) -> bytes | None:
    """The first parameter of this name in a raw query, percent-decoded; None when it is not there."""
    for part in query.split(b"&"):
        found, equals, value = part.partition(b"=")
        if equals and _unquote(found) == name:
            return _unquote(value)
    return None


def cookie_value(cookies: bytes, name: bytes) -> bytes | None:
    """The first cookie of this name in a Cookie header, as sent; None when it is not there (RFC 6265 4.2)."""
    for part in cookies.split(b";"):
        found, equals, value = part.partition(b"=")
        if equals and found.strip(b" \t") == name:
            return value.strip(b" \t")
    return None


def _value(rule: KeyRule, head: Head, modern: bool) -> bytes | None:
    match rule.source:
        case KeySource.HEADER:
            return head.values.get(rule.name.encode())
        case KeySource.COOKIE:
            return cookie_value(head.values.get(b"cookie", b""), rule.name.encode())
        case KeySource.QUERY:
            return query_value(head.query, rule.name.encode())
        case KeySource.MCP_PARAM:
            raw = head.values.get(b"mcp-param-" + rule.name.lower().encode()) if modern else None
            return None if raw is None else decode_mcp_value(raw)
        case KeySource.PRINCIPAL:
            return principal(head.values.get(b"authorization"))
        case _:
            assert_never(rule.source)


def _unquote(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" ")) if b"%" in raw or b"+" in raw else raw
