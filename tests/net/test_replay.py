"""`fly-replay`: an app sends its request elsewhere (docs/reference/replay.md; Fly, "Dynamic request routing")."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from gateway.core.model import Instance
from gateway.core.problems import Problem
from tests.net.rig import RawInstance, Rig
from tests.net.wire import LIMIT_S

HOST = b"Host: tools.localhost\r\n"
GET = b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"X-One: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def replay(value: str, *lines: bytes, status: int = 307, body: bytes = b"") -> bytes:
    """An answer that asks for a replay."""
    head = b"HTTP/1.1 %d Whatever\r\nfly-replay: %b\r\n" % (status, value.encode())
    return head + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


async def pair(rig: Rig, order: str | bytes, **fields: Any) -> tuple[RawInstance, RawInstance]:
    """i-1, which replays by this order, and i-2, which answers; i-1 is chosen first."""
    one, other = await rig.instance("i-1"), await rig.instance("i-2", **fields)
    one.answers(order if isinstance(order, bytes) else replay(order))
    other.answers(OK)
    return one, other


async def woken(rig: Rig) -> tuple[str, asyncio.Future[Instance | Problem]]:
    """The next instance that the gateway asks to be woken, and what becomes of it."""
    async with asyncio.timeout(LIMIT_S):
        return await rig.waker.asked.get()


# --- the header ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 307, 409, 502])
async def test_an_answer_of_any_status_with_the_header_sends_the_request_elsewhere(rig: Rig, status: int) -> None:
    one, other = await pair(rig, replay("instance=i-2", status=status))
    answer = await rig.ask(GET)
    assert (answer.status, answer.body) == (200, b"ok")
    assert len(one.requests) == len(other.requests) == 1
    assert other.requests[0].first == b"GET /a?b=c HTTP/1.1"
    assert other.requests[0].one("x-one") == "1"


async def test_the_client_sees_nothing_of_the_issuers_answer(rig: Rig) -> None:
    await pair(rig, replay("instance=i-2", b"Set-Cookie: a=b", b"X-Secret: s", body=b"the issuer's body"))
    answer = await rig.ask(GET)
    assert answer.body == b"ok"
    assert answer.one("set-cookie") is None
    assert answer.one("x-secret") is None


async def test_the_target_is_told_who_replayed_and_when(rig: Rig) -> None:
    before = time.time_ns() // 1000
    _, other = await pair(rig, "instance=i-2;state=cart-17")
    await rig.ask(GET)
    source = other.requests[0].one("fly-replay-src")
    assert source is not None
    told = re.fullmatch(r"instance=i-1;region=local;t=(\d+);state=cart-17", source)
    assert told is not None
    assert before <= int(told[1]) <= time.time_ns() // 1000
    assert other.requests[0].one("fly-replay-cache-status") == "miss"


async def test_a_sleeping_target_is_woken(rig: Rig) -> None:
    one = await rig.instance("i-1")
    one.answers(replay("instance=i-2"))
    rig.asleep("i-2")
    client = await rig.client()
    client.send(GET)
    asked, outcome = await woken(rig)
    assert asked == "i-2"
    other = await rig.instance("i-2")
    other.answers(OK)
    outcome.set_result(rig.known("i-2"))
    assert (await client.answer()).status == 200


async def test_the_eleventh_replay_is_an_error(rig: Rig) -> None:
    one = await rig.instance("i-1")
    one.answers(replay("instance=i-1"))
    answer = await rig.ask(GET)
    assert answer.status == 502
    assert answer.one("moorage-error") == "PA02"
    assert len(one.requests) == 11


async def test_the_tenth_replay_is_followed(rig: Rig) -> None:
    one = await rig.instance("i-1")
    one.answers(lambda _: replay("instance=i-1") if len(one.requests) <= 10 else OK)
    assert (await rig.ask(GET)).status == 200
    assert len(one.requests) == 11


async def test_one_replay_too_many_does_not_fall_back(rig: Rig) -> None:
    one = await rig.instance("i-1")
    one.answers(replay("instance=i-1;fallback=force_self"))
    assert (await rig.ask(GET)).one("moorage-error") == "PA02"
    assert not [request for request in one.requests if request.one("fly-replay-failed")]


async def test_the_client_gets_what_the_issuer_sent_before_its_final_answer(rig: Rig) -> None:
    await pair(rig, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + replay("instance=i-2"))
    client = await rig.client()
    client.send(GET)
    hints = await client.answer()
    assert (hints.status, hints.one("link")) == (103, "</a>")
    assert (await client.answer()).body == b"ok"


async def test_a_replay_is_no_retry(rig: Rig) -> None:
    await pair(rig, "instance=i-2")
    await rig.ask(GET)
    assert rig.gateway.counters.retries == 0


async def test_issuer_connections_are_used_again(rig: Rig) -> None:
    one, _ = await pair(rig, replay("instance=i-2", body=b"x" * 1000))
    client = await rig.client()
    for _ in range(3):
        client.send(GET)
        assert (await client.answer()).status == 200
    assert one.accepted == 1
