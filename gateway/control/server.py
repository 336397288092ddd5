"""Listening: uvicorn servers inside one event loop, stopped by the gateway and not by signals of their own.

uvicorn ends open responses before it runs a lifespan's shutdown, and each server installs signal handlers; here
the gateway owns the signals, the sockets and the order in which things end.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from gateway.core.model import Address

BACKLOG = 2048


def listen(address: Address) -> socket.socket:
    """A listening socket. Raises OSError with the address in its text."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def bound(listener: socket.socket) -> Address:
    """Where a socket listens, with the port the kernel chose."""
    name = listener.getsockname()
    return Address(name[0], name[1])


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Stop listening and end; connections get the config's graceful time."""
        self.should_exit = True
