"""Answers of the admin API: JSON, and every refusal in the shape the public side has too.

`{"error": {"code", "message", "app", "instance", "request_id", "remedy"}}`, with `faults` where several things are
wrong at once. Codes of the AD family belong to this API; others (PM, PS...) are those of `gateway.core.problems`.
docs/reference/admin-api.md lists them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from starlette.responses import Response

from gateway.core.problems import TABLE, Problem


class AdminCode(StrEnum):
    """What can be wrong with a request to this API."""

    AD01 = "AD01"
    AD02 = "AD02"
    AD03 = "AD03"
    AD04 = "AD04"
    AD05 = "AD05"
    AD06 = "AD06"
    AD07 = "AD07"
    AD08 = "AD08"
    AD09 = "AD09"
    AD10 = "AD10"
    AD11 = "AD11"
    AD12 = "AD12"
    AD13 = "AD13"


class Row(NamedTuple):
    """What a code means on the wire."""

    status: int
    title: str
    remedy: str


CODES: dict[AdminCode, Row] = {
    AdminCode.AD01: Row(401, "No valid token", "Send `Authorization: Bearer TOKEN` with the gateway's `admin_token`."),
    AdminCode.AD02: Row(
        403,
        "Not from this machine",
        "Ask from the gateway's own machine by its loopback address, or set `admin_token`.",
    ),
    AdminCode.AD03: Row(404, "No such thing", "Look at GET /v1/apps and GET /openapi.json for what there is."),
    AdminCode.AD04: Row(405, "Method not allowed", "Use a method that the Allow header names."),
    AdminCode.AD05: Row(409, "Owned by another writer", "Change it where it was declared: `owner` names the place."),
    AdminCode.AD06: Row(409, "Not possible for this machine", "Start or stop it where it was started."),
    AdminCode.AD07: Row(422, "Faults in the request", "Correct each of `faults`; nothing was changed."),
    AdminCode.AD08: Row(413, "Request body too large", "Send at most 64 KiB."),
    AdminCode.AD09: Row(400, "Request body is not JSON", "Send one JSON object (RFC 8259)."),
    AdminCode.AD10: Row(408, "State not reached in time", "Ask again: waiting changes nothing."),
    AdminCode.AD11: Row(409, "Not suspendable", "Start it first, or use stop instead."),
    AdminCode.AD12: Row(409, "No such lease can be made", "Renew a live lease by PUT, or end one by DELETE."),
    AdminCode.AD13: Row(
        503, "The catalog's store is away", "Repeat the request when it is back: GET /v1/catalog says how it stands."
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request."""

    key: str
    """The body's key or the query's parameter; empty for the whole."""
    message: str
    remedy: str


class Refusal(Exception):
    """Ends a request; the application answers with it."""

    def __init__(
        self,
        code: AdminCode,
        message: str = "",
        *,
        app: str = "",
        instance: str = "",
        faults: Sequence[Fault] = (),
        detail: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.app = app
        self.instance = instance
        self.faults = faults
        self.detail = detail
        self.headers = headers


class Trouble(Exception):
    """Ends a request with a problem of the gateway itself; `detail` is what only operators should read."""

    def __init__(self, problem: Problem, detail: str = "") -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.detail = detail


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer: ASCII, never kept by a cache, never taken for anything else by a browser."""
    return Response(
        json.dumps(value, allow_nan=False),
        status,
        {"cache-control": "no-store", "x-content-type-options": "nosniff", **(headers or {})},
        "application/json",
    )


def refusal_answer(refusal: Refusal, request_id: str) -> Response:
    row = CODES[refusal.code]
    error: dict[str, object] = {
        "code": refusal.code.value,
        "message": refusal.message or row.title,
        "app": refusal.app,
        "instance": refusal.instance,
        "request_id": request_id,
        "remedy": row.remedy,
    }
    if refusal.faults:
        error["faults"] = [
            {"key": fault.key, "message": fault.message, "remedy": fault.remedy} for fault in refusal.faults
        ]
    if refusal.detail:
        error["detail"] = refusal.detail
    headers = {"moorage-error": refusal.code.value, **(refusal.headers or {})}
    return answer({"error": error}, row.status, headers)


def trouble_answer(trouble: Trouble, request_id: str) -> Response:
    problem = trouble.problem
    row = TABLE[problem.code]
    error = {
        "code": problem.code.value,
        "message": problem.message or row.title,
        "app": problem.app,
        "instance": problem.instance,
        "request_id": request_id,
        "remedy": row.remedy,
    }
    if trouble.detail:
        error["detail"] = trouble.detail
    headers = {"moorage-error": problem.code.value}
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(problem.retry_after_s)
    return answer({"error": error}, row.status, headers)
