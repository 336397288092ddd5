"""From the fast path to the slow one: an exchange goes into an ASGI scope.

The Starlette application finds it under `scope["extensions"]["moorage.exchange"]`, awaits what must be awaited and
hands it back with `exchange.go` or `exchange.refuse`. It answers nothing through ASGI itself: every byte a client
gets is written by the edge or the relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from gateway.data.exchange import Exchange

EXTENSION = "moorage.exchange"

log = structlog.get_logger(__name__)


def scope_of(exchange: Exchange) -> dict[str, Any]:
    """The ASGI scope of an exchange."""
    head, edge = exchange.head, exchange.edge
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": f"1.{head.minor}",
        "method": head.method.decode("ascii"),
        "scheme": "http",
        # Routes begin with a slash; `OPTIONS *` asks the server as a whole.
        "path": head.path.decode("ascii") if head.path != b"*" else "/",
        "raw_path": head.path,
        "query_string": head.query,
        "root_path": "",
        "headers": list(head.values.items()),
        "client": (edge.peer.ip, 0),
        "server": ("", edge.peer.port),
        "state": {},
        "extensions": {EXTENSION: exchange},
    }


async def run(exchange: Exchange) -> None:
    """Take one exchange through the slow path. Never raises but when cancelled."""

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()  # a client that leaves cancels this task
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        """Answers are written by the exchange: see the module's docstring."""

    try:
        await exchange.gateway.slow_path(scope_of(exchange), receive, send)
    except Exception:
        log.exception("slow path failed", request_id=exchange.request_id.decode())
    exchange.punted()
