"""An HTTP transport for Python clients that goes to another base URL each request and rides out restarts.

It stands for the network between a client and several gateways behind one name. It never repeats a request
of which a byte was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import cycle

import httpx2

_AGAIN_S = 0.05


class Detour(httpx2.AsyncBaseTransport):
    """Round robin over `ports`.

    With `patience_s` above 0 a refused connection is tried again for so long, and a request whose connection
    broke before an answer came is answered 502, as a load balancer would: the SDK's client gives up its whole
    session on a bare transport error.
    """

    def __init__(self, ports: Sequence[int], patience_s: float = 0.0) -> None:
        self._ports = cycle(ports)
        self._patience_s = patience_s
        self._inner = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=None))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not self._patience_s:
            return await self._inner.handle_async_request(self._redirected(request))
        give_up = asyncio.get_running_loop().time() + self._patience_s
        while True:
            try:
                return await self._inner.handle_async_request(self._redirected(request))
            except httpx2.ConnectError:
                if asyncio.get_running_loop().time() > give_up:
                    raise
                await asyncio.sleep(_AGAIN_S)  # noqa: TID251 - back-off until the other process listens again
            except httpx2.TransportError as error:
                return httpx2.Response(502, text=f"connection lost: {error!r}", request=request)

    def _redirected(self, request: httpx2.Request) -> httpx2.Request:
        port = next(self._ports)
        request.url = request.url.copy_with(port=port)
        request.headers["host"] = f"{request.url.host}:{port}"
        return request

    async def aclose(self) -> None:
        await self._inner.aclose()


class Clients:
    """Makes HTTP clients for the SDK (`sse_client`'s factory, `streamable_http_client`'s client) over a Detour."""

    def __init__(self, ports: Sequence[int], patience_s: float = 0.0, headers: Mapping[str, str] | None = None) -> None:
        self._ports = ports
        self._patience_s = patience_s
        self._headers = headers or {}

    def __call__(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers={**self._headers, **(headers or {})},
            timeout=timeout or httpx2.Timeout(30.0, read=300.0),
            auth=auth,
            transport=Detour(self._ports, self._patience_s),
            trust_env=False,
        )
