"""The keys of moorage.toml whose behaviour does not exist yet: the whole list.

Setting one of them to anything but the value that changes nothing is a fault, so that no setting is ever silently
ignored. Whoever builds a behaviour deletes its row here and adds the key to `gateway.config.sections`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.config.lines import KeyPath


@dataclass(frozen=True, slots=True)
class Unbuilt:
    """One key. `key` has `*` where an app's name stands."""

    key: str
    type: str
    meaning: str
    inert: object = None
    """The one value that may be written, because it asks for nothing; None when there is no such value."""

    def steps(self) -> list[str]:
        return self.key.split(".")


UNBUILT = (
    Unbuilt("gateway.workers", "number", "Worker processes that share the listeners.", 1),
    Unbuilt("gateway.allowed_upstreams", "list of CIDR", "Networks and ports that a record may name.", []),
    Unbuilt("gateway.limits.connections_per_client", "number", "Open connections of one client address."),
    Unbuilt("gateway.limits.streams_per_session", "number", "Open streams of one session."),
    Unbuilt("apps.*.allowed_origins", "list of string", "Origins that browsers may send requests from.", []),
)

UNBUILT_CATALOGS = frozenset({"redis+sentinel"})


@dataclass(frozen=True, slots=True)
class Found:
    """An unbuilt key that a file sets to something that asks for it."""

    path: KeyPath
    value: object
    row: Unbuilt


def take_unbuilt(document: dict[str, object]) -> list[Found]:
    """Remove every unbuilt key from `document`; return those that ask for what does not exist."""
    found: list[Found] = []
    for row in UNBUILT:
        *steps, last = row.steps()
        for path, table in _tables(document, steps):
            if last in table:
                value = table.pop(last)
                if row.inert is None or type(value) is not type(row.inert) or value != row.inert:
                    found.append(Found((*path, last), value, row))
    return found


def _tables(
    table: dict[str, object], steps: list[str], path: KeyPath = ()
) -> Iterator[tuple[KeyPath, dict[str, object]]]:
    if not steps:
        yield path, table
        return
    for key in list(table) if steps[0] == "*" else [steps[0]]:
        child = table.get(key)
        if isinstance(child, dict):
            yield from _tables(child, steps[1:], (*path, key))
