"""Is it ready, is it healthy: TCP connects and the app's GET checks. Asks and answers; keeps no state.

A check passes on 2xx only. A redirect fails it, as in Fly Proxy (docs "Health Checks", service checks).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from gateway.agent.base import Failure, FailureKind, InstanceKey
from gateway.core.model import Address, Check

FIRST_PAUSE_S: Final = 0.005
LAST_PAUSE_S: Final = 0.1
PAUSE_SHARE: Final = 0.02
"""A pause is this share of the time waited so far, within the two bounds above: being ready is noticed late by at most
2 % of the instance's own start, and a slow start is not polled hotly."""
CONNECT_LIMIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Ready:
    after_s: float


@dataclass(frozen=True, slots=True)
class Passed:
    pass


@dataclass(frozen=True, slots=True)
class NotPassed:
    reason: str


CheckResult = Passed | NotPassed

_Resolved = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


def check_client() -> httpx2.AsyncClient:
    """The client for `run_check`: no proxies of the environment, no redirects, no connection kept."""
    return httpx2.AsyncClient(
        verify=False,
        trust_env=False,
        follow_redirects=False,
        # No bound on connections: a hung instance holds one for its own timeout and must not make others fail. There
        # is at most one per check and instance. None is kept: an idle connection would look like use to the instance.
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        headers={"user-agent": "moorage-check", "connection": "close"},
    )


async def until_ready(
    key: InstanceKey, address: Address, checks: Sequence[Check], client: httpx2.AsyncClient, deadline_s: float
) -> Ready | Failure:
    """Return when the port is open and every check has passed once, or with the last thing that was wrong.

    `deadline_s` is of the event loop's clock.
    """
    began_s = time.monotonic()
    said = f"{key} did not listen on its port in time (wake_timeout)"
    hint = f"nothing answers at {address}; the command must listen on the port given as {{port}} or PORT"
    failure = Failure(FailureKind.NEVER_LISTENED, said, hint)
    try:
        async with asyncio.timeout_at(deadline_s):
            while not await listens(address):
                await _pause(began_s)
            for check in checks:
                said = f"{key} listens, but its checks did not pass in time (wake_timeout)"
                failure = Failure(FailureKind.CHECK_FAILED, said, f"GET {check.path} was not answered")
                while isinstance(result := await run_check(address, check, client), NotPassed):
                    failure = Failure(FailureKind.CHECK_FAILED, said, result.reason)
                    await _pause(began_s)
    except TimeoutError:
        return failure
    return Ready(time.monotonic() - began_s)


async def listens(address: Address) -> bool:
    """Whether a TCP connection can be made now. The connection is closed at once."""
    loop = asyncio.get_running_loop()
    for family, kind, protocol, _, where in await _resolve(address):
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_LIMIT_S):
                    await loop.sock_connect(probe, where)
            except OSError:  # refused, unreachable, or TimeoutError, which is one too
                continue
            # Connected to itself: nobody listens (see ports.py).
            if probe.getsockname() != probe.getpeername():
                return True
    return False


async def _resolve(address: Address) -> Sequence[_Resolved]:
    try:
        # Nothing to wait for with a literal address, and no thread to be paid.
        return socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    try:
        return await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:  # a name that does not resolve yet, as in a container network that is being set up
        return ()


async def run_check(address: Address, check: Check, client: httpx2.AsyncClient) -> CheckResult:
    """Ask once. Whatever the instance does, the answer comes within `check.timeout_s`."""
    where = f"GET http://{address}{check.path}"
    try:
        # httpx2's timeouts are per operation: an answer that dribbles would outlive them.
        async with asyncio.timeout(check.timeout_s):
            async with client.stream("GET", f"http://{address}{check.path}", timeout=None) as response:
                status = response.status_code
    except TimeoutError:
        return NotPassed(f"{where} was not answered within {check.timeout_s:g} s")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return NotPassed(f"{where} failed: {str(error) or type(error).__name__}")
    if 200 <= status < 300:
        return Passed()
    return NotPassed(f"{where} answered {status}")


async def _pause(began_s: float) -> None:
    pause_s = (time.monotonic() - began_s) * PAUSE_SHARE
    await asyncio.sleep(min(LAST_PAUSE_S, max(FIRST_PAUSE_S, pause_s)))  # noqa: TID251 - nobody tells when a port opens
