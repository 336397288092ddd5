"""What of a fly.toml has no counterpart in moorage.toml: for each such key why, and what to do instead.

Keys and their meaning are those of Fly's page "App configuration (fly.toml)", and of flyctl where the page is silent.
A key that is in none of these tables and that nothing else reads is reported as unknown: nothing is passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from gateway.config.lines import KeyPath


class Note(NamedTuple):
    """One key of fly.toml that was not taken over, or not as it stands. An empty path means the file."""

    path: KeyPath
    reason: str
    remedy: str


class Why(NamedTuple):
    reason: str
    remedy: str


_UNKNOWN: Final = Why("is no key that is known here", "look in Fly's reference what it does")
_VM: Final = Why("an instance has what its host has", "bound it by the host's means: systemd, a container")
_MOUNTS: Final = Why(
    "there are no volumes: an instance sees its host's folders", "tell it the folder by `cwd` or `env`"
)
_METRICS: Final = Why("an app's metrics are not collected", "let Prometheus ask the instances; the gateway has its own")
_MACHINE_CHECKS: Final = Why("runs on a deploy, and nothing is deployed here", "run it in your own deploy")
_HTTPS: Final = Why("the gateway has no TLS", "let the TLS proxy in front redirect: docs/howto/behind-a-tls-proxy.md")
_TLS: Final = Why("the gateway has no TLS", "set it in the TLS proxy in front: docs/howto/behind-a-tls-proxy.md")
_PROXY_PROTOCOL: Final = Why("the PROXY protocol is not spoken", "read the client's address from Fly-Client-IP")

FILE: Final[Mapping[str, Why]] = {
    "build": Why("images are not built here", "build it yourself: an instance only says how it is run or reached"),
    "deploy": Why("nothing is deployed here", "run its release_command yourself before instances start"),
    "mounts": _MOUNTS,
    "mount": _MOUNTS,
    "vm": _VM,
    "compute": _VM,
    "computes": _VM,
    "swap_size_mb": _VM,
    "host_dedication_id": _VM,
    "statics": Why("files are not served here", "let the app serve them, or the TLS proxy in front"),
    "metrics": _METRICS,
    "metric": _METRICS,
    "checks": Why(
        "decides nothing about routing on Fly", "add it to the app's `checks` if requests are to wait for it"
    ),
    "machine_checks": _MACHINE_CHECKS,
    "files": Why("files are not written here", "put them on the host"),
    "restart": Why("what crashed is started by the next request", "nothing to do where `auto_start` is on"),
    "console_command": Why("there is no console", "run it on the host"),
    "experimental": Why("is Fly's own", "put what its cmd, entrypoint or exec say into an instance's `command`"),
    "machine_config": Why("is a Machine's own configuration", "write by hand what of it is needed"),
    "container": Why("is a Machine's own configuration", "name the container's address in an instance"),
}

SERVICE: Final[Mapping[str, Why]] = {
    "force_https": _HTTPS,
    "tls_options": _TLS,
    "proxy_proto_options": _PROXY_PROTOCOL,
    "tcp_checks": Why("a connection is tried in any case", "nothing to do"),
    "script_checks": Why("only GET is used to check", "give the app a path that says whether it is well"),
    "machine_checks": _MACHINE_CHECKS,
}

PORT: Final[Mapping[str, Why]] = {
    "force_https": _HTTPS,
    "tls_options": _TLS,
    "proxy_proto_options": _PROXY_PROTOCOL,
}

HTTP_OPTIONS: Final[Mapping[str, Why]] = {
    "compress": Why("bodies pass as they are", "compress in the app, or in the TLS proxy in front"),
    "h2_backend": Why("instances are spoken to in HTTP/1.1", "let the app serve that; gRPC needs another proxy"),
    "idle_timeout": Why(
        "streams last as long as both ends do", "set keep_alive in [gateway.limits] for idle client connections"
    ),
    "headers_read_timeout": Why("is the same for all apps here", "set head_timeout in [gateway.limits]"),
}

RESPONSE: Final[Mapping[str, Why]] = {
    "headers": Why("answers' headers are not changed", "set them in the app, or in the TLS proxy in front"),
}

CHECK: Final[Mapping[str, Why]] = {
    "headers": Why("checks are asked without it", "let this path answer 2xx without: redirects fail"),
}


def empty(value: object) -> bool:
    """Whether a value asks for nothing: `fly config save` writes many of them."""
    return value is False or (isinstance(value, str | list | dict) and not value)


def rest(
    table: Mapping[str, object], path: KeyPath, taken: Collection[str], whys: Mapping[str, Why], notes: list[Note]
) -> None:
    """Note every key of the table at `path` that is not among `taken`."""
    for key, value in table.items():
        if key not in taken and not empty(value):
            notes.append(Note((*path, key), *whys.get(key, _UNKNOWN)))
