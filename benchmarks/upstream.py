"""The instances behind every proxy: MCP-shaped listeners in one cheap process.

A POST without a session id mints one (`initialize`); every POST is answered with a small JSON that names the instance.
A GET opens an event stream. Ids are echoed and never looked up: proxies that only hash send a session to an instance
that did not mint it, and a strict server would end the measurement there (docs/performance.md, "Traps"). The instance
named `issuer` answers with a replay to another app, and lets it be cached where the path ends in `cached`.

`python -m benchmarks.upstream NAME...` prints `ready PORT...`. Then lines on stdin are commands, one line answers each:
`emit EVENTS EVENTS_PER_S` and `end` (of all streams). The end of stdin ends the process.
"""

import asyncio
import os
import secrets
import sys
import time
from typing import cast

import uvloop
from httptools import HttpRequestParser

ISSUER = "issuer"
TICK_S = 0.001
"""How often due events are written. Events of one tick go to different streams."""

_HEAD = b"HTTP/1.1 200 OK\r\nmcp-session-id: %b\r\n"
_STREAM_OPENED = (
    b"content-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n3\r\n:\n\n\r\n"
)
_REPLAY = b"HTTP/1.1 307 Temporary Redirect\r\nfly-replay: app=bench;instance=i-2\r\n%bcontent-length: 0\r\n\r\n"
_KEPT = b"fly-replay-cache: /replay/cached\r\nfly-replay-cache-ttl-secs: 600\r\n"
_EVENT = (
    b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message",'
    b'"params":{"level":"info","seq":%d,"sent_ns":%d,"data":"one line of progress, as tools report it"}}\n\n'
)


class Stream:
    """One open event stream. `seq` counts from 1, so the client sees what was lost or repeated."""

    __slots__ = ("_transport", "seq")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.seq = 0

    def emit(self) -> None:
        self.seq += 1
        event = _EVENT % (self.seq, time.monotonic_ns())
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))

    def end(self) -> None:
        self._transport.write(b"0\r\n\r\n")


class Connection(asyncio.Protocol):
    """Serves one connection of the instance `name`; its open stream, if any, is in `streams`."""

    __slots__ = ("_answer", "_name", "_parser", "_path", "_session", "_stream", "_streams", "_transport")
    _transport: asyncio.Transport

    def __init__(self, name: str, streams: dict["Connection", Stream]) -> None:
        self._name = name
        self._streams = streams
        self._parser = HttpRequestParser(self)
        self._session = self._path = b""
        body = b'{"jsonrpc":"2.0","id":1,"result":{"instance":"%b","content":[]}}' % name.encode()
        self._answer = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._streams.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._session = self._path = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"mcp-session-id":
            self._session = value.strip()

    def on_message_complete(self) -> None:
        if self._name == ISSUER:
            kept = _KEPT if self._path.endswith(b"cached") else b""
            self._transport.write(_REPLAY % kept)
            return
        session = self._session or secrets.token_hex(16).encode()
        if self._parser.get_method() == b"GET":
            self._transport.write(_HEAD % session + _STREAM_OPENED)
            self._streams[self] = Stream(self._transport)
        else:
            self._transport.write(_HEAD % session + self._answer)


async def _emit(streams: list[Stream], events: int, per_s: int) -> None:
    """Write `events` events, round-robin over the streams; what falls due late is written at once."""
    started_s = time.monotonic()
    sent = 0
    while sent < events:
        due = min(events, int((time.monotonic() - started_s) * per_s) + 1)
        for number in range(sent, due):
            streams[number % len(streams)].emit()
        sent = max(sent, due)
        await asyncio.sleep(TICK_S)


async def _obey(command: str, streams: dict[Connection, Stream]) -> str:
    match command.split():
        case ["emit", events, per_s]:
            await _emit(list(streams.values()), int(events), int(per_s))
            return f"emitted {len(streams)}"
        case ["end"]:
            ended = len(streams)
            for stream in streams.values():
                stream.end()
            streams.clear()
            return f"ended {ended}"
        case _:
            return f"unknown command: {command}"


async def main(names: list[str]) -> None:
    loop = asyncio.get_running_loop()
    streams: dict[Connection, Stream] = {}
    ports = []
    for name in names:
        server = await loop.create_server(lambda name=name: Connection(name, streams), "127.0.0.1", 0, backlog=4096)  # type: ignore[misc]
        ports.append(server.sockets[0].getsockname()[1])
    print("ready", *ports, flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(await _obey(line.strip(), streams), flush=True)
    os._exit(0)  # the streams of proxies that are still up must not delay the end


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
