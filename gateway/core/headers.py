"""What the gateway writes itself into heads, on both sides.

Follows Fly's page "Request headers" for what is added and overwritten (design: a client's provenance is never
believed, except from `trusted_proxies`), RFC 9110 7.6 for Via, RFC 9112 for framing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.head import CHUNKED, UNTIL_CLOSE, RequestHead, ResponseHead

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PROTO = frozenset({b"http", b"https"})
_PORT = re.compile(rb"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Peer:
    """A client connection, as far as headers are concerned; made once per connection."""

    ip: str
    trusted: bool
    """The peer is one of `trusted_proxies`: its X-Forwarded-* are believed."""
    port: int
    """The port the connection was accepted on."""
    lines: bytes
    """The header lines that are the same for every request of an untrusted peer."""
    region: str


def peer(ip: str, port: int, region: str, trusted_proxies: Sequence[Network]) -> Peer:
    """Describe a connection from `ip`, accepted on `port`."""
    lines = _provenance(ip, port, region, b"http", str(port).encode(), b"off")
    return Peer(ip, is_trusted(ip, trusted_proxies), port, lines, region)


def is_trusted(ip: str, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks; False for what is no address."""
    if not networks:
        return False
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any((mapped or address) in network for network in networks if network.version == (mapped or address).version)


def _provenance(ip: str, port: int, region: str, proto: bytes, forwarded_port: bytes, ssl: bytes) -> bytes:
    return (
        b"Fly-Client-IP: %b\r\nFly-Forwarded-Port: %d\r\nFly-Region: %b\r\n"
        b"X-Forwarded-Proto: %b\r\nX-Forwarded-Port: %b\r\nX-Forwarded-SSL: %b\r\n"
    ) % (ip.encode(), port, region.encode(), proto, forwarded_port, ssl)


def client_ip(head: RequestHead, peer: Peer, trusted_proxies: Sequence[Network]) -> str:
    """The client's address: the peer, or behind trusted proxies the last X-Forwarded-For entry that is not one."""
    if not peer.trusted:
        return peer.ip
    entries = head.values.get(b"x-forwarded-for", b"").split(b",")
    for entry in reversed(entries):
        text = entry.strip(b" \t").decode("latin-1")
        try:
            ipaddress.ip_address(text)
        except ValueError:
            break
        if not is_trusted(text, trusted_proxies):
            return text
    return peer.ip


def request_lines(head: RequestHead, peer: Peer, trusted_proxies: Sequence[Network]) -> bytes:
    """The provenance lines for an instance: Fly-*, X-Forwarded-* and Via."""
    values = head.values
    forwarded_for = values.get(b"x-forwarded-for")
    forwarded_host = head.authority
    lines = peer.lines
    if peer.trusted:
        proto = values.get(b"x-forwarded-proto", b"http").lower()
        proto = proto if proto in _PROTO else b"http"
        port = values.get(b"x-forwarded-port", b"")
        port = port if _PORT.fullmatch(port) else str(peer.port).encode()
        ssl = b"on" if proto == b"https" else b"off"
        lines = _provenance(client_ip(head, peer, trusted_proxies), peer.port, peer.region, proto, port, ssl)
        forwarded_host = values.get(b"x-forwarded-host", forwarded_host)
    chain = forwarded_for + b", " + peer.ip.encode() if forwarded_for else peer.ip.encode()
    via = values.get(b"via")
    hop = b"1.%d moorage" % head.minor
    return b"".join(
        (
            lines,
            b"X-Forwarded-For: ",
            chain,
            b"\r\nX-Forwarded-Host: ",
            forwarded_host,
            b"\r\nVia: ",
            via + b", " + hop if via else hop,
            b"\r\n",
        )
    )


def framing_line(length: int) -> bytes:
    """The header line that announces a body of this length; empty for none and for until-close."""
    if length == CHUNKED:
        return b"Transfer-Encoding: chunked\r\n"
    if length == UNTIL_CLOSE:
        return b""
    return b"Content-Length: %d\r\n" % length


def request_head(
    head: RequestHead,
    target: bytes,
    authority: bytes,
    *,
    kept: bytes,
    session_id: bytes | None,
    expects_continue: bool,
    provenance: bytes,
    request_id: bytes,
) -> bytes:
    """The head for an instance.

    Args:
        target: the request target, without a stripped path prefix or a legacy pin.
        kept: the client's lines that go on, `head.kept` unless an app transformed them.
        authority: the Host to send.
        session_id: the instance's own Mcp-Session-Id, or None to send none.
        expects_continue: the client still waits for a 100 before it sends its body.
        provenance: from `request_lines`, and what is told of replays.
    """
    parts = [head.method, b" ", target, b" HTTP/1.1\r\nHost: ", authority, b"\r\n", kept]
    if session_id is not None:
        parts += (b"Mcp-Session-Id: ", session_id, b"\r\n")
    if head.length or b"content-length" in head.values:
        parts.append(framing_line(head.length))
    if expects_continue:
        parts.append(b"Expect: 100-continue\r\n")
    if head.upgrade:
        parts += (b"Connection: Upgrade\r\nUpgrade: ", head.upgrade, b"\r\n")
    parts += (provenance, b"Fly-Request-Id: ", request_id, b"\r\n\r\n")
    return b"".join(parts)


def response_head(
    head: ResponseHead,
    *,
    length: int | None,
    session_id: bytes | None,
    request_id: bytes,
    close: bool,
    extra: bytes = b"",
    pristine: bool = False,
) -> bytes:
    """The head for a client.

    Args:
        length: the body's framing on the client's side; None where the head alone is the answer
            (HEAD, 1xx, 204, 304) and the instance's own Content-Length, if any, is repeated.
        session_id: the Mcp-Session-Id for the client, or None for none.
        close: say that this connection ends after the response.
        extra: further complete header lines.
        pristine: leave `Via` as it came, and say no request id.
    """
    via = head.values.get(b"via")
    hop = b"1.%d moorage" % head.minor
    parts = [b"HTTP/1.1 %d " % head.status, head.reason, b"\r\n", head.kept]
    if session_id is not None:
        parts += (b"Mcp-Session-Id: ", session_id, b"\r\n")
    if length is not None:
        parts.append(framing_line(length))
    elif head.status >= 200 and head.status != 204 and (told := head.values.get(b"content-length")) is not None:
        parts += (b"Content-Length: ", told, b"\r\n")
    if head.upgrade and head.status == 101:
        parts += (b"Connection: Upgrade\r\nUpgrade: ", head.upgrade, b"\r\n")
    elif close:
        parts.append(b"Connection: close\r\n")
    parts.append(extra)
    if pristine:
        parts += (b"Via: ", via, b"\r\n") if via else ()
    elif head.status >= 200:
        parts += (
            b"Via: ",
            via + b", " + hop if via else hop,
            b"\r\nFly-Request-Id: ",
            request_id,
            b"\r\n",
        )
    parts.append(b"\r\n")
    return b"".join(parts)
