"""One real request, sent as it is given: no redirect is followed, nothing is decoded, the body is only measured."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from gateway.cli.client import CONNECT_S, AdminError

if TYPE_CHECKING:
    import httpx2

LOOPBACK = "127.0.0.1"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"/[\x21-\x7e]*")


class End(StrEnum):
    """How far an answer was read."""

    WHOLE = "whole"
    STREAM = "stream"
    """It is a stream that only listens, and has no end."""
    CUT = "cut"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that can be sent."""

    method: str
    scheme: str
    host: str
    port: int | None
    authority: str
    """The URL's host and port, as its Host header says them."""
    target: str
    """Path and query."""
    headers: tuple[tuple[str, str], ...]
    body: bytes | None

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def shown(self) -> str:
        """The URL without its query, which may be secret."""
        return self.origin + self.target.partition("?")[0]

    @property
    def dialled(self) -> str:
        """Where to connect. RFC 6761 6.3: names under `localhost` are this machine, whatever a resolver says."""
        name = self.host.lower().rstrip(".")
        return LOOPBACK if name == "localhost" or name.endswith(".localhost") else self.host


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    reason: str
    request_id: str
    """Of Fly-Request-Id; empty for none."""
    code: str
    """Of moorage-error; empty for none."""
    size_bytes: int
    took_ms: float
    end: End


def read_request(url: str, method: str | None, headers: Sequence[str], body: str | None) -> Request:
    """The request that the options describe. Raises typer.BadParameter."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise typer.BadParameter(f"{url} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter(f"{url} is no URL; write http://HOST:PORT/PATH")
    if "@" in parts.netloc:
        raise typer.BadParameter("the URL names a user; send -H 'Authorization: ...' instead")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _TARGET.fullmatch(target) or not parts.netloc.isascii():
        raise typer.BadParameter(f"{url} has characters that no request may have; percent-encode them")
    verb = method or ("POST" if body is not None else "GET")
    if not _TOKEN.fullmatch(verb):
        raise typer.BadParameter(f"{verb} is no method")
    pairs = [_header(line) for line in headers]
    given = {name.lower() for name, _ in pairs}
    if "host" not in given:
        pairs.insert(0, ("Host", parts.netloc))
    if body is not None and "content-type" not in given:
        pairs.append(("Content-Type", "application/json"))
    if "user-agent" not in given:
        pairs.append(("User-Agent", f"moorage/{version('moorage')}"))
    content = body.encode(errors="surrogateescape") if body is not None else None
    return Request(verb, parts.scheme, parts.hostname, port, parts.netloc, target, tuple(pairs), content)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise typer.BadParameter(f"{line[:60]!r} is no header; write 'NAME: VALUE'")
    return name, value.strip(" \t")


def send(request: Request, extra: tuple[str, str], timeout_s: float) -> Answer:
    """Send it with one header more, and read the answer for at most `timeout_s`. Raises AdminError."""
    import httpx2

    host = f"[{request.dialled}]" if ":" in request.dialled else request.dialled
    port = f":{request.port}" if request.port is not None else ""
    wire = httpx2.Request(
        request.method,
        f"{request.scheme}://{host}{port}",
        headers=[(name.encode(), value.encode("latin-1")) for name, value in (*request.headers, extra)],
        content=request.body,
        # The target goes out as it was given: what a URL's path is turned into elsewhere is another request.
        extensions={"target": request.target.encode(), "sni_hostname": request.host},
    )
    begun_s = time.monotonic()
    with httpx2.Client(timeout=httpx2.Timeout(timeout_s, connect=CONNECT_S), trust_env=False) as client:
        try:
            response = client.send(wire, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            why = str(error) or "it does not accept connections"
            raise AdminError(
                f"no connection to {request.origin}: {why}. Start the gateway, or name its public listener"
            ) from None
        except httpx2.TimeoutException:
            raise AdminError(
                f"{request.origin} did not answer within {timeout_s:g} s: GET /v1/traces of the admin API shows how "
                "far the request has come"
            ) from None
        except httpx2.TransportError as error:
            raise AdminError(f"{request.origin} did not answer: {str(error) or type(error).__name__}") from None
        try:
            end = _read(request, response, begun_s + timeout_s)
        finally:
            response.close()
        return Answer(
            response.status_code,
            response.reason_phrase,
            response.headers.get("fly-request-id", ""),
            response.headers.get("moorage-error", ""),
            response.num_bytes_downloaded,
            (time.monotonic() - begun_s) * 1000,
            end,
        )


def _read(request: Request, response: httpx2.Response, until_s: float) -> End:
    """Read the answer's body to its end, if that comes in time."""
    import httpx2

    if response.status_code == 101:
        return End.STREAM
    if request.method == "GET" and response.headers.get("content-type", "").startswith("text/event-stream"):
        return End.STREAM
    try:
        for _ in response.iter_raw():
            if time.monotonic() > until_s:
                return End.LATE
    except httpx2.TimeoutException:
        return End.LATE
    except httpx2.TransportError:
        return End.CUT
    return End.WHOLE
