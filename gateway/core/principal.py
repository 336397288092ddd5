"""Who is calling, as far as routing goes.

A principal is a digest made from the Authorization header. It routes and it binds session ids; it authorises
nothing. A token's claims are read without verifying its signature on purpose: whoever forges another caller's
subject gets as far as that caller's instance, and the instance, which alone can verify the token, refuses it.
Reading the subject rather than hashing the token keeps a session across token refresh.
"""

from __future__ import annotations

import binascii
import hashlib
import json

MAX_CLAIMS_BYTES = 16_384
"""Longer payload segments are not parsed; the header's own digest names their bearer. Twice the header limit of
most servers, so no token that reaches an instance is affected."""

_URL_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def principal(authorization: bytes | None) -> bytes | None:
    """A 16-byte name for the bearer of these credentials; None without credentials. Never raises.

    A bearer token that is a JWT with a `sub` is named by (iss, sub, client_id or azp); everything else by the
    header's whole value.
    """
    if authorization is None:
        return None
    if authorization[:7].lower() == b"bearer ":
        parts = authorization[7:].strip(b" \t").split(b".")
        if len(parts) == 3:
            claims = _claims(parts[1])
            if claims is not None:
                return _digest(b"moorage-subject", *claims)
    return _digest(b"moorage-header", authorization)


def address_key(client_ip: str) -> bytes:
    """What stands in for a principal when there are no credentials: the client's address, under a tag of its own."""
    return b"ip:" + client_ip.encode("utf-8", "replace")


def _digest(person: bytes, *fields: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16, person=person)
    for one in fields:
        digest.update(len(one).to_bytes(4, "big"))
        digest.update(one)
    return digest.digest()


def _claims(segment: bytes) -> tuple[bytes, bytes, bytes] | None:
    """(iss, sub, client) of a JWT's payload segment; None when there is no subject to be read."""
    if len(segment) > MAX_CLAIMS_BYTES:
        return None
    try:
        raw = binascii.a2b_base64(segment.translate(_URL_TO_STANDARD) + b"=" * (-len(segment) % 4))
        claims = json.loads(raw)
    # RFC 7519 payloads are JSON; RecursionError is what json raises on deep nesting, and it is no ValueError.
    except (ValueError, RecursionError):
        return None
    if not isinstance(claims, dict) or not isinstance(claims.get("sub"), str):
        return None
    client = claims.get("client_id", claims.get("azp"))
    return _field(claims.get("iss")), _field(claims["sub"]), _field(client)


def _field(value: object) -> bytes:
    # A JSON string may hold a lone surrogate, which plain UTF-8 refuses to encode.
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b""
