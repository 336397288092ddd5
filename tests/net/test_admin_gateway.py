"""The admin API of a whole gateway: what it explains is what happens, what it ends is ended, what it counts came."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from gateway.app import running
from gateway.config import parse

INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
IDS = ("i-1", "i-2", "i-3")
ROUNDS = 300


@dataclass(frozen=True, slots=True)
class Whole:
    """A gateway in front of three toy instances that say who they are."""

    public: httpx2.AsyncClient
    admin: httpx2.AsyncClient


@asynccontextmanager
async def whole() -> AsyncIterator[Whole]:
    async with AsyncExitStack() as stack:
        lines = [
            "[gateway]",
            'listen = "127.0.0.1:0"',
            'admin = "127.0.0.1:0"',
            # Its own: what is in memory is shared by all gateways of a process.
            f'catalog = "sqlite:{stack.enter_context(TemporaryDirectory())}/moorage.db"',
            "drain_grace = 0",
        ]
        lines += [
            "[apps.tools]",
            'hosts = ["tools.localhost"]',
            'key = ["header:X-Session"]',
            'affinity_cookie = "sid"',
        ]
        for id in IDS:
            server = await stack.enter_async_context(await toy(id))
            port = server.sockets[0].getsockname()[1]
            lines += ["[[apps.tools.instances]]", f'id = "{id}"', f'address = "127.0.0.1:{port}"']
        one = await stack.enter_async_context(running(parse("\n".join(lines))))
        clients = [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False))
            for address in (one.public, one.admin)
        ]
        yield Whole(*clients)


async def toy(id: str) -> asyncio.Server:
    """An instance: says its id, and makes a session of every `initialize`."""
    numbers = itertools.count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                body = await reader.readexactly(length)
                made = b"Mcp-Session-Id: s-%d\r\n" % next(numbers) if b"initialize" in body else b""
                writer.write(b"HTTP/1.1 200 OK\r\n%bInstance: %b\r\nContent-Length: 0\r\n\r\n" % (made, id.encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def initialize(on: Whole, **headers: str) -> str:
    response = await on.public.post("/mcp", json=INITIALIZE, headers={"host": "tools.localhost", **headers})
    assert response.status_code == 200
    token: str = response.headers["mcp-session-id"]
    return token


async def test_what_is_explained_is_what_happens(rng: random.Random) -> None:
    async with whole() as on:
        sessions = [(await initialize(on, **who), who) for who in _callers(rng, 6)]
        for _ in range(ROUNDS):
            headers = {"host": rng.choice(["tools.localhost", "tools.localhost", "tools.localhost", "nobody.example"])}
            if rng.random() < 0.4:
                token, who = rng.choice(sessions)
                headers |= {"mcp-session-id": rng.choice([token, token, token + "x", "made-up"])} | who
            if rng.random() < 0.3:
                headers["x-session"] = str(rng.randrange(10))
            if rng.random() < 0.2:
                headers["fly-force-instance-id"] = rng.choice([*IDS, "i-9"])
            if rng.random() < 0.2:
                headers["fly-prefer-instance-id"] = rng.choice([*IDS, "i-9"])
            told = await explain(on, [f"{name}: {value}" for name, value in headers.items()])
            on.public.cookies.clear()
            happened = await on.public.get("/mcp", headers=headers)
            expected = (told["status"] or 200, told["code"], told["instance"] if told["action"] == "forward" else None)
            assert expected == (
                happened.status_code,
                happened.headers.get("moorage-error"),
                happened.headers.get("instance"),
            ), (headers, told)


async def explain(on: Whole, headers: list[str]) -> Any:
    response = await on.admin.post("/v1/explain", json={"path": "/mcp", "headers": headers})
    assert response.status_code == 200, response.text
    return response.json()


def _callers(rng: random.Random, count: int) -> list[dict[str, str]]:
    return [rng.choice([{}, {"authorization": f"Bearer {number}"}]) for number in range(count)]


async def test_a_session_ended_here_is_404_from_then_on() -> None:
    async with whole() as on:
        token, kept = await initialize(on), await initialize(on)
        headers = {"host": "tools.localhost"}
        assert (await on.public.get("/mcp", headers={**headers, "mcp-session-id": token})).status_code == 200
        listed = (await on.admin.get("/v1/sessions")).json()["sessions"]
        # The latest first: the one that was just asked for.
        assert [one["requests"] for one in listed] == [2, 1]
        assert (await on.admin.delete(f"/v1/sessions/{listed[0]['name']}")).status_code == 200
        gone = await on.public.get("/mcp", headers={**headers, "mcp-session-id": token})
        assert (gone.status_code, gone.headers["moorage-error"]) == (404, "PS03")
        assert (await on.public.get("/mcp", headers={**headers, "mcp-session-id": kept})).status_code == 200


async def test_a_machine_registered_while_it_runs_takes_sessions_and_loses_them_when_it_is_removed() -> None:
    async with whole() as on:
        for id in IDS:
            await on.admin.post(f"/v1/apps/tools/machines/{id}/cordon")
        async with await toy("i-9") as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            created = await on.admin.post("/v1/apps/tools/machines", json={"id": "i-9", "address": address})
            assert created.status_code == 201
            token = await initialize(on)
            headers = {"host": "tools.localhost", "mcp-session-id": token}
            assert (await on.public.get("/mcp", headers=headers)).headers["instance"] == "i-9"
            assert (await on.admin.get("/v1/apps/tools/machines/i-9")).json()["sessions"] == 1
            await on.admin.delete("/v1/apps/tools/machines/i-9")
            lost = await on.public.get("/mcp", headers=headers)
            assert (lost.status_code, lost.headers["moorage-error"]) == (404, "PS02")


async def test_the_metrics_of_real_requests() -> None:
    async with whole() as on:
        token = await initialize(on)
        headers = {"host": "tools.localhost", "mcp-session-id": token}
        for _ in range(3):
            await on.public.get("/mcp", headers=headers)
        await on.public.get("/mcp", headers={**headers, "mcp-session-id": "made-up"})
        text = (await on.admin.get("/metrics")).text
        for line in (
            'moorage_requests_total{app="tools",status="200"} 4.0',
            'moorage_requests_total{app="tools",status="404"} 1.0',
            'moorage_routed_total{app="tools",rule="sealed"} 3.0',
            'moorage_problems_total{app="tools",code="PS01"} 1.0',
            'moorage_sessions_made_total{app="tools"} 1.0',
            'moorage_misroutes_total{app="tools"} 0.0',
        ):
            assert line in text.splitlines()
        assert token not in text
        (one,) = (await on.admin.get("/v1/gateways")).json()["gateways"]
        assert one["connections"] >= 1
        assert (await on.admin.get("/readyz")).status_code == 200


async def test_a_new_file_is_opened_by_all_its_readers_at_once() -> None:
    for _ in range(5):
        async with whole() as on:
            logs = (await on.admin.get("/v1/catalog")).json()["logs"]
            assert [log["last_error"] for log in logs] == ["", ""]
