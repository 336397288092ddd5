"""A router: says for each request which user's app is to answer it, and remembers nothing itself.

/u/ada/...  as it is, by `fly-replay: app=user-ada`, cached: later requests do not come here.
/t/ada/...  as /..., without the user's token and with X-Tenant, by the JSON form: each request comes here first.

Run: USERS=ada=ada-token,bob=bob-token KEYS=ada=ada-key,bob=bob-key python router.py --port 9000
"""

from __future__ import annotations

import argparse
import hmac
import os
from collections import Counter
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
options = arguments.parse_args()

TOKENS = dict(pair.split("=", 1) for pair in os.environ["USERS"].split(","))
KEYS = dict(pair.split("=", 1) for pair in os.environ["KEYS"].split(","))
"""What the router proves itself by, one for each app: an app must not learn what another one trusts."""
KEPT_S = 60
asked: Counter[str] = Counter()


def refusal(request: Request, user: str) -> Response | None:
    """The answer to whoever is not this user; None for the user."""
    known = TOKENS.get(user, "")
    asked[user if known else "strangers"] += 1
    given = request.headers.get("authorization", "")
    if known and hmac.compare_digest(given.encode(), f"Bearer {known}".encode()):
        return None
    return Response("wrong or no token", 401, {"www-authenticate": "Bearer"})


async def kept(request: Request) -> Response:
    """The header form. The gateway repeats it by itself for everything under /u/<user>, whoever asks."""
    user = request.path_params["user"]
    headers = {
        "fly-replay": f"app=user-{user}",
        "fly-replay-cache": f"/u/{user}/*",
        "fly-replay-cache-ttl-secs": str(KEPT_S),
    }
    return refusal(request, user) or Response(status_code=307, headers=headers)


async def changed(request: Request) -> Response:
    """The JSON form. What it changes is right for this request alone, so it cannot be cached."""
    user, rest = request.path_params["user"], request.path_params["rest"]
    replay = {
        "app": f"user-{user}",
        "state": KEYS.get(user, ""),
        "transform": {
            "path": "/" + quote(rest) + (f"?{request.url.query}" if request.url.query else ""),
            "delete_headers": ["authorization", "cookie"],
            "set_headers": [{"name": "X-Tenant", "value": user}],
        },
    }
    return refusal(request, user) or JSONResponse(replay, media_type="application/vnd.fly.replay+json")


async def how_often(request: Request) -> Response:
    """How many requests came here, by user."""
    return JSONResponse(asked)


ANY = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
routes = [
    Route("/u/{user}/{rest:path}", kept, methods=ANY),
    Route("/t/{user}/{rest:path}", changed, methods=ANY),
    Route("/asked", how_often),
]

if __name__ == "__main__":
    app = Starlette(routes=routes)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", timeout_graceful_shutdown=1)
