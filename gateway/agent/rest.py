"""One call to a platform's HTTP API: its limits, repeating what is worth it, and errors that carry no secret."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from gateway.agent.tempo import Tempo

CONNECT_S: Final = 5.0
ANSWER_S: Final = 10.0
TRIES: Final = 3
"""How often a call is made whose failure may pass: no connection, 429, 5xx. All calls here may be repeated."""
FIRST_PAUSE_S: Final = 0.5
"""Between two tries; doubled each time, and never less than what `Retry-After` asks for."""
LAST_PAUSE_S: Final = 30.0
MAX_SAID: Final = 500
"""Characters of what an API said that are kept."""

M = TypeVar("M", bound=BaseModel)


class ApiError(Exception):
    """A call did not succeed. `status` is 0 when there was no answer that could be used."""

    def __init__(self, status: int, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def may_pass(self) -> bool:
        return self.status in {0, 429} or self.status >= 500


class Rest:
    """A client for one API. Neither proxies of the environment nor redirects are followed: the token goes to `url`.

    Args:
        token: is asked for the bearer token at each call; may raise ApiError.
    """

    def __init__(
        self, url: str, token: Callable[[], str], tempo: Tempo, *, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._tempo = tempo
        self._client = httpx2.AsyncClient(
            verify=verify if url.startswith("https:") else False,  # where there is no TLS, no certificates are read
            trust_env=False,
            follow_redirects=False,
            # Waiting for a hundred machines takes a hundred connections.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=8),
            headers={"user-agent": "moorage", "accept": "application/json"},
        )

    def __repr__(self) -> str:
        return f"<Rest {self._url}>"

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: object = None,
        content_type: str = "application/json",
        answer_s: float = ANSWER_S,
        before: Callable[[], Any] | None = None,
    ) -> httpx2.Response:
        """The whole answer of a success (2xx).

        Args:
            before: is awaited before each try.

        Raises:
            ApiError: any other status, or no answer.
        """
        tries = 0
        while True:
            if before is not None:
                await before()
            try:
                return await self._once(method, path, params, body, content_type, answer_s)
            except ApiError as error:
                tries += 1
                if not error.may_pass or tries == TRIES:
                    raise
                pause_s = max(FIRST_PAUSE_S * 2 ** (tries - 1), error.retry_after_s)
            await self._tempo.pause(min(pause_s, LAST_PAUSE_S))

    async def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None,
        body: object,
        content_type: str,
        answer_s: float,
    ) -> httpx2.Response:
        what, token = f"{method} {path}", self._token()
        headers = {"authorization": _bearer(token)}
        content = b""
        if body is not None:
            headers["content-type"] = content_type
            content = json.dumps(body).encode()
        try:
            response = await self._client.request(
                method, self._url + path, params=params, content=content, headers=headers, timeout=_timeout(answer_s)
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _no_answer(what, error, token) from error
        _refuse(what, response, response.content, token)
        return response

    @contextlib.asynccontextmanager
    async def lines(
        self, path: str, params: Mapping[str, str | int], silence_s: float
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of an answer that goes on, until the API ends it or says nothing for `silence_s`.

        Raises:
            ApiError: on entering, for a status that is no success; while reading, when the connection breaks.
        """
        what, token = f"GET {path}", self._token()
        headers = {"authorization": _bearer(token)}
        try:
            async with self._client.stream(
                "GET", self._url + path, params=params, headers=headers, timeout=_timeout(silence_s)
            ) as response:
                if response.status_code >= 300:
                    _refuse(what, response, await response.aread(), token)
                yield response.aiter_lines()
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise _no_answer(what, error, token) from error

    async def aclose(self) -> None:
        await self._client.aclose()


def read(model: type[M], answer: bytes | str | Mapping[str, Any], what: str) -> M:
    """What the API answered, JSON or what JSON held, as `model` has it. Raises ApiError for anything else."""
    try:
        return model.model_validate(answer) if isinstance(answer, Mapping) else model.model_validate_json(answer)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
        raise ApiError(0, f"{what} was answered by something else than expected ({faults})") from error


def _bearer(token: str) -> str:
    if not token.isascii() or not token.isprintable():
        # The client's own error would show it.
        raise ApiError(0, "the token has characters that no token has, such as a line break")
    return f"Bearer {token}"


def _timeout(answer_s: float) -> httpx2.Timeout:
    return httpx2.Timeout(CONNECT_S, read=answer_s)


def _no_answer(what: str, error: Exception, token: str) -> ApiError:
    return ApiError(0, f"{what} was not answered: {_without(token, str(error)) or type(error).__name__}")


def _refuse(what: str, response: httpx2.Response, content: bytes, token: str) -> None:
    status = response.status_code
    if status < 300:
        return
    said = content.decode("utf-8", "replace").strip()
    try:
        fields = json.loads(said)
    except ValueError:
        fields = None
    if isinstance(fields, dict):
        # Fly says `error`, Kubernetes `message`.
        said = str(fields.get("error") or fields.get("message") or said)
    said = " ".join(_without(token, said)[:MAX_SAID].split())
    raise ApiError(status, f"{what} was answered {status}: {said or 'nothing more'}", _retry_after_s(response))


def _without(token: str, text: str) -> str:
    return text.replace(token, "(the token)") if token else text


def _retry_after_s(response: httpx2.Response) -> float:
    value = response.headers.get("retry-after", "")
    # A date is allowed too, and no reason to wait longer than usual.
    return float(value) if value.isascii() and value.isdigit() else 0.0
