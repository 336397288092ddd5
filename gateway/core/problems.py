"""Every error the gateway makes itself: one code, one status, one remedy, in one table.

Codes are Fly's (docs, "Error codes") where Fly has one for the case. Families of our own: PB (a request that
is not served as it came), PH (an instance's answer that cannot be passed on), PS (a session, which Fly Proxy
has none of) and PG (the gateway itself). docs/troubleshooting.md has one heading per code.

Only this file knows HTTP statuses and JSON-RPC error codes. Which of the bodies a request gets is decided in
`gateway.core.answer`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    # requests
    PB01 = "PB01"
    PB02 = "PB02"
    PB03 = "PB03"
    PB04 = "PB04"
    PB05 = "PB05"
    PB06 = "PB06"
    PB07 = "PB07"
    PB08 = "PB08"
    PB09 = "PB09"
    PB10 = "PB10"
    PB11 = "PB11"
    PB12 = "PB12"
    PB13 = "PB13"
    PB14 = "PB14"
    # sessions
    PS01 = "PS01"
    PS02 = "PS02"
    PS03 = "PS03"
    PS04 = "PS04"
    PS05 = "PS05"
    PS06 = "PS06"
    PS07 = "PS07"
    # connecting to an instance
    PC01 = "PC01"
    PC03 = "PC03"
    PC04 = "PC04"
    PC05 = "PC05"
    PC06 = "PC06"
    PC07 = "PC07"
    # the exchange with an instance
    PU02 = "PU02"
    PU03 = "PU03"
    PU05 = "PU05"
    PH01 = "PH01"
    PH02 = "PH02"
    PH03 = "PH03"
    PH04 = "PH04"
    PH05 = "PH05"
    PH06 = "PH06"
    # starting an instance
    PM01 = "PM01"
    PM02 = "PM02"
    PM03 = "PM03"
    PM05 = "PM05"
    PM07 = "PM07"
    PM08 = "PM08"
    PM09 = "PM09"
    PM10 = "PM10"
    PM11 = "PM11"
    # choosing an instance
    PR01 = "PR01"
    PR02 = "PR02"
    PR03 = "PR03"
    PL01 = "PL01"
    PL02 = "PL02"
    # replays
    PA01 = "PA01"
    PA02 = "PA02"
    PA03 = "PA03"
    PA04 = "PA04"
    PA05 = "PA05"
    # the gateway
    PG01 = "PG01"
    PG02 = "PG02"
    PG03 = "PG03"
    PG04 = "PG04"


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal or failure, before it is put into bytes.

    `message` says what happened to which thing; the remedy comes from the code's table entry.
    """

    code: Code
    message: str
    app: str = ""
    instance: str = ""
    retry_after_s: int | None = None


class Row(NamedTuple):
    """What a code means on the wire."""

    status: int
    title: str
    remedy: str
    rpc_code: int = -32000
    """Of the grandfathered range, where nothing else fits."""
    rpc_message: str = ""
    """The JSON-RPC error's message where SDKs surface or match an exact text; empty: the problem's own message."""
    opaque: bool = False
    """The client sees only the title: neither `message` nor `instance`, which are for the log."""


# JSON-RPC codes: MCP 2026-07-28 reserves -32020..-32099 for the specification; -32000..-32019 mean nothing to
# receivers, except that SDKs know -32001 as "Session not found".
_SESSION = -32001
_HEADER_MISMATCH = -32020
_INVALID_REQUEST = -32600
_INVALID_PARAMS = -32602

_AGAIN = "Repeat the request after the time in Retry-After."

TABLE: dict[Code, Row] = {
    Code.PB01: Row(400, "Malformed request", "Send a well-formed HTTP/1.1 request (RFC 9112).", _INVALID_REQUEST),
    Code.PB02: Row(400, "Bad Host", "Send exactly one Host header that agrees with the target.", _INVALID_REQUEST),
    Code.PB03: Row(
        431, "Request head too large", "Send fewer or shorter headers, or raise `limits`.", _INVALID_REQUEST
    ),
    Code.PB04: Row(
        400,
        "Ambiguous body length",
        "Send either one Content-Length or `Transfer-Encoding: chunked`, never both.",
        _INVALID_REQUEST,
    ),
    Code.PB05: Row(400, "Repeated routing header", "Send each routing header once, by itself.", _INVALID_REQUEST),
    Code.PB06: Row(400, "Shadowing header name", "Spell the header with `-` instead of `_`.", _INVALID_REQUEST),
    Code.PB07: Row(405, "CONNECT refused", "Use another method: the gateway is no forward proxy.", _INVALID_REQUEST),
    Code.PB08: Row(417, "Expectation not supported", "Send no Expect header but `100-continue`.", _INVALID_REQUEST),
    Code.PB09: Row(413, "Request body too large", "Send a smaller body, or raise `limits`.", _INVALID_REQUEST),
    Code.PB10: Row(400, "Upgrade refused", "Send the upgrade as a GET without a body.", _INVALID_REQUEST),
    Code.PB11: Row(408, "Request not received in time", "Send the whole request without long pauses."),
    Code.PB12: Row(
        400,
        "MCP header does not match the body",
        "Let Mcp-Method and Mcp-Name repeat what the JSON-RPC message says.",
        _HEADER_MISMATCH,
    ),
    Code.PB13: Row(404, "No such app", "Check host and path against the apps' `hosts` and `path`."),
    Code.PB14: Row(403, "Origin refused", "Add the origin to the app's `allowed_origins`.", _INVALID_REQUEST),
    Code.PS01: Row(
        404,
        "Session not found",
        "Start a new session: send `initialize` without Mcp-Session-Id.",
        _SESSION,
        "Session not found",
        opaque=True,
    ),
    Code.PS02: Row(
        404,
        "Session lost with its instance",
        "Start a new session: send `initialize` without Mcp-Session-Id.",
        _SESSION,
        "Session not found",
    ),
    Code.PS03: Row(
        404,
        "Session ended",
        "Start a new session: send `initialize` without Mcp-Session-Id.",
        _SESSION,
        "Session not found",
    ),
    Code.PS04: Row(
        404, "SSE stream gone", "Open the SSE stream again and use the endpoint it names.", _SESSION, opaque=True
    ),
    Code.PS05: Row(
        421,
        "Session lives on another instance",
        "Leave out fly-force-instance-id, or name the session's own instance.",
    ),
    Code.PS06: Row(400, "Task lost with its instance", "Start the task again.", _INVALID_PARAMS, "Task not found"),
    Code.PS07: Row(503, "Session's instance unreachable", _AGAIN),
    Code.PC01: Row(502, "Connection refused by the instance", "Check that the instance listens on its port."),
    Code.PC03: Row(502, "Connection reset by the instance", "Look at the instance's own log."),
    Code.PC04: Row(502, "Connection aborted", "Look at the instance's own log."),
    Code.PC05: Row(504, "Connecting to the instance timed out", "Check the network and the instance's load."),
    Code.PC06: Row(502, "Connecting to the instance failed", "Check the instance's address."),
    Code.PC07: Row(503, "Attempts to connect used up", _AGAIN),
    Code.PU02: Row(
        502,
        "Instance closed before it answered",
        "Look at the instance's own log. The request may have been carried out.",
    ),
    Code.PU03: Row(502, "Instance's host unreachable", "Check the network between gateway and instance."),
    Code.PU05: Row(
        502,
        "Instance broke off in the middle of its answer",
        "Look at the instance's own log. The request may have been carried out.",
    ),
    Code.PH01: Row(502, "Malformed answer from the instance", "Correct the app: its answer is not HTTP/1.1."),
    Code.PH02: Row(502, "Instance's answer head too large", "Let the app send fewer or shorter headers."),
    Code.PH03: Row(502, "Ambiguous body length from the instance", "Correct the app's framing headers."),
    Code.PH04: Row(
        504,
        "Instance did not answer in time",
        "Look at the instance's load. The request may have been carried out.",
    ),
    Code.PH05: Row(502, "Unasked upgrade from the instance", "Let the app answer 101 only to an upgrade."),
    Code.PH06: Row(
        502,
        "Answer cannot be told as events",
        "The request was held until the instance ran. Look at the instance's own log, and repeat it.",
    ),
    Code.PM01: Row(503, "Start refused by the driver", "Look at the agent's log and its driver's state."),
    Code.PM02: Row(503, "Waking failed", "Look at the gateway's log: the agent could not be asked."),
    Code.PM03: Row(503, "Instance not awake in time", "Repeat the request, or raise `wake_timeout`."),
    Code.PM05: Row(503, "Started instance not reachable", "Check that the app listens on the port it is given."),
    Code.PM07: Row(503, "Instance's state could not be changed", "Look at the agent's log."),
    Code.PM08: Row(
        503, "Instance may not be started", "Start it through the admin API, or let the app's `auto_start` be true."
    ),
    Code.PM09: Row(503, "Instance in an unknown state", "Look at `moorage ps` and at the instance's owner."),
    Code.PM10: Row(503, "Start cancelled", _AGAIN),
    Code.PM11: Row(503, "Instance was stopped just now", _AGAIN),
    Code.PR01: Row(503, "No instance can take the request", "Register, start or repair an instance of the app."),
    Code.PR02: Row(502, "No such instance", "Name an instance of this app: `moorage ps` lists them."),
    Code.PR03: Row(503, "No instance left to try", "Look at the instances' logs: none could be reached."),
    Code.PL01: Row(503, "Too many connections", "Close connections, or raise `limits`."),
    Code.PL02: Row(503, "Too many requests held", "Repeat later, raise `wake_queue` or add instances."),
    Code.PA01: Row(413, "Body too large to be replayed", "Send a smaller body, or steer the request instead."),
    Code.PA02: Row(502, "Replayed too often", "Correct the app: its replays go in a circle."),
    Code.PA03: Row(502, "Bad replay", "Correct the app's fly-replay header."),
    Code.PA04: Row(502, "Replay to an unknown app", "Correct the app's fly-replay header."),
    Code.PA05: Row(502, "Replay not allowed by its target", "Add the source to the target's `replay_sources`."),
    Code.PG01: Row(500, "Fault in the gateway", "Report it with the request id; the gateway's log has the rest."),
    Code.PG02: Row(503, "Gateway is draining", "Repeat the request on a new connection."),
    Code.PG03: Row(503, "No catalog yet", _AGAIN),
    Code.PG04: Row(503, "Pin store unreachable", _AGAIN),
}


def status(problem: Problem) -> int:
    """The HTTP status of a problem."""
    return TABLE[problem.code].status


def json_body(problem: Problem, request_id: str) -> bytes:
    """The body for callers that do not speak MCP: one JSON object, ASCII, no line breaks."""
    row = TABLE[problem.code]
    error = {
        "code": problem.code.value,
        "message": row.title if row.opaque else problem.message or row.title,
        "app": problem.app,
        "instance": "" if row.opaque else problem.instance,
        "request_id": request_id,
        "remedy": row.remedy,
    }
    return json.dumps({"error": error}).encode("ascii")


def jsonrpc_body(problem: Problem, rpc_id: bytes, request_id: str) -> bytes:
    """The body for callers that speak MCP: a JSON-RPC error, ASCII, no line breaks.

    `rpc_id` is the request's id as raw JSON, as `gateway.core.jsonrpc` gives it; empty becomes null.
    """
    row = TABLE[problem.code]
    error = {
        "code": row.rpc_code,
        "message": row.rpc_message or (row.title if row.opaque else problem.message or row.title),
        "data": {"code": problem.code.value, "request_id": request_id, "remedy": row.remedy},
    }
    return b'{"jsonrpc": "2.0", "id": %b, "error": %b}' % (rpc_id or b"null", json.dumps(error).encode("ascii"))


def text_body(problem: Problem) -> bytes:
    """The body for callers that expect plain words (2024-11-05 POSTs): one ASCII line."""
    row = TABLE[problem.code]
    return f"{problem.code}: {row.title}. {row.remedy}\n".encode("ascii", "replace")
