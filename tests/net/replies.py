"""Answers that ask for a replay, and instances that note in which order they were asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.net.rig import RawInstance, Rig
from tests.net.wire import Message

JSON_TYPE = "application/vnd.fly.replay+json"
Reply = bytes | Callable[[Message], bytes]
TO_USER = "app=user;instance=u-1"
MISS, HIT = "i-1, u-1 miss", "u-1 hit"
"""What `Cast.way` says of a request that i-1 replayed to u-1, and of one that a cache did."""


def get(target: str = "/", *lines: str, host: str = "tools.localhost", method: str = "GET") -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")


def post(method: str, *lines: str, host: str = "tools.localhost") -> bytes:
    """A JSON-RPC request to the MCP endpoint."""
    body = json.dumps({"jsonrpc": "2.0", "id": "r-1", "method": method}).encode()
    length = f"Content-Length: {len(body)}"
    return get("/mcp", "Content-Type: application/json", *lines, length, host=host, method="POST") + body


def answer(body: bytes = b"ok", *lines: str, status: int = 200) -> bytes:
    """A whole answer."""
    head = [f"HTTP/1.1 {status} Whatever", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def replay(value: str, *lines: str) -> bytes:
    """An answer with a fly-replay header."""
    return answer(b"", f"fly-replay: {value}", *lines, status=307)


def cached(value: str, pattern: str, ttl: int | str = 60, bypass: str = "") -> bytes:
    """The same with the headers of a path cache."""
    lines = [f"fly-replay-cache: {pattern}", f"fly-replay-cache-ttl-secs: {ttl}"]
    return replay(value, *lines, *([f"fly-replay-cache-allow-bypass: {bypass}"] if bypass else []))


def replay_json(**fields: Any) -> bytes:
    """An answer of the JSON form."""
    return answer(json.dumps(fields).encode(), f"Content-Type: {JSON_TYPE}")


def by_name(request: Message) -> bytes:
    """A router by session, whose name, in the cookie `sid` or in X-Session, is that of its instance."""
    cookies = dict(part.strip().split("=") for part in (request.one("cookie") or "sid=").split(";"))
    wanted = request.one("x-session") or cookies.get("sid")
    return replay(f"app=user;instance={wanted}") if wanted else answer()


TO_APP = replay("app=user")
IN_CACHE = cached(TO_USER, "/u/1/*")


class Cast:
    """Instances that answer by themselves."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.asked: list[str] = []
        """Who was asked, in order, and what each was told of the replay caches."""
        self._replies: dict[str, Reply] = {}

    async def instance(self, id: str, app: str = "tools", reply: Reply | None = None, **fields: Any) -> RawInstance:
        """An instance that gives this answer, or its own name."""
        one = await self.rig.instance(id, app, **fields)
        self.says(id, answer(id.encode()) if reply is None else reply)

        def noted(request: Message) -> bytes:
            self.asked.append(" ".join(filter(None, (id, request.one("fly-replay-cache-status")))))
            said = self._replies[id]
            return said if isinstance(said, bytes) else said(request)

        one.answers(noted)
        return one

    def says(self, id: str, reply: Reply) -> None:
        """What an instance answers from now on."""
        self._replies[id] = reply

    async def way(self, raw: bytes) -> str:
        """Who was asked for one request, as in `i-1, u-1 miss`; what came of it follows where it is no 200."""
        self.asked.clear()
        got = await self.rig.ask(raw, raw.partition(b" ")[0].decode())
        code = got.one("moorage-error")
        if got.status != 200:
            self.asked.append(f"{got.status} {code}" if code else str(got.status))
        return ", ".join(self.asked)

    async def ways(self, *raw: bytes) -> list[str]:
        """The ways of requests in a row."""
        return [await self.way(one) for one in raw]


async def router_and_user(rig: Rig, reply: Reply = IN_CACHE, **settings: Any) -> tuple[Cast, RawInstance, RawInstance]:
    """i-1 of the app `tools`, which replays by this answer, and u-1 of the app `user`, which answers with its name."""
    cast = Cast(rig)
    rig.app("tools", **settings)
    rig.app("user", hosts=("user.localhost",))
    return cast, await cast.instance("i-1", "tools", reply), await cast.instance("u-1", "user")


async def two_orgs(
    rig: Rig, reply: Reply = TO_APP, sources: tuple[str, ...] = ("org:one",), **settings: Any
) -> tuple[Cast, RawInstance, RawInstance]:
    """i-1 of `tools` of org `one`, which is addressed, and u-1 of `user` of org `two`, which takes replays from it."""
    cast = Cast(rig)
    rig.app("tools", org="one", hosts=("tools.localhost",), **settings)
    rig.app("user", org="two", hosts=("user.localhost",), replay_sources=sources)
    return cast, await cast.instance("i-1", "tools", reply), await cast.instance("u-1", "user")
