"""The gateway's own answers, as bytes."""

from __future__ import annotations

from http import HTTPStatus

from gateway.core.answer import problem_body
from gateway.core.head import RequestHead
from gateway.core.model import Intent
from gateway.core.problems import Problem, status

_REASONS = {one.value: one.phrase.encode() for one in HTTPStatus}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def error_response(
    problem: Problem, request_id: bytes, *, head: RequestHead | None, intent: Intent | None, rpc_id: bytes, close: bool
) -> tuple[int, bytes]:
    """The status and the whole response for a problem, in the form the caller's dialect understands."""
    content_type, body = problem_body(problem, intent, rpc_id, request_id.decode())
    code = status(problem)
    parts = [
        b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
        % (code, _REASONS.get(code, b""), content_type, len(body)),
        b"moorage-error: %b\r\nFly-Request-Id: %b\r\n" % (problem.code.encode(), request_id),
    ]
    if problem.retry_after_s is not None:
        parts.append(b"Retry-After: %d\r\n" % problem.retry_after_s)
    if close:
        parts.append(b"Connection: close\r\n")
    parts.append(b"\r\n")
    if head is None or head.method != b"HEAD":
        parts.append(body)
    return code, b"".join(parts)


def bare_response(problem: Problem, request_id: bytes) -> bytes:
    """The response to what could not be read as a request; the connection ends after it."""
    return error_response(problem, request_id, head=None, intent=None, rpc_id=b"", close=True)[1]
