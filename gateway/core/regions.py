"""Ordered lists of regions, as replays and steering headers name them.

Fly's page "Dynamic request routing" (lists, groups and `any`), its page "Regions" for the codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

ANY: Final = "any"
MAX_REGIONS: Final = 32
MAX_LIST_BYTES: Final = 1024

Regions = tuple[frozenset[str] | None, ...]
"""Places to try, in order: the regions that are as good as each other, or None for any region."""

_US = ("atl", "bos", "den", "dfw", "ewr", "iad", "lax", "mia", "ord", "phx", "sea", "sjc", "vin")

# Codes that Fly has retired stay in: an instance may bear any name, and these say where it is.
DEFAULT_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "apac": ("bom", "hkg", "maa", "nrt", "sin", "syd"),
    "eu": ("ams", "arn", "cdg", "fra", "lhr", "mad", "mrs", "otp", "waw"),
    "na": (*_US, "gdl", "qro", "yul", "yyz"),
    "sa": ("bog", "eze", "gig", "gru", "scl"),
    "us": _US,
    "usa": _US,
}
"""Fly's groups of its region codes. `jnb` is in none: Fly has no group for Africa."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def region_names(text: bytes | str) -> tuple[str, ...] | None:
    """The names of a comma list in lower case, groups and `any` among them; None if it is malformed or empty.

    Blanks around names are ignored. At most MAX_REGIONS names and MAX_LIST_BYTES in all.
    """
    if len(text) > MAX_LIST_BYTES or not text.isascii():
        return None
    listed = text.decode("ascii") if isinstance(text, bytes) else text
    names = tuple(part.strip(" \t") for part in listed.lower().split(","))
    if len(names) > MAX_REGIONS or not all(map(_NAME.fullmatch, names)):
        return None
    return names


def resolve_regions(names: tuple[str, ...], groups: Mapping[str, tuple[str, ...]]) -> Regions:
    """What the names stand for; a name that is no group is a region. Nothing is left to try after `any`.

    Args:
        groups: all that there are, the configured ones laid over DEFAULT_GROUPS.
    """
    places: list[frozenset[str] | None] = []
    for name in names:
        if name == ANY:
            places.append(None)
            break
        places.append(frozenset(groups.get(name, (name,))))
    return tuple(places)


def parse_regions(text: bytes | str, groups: Mapping[str, tuple[str, ...]]) -> Regions | None:
    """What a comma list stands for; None if it is malformed or empty. Never raises."""
    names = region_names(text)
    return None if names is None else resolve_regions(names, groups)
