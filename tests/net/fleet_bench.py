"""An agent's API on a real socket, in front of an agent that answers what a test says; and servers that lie."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from gateway.agent.api import application
from gateway.agent.base import (
    AgentApi,
    Cordoned,
    CordonOutcome,
    Listed,
    NotReached,
    Prepared,
    PrepareOutcome,
    Rest,
    Started,
    StartOutcome,
    StopOutcome,
    Stopped,
    WaitOutcome,
)
from gateway.agent.tokens import Tokens
from gateway.control.server import bound, listen, server
from gateway.core.model import Address, Instance, State

TOKENS = Tokens([b"the bench's secret, 32 bytes long"])
INSTANCE = Instance(
    "tools", "i-1", Address("127.0.0.1", 9001), incarnation="0mbench1", startable=True, owner="agent@x:1"
)


class ScriptedAgent:
    """An `AgentApi` that notes what it is asked and answers what it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.starts: StartOutcome = Started(INSTANCE)
        self.stops: StopOutcome = Stopped(INSTANCE)
        self.prepares: PrepareOutcome = Prepared(INSTANCE, "0a1b")
        self.cordons: CordonOutcome = Cordoned(INSTANCE)
        self.waits: WaitOutcome = NotReached(INSTANCE)
        self.owned: Sequence[Listed] = [Listed(INSTANCE, "reason", 1.5, "pid 4711", "last line")]
        self.gate = asyncio.Event()
        """A start waits for it."""
        self.gate.set()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def start(self, app: str, id: str, *, release: bool = False) -> StartOutcome:
        self.asked.append(("start", app, id, release))
        self.begun.set()
        await self.gate.wait()
        self.ended.set()
        return self.starts

    async def stop(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        self.asked.append(("stop", app, id, hold))
        return self.stops

    async def suspend(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        self.asked.append(("suspend", app, id, hold))
        return self.stops

    async def prepare(self, app: str, id: str, incarnation: str, rest: Rest) -> PrepareOutcome:
        self.asked.append(("prepare", app, id, incarnation, rest))
        return self.prepares

    async def sleep(self, app: str, id: str, token: str) -> StopOutcome:
        self.asked.append(("sleep", app, id, token))
        return self.stops

    async def stay(self, app: str, id: str, token: str) -> None:
        self.asked.append(("stay", app, id, token))

    async def cordon(self, app: str, id: str, cordoned: bool) -> CordonOutcome:
        self.asked.append(("cordon", app, id, cordoned))
        return self.cordons

    async def wait(self, app: str, id: str, state: State, timeout_s: float) -> WaitOutcome:
        self.asked.append(("wait", app, id, state, timeout_s))
        return self.waits

    async def list(self) -> Sequence[Listed]:
        return self.owned


@contextlib.asynccontextmanager
async def serving(agent: AgentApi, tokens: Tokens = TOKENS) -> AsyncIterator[str]:
    """The URL of an agent's API. An exception of the test is raised as it is."""
    caught: BaseException | None = None
    with contextlib.closing(listen(Address("127.0.0.1", 0))) as listener:
        url = f"http://{bound(listener)}"
        api = server(application(agent, tokens, url), listener, grace_s=1.0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(api.run_on_socket())
            await api.listening()
            try:
                yield url
            except BaseException as error:  # noqa: BLE001 - raised again below, outside of the group
                caught = error
            api.stop()
    if caught is not None:
        raise caught


class Liar:
    """A server that is no agent: it answers every request with the same bytes, or never."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heads: list[str] = []
        self.left = asyncio.Event()
        """The client closed its connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(self.answer)
            await writer.drain()
            if not self.answer:
                await reader.read()
        self.left.set()
        writer.close()

    @property
    def token(self) -> str:
        """What the last request was sent with."""
        lines = (line.partition(": ") for line in self.heads[-1].split("\r\n"))
        return next(value for name, _, value in lines if name.lower() == "authorization").removeprefix("Bearer ")


@contextlib.asynccontextmanager
async def lying(answer: bytes) -> AsyncIterator[tuple[Liar, str]]:
    liar = Liar(answer)
    async with await asyncio.start_server(liar.serve, "127.0.0.1", 0) as listening:
        yield liar, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def json_answer(body: bytes, status: str = "200 OK", *lines: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "Connection: close", "", ""])
    return head.encode() + body
