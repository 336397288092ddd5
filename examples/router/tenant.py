"""What an app behind the router checks, as it is reached by replays: a file to copy.

A replay that is cached does not pass the router, and a session goes straight to its instance. So the router's check is
no protection: the app asks for the user's token itself, or for the router's word that it did.
"""

from __future__ import annotations

import hmac
import os

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

TENANT = os.environ["TENANT"]
TOKEN = os.environ["TOKEN"]
ROUTER_KEY = os.environ["ROUTER_KEY"]


class Tenant:
    """ASGI middleware: lets in one tenant, and takes the router's prefix off the path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif allowed(Headers(scope=scope)):
            await self.app({**scope, "path": scope["path"].removeprefix(f"/u/{TENANT}")}, receive, send)
        else:
            refused = Response("wrong or no token", 401, {"www-authenticate": "Bearer"})
            await refused(scope, receive, send)


def allowed(headers: Headers) -> bool:
    """Whether a request is the tenant's: by its token, or because the router says so and proves to be the router."""
    word = state(headers.get("fly-replay-src", ""))
    if word and same(word, ROUTER_KEY):
        return headers.get("x-tenant") == TENANT
    return same(headers.get("authorization", ""), f"Bearer {TOKEN}")


def state(source: str) -> str:
    """The state in a `fly-replay-src`; empty without one. It may hold a `=`, so each field is split at its first."""
    fields = dict(field.partition("=")[::2] for field in source.split(";"))
    return fields.get("state", "")


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how much of them is."""
    return hmac.compare_digest(given.encode(), wanted.encode())
