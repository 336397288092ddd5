"""Parking: a session's silent event stream stays open at the gateway while its instance sleeps.

When the instance is put to sleep its parkable streams let go of it and keep their clients, with comments. When it runs
again, whoever woke it, each is asked for anew, with the last event id that its client has seen. Kept is what the
instance keeps: a suspended one all of its session, a stopped one what it has on disk; an event that it sent in the
moment between is kept only by a server that stores events and honours Last-Event-ID. See docs/reference/lifecycle.md.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.decision import Forward, Refuse
from gateway.core.model import AppTable, IdleStreams, Kind, Rule
from gateway.core.problems import Code

if TYPE_CHECKING:
    from gateway.data.exchange import Exchange

ATTACH_S = 1.0
Key = tuple[str, str]


def may_park(exchange: Exchange) -> bool:
    """Whether this exchange only listens for a session, to an app whose streams may be parked."""
    table, intent = exchange.routing.table, exchange.routing.intent
    return (
        table is not None
        and table.app.idle_streams is IdleStreams.PARK
        and intent is not None
        and intent.kind is Kind.IN_SESSION
        and exchange.head.method == b"GET"
        and bool(exchange.head.minor)
    )


class Lot:
    """The parkable streams of one gateway that are parked now, by instance."""

    __slots__ = ("_attaching", "_parked")

    def __init__(self) -> None:
        self._parked: dict[Key, dict[Exchange, None]] = {}
        self._attaching: dict[Exchange, asyncio.Future[None]] = {}
        """Streams that were asked for again and are not there yet."""

    def __len__(self) -> int:
        return sum(map(len, self._parked.values()))

    def park(self, exchange: Exchange) -> None:
        """Park an open stream, if it stands between two events; its instance is about to sleep."""
        relay, instance = exchange.attempts.relay, exchange.attempts.instance
        if exchange.over or relay is None or instance is None or not exchange.parkable or not relay.park():
            return
        exchange.attempts.leave()
        exchange.parked, exchange.early = relay, True
        self._parked.setdefault((instance.app, instance.id), {})[exchange] = None

    def leave(self, exchange: Exchange) -> None:
        """The exchange is over, or attached again."""
        instance = exchange.attempts.instance
        if exchange.parked is None or instance is None:
            return
        attaching = self._attaching.pop(exchange, None)
        if attaching is not None:
            attaching.set_result(None)
        key = (instance.app, instance.id)
        here = self._parked.get(key)
        if here is not None and exchange in here:
            del here[exchange]
            if not here:
                del self._parked[key]

    async def attached(self, app: str, id: str) -> None:
        """Return when the streams of this instance are there again: what a request makes the instance say must be
        heard. Waits for a second at most."""
        waited = [
            future
            for exchange, future in self._attaching.items()
            if (one := exchange.attempts.instance) is not None and (one.app, one.id) == (app, id)
        ]
        if waited:
            await asyncio.wait(waited, timeout=ATTACH_S)

    def changed(self, table: AppTable) -> None:
        """An app's table is another: streams whose instance runs are attached again, and lost ones end."""
        for key in [key for key in self._parked if key[0] == table.app.name]:
            for exchange in list(self._parked.get(key, ())):
                self._resume(exchange)

    def _resume(self, exchange: Exchange) -> None:
        """Ask the session's own instance if it runs; end what cannot go on. Whatever else is waited for."""
        decision = exchange.routing.decide()
        if isinstance(decision, Forward):
            self.leave(exchange)
            self._attaching[exchange] = asyncio.get_running_loop().create_future()
            exchange.attempts.anew()
            exchange.go(Forward(decision.instance, Rule.SEALED))
        elif isinstance(decision, Refuse) and decision.problem.code is Code.PS02:
            self.leave(exchange)
            exchange.fail(decision.problem)
