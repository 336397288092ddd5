"""The static driver: instances that run by themselves at a plain address. It starts and stops nothing.

Whether such an instance answers is known from the agent's checks only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from gateway.agent.base import DriverError, Failure, FailureKind, InstanceKey, Observed, Running, Spec


class StaticDriver:
    """Remembers which addresses it was given, so that it keeps the Driver contract."""

    def __init__(self) -> None:
        self._known: dict[InstanceKey, Observed] = {}

    @property
    def startable(self) -> bool:
        return False

    @property
    def suspendable(self) -> bool:
        return False

    async def start(self, spec: Spec, incarnation: str) -> Running:
        if spec.address is None:
            raise DriverError(Failure(FailureKind.NOT_STARTABLE, f"{spec.key} has no address"))
        known = self._known.get(spec.key)
        if known is not None and known.incarnation != incarnation:
            text = f"{spec.key} is known as incarnation {known.incarnation}; stop it before {incarnation} is started"
            raise DriverError(Failure(FailureKind.REFUSED, text))
        self._known[spec.key] = Observed(spec.key, incarnation, running=True, address=spec.address, detail="address")
        return Running(spec.address, incarnation)

    async def suspend(self, key: InstanceKey) -> None:
        raise DriverError(Failure(FailureKind.NOT_SUSPENDABLE, f"{key} is a plain address: nothing here can freeze it"))

    async def refresh(self) -> None:
        """There is nothing to ask."""

    async def stop(self, key: InstanceKey, grace_s: float) -> None:
        self._known.pop(key, None)

    def inspect(self, key: InstanceKey) -> Observed | None:
        return self._known.get(key)

    def list(self) -> Sequence[Observed]:
        return list(self._known.values())

    async def watch(self) -> AsyncGenerator[Observed, None]:
        """Never yields: nobody tells when a plain address goes away."""
        await asyncio.get_running_loop().create_future()
        nothing: tuple[Observed, ...] = ()
        for observed in nothing:
            yield observed

    async def aclose(self) -> None:
        self._known.clear()
