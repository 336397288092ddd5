"""Errors of the gateway's own reach each caller in the form that it reads (docs/reference/http.md, "Errors")."""

from __future__ import annotations

import json

from tests.net.rig import Rig


def post(target: bytes, body: bytes, *fields: bytes) -> bytes:
    lines = (
        b"POST " + target + b" HTTP/1.1",
        b"Host: tools.localhost",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *fields,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_plain_words_for_posts_of_a_2024_stream(rig: Rig) -> None:
    instance = await rig.instance()
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    answer = await rig.ask(post(b"/messages/?session_id=1&moorage_pin=made-up", body))
    assert (answer.status, answer.one("moorage-error")) == (404, "PS04")
    assert (answer.one("content-type") or "").startswith("text/plain")
    assert answer.body.startswith(b"PS04: SSE stream gone.")
    assert answer.body.count(b"\n") == 1
    assert instance.untouched


async def test_a_header_that_disagrees_is_told_under_the_request_s_id(rig: Rig) -> None:
    instance = await rig.instance()
    body = b'{"jsonrpc":"2.0","id":"q-3","method":"tools/list"}'
    answer = await rig.ask(post(b"/mcp", body, b"MCP-Protocol-Version: 2026-07-28", b"Mcp-Method: tools/call"))
    assert answer.status == 400
    told = json.loads(answer.body)
    assert (told["id"], told["error"]["code"], told["error"]["data"]["code"]) == ("q-3", -32020, "PB12")
    assert instance.untouched


async def test_json_for_who_speaks_no_mcp(rig: Rig) -> None:
    answer = await rig.ask(b"GET / HTTP/1.1\r\nHost: tools.localhost\r\n\r\n")
    assert answer.status == 503
    error = json.loads(answer.body)["error"]
    assert error["code"] == "PR01"
    assert error["request_id"] == answer.one("fly-request-id")
    assert error["remedy"]
