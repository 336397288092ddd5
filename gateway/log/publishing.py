"""Publishing into several logs at once: apps into the global one, instances into their region's.

Every record is also folded into this gateway's own catalog in the moment it is published: what it serves itself does
not wait for the log, and goes on while the log is away. Last writer wins makes the echo from the log harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.core.catalog import LOCAL, Catalog
from gateway.core.record import RecordKind
from gateway.log.base import GLOBAL
from gateway.log.publisher import Publisher


class Publishing:
    """One writer's records, each to its log. Implements what agents and sources publish to."""

    def __init__(self, catalog: Catalog, region: str, publisher_of: Callable[[str], Publisher]) -> None:
        """`publisher_of` gives this writer's publisher for a log's name."""
        self._catalog = catalog
        self._region = region
        self._publisher_of = publisher_of
        self._log_of: dict[str, str] = {}

    def put(self, kind: str, id: str, body: Mapping[str, object]) -> None:
        """Publish the whole of a record. Raises ValueError for what no reader would take."""
        log = GLOBAL if kind == RecordKind.APP else str(body.get("region", self._region))
        self._log_of[f"{kind}/{id}"] = log
        publisher = self._publisher_of(log)
        publisher.put(kind, id, body)
        self._fold(publisher, kind, id)

    def delete(self, kind: str, id: str) -> None:
        """Publish that there is no such thing any more."""
        log = self._log_of.pop(f"{kind}/{id}", "") or self._log_held(kind, id)
        publisher = self._publisher_of(log)
        publisher.delete(kind, id)
        self._fold(publisher, kind, id)

    def _log_held(self, kind: str, id: str) -> str:
        """Where an earlier life of this writer put a record."""
        if kind == RecordKind.APP:
            return GLOBAL
        held = self._catalog.record(f"{kind}/{id}")
        return str(held.body.get("region", self._region)) if held is not None else self._region

    def _fold(self, publisher: Publisher, kind: str, id: str) -> None:
        record = publisher.record(kind, id)
        if record is not None:
            self._catalog.fold(record, source=LOCAL)
