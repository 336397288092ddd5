"""One attempt's answer: from the instance's bytes to the client's.

The head is parsed, taught from (`learn`) and written anew; the body goes on as the bytes that came, wherever its
framing may stay what it is. What is read on the way: where the body ends, and of event streams as much as is needed
to end them honestly when the instance dies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.framing import Body, ChunkedBody, FramingFault, body
from gateway.core.head import CHUNKED, UNTIL_CLOSE, ResponseHead
from gateway.core.headers import response_head
from gateway.core.problems import Code, Problem
from gateway.core.sse import EventTail, SseReader
from gateway.data import early, listening, replaying
from gateway.data.endings import COMMENT, COMMENT_CHUNK, LAST_CHUNK, between_events, error_ending
from gateway.data.heading import Heading, informal

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Coroutine

    from gateway.core.endpoint import EndpointRewriter
    from gateway.data.early import AsEvent
    from gateway.data.exchange import Exchange
    from gateway.data.learner import Learner
    from gateway.data.upstream import Upstream

QUIET_SWEEPS = 15
"""A stream silent for this many sweeps (about seconds) gets a comment; Cloudflare cuts at 125 s, others at 60 s."""


class Relay:
    """Hears one instance connection for one exchange; made for each attempt."""

    __slots__ = (
        "_body",
        "_encode",
        "_exchange",
        "_head",
        "_held",
        "_ids",
        "_inspects",
        "_last",
        "_learner",
        "_on_flush",
        "_quiet",
        "_rewriter",
        "_storing",
        "_tail",
        "_unsaid",
        "is_stream",
        "reusable",
        "upstream",
    )

    def __init__(self, exchange: Exchange, upstream: Upstream) -> None:
        self._exchange = exchange
        self.upstream = upstream
        self.is_stream = False
        self.reusable = False
        """The instance keeps its connection open after this answer."""
        self._head = Heading()
        self._body: Body | None = None
        self._inspects = False
        """Whether the payload is looked at, or only the end of it."""
        self._encode = 0
        """0: the bytes go on as they came; CHUNKED or UNTIL_CLOSE: the payload is framed anew."""
        self._rewriter: EndpointRewriter | AsEvent | None = None
        self._learner: Learner | None = None
        self._tail: EventTail | None = None
        self._ids: SseReader | None = None
        """Reads the ids of a stream that may be parked."""
        self._held: list[bytes] | None = None
        """What is kept from the client: until a pin is stored, or until it is known that there is none."""
        self._unsaid = False
        """The whole answer is kept from the client, its head too: there may still be another one."""
        self._storing = False
        self._on_flush: Callable[[], None] | None = None
        """What happened while a pin was being stored."""
        self._last = b""
        """The last bytes written, or the end of them."""
        self._quiet = 0

    # --- Answering -----------------------------------------------------------------

    def data(self, data: bytes) -> None:
        body = self._body
        if body is None:
            self._heading(data)
            return
        self._quiet = 0
        sink: list[bytes] | None = [] if self._inspects else None
        try:
            taken = body.feed(data, sink)
        except FramingFault as fault:
            # What of it was in order has not gone out: an event of ours would not fit behind what has.
            self._tail = None
            self._broken(f"its body is malformed: {fault}")
            return
        out = data if taken == len(data) else data[:taken]
        if sink is not None:
            out = self._inspect(b"".join(sink), out, body)
        else:
            self._last = out if len(out) < 256 else out[-8:]
        if self._held is not None:
            self._held.append(out)
        elif out:
            self._exchange.edge.transport.write(out)
        if body.done:
            self._ended(clean=taken == len(data))

    def lost(self, broken: bool) -> None:
        body = self._body
        if body is None:
            self._exchange.attempts.unanswered(self._exchange, begun=self._head.begun)
        elif not broken and body.end():
            if self._learner is not None:
                self._teach(self._learner, b"", done=True)
            if self._encode:
                self._write(self._closing())
            self._ended(clean=False)
        else:
            self._broken("its connection ended")

    def drained(self, writable: bool) -> None:
        edge = self._exchange.edge
        if writable:
            edge.resume_reading()
        else:
            edge.pause_reading()

    def throttle(self, slow: bool) -> None:
        """The client takes no bytes for now, or takes them again."""
        transport = self.upstream.transport
        if transport.is_closing():
            return
        if slow:
            transport.pause_reading()
        elif not self._storing:
            transport.resume_reading()

    # --- head ----------------------------------------------------------------------

    def _heading(self, data: bytes) -> None:
        """Bytes up to the end of the final head."""
        exchange = self._exchange
        found = self._head.feed(exchange, data)
        if found is None:
            return
        if isinstance(found, Problem):
            exchange.instance_failed(self, found)
            return
        head, rest = found
        if head.status == 101:
            self._switch(head, rest)
        elif head.replays:
            replaying.begin(exchange, self.upstream, head, rest)
        elif not exchange.attempts.retry_on(exchange, head):
            self._answer(head, rest)

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        exchange = self._exchange
        if not exchange.head.upgrade or not head.upgrade:
            exchange.instance_failed(self, Problem(Code.PH05, "a 101 that was not asked for"))
        else:
            exchange.upgraded(self, informal(exchange, head, exchange.learned(self, head).extra) + rest)

    def _answer(self, head: ResponseHead, rest: bytes) -> None:
        """The final head: teach, write, go on to the body."""
        exchange = self._exchange
        method = exchange.head.method
        length = head.body_length(method)
        self.is_stream = length != 0 and head.values.get(b"content-type", b"")[:17].lower() == b"text/event-stream"
        self.reusable = head.keep_alive and length != UNTIL_CLOSE
        taught = exchange.learned(self, head)
        self._rewriter, self._learner = taught.rewriter, taught.learner
        out = length
        if taught.rewriter is not None or length == UNTIL_CLOSE or (length == CHUNKED and not exchange.head.minor):
            out = self._encode = CHUNKED if exchange.head.minor else UNTIL_CLOSE
        if exchange.early:
            # Its head went out while the request was held.
            out = self._encode = CHUNKED
            self._rewriter = self._rewriter or early.as_events(exchange, head)
        if self.is_stream and method == b"POST" and (rpc_id := exchange.rpc_id()):
            self._tail = EventTail(rpc_id)
        if self.is_stream and exchange.parkable and self._ids is None:
            self._ids = SseReader()
        self._inspects = bool(self._encode or self._learner or self._tail or self._ids)
        headless = length == 0 and (method == b"HEAD" or head.status in (204, 304))
        keep_alive = exchange.keeps_alive() and out != UNTIL_CLOSE
        written = b""
        if not exchange.early:
            written = response_head(
                head,
                length=None if headless else out,
                session_id=taught.session_id,
                request_id=exchange.request_id,
                close=not keep_alive,
                extra=taught.extra,
                pristine=exchange.routing.settled[0].pristine,
            )
        exchange.answered(self, head.status, keep_alive)
        self._body = body(length)
        if taught.store is not None:
            self._store(taught.store)
        elif self._learner is not None and self._learner.withholds:
            self._held = []
        self._unsaid = self._held is not None
        if length == 0:
            self._write(self._closing() if exchange.early else written)
            self._ended(clean=not rest)
        elif not rest or self._inspects or self._held is not None:
            self._write(written)
            if rest:
                self.data(rest)
        else:
            self._first(written, rest, self._body)

    def _first(self, written: bytes, rest: bytes, body: Body) -> None:
        """Head and the beginning of the body in one write: most answers fit in a packet."""
        try:
            taken = body.feed(rest)
        except FramingFault as fault:
            self._write(written)
            self._broken(f"its body is malformed: {fault}")
            return
        self._last = rest[-8:]
        whole = taken == len(rest)
        self._exchange.edge.transport.write(written + (rest if whole else rest[:taken]))
        if body.done:
            self._ended(clean=whole)

    # --- body ----------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
        elif data:
            self._exchange.edge.transport.write(data)

    def _inspect(self, payload: bytes, raw: bytes, body: Body) -> bytes:
        """Look at the payload on its way; returns what is to be written for it."""
        if self._tail is not None and payload:
            self._tail.note(payload)
        if self._learner is not None:
            self._teach(self._learner, payload, body.done)
        if self._ids is not None:
            self._ids.feed(payload)
        if not self._encode:
            self._last = raw if len(raw) < 256 else raw[-8:]
            return raw
        if self._rewriter is not None:
            payload = self._rewriter.feed(payload)
            if self._rewriter.done and body.at_boundary:
                self._rewriter = None
                out = self._frame(payload)
                if isinstance(body, ChunkedBody) and self._encode == CHUNKED:
                    # From here on the framing may stay what it is.
                    self._encode = 0
                    self._inspects = self._tail is not None or self._ids is not None
                    self._last = out
                return out
        out = self._frame(payload)
        return out + self._closing() if body.done else out

    def _frame(self, payload: bytes) -> bytes:
        if not payload:
            return b""
        self._last = payload[-8:]
        return payload if self._encode == UNTIL_CLOSE else b"%x\r\n%b\r\n" % (len(payload), payload)

    def _closing(self) -> bytes:
        rest = self._rewriter.end() if self._rewriter is not None else b""
        return self._frame(rest) + (LAST_CHUNK if self._encode == CHUNKED else b"")

    def _teach(self, learner: Learner, payload: bytes, done: bool) -> None:
        """Show the payload to the learner; what it learned is stored before the client hears of it."""
        lesson = learner.note(payload, done)
        if lesson is not None:
            self._learner = None
            self._store(self._exchange.remember(lesson))
        elif learner.over:
            self._learner = None
            self._flush()

    def _store(self, store: Coroutine[object, object, Problem | None]) -> None:
        self._storing = True
        if self._held is None:
            self._held = []
        if not self.upstream.transport.is_closing():
            self.upstream.transport.pause_reading()
        self._exchange.gateway.spawn(self._stored(store))

    async def _stored(self, store: Coroutine[object, object, Problem | None]) -> None:
        problem = await store
        self._storing = False
        if self._exchange.over:
            return
        if problem is not None:
            self._exchange.instance_failed(self, problem, unsaid=self._unsaid)
            return
        self._flush()
        if self._on_flush is not None:
            self._on_flush()
        else:
            self.throttle(bool(self._exchange.edge.write_paused_s))

    def _flush(self) -> None:
        held, self._held = self._held, None
        self._unsaid = False
        if held:
            self._exchange.edge.transport.write(b"".join(held))

    # --- end -----------------------------------------------------------------------

    def _ended(self, *, clean: bool) -> None:
        """The answer is complete. `clean`: nothing followed it, so that its connection may be used again."""
        if self._storing:
            self._on_flush = lambda: self._exchange.completed(self, clean)
            return
        if self._held is not None:
            self._flush()
        self._exchange.completed(self, clean)

    def _broken(self, how: str) -> None:
        """The answer breaks off: end it so that it cannot be taken for a complete one."""
        if self._storing:
            self._on_flush = lambda: self._broken(how)
            return
        exchange = self._exchange
        problem = exchange.problem(Code.PU05, f"the instance broke off its answer: {how}")
        if self._unsaid:
            exchange.instance_failed(self, problem, unsaid=True)
            return
        if self._held is not None:
            self._flush()
        end = None
        if self._tail is not None:
            end = error_ending(self._body, self._encode, self._tail, problem, exchange.request_id.decode())
        elif self.is_stream and listening.listens(exchange) and between_events(self._body, self._encode, self._last):
            # Its client comes back for the rest, to another instance. Some count how often they are cut off.
            end = LAST_CHUNK if self._encode != UNTIL_CLOSE else b""
        if end is not None:
            exchange.edge.transport.write(end)
        exchange.broken(self, problem, told=end is not None)

    def farewell(self, *, cuts: bool = True) -> None:
        """End a stream that only listens, in order where it stands between two events. `cuts`: elsewhere too, since the
        gateway ends."""
        exchange = self._exchange
        if exchange.head.method != b"GET" or self._held is not None:
            return
        if between_events(self._body, self._encode, self._last):
            self._write(LAST_CHUNK if self._encode != UNTIL_CLOSE else b"")
            exchange.completed(self, clean=False)
        elif cuts:
            exchange.broken(self, exchange.problem(Code.PG02, "the gateway is stopping"), told=False)

    # --- parking -------------------------------------------------------------------

    def rest(self, sleeping: Container[tuple[str, str]]) -> None:
        """Its instance may be about to sleep: then it is parked, if it can be."""
        instance = self._exchange.attempts.instance
        if instance is not None and (instance.app, instance.id) in sleeping:
            self._exchange.gateway.lot.park(self._exchange)

    def park(self) -> bool:
        """Let go of the instance and keep the client, if the stream stands between two events; whether it does."""
        if self._held is not None or not between_events(self._body, self._encode, self._last):
            return False
        self.upstream.close()
        self._body, self._encode, self._last, self._inspects = None, CHUNKED, b"", True
        return True

    def attach(self, upstream: Upstream) -> None:
        """Hear another connection's answer; its events go on behind what the client has."""
        self.upstream = upstream
        self._head = Heading()

    @property
    def last_id(self) -> bytes:
        """The stream's last event id, where it is followed."""
        return self._ids.last_id if self._ids is not None else b""

    def sweep(self) -> None:
        """Once a second, for event streams: a comment keeps a silent one alive, between events and nowhere else."""
        if not self._quiet:
            self._exchange.attempts.used()
        self._quiet += 1
        if self._quiet < QUIET_SWEEPS or self._held is not None or self._exchange.edge.write_paused_s:
            return
        if between_events(self._body, self._encode, self._last):
            self._quiet = 0
            self._exchange.edge.transport.write(COMMENT if self._encode == UNTIL_CLOSE else COMMENT_CHUNK)
