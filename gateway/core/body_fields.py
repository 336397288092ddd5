"""Single fields of a record's body: from whatever JSON holds to a value, or Wrong.

Used by the readers of whole bodies (`gateway.core.bodies`), which turn Wrong into a BadRecord.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, TypeVar

MAX_COUNT: Final = 10_000_000
MAX_SECONDS: Final = 366 * 86400.0
MAX_LIST: Final = 1000
"""Hosts, key rules or checks of one app."""

NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""An app, an org or a region."""
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 5.6.2
PATH: Final = re.compile(r"/[\x21\x22\x24-\x3e\x40-\x7e]*", re.ASCII)  # origin form, no query (RFC 9112 3.2.1)

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
"""In lower case; no longer than MAX_HOST."""
MAX_HOST: Final = 253

_Word = TypeVar("_Word", bound=StrEnum)
_Item = TypeVar("_Item")


class Wrong(Exception):
    """A field of a body cannot be used; never leaves the function that parses the body."""


def boolean(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return value
    raise Wrong(f"{name} is not true or false")


def matching(value: object, name: str, pattern: re.Pattern[str]) -> str:
    """A string that the whole of `pattern` matches."""
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise Wrong(f"{name} {shown(value)} is not usable")


def word(value: object, name: str, words: type[_Word]) -> _Word:
    """One of a closed set."""
    # The member map: calling the enum costs three times as much, and this runs for every record.
    member = words._value2member_map_.get(value) if isinstance(value, str) else None
    if isinstance(member, words):
        return member
    raise Wrong(f"{name} {shown(value)} is none of {', '.join(words)}")


def count(value: object, name: str, least: int = 1) -> int:
    if type(value) is int and least <= value <= MAX_COUNT:
        return value
    raise Wrong(f"{name} {shown(value)} is not a whole number from {least} to {MAX_COUNT}")


def seconds(value: object, name: str, least: float = 0.0) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= MAX_SECONDS:
        return float(value)
    raise Wrong(f"{name} {shown(value)} is not a usable number of seconds")


def items(value: object, name: str, item: Callable[[object], _Item], most: int = MAX_LIST) -> tuple[_Item, ...]:
    """A list of at most `most` items, each read by `item`."""
    if not isinstance(value, list) or len(value) > most:
        raise Wrong(f"{name} is not a list of at most {most}")
    return tuple(item(each) for each in value)


def table(value: object, name: str) -> Mapping[str, object]:
    if isinstance(value, dict):
        return value
    raise Wrong(f"{name} is not an object")


def is_host(text: str) -> bool:
    """Whether it is one host as a request's head gives it: a lower-case name or IPv4 address, or `[IPv6]`."""
    if len(text) > MAX_HOST:
        return False
    if text.startswith("[") and text.endswith("]"):
        return ip_version(text[1:-1]) == 6
    return HOST_NAME.fullmatch(text) is not None


def ip_version(text: str) -> int:
    """4 or 6; 0 for what is no IP address. A zone (RFC 4007) is not taken: it means something on one machine only."""
    try:
        return 0 if "%" in text else ipaddress.ip_address(text).version
    except ValueError:
        return 0


def shown(value: object) -> str:
    """A value for a message: short, and on one line."""
    text = ascii(value) if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
