"""How an exchange ends that comes to nothing: counted, logged, told to its client as far as that is still possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.problems import Problem, status
from gateway.data import early
from gateway.data.responses import error_response

if TYPE_CHECKING:
    from gateway.data.exchange import Exchange


def end_with(exchange: Exchange, problem: Problem) -> None:
    """Answer with a problem instead of an instance's answer."""
    edge, rpc_id = exchange.edge, exchange.rpc_id()
    note(exchange, problem, exchange.status or status(problem))
    if exchange.status or (exchange.early and not rpc_id):
        # Its head has gone out: all that is left is to cut it off visibly.
        exchange.finish()
        edge.cut(reset=not exchange.head.minor)
        return
    keep_alive = exchange.keeps_alive()
    if exchange.early:
        exchange.status, response = 200, early.error_end(problem, rpc_id, exchange.request_id)
    else:
        exchange.status, response = error_response(
            problem,
            exchange.request_id,
            head=exchange.head,
            intent=exchange.routing.intent,
            rpc_id=rpc_id,
            close=not keep_alive,
        )
    edge.transport.write(response)
    exchange.finish()
    edge.finished(keep_alive, exchange.body.done)


def note(exchange: Exchange, problem: Problem, code: int) -> None:
    """Count and log a problem that ends the exchange with this status."""
    gateway = exchange.gateway
    gateway.counters.problems[problem.app, problem.code] += 1
    gateway.report.problem(problem, exchange.request_id, exchange.head.method, code)
    if exchange.trace is not None:
        exchange.trace.problem(problem)
