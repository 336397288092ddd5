"""A rig whose app wants lost sessions to begin anew, and MCP servers on raw instances that note what they are asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway import proxy
from gateway.core.model import App, OnLost
from gateway.data import listening
from gateway.data.bindings import Key
from gateway.lifecycle.beginning import Beginnings
from gateway.lifecycle.carrying import Carrier
from gateway.lifecycle.holds import Holds
from gateway.log.recordings import Recordings
from gateway.log.recordings_memory import MemoryRecordings
from tests.net.replies import answer, get, post
from tests.net.rig import RawInstance, Rig
from tests.net.wire import Message

PROTOCOL = "2025-06-18"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}
ACCEPT = "Accept: application/json, text/event-stream"
JSON = "Content-Type: application/json"

Reply = bytes | Callable[[Message], bytes]


def initialize(*lines: str, message: object = None, **params: Any) -> bytes:
    """An `initialize` as SDKs send it; `params` are added."""
    whole = {**INITIALIZE, "params": {**INITIALIZE["params"], **params}}  # type: ignore[dict-item]
    body = json.dumps(whole if message is None else message).encode()
    return get("/mcp", JSON, ACCEPT, *lines, f"Content-Length: {len(body)}", method="POST") + body


def call(session: str, *lines: str) -> bytes:
    """A tool call in the session of this header."""
    return post("tools/call", session, ACCEPT, *lines)


def welcome(session_id: str, *, version: str = PROTOCOL, rpc_id: object = 0) -> bytes:
    """The answer to one that is accepted."""
    body = {"jsonrpc": "2.0", "id": rpc_id, "result": {"protocolVersion": version, "capabilities": {}}}
    return answer(json.dumps(body).encode(), JSON, f"Mcp-Session-Id: {session_id}")


class Server:
    """Makes sessions `<instance>.1`, `<instance>.2`..., and knows no others."""

    def __init__(self, raw: RawInstance) -> None:
        self.raw = raw
        self.sessions: list[str] = []
        self.deleted: list[str] = []
        self.initialize: Reply | None = None
        """Said to `initialize` instead of a welcome."""
        self.initialized: bytes = answer(b"", status=202)
        self._numbers = itertools.count(1)
        raw.answers(self)

    def __call__(self, request: Message) -> bytes:
        session = request.one("mcp-session-id")
        method = json.loads(request.body).get("method", "") if request.body else ""
        if method == "initialize":
            assert session is None
            if self.initialize is not None:
                return self.initialize if isinstance(self.initialize, bytes) else self.initialize(request)
            self.sessions.append(f"{self.raw.id}.{next(self._numbers)}")
            return welcome(self.sessions[-1])
        if session not in self.sessions:
            return answer(b"no such session", status=404)
        if request.first.startswith(b"DELETE"):
            self.sessions.remove(session)
            self.deleted.append(session)
            return answer(b"")
        if method == "notifications/initialized":
            return self.initialized
        return answer(json.dumps({"at": session}).encode(), JSON, f"Mcp-Session-Id: {session}")

    @property
    def asked(self) -> list[str]:
        """What it was asked, shortly: JSON-RPC methods, or HTTP ones, with the session."""
        return [_short(request) for request in self.raw.requests]


def _short(request: Message) -> str:
    verb = request.first.split()[0].decode()
    method = json.loads(request.body).get("method", "") if request.body else verb
    session = request.one("mcp-session-id")
    return f"{method} {session}" if session else method


class Watched(Recordings):
    """Counts the questions that reach the store; `before_bind` happens just before a binding does."""

    def __init__(self) -> None:
        super().__init__(MemoryRecordings())
        self.gets = 0
        self.before_bind: Callable[[], Any] | None = None
        self.fault: Exception | None = None
        """Raised by every question."""

    async def put(self, *args: Any) -> None:
        self._check()
        await super().put(*args)

    async def get(self, app: str, key: bytes) -> Any:
        self.gets += 1
        self._check()
        return await super().get(app, key)

    async def bind(self, *args: Any) -> Any:
        before, self.before_bind = self.before_bind, None
        if before is not None:
            await before()
        self._check()
        return await super().bind(*args)

    async def delete(self, app: str, key: bytes) -> None:
        self._check()
        await super().delete(app, key)

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault


class Anew:
    """The rig and what it carries sessions over with."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.store = Watched()
        self.holds = Holds()
        self.beginnings = Beginnings(rig.gateway, rig.waker, rig.slots)
        self.carrier = Carrier(rig.gateway, self.store, self.beginnings, self.holds)
        rig.gateway.recordings = self.store
        rig.gateway.slow_path = proxy.application(rig.waker, rig.slots, rig.gateway.pins, self.carrier)  # type: ignore[arg-type]
        rig.catalog.subscribe(lambda app: listening.release(rig.gateway, app))
        self.app()

    def app(self, name: str = "tools", **settings: Any) -> App:
        return self.rig.app(name, **{"on_lost": OnLost.REINITIALIZE, **settings})

    async def server(self, id: str = "i-1", app: str = "tools", **fields: Any) -> Server:
        return Server(await self.rig.instance(id, app, **fields))

    async def opened(self, *lines: str, **params: Any) -> str:
        """The header of a new session, as its client sends it from now on."""
        made = await self.rig.ask(initialize(*lines, **params), "POST")
        assert made.status == 200, made
        return f"Mcp-Session-Id: {made.one('mcp-session-id')}"

    @property
    def keys(self) -> list[Key]:
        """The sessions with a binding here."""
        return list(self.rig.gateway.bindings._bound)

    @property
    def reinitialised(self) -> int:
        return self.rig.gateway.counters.sessions_reinitialised.total()


@asynccontextmanager
async def carrying(rig: Rig) -> AsyncIterator[Anew]:
    one = Anew(rig)
    yield one
    one.carrier.close()
    await one.beginnings.aclose()


def at(message: Message) -> str:
    """At which upstream session a tool call was served, or with which status and code it was refused."""
    if message.status != 200:
        return f"{message.status} {message.one('moorage-error')}"
    found: str = json.loads(message.body)["at"]
    return found
