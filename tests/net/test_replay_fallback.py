"""What a replay does when its target is not reached: `timeout`, `fallback`, and what the issuer is told."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.core.model import Address
from gateway.core.problems import Code, Problem
from gateway.data.trip import Trip
from gateway.data.upstream import Dialling
from tests.net.rig import RawInstance, Rig, until
from tests.net.test_backpressure import edge_of
from tests.net.test_replay import OK, replay, woken
from tests.net.wire import LIMIT_S, Message, Wire

HOST = b"Host: tools.localhost\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
NOT_HERE = Problem(Code.PM07, "it does not start", "tools", "i-2")


def issuer(rig_instance: RawInstance, order: str) -> None:
    def answer(request: Message) -> bytes:
        return replay(order) if request.one("fly-replay-failed") is None else OK

    rig_instance.answers(answer)


def failed(request: Message) -> dict[str, str]:
    """The fields of a fly-replay-failed header."""
    told = request.one("fly-replay-failed")
    assert told is not None
    return dict(field.split("=", 1) for field in told.split(";"))


@pytest.mark.parametrize("fallback", ["force_self", "prefer_self"])
async def test_without_a_candidate_the_request_goes_back_to_its_issuer(rig: Rig, fallback: str) -> None:
    one = await rig.instance("i-1")
    issuer(one, f"instance=i-9;fallback={fallback}")
    answer = await rig.ask(b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello")
    assert answer.status == 200
    first, second = one.requests
    assert first.body == second.body == b"hello"
    told = failed(second)
    assert list(told) == ["instance", "app", "region", "replay_source", "reason", "elapsed_ms"]
    assert told["instance"] == "i-9"
    assert (told["app"], told["region"]) == ("", "")
    assert told["replay_source"] == "i-1"
    assert told["reason"] == "no_candidate"
    assert re.fullmatch(r"\d+", told["elapsed_ms"])
    assert second.one("fly-replay-src") is None
    assert second.one("fly-replay-cache-status") is None


@pytest.mark.parametrize(
    ("order", "asked"),
    [
        ("instance=i-2;region=iad;app=tools", ("i-2", "tools", "iad")),
        ("prefer_instance=i-2;region=iad", ("i-2", "", "iad")),
        ('region="us,iad"', ("", "", "us,iad")),
    ],
)
async def test_an_instance_that_cannot_be_connected_to_has_its_retries_exhausted(
    rig: Rig, order: str, asked: tuple[str, str, str]
) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2", region="iad")
    other.close()
    issuer(one, f"{order};fallback=force_self")
    assert (await rig.ask(GET)).status == 200
    told = failed(one.requests[1])
    assert told["reason"] == "retries_exhausted"
    assert (told["instance"], told["app"], told["region"]) == asked


async def test_a_target_that_does_not_wake_in_time_is_given_up(rig: Rig) -> None:
    one = await rig.instance("i-1")
    rig.asleep("i-2")
    issuer(one, "instance=i-2;timeout=20ms;fallback=force_self")
    assert (await rig.ask(GET)).status == 200
    told = failed(one.requests[1])
    assert told["reason"] == "timeout"
    assert int(told["elapsed_ms"]) >= 20


async def test_a_wake_that_fails_falls_back(rig: Rig) -> None:
    one = await rig.instance("i-1")
    rig.asleep("i-2")
    issuer(one, "instance=i-2;fallback=force_self")
    client = await rig.client()
    client.send(GET)
    _, outcome = await woken(rig)
    outcome.set_result(NOT_HERE)
    assert (await client.answer()).status == 200
    assert failed(one.requests[1])["reason"] == "no_candidate"


async def test_a_timeout_alone_only_makes_failure_faster(rig: Rig) -> None:
    one = await rig.instance("i-1")
    rig.asleep("i-2")
    one.answers(replay("instance=i-2;timeout=1ms"))
    answer = await rig.ask(GET)
    assert answer.status == 503
    assert answer.one("moorage-error") == "PR03"
    assert b"0.001 s" in answer.body


async def test_a_target_that_was_reached_is_not_given_up_by_the_timeout(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    one.answers(replay("instance=i-2;timeout=1ms;fallback=force_self"))
    client = await rig.client()
    client.send(GET)
    wire, _ = await other.request()
    loop = asyncio.get_running_loop()
    since_s = loop.time()
    await until(lambda: loop.time() > since_s + 0.005, "the end of the timeout")
    wire.send(OK)
    assert (await client.answer()).status == 200
    assert len(one.requests) == 1


async def undialled(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> tuple[Wire, Address, Dialling]:
    """A request whose replay's timeout is over while its target is being connected to."""
    pool, issuers = rig.gateway.pool, rig.known("i-1").address
    dial, held = pool.dial, asyncio.Queue[tuple[Address, Dialling]]()

    def hold(address: Address, asker: Dialling) -> None:
        if address == issuers:
            dial(address, asker)
        else:
            held.put_nowait((address, asker))

    monkeypatch.setattr(pool, "dial", hold)
    client = await rig.client()
    client.send(GET)
    async with asyncio.timeout(LIMIT_S):
        address, asker = await held.get()
    await until(lambda: trip_of(rig).late, "the end of the timeout")
    monkeypatch.setattr(pool, "dial", dial)
    return client, address, asker


def trip_of(rig: Rig) -> Trip:
    exchange = edge_of(rig).exchange
    assert exchange is not None
    assert exchange.routing.trip is not None
    return exchange.routing.trip


async def test_an_attempt_that_is_under_way_is_not_cut_off_by_the_timeout(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    issuer(one, "instance=i-2;timeout=1ms;fallback=force_self")
    other.answers(OK)
    client, address, asker = await undialled(rig, monkeypatch)
    rig.gateway.pool.dial(address, asker)
    assert (await client.answer()).status == 200
    assert len(one.requests) == len(other.requests) == 1


async def test_no_other_attempt_is_made_after_the_timeout(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one, *others = [await rig.instance(id) for id in ("i-1", "i-2", "i-3")]
    issuer(one, "elsewhere=true;timeout=1ms;fallback=force_self")
    client, _, asker = await undialled(rig, monkeypatch)
    asker.connect_failed(Code.PC01, "it refused the connection")
    assert (await client.answer()).status == 200
    assert failed(one.requests[1])["reason"] == "timeout"
    assert all(other.untouched for other in others)


async def test_what_a_reached_target_answers_is_the_answer(rig: Rig) -> None:
    """Fly: a replay is a success the moment a connection to the target opens; a 5xx triggers no fallback."""
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    issuer(one, "instance=i-2;fallback=force_self")
    other.answers(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    assert (await rig.ask(GET)).status == 503
    assert len(one.requests) == 1


async def test_a_target_that_closes_without_an_answer_was_reached(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    issuer(one, "instance=i-2;fallback=force_self")
    client = await rig.client()
    client.send(b"POST /a HTTP/1.1\r\n", HOST, b"Content-Length: 0\r\n\r\n")
    wire, _ = await other.request()
    wire.close()
    assert (await client.answer()).one("moorage-error") == "PU02"
    assert len(one.requests) == 1


async def test_who_has_fallen_back_may_not_be_replayed_again(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    one.answers(lambda r: replay("instance=i-2" if r.one("fly-replay-failed") else "instance=i-9;fallback=force_self"))
    answer = await rig.ask(GET)
    assert answer.status == 502
    assert answer.one("moorage-error") == "PA03"
    assert other.untouched


async def test_force_self_fails_when_the_issuer_is_gone(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    rig.asleep("i-3")
    one.answers(replay("instance=i-3;fallback=force_self"))
    client = await rig.client()
    client.send(GET)
    _, outcome = await woken(rig)
    rig.forget("i-1")
    outcome.set_result(NOT_HERE)
    assert (await client.answer()).one("moorage-error") == "PR02"
    assert other.untouched


async def test_prefer_self_takes_any_instance_of_the_issuers_app_when_it_is_gone(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    rig.asleep("i-3")
    one.answers(replay("instance=i-3;fallback=prefer_self"))
    other.answers(OK)
    client = await rig.client()
    client.send(GET)
    _, outcome = await woken(rig)
    rig.forget("i-1")
    outcome.set_result(NOT_HERE)
    assert (await client.answer()).status == 200
    assert failed(other.requests[0])["replay_source"] == "i-1"
    assert other.requests[0].one("fly-preferred-instance-unavailable") == "i-1"


async def test_the_issuer_gets_back_the_request_that_it_was_shown(rig: Rig) -> None:
    """Not the one with its transform."""
    one = await rig.instance("i-1")
    body = (
        b'{"instance":"i-9","fallback":"force_self","transform":{"path":"/b","set_headers":[{"name":"X","value":"y"}]}}'
    )
    order = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.fly.replay+json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    one.answers(lambda request: OK if request.one("fly-replay-failed") else order)
    assert (await rig.ask(GET)).status == 200
    assert [request.first for request in one.requests] == [b"GET /a HTTP/1.1"] * 2
    assert one.requests[1].one("x") is None


async def test_a_client_that_leaves_ends_a_replays_timer(rig: Rig) -> None:
    one = await rig.instance("i-1")
    rig.asleep("i-2")
    one.answers(replay("instance=i-2;timeout=60m;fallback=force_self"))
    client = await rig.client(kept=False)
    client.send(GET)
    await woken(rig)
    timer = trip_of(rig).timer
    assert timer is not None
    await client.aclose()
    await rig.settled()
    assert timer.cancelled()
    assert len(one.requests) == 1


async def test_without_a_fallback_the_error_is_the_clients(rig: Rig) -> None:
    one = await rig.instance("i-1")
    one.answers(replay("instance=i-9"))
    answer = await rig.ask(GET)
    assert (answer.status, answer.one("moorage-error")) == (502, "PR02")
    assert len(one.requests) == 1


@pytest.mark.parametrize("order", ["region=nowhere", "region=nowhere;elsewhere=true"])
async def test_a_region_without_an_instance_is_an_error(rig: Rig, order: str) -> None:
    one = await rig.instance("i-1")
    one.answers(replay(order))
    answer = await rig.ask(GET)
    assert answer.status == 503
    assert len(one.requests) == 1
