"""A whole gateway, as `moorage serve` runs it, in front of instances that answer as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from gateway.app import Running, running
from gateway.config import parse
from tests.net.yard import TOY

Reply = Callable[[bytes], bytes]
"""From the head of a request to the whole answer."""


def ok(head: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def replays(value: str, *lines: str) -> Reply:
    """Answers with a replay."""
    answer = "\r\n".join(["HTTP/1.1 307 Elsewhere", f"fly-replay: {value}", *lines, "Content-Length: 0", "", ""])
    return lambda head: answer.encode("latin-1")


@dataclass(frozen=True, slots=True)
class Serving:
    """What a test may ask and look at."""

    running: Running
    public: httpx2.AsyncClient
    admin: httpx2.AsyncClient
    asked: dict[str, list[bytes]] = field(default_factory=dict)
    """The heads that each instance got, by APP/INSTANCE."""

    async def get(self, path: str, /, **params: Any) -> Any:
        """The JSON of a GET to the admin API that is to succeed."""
        response = await self.admin.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()


def asleep(*options: str) -> list[str]:
    """The command of a toy server that says nothing: where the gateway's output goes, a test may be reading."""
    return ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", "python3", "-I", "-S", str(TOY), "{port}", *options]


@asynccontextmanager
async def serving(
    settings: Mapping[str, str], instances: Mapping[str, Reply | list[str]], token: str = ""
) -> AsyncIterator[Serving]:
    """A gateway with these apps, each by the TOML of its section.

    Args:
        instances: by APP/INSTANCE, what one answers, or the command that starts it.
        token: the admin token.

    An exception of the test is raised as it is.
    """
    caught: BaseException | None = None
    asked: dict[str, list[bytes]] = {name: [] for name in instances}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        lines = ["[gateway]", 'listen = "127.0.0.1:0"', 'admin = "127.0.0.1:0"', "drain_grace = 0"]
        # Its own: what is in memory is shared by all gateways of a process.
        lines += [f'catalog = "sqlite:{folder}/moorage.db"', *([f'admin_token = "{token}"'] if token else [])]
        for name, text in settings.items():
            lines += [f"[apps.{name}]", text]
        for name, reply in instances.items():
            app, _, id = name.partition("/")
            lines += [f"[[apps.{app}.instances]]", f'id = "{id}"']
            if isinstance(reply, list):
                lines.append(f"command = {reply}")
            else:
                port = await stack.enter_async_context(listening(_noted(reply, asked[name])))
                lines.append(f'address = "127.0.0.1:{port}"')
        one = await stack.enter_async_context(running(parse("\n".join(lines))))
        headers = {"authorization": f"Bearer {token}"} if token else {}
        public = httpx2.AsyncClient(base_url=f"http://{one.public}", trust_env=False)
        admin = httpx2.AsyncClient(base_url=f"http://{one.admin}", trust_env=False, headers=headers)
        for client in (public, admin):
            await stack.enter_async_context(client)
        try:
            yield Serving(one, public, admin, asked)
        except BaseException as error:  # noqa: BLE001 - raised again below, outside of the groups
            caught = error
    if caught is not None:
        raise caught


def _noted(reply: Reply, asked: list[bytes]) -> Reply:
    def noted(head: bytes) -> bytes:
        asked.append(head)
        return reply(head)

    return noted


@asynccontextmanager
async def listening(reply: Reply) -> AsyncIterator[int]:
    """The port of a server that answers each request by itself; one that answers `Connection: close` closes then."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                await reader.readexactly(length)
                answer = reply(head)
                writer.write(answer)
                if b"\r\nConnection: close\r\n" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async with asyncio.TaskGroup() as tasks:

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = tasks.create_task(serve(reader, writer))
            serving.add(task)
            task.add_done_callback(serving.discard)

        async with await asyncio.start_server(accepted, "127.0.0.1", 0) as server:
            try:
                yield server.sockets[0].getsockname()[1]
            finally:
                for task in serving:
                    task.cancel()
