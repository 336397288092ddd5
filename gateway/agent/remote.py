"""An agent that is asked over HTTP: `AgentApi` as the client of api.py.

Whatever happens on the way is one failure, `agent-away`; what the agent itself says comes back unchanged. A caller
that is cancelled closes its request, and the agent goes on. Nothing is asked twice by itself, no redirect is followed,
and answers are bounded: a URL comes from a record, and whoever is there need not be an agent.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx2

from gateway.agent.base import (
    Cordoned,
    CordonOutcome,
    Failure,
    FailureKind,
    InstanceKey,
    Listed,
    NotReached,
    Prepared,
    PrepareOutcome,
    Reached,
    Refused,
    Rest,
    Started,
    StartFailed,
    StartOutcome,
    StopOutcome,
    Stopped,
    WaitOutcome,
)
from gateway.agent.outcomes import BadAnswer, Outcome, decode, decode_listed
from gateway.agent.tokens import Tokens
from gateway.core.bodies import parse_instance
from gateway.core.model import Instance, State

CONNECT_S: Final = 2.0
SHORT_S: Final = 10.0
"""For what the agent answers at once."""
LONG_S: Final = 3600.0
"""For what takes as long as an app's settings say. The agent ends it much sooner, and so do the callers."""
WAIT_S: Final = 60.0
"""The longest wait that the API knows; longer ones ask again."""
PAGE: Final = 1000
MAX_ANSWER_BYTES: Final = 1024 * 1024
MAX_PAGE_BYTES: Final = 64 * 1024 * 1024
Json = dict[str, Any] | list[Any]
LIMITS: Final = httpx2.Limits(max_connections=512, max_keepalive_connections=16, keepalive_expiry=2.0)
"""An idle connection is dropped before the agent's server would."""


def is_dialled(url: str) -> bool:
    """Whether this is a URL of an agent: http or https, a host name or an IP address in its usual form, and a port."""
    scheme, _, where = url.partition("://")
    if scheme not in ("http", "https"):
        return False
    parsed = parse_instance("app/id", {"address": where})
    return isinstance(parsed, Instance) and str(parsed.address) == where


class RemoteAgent:
    """Implements `AgentApi` for the agent at a URL. Close it by `aclose`."""

    def __init__(self, url: str, tokens: Tokens, *, tls: ssl.SSLContext | None = None) -> None:
        """Raises ValueError for a URL that is not dialled."""
        if not is_dialled(url):
            raise ValueError(f"{url!r} is no agent's URL")
        self.url = url
        self.asked = 0
        """Requests under way."""
        # Without TLS, no certificates are loaded: they cost a megabyte for each agent.
        verify = tls if tls is not None else url.startswith("https:")
        transport = httpx2.AsyncHTTPTransport(verify=verify, trust_env=False, limits=LIMITS, socket_options=_alive())
        self._client = httpx2.AsyncClient(
            base_url=url,
            headers={
                "authorization": f"Bearer {tokens.of(url)}",
                "user-agent": "moorage-gateway",
                # A compressed answer could be longer than any bound.
                "accept-encoding": "identity",
            },
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"<RemoteAgent {self.url}>"

    async def aclose(self) -> None:
        await self._client.aclose()

    # --- AgentApi ----------------------------------------------------------------------

    async def start(self, app: str, id: str, *, release: bool = False) -> StartOutcome:
        outcome = await self._ask("POST", InstanceKey(app, id), "start", LONG_S, {"release": release})
        if isinstance(outcome, Started | StartFailed):
            return outcome
        return StartFailed(self._away(InstanceKey(app, id), outcome))

    async def stop(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        return await self._end("POST", InstanceKey(app, id), "stop", {"hold": hold})

    async def suspend(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        return await self._end("POST", InstanceKey(app, id), "suspend", {"hold": hold})

    async def prepare(self, app: str, id: str, incarnation: str, rest: Rest) -> PrepareOutcome:
        body = {"instance_id": incarnation, "rest": rest}
        outcome = await self._ask("POST", InstanceKey(app, id), "sleep", SHORT_S, body)
        if isinstance(outcome, Prepared | Refused):
            return outcome
        return Refused(self._away(InstanceKey(app, id), outcome))

    async def sleep(self, app: str, id: str, token: str) -> StopOutcome:
        return await self._end("PUT", InstanceKey(app, id), f"sleep/{quote(token, safe='')}")

    async def stay(self, app: str, id: str, token: str) -> None:
        path = f"{_path(InstanceKey(app, id))}/sleep/{quote(token, safe='')}"
        # Where it is not heard, the agent ends the preparation by itself.
        await self._send("DELETE", path, SHORT_S)

    async def cordon(self, app: str, id: str, cordoned: bool) -> CordonOutcome:
        verb = "cordon" if cordoned else "uncordon"
        outcome = await self._ask("POST", InstanceKey(app, id), verb, SHORT_S)
        if isinstance(outcome, Cordoned | Refused):
            return outcome
        return Refused(self._away(InstanceKey(app, id), outcome))

    async def wait(self, app: str, id: str, state: State, timeout_s: float) -> WaitOutcome:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while True:
            left_s = min(WAIT_S, max(0.001, deadline_s - loop.time()))
            query = f"wait?state={state}&timeout={left_s:.3f}"
            outcome = await self._ask("GET", InstanceKey(app, id), query, left_s + SHORT_S)
            if isinstance(outcome, Reached):
                return outcome
            if not isinstance(outcome, NotReached) or outcome.instance is None:
                return NotReached(None)
            if loop.time() >= deadline_s:
                return outcome

    async def list(self) -> Sequence[Listed]:
        """All of them; none when the agent cannot be asked."""
        found: list[Listed] = []
        while True:
            after = f"{found[-1].instance.app}/{found[-1].instance.id}" if found else ""
            page = await self._send("GET", f"/v1/machines?limit={PAGE}&after={after}", SHORT_S, most=MAX_PAGE_BYTES)
            if not isinstance(page, list) or len(page) > PAGE:
                return ()
            try:
                found += [decode_listed(one) for one in page]
            except BadAnswer:
                return ()
            if len(page) < PAGE:
                return found

    # --- asking ------------------------------------------------------------------------

    async def _end(
        self, method: str, key: InstanceKey, verb: str, body: Mapping[str, object] | None = None
    ) -> StopOutcome:
        outcome = await self._ask(method, key, verb, LONG_S, body)
        return outcome if isinstance(outcome, Stopped | Refused) else Refused(self._away(key, outcome))

    async def _ask(
        self, method: str, key: InstanceKey, verb: str, within_s: float, body: Mapping[str, object] | None = None
    ) -> Outcome | str:
        """What the agent says, or why there is no answer."""
        answer = await self._send(method, f"{_path(key)}/{verb}", within_s, body)
        if isinstance(answer, str):
            return answer
        try:
            return decode(answer, key)
        except BadAnswer as error:
            return f"{self.url} answers what no agent answers: {error}"

    async def _send(
        self,
        method: str,
        path: str,
        within_s: float,
        body: Mapping[str, object] | None = None,
        most: int = MAX_ANSWER_BYTES,
    ) -> Json | str:
        """The JSON of an answer, or why there is none."""
        self.asked += 1
        try:
            async with asyncio.timeout(within_s):
                async with self._client.stream(method, path, json=body) as response:
                    raw = bytearray()
                    async for piece in response.aiter_raw():
                        raw += piece
                        if len(raw) > most:
                            return f"{self.url} answers more than {most} bytes"
        except TimeoutError:
            return f"{self.url} did not answer within {within_s:g} s"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return f"{self.url}: {str(error) or type(error).__name__}"
        finally:
            self.asked -= 1
        if response.status_code == 401:
            return f"{self.url} does not take this gateway's token: both need the same secret, and the same URL"
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict | list):
            return value
        return f"{self.url} answers {response.status_code} and no JSON"

    def _away(self, key: InstanceKey, reason: object) -> Failure:
        detail = reason if isinstance(reason, str) else f"{self.url} answers something else than it was asked"
        return Failure(FailureKind.AGENT_AWAY, f"the agent of {key} cannot be asked", detail)


def _path(key: InstanceKey) -> str:
    return f"/v1/apps/{quote(key.app, safe='')}/machines/{quote(key.id, safe='')}"


def _alive() -> list[tuple[int, int, int]]:
    """Socket options that notice a host which went without a word, within about ten seconds; where there are such."""
    wanted = [("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 10_000)]
    known = [(getattr(socket, name), value) for name, value in wanted if hasattr(socket, name)]
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *((socket.IPPROTO_TCP, option, value) for option, value in known),
    ]
