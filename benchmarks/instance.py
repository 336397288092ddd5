"""One instance as an agent starts it: the server of upstream.py on a given port, until SIGTERM.

`python -m benchmarks.instance PORT`. A session's second stream begins with an event: its client sees by it when a
stream that was parked is attached again.
"""

import asyncio
import signal
import sys

import uvloop

from benchmarks.upstream import Connection, Stream


class Greeting(Connection):
    """Serves one connection; `known` are the sessions that have had a stream."""

    __slots__ = ("_known",)

    def __init__(self, streams: dict[Connection, Stream], known: set[bytes]) -> None:
        super().__init__("i-1", streams)
        self._known = known

    def on_message_complete(self) -> None:
        super().on_message_complete()
        stream = self._streams.get(self)
        if stream is not None:
            if self._session in self._known:
                stream.emit()
            self._known.add(self._session)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    streams: dict[Connection, Stream] = {}
    known: set[bytes] = set()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await loop.create_server(lambda: Greeting(streams, known), "127.0.0.1", port, backlog=4096)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
