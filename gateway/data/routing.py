"""The questions of one request and their answers: classify, decide, and decide again.

Joins the core's pure steps with what this gateway knows. Touches no bytes of the connection and never waits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.ask import Asked, Lookup, LookUpPin, build_ask
from gateway.core.classify import classify, classify_body, classify_unread
from gateway.core.decide import decide
from gateway.core.decision import Ask, Decision, Refuse
from gateway.core.detour import abroad, border
from gateway.core.head import RequestHead
from gateway.core.headers import Peer, client_ip
from gateway.core.model import App, AppTable, Instance, Intent, KeySource, Kind, Pin
from gateway.core.problems import Code, Problem
from gateway.core.recording import Binding
from gateway.data import carrying
from gateway.data.detour import original, remembered
from gateway.data.trip import Trip

if TYPE_CHECKING:
    from gateway.data.state import Gateway

Step = Decision | LookUpPin
"""What is to be done next with a request."""


FLYCAST = ".flycast"
"""Fly's domain for apps that are reached privately."""


class Memo(NamedTuple):
    """What a session's head asks of an app: the same whenever the same head comes again."""

    app: App
    asked: Asked


class Routing:
    """Where one request goes."""

    __slots__ = (
        "ask",
        "asked",
        "bound",
        "entered",
        "gateway",
        "head",
        "intent",
        "peer",
        "private",
        "rounds",
        "table",
        "trip",
    )

    def __init__(self, gateway: Gateway, head: RequestHead, peer: Peer, *, private: bool = False) -> None:
        self.gateway = gateway
        self.head = head
        self.peer = peer
        self.private = private
        """The request came in on the private listener."""
        self.table: AppTable | None = None
        """Of the app whose instance the request goes to."""
        self.entered: App | None = None
        """The app that the client addresses."""
        self.intent: Intent | None = None
        self.asked: Asked | None = None
        """What the request asks of the app it addresses."""
        self.ask: Ask | None = None
        """What is asked now; another question than that one after a replay."""
        self.trip: Trip | None = None
        """How it came elsewhere, where a replay or a cache has a part in that."""
        self.bound: Binding | None = None
        """Where its session lives now, if it was lost and began anew."""
        self.rounds = 0
        """How often the session was to begin anew for this request."""

    @property
    def app(self) -> str:
        """The name of the app whose instance it goes to; empty while none was found."""
        return self.table.app.name if self.table is not None else ""

    @property
    def settled(self) -> tuple[App, Asked]:
        """The addressed app and the opened tokens of a request that was decided upon."""
        assert self.entered is not None
        assert self.asked is not None
        return self.entered, self.asked

    def by_head(self) -> Step | None:
        """The first step by the head alone; None when the body must be read first."""
        head = self.head
        table = self.table = self._addressed()
        if table is None:
            if not self.gateway.ready:
                return Refuse(Problem(Code.PG03, "the catalog was not read yet", retry_after_s=1))
            where = head.host or "this host"
            return Refuse(Problem(Code.PB13, f"no app is served at {where} under this path"))
        app = self.entered = table.app
        memo = head.memo
        if type(memo) is Memo and memo.app is app and not self.gateway.sessions.ended(memo.asked.ask.intent.token):
            self.intent = memo.asked.ask.intent
            return self.first(memo.asked)
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

    def _addressed(self) -> AppTable | None:
        """The app that host and path are for; `<app>.flycast` is known on the private listener alone."""
        host, catalog = self.head.host, self.gateway.catalog
        if self.private and host.endswith(FLYCAST):
            return catalog.app(host.removesuffix(FLYCAST))
        return catalog.lookup(host, self.head.path)

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
            groups=gateway.groups,
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
        if intent.kind is Kind.IN_SESSION and stored is Lookup.NOT_ASKED:
            # A sealed id: nothing but the head went into this.
            head.memo = Memo(table.app, asked)
        return self.first(asked)

    def first(self, asked: Asked) -> Decision:
        """The first decision: a pin's, a replay cache's, or one of the addressed app's."""
        self.asked = asked
        ask = self.ask = asked.ask
        pin = ask.pin
        if pin is None:
            if not ask.force and self.table is not None and self.gateway.replays.keys(self.table.app.name):
                decision = remembered(self)
                if decision is not None:
                    return decision
        elif pin.via:
            # The addressed app adds what the session's instance needs; its replay leads on to that instance.
            self.ask = replace(ask, pin=None)
        elif pin.app:
            return self._straight(asked, pin)
        return self.decide()

    def _straight(self, asked: Asked, pin: Pin) -> Decision:
        """A session that a replay made in another app goes straight to its instance."""
        app, target = self.settled[0], self.gateway.catalog.app(pin.app)
        if target is None:
            return Refuse(Problem(Code.PS02, "the session's app is gone", app.name, pin.instance))
        closed = border(app, target.app, pin.app)
        if closed is not None:
            return Refuse(closed)
        self.table = target
        form = original(self)
        self.trip = Trip(replace(abroad(form), in_session=True) if target.app.org != app.org else form)
        return self.decide()

    def decide(self) -> Decision:
        """Decide by what the catalog says now."""
        table, ask = self.table, self.ask
        assert table is not None
        assert ask is not None
        self.table = table = self.gateway.catalog.app(table.app.name) or table
        decision = decide(table, ask, self.gateway.loads)
        if isinstance(decision, Refuse) and decision.problem.code is Code.PS02 and len(self.gateway.bindings):
            key = carrying.bound(self)
            binding = self.gateway.bindings.get(key) if key is not None else None
            if binding is not None and binding.pin != ask.pin:
                return self.rebind(binding)
        return decision

    def rebind(self, binding: Binding) -> Decision:
        """Decide for a session that was lost and began anew there."""
        asked, ask = self.asked, self.ask
        assert asked is not None
        assert ask is not None
        pin = binding.pin
        self.bound = binding
        self.asked = asked._replace(ask=replace(asked.ask, pin=pin), upstream_id=binding.upstream_id)
        self.ask = replace(ask, pin=pin, exclude=ask.exclude - {pin.instance})
        carrying.fresh(self)
        return self.decide()

    def pin_of(self, instance: Instance) -> Pin:
        """What the next request of a session that this instance holds is pinned by."""
        pin = self.ask.pin if self.ask is not None and self.trip is None else None
        if pin is not None and pin.instance == instance.id and pin.incarnation == instance.incarnation:
            return pin
        app = "" if self.entered is not None and instance.app == self.entered.name else instance.app
        return Pin(instance.id, instance.incarnation, app, self.trip is not None and not self.trip.plain)

    def without(self, instance: str) -> Decision:
        """Decide anew, leaving out an instance that was tried; what was left out before stays out."""
        ask = self.ask
        assert ask is not None
        self.ask = replace(ask, exclude=ask.exclude | {instance})
        return self.decide()

    def again(self, instance: str) -> None:
        """What was left out may be tried again."""
        assert self.ask is not None
        self.ask = replace(self.ask, exclude=self.ask.exclude - {instance})

    def may_wake(self, instance: Instance) -> bool:
        """Whether a request may have this instance started."""
        return self.table is not None and self.table.app.auto_start and not instance.held_down

    def elsewhere(self, instance: str) -> Decision | None:
        """Another decision than this instance, or None; nothing is changed by asking."""
        ask = self.ask
        decision = self.without(instance)
        self.ask = ask
        return None if isinstance(decision, Refuse) else decision
