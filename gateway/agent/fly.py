"""The Fly driver: instances are Fly Machines that exist already. It starts, stops and suspends them, and polls their
apps.

A spec's target is `<app>/<machine id>`; the address is the machine's private (6PN) one. Machines are neither created
nor changed. Built after Fly's documentation and tried against a server of this project's own; see docs/howto/fly.md.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from gateway.agent.base import DriverError, Failure, FailureKind, InstanceKey, Observed, Running, Spec
from gateway.agent.fly_api import FlyApi
from gateway.agent.fly_machine import Condition, Life, Machine, failure_of, life_of, stuck_after_s
from gateway.agent.rest import ApiError
from gateway.agent.sightings import Sightings
from gateway.agent.tempo import Tempo
from gateway.core.model import Address

logger = structlog.get_logger(__name__)

POLL_S: Final = 3.0
LIMIT_S: Final = 120.0
WAIT_S: Final = 15
"""One wait. Fly allows 60 s; between waits the machine is looked at, so that one that failed costs no minute."""
AGAIN_S: Final = 1.0
"""Before what was refused for the machine's state is asked for again."""
STOP_SIGNAL: Final = "SIGTERM"

_TARGET: Final = re.compile(r"([a-z0-9][a-z0-9-]*)/([a-z0-9]+)")
_NOT_NOW: Final = {409, 412}
"""Leased by somebody (a deploy), or not possible in its state: both pass."""
_NOT_ELIGIBLE: Final = {400, 412, 422, 501}


@dataclass(slots=True)
class _Known:
    """One machine this driver is responsible for."""

    spec: Spec
    app: str
    id: str
    life: Life | None = None
    state: str = ""
    since_s: float = 0.0
    """When `state` was seen for the first time."""
    remarks: set[str] = field(default_factory=set)
    """What was logged of this state."""

    @property
    def key(self) -> InstanceKey:
        return self.spec.key

    def found_in(self, state: str, now_s: float) -> None:
        if state != self.state or not self.since_s:
            self.state, self.since_s = state, now_s
            self.remarks.clear()

    def stuck_s(self, now_s: float) -> float:
        """How long it is stuck in its state; 0 when it is not."""
        limit_s = stuck_after_s(self.state) if self.state else None
        in_it_s = now_s - self.since_s
        return in_it_s if limit_s is not None and in_it_s > limit_s else 0.0


class FlyDriver:
    """Closing it leaves every machine as it is.

    Args:
        specs: machines to look at from the first `refresh` on; others are known once they are started.
        limit_s: how long a start, a suspend, or a stop beyond its grace may take before it is given up. What the
            machine does later is seen.
    """

    def __init__(
        self,
        api: FlyApi,
        specs: Iterable[Spec] = (),
        *,
        tempo: Tempo | None = None,
        limit_s: float = LIMIT_S,
        poll_s: float = POLL_S,
    ) -> None:
        self._api = api
        self._tempo = tempo or Tempo()
        self._limit_s = limit_s
        self._poll_s = poll_s
        self._known: dict[InstanceKey, _Known] = {}
        self._sightings = Sightings()
        self._away: set[str] = set()
        """Apps that could not be listed the last time."""
        for spec in specs:
            self.know(spec)

    def __repr__(self) -> str:
        return f"<FlyDriver machines={len(self._known)}>"

    @property
    def startable(self) -> bool:
        return True

    @property
    def suspendable(self) -> bool:
        return True

    def know(self, spec: Spec) -> None:
        """Look at this machine from now on. Raises ValueError when its target is not `<app>/<machine id>`."""
        target = _TARGET.fullmatch(spec.target)
        if target is None:
            raise ValueError(f"instance {spec.key}: {spec.target!r} is not <Fly app>/<machine id>")
        known = self._known.get(spec.key)
        if known is None or known.spec.target != spec.target:
            self._known[spec.key] = _Known(spec, target[1], target[2])
            self._sightings.settle(spec.key, None)
        else:
            known.spec = spec

    # --- starts ------------------------------------------------------------------------

    async def start(self, spec: Spec, incarnation: str) -> Running:
        try:
            self.know(spec)
        except ValueError as error:
            raise DriverError(Failure(FailureKind.REFUSED, f"{spec.key} has no machine", str(error))) from error
        known = self._known[spec.key]
        with self._sightings.acting(spec.key), _explained(spec.key, "start"):
            machine, from_suspended = await self._bring_up(known)
            observed = self._observe(known, machine, from_suspended)
            if observed is None or observed.address is None:
                text = f"{spec.key} has no private address"
                raise DriverError(Failure(FailureKind.REFUSED, text, _detail(machine)))
            self._sightings.settle(spec.key, observed)
            return Running(observed.address, observed.incarnation)

    async def _bring_up(self, known: _Known) -> tuple[Machine, bool | None]:
        """The machine, started, and whether it came from `suspended`, as far as Fly says."""
        deadline_s = self._tempo.now_s() + self._limit_s
        from_suspended: bool | None = None
        asked = False
        while True:
            machine = await self._api.machine(known.app, known.id)
            if machine.condition is Condition.UP:
                return machine, from_suspended
            if machine.condition is Condition.GONE or (asked and machine.condition is Condition.DOWN):
                text = f"{known.key} did not start"
                raise DriverError(failure_of(known.key, machine) or Failure(FailureKind.EXITED, text, _detail(machine)))
            if self._tempo.now_s() >= deadline_s:
                text = f"{known.key} was not started within {self._limit_s:g} s"
                raise DriverError(Failure(FailureKind.REFUSED, text, _detail(machine)))
            if not asked:
                try:
                    from_suspended = (await self._api.start(known.app, known.id)).from_suspended
                except ApiError as error:
                    if error.status not in _NOT_NOW:
                        raise
                    await self._tempo.pause(AGAIN_S)
                    continue
                asked = True
            await self._api.wait(known.app, machine, "started", WAIT_S)

    # --- stops -------------------------------------------------------------------------

    async def stop(self, key: InstanceKey, grace_s: float) -> None:
        known = self._known.get(key)
        if known is None:
            return
        with self._sightings.acting(key):
            try:
                with _explained(key, "stop"):
                    await self._bring_down(known, grace_s)
            except DriverError as error:
                if _is_absent(error):
                    self._sightings.settle(key, None)
                    return
                # Whoever asked takes it for stopped: it is to be told what is.
                self._sightings.tell(key)
                raise
            self._sightings.settle(key, None)
            if known.life is not None:
                known.life = replace(known.life, frozen=False)

    async def _bring_down(self, known: _Known, grace_s: float) -> None:
        deadline_s = self._tempo.now_s() + grace_s + self._limit_s
        asked = False
        while True:
            machine = await self._api.machine(known.app, known.id)
            if machine.condition in {Condition.DOWN, Condition.GONE}:
                return
            if self._tempo.now_s() >= deadline_s:
                raise DriverError(Failure(FailureKind.REFUSED, f"{known.key} did not stop in time", _detail(machine)))
            if not asked and machine.state != "stopping":
                try:
                    await self._api.stop(known.app, known.id, STOP_SIGNAL if grace_s > 0 else "SIGKILL", grace_s)
                except ApiError as error:
                    if error.status not in _NOT_NOW:
                        raise
                    await self._tempo.pause(AGAIN_S)
                    continue
                asked = True
            await self._api.wait(known.app, machine, "stopped", WAIT_S)

    async def suspend(self, key: InstanceKey) -> None:
        known = self._known.get(key)
        if known is None:
            raise DriverError(Failure(FailureKind.NOT_SUSPENDABLE, f"{key} does not run"))
        with self._sightings.acting(key):
            try:
                with _explained(key, "suspend"):
                    machine = await self._freeze(known)
            except DriverError:
                # Whoever asked looks at once at what it is now.
                with contextlib.suppress(ApiError):
                    machine = await self._api.machine(known.app, known.id)
                    self._sightings.settle(key, self._observe(known, machine))
                raise
            self._sightings.settle(key, self._observe(known, machine))

    async def _freeze(self, known: _Known) -> Machine:
        deadline_s = self._tempo.now_s() + self._limit_s
        machine = await self._api.machine(known.app, known.id)
        if machine.condition is Condition.UP:
            try:
                await self._api.suspend(known.app, known.id)
            except ApiError as error:
                if error.status not in _NOT_ELIGIBLE:
                    raise
                hint = "Fly suspends machines of at most 2 GB memory, without swap and schedule"
                text = f"{known.key} cannot be suspended: its machine is not eligible"
                raise DriverError(Failure(FailureKind.NOT_SUSPENDABLE, text, f"{error}; {hint}")) from error
            await self._api.wait(known.app, machine, "suspended", WAIT_S)
            machine = await self._api.machine(known.app, known.id)
        while machine.state == "suspending" and self._tempo.now_s() < deadline_s:
            await self._api.wait(known.app, machine, "suspended", WAIT_S)
            machine = await self._api.machine(known.app, known.id)
        if machine.state != "suspended":
            text = f"{known.key} was not suspended: its machine is {machine.state}"
            raise DriverError(Failure(FailureKind.NOT_SUSPENDABLE, text, _detail(machine)))
        return machine

    # --- seeing ------------------------------------------------------------------------

    async def refresh(self) -> None:
        """One list per app."""
        failures = []
        for app in sorted({known.app for known in self._known.values()}):
            asked = self._sightings.moment
            try:
                machines = {machine.id: machine for machine in await self._api.machines(app)}
            except ApiError as error:
                failures.append(Failure(FailureKind.REFUSED, f"the machines of {app} are not known now", str(error)))
                if app not in self._away:
                    self._away.add(app)
                    logger.warning("fly machines cannot be listed", app=app, error=str(error))
                continue
            if app in self._away:
                self._away.discard(app)
                logger.info("fly machines can be listed again", app=app)
            for known in list(self._known.values()):
                if known.app == app:
                    self._see(known, machines.get(known.id), asked)
        if failures:
            raise DriverError(failures[0])

    def _see(self, known: _Known, machine: Machine | None, asked: int) -> None:
        if not self._sightings.counts(known.key, asked):
            return
        if machine is None:
            known.found_in("", self._tempo.now_s())
            self._remark(known, "fly machine does not exist")
            observed = self._ended(known, None)
        else:
            observed = self._observe(known, machine)
            if known.stuck_s(self._tempo.now_s()):
                self._remark(known, "fly machine is stuck")
        self._sightings.see(known.key, observed, asked)

    def _observe(self, known: _Known, machine: Machine, from_suspended: bool | None = None) -> Observed | None:
        """What is to be said of a machine. None: nothing of it runs, nor was seen to run before."""
        known.found_in(machine.state, self._tempo.now_s())
        life = known.life = life_of(machine, known.life, from_suspended)
        detail = _detail(machine)
        if stuck_s := known.stuck_s(self._tempo.now_s()):
            detail += f", for {stuck_s:.0f} s: stuck"
        match machine.condition:
            case Condition.UP if machine.private_ip:
                address = Address(machine.private_ip, known.spec.port)
                return Observed(known.key, life.incarnation, running=True, address=address, detail=detail)
            case Condition.FROZEN:
                return Observed(known.key, life.incarnation, running=False, suspended=True, detail=detail)
            case Condition.UP | Condition.MOVING:
                return Observed(known.key, life.incarnation, running=False, detail=detail)
            case Condition.DOWN | Condition.GONE:
                return self._ended(known, machine)

    def _ended(self, known: _Known, machine: Machine | None) -> Observed | None:
        before = self._sightings.inspect(known.key)
        if before is None:
            return None
        detail = _detail(machine) if machine is not None else "its machine does not exist"
        failure = failure_of(known.key, machine)
        return Observed(known.key, before.incarnation, running=False, failure=failure, detail=detail)

    def _remark(self, known: _Known, event: str) -> None:
        """Log it once for the state it is in."""
        if event not in known.remarks:
            known.remarks.add(event)
            logger.warning(event, instance=str(known.key), machine=known.spec.target, state=known.state)

    def inspect(self, key: InstanceKey) -> Observed | None:
        return self._sightings.inspect(key)

    def list(self) -> Sequence[Observed]:
        return self._sightings.list()

    async def watch(self) -> AsyncGenerator[Observed, None]:
        """By polling: a change is told up to `poll_s` late."""
        while True:
            for observed in self._sightings.news():
                yield observed
            try:
                async with self._tempo.limit(self._poll_s):
                    await self._sightings.wait()
            except TimeoutError:
                with contextlib.suppress(DriverError):  # logged there
                    await self.refresh()

    async def aclose(self) -> None:
        await self._api.aclose()


def _detail(machine: Machine) -> str:
    return f"machine {machine.id} version {machine.instance_id} is {machine.state}"


def _is_absent(error: DriverError) -> bool:
    return isinstance(error.__cause__, ApiError) and error.__cause__.status == 404


@contextlib.contextmanager
def _explained(key: InstanceKey, verb: str) -> Iterator[None]:
    """Raise DriverError for an ApiError, in words for whoever asked."""
    try:
        yield
    except ApiError as error:
        match error.status:
            case 401 | 403:
                text = f"the Fly token may not {verb} {key}; it needs a deploy token of the machine's app"
            case 404:
                text = f"{key}: Fly knows no such machine, or not to this token"
            case 429:
                text = f"{key}: Fly's rate limit is used up"
            case 0:
                text = f"{key}: the Machines API could not be asked to {verb} it"
            case _:
                text = f"{key}: the Machines API would not {verb} it"
        raise DriverError(Failure(FailureKind.REFUSED, text, str(error))) from error
