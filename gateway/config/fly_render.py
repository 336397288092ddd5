"""The text of an imported app: the tables of `[apps.NAME]`, each key below the key of fly.toml that it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from gateway.config.faults import key_text
from gateway.config.fly_tables import Setting, Value
from gateway.config.fly_toml import Imported


def render(imported: Imported, instances: int) -> str:
    """The text, as moorage.toml may hold it beside other tables. The instances are left as comments to be filled in."""
    app = f"apps.{imported.name}"
    lines = [
        "# Made from a fly.toml by `moorage import`. Above each key stands the key of fly.toml that it comes from.",
        "",
        f"[{app}]",
        *_lines(imported.settings),
    ]
    if imported.concurrency:
        lines += ["", f"[{app}.concurrency]", *_lines(imported.concurrency)]
    for name, tables in (("checks", imported.checks), ("replay_cache", imported.replay_cache)):
        for table in tables:
            lines += ["", f"[[{app}.{name}]]", *_lines(table)]
    if instances:
        lines += ["", *_instances(imported, instances)]
    return "\n".join(lines) + "\n"


def _lines(settings: Iterable[Setting]) -> Iterator[str]:
    for setting in settings:
        yield f"# {setting.source}" + (f": {setting.remark}" if setting.remark else "")
        yield f"{setting.key} = {_value(setting.value)}"


def _value(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():
            return quoted(value)
        case _:
            return f"[{', '.join(map(quoted, value))}]"


def quoted(text: str) -> str:
    """A basic string of TOML, in which nothing can be taken for more than text: not by TOML, not by a terminal."""
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escape(char) for char in escaped)


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _instances(imported: Imported, count: int) -> Iterator[str]:
    machine = imported.machine
    said = machine.port_source or "which is Fly's default"
    yield f"# Its instances. On Fly they listen on port {machine.port} ({said})."
    yield "# Remove `# ` before the lines of one. Of these keep either `address`, for one that runs by itself, or"
    yield "# `command` and `env`, for one that is started when needed; {port} is where it has to listen."
    if machine.command_source:
        yield f"# The command is that of {machine.command_source}."
    for number in range(1, count + 1):
        yield "#"
        yield f"# [[apps.{imported.name}.instances]]"
        yield f'# id = "i-{number}"'
        yield f'# address = "HOST:{machine.port}"'
        yield f"# command = [{', '.join(map(quoted, machine.command or ('program', '--port', '{port}')))}]"
        if machine.region:
            yield f"# region = {quoted(machine.region)}"
        env = dict(machine.env)
        if "PORT" in env or machine.command:
            env["PORT"] = "{port}"
        if env:
            pairs = (f"{key_text((name,))} = {quoted(value)}" for name, value in env.items())
            yield f"# env = {{ {', '.join(pairs)} }}"
