"""Two Python peers under uvicorn, for scale: an application that does nothing, and the proxy that is written first.

`python -m benchmarks.asgi empty|httpx PORT INSTANCE_PORT...`. The proxy picks the instance by a hash of the session id,
like HAProxy and nginx here.
"""

import contextlib
import sys
import zlib
from collections.abc import AsyncIterator, Sequence

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

_BODY = b'{"jsonrpc":"2.0","id":1,"result":{}}'
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"mcp-session-id", b"0123456789abcdef0123456789abcdef"),
    (b"content-length", str(len(_BODY)).encode()),
]
_NOT_FORWARDED = frozenset({"host", "connection", "transfer-encoding", "date", "server"})


async def empty(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers everything with the same 200."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def proxy(instances: Sequence[str]) -> Starlette:
    """Forwards everything, streaming."""
    # No limits and no read timeout: streams are silent for long, and the other peers have no such limits either.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx2.AsyncClient(limits=limits, timeout=httpx2.Timeout(5.0, read=None))

    async def forward(request: Request) -> Response:
        key = request.headers.get("mcp-session-id", "").encode()
        base = instances[zlib.crc32(key) % len(instances)]
        headers = [(name, value) for name, value in request.headers.items() if name not in _NOT_FORWARDED]
        upstream = await client.send(
            client.build_request(
                request.method, base + request.url.path, headers=headers, content=await request.body()
            ),
            stream=True,
        )

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in upstream.aiter_raw():
                    yield chunk
            finally:
                await upstream.aclose()

        kept = {name: value for name, value in upstream.headers.items() if name not in _NOT_FORWARDED}
        return StreamingResponse(body(), upstream.status_code, kept)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    return Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST", "DELETE"])], lifespan=lifespan)


def main(name: str, port: str, *instances: str) -> None:
    application: ASGIApp = empty if name == "empty" else proxy([f"http://127.0.0.1:{at}" for at in instances])
    uvicorn.run(
        application,
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
