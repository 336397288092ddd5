"""What a fly.toml says about every Machine of its app: port, region, command and environment.

In moorage.toml these stand beside each instance. Fly, "App configuration (fly.toml)": `internal_port`,
`primary_region`, `processes`, `env`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from pydantic_core import PydanticCustomError

from gateway.config.faults import key_text, shown
from gateway.config.fly_http import HttpService, number_of
from gateway.config.fly_notes import Note, empty
from gateway.config.lines import KeyPath
from gateway.config.values import argument, region_name, variable_name

DEFAULT_PORT: Final = 8080


@dataclass(frozen=True, slots=True)
class Machine:
    """What a fly.toml says about every instance. moorage.toml says it beside each of them."""

    port: int = DEFAULT_PORT
    port_source: str = ""
    """Empty when the port is Fly's default."""
    region: str = ""
    command: tuple[str, ...] = ()
    command_source: str = ""
    env: tuple[tuple[str, str], ...] = ()


def machine(document: dict[str, object], service: HttpService, notes: list[Note]) -> Machine:
    """What holds for every instance of the service, with notes on what cannot."""
    path: KeyPath = (*service.path, "internal_port")
    raw = service.table.get("internal_port")
    port = number_of(raw)
    if raw is not None and (port is None or not 1 <= port <= 65535):
        notes.append(Note(path, f"{shown(raw)} is not a port", "write the port where the app listens"))
        port = None
    command, source = _command(document.get("processes", {}), service, notes)
    return Machine(
        port=port or DEFAULT_PORT,
        port_source=key_text(path) if port else "",
        region=_region(document.get("primary_region", ""), notes),
        command=command,
        command_source=source,
        env=_env(document.get("env", {}), notes),
    )


def _region(value: object, notes: list[Note]) -> str:
    path: KeyPath = ("primary_region",)
    if empty(value):
        return ""
    try:
        region = region_name(value)
    except PydanticCustomError as error:
        notes.append(_refused(path, error))
        return ""
    notes.append(Note(path, "an instance has a region, and so has the gateway", "set `region` in [gateway] too"))
    return region


def _command(groups: object, service: HttpService, notes: list[Note]) -> tuple[tuple[str, ...], str]:
    """What the service's first process group runs, and the key that says so."""
    if empty(groups):
        return (), ""
    if not isinstance(groups, dict):
        notes.append(Note(("processes",), f"{shown(groups)} is not a table", "write [processes]"))
        return (), ""
    served = service.table.get("processes")
    names = [each for each in served if isinstance(each, str)] if isinstance(served, list) else []
    # Fly's default group is "app", or else the first by name.
    group = next((each for each in names if each in groups), "app" if "app" in groups else min(groups))
    for other in groups:
        if other != group:
            serves = "serves the same" if other in names else "serves no HTTP"
            remedy = "add an instance with its command" if other in names else "run it by other means, such as systemd"
            notes.append(Note(("processes", other), f"is another process group: it {serves}", remedy))
    line, path = groups[group], ("processes", group)
    try:
        words = tuple(argument(word) for word in shlex.split(line)) if isinstance(line, str) else ()
    except (ValueError, PydanticCustomError):
        words = ()
    if not words and not empty(line):
        notes.append(Note(path, f"{shown(line)} cannot be cut into words", "write it as the instance's `command`"))
    return words, key_text(path) if words else ""


def _env(value: object, notes: list[Note]) -> tuple[tuple[str, str], ...]:
    if empty(value):
        return ()
    if not isinstance(value, dict):
        notes.append(Note(("env",), f"{shown(value)} is not a table", "write [env]"))
        return ()
    found = []
    for name, raw in value.items():
        if isinstance(raw, dict | list):
            notes.append(Note(("env", name), f"{shown(raw)} is not a string", "put it in quotes"))
            continue
        # flyctl turns what is no string into one.
        text = str(raw).lower() if isinstance(raw, bool) else str(raw)
        try:
            found.append((variable_name(name), argument(text)))
        except PydanticCustomError as error:
            notes.append(_refused(("env", name), error))
    return tuple(found)


def _refused(path: KeyPath, error: PydanticCustomError) -> Note:
    context = error.context or {}
    return Note(path, context["message"], context["remedy"])
