"""A client of the Docker Engine API that can do no more than an agent needs: look at containers, and start, stop, pause
and unpause them. There is no way in it to create, change, enter, read or remove one.

Docker Engine API 1.41 to 1.52 (engines 20.10 to 29 and later): https://docs.docker.com/reference/api/engine/.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, urlsplit

import httpx2
import structlog

from gateway.agent.docker_container import LABEL, Container, Named, read_inspected, read_listed

logger = structlog.get_logger(__name__)

SOCKET: Final = "unix:///var/run/docker.sock"
OLDEST: Final = (1, 41)
NEWEST: Final = (1, 52)
"""What is spoken here. A newer engine is asked in the newest that is known here."""

CALL_S: Final = 10.0
START_S: Final = 60.0
"""A start mounts and connects before it answers."""
STOP_MORE_S: Final = 30.0
"""Beyond its grace, for the engine to kill it and clean up."""
SILENCE_S: Final = 30.0
"""A stream of events that is silent for longer is opened anew, and everything looked at: the other end may be gone."""
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 2.0

_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")


class DockerError(Exception):
    """The engine refused, or could not be asked."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """The answer's HTTP status; 0 when there was none."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a container with our label."""

    action: str
    id: str
    attributes: Mapping[str, str]
    time_ms: int


class _Version(NamedTuple):
    number: str
    now_s: int | None
    """The engine's own clock, when it was asked."""


class DockerApi:
    """One engine, and in it the containers that have our label. Use it by `async with`, or call `aclose`."""

    def __init__(self, url: str = SOCKET, *, label: str = LABEL, certificates: Path | None = None) -> None:
        """Args:
        url: `unix:///PATH`, or `tcp://HOST:PORT`.
        label: what a container must have to be seen here.
        certificates: a folder with ca.pem, cert.pem and key.pem, as for the docker command; TLS is used then.

        Raises:
            ValueError: the URL is neither.
            OSError: the certificates cannot be read or used.
        """
        parts = urlsplit(url)
        self.url = url
        self.label = label
        self.host = "127.0.0.1"
        """Where the engine's host can be reached."""
        self._version: _Version | None = None
        options: dict[str, Any] = {"trust_env": False, "verify": False, "limits": _NO_LIMITS}
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            base = "http://docker"
            options["uds"] = parts.path
        elif parts.scheme == "tcp" and parts.hostname and parts.port and not parts.path:
            self.host = parts.hostname
            base = f"{'https' if certificates else 'http'}://{parts.netloc}"
            if certificates is not None:
                options["verify"] = _tls(certificates)
        else:
            raise ValueError(f"{url} is neither unix:///PATH nor tcp://HOST:PORT")
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(**options), base_url=base, trust_env=False, timeout=None
        )

    def __repr__(self) -> str:
        return f"<DockerApi {self.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    # --- looking -----------------------------------------------------------------------

    async def containers(self) -> Sequence[Named]:
        """Every container with our label, whether it runs or not.

        Raises:
            DockerError: the engine cannot be asked.
        """
        filters = json.dumps({"label": [self.label]})
        response = await self._call("GET", "/containers/json", CALL_S, {"all": "1", "filters": filters})
        raw = self._read(response)
        try:
            return [read_listed(one, self.label) for one in raw] if isinstance(raw, list) else []
        except ValueError as error:
            raise self._nonsense(error) from error

    async def inspect(self, id: str) -> Container | None:
        """One container, ours or not; None when there is none of this id.

        Raises:
            DockerError: the engine cannot be asked.
        """
        try:
            response = await self._call("GET", f"/containers/{quote(id, safe='')}/json", CALL_S, {})
            return read_inspected(self._read(response), self.label)
        except ValueError as error:
            raise self._nonsense(error) from error
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    # --- acting ------------------------------------------------------------------------

    async def start(self, id: str) -> None:
        """Start it. Starting what runs is success.

        Raises:
            DockerError: the engine cannot be asked, or refuses.
        """
        await self._act(id, "start", START_S)

    async def stop(self, id: str, grace_s: float) -> None:
        """Stop it: its stop signal, and SIGKILL after `grace_s`. Stopping what does not run is success.

        Raises:
            DockerError: the engine cannot be asked, or refuses.
        """
        await self._act(id, "stop", grace_s + STOP_MORE_S, t=str(ceil(grace_s)))

    async def pause(self, id: str) -> None:
        """Freeze its processes.

        Raises:
            DockerError: the engine cannot be asked, or refuses.
        """
        await self._act(id, "pause", CALL_S)

    async def unpause(self, id: str) -> None:
        """Let its processes go on.

        Raises:
            DockerError: the engine cannot be asked, or refuses.
        """
        await self._act(id, "unpause", CALL_S)

    async def _act(self, id: str, verb: str, limit_s: float, **query: str) -> None:
        await self._call("POST", f"/containers/{quote(id, safe='')}/{verb}", limit_s, query)

    # --- following ---------------------------------------------------------------------

    async def follow(
        self,
        actions: Collection[str],
        connected: Callable[[], Awaitable[None]],
        happened: Callable[[Event], Awaitable[None]],
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Tell of every event of these kinds, for ever; some of them twice, and some of the last moment before.

        Args:
            connected: awaited whenever the stream was opened. Look at everything then: nothing is missed after it.
            happened: awaited for each event. A DockerError of either has the stream opened anew, after a pause.
            silence_s: after so long without an event it is opened anew, too.
        """
        loop = asyncio.get_running_loop()
        pause_s, away = FIRST_PAUSE_S, False
        since_s: int | None = None
        while True:
            began_s = loop.time()
            try:
                # Asked anew each time, since another engine may answer now.
                version = await self._negotiate()
                since_s = version.now_s if since_s is None else since_s
                async with self._events(version.number, actions, since_s, silence_s) as lines:
                    await connected()
                    if away:
                        logger.info("docker engine is back", engine=self.url)
                    away = False
                    async for line in lines:
                        if (event := _event(line)) is not None:
                            since_s = event.time_ms // 1000
                            await happened(event)
            except DockerError as error:
                if not away:
                    logger.warning("docker engine cannot be asked", engine=self.url, error=str(error))
                away = True
            if loop.time() - began_s > LAST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)  # noqa: TID251 - back-off
            pause_s = min(LAST_PAUSE_S, pause_s * 2)

    @asynccontextmanager
    async def _events(
        self, version: str, actions: Collection[str], since_s: int | None, silence_s: float
    ) -> AsyncIterator[AsyncIterator[str]]:
        filters = {"type": ["container"], "label": [self.label], "event": sorted(actions)}
        query = {"filters": json.dumps(filters)}
        if since_s is not None:
            # The engine answers before it has subscribed us. What happens in between is among those since then.
            query["since"] = str(since_s)
        timeout = httpx2.Timeout(CALL_S, read=silence_s)
        request = self._client.build_request("GET", f"/v{version}/events", params=query, timeout=timeout)
        try:
            async with asyncio.timeout(CALL_S):
                response = await self._client.send(request, stream=True)
        except (httpx2.HTTPError, OSError) as error:  # TimeoutError is an OSError
            raise DockerError(_unasked(self.url, error)) from error
        try:
            if response.status_code != 200:
                raise await _refusal(response)
            yield response.aiter_lines()
        except httpx2.ReadTimeout:
            pass  # silence
        except (httpx2.HTTPError, OSError) as error:
            raise DockerError(_unasked(self.url, error)) from error
        finally:
            await response.aclose()

    # --- calls -------------------------------------------------------------------------

    async def _call(self, method: str, path: str, limit_s: float, query: Mapping[str, str]) -> httpx2.Response:
        version = self._version or await self._negotiate()
        return await self._send(method, f"/v{version.number}{path}", limit_s, query)

    async def _negotiate(self) -> _Version:
        response = await self._send("GET", "/version", CALL_S, {})
        raw = self._read(response)
        newest, oldest = (_number(raw.get(name) if isinstance(raw, dict) else None) for name in _VERSION_KEYS)
        if newest is None:
            raise DockerError(f"{self.url} is no Docker engine: it does not tell its API version")
        if newest < OLDEST:
            raise DockerError(f"{self.url} speaks API {_dotted(newest)}; {_dotted(OLDEST)} or later is needed")
        if oldest is not None and oldest > NEWEST:
            raise DockerError(f"{self.url} speaks API {_dotted(oldest)} or later; {_dotted(NEWEST)} is known here")
        self._version = _Version(_dotted(min(newest, NEWEST)), _unix_s(response.headers.get("date", "")))
        return self._version

    async def _send(self, method: str, path: str, limit_s: float, query: Mapping[str, str]) -> httpx2.Response:
        try:
            # httpx2's timeouts are per operation: an answer that dribbles would outlive them.
            async with asyncio.timeout(limit_s):
                response = await self._client.request(method, path, params=query)
        except TimeoutError as error:
            raise DockerError(f"{self.url} did not answer within {limit_s:g} s") from error
        except (httpx2.HTTPError, OSError) as error:
            raise DockerError(_unasked(self.url, error)) from error
        if response.status_code >= 400:
            raise await _refusal(response)
        return response

    def _read(self, response: httpx2.Response) -> object:
        try:
            return response.json()
        except ValueError as error:
            raise self._nonsense(error) from error

    def _nonsense(self, error: ValueError) -> DockerError:
        return DockerError(f"{self.url} answered nonsense: {error}")


_NO_LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=4)
_VERSION_KEYS: Final = ("ApiVersion", "MinAPIVersion")


def _tls(certificates: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    return context


def _number(text: object) -> tuple[int, int] | None:
    match = _VERSION.fullmatch(text) if isinstance(text, str) else None
    return (int(match[1]), int(match[2])) if match else None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _unix_s(date: str) -> int | None:
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except ValueError:
        return None


async def _refusal(response: httpx2.Response) -> DockerError:
    text = (await response.aread()).decode(errors="replace").strip()
    try:
        raw = json.loads(text)
    except ValueError:
        raw = None
    said = raw.get("message") if isinstance(raw, dict) else None
    return DockerError(
        said if isinstance(said, str) else text or f"status {response.status_code}", response.status_code
    )


def _unasked(url: str, error: BaseException) -> str:
    return f"{url} cannot be asked: {str(error) or type(error).__name__}"


def _event(line: str) -> Event | None:
    try:
        raw = json.loads(line)
        actor = raw["Actor"]
        attributes = {key: str(value) for key, value in (actor.get("Attributes") or {}).items()}
        return Event(str(raw["Action"]), str(actor["ID"]), attributes, int(raw.get("timeNano", 0)) // 1_000_000)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # an empty line, or what no engine says
