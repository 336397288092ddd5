"""The example of a slow model server, as its README runs it, with a model that loads in a moment."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.examples.serving import EXAMPLES
from tests.rigs.gateway import Gateway
from tests.rigs.run import Bench, free_port, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

LOAD_S = 1.5
CALLERS = 12
SAYS = "a boat that nobody needs lies still and one that is needed is ready"
NAMED = {"host": "model.flycast"}
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[Gateway, httpx2.AsyncClient]]:
    """The example's file on this test's ports, in a hurry; and a client of its private listener."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        shutil.copytree(EXAMPLES / "slow-model", directory, dirs_exist_ok=True)
        async with Bench(directory) as bench:
            gateway = Gateway(bench, "gateway", (), {}, {})
            private = free_port()
            text = (EXAMPLES / "slow-model" / "moorage.toml").read_text()
            for said, now in {
                "127.0.0.1:8080": f"127.0.0.1:{gateway.port}",
                "127.0.0.1:8081": f"127.0.0.1:{gateway.admin_port}",
                "127.0.0.1:8090": f"127.0.0.1:{private}",
                '"--load-s", "45"': f'"--load-s", "{LOAD_S}"',
                'interval = "5s"': 'interval = "1s"',
                'idle_after = "10m"': 'idle_after = "500ms"\nidle_grace = "0s"\nwake_keepalive = "500ms"',
            }.items():
                assert said in text
                text = text.replace(said, now)
            gateway.file.write_text(text)
            await gateway.start()
            limits = httpx2.Limits(max_connections=None)
            url = f"http://127.0.0.1:{private}"
            async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=60.0, trust_env=False) as client:
                yield gateway, client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gateway, httpx2.AsyncClient]]:
    async with served(tmp_path_factory.mktemp("slow-model")) as both:
        yield both


async def machine(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = await gateway.admin("/v1/apps/model/machines/gpu-1")
    return found


async def in_state(gateway: Gateway, state: str) -> None:
    async def is_there() -> bool:
        return bool((await machine(gateway))["state"] == state)

    await until(is_there, f"gpu-1 is {state}", within_s=30.0)


async def test_the_public_listener_neither_knows_nor_wakes_it(serving: tuple[Gateway, httpx2.AsyncClient]) -> None:
    gateway, _ = serving
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        for host in ("model.flycast", "localhost"):
            answer = await client.post("/v1/chat/completions", json=CHAT, headers={"host": host})
            assert (answer.status_code, answer.headers["moorage-error"]) == (404, "PB13")
    assert (await machine(gateway))["state"] == "created"


async def test_all_who_ask_while_it_loads_are_answered_by_one_start(
    serving: tuple[Gateway, httpx2.AsyncClient],
) -> None:
    gateway, client = serving
    loop = asyncio.get_running_loop()

    async def chat(stream: bool) -> str:
        began_s = loop.time()
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream}, headers=NAMED)
        assert answer.status_code == 200, answer.text
        assert loop.time() - began_s > LOAD_S / 2, "it answered before its model was there"
        if not stream:
            said: str = answer.json()["choices"][0]["message"]["content"]
            return said
        *data, done = [line.removeprefix("data: ") for line in answer.text.split("\r\n") if line.startswith("data: ")]
        assert done == "[DONE]"
        return "".join(json.loads(one)["choices"][0]["delta"]["content"] for one in data).strip()

    async def listen() -> list[str]:
        async with client.stream("GET", "/generate", headers={**NAMED, "accept": "text/event-stream"}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            return [line async for line in stream.aiter_lines() if line]

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        chats = [group.create_task(chat(number % 2 == 0)) for number in range(CALLERS)]
    assert [task.result() for task in chats] == [SAYS] * CALLERS
    first, *rest = listening.result()
    assert first.startswith(":"), "a client that accepts events hears comments while it waits"
    assert " ".join(line.removeprefix("data: ") for line in rest if line.startswith("data: ")) == SAYS
    assert gateway.process.output().count("instance starting") == 1


async def test_a_job_keeps_it_awake_and_then_it_sleeps(serving: tuple[Gateway, httpx2.AsyncClient]) -> None:
    gateway, client = serving
    answer = await client.post("/jobs", json={"seconds": 2}, headers=NAMED)
    assert answer.status_code == 202

    async def is_kept() -> bool:
        return bool((await machine(gateway))["up_because"] == "kept awake by job")

    await until(is_kept, "its lease is why it is up", within_s=15.0)
    await in_state(gateway, "stopped")
    assert await gateway.admin("/v1/apps/model/machines/gpu-1/tasks") == {"tasks": []}
