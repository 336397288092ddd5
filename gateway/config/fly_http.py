"""The one service of a fly.toml that an app can be made of: `http_service`, or the `services` entry that speaks HTTP.

Fly, "App configuration (fly.toml)": `http_service` stands for ports 80 and 443 with the http handler. flyctl also
takes one table where a list of tables is meant, and numbers in quotes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.config.faults import shown
from gateway.config.fly_notes import PORT, SERVICE, Note, empty, rest
from gateway.config.lines import KeyPath

HTTP_PORTS: Final = (443, 80)


class HttpService(NamedTuple):
    """The chosen service, and where its `http_options` are: in itself, or in one of its ports."""

    path: KeyPath
    table: dict[str, object]
    options_path: KeyPath
    options: dict[str, object]
    checks_key: str


class _Port(NamedTuple):
    path: KeyPath
    table: dict[str, object]
    number: int | None
    """None for a range, or for what is no number."""


_TAKEN: Final = frozenset({
    "internal_port", "auto_stop_machines", "auto_start_machines", "min_machines_running", "concurrency", "processes",
})  # fmt: skip


def choose(document: dict[str, object], notes: list[Note]) -> HttpService | None:
    """The HTTP service of a fly.toml, with notes on the others and on what of it has no counterpart."""
    entries = tables(document.get("services"), ("services",), notes)
    ports = [_http_ports(table, path) for path, table in entries]
    http = document.get("http_service")
    chosen = None
    if isinstance(http, dict):
        chosen = _http_service(http, notes)
    elif not empty(http) and http is not None:
        notes.append(Note(("http_service",), f"{shown(http)} is not a table", "write [http_service]"))
    number = _best(ports) if chosen is None else None
    for at, (path, table) in enumerate(entries):
        if at == number:
            chosen = _service(path, table, ports[at], notes)
        elif ports[at]:
            notes.append(Note(path, "is one more HTTP service, and an app here has one", "add an app for it by hand"))
        else:
            notes.append(Note(path, "is not HTTP", "publish its ports past the gateway"))
    return chosen


def tables(value: object, path: KeyPath, notes: list[Note]) -> list[tuple[KeyPath, dict[str, object]]]:
    """The entries of a list of tables, or the one table that stands in its place."""
    if isinstance(value, dict):
        return [(path, value)] if value else []
    if not isinstance(value, list):
        if value is not None and not empty(value):
            notes.append(Note(path, f"{shown(value)} is not a list of tables", "write [[...]]"))
        return []
    found: list[tuple[KeyPath, dict[str, object]]] = []
    for number, entry in enumerate(value):
        if isinstance(entry, dict):
            found.append(((*path, number), entry))
        else:
            notes.append(Note((*path, number), f"{shown(entry)} is not a table", "write [[...]]"))
    return found


def number_of(value: object) -> int | None:
    """A whole number, or one in quotes; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _http_service(table: dict[str, object], notes: list[Note]) -> HttpService:
    path: KeyPath = ("http_service",)
    rest(table, path, _TAKEN | {"checks", "http_options"}, SERVICE, notes)
    return HttpService(path, table, (*path, "http_options"), _options(table, path, notes), "checks")


def _best(ports: list[list[_Port]]) -> int | None:
    """The first service with the http handler on 80 or 443, or else on any port."""
    http = [at for at, each in enumerate(ports) if each]
    return next((at for at in http if any(_public(port) for port in ports[at])), http[0] if http else None)


def _public(port: _Port) -> bool:
    if port.number is not None:
        return port.number in HTTP_PORTS
    first, last = number_of(port.table.get("start_port")), number_of(port.table.get("end_port"))
    return first is not None and last is not None and any(first <= public <= last for public in HTTP_PORTS)


def _http_ports(table: dict[str, object], path: KeyPath) -> list[_Port]:
    return [port for port in _ports(table, path, []) if _speaks_http(port.table)]


def _speaks_http(port: dict[str, object]) -> bool:
    handlers = port.get("handlers")
    return "http" in handlers if isinstance(handlers, list) else handlers == "http"


def _ports(table: dict[str, object], path: KeyPath, notes: list[Note]) -> list[_Port]:
    entries = tables(table.get("ports"), (*path, "ports"), notes)
    return [_Port(at, port, number_of(port.get("port"))) for at, port in entries]


def _service(path: KeyPath, table: dict[str, object], ports: list[_Port], notes: list[Note]) -> HttpService:
    rest(table, path, _TAKEN | {"http_checks", "ports", "protocol"}, SERVICE, notes)
    for port in _ports(table, path, notes):
        if not _speaks_http(port.table):
            notes.append(Note(port.path, "has no http handler", "publish it past the gateway"))
            continue
        keys = ("port", "start_port", "end_port", "handlers", "http_options")
        rest(port.table, port.path, keys, PORT, notes)
        if not _public(port):
            remedy = "clients ask the gateway's `listen`, or the TLS proxy in front"
            notes.append(Note(port.path, "apps have no ports of their own", remedy))
    ranked = sorted(ports, key=_rank)
    for port in ranked[1:]:
        if not empty(port.table.get("http_options", {})):
            reason = "an app has one set of these, and another port's are taken"
            notes.append(Note((*port.path, "http_options"), reason, "add by hand what differs"))
    front = ranked[0]
    options = _options(front.table, front.path, notes)
    return HttpService(path, table, (*front.path, "http_options"), options, "http_checks")


def _rank(port: _Port) -> tuple[bool, int]:
    """Ports that say anything come first, and of these the one that most clients use."""
    silent = empty(port.table.get("http_options", {}))
    return silent, HTTP_PORTS.index(port.number) if port.number in HTTP_PORTS else len(HTTP_PORTS)


def _options(table: dict[str, object], path: KeyPath, notes: list[Note]) -> dict[str, object]:
    options = table.get("http_options", {})
    if isinstance(options, dict):
        return options
    notes.append(Note((*path, "http_options"), f"{shown(options)} is not a table", "write { ... }"))
    return {}
