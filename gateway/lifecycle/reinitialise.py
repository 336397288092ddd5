"""The handshake that begins a session anew: `initialize`, its answer, `notifications/initialized`, over HTTP.

This is the control side: the request that waits for it goes the usual way afterwards. What is sent and what an answer
means is in `gateway.core.handshake`. Whatever an instance does, the outcome comes within LIMIT_S.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from typing import Final, NamedTuple

import httpx2

from gateway.core.handshake import INITIALIZED, Fields, Refusal, Shown, Welcome, following, opening, read_answer
from gateway.core.model import Address
from gateway.core.recording import Recording, is_session_id
from gateway.core.sse import SseReader

CONNECT_S: Final = 2.0
LIMIT_S: Final = 10.0
"""For the whole handshake. A server answers `initialize` before it does any work."""
CLOSE_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 1 << 20

_UNSURE: Final = frozenset({408, 421, 425, 429})
"""4xx answers that say nothing about the next attempt."""


class Opened(NamedTuple):
    """A session that the instance has made, and was told that its client is ready."""

    session_id: bytes
    version: bytes


class Why(Enum):
    """Why there is no session."""

    UNREACHED = "unreached"
    """It took no connection, or answered 503: no session was made, and another instance may be asked."""
    CHALLENGED = "challenged"
    """401 or 403: it wants other credentials."""
    REFUSED = "refused"
    """It does not make this session."""
    FAILED = "failed"
    """No telling. It may have made one."""


class Unopened(NamedTuple):
    why: Why
    reason: str
    made: Opened | None = None
    """What was made and is of no use."""


class Handshakes:
    """Makes sessions at instances, and ends those that came too late."""

    def __init__(self) -> None:
        self._client = httpx2.AsyncClient(
            verify=False,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            # Each is bounded in time; how many there are at once is bounded by the requests that may be held.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            headers={"user-agent": "moorage"},
        )

    async def open(self, address: Address, shown: Shown, recording: Recording) -> Opened | Unopened:
        """Make a session at the instance that listens there."""
        made: Opened | None = None
        try:
            async with asyncio.timeout(LIMIT_S):
                outcome = await self._initialize(address, shown, recording)
                if isinstance(outcome, Unopened):
                    return outcome
                made = outcome
                status = await self._initialized(address, shown, made)
        except TimeoutError:
            return Unopened(Why.FAILED, f"it did not answer within {LIMIT_S:g} s", made)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            never = made is None and isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            return Unopened(Why.UNREACHED if never else Why.FAILED, str(error) or type(error).__name__, made)
        if not 200 <= status < 300:
            return Unopened(Why.FAILED, f"it answered {status} to notifications/initialized", made)
        return made

    async def close(self, address: Address, shown: Shown, opened: Opened) -> None:
        """End a session that nobody uses. Its instance forgets it sooner or later, whatever becomes of this."""
        with contextlib.suppress(TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, OSError):
            async with asyncio.timeout(CLOSE_S):
                await self._send("DELETE", address, shown, following(shown, *opened))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _initialize(self, address: Address, shown: Shown, recording: Recording) -> Opened | Unopened:
        request = self._request("POST", address, shown, opening(recording, shown), recording.body)
        async with contextlib.aclosing(await self._client.send(request, stream=True)) as response:
            refused = _judge(response.status_code)
            if refused is not None:
                return refused
            ids = [value for name, value in response.headers.raw if name.lower() == b"mcp-session-id"]
            if len(ids) != 1 or not is_session_id(ids[0]):
                return Unopened(Why.REFUSED, "it made no session")
            answer = await _answer(response, recording.rpc_id)
        match answer:
            case Welcome(version):
                return Opened(ids[0], version)
            case Refusal(reason):
                return Unopened(Why.REFUSED, reason)
            case _:
                return Unopened(Why.FAILED, "its answer to initialize has no end that can be read")

    async def _initialized(self, address: Address, shown: Shown, made: Opened) -> int:
        """The status of the answer."""
        return await self._send("POST", address, shown, following(shown, *made), INITIALIZED)

    async def _send(self, method: str, address: Address, shown: Shown, fields: Fields, body: bytes = b"") -> int:
        request = self._request(method, address, shown, fields, body)
        async with contextlib.aclosing(await self._client.send(request, stream=True)) as response:
            return response.status_code

    def _request(self, method: str, address: Address, shown: Shown, fields: Fields, body: bytes) -> httpx2.Request:
        # The target goes out byte for byte: a URL's path would be put into another spelling.
        extensions = {"target": shown.target}
        return self._client.build_request(
            method, f"http://{address}/", headers=fields, content=body, extensions=extensions
        )


def _judge(status: int) -> Unopened | None:
    """What a status says by itself; None for 2xx."""
    said = f"it answered {status} to initialize"
    if 200 <= status < 300:
        return None
    if status == 503:
        return Unopened(Why.UNREACHED, said)
    if status in (401, 403):
        return Unopened(Why.CHALLENGED, said)
    return Unopened(Why.REFUSED if 400 <= status < 500 and status not in _UNSURE else Why.FAILED, said)


async def _answer(response: httpx2.Response, rpc_id: bytes) -> Welcome | Refusal | None:
    """The answer in a body, of JSON or of events; what else comes is passed over. None: there is none to be read."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return None
    events = response.headers.get("content-type", "")[:17].lower() == "text/event-stream"
    reader, body, size = SseReader(), [], 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            return None
        if not events:
            body.append(chunk)
            continue
        for event in reader.feed(chunk):
            answer = read_answer(event.data, rpc_id)
            if answer is not None:
                return answer
    return read_answer(b"".join(body), rpc_id) if not events else None
