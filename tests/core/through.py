"""Heads on their way through the gateway: what an instance and a client would be sent."""

from __future__ import annotations

import ipaddress

from gateway.core.head import RequestHead, ResponseHead, parse_response
from gateway.core.headers import Network, Peer, peer, request_head, request_lines, response_head

TRUSTED: tuple[Network, ...] = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
STRANGER = peer("192.0.2.7", 8080, "local", TRUSTED)
PROXY = peer("10.0.0.1", 8080, "local", TRUSTED)


def answer(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    parsed = parse_response(line + b"\r\n" + b"".join(one + b"\r\n" for one in lines) + b"\r\n")
    assert isinstance(parsed, ResponseHead), parsed
    return parsed


def upstream(of: RequestHead, by: Peer = STRANGER, session_id: bytes | None = None, *, waits: bool = False) -> bytes:
    """The whole head for an instance."""
    return request_head(
        of,
        of.target,
        b"127.0.0.1:9001",
        kept=of.kept,
        session_id=session_id,
        expects_continue=waits,
        provenance=request_lines(of, by, TRUSTED),
        request_id=b"abc-local",
    )


def downstream(
    of: ResponseHead, length: int | None = 5, session_id: bytes | None = None, *, close: bool = False
) -> bytes:
    return response_head(of, length=length, session_id=session_id, request_id=b"abc-local", close=close)


def lines(raw: bytes) -> list[bytes]:
    """A head's lines, the first one and the empty ones left out."""
    assert raw.endswith(b"\r\n\r\n")
    return raw.split(b"\r\n")[1:-2]
