"""When a request may be sent again: never once a byte of it could have been carried out, unless that does no harm."""

from __future__ import annotations

import json

import pytest

from gateway.core.model import Address, Instance
from tests.net.rig import RawInstance, Rig, until
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BROKEN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 6\r\n\r\nbroken"


def rpc(method: str, *lines: bytes) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": {}}).encode()
    head = (
        b"POST /mcp HTTP/1.1\r\n"
        + HOST
        + b"Content-Type: application/json\r\n"
        + b"".join(one + b"\r\n" for one in lines)
    )
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def modern(method: str) -> bytes:
    return rpc(method, b"MCP-Protocol-Version: 2026-07-28", b"Mcp-Method: " + method.encode())


async def used(rig: Rig, instance: RawInstance) -> Wire:
    """The instance's end of an idle connection that was used once."""
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    wire.send(OK)
    await client.answer()
    return wire


async def two(rig: Rig) -> tuple[RawInstance, RawInstance]:
    """Two instances; the first is the one that is chosen first."""
    return await rig.instance("i-1"), await rig.instance("i-2")


# --- connecting ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", [GET, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", rpc("tools/call")]
)
async def test_an_instance_that_cannot_be_connected_to_is_passed_over(rig: Rig, raw: bytes) -> None:
    """Nothing was sent, so any method may go elsewhere."""
    dead, alive = await two(rig)
    dead.close()
    alive.answers(OK)
    assert (await rig.ask(raw)).status == 200
    assert alive.requests[0].first == raw.split(b"\r\n")[0]
    # It is placed last for a while.
    assert (await rig.ask(raw)).status == 200
    assert rig.gateway.pool.dialled == 2


async def test_when_no_instance_can_be_connected_to(rig: Rig) -> None:
    for one in await two(rig):
        one.close()
    client = await rig.client()
    client.send(GET)
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (502, "PC01")
    assert json.loads(answer.body)["error"]["instance"] == "i-2"
    # The client's connection is none the worse for it.
    client.send(GET)
    assert (await client.answer()).status == 502


async def test_an_address_that_cannot_be_reached_is_named(rig: Rig) -> None:
    # TCP has no broadcast: refused by the kernel, whatever the network.
    rig.know(Instance("tools", "i-1", Address("255.255.255.255", 9001)))
    answer = await rig.ask(GET)
    assert (answer.status, answer.one("moorage-error")) == (502, "PU03")
    assert "255.255.255.255:9001" in json.loads(answer.body)["error"]["message"]


async def test_a_session_goes_nowhere_else(rig: Rig) -> None:
    dead, other = await two(rig)
    dead.close()
    answer = await rig.ask(rpc("tools/call", b"Mcp-Session-Id: " + rig.seal("i-1")))
    # It may come back: 404 would unplug the client for good (mcp.md 2.3).
    assert (answer.status, answer.one("moorage-error"), answer.one("retry-after")) == (503, "PS07", "2")
    assert json.loads(answer.body)["id"] == 7
    assert other.untouched


# --- at most once ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_post_that_was_sent_is_not_sent_again(rig: Rig, how: str) -> None:
    one, other = await two(rig)
    client = await rig.client()
    client.send(rpc("tools/call"))
    wire, _ = await one.request()
    getattr(wire, how)()
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (502, "PU02")
    assert json.loads(answer.body)["id"] == 7
    assert (one.accepted, other.accepted) == (1, 0)


async def test_a_post_on_an_idle_connection_that_dies_is_not_sent_again(rig: Rig) -> None:
    instance = await rig.instance()
    wire = await used(rig, instance)
    client = await rig.client()
    client.send(rpc("tools/call"))
    await wire.request()
    wire.reset()
    assert (await client.answer()).one("moorage-error") == "PU02"
    assert instance.accepted == 1


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
async def test_an_idempotent_request_on_an_idle_connection_that_dies_is_sent_again(rig: Rig, method: bytes) -> None:
    """RFC 9112 9.3.1: the instance may have closed it in that very moment."""
    instance = await rig.instance()
    wire = await used(rig, instance)
    client = await rig.client()
    client.send(GET.replace(b"GET", method))
    await wire.request()
    wire.close()
    wire, request = await instance.request()
    assert request.first == method + b" / HTTP/1.1"
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await client.answer()).status == 200
    assert rig.gateway.counters.retries == 1


async def test_an_idempotent_request_on_a_new_connection_is_not(rig: Rig) -> None:
    """An instance that closes new connections unanswered is broken, and no closed idle connection explains it."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(GET)
    wire, _ = await instance.request()
    wire.close()
    assert (await client.answer()).one("moorage-error") == "PU02"
    assert instance.accepted == 1


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 200 OK\r\nX:", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_nothing_is_sent_again_once_a_byte_of_the_answer_came(rig: Rig, said: bytes) -> None:
    instance = await rig.instance()
    wire = await used(rig, instance)
    client = await rig.client()
    client.send(GET)
    await wire.request()
    await wire.pieces(said)
    wire.close()
    answer = await client.answer()
    if answer.status == 103:
        answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (502, "PU02")
    assert instance.accepted == 1


async def test_an_idempotent_request_with_a_body_that_is_no_longer_kept_is_not_sent_again(rig: Rig) -> None:
    rig.limit(replay_buffer_bytes=0)
    instance = await rig.instance()
    wire = await used(rig, instance)
    client = await rig.client()
    client.send(b"PUT / HTTP/1.1\r\n", HOST, b"Content-Length: 100000\r\n\r\n", b"x" * 100_000)
    await wire.request()
    wire.close()
    assert (await client.answer()).one("moorage-error") == "PU02"
    assert instance.accepted == 1


# --- what MCP allows -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "prompts/list", "completion/complete"])
@pytest.mark.parametrize("how", ["503", "500", "close", "reset"])
async def test_what_any_instance_answers_alike_is_asked_elsewhere_before_it_fails(
    rig: Rig, method: str, how: str
) -> None:
    """A client in `auto` mode takes any HTTP error on discovery for an old server, and stays downgraded."""
    one, other = await two(rig)
    client = await rig.client()
    client.send(modern(method))
    wire, first = await one.request()
    if how.isdigit():
        wire.send(BROKEN.replace(b"503", how.encode()))
    else:
        getattr(wire, how)()
    wire, second = await other.request()
    assert (second.body, second.one("mcp-method")) == (first.body, method)
    wire.send(OK)
    assert (await client.answer()).body == b"ok"
    assert rig.gateway.counters.retries == 1


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"401 Unauthorized", b"400 Bad Request"])
async def test_any_other_answer_is_the_answer(rig: Rig, status: bytes) -> None:
    one, other = await two(rig)
    one.answers(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")
    answer = await rig.ask(modern("server/discover"))
    assert (answer.status, answer.body) == (int(status[:3]), b"no")
    assert other.untouched


async def test_when_every_instance_fails_the_last_failure_is_the_answer(rig: Rig) -> None:
    one, other = await two(rig)
    for each in (one, other):
        each.answers(BROKEN)
    answer = await rig.ask(modern("server/discover"))
    assert (answer.status, answer.body) == (503, b"broken")
    assert (one.accepted, other.accepted) == (1, 1)


async def test_an_initialize_that_was_answered_503_is_asked_elsewhere(rig: Rig) -> None:
    """No session was made yet."""
    one, other = await two(rig)
    one.answers(BROKEN)
    other.answers(OK.replace(b"\r\n\r\n", b"\r\nMcp-Session-Id: new\r\n\r\n"))
    answer = await rig.ask(rpc("initialize"))
    assert answer.status == 200
    assert (answer.one("mcp-session-id") or "").endswith(".new")


@pytest.mark.parametrize("how", ["500", "502", "close"])
async def test_an_initialize_that_may_have_made_a_session_is_not(rig: Rig, how: str) -> None:
    one, other = await two(rig)
    client = await rig.client()
    client.send(rpc("initialize"))
    wire, _ = await one.request()
    if how.isdigit():
        wire.send(BROKEN.replace(b"503", how.encode()))
    else:
        wire.close()
    assert (await client.answer()).status == (int(how) if how.isdigit() else 502)
    assert other.untouched


@pytest.mark.parametrize("method", ["tools/call", "subscriptions/listen"])
async def test_a_call_is_never_asked_twice(rig: Rig, method: str) -> None:
    both = await two(rig)
    for each in both:
        each.answers(BROKEN)
    assert (await rig.ask(modern(method))).status == 503
    assert sum(each.accepted for each in both) == 1


async def test_a_broken_answer_to_discovery_is_not_joined_to_another(rig: Rig) -> None:
    """Once its head has gone out, it is too late to ask elsewhere."""
    one, other = await two(rig)
    client = await rig.client()
    client.send(modern("server/discover"))
    wire, _ = await one.request()
    await wire.pieces(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    wire.close()
    assert (await client.rest()).endswith(b"\r\n\r\nhalf")
    assert other.untouched


async def test_discovery_wakes_no_one_to_be_asked_elsewhere_twice(rig: Rig) -> None:
    """When the only other instance sleeps, it is woken for a failed discovery, once."""
    one = await rig.instance("i-1")
    rig.asleep("i-2")
    one.answers(BROKEN)
    client = await rig.client()
    client.send(modern("server/discover"))
    name, outcome = await rig.waker.asked.get()
    assert name == "i-2"
    other = await rig.instance("i-2")
    other.answers(OK)
    outcome.set_result(rig.known("i-2"))
    assert (await client.answer()).body == b"ok"
    assert isinstance(rig.known("i-2"), Instance)


async def test_a_held_body_is_sent_to_the_instance_that_can_be_reached(rig: Rig) -> None:
    """And the client's own pace is not waited for twice."""
    dead, alive = await two(rig)
    dead.close()
    client = await rig.client()
    client.send(b"POST / HTTP/1.1\r\n", HOST, b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe")
    wire = await alive.accept()
    await wire.head()
    assert await wire.exactly(5) == b"5\r\nhe"
    client.send(b"llo\r\n0\r\n\r\n")
    assert await wire.exactly(10) == b"llo\r\n0\r\n\r\n"
    wire.send(OK)
    assert (await client.answer()).status == 200
    await until(lambda: rig.gateway.pool.idle_count() == 1, "the connection's return")
