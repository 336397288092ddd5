"""The proxies that are compared, each with one worker, keep-alive on both sides and the same three instances behind it.

A peer that is not installed is left out, and the report says so.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Child, descriptor_limit, free_port, python, started

Ports = Sequence[int]
"""Of the three instances, and of the issuer of replays, which only Moorage knows what to do with."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One proxy. `command` writes what configuration it needs into a folder and returns the command line."""

    name: str
    label: str
    command: Callable[[Path, int, Ports], list[str]]
    """Arguments: an empty folder of its own, the port to listen on, the ports of the instances."""
    program: str = ""
    """What must be on PATH; empty for a Python module of this repository."""
    share: float = 1.0
    """The share of the usual work that is measured: slow peers get less, so that a run stays short."""
    streams: bool = True
    default: bool = True
    needs: Callable[[], str] = lambda: ""
    """What else is missing on this machine, in words; empty for nothing."""

    def lacking(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        if self.program and shutil.which(self.program) is None:
            return f"no program {self.program!r} on PATH"
        return self.needs()

    @contextlib.contextmanager
    def running(self, folder: Path, instances: Ports, core: int | None) -> Iterator["Proxy"]:
        """The proxy, listening."""
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = self.command(folder, port, instances)
        with started(command, core=core, log=folder / "log") as child:
            child.await_listening(port)
            yield Proxy(self, child, port, folder)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running peer."""

    peer: Peer
    process: Child
    port: int
    folder: Path
    """Its configuration, and what it printed."""


# Without `option http-no-delay` events arrive up to 200 ms late, and HAProxy looks 40 % cheaper than it is.
# `initialize` has no such header yet: that one request goes round robin.
_HAPROXY = """
global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend public
    bind 127.0.0.1:{port}
    default_backend instances
backend instances
    balance hdr(mcp-session-id)
    hash-type consistent djb2 avalanche
{servers}
"""

# nginx closes a connection after 1,000 requests unless told otherwise.
_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
{user}
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream instances {{
        hash $http_mcp_session_id consistent;
        {servers}
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://instances;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

_MOORAGE = """
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
secret = ["only for measurements, never for use"]
catalog = "memory:"

[apps.bench]
"""

_INSTANCE = """
[[apps.bench.instances]]
id = "i-{number}"
address = "127.0.0.1:{port}"
"""


_ISSUER = """
[apps.issuer]
path = "/replay"

[[apps.issuer.instances]]
id = "issuer"
address = "127.0.0.1:{port}"
"""


def _connections() -> int:
    """Client connections to allow: each costs one more descriptor, towards its instance."""
    return min(10_000, descriptor_limit() // 2 - 100)


def _haproxy(folder: Path, port: int, instances: Ports) -> list[str]:
    servers = "\n".join(f"    server i-{number} 127.0.0.1:{at}" for number, at in enumerate(instances[:3], 1))
    path = folder / "haproxy.cfg"
    path.write_text(_HAPROXY.format(port=port, servers=servers, connections=_connections()))
    return ["haproxy", "-db", "-f", str(path)]


def _nginx(folder: Path, port: int, instances: Ports) -> list[str]:
    servers = " ".join(f"server 127.0.0.1:{at};" for at in instances[:3])
    user = "user root;" if os.geteuid() == 0 else ""  # its own user may not enter our folder
    path = folder / "nginx.conf"
    limit = descriptor_limit()
    path.write_text(
        _NGINX.format(port=port, servers=servers, user=user, connections=2 * _connections(), descriptors=limit)
    )
    return ["nginx", "-p", str(folder), "-c", str(path), "-e", "stderr"]


def _moorage(folder: Path, port: int, instances: Ports) -> list[str]:
    rows = "".join(_INSTANCE.format(number=number, port=at) for number, at in enumerate(instances[:3], 1))
    path = folder / "moorage.toml"
    path.write_text(_MOORAGE.format(port=port, admin=free_port()) + rows + _ISSUER.format(port=instances[3]))
    return python("gateway", "serve", "-c", path)


def _asgi(application: str) -> Callable[[Path, int, Ports], list[str]]:
    def command(folder: Path, port: int, instances: Ports) -> list[str]:
        return python("benchmarks.asgi", application, port, *instances[:3])

    return command


PEERS = (
    Peer("haproxy", "HAProxy, header hash", _haproxy, program="haproxy"),
    Peer("nginx", "nginx, consistent hash", _nginx, program="nginx"),
    Peer("moorage", "Moorage, sealed ids", _moorage),
    Peer("empty", "uvicorn, empty ASGI application", _asgi("empty"), streams=False, default=False),
    Peer("httpx", "Starlette + httpx2 client", _asgi("httpx"), share=0.03, default=False),
)
