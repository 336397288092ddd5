"""Which addresses a record from outside may never name: a gateway that dials them becomes its caller's hands.

A cloud's metadata service answers on link-local addresses to whoever asks from the machine; the unspecified address
is the gateway itself by another name; multicast and broadcast are nobody's. Other spellings of an IP address (decimal,
hexadecimal, short) are refused where addresses are parsed. Names are not resolved here: what a name means may change
later. Loopback and private networks are allowed, since instances live there.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from gateway.core.model import Address

_METADATA_NAMES: Final = frozenset(
    {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
)
_METADATA: Final = (
    ipaddress.ip_network("fd00:ec2::/32"),  # AWS, IPv6
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba Cloud
    ipaddress.ip_network("168.63.129.16/32"),  # Azure
    ipaddress.ip_network("192.0.0.192/32"),  # Oracle Cloud
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052 2.1
_COMPATIBLE: Final = ipaddress.ip_network("::/96")  # RFC 4291 2.5.5.1, deprecated

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def refused(address: Address) -> str | None:
    """Why this address may not be an instance's; None when it may."""
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        name = address.host.rstrip(".")
        return f"{address.host} is a cloud's metadata service" if name in _METADATA_NAMES else None
    for meant in (ip, *_embedded(ip)):
        if (reason := _refused(meant)) is not None:
            return f"{address.host} is {reason}"
    return None


def same_place(address: Address, listener: Address) -> bool:
    """Whether a connection to `address` would arrive at this machine's own `listener`, as far as can be told."""
    if address.port != listener.port:
        return False
    return address.host == listener.host or (_is_here(address.host) and _is_here(listener.host))


def _is_here(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return any(one.is_loopback or one.is_unspecified for one in (ip, *_embedded(ip)))


def _refused(ip: _Ip) -> str | None:
    if ip.is_unspecified:
        return "the unspecified address"
    if ip.is_link_local:
        return "link-local, where clouds keep their metadata service"
    if ip.is_multicast:
        return "a multicast address"
    if any(ip in network for network in _METADATA if network.version == ip.version):
        return "a cloud's metadata service"
    if ip.version == 4 and (int(ip) >> 28 == 15 or int(ip) >> 24 == 0):
        return "no host's address"  # 240/4 with the broadcast address, 0/8 (RFC 6890)
    return None


def _embedded(ip: _Ip) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for, in every notation that a stack or a gateway may resolve."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
