"""Short ways to make the values that the core's tests are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.head import RequestHead, parse_request
from gateway.core.model import Address, App, AppTable, Instance


def head(method: str = "GET", target: str = "/", /, **fields: str | bytes) -> RequestHead:
    """A parsed request head; `mcp_session_id="x"` becomes the field `mcp-session-id: x`."""
    lines = [f"{method} {target} HTTP/1.1".encode(), b"host: tools.localhost"]
    for name, value in fields.items():
        lines.append(name.replace("_", "-").encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    parsed = parse_request(b"\r\n".join(lines) + b"\r\n\r\n")
    assert isinstance(parsed, RequestHead), parsed
    return parsed


def app(**settings: Any) -> App:
    return App("tools", **settings)


def instance(id: str = "i-1", /, **settings: Any) -> Instance:
    """A running instance. In other states too it has the address it had, or will have."""
    settings.setdefault("incarnation", "k3j9")
    settings.setdefault("address", Address("10.0.0.1", 9001))
    return Instance("tools", id, **settings)


def table(*instances: Instance, region: str = "local", **settings: Any) -> AppTable:
    """A table that sorts its instances as the catalog does."""
    of_app = app(**settings)
    return AppTable(
        of_app,
        {one.id: one for one in instances},
        tuple(one for one in instances if one.running and one.healthy and not one.cordoned),
        tuple(one for one in instances if not one.running and one.wakeable and not one.cordoned),
        region,
    )


class Seen:
    """A View with given facts; everything else is idle and well. Ranks by id, or as `order` says."""

    def __init__(
        self,
        loads: Mapping[str, int] | None = None,
        hard: Mapping[str, int] | None = None,
        suspects: frozenset[str] = frozenset(),
        order: tuple[str, ...] = (),
        turns: Mapping[str, int] | None = None,
    ) -> None:
        self._turns = turns or {}
        self._loads = loads or {}
        self._hard = hard or {}
        self._suspects = suspects
        self._order = order
        self.asked_for: list[bytes] = []

    def load(self, instance: Instance) -> int:
        return self._loads.get(instance.id, 0)

    def hard_load(self, instance: Instance) -> int:
        return self._hard.get(instance.id, 0)

    def suspect(self, instance: Instance) -> bool:
        return instance.id in self._suspects

    def turn(self, instance: Instance) -> int:
        return self._turns.get(instance.id, 0)

    def rank(self, table: AppTable, key: bytes) -> list[Instance]:
        self.asked_for.append(key)
        candidates = sorted((*table.placeable, *table.wakeable), key=lambda one: one.id)
        return sorted(candidates, key=lambda one: self._order.index(one.id)) if self._order else candidates
