"""One request's life: classify, decide, ensure, connect, send, learn, relay, finish.

The fast path runs through in one go, from the head to the instance, without a task or an await. What must wait is
punted: the slow path (gateway.proxy) awaits it, and calls `decide` again until the exchange can be forwarded or
must be refused. Bytes pass through here and through the relay only.
"""

from __future__ import annotations

from asyncio import current_task
from typing import TYPE_CHECKING

from gateway.core.decision import Decision, Forward, Refuse
from gateway.core.framing import FramingFault
from gateway.core.head import RequestHead
from gateway.core.jsonrpc import peek_id
from gateway.core.model import Dialect, Kind
from gateway.core.problems import Code, Problem
from gateway.data import carrying, failing, parking, punt, replaying
from gateway.data.attempts import Attempts
from gateway.data.carrying import Reinitialise
from gateway.data.intake import HELD_BYTES, PEEK_BYTES, Intake
from gateway.data.responses import CONTINUE
from gateway.data.routing import Routing, Step
from gateway.data.teach import teach
from gateway.data.tunnel import join

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Coroutine

    from gateway.core.head import ResponseHead
    from gateway.core.learn import Learned
    from gateway.data.edge import Edge
    from gateway.data.relay import Relay
    from gateway.data.sessions import Session
    from gateway.data.taught import Taught
    from gateway.data.upstream import Upstream


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_keep_alive",
        "_punt",
        "_rpc_id",
        "_stream",
        "_waits_for_body",
        "attempts",
        "body",
        "continued",
        "early",
        "edge",
        "gateway",
        "head",
        "over",
        "parkable",
        "parked",
        "request_id",
        "routing",
        "session",
        "status",
        "step",
        "stream_number",
        "trace",
    )

    def __init__(self, edge: Edge, head: RequestHead) -> None:
        self.edge = edge
        self.gateway = edge.gateway
        self.head = head
        self.body = Intake(head.length, self.gateway.kept)
        self.request_id = self.gateway.request_id()
        self.routing = Routing(self.gateway, head, edge.peer, private=edge.private)
        self.trace = self.gateway.traces.sample(self.request_id, head)
        self.step: Step | Reinitialise | None = None
        """What a punted exchange waits for."""
        self.attempts = Attempts(self.gateway.loads)
        self.session: Session | None = None
        """The listed session that this request belongs to."""
        self.stream_number = 0
        """Of the 2024-11-05 stream that this exchange is; 0 for none."""
        self.over = False
        self._waits_for_body = False
        self.continued = False
        """The client was asked for its body."""
        self.parkable = False
        """It only listens for its session, and its app lets such streams be parked."""
        self.parked: Relay | None = None
        """The relay of a stream that was parked at least once."""
        self.early = False
        """The answer's head went out while the request was held; what comes is told as events."""
        self._keep_alive = False
        self.status = 0
        self._stream: Relay | None = None
        """The relay, once its answer is an event stream."""
        self._punt: Task[None] | None = None
        self._rpc_id: bytes | None = None

    def __repr__(self) -> str:
        state = "OVER" if self.over else "ANSWERING" if self.status else "SENT" if self.attempts.upstream else "ROUTING"
        return f"<Exchange {self.request_id.decode()} {state}>"

    # --- the request's body ----------------------------------------------------------

    def feed(self, data: bytes) -> int:
        """Bytes from the client; returns how many belong to this request."""
        body, edge = self.body, self.edge
        try:
            piece = body.feed(data)
        except FramingFault as fault:
            self.refuse(self.problem(Code.PB04, f"the request body is malformed: {fault}"))
            return len(data)
        if self.over:
            return len(piece)
        if self._is_too_long():
            return len(piece)
        if body.done:
            edge.no_deadline()
        else:
            edge.await_body()
        upstream = self.attempts.upstream
        if upstream is not None:
            upstream.transport.write(piece)
            body.sent(self.gateway.limits.replay_buffer_bytes)
        elif self._waits_for_body:
            if body.done or body.size > PEEK_BYTES:
                self._waits_for_body = False
                self._look_inside()
        elif body.size > HELD_BYTES:
            edge.pause_reading()
        return len(piece)

    def _is_too_long(self) -> bool:
        """Whether the body is longer than the limit, or said to be; it is refused then."""
        limit = self.gateway.limits.body_bytes
        if not limit or max(self.body.size, self.head.length) <= limit:
            return False
        self.refuse(self.problem(Code.PB09, f"the body is longer than {limit} bytes"))
        return True

    # --- classify, decide ------------------------------------------------------------

    def begin(self) -> None:
        """The head is here, and what came with it of the body."""
        if self.over or self._is_too_long():
            return
        step = self.routing.by_head()
        if step is not None:
            self.go(step)
        elif self.body.done:
            self._look_inside()
        else:
            self._waits_for_body = True
            # Paused when more came with the head than an instance is waited for with.
            self.edge.resume_reading()
            if self.head.expects_continue:
                self.continued = True
                self.edge.transport.write(CONTINUE)
                self.edge.await_body()

    def _look_inside(self) -> None:
        """The body is here, or too long to be waited for."""
        step = self.routing.by_body(self.body.whole())
        intent = self.routing.intent
        # A body that disagrees with its head leaves the intent as the head had it, without an id.
        self._rpc_id = intent.rpc_id if intent is not None and intent.kind is not Kind.NEEDS_BODY else None
        self.go(step)

    def go(self, step: Step | Reinitialise) -> None:
        """Carry a step out. What must wait is punted: the slow path calls this again in the end."""
        if self.over:
            return
        self.step = None
        if self.trace is not None and not isinstance(step, Reinitialise):
            self.trace.decided(step, self.routing)
        if isinstance(step, Refuse):
            step = self.retreat(step.problem) or step
        if isinstance(step, Forward):
            self.attempts.connect(self, step)
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

    def retreat(self, problem: Problem) -> Decision | Reinitialise | None:
        """What else can be done when no instance was reached; None: the problem stands."""
        return replaying.retreat(self, problem) or carrying.anew(self, problem)

    def call_off(self, problem: Problem) -> None:
        """Whoever is still waited for is waited for no longer."""
        task, self._punt = self._punt, None
        if task is not None:
            task.cancel()
            self.go(Refuse(problem))

    # --- Dialling ----------------------------------------------------------------------

    def connected(self, upstream: Upstream) -> None:
        self.attempts.connected(self, upstream)

    def connect_failed(self, code: Code, reason: str) -> None:
        self.attempts.connect_failed(self, code, reason)

    # --- what the relay reports --------------------------------------------------------

    def instance_failed(self, relay: Relay, problem: Problem, *, unsaid: bool = False) -> None:
        """The answer cannot be passed on. `unsaid`: nothing of it was, although its head was `answered`."""
        if unsaid:
            self.status = 0
        relay.upstream.close()
        self.fail(problem if problem.app else self.problem(problem.code, problem.message))

    def unreached(self, problem: Problem) -> None:
        """No attempt to connect led anywhere."""
        step = self.retreat(problem)
        if step is not None:
            self.attempts.anew()
            self.go(step)
        else:
            self.fail(problem)

    def fail(self, problem: Problem) -> None:
        """The instance failed, and nothing can be tried any more."""
        self.gateway.counters.outcomes[self.routing.app, "instance-failed"] += 1
        failing.end_with(self, problem)

    def learned(self, relay: Relay, head: ResponseHead) -> Taught:
        """The step `learn`."""
        self.parkable = parking.may_park(self)
        return teach(self, head, is_stream=relay.is_stream)

    def remember(self, learned: Learned) -> Coroutine[object, object, Problem | None]:
        """Store what an answer's body taught."""
        instance = self.attempts.instance
        assert instance is not None
        app, pin = self.routing.settled[0], self.routing.pin_of(instance)
        return self.gateway.store_pin(app, learned.kind, learned.key, pin, learned.ttl_s, binds=False)

    def keeps_alive(self) -> bool:
        """Whether the client's connection can be used again after this exchange."""
        return self.head.keep_alive and self.body.done and not self.gateway.draining

    def answered(self, relay: Relay, code: int, keep_alive: bool) -> None:
        """The head goes out, with this status."""
        self.status = code
        self._keep_alive = keep_alive
        self.body.answered()
        if self.parked is not None:
            self.gateway.lot.leave(self)
        if relay.is_stream:
            self.attempts.streams(parkable=self.parkable)
            if self._stream is None:
                self._stream = relay
                self.gateway.streams.add(relay)
                if self.session is not None:
                    self.session.streams += 1

    def completed(self, relay: Relay, clean: bool) -> None:
        """The answer is complete. `clean`: its connection can be used again."""
        gateway = self.gateway
        upstream = relay.upstream
        if clean and self.body.done and relay.reusable:
            gateway.pool.give(upstream, gateway.now_s)
        else:
            upstream.close()
        gateway.counters.outcomes[self.routing.app, "completed"] += 1
        self.finish()
        self.edge.finished(self._keep_alive, self.body.done)

    def broken(self, relay: Relay, problem: Problem, told: bool) -> None:
        """The answer broke off after its head. `told`: its event stream was ended by an error event."""
        relay.upstream.close()
        failing.note(self, problem, self.status)
        self.gateway.counters.outcomes[self.routing.app, "instance-failed"] += 1
        self.finish()
        if told:
            self.edge.finished(self._keep_alive, self.body.done)
        else:
            self.edge.cut(reset=not self.head.minor)

    def upgraded(self, relay: Relay, written: bytes) -> None:
        """101: the two connections are joined."""
        edge, upstream = self.edge, relay.upstream
        self.status = 101
        self.attempts.streams()
        edge.transport.write(written)
        ahead = edge.leave()
        upstream.listener = None
        join(edge.transport, upstream.transport, self._tunnel_over)
        if ahead:
            upstream.transport.write(ahead)

    def _tunnel_over(self) -> None:
        if not self.over:
            self.edge.left()
            if self.attempts.upstream is not None:
                self.gateway.pool.forget(self.attempts.upstream)
            self.gateway.counters.outcomes[self.routing.app, "completed"] += 1
            self.finish()

    # --- what the edge reports -----------------------------------------------------------

    def client_slow(self, slow: bool) -> None:
        """The client takes no bytes for now, or does again."""
        relay = self.attempts.relay
        if relay is not None:
            relay.throttle(slow)

    def client_gone(self) -> None:
        """The client's connection is lost: so is its instance's, at once."""
        if self.over:
            return
        self.gateway.counters.outcomes[self.routing.app, "client-gone"] += 1
        self.attempts.drop()
        self.finish()

    # --- finish ----------------------------------------------------------------------------

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem instead of an instance's answer."""
        if self.over:
            return
        self.gateway.counters.outcomes[self.routing.app, "refused"] += 1
        self.attempts.drop()
        failing.end_with(self, problem)

    def finish(self) -> None:
        self.over = True
        gateway, stream = self.gateway, self._stream
        gateway.lot.leave(self)
        self.body.over()
        if self.routing.trip is not None:
            self.routing.trip.arrived()
        if self.trace is not None:
            self.trace.note("answer", status=self.status)
        if stream is not None:
            gateway.streams.discard(stream)
            self._stream = None
            if self.session is not None:
                self.session.streams -= 1
        self.attempts.leave()
        if self.stream_number:
            gateway.legacy.discard(self.stream_number)
        gateway.counters.requests[self.routing.app, self.status] += 1
        task, self._punt = self._punt, None
        if task is not None and task is not current_task():
            task.cancel()

    @property
    def awaits_continue(self) -> bool:
        """Whether the client still waits to be asked for its body."""
        return self.head.expects_continue and not self.continued and not self.body.done

    @property
    def secure(self) -> bool:
        """Whether the client spoke TLS, to a proxy that is trusted to say so."""
        return self.edge.peer.trusted and self.head.values.get(b"x-forwarded-proto", b"").lower() == b"https"

    # --- small answers -----------------------------------------------------------------------

    def problem(self, code: Code, message: str) -> Problem:
        """A problem of this exchange's app and instance."""
        instance = self.attempts.instance
        return Problem(code, message, self.routing.app, instance.id if instance is not None else "")

    def rpc_id(self) -> bytes:
        """The JSON-RPC id of the request as raw JSON, if its body is at hand and says one; else empty."""
        known = self._rpc_id
        if known is None:
            intent = self.routing.intent
            speaks_mcp = intent is not None and intent.dialect is not Dialect.HTTP and self.head.method == b"POST"
            whole = self.body.whole() if speaks_mcp else None
            known = self._rpc_id = peek_id(whole)[1] if whole else b""
        return known
