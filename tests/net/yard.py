"""What the tests of the agent, the drivers and the waker share: toy servers, a publisher that folds, waiting."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.agent.agent import Agent
from gateway.agent.base import DriverName, InstanceKey, Spec
from gateway.agent.process import ProcessDriver
from gateway.core.catalog import Catalog
from gateway.core.model import Address, App, Instance
from gateway.core.record import Record, RecordKind

TOY = Path(__file__).with_name("toy_server.py")
LIMIT_S = 20.0
"""For what must happen, on a slow and busy machine. Nothing waits this long when it works."""


def toy(id: str, *options: str, app: str = "tools", **fields: Any) -> Spec:
    """A toy server as an instance; -I -S because only its start matters."""
    command = (sys.executable, "-I", "-S", str(TOY), "{port}", *options)
    return Spec(InstanceKey(app, id), command=command, **fields)


class Folding:
    """A `Publish` whose records are in the catalog at once, as if there were no log between them."""

    def __init__(self) -> None:
        self.catalog = Catalog("local")
        self.history: list[tuple[str, str, str, bool]] = []
        """(id, state, incarnation, healthy) of each record."""
        self.bodies: dict[str, Mapping[str, object]] = {}
        self.held_back = False
        """True: records are kept from the catalog, as when its log is away."""
        self._counter = 0

    def put(self, kind: str, id: str, body: Mapping[str, object]) -> None:
        self.history.append((id, str(body["state"]), str(body["incarnation"]), bool(body["healthy"])))
        self.bodies[id] = body
        self._fold(kind, id, False, body)

    def delete(self, kind: str, id: str) -> None:
        self._fold(kind, id, True, {})

    def states(self, id: str) -> list[str]:
        """The states an instance went through, repetitions left out."""
        states: list[str] = []
        for name, state, _, _ in self.history:
            if name == id and states[-1:] != [state]:
                states.append(state)
        return states

    def instance(self, id: str, app: str = "tools") -> Instance:
        found = self.catalog.instance(app, id)
        assert found is not None
        return found

    def _fold(self, kind: str, id: str, deleted: bool, body: Mapping[str, object]) -> None:
        if self.held_back:
            return
        self._counter += 1
        self.catalog.fold(Record(RecordKind(kind), id, "test", 1, self._counter, deleted, dict(body)))


def quiet(key: InstanceKey, line: bytes) -> None:
    """An output that keeps the tests' terminal clean."""


@asynccontextmanager
async def agent_of(
    app: App, *specs: Spec, publish: Folding | None = None, **options: Any
) -> AsyncIterator[tuple[Agent, Folding]]:
    """An open agent with these instances; an exception of the test is not wrapped into a group."""
    folding = publish or Folding()
    caught: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        options.setdefault("drivers", {DriverName.PROCESS: ProcessDriver(output=quiet)})
        pairs = [(app, spec) for spec in specs]
        async with Agent(tasks, folding, owner="test", instances=pairs, **options) as agent:
            try:
                yield agent, folding
            except Exception as error:  # noqa: BLE001 - raised again below, outside of the group
                caught = error
    if caught is not None:
        raise caught


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for what nobody announces, such as the end of a process that is not a child."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while not condition():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.005)  # noqa: TID251 - see above
    except TimeoutError:
        raise AssertionError(f"did not happen within {LIMIT_S:g} s: {what}") from None


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that init has not yet collected has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


async def until_gone(pid: int) -> None:
    await until(lambda: is_gone(pid), f"the end of process {pid}")


async def pid_in(path: Path) -> int:
    def read() -> str:
        return path.read_text(encoding="utf-8") if path.exists() else ""

    await until(lambda: read() != "", f"a pid in {path}")
    return int(read())


async def request(address: Address, target: str = "/", method: str = "GET") -> str:
    """The whole answer of a toy server; empty when it ended instead."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return (await reader.read()).decode()
    except ConnectionResetError:
        return ""
    finally:
        writer.close()


def environ_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in entries if b"=" in entry)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def lines(path: Path) -> list[str]:
    """The lines of a file that may not exist yet."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def open_gate(fifo: Path) -> None:
    """Let a toy server that waits at this FIFO go on to listen."""
    with fifo.open("wb"):
        pass
