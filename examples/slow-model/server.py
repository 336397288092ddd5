"""A stand-in for a model server on a GPU: it listens at once, takes long to load its model, and then streams tokens.

What it says is nonsense; when it says it is the point. It speaks as much of OpenAI's API as a chat needs, and knows
nothing of the gateway but how to keep its instance awake for a job. Run: python server.py --port 9001 --load-s 45
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator

import httpx2
import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
arguments.add_argument("--load-s", type=float, default=45.0, help="how long the model takes to load")
given = arguments.parse_args()

SAYS = "a boat that nobody needs lies still and one that is needed is ready"
TOKEN_S = 0.02
LEASE_S, RENEW_S = 300, 60
"""A lease is renewed long before it ends, so that one answer that does not come costs nothing."""

loaded = asyncio.Event()


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """The port opens at once, while the model is still on its way to the card."""

    async def load() -> None:
        await asyncio.sleep(given.load_s)
        loaded.set()

    async with asyncio.TaskGroup() as tasks:
        loading = tasks.create_task(load())
        yield
        loading.cancel()


# --- is it there -----------------------------------------------------------------------


async def alive(_: Request) -> Response:
    """Says that the process runs, which is not what anybody wants to know."""
    return PlainTextResponse("the server is running\n")


async def ready(_: Request) -> Response:
    """Proves that the model is loaded: what the gateway's check asks for."""
    return PlainTextResponse("ready\n") if loaded.is_set() else loading()


def loading() -> Response:
    return JSONResponse({"error": {"message": "the model is being loaded"}}, 503)


# --- tokens ----------------------------------------------------------------------------


async def completions(request: Request) -> Response:
    """`POST /v1/chat/completions`: the answer in one piece, or as events with `"stream": true`."""
    if not loaded.is_set():
        return loading()
    if not (await request.json()).get("stream"):
        await asyncio.sleep(TOKEN_S * len(SAYS.split()))
        message = {"role": "assistant", "content": SAYS}
        return JSONResponse({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for token in tokens():
            chunk = {"choices": [{"index": 0, "delta": {"content": f"{token} "}, "finish_reason": None}]}
            yield ServerSentEvent(json.dumps(chunk))
        yield ServerSentEvent("[DONE]")

    return EventSourceResponse(events())


async def generate(_: Request) -> Response:
    """`GET /generate`: the same for an EventSource in a browser."""
    if not loaded.is_set():
        return loading()

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for token in tokens():
            yield ServerSentEvent(token)

    return EventSourceResponse(events())


async def tokens() -> AsyncIterator[str]:
    for token in SAYS.split():
        await asyncio.sleep(TOKEN_S)
        yield token


# --- jobs ------------------------------------------------------------------------------


async def job(request: Request) -> Response:
    """`POST /jobs`: work of some `seconds` that goes on after the answer, which no request shows."""
    seconds = float((await request.json())["seconds"])

    async def work() -> None:
        async with kept_awake("job"):
            await asyncio.sleep(seconds)

    return JSONResponse({"seconds": seconds}, 202, background=BackgroundTask(work))


@contextlib.asynccontextmanager
async def kept_awake(name: str) -> AsyncIterator[None]:
    """Hold a lease on this instance: while it is live, the gateway does not put it to sleep."""
    machine = f"/v1/apps/{os.environ['FLY_APP_NAME']}/machines/{os.environ['FLY_MACHINE_ID']}"
    async with httpx2.AsyncClient(base_url=os.environ["ADMIN_URL"], trust_env=False) as admin:

        async def renew() -> None:
            while True:
                with contextlib.suppress(httpx2.HTTPError):
                    await admin.put(f"{machine}/tasks/{name}", json={"expire": LEASE_S})
                await asyncio.sleep(RENEW_S)

        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(renew())
            try:
                yield
            finally:
                renewing.cancel()
        await admin.delete(f"{machine}/tasks/{name}")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", alive),
        Route("/ready", ready),
        Route("/v1/chat/completions", completions, methods=["POST"]),
        Route("/generate", generate),
        Route("/jobs", job, methods=["POST"]),
    ],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", timeout_graceful_shutdown=2)
