"""Presence in this process's memory, shared by name, and gone with the last user of the name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

from gateway.core.presence import MAX_LEASES, Lead, Lease
from gateway.log.base import LogUnavailable
from gateway.log.presence import check_gateway, check_lease, check_put, check_role, too_many

K = TypeVar("K")
V = TypeVar("V")


class MemoryBoard:
    """What a store holds. It can be given faults: `away`, `flush`."""

    def __init__(self, where: str = "memory: presence", clock: Callable[[], float] = time.monotonic) -> None:
        self.where = where
        self.clock = clock
        self.away = False
        """While set, everything asked of it raises LogUnavailable."""
        # Each value with the time at which it ends.
        self.gateways: dict[str, tuple[bytes, float]] = {}
        self.leads: dict[str, tuple[str, float]] = {}
        self.leases: dict[tuple[str, str, str], tuple[None, float]] = {}

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self.gateways.clear()
        self.leads.clear()
        self.leases.clear()

    def live(self, values: dict[K, tuple[V, float]]) -> dict[K, tuple[V, float]]:
        """The values, without those whose time is over."""
        now_s = self.clock()
        for key in [key for key, (_, ends_s) in values.items() if ends_s <= now_s]:
            del values[key]
        return values


_boards: WeakValueDictionary[str, MemoryBoard] = WeakValueDictionary()


class MemoryPresence:
    """See Presence."""

    def __init__(self, board: MemoryBoard | None = None) -> None:
        self.board = board if board is not None else MemoryBoard()
        self.where = self.board.where
        self._closed = False

    @classmethod
    def named(cls, catalog: str) -> MemoryPresence:
        """The presence that this process shares under this name."""
        board = _boards.get(catalog)
        if board is None:
            board = _boards[catalog] = MemoryBoard(f"memory:{catalog} presence")
        return cls(board)

    async def put(self, gateway: str, message: bytes, ttl_s: float) -> None:
        check_put(gateway, message, ttl_s)
        board = self._reachable()
        board.live(board.gateways)[gateway] = (message, board.clock() + ttl_s)

    async def all(self) -> Mapping[str, bytes]:
        board = self._reachable()
        return {gateway: message for gateway, (message, _) in board.live(board.gateways).items()}

    async def drop(self, gateway: str) -> None:
        check_gateway(gateway)
        self._reachable().gateways.pop(gateway, None)

    async def lead(self, role: str, holder: str, ttl_s: float) -> Lead:
        check_role(role, holder, ttl_s)
        board = self._reachable()
        leads = board.live(board.leads)
        has, _ = leads.get(role, ("", 0.0))
        if has and has != holder:
            return Lead.NO
        leads[role] = (holder, board.clock() + ttl_s)
        return Lead.KEPT if has else Lead.TAKEN

    async def resign(self, role: str, holder: str) -> None:
        check_role(role, holder)
        leads = self._reachable().leads
        if leads.get(role, ("", 0.0))[0] == holder:
            del leads[role]

    async def hold(self, app: str, id: str, name: str, expires_in_s: float, *, replace: bool) -> bool:
        check_lease(app, id, name, expires_in_s)
        board = self._reachable()
        leases = board.live(board.leases)
        if (app, id, name) in leases:
            if not replace:
                return False
        elif sum(key[:2] == (app, id) for key in leases) >= MAX_LEASES:
            raise too_many(app, id)
        leases[app, id, name] = (None, board.clock() + expires_in_s)
        return True

    async def release(self, app: str, id: str, name: str) -> bool:
        check_lease(app, id, name)
        board = self._reachable()
        return board.live(board.leases).pop((app, id, name), None) is not None

    async def held(self, app: str | None = None) -> Sequence[Lease]:
        board = self._reachable()
        now_s, leases = board.clock(), board.live(board.leases)
        return [Lease(*key, ends_s - now_s) for key, (_, ends_s) in sorted(leases.items()) if app in (None, key[0])]

    async def aclose(self) -> None:
        self._closed = True

    def _reachable(self) -> MemoryBoard:
        if self._closed or self.board.away:
            raise LogUnavailable(self.where, "it is closed" if self._closed else "it is switched off", "open it again")
        return self.board
