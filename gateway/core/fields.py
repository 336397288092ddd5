"""What each header field is to the gateway: the one table behind parsing, dropping and refusing.

Sources: RFC 9110 7.6.1 (hop-by-hop), Fly's pages "Request headers" and "Dynamic request routing" (fly-*),
MCP transports 2025-11-25 and 2026-07-28 (mcp-*).
"""

from __future__ import annotations

from enum import Enum


class Field(Enum):
    """A closed set; the comment of each member says what happens to the field's line."""

    PASS = "pass"  # goes on as it is, may repeat
    SINGLE = "single"  # goes on as it is, refused when it repeats: readers would disagree
    STEER = "steer"  # obeyed and taken out, refused when it repeats
    OWN = "own"  # taken out and written anew for the next hop, refused when it repeats
    LIST = "list"  # taken out, read by the gateway, may repeat
    DROP = "drop"  # never goes on


FIELDS: dict[bytes, Field] = {
    b"host": Field.OWN,
    b"content-length": Field.OWN,
    b"transfer-encoding": Field.OWN,
    b"expect": Field.OWN,
    b"connection": Field.LIST,
    b"upgrade": Field.LIST,
    b"keep-alive": Field.DROP,
    b"proxy-connection": Field.DROP,
    b"proxy-authenticate": Field.DROP,
    b"proxy-authorization": Field.DROP,
    b"te": Field.DROP,
    b"http2-settings": Field.DROP,
    b"via": Field.LIST,
    b"x-forwarded-for": Field.LIST,
    b"x-forwarded-host": Field.LIST,
    b"x-forwarded-proto": Field.LIST,
    b"x-forwarded-port": Field.LIST,
    b"x-forwarded-ssl": Field.LIST,
    b"forwarded": Field.DROP,
    b"mcp-session-id": Field.OWN,
    b"mcp-protocol-version": Field.SINGLE,
    b"mcp-method": Field.SINGLE,
    b"mcp-name": Field.SINGLE,
    b"authorization": Field.SINGLE,
    b"content-type": Field.SINGLE,
    b"origin": Field.SINGLE,
    b"last-event-id": Field.SINGLE,
    b"fly-force-instance-id": Field.STEER,
    b"fly-prefer-instance-id": Field.STEER,
    b"fly-force-region": Field.STEER,
    b"fly-prefer-region": Field.STEER,
    b"fly-replay-cache-control": Field.STEER,
}

LISTED_MEMBERS = frozenset(
    {b"close", b"keep-alive", b"upgrade", b"te", b"trailers", b"http2-settings", b"proxy-connection", b""}
)
"""Members of a Connection field that name no field of the message's own."""

_PREFIXES = (b"fly-", b"moorage-")
_TRAILER_REFUSED = (b"mcp-", b"fly-", b"moorage-", b"x-forwarded-")


def reserved(name: bytes) -> bool:
    """Whether a field name (lower case) belongs to the gateway, so that no client or app may set it."""
    return name.startswith(_PREFIXES)


def shadows(name: bytes) -> bool:
    """Whether a name with `_` would be read as a routing field by a server that folds `_` to `-` (CGI, WSGI)."""
    folded = name.replace(b"_", b"-")
    return folded in FIELDS or folded.startswith(_PREFIXES) or folded.startswith(b"mcp-")


def refused_in_trailer(name: bytes) -> bool:
    """Whether a field may not come as a trailer (RFC 9110 6.5.1: framing, routing and authentication fields)."""
    folded = name.replace(b"_", b"-")
    return folded in FIELDS or folded.startswith(_TRAILER_REFUSED)


def deletable(name: bytes) -> bool:
    """Whether a replay may take a field (lower case) out of the request: not what the gateway itself writes.

    What never reaches an app anyway may be named; there is nothing to take out.
    """
    return FIELDS.get(name) not in (Field.OWN, Field.LIST)


def settable(name: bytes) -> bool:
    """Whether a replay may write a field (lower case) into the request: what a client could have sent itself."""
    field = FIELDS.get(name)
    if field is None:
        return not reserved(name) and not (b"_" in name and shadows(name))
    return field in (Field.PASS, Field.SINGLE)
