"""Streams that only listen to a session which is lost: they end in order, and their clients open them anew elsewhere.

Of apps whose sessions begin anew, and of no others. See docs/adr/0017-lost-sessions-are-initialised-anew.md.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.decide import decide
from gateway.core.decision import Ask, Refuse
from gateway.core.model import Kind, OnLost, Pin
from gateway.core.problems import Code
from gateway.data.carrying import is_carried

if TYPE_CHECKING:
    from gateway.data.exchange import Exchange
    from gateway.data.state import Gateway

AGAIN_S = 0.5


def listens(exchange: Exchange) -> bool:
    """Whether this exchange is a session's stream that its client opens anew when it ends."""
    intent = exchange.routing.intent
    if intent is None or intent.kind is not Kind.IN_SESSION or exchange.head.method != b"GET":
        return False
    return is_carried(exchange)


def begins(exchange: Exchange) -> None:
    """Such a stream is about to begin. Its session may have been lost since it was asked for."""
    if _is_lost(exchange):
        # Once its head is out.
        _let_go_in(0.0, exchange)


def release(gateway: Gateway, app: str) -> None:
    """An app's table is another: the streams of sessions that are lost by that end."""
    table = gateway.catalog.app(app)
    if table is None or table.app.on_lost is not OnLost.REINITIALIZE:
        return
    for edge in list(gateway.edges):
        if edge.exchange is not None and edge.exchange.routing.app == app:
            _let_go(edge.exchange)


def _let_go(exchange: Exchange) -> None:
    """End the stream of a lost session; if it stands within an event, as soon as it does no more."""
    relay = exchange.attempts.relay
    if exchange.over or relay is None or not relay.is_stream or not listens(exchange) or not _is_lost(exchange):
        return
    relay.farewell(cuts=False)
    if not exchange.over:
        _let_go_in(AGAIN_S, exchange)


def _let_go_in(seconds: float, exchange: Exchange) -> None:
    leaving = exchange.gateway.leaving

    def again() -> None:
        leaving.discard(exchange)
        _let_go(exchange)

    if exchange not in leaving:
        leaving.add(exchange)
        asyncio.get_running_loop().call_later(seconds, again)


def _is_lost(exchange: Exchange) -> bool:
    """Whether the instance that carries a session's request has lost the session, by what is known now."""
    gateway, instance = exchange.gateway, exchange.attempts.instance
    table = gateway.catalog.app(instance.app) if instance is not None else None
    if instance is None or table is None:
        return False
    ask = Ask(exchange.routing.settled[1].ask.intent, Pin(instance.id, instance.incarnation))
    decision = decide(table, ask, gateway.loads)
    return isinstance(decision, Refuse) and decision.problem.code is Code.PS02
