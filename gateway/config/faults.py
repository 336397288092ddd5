"""What can be wrong with a configuration file, as values: where, what, and what to do.

Every validator of this package reports through `bad`; `load` turns that, and pydantic's own findings, into faults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

from gateway.config.lines import KeyPath

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong. `line` counts from 1; `key` is empty when the whole file is meant."""

    file: str
    line: int
    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: "
        return (
            f"{where}{self.key}: {self.message}; {self.remedy}" if self.key else f"{where}{self.message}; {self.remedy}"
        )


class ConfigFaults(Exception):
    """A configuration that cannot be used, with every fault in it, in the file's order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


def bad(message: str, remedy: str) -> PydanticCustomError:
    """What a validator raises: what is wrong with the value, and what to write instead."""
    return PydanticCustomError("moorage", "{message}", {"message": message, "remedy": remedy})


def key_text(path: KeyPath) -> str:
    """A key path as the file would write it, with array positions from 0: `apps.tools.instances[1].id`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else json.dumps(part))
    return text


def shown(value: object) -> str:
    """A value in a message: as TOML, on one line, not longer than 60 characters."""
    match value:
        case bool():
            text = str(value).lower()
        case str():
            text = json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            text = "[" + ", ".join(map(shown, value[:20])) + "]"
        case dict():
            text = "{ " + ", ".join(f"{key_text((key,))} = {shown(item)}" for key, item in value.items()) + " }"
        case _:
            text = str(value)
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= 60 else text[:57] + "..."
