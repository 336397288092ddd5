"""A counter per user, in the memory of the one process that the user belongs to. `pinned.py` sees to that.

Run: FLY_MACHINE_ID=s-1 INSTANCES=s-1,s-2,s-3 python app.py --port 9001
"""

from __future__ import annotations

import argparse
import os
import secrets
from collections import Counter

import uvicorn
from pinned import ME, Pinned, owner
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
options = arguments.parse_args()

COOKIE = "sid"
counts: Counter[str] = Counter()


def user_of(request: HTTPConnection) -> str | None:
    """Who asks; None for who is new. The cookie decides where, and stands for whom here: it is a secret."""
    return request.cookies.get(COOKIE) or None


def new_user() -> str:
    """An id that belongs here, so that its first request needs not to be sent on: a few tries find one."""
    while True:
        user = secrets.token_hex(16)
        if owner(user) == ME:
            return user


def counted(request: HTTPConnection, user: str) -> dict[str, object]:
    """What this process knows of a user, and how the request came here."""
    counts[user] += 1
    how = request.headers.get("fly-replay-cache-status", "direct")
    return {"count": counts[user], "instance": ME, "came": how, "pid": os.getpid()}


async def count(request: Request) -> Response:
    user = user_of(request)
    if user is not None:
        return JSONResponse(counted(request, user))
    user = new_user()
    response = JSONResponse(counted(request, user))
    response.set_cookie(COOKIE, user, httponly=True, samesite="lax")
    return response


async def live(websocket: WebSocket) -> None:
    """The count for every message. The handshake comes to the user's instance like any request."""
    await websocket.accept()
    async for _ in websocket.iter_text():
        await websocket.send_json(counted(websocket, user_of(websocket) or "nobody"))


async def replays(request: Request) -> Response:
    """How many requests this process has sent on. Without a cookie it is answered by whoever gets it."""
    return JSONResponse({"instance": ME, "replays": app.replays})


routes = [Route("/", count), Route("/replays", replays), WebSocketRoute("/live", live)]
app = Pinned(Starlette(routes=routes), user_of)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", timeout_graceful_shutdown=1)
