"""All agents behind one `AgentApi`: each call goes to the agent that owns the instance.

That is this process's own agent, or the one whose address stands in the instance's record.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

from gateway.agent.base import (
    AgentApi,
    CordonOutcome,
    Failure,
    FailureKind,
    InstanceKey,
    Listed,
    NotReached,
    PrepareOutcome,
    Refused,
    Rest,
    StartFailed,
    StartOutcome,
    StopOutcome,
    WaitOutcome,
)
from gateway.agent.remote import RemoteAgent, is_dialled
from gateway.agent.tokens import Tokens
from gateway.core.model import Instance, State

MAX_AGENTS: Final = 256
"""Agents whose connections are kept; the one that was not asked for the longest time goes first."""


class Fleet:
    """Implements `AgentApi`. `aclose` lets go of the other agents; the own one is not closed."""

    def __init__(
        self,
        local: AgentApi | None,
        owner: str,
        instance: Callable[[str, str], Instance | None],
        tokens: Tokens,
    ) -> None:
        """Args:
        local: this process's own agent.
        owner: the writer id of the own agent.
        instance: an instance as the catalog has it.
        """
        self._local = local
        self._owner = owner
        self._instance = instance
        self._tokens = tokens
        self._remote: OrderedDict[str, RemoteAgent] = OrderedDict()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Fleet {self._owner} and {list(self._remote)}>"

    async def aclose(self) -> None:
        """Whoever asks another agent from now on is told that it is away."""
        self._closed = True
        while self._remote:
            await self._remote.popitem()[1].aclose()

    # --- AgentApi ----------------------------------------------------------------------

    async def start(self, app: str, id: str, *, release: bool = False) -> StartOutcome:
        agent = await self._agent(app, id)
        return StartFailed(agent) if isinstance(agent, Failure) else await agent.start(app, id, release=release)

    async def stop(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        agent = await self._agent(app, id)
        return Refused(agent) if isinstance(agent, Failure) else await agent.stop(app, id, hold=hold)

    async def suspend(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        agent = await self._agent(app, id)
        return Refused(agent) if isinstance(agent, Failure) else await agent.suspend(app, id, hold=hold)

    async def prepare(self, app: str, id: str, incarnation: str, rest: Rest) -> PrepareOutcome:
        agent = await self._agent(app, id)
        return Refused(agent) if isinstance(agent, Failure) else await agent.prepare(app, id, incarnation, rest)

    async def sleep(self, app: str, id: str, token: str) -> StopOutcome:
        agent = await self._agent(app, id)
        return Refused(agent) if isinstance(agent, Failure) else await agent.sleep(app, id, token)

    async def stay(self, app: str, id: str, token: str) -> None:
        agent = await self._agent(app, id)
        if not isinstance(agent, Failure):
            await agent.stay(app, id, token)

    async def cordon(self, app: str, id: str, cordoned: bool) -> CordonOutcome:
        agent = await self._agent(app, id)
        return Refused(agent) if isinstance(agent, Failure) else await agent.cordon(app, id, cordoned)

    async def wait(self, app: str, id: str, state: State, timeout_s: float) -> WaitOutcome:
        agent = await self._agent(app, id)
        return NotReached(None) if isinstance(agent, Failure) else await agent.wait(app, id, state, timeout_s)

    async def list(self) -> Sequence[Listed]:
        """The own agent's instances. What others own stands in the catalog."""
        return await self._local.list() if self._local is not None else ()

    # --- who is asked ------------------------------------------------------------------

    async def _agent(self, app: str, id: str) -> AgentApi | Failure:
        """Whom to ask about an instance, or why nobody can be asked."""
        key, instance = InstanceKey(app, id), self._instance(app, id)
        if self._local is not None and (instance is None or instance.owner == self._owner):
            return self._local
        if instance is None:
            return Failure(FailureKind.UNKNOWN_INSTANCE, f"there is no instance {key}")
        if instance.agent:
            return await self._at(instance.agent, key)
        if instance.startable:
            message = f"{key}: its agent has no address that others can ask: set [agent] listen"
            return Failure(FailureKind.AGENT_AWAY, message, f"it belongs to {instance.owner or '?'}")
        # A plain address that somebody else declared: there is nothing to ask for.
        return Failure(FailureKind.UNKNOWN_INSTANCE, f"no agent here owns {key}")

    async def _at(self, url: str, key: InstanceKey) -> AgentApi | Failure:
        if self._closed or not is_dialled(url):
            return _away(key, "this gateway is closing" if self._closed else f"{url} is not dialled")
        while url not in self._remote and len(self._remote) >= MAX_AGENTS:
            idle = next((at for at, agent in self._remote.items() if not agent.asked), None)
            if idle is None:
                return _away(key, "too many are asked now")
            await self._remote.pop(idle).aclose()
        agent = self._remote.get(url)
        if agent is None:
            tls = self._tls if url.startswith("https:") else None
            agent = self._remote[url] = RemoteAgent(url, self._tokens, tls=tls)
        self._remote.move_to_end(url)
        # Asked before anything else is awaited: what is idle may be closed.
        return agent

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """One for all: each costs a megabyte."""
        return ssl.create_default_context()


def _away(key: InstanceKey, detail: str) -> Failure:
    return Failure(FailureKind.AGENT_AWAY, f"the agent of {key} cannot be asked", detail)
