"""The load of event streams: open GET streams whose events are counted, timed and checked for order.

`python -m benchmarks.streams PORT STREAMS EVENTS` opens the streams, prints `ready` and waits until EVENTS events
came, or until nothing more came for SILENCE_S; then it prints one JSON object. The streams stay open until stdin ends.
"""

import asyncio
import contextlib
import json
import re
import sys
import time

import uvloop

from benchmarks.client import Client, ExchangeFailed, percentile

SILENCE_S = 3.0
FIRST_EVENT_S = 60.0
"""An open stream may be wanted for its memory alone; its measurement is over long before."""

OPENED_AT_ONCE = 32

_EVENT = re.compile(rb'"seq":(\d+),"sent_ns":(\d+)')


class Tally:
    """The events of all streams."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.received = 0
        self.disordered = 0
        self.delays_ns: list[int] = []
        self.complete = asyncio.Event()

    def count(self, *, in_order: bool, delay_ns: int) -> None:
        self.received += 1
        self.disordered += not in_order
        self.delays_ns.append(delay_ns)
        if self.received >= self.expected:
            self.complete.set()

    async def wait(self) -> None:
        """Until every expected event is here, or no more of them come."""
        seen = -1
        while not self.complete.is_set() and self.received > seen:
            seen = self.received
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.complete.wait(), SILENCE_S if seen else FIRST_EVENT_S)


class Listener(Client):
    """One session and its stream. Events carry a sequence number, from 1, and the time at which they were sent."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._opened: asyncio.Future[None] | None = None
        self._tally = tally
        self._seq = 0
        self._rest = b""

    async def open(self) -> None:
        """Initialize, then open the stream; returns when its first bytes are here."""
        await self.initialize()
        self._opened = asyncio.get_running_loop().create_future()
        self.send(self.listen())
        await self._opened

    def on_body(self, body: bytes) -> None:
        if self._opened is None:
            super().on_body(body)
        elif self._parser.get_status_code() != 200:
            self.body += body
        elif not self._opened.done():
            self._opened.set_result(None)  # the comment with which every stream here begins
        else:
            whole, _, self._rest = (self._rest + body).rpartition(b"\n\n")
            now_ns = time.monotonic_ns()
            for event in _EVENT.finditer(whole):
                self._seq += 1
                self._tally.count(in_order=int(event[1]) == self._seq, delay_ns=now_ns - int(event[2]))

    def answered(self) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(ExchangeFailed(f"the stream was answered {self.status} {self.body[:200]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(ExchangeFailed("the connection was closed before the stream began"))


async def main(port: int, streams: int, events: int) -> None:
    event_loop = asyncio.get_running_loop()
    tally = Tally(events)
    listeners = []
    for first in range(0, streams, OPENED_AT_ONCE):
        batch = [
            (await event_loop.create_connection(lambda: Listener(tally), "127.0.0.1", port))[1]
            for _ in range(first, min(first + OPENED_AT_ONCE, streams))
        ]
        await asyncio.gather(*(listener.open() for listener in batch))
        listeners += batch
    print("ready", flush=True)
    await tally.wait()
    result = {
        "streams": len(listeners),
        "received": tally.received,
        "disordered": tally.disordered,
        "delay_p50_s": percentile(tally.delays_ns, 0.5) / 1e9,
        "delay_p99_s": percentile(tally.delays_ns, 0.99) / 1e9,
    }
    print(json.dumps(result), flush=True)
    await event_loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
