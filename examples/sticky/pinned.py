"""Keep every user on one instance, by `fly-replay`: a file to copy into an app of your own.

The owner of a user is found by rendezvous hashing over the instances' names. All instances reckon the same, so nobody
has to be asked; when a name is added or removed, only that one's share of the users moves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

ME = os.environ["FLY_MACHINE_ID"]  # set by the gateway, as on Fly
INSTANCES = os.environ["INSTANCES"].split(",")
if ME not in INSTANCES:
    raise SystemExit(f"{ME} is not one of INSTANCES")


def owner(user: str) -> str:
    """The one instance that a user belongs to."""
    return max(INSTANCES, key=lambda instance: hashlib.sha256(f"{instance} {user}".encode()).digest())


class Pinned:
    """ASGI middleware that sends requests and WebSockets of another instance's users there, by an empty answer."""

    def __init__(self, app: ASGIApp, user: Callable[[HTTPConnection], str | None]) -> None:
        self.app = app
        self.user = user
        self.replays = 0
        """How often a request was sent on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = self.user(HTTPConnection(scope)) if scope["type"] in ("http", "websocket") else None
        if user is None or owner(user) == ME:
            await self.app(scope, receive, send)
        else:
            await self.send_on(HTTPConnection(scope), owner(user))(scope, receive, send)

    def send_on(self, request: HTTPConnection, to: str) -> Response:
        if "fly-replay-src" in request.headers:
            # Another instance thinks that the user is ours. To replay again could go on in a circle.
            return Response(status_code=409)
        self.replays += 1
        headers = {"fly-replay": f"instance={to}"}
        if request.headers.get("fly-replay-cache-status") == "hit":
            # What the gateway remembers is from before INSTANCES changed. It is replaced, not followed again.
            headers["fly-replay-cache"] = "invalidate"
        return Response(status_code=307, headers=headers)
