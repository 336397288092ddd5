"""Which instance carries an exchange: connecting, sending, and trying again where that is safe.

A request is tried again only while nothing of it was sent; or when it is idempotent and an idle connection died in
the moment of its use; or when MCP says that any instance may answer it. What was sent is never sent twice otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.decision import Ask, Forward, Refuse, Wake
from gateway.core.detour import unavailable_line, without
from gateway.core.headers import request_head, request_lines
from gateway.core.model import AppProtocol, Instance, Kind, Rule
from gateway.core.problems import Code, Problem
from gateway.core.target import target
from gateway.data import detour
from gateway.data.relay import Relay

if TYPE_CHECKING:
    from gateway.core.head import ResponseHead
    from gateway.data.exchange import Exchange
    from gateway.data.load import Load, Loads
    from gateway.data.upstream import Upstream

MAX_ATTEMPTS = 20
"""Fly tries up to 90 times; a bound that a person would still wait for."""
LAST_EVENT_ID = frozenset({b"last-event-id"})
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110 9.2.2."""


class Attempts:
    """The attempts of one exchange; at most one is under way.

    The exchange is passed in and not kept: a cycle would leave each request to the garbage collector.
    """

    __slots__ = (
        "_count",
        "_load",
        "_loads",
        "_parkable",
        "_streams",
        "doubted",
        "instance",
        "relay",
        "rule",
        "sent",
        "upstream",
    )

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._count = 0
        """Since the request's last replay, or its beginning."""
        self.rule = Rule.LEAST_LOADED
        """Which chose the instance."""
        self._load: Load | None = None
        self._streams = False
        self._parkable = False
        self.instance: Instance | None = None
        """The one of the last attempt."""
        self.doubted: Instance | None = None
        """One that its record says runs, and that could not be connected to: its agent is asked, once."""
        self.relay: Relay | None = None
        self.upstream: Upstream | None = None
        """The connection that the request was sent on, while it is this exchange's."""
        self.sent = False
        """Whether an instance may have seen some of the request since its last replay."""

    def connect(self, exchange: Exchange, decision: Forward) -> None:
        """Send the exchange to this instance."""
        gateway = exchange.gateway
        instance = self.instance = decision.instance
        self.rule = decision.rule
        self._count += 1
        self._load = load = self._loads.of(instance.app, instance.id)
        load.requests += 1
        load.last_s = gateway.now_s
        if decision.rule is Rule.LEAST_LOADED:
            gateway.loads.placed(instance)
        if exchange.routing.trip is not None:
            exchange.routing.trip.tried = True
        if self._count == 1:
            gateway.counters.rules[instance.app, decision.rule] += 1
        else:
            gateway.counters.retries += 1
        assert instance.address is not None
        upstream = gateway.pool.take(instance.address)
        if upstream is not None:
            self.connected(exchange, upstream)
        else:
            gateway.pool.dial(instance.address, exchange)

    def connected(self, exchange: Exchange, upstream: Upstream) -> None:
        """A connection is there: send."""
        gateway = exchange.gateway
        if exchange.over:
            gateway.pool.give(upstream, gateway.now_s)
            return
        head, instance, edge, routing = exchange.head, self.instance, exchange.edge, exchange.routing
        app, asked = routing.settled
        assert instance is not None
        assert routing.table is not None
        self.upstream = upstream
        self.sent = True
        parked = exchange.parked
        if parked is None:
            self.relay = Relay(exchange, upstream)
        else:
            self.relay = parked
            parked.attach(upstream)
        upstream.listener = self.relay
        session_id = asked.upstream_id or None
        if session_id is None and app.protocol is AppProtocol.HTTP:
            # Here it is a header like any other.
            session_id = head.values.get(b"mcp-session-id")
        provenance = request_lines(head, edge.peer, gateway.trusted_proxies)
        trip = routing.trip
        if trip is None:
            path, kept = target(app, head, asked.ask.intent.kind, asked.stream), head.kept
        else:
            detour.reached(routing, trip)
            path, kept = trip.form.target, trip.form.kept
            provenance += trip.lines()
            session_id = session_id if trip.form.in_session else None
        if parked is not None and parked.last_id:
            kept = without(kept, LAST_EVENT_ID) + b"Last-Event-ID: %b\r\n" % parked.last_id
        if routing.ask is not None and routing.ask.prefer:
            provenance += _not_preferred(routing.ask, instance, self.rule)
        preserves = routing.table.app.preserve_host
        body = exchange.body
        written = request_head(
            head,
            path,
            head.authority if preserves and head.authority else str(instance.address).encode(),
            kept=kept,
            session_id=session_id,
            expects_continue=exchange.awaits_continue,
            provenance=provenance,
            request_id=exchange.request_id,
        )
        if body.held:
            upstream.transport.write(b"".join((written, *body.held)))
            body.sent(gateway.limits.replay_buffer_bytes)
        else:
            upstream.transport.write(written)
        if not body.done:
            edge.resume_reading()
        if edge.write_paused_s:
            self.relay.throttle(slow=True)

    def connect_failed(self, exchange: Exchange, code: Code, reason: str) -> None:
        """There is no connection. Nothing was sent, so another instance may be tried."""
        instance = self.instance
        if exchange.over:
            return
        assert instance is not None
        if exchange.trace is not None:
            exchange.trace.note("connect", app=instance.app, instance=instance.id, code=code, why=reason)
        exchange.gateway.loads.failed(instance.app, instance.id)
        self._elsewhere(exchange, exchange.problem(code, reason))

    def _elsewhere(self, exchange: Exchange, problem: Problem) -> None:
        """This attempt failed before anything could have been carried out: decide anew without its instance."""
        instance = self.instance
        assert instance is not None
        self.leave()
        trip = exchange.routing.trip
        if self._count >= MAX_ATTEMPTS or (trip is not None and trip.late):
            exchange.unreached(problem)
            return
        decision = exchange.routing.without(instance.id)
        if not isinstance(decision, Refuse):
            exchange.go(decision)
        elif instance.startable and self.doubted is None and exchange.routing.may_wake(instance):
            # Its record may be late: it sleeps, or runs elsewhere by now. Its agent knows.
            self.doubted = instance
            exchange.routing.again(instance.id)
            exchange.go(Wake(instance, self.rule))
        elif decision.problem.code in (Code.PR01, Code.PR03):
            # Why the last one failed says more than that none is left.
            exchange.unreached(problem)
        else:
            exchange.go(decision)

    def retry_on(self, exchange: Exchange, head: ResponseHead) -> bool:
        """Whether this answer was dropped and the request sent elsewhere.

        MCP 2026-07-28: `server/discover` and lists can be answered by any instance, and a client takes a 5xx on
        discovery for an old server (mcp, `auto` mode). An `initialize` answered 503 has made no session yet.
        """
        instance = self.instance
        intent = exchange.routing.intent
        if head.status < 500 or intent is None or instance is None or not exchange.body.kept:
            return False
        may = intent.kind is Kind.ANYWHERE or (intent.kind is Kind.INITIALIZE and head.status == 503)
        if not may or self._count >= MAX_ATTEMPTS or exchange.routing.elsewhere(instance.id) is None:
            return False
        self.drop()
        if exchange.trace is not None:
            why = f"it answered {head.status}, and another instance may answer"
            exchange.trace.note("retry", app=instance.app, instance=instance.id, why=why)
        exchange.go(exchange.routing.without(instance.id))
        return True

    def unanswered(self, exchange: Exchange, *, begun: bool) -> None:
        """The connection ended before a whole head came; `begun`: some of an answer did."""
        upstream = self.upstream
        assert upstream is not None
        intent = exchange.routing.intent
        problem = exchange.problem(Code.PU02, "the instance closed the connection before it answered")
        if begun or not exchange.body.kept:
            exchange.fail(problem)
        elif intent is not None and intent.kind is Kind.ANYWHERE:
            self._elsewhere(exchange, problem)
        elif upstream.reused and exchange.head.method in _IDEMPOTENT and self._count < MAX_ATTEMPTS:
            # An idle connection that the instance closed in that very moment; RFC 9112 9.3.1 allows the repeat.
            if exchange.trace is not None:
                exchange.trace.note("retry", why="an idle connection was closed in the moment of its use")
            self.leave()
            if exchange.routing.trip is not None:
                exchange.routing.trip.reached = False
            exchange.go(exchange.routing.decide())
        else:
            exchange.fail(problem)

    def anew(self) -> None:
        """A replay: what comes is the first attempt at its target."""
        self.leave()
        self._count = 0
        self.sent = False

    def streams(self, *, parkable: bool = False) -> None:
        """The answer became an open stream, which is load of another kind."""
        load = self._load
        if load is not None and not self._streams:
            self._streams = True
            self._parkable = parkable
            load.requests -= 1
            load.streams += 1
            load.parkable += parkable

    def used(self) -> None:
        """Something happened on the open stream."""
        if self._load is not None:
            self._load.last_s = self._loads.now_s

    def drop(self) -> None:
        """Give up the attempt that is under way, if any: its connection is closed."""
        if self.upstream is not None:
            self.upstream.close()
        self.leave()

    def leave(self) -> None:
        """The instance no longer carries this exchange."""
        self.upstream = self.relay = None
        load, self._load = self._load, None
        if load is None:
            return
        if self._streams:
            self._streams = False
            load.streams -= 1
            load.parkable -= self._parkable
        else:
            load.requests -= 1
        load.last_s = self._loads.now_s
        assert self.instance is not None
        self._loads.freed(self.instance.app, self.instance.id)


def _not_preferred(ask: Ask, instance: Instance, rule: Rule) -> bytes:
    """Tells an instance that another one was preferred, unless it is a session that binds."""
    if instance.id == ask.prefer or rule in (Rule.SEALED, Rule.STORED, Rule.FORCE, Rule.COOKIE):
        return b""
    return unavailable_line(ask.prefer)
