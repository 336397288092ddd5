"""What must wait: for an instance to wake, for a free slot, for the pin store. Who leaves meanwhile is forgotten."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.core.model import Concurrency, ConcurrencyType, Instance, SessionIds, State
from gateway.core.problems import Code, Problem
from tests.net.rig import INCARNATION, RawInstance, Rig, until
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
INITIALIZE = (
    b"POST /mcp HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 46\r\n\r\n"
    b'{"jsonrpc":"2.0","id":1,"method":"initialize"}'
)


async def asked(rig: Rig) -> tuple[str, asyncio.Future[Instance | Problem]]:
    async with asyncio.timeout(5):
        return await rig.waker.asked.get()


async def sent(rig: Rig, raw: bytes = GET) -> Wire:
    client = await rig.client()
    client.send(raw)
    return client


async def woken(rig: Rig, outcome: asyncio.Future[Instance | Problem], id: str = "i-1") -> RawInstance:
    instance = await rig.instance(id)
    outcome.set_result(rig.known(id))
    return instance


# --- waking ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        GET,
        b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        INITIALIZE,
        b"POST /a%20b?c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET //double//slash/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /%ff%00?%zz HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
async def test_a_request_to_a_sleeping_instance_is_held_and_then_sent_as_it_came(rig: Rig, raw: bytes) -> None:
    rig.asleep()
    client = await sent(rig, raw)
    name, outcome = await asked(rig)
    assert name == "i-1"
    instance = await woken(rig, outcome)
    wire, request = await instance.request()
    assert request.first == raw.split(b"\r\n")[0].replace(b"HTTP/1.0", b"HTTP/1.1")
    assert request.raw == raw.partition(b"\r\n\r\n")[2]
    wire.send(OK if not raw.startswith(b"HEAD") else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await client.answer(raw.split()[0].decode())).status == 200
    assert rig.gateway.counters.punted == 1


async def test_many_requests_wait_for_one_wake_each_on_its_own(rig: Rig) -> None:
    rig.asleep()
    clients = [await sent(rig) for _ in range(30)]
    outcomes = [await asked(rig) for _ in clients]
    instance = await rig.instance()
    instance.answers(OK)
    for _, outcome in outcomes:
        outcome.set_result(rig.known())
    for client in clients:
        assert (await client.answer()).body == b"ok"


async def test_the_body_may_come_during_the_wake(rig: Rig) -> None:
    rig.asleep()
    client = await sent(rig, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nhel")
    _, outcome = await asked(rig)
    client.send(b"lo")
    await until(lambda: any(one.exchange and one.exchange.body.size == 5 for one in rig.gateway.edges), "the bytes")
    instance = await woken(rig, outcome)
    wire = await instance.accept()
    await wire.head()
    client.send(b"world")
    assert await wire.exactly(10) == b"helloworld"
    wire.send(OK)
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_during_a_wake_is_forgotten(rig: Rig, how: str) -> None:
    """Its own wait ends; whether the wake goes on is the waker's business."""
    rig.asleep()
    client = await sent(rig)
    _, outcome = await asked(rig)
    getattr(client, how)()
    await until(outcome.cancelled, "the end of the wait")
    assert rig.gateway.counters.outcomes["tools", "client-gone"] == 1


@pytest.mark.parametrize("code", [Code.PM03, Code.PM05, Code.PM08, Code.PM01, Code.PL02])
@pytest.mark.parametrize("raw", [GET, INITIALIZE])
async def test_a_wake_that_fails_is_told_in_the_callers_form(rig: Rig, code: Code, raw: bytes) -> None:
    rig.asleep()
    client = await sent(rig, raw)
    _, outcome = await asked(rig)
    outcome.set_result(Problem(code, "it went wrong", "tools", "i-1", 3))
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error"), answer.one("retry-after")) == (503, code.value, "3")
    body = json.loads(answer.body)
    assert (
        (body["id"], body["error"]["data"]["code"]) == (1, code) if raw is INITIALIZE else body["error"]["code"] == code
    )
    client.send(GET)
    await asked(rig)
    client.close()


async def test_a_woken_instance_that_refuses_is_passed_over(rig: Rig) -> None:
    rig.asleep("i-1")
    rig.asleep("i-2")
    client = await sent(rig)
    _, outcome = await asked(rig)
    dead = await rig.instance("i-1")
    dead.close()
    outcome.set_result(rig.known("i-1"))
    name, outcome = await asked(rig)
    assert name == "i-2"
    instance = await woken(rig, outcome, "i-2")
    wire, _ = await instance.request()
    wire.send(OK)
    assert (await client.answer()).body == b"ok"


async def test_a_session_waits_for_its_suspended_instance_alone(rig: Rig) -> None:
    other = await rig.instance("i-2")
    rig.know(Instance("tools", "i-1", None, state=State.SUSPENDED, startable=True, incarnation=INCARNATION))
    client = await sent(
        rig,
        INITIALIZE.replace(b"initialize", b"tools/call").replace(
            HOST, HOST + b"Mcp-Session-Id: " + rig.seal() + b"\r\n"
        ),
    )
    name, outcome = await asked(rig)
    assert name == "i-1"
    instance = await woken(rig, outcome)
    wire, request = await instance.request()
    assert request.one("mcp-session-id") == "own-id"
    wire.send(OK)
    assert (await client.answer()).body == b"ok"
    assert other.untouched


async def test_a_waker_that_breaks_is_a_500_and_no_more(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.asleep()
    client = await sent(rig)
    _, outcome = await asked(rig)
    outcome.set_exception(RuntimeError("a bug"))
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (500, "PG01")
    assert "a bug" not in answer.body.decode()
    assert "a bug" in capsys.readouterr().out
    client.send(GET)
    _, outcome = await asked(rig)
    instance = await woken(rig, outcome)
    wire, _ = await instance.request()
    wire.send(OK)
    assert (await client.answer()).status == 200


async def test_pipelined_requests_wait_behind_a_wake(rig: Rig) -> None:
    rig.asleep()
    client = await sent(rig, GET + GET.replace(b"/ ", b"/second "))
    _, outcome = await asked(rig)
    assert rig.waker.asked.empty()
    instance = await woken(rig, outcome)
    instance.answers(OK)
    for _ in range(2):
        assert (await client.answer()).body == b"ok"
    assert [one.first.split()[1] for one in instance.requests] == [b"/", b"/second"]


# --- waiting for a slot --------------------------------------------------------------------


async def test_at_the_hard_limit_requests_wait_in_line(rig: Rig) -> None:
    rig.app(concurrency=Concurrency(ConcurrencyType.REQUESTS, soft=1, hard=1))
    instance = await rig.instance()
    clients = []
    for number in range(4):
        clients.append(await sent(rig, GET.replace(b"/ ", b"/%d " % number)))
        await until(lambda: rig.gateway.counters.punted == len(clients) - 1, "the request")
    wire, request = await instance.request()
    for number in range(4):
        assert request.first == b"GET /%d HTTP/1.1" % number
        wire.send(OK)
        assert (await clients[number].answer()).body == b"ok"
        if number < 3:
            request = await wire.request()
    # One at a time, so one connection.
    assert instance.accepted == 1


async def test_who_leaves_the_line_holds_nobody_up(rig: Rig) -> None:
    rig.app(concurrency=Concurrency(ConcurrencyType.REQUESTS, soft=1, hard=1))
    instance = await rig.instance()
    first = await sent(rig)
    wire, _ = await instance.request()
    second = await sent(rig)
    await until(lambda: rig.gateway.counters.punted == 1, "the second's waiting")
    third = await sent(rig)
    await until(lambda: rig.gateway.counters.punted == 2, "the third's waiting")
    second.reset()
    await until(lambda: rig.gateway.counters.outcomes["tools", "client-gone"] == 1, "the second's leaving")
    wire.send(OK)
    await first.answer()
    await wire.request()
    wire.send(OK)
    assert (await third.answer()).body == b"ok"


async def test_an_open_stream_takes_no_slot(rig: Rig) -> None:
    rig.app(concurrency=Concurrency(ConcurrencyType.REQUESTS, soft=1, hard=1))
    instance = await rig.instance()
    stream = await sent(rig)
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    await stream.head()
    client = await sent(rig)
    other, _ = await instance.request()
    other.send(OK)
    assert (await client.answer()).body == b"ok"


async def test_a_line_that_is_full_refuses(rig: Rig) -> None:
    rig.app(concurrency=Concurrency(ConcurrencyType.REQUESTS, soft=1, hard=1), wake_queue=2)
    instance = await rig.instance()
    clients = [await sent(rig)]
    wire, _ = await instance.request()
    for number in range(2):
        clients.append(await sent(rig))
        await until(lambda: rig.gateway.counters.punted == number + 1, "the wait")  # noqa: B023 - awaited here
    answer = await (await sent(rig)).answer()
    assert (answer.status, answer.one("moorage-error"), answer.one("retry-after")) == (503, "PL02", "1")
    for client in clients:
        wire.send(OK)
        assert (await client.answer()).body == b"ok"
        if client is not clients[-1]:
            await wire.request()


async def test_a_wait_at_the_hard_limit_ends(rig: Rig) -> None:
    rig.app(concurrency=Concurrency(ConcurrencyType.REQUESTS, soft=1, hard=1), wake_timeout_s=0.05)
    instance = await rig.instance()
    first = await sent(rig)
    wire, _ = await instance.request()
    answer = await (await sent(rig)).answer()
    assert (answer.status, answer.one("moorage-error")) == (503, "PR01")
    wire.send(OK)
    assert (await first.answer()).body == b"ok"


async def test_a_slot_on_a_new_instance_is_a_slot(rig: Rig) -> None:
    rig.app(concurrency=Concurrency(ConcurrencyType.REQUESTS, soft=1, hard=1))
    rig.catalog.subscribe(rig.slots.changed)
    one = await rig.instance("i-1")
    first = await sent(rig)
    wire, _ = await one.request()
    second = await sent(rig)
    await until(lambda: rig.gateway.counters.punted == 1, "the wait")
    other = await rig.instance("i-2")
    other_wire, _ = await other.request()
    for each in (wire, other_wire):
        each.send(OK)
    assert (await first.answer()).status == (await second.answer()).status == 200


# --- the pin store ---------------------------------------------------------------------


class Slow:
    """A pin store that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def get(self, *_: object) -> None:
        answer = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        await answer


async def test_a_client_that_leaves_while_the_pin_store_is_asked_is_forgotten(rig: Rig) -> None:
    rig.app(session_ids=SessionIds.STORED)
    pins = Slow()
    rig.pins(pins)
    instance = await rig.instance()
    client = await sent(rig, GET.replace(HOST, HOST + b"Mcp-Session-Id: plain\r\n"))
    answer = await pins.asked.get()
    client.reset()
    await until(answer.cancelled, "the end of the question")
    assert instance.untouched


async def test_before_the_catalog_was_read_nothing_is_unknown(rig: Rig) -> None:
    rig.app(hosts=("tools.localhost",))
    rig.gateway.ready = False
    answer = await rig.ask(b"GET / HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (answer.status, answer.one("moorage-error"), answer.one("retry-after")) == (503, "PG03", "1")
