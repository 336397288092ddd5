"""The agent as a program of its own: a moorage.toml, `moorage agent`, signals; nothing of its inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx2

from gateway.agent.tokens import Tokens
from tests.rigs.gateway import SECRET, AppSpec, document
from tests.rigs.run import Bench, Process, free_port


class Agent:
    """One agent process and its file."""

    def __init__(
        self,
        bench: Bench,
        name: str,
        apps: Sequence[AppSpec],
        settings: Mapping[str, object],
        own: Mapping[str, object],
    ) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.file = bench.directory / f"{name}.toml"
        self._bench = bench
        self._process: Process | None = None
        agent = {"listen": f"127.0.0.1:{self.port}", "inside": False, **own}
        self.file.write_text(document(apps, settings, agent))

    @classmethod
    async def serve(
        cls, bench: Bench, name: str, *apps: AppSpec, own: Mapping[str, object] | None = None, **settings: object
    ) -> Self:
        """Write the file, start the agent, wait until it serves.

        `own` goes into `[agent]`, `settings` go into `[gateway]`.
        """
        agent = cls(bench, name, apps, settings, own or {})
        await agent.start()
        return agent

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"agent {self.name} was not started")
        return self._process

    async def start(self) -> None:
        """Start it on its own port, also after `kill`, and wait until it serves."""
        arguments = ["agent", "-c", str(self.file)]
        self._process = await self._bench.python(self.name, "gateway", *arguments, env={"MOORAGE_SECRET": SECRET})
        await self._process.ready(self.port)
        await self._process.says(f"agent serving on {self.url}")

    async def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        await self.process.kill()

    async def stop(self) -> int:
        """SIGTERM, and the end of its instances; the exit code."""
        return await self.process.stop(grace_s=10.0)

    async def get(self, path: str) -> Any:
        """The JSON of a GET, asked as a gateway does."""
        headers = {"authorization": f"Bearer {Tokens([SECRET.encode()]).of(self.url)}"}
        async with httpx2.AsyncClient(base_url=self.url, headers=headers, trust_env=False) as client:
            response = await client.get(path)
            response.raise_for_status()
            return response.json()
