"""In which form a problem reaches its caller: the caller's protocol decides, never the problem."""

from __future__ import annotations

from gateway.core.model import Dialect, Intent, Kind
from gateway.core.problems import Problem, json_body, jsonrpc_body, text_body

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"


def problem_body(problem: Problem, intent: Intent | None, rpc_id: bytes, request_id: str) -> tuple[bytes, bytes]:
    """The Content-Type and the body of an error answer.

    Args:
        intent: what the request is; None when that is not known.
        rpc_id: the JSON-RPC id as raw JSON (`Intent.rpc_id`, or found by `jsonrpc.peek_id`); empty for none.
    """
    if intent is not None:
        if intent.kind is Kind.LEGACY_POST:
            # SDK servers answer these in plain words, and clients show them as they are.
            return _TEXT, text_body(problem)
        if intent.dialect in (Dialect.SESSION_2025, Dialect.STATELESS_2026):
            return _JSON, jsonrpc_body(problem, rpc_id, request_id)
    return _JSON, json_body(problem, request_id)
