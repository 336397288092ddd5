"""Consistent hashing of keys onto an app's instances, on uhashring.

The ring holds every instance that traffic may use, running or asleep, so that a key keeps its instance while that
one sleeps. It is kept per app and changed by what came and went: a key moves only when its own instance does.
"""

from __future__ import annotations

from collections.abc import Iterator

from uhashring import HashRing

from gateway.core.model import AppTable, Instance

VNODES = 160
"""Points per instance; uhashring's default, under 10 % imbalance at ten instances."""


class Rings:
    """One ring per app, following the app's table."""

    def __init__(self) -> None:
        self._rings: dict[str, tuple[AppTable, frozenset[str], HashRing]] = {}

    def rank(self, table: AppTable, key: bytes) -> Iterator[Instance]:
        """The instances of an app in the order a key prefers them, each once."""
        name = table.app.name
        entry = self._rings.get(name)
        if entry is None or entry[0] is not table:
            entry = self._rings[name] = self._follow(table, entry)
        if not entry[1]:
            return
        instances = table.instances
        for node in entry[2].iterate_nodes(key.decode("latin-1")):
            yield instances[node]

    def _follow(
        self, table: AppTable, entry: tuple[AppTable, frozenset[str], HashRing] | None
    ) -> tuple[AppTable, frozenset[str], HashRing]:
        nodes = frozenset(one.id for one in (*table.placeable, *table.wakeable))
        if entry is None:
            return table, nodes, HashRing(nodes=sorted(nodes), vnodes=VNODES)
        _, before, ring = entry
        for gone in before - nodes:
            ring.remove_node(gone)
        for new in sorted(nodes - before):
            ring.add_node(new)
        return table, nodes, ring
