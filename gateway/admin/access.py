"""Who may ask: an ASGI middleware in front of every route, those that do not exist included.

With a token: whoever sends it. Without one: only this machine, asking for it by a loopback name, and no web page but
the API's own. The Host check is what stops DNS rebinding: a page whose name was made to resolve to 127.0.0.1 sends its
own name. There is no CORS: no other origin may read an answer, and none may cause a change.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import time
from collections.abc import Callable, Sequence

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admin.answers import AdminCode, Refusal, refusal_answer

_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
_OWN_SITE = frozenset({b"same-origin", b"none"})
_READING = frozenset({"GET", "HEAD"})

log = structlog.get_logger(__name__)

Headers = Sequence[tuple[bytes, bytes]]


class Access:
    """The middleware."""

    def __init__(self, app: ASGIApp, token: str | None, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._token = token.encode() if token is not None else None
        self._clock_s = clock_s
        self._next = 0
        self._untold = 0
        self._told_at_s = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        self._next += 1
        request_id = f"admin-{self._next:08x}"
        scope.setdefault("state", {})["request_id"] = request_id
        headers: Headers = scope["headers"]
        client = scope.get("client")
        refusal = (
            without_token(client[0] if client else "", headers)
            if self._token is None
            else with_token(self._token, headers)
        )
        if refusal is not None:
            self._tell(refusal, request_id)
            await refusal_answer(refusal, request_id)(scope, receive, send)
            return
        if scope["method"] not in _READING:
            # Paths name apps, machines and digests, never session ids; queries are not logged.
            log.info("admin request", request_id=request_id, method=scope["method"], path=scope["path"])
        await self._app(scope, receive, send)

    def _tell(self, refusal: Refusal, request_id: str) -> None:
        """One log line a second at most: whoever is refused could write the log full."""
        self._untold += 1
        now_s = self._clock_s()
        if now_s >= self._told_at_s + 1.0:
            log.warning(
                "admin requests refused",
                count=self._untold,
                request_id=request_id,
                code=refusal.code.value,
                reason=refusal.message,
            )
            self._told_at_s, self._untold = now_s, 0


def with_token(token: bytes, headers: Headers) -> Refusal | None:
    """Whether the one Authorization header carries the token."""
    values = _all(headers, b"authorization")
    scheme, _, said = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    if scheme.lower() == b"bearer" and hmac.compare_digest(said.strip(b" "), token):
        return None
    message = "the token is another" if values else "there is no token in the request"
    return Refusal(AdminCode.AD01, message, headers={"www-authenticate": 'Bearer realm="moorage"'})


def without_token(peer: str, headers: Headers) -> Refusal | None:
    """Whether the request was made on this machine, for this machine, by no web page of somebody else."""
    if not is_loopback(peer):
        return Refusal(AdminCode.AD02, "the request comes from another machine, and no `admin_token` is set")
    if any(name in _FORWARDED for name, _ in headers):
        return Refusal(AdminCode.AD02, "the request was forwarded for somebody else, and no `admin_token` is set")
    hosts = _all(headers, b"host")
    if len(hosts) != 1 or not is_loopback(_host(hosts[0])):
        return Refusal(AdminCode.AD02, "the Host header names no loopback address")
    own = (b"http://" + hosts[0].lower(), b"https://" + hosts[0].lower())
    if any(origin.lower() not in own for origin in _all(headers, b"origin")):
        return Refusal(AdminCode.AD02, "the request comes from a web page of another origin")
    if any(site.lower() not in _OWN_SITE for site in _all(headers, b"sec-fetch-site")):
        return Refusal(AdminCode.AD02, "the request comes from a web page of another site")
    return None


def is_loopback(host: str) -> bool:
    """`localhost`, 127.0.0.0/8 or ::1, also as an IPv4-mapped address; a name is not resolved."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _host(value: bytes) -> str:
    """A Host header without its port and without the brackets of an IPv6 address; empty for what is none."""
    text = value.decode("latin-1")
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name = text
    elif not (port.isascii() and port.isdigit()):
        return ""
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1]
    return name if ":" not in name else ""


def _all(headers: Headers, name: bytes) -> list[bytes]:
    return [value for known, value in headers if known == name]
