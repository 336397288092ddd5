"""The questions of one request and their answers: classify, decide, and decide again.

Joins the core's pure steps with what this gateway knows. Touches no bytes of the connection and never waits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.ask import Asked, Lookup, LookUpPin, build_ask
from gateway.core.classify import classify, classify_body, classify_unread
from gateway.core.decide import decide
from gateway.core.head import RequestHead
from gateway.core.headers import Peer, client_ip
from gateway.core.model import App, AppTable, Decision, Intent, KeySource, Kind, Pin, Refuse
from gateway.core.problems import Code, Problem

if TYPE_CHECKING:
    from gateway.data.state import Gateway

Step = Decision | LookUpPin
"""What is to be done next with a request."""


class Memo(NamedTuple):
    """What a session's head asks of an app: the same whenever the same head comes again."""

    app: App
    asked: Asked


class Routing:
    """Where one request goes."""

    __slots__ = ("asked", "gateway", "head", "intent", "peer", "table")

    def __init__(self, gateway: Gateway, head: RequestHead, peer: Peer) -> None:
        self.gateway = gateway
        self.head = head
        self.peer = peer
        self.table: AppTable | None = None
        self.intent: Intent | None = None
        self.asked: Asked | None = None

    @property
    def app(self) -> str:
        """The app's name; empty while none was found."""
        return self.table.app.name if self.table is not None else ""

    @property
    def settled(self) -> tuple[App, Asked]:
        """The app and the opened tokens of a request that was decided upon."""
        assert self.table is not None
        assert self.asked is not None
        return self.table.app, self.asked

    def by_head(self) -> Step | None:
        """The first step by the head alone; None when the body must be read first."""
        head = self.head
        table = self.table = self.gateway.catalog.lookup(head.host, head.path)
        if table is None:
            if not self.gateway.ready:
                return Refuse(Problem(Code.PG03, "the catalog was not read yet", retry_after_s=1))
            where = head.host or "this host"
            return Refuse(Problem(Code.PB13, f"no app is served at {where} under this path"))
        app = table.app
        memo = head.memo
        if type(memo) is Memo and memo.app is app and not self.gateway.sessions.ended(memo.asked.ask.intent.token):
            self.intent, self.asked = memo.asked.ask.intent, memo.asked
            return self.decide()
        if head.repeated and app.key:
            for rule in app.key:
                if rule.source is KeySource.HEADER and rule.name.encode() in head.repeated:
                    return Refuse(
                        Problem(Code.PB05, f"header {rule.name}, which the app is keyed by, came twice", app.name)
                    )
        intent = classify(app, head)
        if isinstance(intent, Problem):
            return Refuse(intent)
        self.intent = intent
        return None if intent.kind is Kind.NEEDS_BODY else self._ask(Lookup.NOT_ASKED)

    def by_body(self, body: bytes | None) -> Step:
        """The first step by the whole body, or by None where the body is too long to be read."""
        table = self.table
        assert table is not None
        intent = classify_unread(table.app, self.head) if body is None else classify_body(table.app, self.head, body)
        if isinstance(intent, Problem):
            return Refuse(intent)
        self.intent = intent
        return self._ask(Lookup.NOT_ASKED)

    def found(self, pin: Pin | None) -> Step:
        """The step after the pin store was asked."""
        return self._ask(pin if pin is not None else Lookup.MISSING)

    def _ask(self, stored: Pin | Lookup) -> Step:
        gateway, head, table, intent = self.gateway, self.head, self.table, self.intent
        assert table is not None
        assert intent is not None
        asked = build_ask(
            table.app,
            intent,
            head,
            gateway.sealer,
            principal=gateway.principal(head.values.get(b"authorization")),
            client_ip=client_ip(head, self.peer, gateway.trusted_proxies),
            stored=stored,
        )
        if isinstance(asked, LookUpPin):
            return asked
        if isinstance(asked, Problem):
            return Refuse(asked)
        if intent.kind is Kind.IN_SESSION and gateway.sessions.ended(intent.token):
            return Refuse(Problem(Code.PS03, "the session was ended", table.app.name))
        stream = asked.stream
        if stream is not None and stream.gateway == gateway.boot and stream.number not in gateway.legacy:
            return Refuse(Problem(Code.PS04, "the SSE stream of this session has ended", table.app.name))
        self.asked = asked
        if intent.kind is Kind.IN_SESSION and stored is Lookup.NOT_ASKED:
            # A sealed id: nothing but the head went into this.
            head.memo = Memo(table.app, asked)
        return self.decide()

    def decide(self) -> Decision:
        """Decide by what the catalog says now."""
        table, asked = self.table, self.asked
        assert table is not None
        assert asked is not None
        self.table = table = self.gateway.catalog.app(table.app.name) or table
        return decide(table, asked.ask, self.gateway.loads)

    def without(self, instance: str) -> Decision:
        """Decide anew, leaving out an instance that was tried; what was left out before stays out."""
        asked = self.asked
        assert asked is not None
        self.asked = asked._replace(ask=replace(asked.ask, exclude=asked.ask.exclude | {instance}))
        return self.decide()

    def elsewhere(self, instance: str) -> Decision | None:
        """Another decision than this instance, or None; nothing is changed by asking."""
        asked = self.asked
        decision = self.without(instance)
        self.asked = asked
        return None if isinstance(decision, Refuse) else decision
