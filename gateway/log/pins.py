"""Learned pins: which instance a session, task or key belongs to, for as long as it is used.

A pin's key is hashed before it leaves this file, since it may be a session id. A pin is forgotten `ttl_s` after the
last time it was put or looked up. Every gateway with the same database sees the same pins; each remembers the ones it
used lately, so that most look-ups touch no database.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from gateway.core.model import Pin

CACHED_PINS: Final = 100_000
"""About 40 MB when full."""
FRESH_S: Final = 60.0
"""Longest time for which a pin that another gateway deleted or moved is still believed here. A pin that is believed for
too long leads to an instance that says 404, or to an incarnation that the catalog knows is gone."""


class Found(NamedTuple):
    """A pin, and for how long it lives without being used."""

    pin: Pin
    ttl_s: float


class PinTable(Protocol):
    """One database's pins by digest: what differs between the kinds of database. All raise LogUnavailable."""

    async def put(self, digest: bytes, pin: Pin, ttl_s: float) -> None: ...

    async def get(self, digest: bytes) -> Found | None:
        """The pin if it has not expired; it then lives for its full time again."""

    async def delete(self, digest: bytes) -> None: ...

    async def aclose(self) -> None: ...


class CachedPins:
    """Where learned pins are kept; `kind` keeps sessions, tasks and keys apart.

    Absence is not remembered: another gateway may learn the pin at any moment.
    """

    def __init__(
        self, table: PinTable, capacity: int = CACHED_PINS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.hits = 0
        self.misses = 0
        """Look-ups that asked the database."""
        self._table = table
        self._capacity = capacity
        self._clock = clock
        self._cached: OrderedDict[bytes, tuple[Pin, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cached)

    async def put(self, app: str, kind: str, key: bytes, pin: Pin, ttl_s: float) -> None:
        """Every gateway finds the pin once this returned. Raises LogUnavailable."""
        digest = digest_of(app, kind, key)
        self._cached.pop(digest, None)
        await self._table.put(digest, pin, ttl_s)
        self._keep(digest, pin, ttl_s)

    async def get(self, app: str, kind: str, key: bytes) -> Pin | None:
        """The pin, which then lives for its full time again. Raises LogUnavailable; None says that there is none."""
        digest = digest_of(app, kind, key)
        known = self._cached.get(digest)
        if known is not None and self._clock() < known[1]:
            self.hits += 1
            self._cached.move_to_end(digest)
            return known[0]
        self.misses += 1
        found = await self._table.get(digest)
        if found is None:
            self._cached.pop(digest, None)
            return None
        self._keep(digest, found.pin, found.ttl_s)
        return found.pin

    async def delete(self, app: str, kind: str, key: bytes) -> None:
        """No pin is left, here at once and elsewhere within FRESH_S. Raises LogUnavailable."""
        digest = digest_of(app, kind, key)
        self._cached.pop(digest, None)
        await self._table.delete(digest)
        # Looked up while it was being deleted.
        self._cached.pop(digest, None)

    async def aclose(self) -> None:
        await self._table.aclose()

    def _keep(self, digest: bytes, pin: Pin, ttl_s: float) -> None:
        # A quarter: a pin in use is asked for, and thereby renewed, well before it would expire in the database.
        self._cached[digest] = (pin, self._clock() + min(FRESH_S, ttl_s / 4))
        self._cached.move_to_end(digest)
        if len(self._cached) > self._capacity:
            self._cached.popitem(last=False)


def digest_of(app: str, kind: str, key: bytes) -> bytes:
    """The name under which a pin is stored: SHA-256 of the three, NUL between them."""
    return hashlib.sha256(b"%b\0%b\0%b" % (app.encode(), kind.encode(), key)).digest()


def encode_pin(found: Found) -> bytes:
    fields = {"instance": found.pin.name, "incarnation": found.pin.incarnation, "ttl": found.ttl_s}
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_pin(raw: bytes) -> Found | None:
    """What was stored; None for what is no pin, as if it were not there."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    instance, incarnation, ttl_s = fields.get("instance"), fields.get("incarnation"), fields.get("ttl")
    if not isinstance(instance, str) or not isinstance(incarnation, str):
        return None
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s < 1e9:
        return None
    return Found(Pin.named(instance, incarnation), float(ttl_s))
