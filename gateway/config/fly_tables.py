"""The tables of an app that a fly.toml has too: concurrency, checks, replay_cache. What they may hold is asked of the
sections of moorage.toml themselves, so that what comes out is what `moorage check` accepts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from gateway.config.faults import key_text, shown
from gateway.config.fly_http import tables
from gateway.config.fly_notes import CHECK, Note, empty, rest
from gateway.config.lines import KeyPath
from gateway.config.references import Sources
from gateway.config.replays import scope
from gateway.config.sections import CheckSection, ConcurrencySection, ReplayCacheSection, Section
from gateway.config.validate import read_table
from gateway.core.replay_settings import MAX_RULES, Scope

MAX_CHECKS: Final = 16
"""As many as `checks` may have."""

Value = bool | int | str | list[str]


class Setting(NamedTuple):
    """One key of moorage.toml, and the key of fly.toml that it comes from."""

    key: str
    value: Value
    source: str
    remark: str = ""


_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|ns)", re.ASCII)  # Go, time.ParseDuration
_SECONDS: Final = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_NOT_READ_IN_A_CHECK: Final = frozenset({"tls_skip_verify", "tls_server_name", "restart_limit"})
"""Said of https alone, or heard no more by Fly."""
_RULE: Final = {
    "path": "path_prefix",
    "ttl": "ttl_seconds",
    "type": "type",
    "name": "name",
    "allow_bypass": "allow_bypass",
}
"""The keys of a rule: here, and in fly.toml."""


def duration(value: object, unit_s: float) -> str | None:
    """A duration of fly.toml as moorage.toml writes it, or None for what is none.

    Text has units, as in Go. A bare number counts units of `unit_s`: seconds for `kill_timeout`, milliseconds for
    checks (Fly, "App configuration (fly.toml)"; flyctl does the same).
    """
    match value:
        case str() if len(value) <= 40 and re.fullmatch(rf"0|({_PART.pattern})+", value):
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
        case bool():
            return None
        case int() | float() if abs(value) < 1e12:
            seconds = value * unit_s
        case _:
            return None
    if not math.isfinite(seconds) or not 0 <= seconds < 1e12:
        return None
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= 2 * length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def valid(
    model: type[Section], values: Mapping[str, tuple[Value | object, KeyPath]], notes: list[Note]
) -> dict[str, object] | None:
    """Those of the values that this table of moorage.toml takes, with a note on each of the others.

    None if without the others there is no such table.
    """
    raw = {key: value for key, (value, _) in values.items()}
    table = read_table(model, raw, (), Sources({}, Path()))
    for found in table.findings:
        path = values[str(found.path[0])][1] if found.path else ()
        notes.append(Note(path, found.message, found.remedy))
    if table.section is None:
        return None
    return {key: value for key, value in raw.items() if key not in table.faulty}


def concurrency(value: object, path: KeyPath, notes: list[Note]) -> tuple[Setting, ...]:
    """An app's load limits. Fly's own defaults are connections, 20 and no hard limit."""
    limits = _limits(value, path, notes)
    rest(limits, path, ("type", "soft_limit", "hard_limit"), {}, notes)
    values: dict[str, tuple[object, KeyPath]] = {"type": (limits.get("type") or "connections", (*path, "type"))}
    for key, theirs in (("soft", "soft_limit"), ("hard", "hard_limit")):
        # 0 is what flyctl writes for a limit that is not set.
        if theirs in limits and limits[theirs] != 0:
            values[key] = (limits[theirs], (*path, theirs))
    taken = valid(ConcurrencySection, values, notes) or {}
    soft, hard = taken.get("soft"), taken.get("hard")
    if isinstance(soft, int) and isinstance(hard, int) and soft > hard:
        del taken["soft"]
        notes.append(
            Note(values["soft"][1], f"{soft} is above hard_limit, {hard}", "nothing to do: `hard` counts for both")
        )
    said = {} if limits.get("type") else {"type": "not set, and this is what Fly takes then"}
    return _settings(taken, values, said)


def _limits(value: object, path: KeyPath, notes: list[Note]) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d{1,9}),(\d{1,9})\s*", value, re.ASCII)):
        # An old form that flyctl still reads, and takes for requests.
        return {"type": "requests", "soft_limit": int(found[1]), "hard_limit": int(found[2])}
    if value is not None:
        notes.append(Note(path, f"{shown(value)} is not a table", "write { soft_limit = 20, hard_limit = 25 }"))
    return {}


def checks(value: object, path: KeyPath, notes: list[Note]) -> tuple[tuple[Setting, ...], ...]:
    """An app's checks: those that Fly makes by GET over plain HTTP."""
    found: list[tuple[Setting, ...]] = []
    for at, table in tables(value, path, notes):
        check = _check(table, at, notes)
        if check and len(found) == MAX_CHECKS:
            notes.append(Note(at, f"is one more check than the {MAX_CHECKS} of an app", "let another one ask for both"))
        elif check:
            found.append(check)
    return tuple(found)


def _check(table: dict[str, object], path: KeyPath, notes: list[Note]) -> tuple[Setting, ...]:
    times = (("interval", "interval"), ("timeout", "timeout"), ("grace", "grace_period"))
    known = {"path", "method", "protocol", *_NOT_READ_IN_A_CHECK, *(theirs for _, theirs in times)}
    if not known & table.keys():
        notes.append(Note(path, "is no check: it has no key of one", "write [[http_service.checks]]"))
        return ()
    for key, only in (("method", "GET"), ("protocol", "HTTP")):
        word = table.get(key) or only
        if not isinstance(word, str) or word.upper() != only:
            reason = f"{shown(word)} is not used to check, only {only}"
            notes.append(Note((*path, key), reason, "name a path that answers 2xx, in the app's `checks`"))
            return ()
    rest(table, path, known, CHECK, notes)
    given = not empty(table.get("path", ""))
    values: dict[str, tuple[object, KeyPath]] = {"path": (table["path"] if given else "/", (*path, "path"))}
    for key, theirs in times:
        if empty(table.get(theirs, "")):
            continue
        time = duration(table[theirs], 1e-3)
        if time is None:
            reason = f"{shown(table[theirs])} is not a duration"
            notes.append(Note((*path, theirs), reason, 'write it with a unit, such as "10s"'))
        else:
            values[key] = (time, (*path, theirs))
    said = {} if given else {"path": "not set"}
    return _settings(valid(CheckSection, values, notes) or {}, values, said)


def replay_cache(value: object, path: KeyPath, notes: list[Note]) -> tuple[tuple[Setting, ...], ...]:
    """An app's session caches. A rule with a fault is left out whole: what is left of it could be for more requests."""
    found: dict[Scope, tuple[Setting, ...]] = {}
    for at, table in tables(value, path, notes):
        rule = _rule(table, at, notes)
        if not rule:
            continue
        where = scope(rule[0].value)
        if where in found:
            notes.append(Note((*at, "path_prefix"), f"{shown(str(where))} is the path of a rule above", "keep one"))
        elif len(found) == MAX_RULES:
            notes.append(Note(at, f"is one more rule than the {MAX_RULES} of an app", "keep the ones that matter"))
        else:
            found[where] = rule
    return tuple(found.values())


def _rule(table: dict[str, object], path: KeyPath, notes: list[Note]) -> tuple[Setting, ...]:
    rest(table, path, tuple(_RULE.values()), {}, notes)
    given = not empty(table.get("path_prefix", ""))
    raw = {key: table[theirs] for key, theirs in _RULE.items() if theirs in table}
    ttl = raw.get("ttl")
    if isinstance(ttl, int) and not isinstance(ttl, bool):
        raw["ttl"] = duration(ttl, 1) or ttl
    values = {"path": (table["path_prefix"] if given else "/", (*path, "path_prefix"))}
    values |= {key: (value, (*path, _RULE[key])) for key, value in raw.items() if key != "path"}
    remedy = "say what tells its sessions apart: a cookie or a header"
    found = [Note(path, f"has no {key}", remedy) for key in ("type", "name") if key not in raw]
    taken = None if found else valid(ReplayCacheSection, values, found)
    notes += [note._replace(reason=f"{note.reason}, so this rule is left out") for note in found]
    if found or taken is None:
        return ()
    return _settings(taken, values, {} if given else {"path": "not set"})


def _settings(
    taken: Mapping[str, object], values: Mapping[str, tuple[object, KeyPath]], said: Mapping[str, str]
) -> tuple[Setting, ...]:
    return tuple(
        Setting(key, value, key_text(values[key][1]), said.get(key, ""))
        for key, value in taken.items()
        if isinstance(value, bool | int | str)
    )
