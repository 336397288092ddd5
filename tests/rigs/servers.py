"""Sets of rig instances: the same server several times, each with its port and its journal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.gateway import AppSpec, Static
from tests.rigs.journal import Entry, Verdict, judge, read
from tests.rigs.run import Bench, Process, free_port


@dataclass(frozen=True, slots=True)
class Instances:
    """Running instances of one server."""

    names: tuple[str, ...]
    ports: tuple[int, ...]
    journals: tuple[Path, ...]
    processes: tuple[Process, ...]

    def urls(self, path: str) -> list[str]:
        """Each instance's own URL, without any gateway."""
        return [f"http://127.0.0.1:{port}{path}" for port in self.ports]

    def app(self, name: str = "tools", /, **settings: object) -> AppSpec:
        """An app of these instances as static addresses."""
        pairs = zip(self.names, self.ports, strict=True)
        return AppSpec(name, [Static(instance, port) for instance, port in pairs], settings)

    def entries(self) -> list[Entry]:
        return read(self.journals)

    def verdict(self) -> Verdict:
        """What the instances' own logs say so far."""
        return judge(self.entries())

    def lines(self) -> int:
        """How much they have written down so far; cheap enough to poll."""
        return sum(path.read_bytes().count(b"\n") for path in self.journals if path.exists())


async def start(bench: Bench, module: str, count: int, *arguments: str, prefix: str = "i") -> Instances:
    """`count` instances of `python -m tests.rigs.<module>`, ready."""
    names = tuple(f"{prefix}-{number}" for number in range(1, count + 1))
    ports = tuple(free_port() for _ in names)
    journals = tuple(bench.directory / f"{name}.jsonl" for name in names)
    processes = []
    for name, port, journal in zip(names, ports, journals, strict=True):
        own = ("--port", str(port), "--name", name, "--journal", str(journal))
        # Client and server agree to use what 2026-07-28 deprecates: these are 2025 sessions.
        process = await bench.python(name, f"tests.rigs.{module}", *own, *arguments, env={"PYTHONWARNINGS": "ignore"})
        processes.append(process)
    async with asyncio.TaskGroup() as group:
        for process, port in zip(processes, ports, strict=True):
            group.create_task(process.ready(port))
    return Instances(names, ports, journals, tuple(processes))
