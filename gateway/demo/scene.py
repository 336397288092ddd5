"""`moorage demo`: a gateway in front of three MCP servers that sleep until someone calls.

It is an ordinary configuration file, served like any other.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from gateway.app import serve
from gateway.config import load

NAMES = ("harbour", "jetty", "quay")
PORT, ADMIN_PORT = 8080, 8081
EXIT_NO_SDK = 1


def run() -> None:
    """Serve the demo until Ctrl-C; everything it started ends with it. Exits 1 where the MCP SDK is missing."""
    if find_spec("mcp") is None:
        print("The demo's servers need the MCP SDK: pip install 'moorage[demo]'", file=sys.stderr)
        raise SystemExit(EXIT_NO_SDK)
    with tempfile.TemporaryDirectory(prefix="moorage-demo-") as directory:
        port, admin_port = _free(PORT), _free(ADMIN_PORT)
        file = Path(directory) / "moorage.toml"
        file.write_text(config(Path(directory), port, admin_port), encoding="utf-8")
        print(banner(port, admin_port, file), flush=True)
        serve(load(file))


def config(directory: Path, port: int, admin_port: int) -> str:
    """The demo's moorage.toml: one app, three instances that a request starts, one session each before the next."""
    lines = [
        "[gateway]",
        f'listen = "127.0.0.1:{port}"',
        f'admin = "127.0.0.1:{admin_port}"',
        f"catalog = {json.dumps('sqlite:' + str(directory / 'demo.db'))}",
        "",
        "[apps.demo]",
        'protocol = "mcp"',
        'concurrency = { type = "requests", soft = 1 }',
        'checks = [{ path = "/healthz", interval = "2s", timeout = "1s", grace = "5s" }]',
    ]
    for name in NAMES:
        command = [sys.executable, "-m", "gateway.demo.server", "--port", "{port}", "--name", name]
        lines += ["", "[[apps.demo.instances]]", f'id = "{name}"', f"command = {json.dumps(command)}"]
    return "\n".join(lines) + "\n"


def banner(port: int, admin_port: int, file: Path) -> str:
    """What to try and what to watch."""
    url, admin = f"http://127.0.0.1:{port}/mcp", f"http://127.0.0.1:{admin_port}"
    return f"""
Moorage in front of three MCP servers, all asleep: {", ".join(NAMES)}

  MCP endpoint   {url}
  Try            {sys.executable} -m gateway.demo.client {url} --sessions 3
                 or any MCP client; each session is kept by one server, which starts when it is needed
  Watch          moorage ps --admin {admin}         who sleeps, who runs
                 moorage sessions --admin {admin}   which session is where
                 {admin}/metrics
  Its file       {file}

Ctrl-C ends the gateway and its servers.
"""


def _free(port: int) -> int:
    """`port`, or any free one where that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
        return free
