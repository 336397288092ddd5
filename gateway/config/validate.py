"""One table of the file at a time: raw values in, a section and its faults out.

A table with a fault still gives a section, made without the faulty keys, so that what must hold between keys and
between tables can be checked in the same run and every fault is reported at once.
"""

from __future__ import annotations

import difflib
import typing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.config.faults import shown
from gateway.config.lines import KeyPath
from gateway.config.references import Sources
from gateway.config.sections import AgentSettings, AppSection, GatewaySettings, InstanceSection, LimitSettings, Section
from gateway.config.unbuilt import UNBUILT

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault whose line is not known yet."""

    path: KeyPath
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Table(Generic[SectionT]):
    """A validated table: its section, and which of its keys were faulty and therefore stand at their default."""

    path: KeyPath
    section: SectionT | None
    """None when a key without a default is missing or faulty."""
    findings: tuple[Finding, ...] = ()
    faulty: frozenset[str] = field(default_factory=frozenset)


def read_table(model: type[SectionT], raw: object, path: KeyPath, sources: Sources) -> Table[SectionT]:
    """Validate the table at `path`."""
    if not isinstance(raw, dict):
        finding = Finding(path, f"{shown(raw)} is not a table", f"write [{path[-1]}] or {{ ... }}")
        return Table(path, None, (finding,))
    try:
        return Table(path, _read(model, raw, sources))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    findings = tuple(_finding(model, detail, path) for detail in errors)
    faulty = frozenset(str(detail["loc"][0]) for detail in errors)
    try:
        section = _read(model, {key: value for key, value in raw.items() if key not in faulty}, sources)
    except ValidationError:
        section = None
    return Table(path, section, findings, faulty)


def _read(model: type[SectionT], raw: dict[str, object], sources: Sources) -> SectionT:
    return model.model_validate(raw, context=sources, by_alias=True, by_name=False)


def _finding(model: type[Section], detail: ErrorDetails, table: KeyPath) -> Finding:
    loc: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
    path = (*table, *loc)
    value = detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "moorage":
            return Finding(path, context["message"], context["remedy"])
        case "extra_forbidden":
            return unknown_key(path, known_keys(_model_at(model, loc[:-1])))
        case "missing":
            return Finding(path, "is missing", f"add `{loc[-1]}`")
        case "enum":
            return Finding(
                path, f"{shown(value)} is not known", f"write {context['expected'].replace(chr(39), chr(34))}"
            )
        case "greater_than_equal":
            return Finding(path, f"{shown(value)} is too small", f"write {context['ge']} or more")
        case "less_than_equal":
            return Finding(path, f"{shown(value)} is too large", f"write {context['le']} or less")
        case "too_long":
            return Finding(path, f"has {context['actual_length']} entries", f"at most {context['max_length']} are used")
        case other:
            kind, remedy = _KINDS.get(other, ("what this key takes", "see docs/reference/configuration.md"))
            return Finding(path, f"{shown(value)} is not {kind}", remedy)


_KINDS = {
    "bool_type": ("true or false", "write true or false, without quotes"),
    "dict_type": ("a table", 'write { KEY = "value" }'),
    "int_type": ("a whole number", "write a number without quotes"),
    "model_type": ("a table", "write { ... }"),
    "string_type": ("a string", "put it in quotes"),
    "tuple_type": ("a list", "put it in [ ]"),
}


def unknown_key(path: KeyPath, known: list[str]) -> Finding:
    """The fault for a key that no table has, or that stands in the wrong one."""
    key = str(path[-1])
    for home, keys in _homes().items():
        if key in keys:
            return Finding(path, "unknown key here", f"it belongs in {home}")
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return Finding(path, "unknown key", f"did you mean `{near[0]}`?")
    for home, keys in _homes().items():
        near = difflib.get_close_matches(key, keys, n=1)
        if near:
            return Finding(path, "unknown key", f"did you mean `{near[0]}` in {home}?")
    return Finding(path, "unknown key", f"remove it; known here: {', '.join(sorted(known))}")


def _homes() -> dict[str, list[str]]:
    return {
        "[gateway]": known_keys(GatewaySettings),
        "[gateway.limits]": known_keys(LimitSettings),
        "[agent]": known_keys(AgentSettings),
        "[apps.NAME]": [*known_keys(AppSection), "instances"],
        "[[apps.NAME.instances]]": known_keys(InstanceSection),
    }


_UNBUILT_TABLES = {GatewaySettings: "gateway", LimitSettings: "gateway.limits", AppSection: "apps.*"}


def known_keys(model: type[Section]) -> list[str]:
    """The keys of a table as the file writes them, those that are not built yet included."""
    built = [info.alias or name for name, info in model.model_fields.items()]
    table = _UNBUILT_TABLES.get(model)
    return built + [row.steps()[-1] for row in UNBUILT if row.key.rpartition(".")[0] == table]


def _model_at(model: type[Section], loc: KeyPath) -> type[Section]:
    """The model of the table at `loc` inside `model`'s."""
    for part in loc:
        if isinstance(part, str):
            info = next(info for name, info in model.model_fields.items() if (info.alias or name) == part)
            model = section_of(info.annotation) or model
    return model


def section_of(annotation: object) -> type[Section] | None:
    """The section that a field's type is, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := section_of(part))), None)
