"""`moorage import`: a fly.toml becomes an app of moorage.toml, and what cannot is named."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import PydanticCustomError

from gateway.cli.options import EXIT_BAD_CONFIG, Json
from gateway.config.faults import ConfigFaults, Fault, key_text
from gateway.config.fly_notes import Note
from gateway.config.fly_render import render
from gateway.config.fly_tables import Setting
from gateway.config.fly_toml import Imported, NoHttp, import_fly
from gateway.config.lines import LineIndex, syntax_line
from gateway.config.values import app_name, host_rule

MAX_FILE_BYTES = 1024 * 1024
MAX_INSTANCES = 1000
EXIT_NOTHING_TAKEN = 1


def import_app(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The fly.toml.")] = Path("fly.toml"),
    app: Annotated[
        str | None, typer.Option("--app", metavar="NAME", help="The app's name. Not set: the one in the file.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="A host of the app; may be repeated. Not set: NAME.localhost."),
    ] = None,
    instances: Annotated[
        int,
        typer.Option("--instances", metavar="N", min=0, max=MAX_INSTANCES, help="How many instances to be filled in."),
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to this new file instead of printing."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an app of moorage.toml from a fly.toml: print its tables, and on stderr what was not taken over and why.

    Of several services, the one that speaks HTTP is taken. Nothing is asked of Fly.

    Exit code 0: there is an app. 1: the file has no HTTP service. 2: it cannot be read, or the options are wrong.

    \b
    Examples:
      moorage import
      moorage import fly.toml --host tools.example.com -o moorage.toml
      moorage import ../cart/fly.toml --app cart --instances 3 >> moorage.toml
      moorage import --json | jq '.notes[].key'
    """
    name = None if app is None else _option("--app", app_name, app)
    hosts = [_option("--host", host_rule, each) for each in host or ()]
    try:
        document, lines = _read(file)
    except ConfigFaults as error:
        if as_json:
            typer.echo(json.dumps({"ok": False, "faults": [_fault(fault) for fault in error.faults]}))
        else:
            typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_BAD_CONFIG) from None
    result = import_fly(document, name, hosts)
    notes = sorted(_placed(note, file, lines) for note in result.notes)
    text = None if isinstance(result, NoHttp) else render(result, instances)
    if output is not None and text is not None:
        _write(output, text)
    if as_json:
        typer.echo(json.dumps(_view(result, text, notes)))
    else:
        if output is None and text is not None:
            typer.echo(text, nl=False)
        typer.echo("\n".join([*map(str, notes), f"{file}: {_summary(result)}"]), err=True)
    if isinstance(result, NoHttp):
        raise typer.Exit(EXIT_NOTHING_TAKEN)


def _option(flag: str, valid: Callable[[object], str], text: str) -> str:
    try:
        return valid(text)
    except PydanticCustomError as error:
        context = error.context or {}
        raise typer.BadParameter(f"{context['message']}; {context['remedy']}", param_hint=flag) from None


def _read(file: Path) -> tuple[dict[str, object], LineIndex]:
    """The document and where its keys stand; raises ConfigFaults."""
    name = str(file)
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigFaults([Fault(name, 1, "", f"cannot be read: {reason}", "name the fly.toml")]) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigFaults([Fault(name, 1, "", f"is larger than {MAX_FILE_BYTES} bytes", "name the fly.toml")])
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigFaults([Fault(name, line, "", "is not UTF-8", "save it as UTF-8: TOML is nothing else")]) from None
    try:
        return tomllib.loads(text), LineIndex(text)
    except ValueError as error:
        message = str(error).partition(" (at ")[0]
        fault = Fault(name, syntax_line(error, text), "", f"TOML: {message}", "correct the syntax")
        raise ConfigFaults([fault]) from None
    except RecursionError:
        raise ConfigFaults([Fault(name, 1, "", "TOML: nested too deeply", "flatten the arrays or tables")]) from None


def _write(output: Path, text: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        message = f"{output} exists: name a new file, or append what is printed with >>"
        raise typer.BadParameter(message, param_hint="--output") from None
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error.strerror}", param_hint="--output") from None


def _placed(note: Note, file: Path, lines: LineIndex) -> Fault:
    return Fault(str(file), lines.line(note.path), key_text(note.path), note.reason, note.remedy)


def _fault(fault: Fault) -> dict[str, object]:
    return {"line": fault.line, "key": fault.key, "message": fault.message, "remedy": fault.remedy}


def _summary(result: Imported | NoHttp) -> str:
    if isinstance(result, NoHttp):
        return "no HTTP service, so nothing was taken over"
    return f"app {result.name}; what was not taken over is above" if result.notes else f"app {result.name}"


def _view(result: Imported | NoHttp, text: str | None, notes: list[Fault]) -> dict[str, Any]:
    shown = [_fault(note) for note in notes]
    if isinstance(result, NoHttp):
        return {"ok": False, "notes": shown}
    machine = result.machine
    return {
        "ok": True,
        "app": result.name,
        "taken": [
            {"key": f"{table}{setting.key}", "value": setting.value, "from": setting.source}
            for table, setting in _taken(result)
        ],
        "instance": {
            "port": machine.port,
            "region": machine.region or None,
            "command": list(machine.command),
            "env": dict(machine.env),
        },
        "notes": shown,
        "toml": text,
    }


def _taken(result: Imported) -> Iterator[tuple[str, Setting]]:
    """Every setting, with the table that it stands in as the key paths of `moorage check` have it."""
    yield from (("", setting) for setting in result.settings)
    yield from (("concurrency.", setting) for setting in result.concurrency)
    for name, tables in (("checks", result.checks), ("replay_cache", result.replay_cache)):
        for number, table in enumerate(tables):
            yield from ((f"{name}[{number}].", setting) for setting in table)
