"""One user's app: a counter in memory, and the same as an event stream.

Run: FLY_MACHINE_ID=a-1 TENANT=ada TOKEN=ada-token ROUTER_KEY=ada-key python account.py --port 9001
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tenant import TENANT, Tenant

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
options = arguments.parse_args()

total = 0


async def count(request: Request) -> Response:
    """One more; whose count it is, and how the request came here."""
    global total
    total += 1
    how = request.headers.get("fly-replay-cache-status", "direct")
    return JSONResponse({"tenant": TENANT, "count": total, "came": how, "path": request.url.path})


async def events(request: Request) -> Response:
    """The count, now and every second."""

    async def counts() -> AsyncIterator[ServerSentEvent]:
        while True:
            yield ServerSentEvent(f"{total} for {TENANT}")
            await asyncio.sleep(1)

    return EventSourceResponse(counts())


app = Tenant(Starlette(routes=[Route("/count", count, methods=["GET", "POST"]), Route("/events", events)]))

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", timeout_graceful_shutdown=1)
