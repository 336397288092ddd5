"""From a fly.toml to an app of moorage.toml: what of it has a counterpart, and why the rest has none.

Pure: a parsed document in, settings and notes out. Fly, "App configuration (fly.toml)", says what its keys mean and
what holds where one is not set; flyctl's own reader is followed in what it takes beside that (`[[services]]` as one
table, numbers in quotes, booleans for `auto_stop_machines`). The text is made by `gateway.config.fly_render`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.config.faults import key_text, shown
from gateway.config.fly_http import HttpService, choose
from gateway.config.fly_machine import Machine, machine
from gateway.config.fly_notes import FILE, HTTP_OPTIONS, RESPONSE, Note, empty, rest
from gateway.config.fly_tables import Setting, checks, concurrency, duration, replay_cache, valid
from gateway.config.lines import KeyPath
from gateway.config.sections import AppSection
from gateway.core.model import AutoStop

MAX_DEPTH: Final = 32
"""Tables within tables; what Fly knows is six deep."""
_READ: Final = frozenset({
    "app", "primary_region", "kill_signal", "kill_timeout", "env", "processes", "http_service", "services",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Imported:
    """An app for moorage.toml. `moorage check` accepts it, once its instances are filled in or without any."""

    name: str
    settings: tuple[Setting, ...]
    concurrency: tuple[Setting, ...]
    checks: tuple[tuple[Setting, ...], ...]
    replay_cache: tuple[tuple[Setting, ...], ...]
    machine: Machine
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class NoHttp:
    """There is nothing for a gateway in this fly.toml; the notes say what there is instead."""

    notes: tuple[Note, ...]


def import_fly(document: dict[str, object], name: str | None = None, hosts: Sequence[str] = ()) -> Imported | NoHttp:
    """Make an app of a parsed fly.toml. `name` and `hosts`, where given, are valid and take the place of the file's."""
    notes: list[Note] = []
    if not _shallow(document):
        return NoHttp((Note((), f"has more than {MAX_DEPTH} tables within each other", "flatten them"),))
    service = choose(document, notes)
    if service is None:
        return NoHttp(tuple(notes))
    if name is None:
        name = _name(document.get("app"), notes)
    rest(service.options, service.options_path, ("response", "replay_cache"), HTTP_OPTIONS, notes)
    rest(document, (), _READ, FILE, notes)
    path, table, options = service.path, service.table, service.options
    settings = (
        _hosts(name, hosts, document, notes),
        *_sleeping(service, notes),
        *_stopping(document, notes),
        *_pristine(service, notes),
    )
    limits = concurrency(table.get("concurrency"), (*path, "concurrency"), notes)
    asked = checks(table.get(service.checks_key), (*path, service.checks_key), notes)
    remembered = replay_cache(options.get("replay_cache"), (*service.options_path, "replay_cache"), notes)
    instances = machine(document, service, notes)
    return Imported(name, settings, limits, asked, remembered, instances, tuple(notes))


def _shallow(document: dict[str, object]) -> bool:
    """Dotted keys nest without a bound, and what walks through values does so by calling itself."""
    level: list[object] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return not any(isinstance(value, dict | list) for value in level)


def _name(value: object, notes: list[Note]) -> str:
    text = value if isinstance(value, str) else ""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].rstrip("-")
    if not name:
        notes.append(Note(("app",), "is not set" if value is None else f"{shown(value)} is no name", "use --app NAME"))
        return "app"
    if name != value:
        notes.append(Note(("app",), f"{shown(value)} is not a name here, and became {shown(name)}", "use --app NAME"))
    return name


def _hosts(name: str, hosts: Sequence[str], document: dict[str, object], notes: list[Note]) -> Setting:
    if hosts:
        return Setting("hosts", list(dict.fromkeys(hosts)), "--host")
    host, app = f"{name}.localhost", document.get("app")
    was = f"on Fly {shown(f'{app}.fly.dev')}" if isinstance(app, str) and app else ""
    reason = f"its host is {shown(host)} here" + (f", and was {was}" if was else "")
    notes.append(Note(("app",), reason, "name yours with --host"))
    return Setting("hosts", [host], "app", was)


# --- sleeping and stopping -----------------------------------------------------------------


def _sleeping(service: HttpService, notes: list[Note]) -> list[Setting]:
    path, table = service.path, service.table
    stop = _auto_stop(table, path, notes)
    start = _flag(table, (*path, "auto_start_machines"), notes)
    if start is False and stop not in (None, AutoStop.OFF):
        reason = "is left out: nothing would start again what was stopped, as auto_start_machines is off"
        notes.append(Note((*path, "auto_stop_machines"), reason, "turn on both, in the app's auto_stop and auto_start"))
        stop = None
    found = []
    if stop is not None:
        found.append(Setting("auto_stop", stop.value, key_text((*path, "auto_stop_machines"))))
    if start is not None:
        found.append(Setting("auto_start", start, key_text((*path, "auto_start_machines"))))
    if "min_machines_running" in table:
        at = (*path, "min_machines_running")
        taken = valid(AppSection, {"min_running": (table["min_machines_running"], at)}, notes) or {}
        least = taken.get("min_running")
        if isinstance(least, int):
            remark = "on Fly of the primary region alone, here of the whole app"
            found.append(Setting("min_running", least, key_text(at), remark))
    return found


def _auto_stop(table: dict[str, object], path: KeyPath, notes: list[Note]) -> AutoStop | None:
    match table.get("auto_stop_machines"):
        case None:
            return None
        case True:
            return AutoStop.STOP
        case False:
            return AutoStop.OFF
        case "off" | "stop" | "suspend" as word:
            return AutoStop(word)
        case other:
            remedy = 'set auto_stop to "off", "stop" or "suspend"'
            notes.append(Note((*path, "auto_stop_machines"), f"{shown(other)} is not known", remedy))
            return None


def _stopping(document: dict[str, object], notes: list[Note]) -> list[Setting]:
    signal = document.get("kill_signal", "")
    if not empty(signal) and signal != "SIGTERM":
        reason = f"{shown(signal)} is not sent: what is stopped gets SIGTERM, and SIGKILL after `stop_grace`"
        notes.append(Note(("kill_signal",), reason, "let the program end on SIGTERM"))
    if empty(document.get("kill_timeout", "")):
        return []
    raw, path = document["kill_timeout"], ("kill_timeout",)
    grace = duration(raw, 1)
    if grace is None:
        notes.append(Note(path, f"{shown(raw)} is not a duration", 'write seconds, or "30s"'))
        return []
    taken = valid(AppSection, {"stop_grace": (grace, path)}, notes) or {}
    return [Setting("stop_grace", grace, key_text(path))] if taken else []


def _pristine(service: HttpService, notes: list[Note]) -> list[Setting]:
    path: KeyPath = (*service.options_path, "response")
    response = service.options.get("response", {})
    if not isinstance(response, dict):
        notes.append(Note(path, f"{shown(response)} is not a table", "write { pristine = true }"))
        return []
    rest(response, path, ("pristine",), RESPONSE, notes)
    pristine = _flag(response, (*path, "pristine"), notes)
    return [] if pristine is None else [Setting("pristine", pristine, key_text((*path, "pristine")))]


def _flag(table: dict[str, object], path: KeyPath, notes: list[Note]) -> bool | None:
    value = table.get(str(path[-1]))
    if value is None or isinstance(value, bool):
        return value
    notes.append(Note(path, f"{shown(value)} is not true or false", "write it without quotes"))
    return None
