"""What rig instances write down about the requests they serve, and what is counted from it.

One JSON object a line, appended by the instance itself: the request with its session, method and nonce
before it is served, the answer's status after. The counts (`judge`) use nothing else.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LEGACY_ENDPOINT = re.compile(rb"event: endpoint\r?\ndata: [^\r\n]*?session_?[iI]d=([0-9a-zA-Z-]+)")


class Journal:
    """The append-only log of one boot of one instance."""

    def __init__(self, path: Path, instance: str) -> None:
        self.instance = instance
        self.boot = secrets.token_hex(4)
        self._file = path.open("a", buffering=1)

    def write(self, event: str, **fields: object) -> None:
        line = {"instance": self.instance, "boot": self.boot, "event": event, **fields}
        self._file.write(json.dumps(line) + "\n")


class Streams:
    """Which sessions have their server-to-client stream open: a tool that pushes waits for it."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    async def opened(self, session: str) -> None:
        async with self._changed:
            self._open[session] += 1
            self._changed.notify_all()

    async def closed(self, session: str) -> None:
        async with self._changed:
            self._open[session] -= 1

    async def wait_open(self, session: str, within_s: float = 10.0) -> None:
        """Raises TimeoutError when the client has not opened its stream in time."""
        async with asyncio.timeout(within_s), self._changed:
            await self._changed.wait_for(lambda: self._open[session] > 0)


class Journaled:
    """ASGI middleware that journals every HTTP request of the application inside."""

    def __init__(self, app: ASGIApp, journal: Journal, streams: Streams) -> None:
        self._app = app
        self._journal = journal
        self._streams = streams
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._requests += 1
        await _Served(self._app, self._journal, self._streams, self._requests).run(scope, receive, send)


class _Served:
    """One request being served."""

    def __init__(self, app: ASGIApp, journal: Journal, streams: Streams, n: int) -> None:
        self._app = app
        self._journal = journal
        self._streams = streams
        self._n = n
        self._session = ""
        self._streaming = ""

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        self._session = headers.get("mcp-session-id") or (query.get("session_id") or query.get("sessionId") or [""])[0]
        body = b""
        if scope["method"] == "POST":
            whole = await _read(receive)
            if whole is None:
                self._journal.write("cut", n=self._n, session=self._session)
                return
            body = whole
            receive = _replay(body, receive)
        self._journal.write(
            "request",
            n=self._n,
            http=scope["method"],
            path=scope["path"],
            session=self._session,
            principal=headers.get("authorization", ""),
            **_rpc(body),
        )

        async def note(message: Message) -> None:
            await send(message)
            await self._note(scope, message)

        try:
            await self._app(scope, receive, note)
        finally:
            if self._streaming:
                await self._streams.closed(self._streaming)
                self._journal.write("stream-closed", n=self._n, session=self._streaming)

    async def _note(self, scope: Scope, message: Message) -> None:
        """Journal what the answer tells; called once its bytes are on their way."""
        if message["type"] == "http.response.start":
            made = dict(message["headers"]).get(b"mcp-session-id", b"").decode("latin-1")
            status: int = message["status"]
            self._journal.write("answer", n=self._n, status=status, session=made or self._session)
            if scope["method"] == "GET" and status == 200 and self._session:
                await self._stream_opened(self._session)
        elif message["type"] == "http.response.body" and scope["method"] == "GET" and not self._streaming:
            endpoint = _LEGACY_ENDPOINT.search(message.get("body", b""))
            if endpoint:
                session = endpoint.group(1).decode()
                self._journal.write("session", n=self._n, session=session)
                await self._stream_opened(session)

    async def _stream_opened(self, session: str) -> None:
        self._streaming = session
        await self._streams.opened(session)


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None when the client was gone before its end."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


def _rpc(body: bytes) -> dict[str, str]:
    """The parts of a JSON-RPC message worth journaling; empty for anything else."""
    try:
        message: Any = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(message, dict):
        return {}
    params = message.get("params")
    params = params if isinstance(params, dict) else {}
    arguments = params.get("arguments")
    nonce = arguments.get("nonce", "") if isinstance(arguments, dict) else ""
    if "requestState" in params:
        nonce += "/retry"
    return {"rpc": message.get("method", "(reply)"), "tool": str(params.get("name", "")), "nonce": nonce}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal."""

    instance: str
    boot: str
    event: str
    n: int
    session: str = ""
    http: str = ""
    path: str = ""
    principal: str = ""
    rpc: str = ""
    tool: str = ""
    nonce: str = ""
    status: int = 0

    @property
    def where(self) -> tuple[str, str]:
        return self.instance, self.boot


def read(paths: Iterable[Path]) -> list[Entry]:
    """All whole lines of these journals; a line still being written is left out."""
    entries = []
    for path in paths:
        for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
            if line.endswith("\n"):
                entries.append(Entry(**json.loads(line)))
    return entries


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the instances' journals say of a run."""

    sessions: dict[str, tuple[str, str]]
    """Session id -> the (instance, boot) that made it."""
    requests: int
    """Requests that named a session."""
    misrouted: list[Entry]
    """Requests of a session at another instance or boot than made it, or of a session that nobody made."""
    refused: list[Entry]
    """Answers of 400 and above to requests that named a session."""
    repeated: list[str]
    """Nonces that were served more than once."""
    deleted: int
    """Sessions ended by DELETE."""

    @property
    def placed(self) -> Counter[str]:
        """How many sessions each instance made."""
        return Counter(instance for instance, _ in self.sessions.values())


def judge(entries: list[Entry]) -> Verdict:
    """Count from the journals alone. A session is made by a 2xx answer to `initialize` or an `endpoint` event."""
    asked = {(*entry.where, entry.n): entry for entry in entries if entry.event == "request"}
    sessions: dict[str, tuple[str, str]] = {}
    for entry in entries:
        request = asked.get((*entry.where, entry.n))
        made = entry.event == "session" or (
            entry.event == "answer" and entry.status < 300 and request is not None and request.rpc == "initialize"
        )
        if made and entry.session:
            sessions.setdefault(entry.session, entry.where)
    named = [entry for entry in asked.values() if entry.session]
    nonces = Counter(entry.nonce for entry in asked.values() if entry.nonce)
    answers = [entry for entry in entries if entry.event == "answer"]
    return Verdict(
        sessions=sessions,
        requests=len(named),
        misrouted=[entry for entry in named if sessions.get(entry.session) != entry.where],
        refused=[entry for entry in answers if entry.status >= 400 and asked[(*entry.where, entry.n)].session],
        repeated=[nonce for nonce, times in nonces.items() if times > 1],
        deleted=sum(a.status < 300 and asked[(*a.where, a.n)].http == "DELETE" for a in answers),
    )
