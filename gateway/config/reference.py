"""docs/reference/configuration.md, made from the models: every key, its type, its default and what it means.

`scripts/docs` writes the page; a test fails when it has drifted.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from enum import StrEnum

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.config.faults import shown
from gateway.config.sections import (
    AgentSettings,
    AppSection,
    CheckSection,
    ConcurrencySection,
    GatewaySettings,
    InstanceSection,
    LimitSettings,
    ReplayCacheSection,
    Section,
)
from gateway.config.unbuilt import UNBUILT, UNBUILT_CATALOGS, Unbuilt
from gateway.config.validate import section_of
from gateway.config.values import Written
from gateway.core.model import Address
from gateway.core.replay_settings import Scope

_TABLES: tuple[tuple[str, str, type[Section]], ...] = (
    ("[gateway]", "gateway", GatewaySettings),
    ("[gateway.limits]", "gateway.limits", LimitSettings),
    ("[agent]", "agent", AgentSettings),
    ("[apps.NAME]", "apps.*", AppSection),
    ("[apps.NAME.concurrency]", "", ConcurrencySection),
    ("[[apps.NAME.checks]]", "", CheckSection),
    ("[[apps.NAME.replay_cache]]", "", ReplayCacheSection),
    ("[[apps.NAME.instances]]", "", InstanceSection),
)

_HEAD = """\
# Configuration

<!-- Made by scripts/docs from gateway/config/sections.py. Change it there. -->

One TOML file, `moorage.toml` by default. `moorage check -c FILE` prints every fault in it at once, each with its
line, its key and a remedy. Unknown keys are faults. Only `apps` has no default.
[examples/moorage.toml](../../examples/moorage.toml) is a file to start from.

How values are written:

- **duration**: seconds as a number, or text with units: `"250ms"`, `"90s"`, `"5m"`, `"1h30m"`.
- **size**: bytes as a number, or text with a unit: `"64KiB"`, `"1MiB"`.
- **host:port**: `"127.0.0.1:8080"`, `"[::1]:8080"`, `"db.internal:6379"`.
- **secret**: the text itself, or better a reference: `"env:NAME"` reads an environment variable, `"file:PATH"` a file.
  The password in a `catalog` URL, and the whole URL, can be references too. No message and no log shows a secret.
- **name**: `a-z`, `0-9` and `-`, at most 63 characters. Instance ids may have capitals and 64 characters.
- Relative paths start at the folder of the configuration file.
"""


def render() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, prefix, model in _TABLES:
        parts.append(f"\n## `{title}`\n\n{_paragraph(model.__doc__ or '')}\n\n{_table(model)}")
        unbuilt = [row for row in UNBUILT if row.key.rpartition(".")[0] == prefix]
        if unbuilt:
            parts.append(f"\nNot built yet; {_REFUSED}:\n\n{_unbuilt_table(unbuilt)}")
    schemes = ", ".join(f"`{scheme}://`" for scheme in sorted(UNBUILT_CATALOGS))
    parts.append(f"\n## Catalogs that are not built yet\n\n{schemes}\n")
    return "".join(parts)


_REFUSED = "`moorage check` refuses them, except for the value that changes nothing"


def _table(model: type[Section]) -> str:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, info in model.model_fields.items():
        kind = " or ".join(dict.fromkeys(_kinds(info.annotation, info.metadata)))
        meaning = _paragraph(info.description or "")
        rows.append(f"| `{info.alias or name}` | {_cell(kind)} | {_default(info)} | {_cell(meaning)} |")
    return "\n".join(rows) + "\n"


def _unbuilt_table(rows: list[Unbuilt]) -> str:
    lines = ["| key | type | changes nothing | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        inert = "" if row.inert is None else f"`{shown(row.inert)}`"
        lines.append(f"| `{row.steps()[-1]}` | {_cell(row.type)} | {inert} | {_cell(row.meaning)} |")
    return "\n".join(lines) + "\n"


def _kinds(annotation: object, metadata: typing.Sequence[object] = ()) -> Iterator[str]:
    """The words for a type: those of its `Written` mark, or of TOML."""
    marks = [mark for mark in metadata if isinstance(mark, Written)]
    if marks:
        yield marks[0].type
        return
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _kinds(args[0], args[1:])
    elif origin is tuple:
        yield f"list of {' or '.join(_kinds(args[0]))}"
    elif origin is dict:
        yield f"table of {' or '.join(_kinds(args[1]))}"
    elif origin in (typing.Union, types.UnionType):
        for part in args:
            if part is not type(None):
                yield from _kinds(part)
    elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
        yield " | ".join(annotation)
    elif section_of(annotation):
        yield "table"
    else:
        raise TypeError(f"{annotation} has no Written mark")


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None or isinstance(value, Section):
        return ""
    if isinstance(value, Address | Scope):
        value = str(value)
    elif any(isinstance(mark, Written) and mark.type == "duration" for mark in info.metadata):
        value = _duration(value)
    elif any(isinstance(mark, Written) and mark.type == "size" for mark in info.metadata):
        value = _size(value)
    return f"`{shown(value)}`" if value != {} else "`{}`"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= 2 * length and seconds % length == 0:  # "60s", "2m"
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _size(length: int) -> str | int:
    for unit, bytes_ in (("MiB", 1024**2), ("KiB", 1024)):
        if length and length % bytes_ == 0:
            return f"{length // bytes_}{unit}"
    return length


def _paragraph(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(render())
