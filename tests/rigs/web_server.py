"""An application that is not MCP: a WebSocket echo and a plain EventSource feed, both with state in memory.

A client names itself by `?client=`; what it has at an instance (its place in the feed) is in that process only.
Run: python -m tests.rigs.web_server --port 9001 --name a --journal a.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.rigs.journal import Journal

RETRY_MS = 50


class Application:
    """The routes of one instance."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._requests = 0
        self._fed: defaultdict[str, int] = defaultdict(int)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/hello", self.hello),
                Route("/events", self.events),
                WebSocketRoute("/ws", self.echo),
            ]
        )

    def _stamp(self, client: str, kind: str, path: str) -> dict[str, str]:
        self._requests += 1
        self._journal.write("request", n=self._requests, http=kind, path=path, session=client)
        return {"instance": self._journal.instance, "boot": self._journal.boot}

    async def hello(self, request: Request) -> Response:
        """Who answers. A client begins here, as a browser does with its first page."""
        return JSONResponse(self._stamp(request.query_params["client"], "GET", "/hello"))

    async def events(self, request: Request) -> Response:
        """`?burst=` numbered events, then the stream ends and EventSource comes back for more.

        With `?stays=` it stays open behind them.
        204 (which tells EventSource to stop) after `?until=`; 409 for a Last-Event-ID that this process did not send.
        """
        client = request.query_params["client"]
        burst, until = int(request.query_params["burst"]), int(request.query_params["until"])
        stamp = self._stamp(client, "GET", "/events")
        if int(request.headers.get("last-event-id", "0")) != self._fed[client]:
            return JSONResponse({**stamp, "error": "not fed from here"}, status_code=409)
        if self._fed[client] >= until:
            return Response(status_code=204)

        async def feed() -> AsyncIterator[ServerSentEvent]:
            for _ in range(burst):
                self._fed[client] += 1
                number = self._fed[client]
                yield ServerSentEvent(json.dumps({**stamp, "n": number}), id=str(number), retry=RETRY_MS)
            if "stays" in request.query_params:
                await asyncio.Event().wait()

        return EventSourceResponse(feed())

    async def echo(self, websocket: WebSocket) -> None:
        """Say who this is, then send every message back as it came."""
        stamp = self._stamp(websocket.query_params["client"], "WS", "/ws")
        await websocket.accept()
        await websocket.send_json(stamp)
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("text") is not None:
                    await websocket.send_text(message["text"])
                else:
                    await websocket.send_bytes(message["bytes"])
        except WebSocketDisconnect:
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        Application(Journal(arguments.journal, arguments.name)).app(),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
