"""An instance answers with a replay: its answer is dropped, and the request goes where it says.

The client sees nothing of it. What is sent again is what the intake kept; the rest of a body that is still coming
follows to the new target.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.decision import Decision, Refuse
from gateway.core.detour import told
from gateway.core.model import Instance
from gateway.core.problems import Code, Problem
from gateway.core.replay import REPLAY, Replay
from gateway.core.replay_json import is_replay_json, parse_replay_json
from gateway.data import detour
from gateway.data.issuer import Issuer

if TYPE_CHECKING:
    from gateway.core.head import ResponseHead
    from gateway.data.exchange import Exchange
    from gateway.data.upstream import Upstream


def begin(exchange: Exchange, upstream: Upstream, head: ResponseHead, rest: bytes) -> None:
    """The head of an answer that is a replay is here, and what came with it."""
    gateway, method = exchange.gateway, exchange.head.method
    sent = exchange.body.done
    if REPLAY in head.values:
        replay = gateway.heads.replay(head)
        if is_replay_json(head.values.get(b"content-type", b"")):
            replay = Problem(Code.PA03, "a fly-replay header beside a body that is a replay")
        exchange.attempts.anew()
        if sent and not rest and head.body_length(method) == 0 and head.keep_alive:
            gateway.pool.give(upstream, gateway.now_s)
        elif sent:
            issuer = Issuer(gateway, upstream, head, method, reusable=sent)
            gateway.pool.drop(upstream, issuer, gateway.now_s)
            issuer.data(rest)
        else:
            upstream.close()
        _follow(exchange, replay)
        return

    def gathered(body: bytes | Problem) -> None:
        exchange.attempts.anew()
        _follow(exchange, body if isinstance(body, Problem) else parse_replay_json(body, head.values))

    edge = None if sent else exchange.edge
    upstream.listener = issuer = Issuer(gateway, upstream, head, method, reusable=sent, edge=edge, tell=gathered)
    issuer.data(rest)


def _follow(exchange: Exchange, replay: Replay | Problem) -> None:
    issuer, body, gateway = exchange.attempts.instance, exchange.body, exchange.gateway
    assert issuer is not None
    if exchange.over:
        return
    _trace(exchange, issuer, replay)
    if isinstance(replay, Problem):
        _refused(exchange, exchange.problem(replay.code, replay.message))
        return
    limit = gateway.limits.replay_buffer_bytes
    if body.held is None or body.size > limit:
        message = f"the app asked for a replay, but the body of {body.size} bytes was not kept: at most {limit} are"
        _refused(exchange, exchange.problem(Code.PA01, message))
        return
    loop = asyncio.get_running_loop()
    step = detour.follow(exchange.routing, replay, issuer, loop.time())
    trip = exchange.routing.trip
    if isinstance(step, Refuse) and step.problem.code in (Code.PA02, Code.PA03, Code.PA04, Code.PA05):
        _refused(exchange, step.problem)
        return
    if replay.timeout_s is not None and trip is not None:
        trip.timer = loop.call_later(replay.timeout_s, _late, exchange)
    exchange.go(step)


def _refused(exchange: Exchange, problem: Problem) -> None:
    """A replay that cannot be carried out: the app is at fault, not the client."""
    exchange.gateway.counters.replays[exchange.routing.settled[0].name, "refused"] += 1
    exchange.fail(problem)


def _late(exchange: Exchange) -> None:
    """A replay's `timeout` is over. What waits is called off; an attempt to connect that is under way is not."""
    trip = exchange.routing.trip
    assert trip is not None
    trip.late, trip.timer = True, None
    replay = trip.replay
    assert replay is not None
    message = f"the replay's target was not reached within {replay.timeout_s:g} s"
    exchange.call_off(Problem(Code.PR03, message, exchange.routing.app))


def retreat(exchange: Exchange, problem: Problem) -> Decision | None:
    """What else can be done when no target was reached: ask the app again, fall back; None: it fails."""
    if exchange.routing.trip is None:
        return None
    step = detour.retreat(exchange.routing, problem, asyncio.get_running_loop().time())
    if step is not None and exchange.trace is not None:
        exchange.trace.note("fall back", code=problem.code, why=problem.message)
        exchange.trace.decided(step, exchange.routing)
    return step


def _trace(exchange: Exchange, issuer: Instance, replay: Replay | Problem) -> None:
    """What the issuer asked for, but for its `state` and the headers it sets, which may be secret."""
    trace = exchange.trace
    if trace is None:
        trace = exchange.trace = exchange.gateway.traces.replayed(exchange.request_id, exchange.head)
        if trace is None:
            return
        trace.note("decide", action="forward", app=issuer.app, instance=issuer.id, rule=exchange.attempts.rule.value)
    if isinstance(replay, Problem):
        trace.note("replay", app=issuer.app, instance=issuer.id, code=replay.code, why=replay.message)
    else:
        trace.note("replay", app=issuer.app, instance=issuer.id, asks=told(replay))
