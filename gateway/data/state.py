"""What all exchanges of one gateway share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from gateway.core.headers import Network
from gateway.core.model import App, ConcurrencyType, Kind, Pin
from gateway.core.principal import principal
from gateway.core.problems import Code, Problem
from gateway.core.regions import DEFAULT_GROUPS
from gateway.data.bindings import Bindings
from gateway.data.carrying import KeepingRecordings
from gateway.data.counters import Counters
from gateway.data.heads import Heads
from gateway.data.intake import Kept
from gateway.data.load import Loads
from gateway.data.parking import Lot
from gateway.data.replays import Replays
from gateway.data.report import Report
from gateway.data.sessions import Sessions
from gateway.data.traces import Traces
from gateway.data.upstream import Pool
from gateway.log.base import LogUnavailable

if TYPE_CHECKING:
    from gateway.core.catalog import Catalog
    from gateway.core.seal import Sealer
    from gateway.data.edge import Edge
    from gateway.data.exchange import Exchange
    from gateway.data.relay import Relay

MAX_PRINCIPALS = 4096
STORE_TIMEOUT_S = 2.0
"""How long an answer is kept back for its pin to be stored."""

log = structlog.get_logger(__name__)


class StoringPins(Protocol):
    async def put(self, app: str, kind: str, key: bytes, pin: Pin, ttl_s: float) -> None:
        """Store a pin; raises LogUnavailable."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take; each has its key in moorage.toml."""

    connections: int = 8000
    header_bytes: int = 32768
    header_count: int = 100
    body_bytes: int = 0
    """0: no limit."""
    replay_buffer_bytes: int = 1 << 20
    """How much of a request's body is kept for a replay."""
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    connect_timeout_s: float = 2.0


class Gateway:
    """One worker process, as its connections see it."""

    def __init__(
        self,
        *,
        region: str,
        limits: Limits,
        trusted_proxies: tuple[Network, ...],
        catalog: Catalog,
        sealer: Sealer,
        pins: StoringPins,
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
        groups: Mapping[str, tuple[str, ...]] = DEFAULT_GROUPS,
    ) -> None:
        self.region = region
        self.groups = groups
        """Names for groups of regions."""
        self.limits = limits
        self.trusted_proxies = trusted_proxies
        self.catalog = catalog
        self.sealer = sealer
        self.pins = pins
        self.spawn = spawn
        self.boot = secrets.token_hex(6)
        """Names this life of this gateway: in request ids and legacy pins."""
        self.replays = Replays(self.boot)
        self.recordings: KeepingRecordings | None = None
        """Of sessions that may begin anew; None: none does."""
        self.bindings = Bindings()
        self.leaving: set[Exchange] = set()
        """Streams of lost sessions that stand within an event, and are ended a moment later."""
        self.traces = Traces()
        self.heads = Heads(limits.header_count)
        self.loads = Loads(self._concurrency)
        self.sessions = Sessions()
        self.counters = Counters()
        self.report = Report()
        self.pool = Pool(spawn, limits.connect_timeout_s)
        self.kept = Kept()
        """How much of the bodies of requests is kept for replays and retries."""
        self.edges: set[Edge] = set()
        self.streams: set[Relay] = set()
        """Open event streams, for keep-alive comments."""
        self.lot = Lot()
        """Parked streams."""
        self.legacy: set[int] = set()
        """The numbers of the 2024-11-05 streams that are open here."""
        self.now_s = 0.0
        """A monotonic clock that `sweep` moves, about once a second."""
        self.slow_path: Callable[..., Coroutine[Any, Any, None]]
        """The Starlette application that waits and thinks."""
        self.draining = False
        """No new requests on open connections; what is in flight finishes."""
        self.ready = False
        """The catalog was read once: what it does not know does not exist."""
        self._principals: dict[bytes, bytes | None] = {}
        self._next_request = 0
        self._next_stream = 0

    def _concurrency(self, app: str) -> ConcurrencyType:
        table = self.catalog.app(app)
        return table.app.concurrency.type if table is not None else ConcurrencyType.REQUESTS

    def request_id(self) -> bytes:
        """An id for one request: unique, opaque, ending in `-<region>` as Fly's does."""
        self._next_request += 1
        return b"%b%08x-%b" % (self.boot.encode(), self._next_request, self.region.encode())

    def stream_number(self) -> int:
        self._next_stream += 1
        return self._next_stream

    def principal(self, authorization: bytes | None) -> bytes | None:
        """Who is calling, as far as routing goes; remembered per header value."""
        if authorization is None:
            return None
        known = self._principals.get(authorization)
        if known is None:
            if len(self._principals) >= MAX_PRINCIPALS:
                self._principals.clear()
            known = self._principals[authorization] = principal(authorization)
        return known

    def lot_changed(self, app: str) -> None:
        """An app's table is another: parked streams of its instances may go on."""
        table = self.catalog.app(app)
        if table is not None and len(self.lot):
            self.lot.changed(table)

    async def store_pin(
        self, app: App, kind: Kind, key: bytes, pin: Pin, ttl_s: float, *, binds: bool
    ) -> Problem | None:
        """Put a learned pin into the pin store. A pin that `binds` and cannot be stored is a problem: its client
        must not hold an id that no gateway can route. Others can fail: their requests then go by the principal."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self.pins.put(app.name, kind, key, pin, ttl_s)
        except (LogUnavailable, TimeoutError) as error:
            log.warning("a pin could not be stored", app=app.name, kind=kind, error=str(error))
            if binds:
                return Problem(Code.PG04, "the session's pin could not be stored", app.name, pin.instance, 1)
        return None

    def drain(self) -> None:
        """Begin to end: event streams that only listen are ended now, everything else may finish."""
        self.draining = True
        for relay in list(self.streams):
            relay.farewell()

    def forget_idle_sessions(self) -> None:
        """Take sessions off the list that had no request for their app's `session_idle`."""
        now_s = self.now_s
        tables = filter(None, map(self.catalog.app, self.catalog.apps()))
        self.sessions.sweep({table.app.name: now_s - table.app.session_idle_s for table in tables})

    def sweep(self, now_s: float) -> None:
        """Once a second: move the clock, end what is late, keep silent streams alive."""
        self.now_s = self.loads.now_s = now_s
        for edge in list(self.edges):
            edge.sweep(now_s)
        for relay in list(self.streams):
            relay.sweep()
        self.pool.sweep(now_s)
        self.loads.sweep()
        self.report.sweep()
        self.traces.sweep()
