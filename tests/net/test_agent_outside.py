"""Agents and gateways of one catalog, each wired as its program wires it: who publishes what, who is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway import agent_app, app
from gateway.agent.base import FailureKind, Reached, StartFailed
from gateway.agent.remote import RemoteAgent
from gateway.agent.tokens import Tokens
from gateway.config import Config, parse
from gateway.core.bodies import instance_body
from gateway.core.model import Instance, State
from gateway.core.record import Record, RecordKind
from gateway.log.opening import open_log
from tests.net.fleet_bench import json_answer, lying
from tests.net.serving import asleep
from tests.net.yard import LIMIT_S

SECRET = "the secret that all of them share"
TOKENS = Tokens([SECRET.encode()])
MACHINES = "/v1/apps/tools/machines"


def config(folder: Path, agent: str, *instances: str, options: Sequence[str] = ()) -> Config:
    """A file of an app with toy servers, which share a catalog in this folder."""
    lines = [
        "[gateway]",
        'listen = "127.0.0.1:0"',
        'admin = "127.0.0.1:0"',
        "drain_grace = 0",
        f'secret = ["{SECRET}"]',
    ]
    lines += [f'catalog = "sqlite:{folder}/catalog.db"', "[agent]", agent, "[apps.tools]", "stop_grace = 1"]
    for id in instances:
        lines += ["[[apps.tools.instances]]", f'id = "{id}"', f"command = {asleep(*options)}"]
    return parse("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that serves, and its clients."""

    running: app.Running
    public: httpx2.AsyncClient
    admin: httpx2.AsyncClient

    async def machines(self) -> dict[str, Any]:
        """What it knows, by id."""
        return {one["id"]: one for one in (await self.admin.get(MACHINES)).json()}

    async def knows(self, **states: str) -> dict[str, Any]:
        """What it knows, once these are all there is."""
        wanted = {id.replace("_", "-"): state for id, state in states.items()}
        changed = asyncio.Event()
        unsubscribe = self.running.gateway.catalog.subscribe(lambda _: changed.set())
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    known = await self.machines()
                    if {id: one["state"] for id, one in known.items()} == wanted:
                        return known
                    await changed.wait()
                    changed.clear()
        finally:
            unsubscribe()


@asynccontextmanager
async def gateway_of(settings: Config) -> AsyncIterator[Gateway]:
    async with app.running(settings) as one:
        async with httpx2.AsyncClient(base_url=f"http://{one.public}", trust_env=False, timeout=LIMIT_S) as public:
            async with httpx2.AsyncClient(base_url=f"http://{one.admin}", trust_env=False, timeout=LIMIT_S) as admin:
                yield Gateway(one, public, admin)


OUTSIDE = "inside = false"


async def test_a_gateway_without_an_agent_publishes_and_deletes_no_instance(tmp_path: Path) -> None:
    at = "inside = false\nlisten = '127.0.0.1:{}'"
    async with agent_app.running(config(tmp_path, at.format(0), "i-1", "i-2")) as agent:
        port = agent.url.rpartition(":")[2]
        async with gateway_of(config(tmp_path, OUTSIDE, "i-1", "i-3")) as gateway:
            known = await gateway.knows(i_1="created", i_2="created")
            assert {one["owner"] for one in known.values()} == {agent.writer}
    # The agent is gone, and what it said of itself last stays.
    async with gateway_of(config(tmp_path, OUTSIDE, "i-3")) as gateway:
        await gateway.knows(i_1="created", i_2="created")
        # It comes back under the same name with another file: what that names no longer is gone.
        async with agent_app.running(config(tmp_path, at.format(port), "i-1", "i-4")) as again:
            assert again.writer == agent.writer
            await gateway.knows(i_1="stopped", i_4="created")


async def test_the_agent_inside_one_gateway_is_asked_by_another(tmp_path: Path) -> None:
    async with gateway_of(config(tmp_path, "listen = '127.0.0.1:0'", "i-1")) as one:
        assert one.running.agent.startswith("http://127.0.0.1:")
        async with gateway_of(config(tmp_path, "", "i-2")) as other:
            assert other.running.agent == ""
            await other.knows(i_1="created", i_2="created")
            forced = await other.public.get("/", headers={"fly-force-instance-id": "i-1"})
            assert forced.status_code == 200
            assert (await other.admin.post(f"{MACHINES}/i-1/cordon")).json()["machine"]["cordoned"] is True
            assert (await other.admin.post(f"{MACHINES}/i-1/stop")).json()["machine"]["state"] == "stopped"
            # The other way round there is nowhere to ask.
            await one.knows(i_1="stopped", i_2="created")
            refused = await one.admin.post(f"{MACHINES}/i-2/start")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "PM02")
            assert "no address that others can ask: set [agent] listen" in refused.json()["error"]["message"]


async def test_a_record_that_lies_about_its_agent_learns_no_token_that_opens_one(tmp_path: Path) -> None:
    settings = config(tmp_path, OUTSIDE + "\nlisten = '127.0.0.1:0'", "i-1")
    async with agent_app.running(settings) as agent, gateway_of(settings) as gateway:
        known = (await gateway.knows(i_1="created"))["i-1"]
        async with lying(json_answer(b"")) as (liar, elsewhere):
            lie = Instance("tools", "i-1", state=State.STOPPED, startable=True, owner=agent.writer, agent=elsewhere)
            log = open_log(settings.gateway.catalog, "local")
            epoch = known["record"]["epoch"] + 1
            await log.append([Record(RecordKind.INSTANCE, "tools/i-1", "liar", epoch, 1, False, instance_body(lie))])
            await log.aclose()
            await gateway.knows(i_1="stopped")
            refused = await gateway.public.get("/")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "PM02")
            assert refused.headers["retry-after"] == "1"
        assert liar.token == TOKENS.of(elsewhere)
        async with httpx2.AsyncClient(base_url=agent.url, trust_env=False, timeout=LIMIT_S) as client:
            for token, status in ((liar.token, 401), (TOKENS.of(agent.url), 200)):
                headers = {"authorization": f"Bearer {token}"}
                assert (await client.get("/v1/machines", headers=headers)).status_code == status


async def test_who_waits_for_a_start_is_told_when_the_agent_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path, "listen = '127.0.0.1:0'", "i-1", options=["--deaf"])
    async with asyncio.TaskGroup() as tasks:
        async with agent_app.running(settings) as agent:
            remote = RemoteAgent(agent.url, TOKENS)
            waiting = tasks.create_task(remote.start("tools", "i-1"))
            assert isinstance(await agent.agent.wait("tools", "i-1", State.STARTING, LIMIT_S), Reached)
        outcome = await waiting
        await remote.aclose()
    assert isinstance(outcome, StartFailed)
    assert outcome.failure.kind is FailureKind.CANCELLED
    assert "Traceback" not in capfd.readouterr().err


async def test_tokens_are_in_no_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = config(tmp_path, OUTSIDE + "\nlisten = '127.0.0.1:0'", "i-1")
    async with agent_app.running(settings) as agent, gateway_of(settings) as gateway:
        await gateway.knows(i_1="created")
        assert (await gateway.public.get("/")).status_code == 200
        async with httpx2.AsyncClient(base_url=agent.url, trust_env=False) as client:
            await client.get("/v1/machines", headers={"authorization": "Bearer a-wrong-one"})
        token = TOKENS.of(agent.url)
    said = "".join(capfd.readouterr())
    assert "requests to the agent refused" in said
    assert token not in said
    assert "a-wrong-one" not in said
