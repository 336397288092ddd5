"""Instances that nobody needs are put to sleep, and no request or session is lost to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import pytest

from tests.live.test_wake import sleeping
from tests.rigs import journal
from tests.rigs.gateway import AppSpec, Gateway
from tests.rigs.redis import Redis
from tests.rigs.run import Bench, until

SOON = {"idle_after": "500ms", "idle_grace": "0s"}
WITHIN_S = 30.0
ONE = ("s-1",)


def app(bench: Bench, how: str, module: str = "web_server", ids: Sequence[str] = ONE, **settings: object) -> AppSpec:
    return AppSpec("web", [sleeping(bench, module, id) for id in ids], {"auto_stop": how, **SOON, **settings})


async def state(gateway: Gateway, id: str = "s-1") -> str:
    return str((await gateway.admin(f"/v1/apps/web/machines/{id}"))["state"])


async def hello(gateway: Gateway, client: str = "c-1") -> Mapping[str, Any]:
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0) as http:
        answer = await http.get(f"{gateway.url}/hello?client={client}")
        answer.raise_for_status()
        told: Mapping[str, Any] = answer.json()
        return told


async def asleep(gateway: Gateway, word: str, id: str = "s-1") -> None:
    async def is_asleep() -> bool:
        return await state(gateway, id) == word

    await until(is_asleep, f"{id} is {word}", within_s=WITHIN_S)


@pytest.mark.parametrize(("how", "word"), [("stop", "stopped"), ("suspend", "suspended")])
async def test_an_idle_instance_sleeps_and_the_next_request_wakes_it(bench: Bench, how: str, word: str) -> None:
    gateway = await Gateway.serve(bench, "gateway", app(bench, how))
    first = await hello(gateway)
    await asleep(gateway, word)
    second = await hello(gateway)
    # A suspended one goes on where it was; a stopped one begins anew.
    assert (first["boot"] == second["boot"]) == (how == "suspend")
    await asleep(gateway, word)


async def test_an_open_stream_keeps_its_instance_up(bench: Bench) -> None:
    gateway = await Gateway.serve(bench, "gateway", app(bench, "stop", ids=("s-1", "s-2")))
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0) as http:
        url = f"{gateway.url}/events?client=c-1&burst=1&until=9&stays=1"
        async with http.stream("GET", url, headers={"accept": "text/event-stream", "fly-force-instance-id": "s-1"}):
            await http.get(f"{gateway.url}/hello?client=c-2", headers={"fly-force-instance-id": "s-2"})
            await asleep(gateway, "stopped", "s-2")
            assert await state(gateway, "s-1") == "started"
    await asleep(gateway, "stopped", "s-1")


async def test_a_session_goes_on_at_the_instance_that_was_suspended(bench: Bench) -> None:
    gateway = await Gateway.serve(bench, "gateway", app(bench, "suspend", "mcp_server"))
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    made = await gateway.post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}, {})
    assert made.status_code == 200, made.text
    session = {"mcp-session-id": made.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    await gateway.post("/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    for number in range(2):
        await asleep(gateway, "suspended")
        listed = await gateway.post("/mcp", {"jsonrpc": "2.0", "id": 2 + number, "method": "tools/list"}, session)
        assert listed.status_code == 200, listed.text


async def test_a_live_session_keeps_its_instance_from_being_stopped(bench: Bench) -> None:
    spec = app(bench, "stop", "mcp_server", ids=("s-1", "s-2"), session_idle="60m")
    gateway = await Gateway.serve(bench, "gateway", spec)
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    made = await gateway.post("/mcp", message, {"fly-force-instance-id": "s-1"})
    session = {"mcp-session-id": made.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0) as http:
        await http.get(f"{gateway.url}/healthz", headers={"fly-force-instance-id": "s-2"})
        await asleep(gateway, "stopped", "s-2")
        assert await state(gateway, "s-1") == "started"
        assert (await http.delete(f"{gateway.url}/mcp", headers=session)).status_code in (200, 202, 204)
    await asleep(gateway, "stopped", "s-1")


async def test_a_stop_that_races_requests_loses_none_of_them(bench: Bench) -> None:
    """Over two gateways; the instance is idle again and again just when the next request comes."""
    redis = Redis(bench)
    await redis.start()
    spec = app(bench, "stop", idle_after="1ms", wake_timeout="30s")
    one = await Gateway.serve(bench, "gateway-a", spec, catalog=redis.url)
    answers: list[int] = []
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0) as http:

        async def rounds(worker: int) -> None:
            for number in range(12):
                answer = await http.get(f"{one.url}/hello?client=c-{worker}-{number}")
                answers.append(answer.status_code)
                await asyncio.sleep(0.3 * (1 + worker) + number / 20)  # noqa: TID251 - sweeps over the moment of the stop

        async with asyncio.TaskGroup() as tasks:
            for worker in range(2):
                tasks.create_task(rounds(worker))
    assert answers == [200] * 24
    entries = journal.read([bench.directory / "s-1.jsonl"])
    assert len(entries) == 24


async def test_a_parked_session_hears_of_both_sides_again(bench: Bench) -> None:
    """Its instance was suspended; a client call and a notification of the server both arrive."""
    spec = app(bench, "suspend", "mcp_server", idle_streams="park")
    gateway = await Gateway.serve(bench, "gateway", spec)
    session = await initialized(gateway)
    heard: list[str] = []
    async with httpx2.AsyncClient(trust_env=False, timeout=60.0) as http, asyncio.TaskGroup() as tasks:

        async def listen() -> None:
            headers = {"accept": "text/event-stream", **session}
            async with http.stream("GET", f"{gateway.url}/mcp", headers=headers) as stream:
                assert stream.status_code == 200
                async for line in stream.aiter_lines():
                    heard.append(line)

        listening = tasks.create_task(listen())
        for number in range(2):
            await asleep(gateway, "suspended")
            call = {"name": "announce", "arguments": {"uri": f"note://{number}", "nonce": f"n-{number}"}}
            message = {"jsonrpc": "2.0", "id": 10 + number, "method": "tools/call", "params": call}
            answer = await gateway.post("/mcp", message, session)
            assert answer.status_code == 200, answer.text
            uri = f"note://{number}"
            await until(lambda wanted=uri: any(wanted in line for line in heard), "the notification", WITHIN_S)  # type: ignore[misc]
        assert not listening.done()
        listening.cancel()


async def initialized(gateway: Gateway) -> dict[str, str]:
    """The headers of a new session."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    made = await gateway.post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}, {})
    assert made.status_code == 200, made.text
    session = {"mcp-session-id": made.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    await gateway.post("/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    return session
