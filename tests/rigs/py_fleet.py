"""A fleet of official Python clients: many sessions at once, each checking that its state is where it left it.

Speaks 2025 sessions and 2024-11-05 HTTP+SSE. A session that finds anything amiss says so in `errors`; where a
request really went is counted from the instances' journals, not here.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ResourceUpdatedNotification,
    TextContent,
)

from tests.rigs.detour import Clients

_LOST = (CONNECTION_CLOSED, INTERNAL_ERROR)
"""What the SDK makes of a broken connection and of a 5xx; a lost session is another code and is never tried again."""
_AGAIN_S = 0.1
_STEP_S = 30.0
_NOTICE_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet does; the same words as in `ts_fleet.mjs`."""

    urls: Sequence[str]
    """The endpoint; with more than one, requests alternate between their ports."""
    sessions: int
    calls: int
    transport: str = "http"
    name: str = "py"
    seed: int = 0
    patience_s: float = 0.0
    """Above 0, a call that was lost with its connection is made anew (with a new nonce) for so long."""
    asks: bool = True
    """Sampling, elicitation and notifications too; a server that answers with JSON can ask for nothing."""


@dataclass(slots=True)
class Session:
    """What one session went through."""

    index: int
    calls: int = 0
    asks: int = 0
    notices: int = 0
    lost: int = 0
    """Calls whose connection broke and that were made anew."""
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole fleet's result."""

    sessions: list[Session]

    @property
    def errors(self) -> list[str]:
        return [f"session {session.index}: {error}" for session in self.sessions for error in session.errors]

    def total(self, what: str) -> int:
        """The sum of a count over all sessions."""
        return sum(getattr(session, what) for session in self.sessions)


async def run_fleet(plan: Plan) -> Outcome:
    """Run all sessions of `plan` at once, to their end."""
    sessions = [Session(index) for index in range(plan.sessions)]
    async with asyncio.TaskGroup() as group:
        for session in sessions:
            group.create_task(_Caller(plan, session).run())
    return Outcome(sessions)


@asynccontextmanager
async def streamable(url: str, clients: Clients) -> AsyncIterator[Any]:
    """The SDK's Streamable HTTP transport over a client made by `clients`."""
    async with clients() as http_client, streamable_http_client(url, http_client=http_client) as streams:
        yield streams


class _Caller:
    """One session's client."""

    def __init__(self, plan: Plan, session: Session) -> None:
        self._plan = plan
        self._session = session
        self._rng = random.Random(f"{plan.seed}/{plan.name}/{session.index}")
        self._notices: set[str] = set()
        self._noticed = asyncio.Condition()
        self._acknowledged: list[str] = []
        self._sent = 0
        self._count = 0

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        ports = [urlsplit(url).port or 80 for url in self._plan.urls]
        clients = Clients(ports, self._plan.patience_s)
        url = self._plan.urls[0]
        if self._plan.transport == "sse":
            return sse_client(url, httpx_client_factory=clients)
        return streamable(url, clients)

    async def run(self) -> None:
        try:
            async with Client(
                self._transport(),
                mode="legacy",
                read_timeout_seconds=_STEP_S,
                sampling_callback=self._sample,
                elicitation_callback=self._elicit,
                message_handler=self._message,
            ) as client:
                await self._work(client)
        except (MCPError, httpx2.HTTPError, OSError, TimeoutError, ExceptionGroup) as error:
            self._session.errors.append(f"ended by {error!r}")

    async def _work(self, client: Client) -> None:
        """The session's calls: state all along, one sampling, one elicitation, two notifications, then the audit."""
        plan, mine = self._plan, f"{self._plan.name}-{self._session.index}"
        await self._call(client, "put", key="mine", value=mine)
        asks = [self._sampled, self._elicited, self._announced, self._announced] if plan.asks else []
        steps = [self._incr] * (plan.calls - 3 - len(asks)) + asks
        self._rng.shuffle(steps)
        for step in steps:
            await step(client)
        kept = await self._call(client, "get", key="mine")
        self._check(kept.get("value") == mine, f"kept {kept.get('value')!r}, not {mine!r}")
        history = (await self._call(client, "history")).get("nonces", [])
        seen = [nonce for nonce in history if nonce in set(self._acknowledged)]
        self._check(seen == self._acknowledged, f"the instance saw {history}, acknowledged {self._acknowledged}")
        foreign = [nonce for nonce in history if not nonce.startswith(f"{mine}-")]
        self._check(not foreign, f"foreign nonces {foreign}")

    async def _incr(self, client: Client) -> None:
        count = int((await self._call(client, "incr")).get("count", -1))
        low, high = self._count + 1, self._count + 1 + self._session.lost
        self._check(low <= count <= high, f"counted {count}, expected {low}..{high}")
        self._count = count

    async def _sampled(self, client: Client) -> None:
        prompt = f"p{self._rng.randrange(10**9)}"
        answer = await self._call(client, "ask_model", prompt=prompt)
        self._check(answer.get("text") == f"model says {prompt}", f"sampled {answer.get('text')!r} for {prompt}")

    async def _elicited(self, client: Client) -> None:
        question = f"q{self._rng.randrange(10**9)}"
        answer = await self._call(client, "ask_user", question=question)
        self._check(answer.get("text") == f"user says {question}", f"elicited {answer.get('text')!r} for {question}")

    async def _announced(self, client: Client) -> None:
        give_up = asyncio.get_running_loop().time() + _NOTICE_S + self._plan.patience_s
        while True:
            uri = f"rig://{self._plan.name}-{self._session.index}/{self._sent}"
            await self._call(client, "announce", uri=uri)
            try:
                async with asyncio.timeout(2.0 if self._plan.patience_s else _NOTICE_S), self._noticed:
                    await self._noticed.wait_for(partial(self._notices.__contains__, uri))
            except TimeoutError:
                if self._plan.patience_s and asyncio.get_running_loop().time() < give_up:
                    self._session.lost += 1
                    continue
                self._session.errors.append(f"no notification of {uri}")
            return

    async def _call(self, client: Client, tool: str, **arguments: object) -> dict[str, Any]:
        """Call a tool and return its JSON answer; an error result or a refusal is recorded, and {} returned."""
        give_up = asyncio.get_running_loop().time() + self._plan.patience_s
        while True:
            nonce = f"{self._plan.name}-{self._session.index}-{self._sent}"
            self._sent += 1
            try:
                result = await client.call_tool(tool, {"nonce": nonce, **arguments})
            except MCPError as error:
                if error.code in _LOST and asyncio.get_running_loop().time() < give_up:
                    self._session.lost += 1
                    await asyncio.sleep(_AGAIN_S)  # noqa: TID251 - back-off until the other process serves again
                    continue
                self._session.errors.append(f"{tool}: {error!r}")
                return {}
            self._session.calls += 1
            self._acknowledged.append(nonce)
            return self._read(tool, result)

    def _read(self, tool: str, result: CallToolResult) -> dict[str, Any]:
        text = next((block.text for block in result.content if isinstance(block, TextContent)), "")
        if result.is_error:
            self._session.errors.append(f"{tool}: {text}")
            return {}
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _check(self, holds: bool, complaint: str) -> None:
        if not holds:
            self._session.errors.append(complaint)

    async def _sample(self, context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
        self._session.asks += 1
        content = params.messages[0].content
        prompt = content.text if isinstance(content, TextContent) else ""
        return CreateMessageResult(
            role="assistant", model="rig", content=TextContent(type="text", text=f"model says {prompt}")
        )

    async def _elicit(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self._session.asks += 1
        return ElicitResult(action="accept", content={"word": f"user says {params.message}"})

    async def _message(self, message: IncomingMessage) -> None:
        if not isinstance(message, ResourceUpdatedNotification):
            return
        async with self._noticed:
            if message.params.uri in self._notices:
                self._session.errors.append(f"notified twice of {message.params.uri}")
            if not message.params.uri.startswith(f"rig://{self._plan.name}-{self._session.index}/"):
                self._session.errors.append(f"notified of another session's {message.params.uri}")
            self._notices.add(message.params.uri)
            self._session.notices += 1
            self._noticed.notify_all()
