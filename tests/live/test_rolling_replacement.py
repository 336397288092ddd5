"""All instances of an app are replaced under load, and no call of any official client fails: their sessions begin anew.

Nothing is repeated by the clients, and nothing is forgiven: they have no patience. What the instances saw is counted
from their own journals.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.types import ResourceUpdatedNotification, TextContent

from tests.rigs import journal, node, servers
from tests.rigs.detour import Clients
from tests.rigs.gateway import AppSpec, Gateway
from tests.rigs.py_fleet import streamable
from tests.rigs.run import Bench, until
from tests.rigs.servers import Instances

COUNT = 3
PYTHON_SESSIONS, TYPESCRIPT_SESSIONS = 9, 6
SESSIONS = PYTHON_SESSIONS + TYPESCRIPT_SESSIONS
PAUSE_S = 0.02
STEP_S = 20.0
NOTICE_S = 5.0


@dataclass(slots=True)
class Session:
    """What one client went through; the same words as in `ts_rolling.mjs`."""

    index: int
    calls: int = 0
    lives: list[str] = field(default_factory=list)
    """The sessions that instances took its calls for."""
    noticed: bool = False
    """A notification came on its event stream in the end."""
    errors: list[str] = field(default_factory=list)


class PythonClient:
    """One session with the Python SDK."""

    def __init__(self, ports: Sequence[int], index: int) -> None:
        self.session = Session(index)
        self._ports = ports
        self._noticed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> Session:
        url, session = f"http://127.0.0.1:{self._ports[0]}/mcp", self.session
        try:
            async with Client(
                streamable(url, Clients(self._ports)),
                mode="legacy",
                read_timeout_seconds=STEP_S,
                message_handler=self._message,
            ) as client:
                while not stop.is_set():
                    told = await self._call(client, "whoami")
                    if told and told["session"] not in session.lives:
                        session.lives.append(told["session"])
                    await asyncio.sleep(PAUSE_S)  # noqa: TID251 - a client that thinks
                await self._call(client, "announce", uri=f"rig://py-{session.index}/last")
                async with asyncio.timeout(NOTICE_S):
                    await self._noticed.wait()
                session.noticed = True
        except (MCPError, httpx2.HTTPError, OSError, TimeoutError, ExceptionGroup) as error:
            session.errors.append(f"ended by {error!r}")
        return session

    async def _call(self, client: Client, tool: str, **arguments: str) -> dict[str, Any]:
        nonce = f"py-{self.session.index}-{self.session.calls}"
        self.session.calls += 1
        try:
            result = await client.call_tool(tool, {"nonce": nonce, **arguments})
        except MCPError as error:
            self.session.errors.append(f"{tool} {nonce}: {error!r}")
            return {}
        text = next((block.text for block in result.content if isinstance(block, TextContent)), "")
        if result.is_error:
            self.session.errors.append(f"{tool} {nonce}: {text}")
            return {}
        told: dict[str, Any] = json.loads(text)
        return told

    async def _message(self, message: IncomingMessage) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self._noticed.set()


class Deploy:
    """What a deploy script does, by the admin APIs and by signals."""

    def __init__(self, gateways: Sequence[Gateway]) -> None:
        self._gateways = gateways

    async def register(self, id: str, port: int) -> None:
        answer = await self._gateways[0].register("tools", {"id": id, "address": f"127.0.0.1:{port}"})
        assert answer.status_code in (200, 201), answer.text
        await self._until_known(id, port)

    async def replace(self, old: Instances, at: int, new_id: str, port: int) -> None:
        """Put a new instance in the place of an old one, which is killed once it carries nothing."""
        id = old.names[at]
        await self.register(new_id, port)
        if new_id != id:
            async with httpx2.AsyncClient(trust_env=False) as client:
                url = f"{self._gateways[0].admin_url}/v1/apps/tools/machines/{id}"
                assert (await client.delete(url)).status_code == 200
            await self._until_known(id, None)
        if new_id != id:
            await until(lambda: self._is_idle(id), f"the old {id} carries nothing")
        else:
            # What is carried under the same id may be the new one's.
            await until(lambda: is_idle(old.journals[at]), f"the old {id} has answered everything")
        await old.processes[at].kill()

    async def _until_known(self, id: str, port: int | None) -> None:
        """Until all gateways have the machine at this port; None: have it no more."""

        async def known() -> bool:
            return all([await _port(gateway, id) == port for gateway in self._gateways])

        await until(known, f"all gateways know of {id} at {port}")

    async def _is_idle(self, id: str) -> bool:
        """Whether no gateway has anything in flight to the machine, streams included."""
        found = [await gateway.metrics() for gateway in self._gateways]
        of_machine = f'{{app="tools",instance="{id}"}}'
        names = (f"moorage_instance_requests{of_machine}", f"moorage_instance_streams{of_machine}")
        return not any(one.get(name, 0) for one in found for name in names)


async def _port(gateway: Gateway, id: str) -> int | None:
    """Where a gateway has the machine, if it has it."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{gateway.admin_url}/v1/apps/tools/machines/{id}")
    if answer.status_code == 404:
        return None
    return int(answer.json()["address"].rpartition(":")[2])


def is_idle(path: Path) -> bool:
    """Whether an instance has ended every answer, and every stream, by its own journal."""
    entries = journal.read([path])
    asked = {entry.n for entry in entries if entry.event == "request"}
    opened = {entry.n for entry in entries if entry.event == "answer"}
    listening = {entry.n for entry in entries if entry.event == "request" and entry.http == "GET"}
    ended = {entry.n for entry in entries if entry.event == "stream-closed"}
    return asked == opened and listening <= ended


async def python_fleet(ports: Sequence[int], stop: asyncio.Event) -> list[Session]:
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(PythonClient(ports, index).run(stop)) for index in range(PYTHON_SESSIONS)]
    return [run.result() for run in runs]


async def typescript_fleet(ports: Sequence[int], stop: Path, generation: int) -> list[Session]:
    urls = [f"http://127.0.0.1:{port}/mcp" for port in ports]
    plan = {"urls": urls, "generation": generation, "sessions": TYPESCRIPT_SESSIONS, "name": "ts", "until": str(stop)}
    result = await node.script("ts_rolling.mjs", plan, within_s=120.0)
    return [Session(**session) for session in result["sessions"]]


@pytest.mark.parametrize(("count", "generation", "same_id"), [(1, 1, True), (2, 2, False)], ids=["one", "two"])
async def test_all_instances_are_replaced_and_no_call_fails(
    bench: Bench, peers: None, count: int, generation: int, same_id: bool
) -> None:
    """Behind one gateway under the same ids, behind two with new ones."""
    async with asyncio.TaskGroup() as group:
        starting = [group.create_task(servers.start(bench, "mcp_server", COUNT, prefix=name)) for name in ("i", "n")]
    old, new = (start.result() for start in starting)
    app = AppSpec("tools", [], {"on_lost": "reinitialize"})
    catalog = f"sqlite:{bench.directory}/catalog.db"
    gateways = [await Gateway.serve(bench, f"gateway-{number}", app, catalog=catalog) for number in range(count)]
    deploy = Deploy(gateways)
    for id, port in zip(old.names, old.ports, strict=True):
        await deploy.register(id, port)
    ports = [gateway.port for gateway in gateways]
    stop, stop_file = asyncio.Event(), bench.directory / "stop"

    def calls() -> int:
        return sum(entry.rpc == "tools/call" for entry in journal.read([*old.journals, *new.journals]))

    async def at_work(rounds: int) -> None:
        enough = calls() + rounds * SESSIONS
        await until(lambda: calls() > enough, "all are at work")

    async with asyncio.TaskGroup() as group:
        fleets = [
            group.create_task(python_fleet(ports, stop)),
            group.create_task(typescript_fleet(ports, stop_file, generation)),
        ]
        try:
            await until(lambda: len(old.verdict().sessions) == SESSIONS, "every session is made")
            assert set(old.verdict().placed) == set(old.names)
            for at in range(COUNT):
                await at_work(3)
                await deploy.replace(old, at, old.names[at] if same_id else new.names[at], new.ports[at])
            await at_work(5)
        finally:
            stop.set()
            stop_file.touch()
    outcomes = [session for fleet in fleets for session in fleet.result()]
    errors = [f"{session.index}: {error}" for session in outcomes for error in session.errors]
    assert not errors, f"{len(errors)} errors, the first: {errors[:5]}"
    assert [session.index for session in outcomes if not session.noticed] == []
    assert min(len(session.lives) for session in outcomes) >= 2, "a session was not lost: the replacement did not bite"
    verdict = journal.judge(journal.read([*old.journals, *new.journals]))
    assert (verdict.misrouted, verdict.refused, verdict.repeated) == ([], [], [])
    metrics = [await gateway.metrics() for gateway in gateways]
    assert sum(one.get('moorage_sessions_reinitialised_total{app="tools"}', 0) for one in metrics) >= SESSIONS
    assert {one['moorage_misroutes_total{app="tools"}'] for one in metrics} == {0}
