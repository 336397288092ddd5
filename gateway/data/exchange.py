"""One request's life: classify, decide, ensure, connect, send, learn, relay, finish.

The fast path runs through in one go, from the head to the instance, without a task or an await. What must wait is
punted: the slow path (gateway.proxy) awaits it, and calls `decide` again until the exchange can be forwarded or
must be refused. Bytes pass through here and through the relay only.
"""

from __future__ import annotations

from asyncio import current_task
from typing import TYPE_CHECKING

from gateway.core.framing import FramingFault
from gateway.core.head import RequestHead
from gateway.core.headers import request_head, request_lines
from gateway.core.jsonrpc import peek_id
from gateway.core.model import AppProtocol, Dialect, Forward, Instance, Kind, Refuse
from gateway.core.problems import Code, Problem
from gateway.core.target import target
from gateway.data import punt
from gateway.data.intake import HELD_BYTES, PEEK_BYTES, Intake
from gateway.data.relay import Relay
from gateway.data.responses import CONTINUE, error_response
from gateway.data.routing import Routing, Step
from gateway.data.teach import teach
from gateway.data.tunnel import join

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Coroutine

    from gateway.core.head import ResponseHead
    from gateway.core.learn import Learned
    from gateway.data.edge import Edge
    from gateway.data.load import Load
    from gateway.data.relay import Taught
    from gateway.data.upstream import Upstream

MAX_ATTEMPTS = 20
"""Fly tries up to 90 times; a bound that a person would still wait for."""
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110 9.2.2."""


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_attempts",
        "_continued",
        "_keep_alive",
        "_load",
        "_punt",
        "_rpc_id",
        "_sent",
        "_status",
        "_waits_for_body",
        "body",
        "edge",
        "gateway",
        "head",
        "instance",
        "over",
        "relay",
        "request_id",
        "routing",
        "step",
        "stream_number",
    )

    def __init__(self, edge: Edge, head: RequestHead) -> None:
        self.edge = edge
        self.gateway = edge.gateway
        self.head = head
        self.body = Intake(head.length)
        self.request_id = self.gateway.request_id()
        self.routing = Routing(self.gateway, head, edge.peer)
        self.step: Step | None = None
        """What a punted exchange waits for."""
        self.instance: Instance | None = None
        self.relay: Relay | None = None
        self.stream_number = 0
        """Of the 2024-11-05 stream that this exchange is; 0 for none."""
        self.over = False
        self._waits_for_body = False
        self._sent = False
        self._continued = False
        """The gateway itself asked the client for the body."""
        self._attempts = 0
        self._load: Load | None = None
        self._keep_alive = False
        self._status = 0
        self._punt: Task[None] | None = None
        self._rpc_id: bytes | None = None

    def __repr__(self) -> str:
        state = "OVER" if self.over else "ANSWERING" if self._status else "SENT" if self._sent else "ROUTING"
        return f"<Exchange {self.request_id.decode()} {state}>"

    # --- the request's body ----------------------------------------------------------

    def feed(self, data: bytes) -> int:
        """Bytes from the client; returns how many belong to this request."""
        body, edge = self.body, self.edge
        try:
            piece = body.feed(data)
        except FramingFault as fault:
            self.refuse(self.problem(Code.PB04, f"the request body is malformed: {fault}"))
            edge.abort()
            return len(data)
        if self.over:
            return len(piece)
        limit = self.gateway.limits.body_bytes
        if limit and max(body.size, self.head.length) > limit:
            self.refuse(self.problem(Code.PB09, f"the body is longer than {limit} bytes"))
            return len(piece)
        if body.done:
            edge.no_deadline()
        else:
            edge.await_body()
        if self._sent and self.relay is not None:
            self.relay.upstream.transport.write(piece)
            body.sent()
        elif self._waits_for_body:
            if body.done or body.size > PEEK_BYTES:
                self._waits_for_body = False
                self._look_inside()
        elif body.size > HELD_BYTES:
            edge.pause_reading()
        return len(piece)

    # --- classify, decide ------------------------------------------------------------

    def begin(self) -> None:
        """The head is here, and what came with it of the body."""
        if self.over:
            return
        step = self.routing.by_head()
        if step is not None:
            self.go(step)
        elif self.body.done:
            self._look_inside()
        else:
            self._waits_for_body = True
            if self.head.expects_continue:
                self._continued = True
                self.edge.transport.write(CONTINUE)

    def _look_inside(self) -> None:
        """The body is here, or too long to be waited for."""
        step = self.routing.by_body(self.body.whole())
        self._rpc_id = self.routing.intent.rpc_id if self.routing.intent is not None else None
        self.go(step)

    def go(self, step: Step) -> None:
        """Carry a step out. What must wait is punted: the slow path calls this again in the end."""
        if self.over:
            return
        self.step = None
        if isinstance(step, Forward):
            self._connect(step)
        elif isinstance(step, Refuse):
            self.refuse(step.problem)
        else:
            self.step = step
            self.gateway.counters.punted += 1
            self._punt = self.gateway.spawn(punt.run(self))

    def punted(self) -> None:
        """The slow path is through with this exchange."""
        self._punt = None
        if self.step is not None and not self.over:
            self.refuse(self.problem(Code.PG01, "the slow path came to no decision"))

    # --- connect, send -----------------------------------------------------------------

    def _connect(self, decision: Forward) -> None:
        gateway = self.gateway
        instance = self.instance = decision.instance
        self._attempts += 1
        self._load = load = gateway.loads.of(instance.app, instance.id)
        load.requests += 1
        if self._attempts == 1:
            gateway.counters.rules[instance.app, decision.rule] += 1
        else:
            gateway.counters.retries += 1
        assert instance.address is not None
        upstream = gateway.pool.take(instance.address)
        if upstream is not None:
            self.connected(upstream)
        else:
            gateway.pool.dial(instance.address, self)

    def connected(self, upstream: Upstream) -> None:
        """Dialling: a connection is there."""
        if self.over:
            gateway = self.gateway
            gateway.pool.give(upstream, gateway.now_s)
            return
        relay = self.relay = Relay(self, upstream)
        upstream.listener = relay
        head, instance = self.head, self.instance
        app, asked = self.routing.settled
        assert instance is not None
        session_id = asked.upstream_id or None
        if session_id is None and app.protocol is AppProtocol.HTTP:
            # Here it is a header like any other.
            session_id = head.values.get(b"mcp-session-id")
        written = request_head(
            head,
            target(app, head, asked.ask.intent.kind, asked.stream),
            head.authority if app.preserve_host and head.authority else str(instance.address).encode(),
            session_id=session_id,
            expects_continue=head.expects_continue and not self._continued and not self.body.done,
            provenance=request_lines(head, self.edge.peer, self.gateway.trusted_proxies),
            request_id=self.request_id,
        )
        held = self.body.held
        self._sent = True
        if held:
            upstream.transport.write(b"".join((written, *held)))
            self.body.sent()
            self.edge.resume_reading()
        else:
            upstream.transport.write(written)
        if self.edge.write_paused_s:
            upstream.transport.pause_reading()

    def connect_failed(self, code: Code, reason: str) -> None:
        """Dialling: there is no connection. Nothing was sent, so another instance may be tried."""
        if self.over:
            return
        instance = self.instance
        assert instance is not None
        self.gateway.loads.failed(instance.app, instance.id)
        self._again(self.problem(code, reason))

    def _again(self, problem: Problem) -> None:
        """This attempt failed before anything could have been carried out: decide anew without its instance."""
        self._leave()
        instance = self.instance
        assert instance is not None
        if self._attempts >= MAX_ATTEMPTS:
            self.refuse(problem)
            return
        decision = self.routing.without(instance.id)
        if isinstance(decision, Refuse) and decision.problem.code in (Code.PR01, Code.PR03):
            # Why the last one failed says more than that none is left.
            self.refuse(problem)
        else:
            self.go(decision)

    # --- what the relay reports --------------------------------------------------------

    def retry_on(self, relay: Relay, head: ResponseHead) -> bool:
        """Whether this answer is better not passed on but asked for elsewhere.

        MCP 2026-07-28: `server/discover` and lists can be answered by any instance, and a client takes a 5xx on
        discovery for an old server (mcp, `auto` mode). An `initialize` answered 503 has made no session yet.
        """
        intent, instance = self.routing.intent, self.instance
        if head.status < 500 or intent is None or instance is None or not self.body.kept:
            return False
        anywhere = intent.kind is Kind.ANYWHERE
        if not (anywhere or (intent.kind is Kind.INITIALIZE and head.status == 503)) or self._attempts >= MAX_ATTEMPTS:
            return False
        if self.routing.elsewhere(instance.id) is None:
            return False
        relay.upstream.close()
        self._leave()
        self._sent, self.relay = False, None
        self.go(self.routing.without(instance.id))
        return True

    def unanswered(self, relay: Relay) -> None:
        """The connection ended before a whole head came."""
        head, intent = self.head, self.routing.intent
        self._sent, self.relay = False, None
        problem = self.problem(Code.PU02, "the instance closed the connection before it answered")
        if not self.body.kept:
            self._fail(problem)
        elif intent is not None and intent.kind is Kind.ANYWHERE:
            self._again(problem)
        elif relay.upstream.reused and head.method in _IDEMPOTENT and self._attempts < MAX_ATTEMPTS:
            # An idle connection that the instance closed in that very moment; RFC 9112 9.3.1 allows the repeat.
            self._leave()
            self.go(self.routing.decide())
        else:
            self._fail(problem)

    def instance_failed(self, relay: Relay, problem: Problem) -> None:
        """The answer cannot be passed on."""
        relay.upstream.close()
        self._fail(self.problem(problem.code, problem.message))

    def _fail(self, problem: Problem) -> None:
        self.gateway.counters.outcomes[self.routing.app, "instance-failed"] += 1
        self._end_with(problem)

    def learned(self, relay: Relay, head: ResponseHead) -> Taught:
        """The step `learn`."""
        return teach(self, head, is_stream=relay.is_stream)

    def remember(self, learned: Learned) -> Coroutine[object, object, Problem | None]:
        """Store what an answer's body taught."""
        assert self.instance is not None
        app = self.routing.settled[0]
        return self.gateway.store_pin(app, learned.kind, learned.key, self.instance, learned.ttl_s, binds=False)

    def keeps_alive(self) -> bool:
        """Whether the client's connection can be used again after this exchange."""
        return self.head.keep_alive and self.body.done and not self.gateway.draining

    def answered(self, relay: Relay, status: int, keep_alive: bool) -> None:
        """The head goes out."""
        self._status = status
        self._keep_alive = keep_alive
        if relay.is_stream:
            self.gateway.streams.add(relay)
            load = self._load
            if load is not None:
                load.requests -= 1
                load.streams += 1

    def completed(self, relay: Relay, clean: bool) -> None:
        """The answer is complete. `clean`: its connection can be used again."""
        gateway = self.gateway
        upstream = relay.upstream
        if clean and self.body.done and relay.reusable:
            gateway.pool.give(upstream, gateway.now_s)
        else:
            upstream.close()
        gateway.counters.outcomes[self.routing.app, "completed"] += 1
        self._finish()
        self.edge.finished(self._keep_alive, self.body.done)

    def broken(self, relay: Relay, problem: Problem, told: bool) -> None:
        """The answer broke off after its head. `told`: its event stream was ended by an error event."""
        relay.upstream.close()
        self.gateway.counters.problems[problem.app, problem.code] += 1
        self.gateway.counters.outcomes[self.routing.app, "instance-failed"] += 1
        self._finish()
        if told:
            self.edge.finished(self._keep_alive, self.body.done)
        else:
            self.edge.abort()

    def upgraded(self, relay: Relay, written: bytes) -> None:
        """101: the two connections are joined."""
        edge, upstream = self.edge, relay.upstream
        self._status = 101
        if self._load is not None:
            self._load.requests -= 1
            self._load.streams += 1
            relay.is_stream = True
        edge.transport.write(written)
        ahead = edge.leave()
        upstream.listener = None
        join(edge.transport, upstream.transport, self._tunnel_over)
        if ahead:
            upstream.transport.write(ahead)

    def _tunnel_over(self) -> None:
        if not self.over:
            self.gateway.counters.outcomes[self.routing.app, "completed"] += 1
            self._finish()

    # --- what the edge reports -----------------------------------------------------------

    def client_slow(self, slow: bool) -> None:
        """The client takes no bytes for now, or does again."""
        relay = self.relay
        if relay is not None:
            relay.throttle(slow)

    def client_gone(self) -> None:
        """The client's connection is lost: so is its instance's, at once."""
        if self.over:
            return
        self.gateway.counters.outcomes[self.routing.app, "client-gone"] += 1
        if self.relay is not None:
            self.relay.upstream.close()
        self._finish()

    # --- finish ----------------------------------------------------------------------------

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem instead of an instance's answer."""
        if self.over:
            return
        self.gateway.counters.outcomes[self.routing.app, "refused"] += 1
        if self.relay is not None:
            self.relay.upstream.close()
        self._end_with(problem)

    def _end_with(self, problem: Problem) -> None:
        self.gateway.counters.problems[problem.app, problem.code] += 1
        if self._status:
            # Its head has gone out: all that is left is to cut it off visibly.
            self._finish()
            self.edge.abort()
            return
        keep_alive = self.keeps_alive()
        self._status, response = error_response(
            problem,
            self.request_id,
            head=self.head,
            intent=self.routing.intent,
            rpc_id=self.rpc_id(),
            close=not keep_alive,
        )
        self.edge.transport.write(response)
        self._finish()
        self.edge.finished(keep_alive, self.body.done)

    def _leave(self) -> None:
        """The instance no longer carries this exchange."""
        load, self._load = self._load, None
        if load is None:
            return
        relay = self.relay
        if relay is not None and relay.is_stream:
            self.gateway.streams.discard(relay)
            load.streams -= 1
        else:
            load.requests -= 1
        assert self.instance is not None
        self.gateway.loads.freed(self.instance.app, self.instance.id)

    def _finish(self) -> None:
        self.over = True
        self._leave()
        gateway = self.gateway
        gateway.legacy.discard(self.stream_number)
        gateway.counters.requests[self.routing.app, self._status] += 1
        task, self._punt = self._punt, None
        if task is not None and task is not current_task():
            task.cancel()

    @property
    def secure(self) -> bool:
        """Whether the client spoke TLS, to a proxy that is trusted to say so."""
        return self.edge.peer.trusted and self.head.values.get(b"x-forwarded-proto", b"").lower() == b"https"

    # --- small answers -----------------------------------------------------------------------

    def problem(self, code: Code, message: str) -> Problem:
        """A problem of this exchange's app and instance."""
        return Problem(code, message, self.routing.app, self.instance.id if self.instance is not None else "")

    def rpc_id(self) -> bytes:
        """The JSON-RPC id of the request as raw JSON, if its body is at hand and says one; else empty."""
        known = self._rpc_id
        if known is None:
            intent = self.routing.intent
            speaks_mcp = intent is not None and intent.dialect is not Dialect.HTTP and self.head.method == b"POST"
            whole = self.body.whole() if speaks_mcp else None
            known = self._rpc_id = peek_id(whole)[1] if whole else b""
        return known
