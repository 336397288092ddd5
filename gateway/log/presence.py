"""Presence: what is true only for as long as somebody repeats it, in short-lived keys in the catalog's store.

Three things: the message of each live gateway, who has a role that one gateway has at a time, and the leases that keep
instances awake. Nothing of it is history: a store that comes back empty is filled again by the next repetitions. Until
then it knows less than is true, and says so only by `Lead.TAKEN`.

Implementations: memory, sqlite, redis. One contract suite runs over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from gateway.core.body_fields import NAME
from gateway.core.presence import LEASE_NAME, MAX_LEASE_S, MAX_LEASES, MAX_MESSAGE_BYTES, Lead, Lease, TooManyLeases

MAX_TTL_S: Final = 86400.0

_WHO = re.compile(r"[!-~]{1,128}", re.ASCII)
_ROLE = re.compile(r"[a-z-]{1,32}", re.ASCII)
_INSTANCE = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class Presence(Protocol):
    """One store's presence. All raise LogUnavailable, and ValueError for what is out of bounds."""

    where: str
    """The store, without password."""

    async def put(self, gateway: str, message: bytes, ttl_s: float) -> None:
        """This gateway lives, for `ttl_s` from now; its last message counts."""

    async def all(self) -> Mapping[str, bytes]:
        """The live gateways' messages. An empty one is of a gateway that lives and whose message the store lost."""

    async def drop(self, gateway: str) -> None:
        """This gateway lives no more."""

    async def lead(self, role: str, holder: str, ttl_s: float) -> Lead:
        """Have a role for `ttl_s` from now, unless another holder has it."""

    async def resign(self, role: str, holder: str) -> None:
        """Give the role back, if `holder` has it."""

    async def hold(self, app: str, id: str, name: str, expires_in_s: float, *, replace: bool) -> bool:
        """Keep an instance awake; False when a lease of that name is live and `replace` is not set.

        Raises TooManyLeases.
        """

    async def release(self, app: str, id: str, name: str) -> bool:
        """End a lease; False when none of that name is live."""

    async def held(self, app: str | None = None) -> Sequence[Lease]:
        """The live leases of one app, or of all, by app, instance and name."""

    async def aclose(self) -> None:
        """Let go of the store; what was put lives on for its time."""


# --- bounds ----------------------------------------------------------------------------


def check_put(gateway: str, message: bytes, ttl_s: float) -> None:
    check_gateway(gateway)
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(message)} bytes; at most {MAX_MESSAGE_BYTES} are taken")
    _check_ttl(ttl_s, MAX_TTL_S)


def check_gateway(gateway: str) -> None:
    _check(gateway, _WHO, "gateway")


def check_role(role: str, holder: str, ttl_s: float = MAX_TTL_S) -> None:
    _check(role, _ROLE, "role")
    _check(holder, _WHO, "holder")
    _check_ttl(ttl_s, MAX_TTL_S)


def check_lease(app: str, id: str, name: str, expires_in_s: float = MAX_LEASE_S) -> None:
    _check(app, NAME, "app")
    _check(id, _INSTANCE, "instance")
    _check(name, LEASE_NAME, "lease")
    _check_ttl(expires_in_s, MAX_LEASE_S)


def too_many(app: str, id: str) -> TooManyLeases:
    return TooManyLeases(f"{app}/{id} has {MAX_LEASES} leases already")


def _check(text: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text!r} names no {what}")


def _check_ttl(ttl_s: float, most_s: float) -> None:
    if not 0 < ttl_s <= most_s:
        raise ValueError(f"{ttl_s} s; more than 0 and at most {most_s:g} s are taken")
