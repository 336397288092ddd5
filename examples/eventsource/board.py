"""A page with a live counter: an EventSource whose count is kept per visitor, in this process's memory.

Each visitor's counter goes on where it stood when the stream is opened again. It can only do so in the process that
has it: at another one it would start over at 1. Run: python board.py --port 9001 --name b-1
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
arguments.add_argument("--name", required=True)
given = arguments.parse_args()

PAGE = """<!doctype html><title>Board</title><h1 id=count>...</h1><p>Close the page and open it again.
<script>new EventSource("events").onmessage = event => { count.textContent = event.data }</script>"""
VISITOR = "visitor"
counts: Counter[str] = Counter()


async def page(request: Request) -> Response:
    """The page. A new visitor is given a name of the app's own; where it is kept is the gateway's cookie's business."""
    response = HTMLResponse(PAGE)
    if VISITOR not in request.cookies:
        response.set_cookie(VISITOR, secrets.token_hex(8), httponly=True, samesite="lax")
    return response


async def events(request: Request) -> Response:
    """A count a second, going on from this visitor's last one."""
    visitor = request.cookies.get(VISITOR, "nobody")

    async def count() -> AsyncIterator[ServerSentEvent]:
        while True:
            counts[visitor] += 1
            yield ServerSentEvent(f"{counts[visitor]}, kept by {given.name}", id=str(counts[visitor]))
            await asyncio.sleep(1)

    return EventSourceResponse(count())


app = Starlette(routes=[Route("/", page), Route("/events", events)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", timeout_graceful_shutdown=1)
