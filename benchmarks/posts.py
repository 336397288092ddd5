"""The load of pinned requests: small POSTs of open sessions, each connection in a closed loop.

`python -m benchmarks.posts PORT CONNECTIONS COUNT [PATH]` opens the sessions, warms them up, prints `ready`, waits for
a line on stdin, sends COUNT requests over all connections and prints one JSON object. With a PATH there are no
sessions: the requests are plain ones to that path.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import uvloop

from benchmarks.client import Client, ExchangeFailed, percentile

WARM_UP_REQUESTS = 640
"""Over all connections: caches, code paths and upstream connections exist when the measurement begins."""

CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}'
_PLAIN = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"


class Loop:
    """What the connections of one closed loop share: the requests that are left, and the latencies so far."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.in_flight = 0
        self.failed = 0
        self.latencies_s: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(ExchangeFailed(reason))


class Poster(Client):
    """One session. Its answers name the instance that gave them."""

    def __init__(self) -> None:
        super().__init__()
        self.minted_by = b""
        self.strays = 0
        self._loop: Loop | None = None
        self._request = b""
        self._sent_at_s = 0.0

    async def initialize(self) -> None:
        await super().initialize()
        self.minted_by = self.body
        self._request = self.post(CALL)

    def plain(self, path: str) -> None:
        """Send requests to this path instead of those of a session."""
        self._request = _PLAIN % (path.encode(), len(CALL), CALL)

    def join(self, loop: Loop) -> None:
        """Send requests until none is left; each when the one before is answered."""
        self._loop = loop
        self._next(loop)

    def _next(self, loop: Loop) -> None:
        if loop.left:
            loop.left -= 1
            loop.in_flight += 1
            self._sent_at_s = time.perf_counter()
            self.send(self._request)
        elif not loop.in_flight and not loop.done.done():
            loop.done.set_result(None)

    def answered(self) -> None:
        loop = self._loop
        assert loop is not None, "an answer that nobody asked for"
        loop.latencies_s.append(time.perf_counter() - self._sent_at_s)
        loop.in_flight -= 1
        if self.status != 200:
            loop.failed += 1
        elif self.minted_by and self.body != self.minted_by:
            self.strays += 1
        self._next(loop)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._loop is not None:
            self._loop.fail("a keep-alive connection was closed during the measurement")


async def _run(clients: Sequence[Poster], count: int) -> Loop:
    loop = Loop(count)
    for client in clients:
        client.join(loop)
    await loop.done
    return loop


async def main(port: int, connections: int, count: int, path: str = "") -> None:
    event_loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await event_loop.create_connection(Poster, "127.0.0.1", port)
        if path:
            client.plain(path)
        else:
            await client.initialize()
        clients.append(client)
    await _run(clients, min(count, WARM_UP_REQUESTS))
    print("ready", flush=True)
    await event_loop.run_in_executor(None, sys.stdin.readline)
    started_at_s = time.perf_counter()
    loop = await _run(clients, count)
    seconds = time.perf_counter() - started_at_s
    result = {
        "requests": count,
        "seconds": seconds,
        "p50_s": percentile(loop.latencies_s, 0.5),
        "p99_s": percentile(loop.latencies_s, 0.99),
        "failed": loop.failed,
        "sessions": connections,
        "sessions_kept": sum(not client.strays for client in clients),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    port, connections, count = map(int, sys.argv[1:4])
    uvloop.run(main(port, connections, count, *sys.argv[4:]))
