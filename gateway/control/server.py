"""Listening: uvicorn servers inside one event loop, stopped by the gateway and not by signals of their own.

uvicorn ends open responses before it runs a lifespan's shutdown, and each server installs signal handlers; here
the gateway owns the signals, the sockets and the order in which things end.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable, Iterator
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from gateway.core.model import Address

BACKLOG = 2048


def listen(address: Address) -> socket.socket:
    """A listening socket. Raises OSError with the address in its text."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, each answer waits for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
    """A uvicorn server on one socket that leaves signals alone."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener
        self._listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening.set()

    async def run_on_socket(self) -> None:
        """Serve until `stop`."""
        await self.serve(sockets=[self._listener])

    async def listening(self) -> None:
        """Return once connections are accepted."""
        await self._listening.wait()

    def stop(self) -> None:
        """Stop listening and end; connections get the server's grace."""
        self.should_exit = True


def server(
    app: ASGIApp, listener: socket.socket, *, grace_s: float, http: Callable[..., asyncio.Protocol] | None = None
) -> Server:
    """A server for an application. `http` makes the protocol of each connection; None: uvicorn's own on httptools."""
    config = uvicorn.Config(
        app,
        # Declared as a class, but only ever called.
        http=cast("type[asyncio.Protocol]", http) if http is not None else "httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(grace_s),
    )
    return Server(config, listener)
