"""Free loopback ports for child processes.

A port is chosen below the kernel's ephemeral range where possible. A port inside it could be taken at any moment by an
outgoing connection of anybody, and a connection attempt to a port of that range on which nobody listens yet can, by
chance, connect to itself and look like a listening server (TCP simultaneous open, RFC 9293 3.5).
"""

from __future__ import annotations

import errno
import ipaddress
import random
import socket
from collections.abc import Container
from typing import Final

from gateway.core.model import Address

LOOPBACK: Final = "127.0.0.1"
RANGE: Final = range(20_000, 32_000)
"""Ends below 32768, where Linux's ephemeral range begins (ip_local_port_range)."""
ATTEMPTS: Final = 50


def free_port(taken: Container[int], rng: random.Random) -> int:
    """Return a loopback port that nobody uses now and that is not in `taken`.

    Nothing keeps it free: whoever listens on it next has it. When the range is crowded, the kernel's choice is taken.

    Raises:
        OSError: no port is free at all.
    """
    for _ in range(ATTEMPTS):
        port = rng.choice(RANGE)
        if port not in taken and not in_use(Address(LOOPBACK, port)):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def in_use(address: Address) -> bool:
    """Whether a listen on this address of this host would fail now because somebody has it.

    Names other than `localhost`, and addresses of other hosts, never are: the app's own error says more than a guess.
    """
    host = LOOPBACK if address.host == "localhost" else address.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        ipaddress.ip_address(host)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As most servers do: a port whose last connections are in TIME_WAIT is free to listen on.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, address.port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    except ValueError:  # a name
        return False
    return False
