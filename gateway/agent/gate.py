"""Who may ask an agent: an ASGI middleware in front of every route, those that do not exist included.

Whoever sends the agent's token. Everybody else gets 401 and is told nothing; only `/healthz` answers without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.agent.tokens import Tokens

OPEN_PATH: Final = "/healthz"
"""Says nothing but that the agent lives."""
MAX_AT_ONCE: Final = 4096
"""Requests that are answered at once; starts and waits take long."""

log = structlog.get_logger(__name__)


class Gate:
    """The middleware. `url` is how gateways reach this agent: their tokens are made of it."""

    def __init__(self, app: ASGIApp, tokens: Tokens, url: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._tokens = tokens
        self._url = url
        self._clock_s = clock_s
        self._at_once = 0
        self._next = 0
        self._untold = 0
        self._told_at_s = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        self._next += 1
        scope.setdefault("state", {})["request_id"] = f"agent-{self._next:08x}"
        if scope["path"] != OPEN_PATH and not self._may(scope):
            self._tell()
            await Response(status_code=401, headers={"www-authenticate": "Bearer"})(scope, receive, send)
        elif self._at_once >= MAX_AT_ONCE:
            await Response(status_code=503, headers={"retry-after": "1"})(scope, receive, send)
        else:
            self._at_once += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._at_once -= 1

    def _may(self, scope: Scope) -> bool:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, said = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        return scheme.lower() == b"bearer" and self._tokens.accepts(self._url, said.strip(b" "))

    def _tell(self) -> None:
        """One log line a second at most: whoever is refused could write the log full."""
        self._untold += 1
        now_s = self._clock_s()
        if now_s >= self._told_at_s + 1.0:
            log.warning("requests to the agent refused: no valid token", count=self._untold)
            self._told_at_s, self._untold = now_s, 0
