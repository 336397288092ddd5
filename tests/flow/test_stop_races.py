"""Stops that race requests, over two gateways: none is lost, and starts and stops add up.

Both gateways and the agent run in this process; the instance is a real one. The sleeper is told when to act, so that a
request can come at every moment of a sleep: prepared, agreed, carried out.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.app import Running, running
from gateway.config.load import parse
from gateway.core.model import Address, AutoStop
from gateway.core.sleep import Sleep
from gateway.lifecycle import sleeper
from tests.net.rig import until
from tests.net.wire import dial
from tests.net.yard import TOY

ROUNDS = 500
STOPS_EVERY = 5
"""One of so many sleeps is a stop, which takes a process's end and start; the others are suspends."""
SPREAD_S = 0.04
"""Over which the requests of a round come: about as long as a sleep takes."""
SECRET = "a secret of thirty-two bytes or so"
GET = b"GET / HTTP/1.1\r\nHost: web.localhost\r\n\r\n"


def file(folder: Path, *, inside: bool, agent: str = "") -> str:
    command = [sys.executable, "-I", "-S", str(TOY), "{port}", "--starts", str(folder / "starts")]
    instance = f'[[apps.web.instances]]\nid = "w-1"\ncommand = {command}\n'.replace("'", '"')
    return f"""\
[gateway]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
catalog = "sqlite:{folder / "catalog.db"}"
secret = ["{SECRET}"]
[agent]
inside = {str(inside).lower()}
{'listen = "127.0.0.1:0"' if inside else ""}
[apps.web]
auto_stop = "suspend"
idle_after = "60m"
{instance if inside else ""}"""


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Running, Running]]:
    """Two gateways on one store; the first runs the agent."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running(parse(file(folder, inside=True))))
        other = await stack.enter_async_context(running(parse(file(folder, inside=False))))
        yield one, other


async def ask(address: Address, delay_s: float) -> str:
    """The status, and the gateway's code where it has one."""
    await asyncio.sleep(delay_s)  # noqa: TID251 - sweeps over every moment of a sleep
    client = await dial(address.host, address.port)
    try:
        client.send(GET)
        answer = await client.answer()
        return f"{answer.status} {answer.one('moorage-error') or ''}".strip()
    finally:
        await client.aclose()


@pytest.mark.timeout(400)
async def test_no_request_is_lost_to_a_stop(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleeper, "ASK_EVERY_S", 0.002)
    monkeypatch.setattr(sleeper, "LIVE_S", 0.5)
    async with pair(tmp_path) as gateways:
        assert await ask(gateways[0].public, 0.0) == "200"
        await until(lambda: any(one.sleeper.leads for one in gateways), "one of the sleepers leads")
        leader = next(one for one in gateways if one.sleeper.leads)
        catalog = leader.gateway.catalog
        refused: list[str] = []
        for number in range(ROUNDS):
            table = catalog.app("web")
            assert table is not None
            rest = AutoStop.STOP if number % STOPS_EVERY == 0 else AutoStop.SUSPEND
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(leader.sleeper.put_to_sleep(Sleep(table.instances["w-1"], rest), table))
                asked = [tasks.create_task(ask(rng.choice(gateways).public, rng.random() * SPREAD_S)) for _ in range(3)]
                asked.append(tasks.create_task(ask(rng.choice(gateways).public, 2 * SPREAD_S)))
            refused += [status for task in asked if (status := task.result()) != "200"]
            # It may have fallen asleep behind the last of them.
            refused += [status for one in gateways if (status := await ask(one.public, 0.0)) != "200"]
            await until(lambda: (now := catalog.instance("web", "w-1")) is not None and now.running, "it runs again")
        assert not refused
        slept, called_off = leader.sleeper.slept, leader.sleeper.called_off
        starts = len((tmp_path / "starts").read_text().splitlines())
    print(f"{ROUNDS} rounds: {slept} slept, {called_off} called off, {starts} starts")
    assert slept + called_off <= ROUNDS
    assert slept > 0
    assert called_off > 0, "no request ever won: the race was not run"
    assert 1 <= starts <= 1 + ROUNDS // STOPS_EVERY
