"""A real Docker engine for tests: toy containers with labels of their own, a relay that writes down what the engine is
asked, and a second engine that can be restarted."""

from __future__ import annotations

import asyncio
import io
import os
import re
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.agent.base import DriverName, InstanceKey, Spec
from gateway.agent.docker_api import SILENCE_S, DockerApi, DockerError, Event
from gateway.core.model import Address
from tests.net.yard import LIMIT_S, request

IMAGE = "python:3.11-slim"
SOCKET = Path(os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or "/var/run/docker.sock")
PORT = 8000
SLEEP = shutil.which("sleep") or "sleep"

TOY = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else lambda *_: os._exit(0))
if "fail" in sys.argv:
    sys.exit(3)
count = 0
class Toy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global count
        count += 1
        body = str(count).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        if self.path == "/eat":
            eaten = [bytearray(1 << 20) for _ in range(4096)]
        os._exit(int(self.path.rpartition("/")[2]))
    def log_message(self, *_):
        pass
http.server.HTTPServer(("", int(sys.argv[1])), Toy).serve_forever()
"""
"""Counts its requests in memory. POST /exit/STATUS ends it, POST /eat has it eat up its memory."""


def missing() -> str:
    """Why there is no engine to test with; empty when there is one."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    docker = ["docker", "--host", f"unix://{SOCKET}"]
    if subprocess.run([*docker, "version"], capture_output=True, check=False).returncode != 0:
        return f"no Docker engine answers at {SOCKET}"
    found = subprocess.run([*docker, "image", "inspect", IMAGE], capture_output=True, check=False)
    return "" if found.returncode == 0 else f"the engine has no image {IMAGE}"


def needed(reason: str) -> None:
    """Skip the test when there is a reason to, unless the engine must be there (MOORAGE_NEEDS_DOCKER=1)."""
    if reason and os.environ.get("MOORAGE_NEEDS_DOCKER") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class Engine:
    """One engine, and in it only what this object has made."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.name = f"moorage-test-{secrets.token_hex(4)}"
        self.label = f"{self.name}.app"

    async def docker(self, *words: str) -> str:
        """What the docker command prints."""
        process = await asyncio.create_subprocess_exec(
            *("docker", "--host", f"unix://{self.socket}", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, f"docker {' '.join(words)}: {err.decode()}"
        return out.decode().strip()

    async def create(
        self,
        id: str,
        *options: str,
        command: Sequence[str] = ("python", "-I", "-S", "-c", TOY, str(PORT)),
        more: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> Spec:
        """A toy container that was never started. `more` are words after the command."""
        if labels is None:
            labels = {"app": "tools", "port": str(PORT), "id": id}
        named = [word for key, text in labels.items() for word in ("--label", f"{self.name}.{key}={text}")]
        marked = ["--label", self.name, "--name", f"{self.name}-{id}"]
        target = await self.docker("create", *marked, *named, *options, IMAGE, *command, *more)
        return Spec(InstanceKey("tools", id), platform=DriverName.DOCKER, target=target, port=PORT)

    def clean(self) -> None:
        """Remove every container and network made here."""
        self._remove(["ps", "--all", "--quiet"], ["rm", "--force", "--volumes"])
        self._remove(["network", "ls", "--quiet"], ["network", "rm"])

    def _remove(self, listing: Sequence[str], removing: Sequence[str]) -> None:
        docker = ["docker", "--host", f"unix://{self.socket}"]
        found = subprocess.run(
            [*docker, *listing, "--filter", f"label={self.name}"], check=True, capture_output=True, text=True
        ).stdout.split()
        if found:
            subprocess.run([*docker, *removing, *found], check=True, capture_output=True)


def whole_engine() -> Iterator[Engine]:
    """A fixture for a module: the engine, or a skip."""
    needed(missing())
    engine = Engine(SOCKET)
    try:
        yield engine
    finally:
        engine.clean()


def emptied(engine: Engine) -> Iterator[Engine]:
    """A fixture for a test: the module's engine, with nothing in it that another test has made."""
    try:
        yield engine
    finally:
        engine.clean()


class Following(DockerApi):
    """A client that says when it follows the engine."""

    def __init__(self, socket: Path, label: str) -> None:
        super().__init__(f"unix://{socket}", label=label)
        self.connections = asyncio.Semaphore(0)
        """Released whenever the events' stream was opened and everything looked at."""

    async def follow(
        self,
        actions: Collection[str],
        connected: Callable[[], Awaitable[None]],
        happened: Callable[[Event], Awaitable[None]],
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        async def both() -> None:
            await connected()
            self.connections.release()

        await super().follow(actions, both, happened, silence_s=silence_s)

    async def until_connected(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await self.connections.acquire()


# --- a relay before the engine ---------------------------------------------------------

_REQUEST = re.compile(rb"^([A-Z]+) (\S+) HTTP/1\.1\r$", re.MULTILINE)


class Relay:
    """Relays to the engine's socket, and writes down every request."""

    def __init__(self, target: Path, socket: Path) -> None:
        self._target = target
        self.socket = socket
        self.asked: list[tuple[str, str]] = []
        """(method, path) with `ID` for a container's id and without version and query."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._away = False
        self._idle = asyncio.Event()

    async def close(self) -> None:
        self.cut()
        if self._writers:
            await self._idle.wait()

    def cut(self) -> None:
        """Cut every connection, and accept no other."""
        self._away = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._away = False

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:
            writer.transport.abort()
            return
        other_reader, other_writer = await asyncio.open_unix_connection(self._target)
        both = {writer, other_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, other_writer, note=True))
                tasks.create_task(self._copy(other_reader, writer, note=False))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()
            if not self._writers:
                self._idle.set()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if note:
                    self.asked += [_plain(method, target) for method, target in _REQUEST.findall(data)]
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


def _plain(method: bytes, target: bytes) -> tuple[str, str]:
    path = re.sub(r"^/v1\.[0-9]+", "", target.decode().partition("?")[0])
    return method.decode(), re.sub(r"(?<=/containers/)[0-9a-f]{64}", "ID", path)


@asynccontextmanager
async def relayed(engine: Engine, folder: Path) -> AsyncIterator[Relay]:
    relay = Relay(engine.socket, folder / "engine.sock")
    async with await asyncio.start_unix_server(relay.accepted, relay.socket):
        try:
            yield relay
        finally:
            await relay.close()


# --- an engine that can be restarted ---------------------------------------------------


class OwnEngine:
    """A second dockerd. In namespaces of its own: it has no bridge and would remove the first one's, and it
    leaves mounts behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "docker.sock"
        self._process: asyncio.subprocess.Process | None = None

    @staticmethod
    def missing() -> str:
        if os.geteuid() != 0:
            return "a second engine needs root"
        absent = [program for program in ("dockerd", "unshare") if shutil.which(program) is None]
        return f"a second engine needs {' and '.join(absent)}" if absent else ""

    async def start(self) -> None:
        """Ready when this returns."""
        folders = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        options = [f"--{option}={self._folder / name}" for option, name in folders.items()]
        off = ["--bridge=none", "--iptables=false", "--ip-masq=false"]
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("unshare", "--net", "--mount", "--", "dockerd", *options, *off, f"--host=unix://{self.socket}"),
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(LIMIT_S):
            while not await self._answers():  # noqa: ASYNC110 - nobody tells when it is there
                await asyncio.sleep(0.02)  # noqa: TID251 - see above

    async def _answers(self) -> bool:
        async with DockerApi(f"unix://{self.socket}") as api:
            try:
                await api.containers()
            except DockerError:
                return False
            return True

    def make_image(self) -> None:
        """An image of the usual name that holds this machine's `sleep` and nothing else: the real one takes seconds."""
        libraries = subprocess.run(["ldd", SLEEP], check=True, capture_output=True, text=True).stdout
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
            for path in [SLEEP, *re.findall(r"/\S+", libraries)]:
                archive.add(path)
        docker = ["docker", "--host", f"unix://{self.socket}"]
        subprocess.run([*docker, "import", "-", IMAGE], input=packed.getvalue(), check=True, capture_output=True)

    async def stop(self) -> None:
        """Its containers end with it."""
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()
            self._process = None


async def answers(address: Address, target: str = "/") -> str:
    """The body that a toy answers, once it listens."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                if answer := await request(address, target):
                    return answer.rpartition("\r\n")[2]
            except OSError:
                pass
            await asyncio.sleep(0.005)  # noqa: TID251 - nobody tells when a port opens
