"""The part of the Fly Machines API that the driver uses, within its rate limits.

Paths, states and limits as in Fly's pages "Working with the Machines API" and "Machines resource". Nothing is created,
changed or deleted here: machines are listed, looked at, waited for, started, stopped and suspended.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pydantic import BaseModel, RootModel

from gateway.agent.fly_machine import CONDITIONS, Condition, Machine
from gateway.agent.rest import ANSWER_S, ApiError, Rest, read
from gateway.agent.tempo import Tempo

PUBLIC_URL: Final = "https://api.machines.dev"
INTERNAL_URL: Final = "http://_api.internal:4280"
"""From within the organisation's private network."""


class Pace(NamedTuple):
    """How often something may be asked."""

    per_s: float
    burst: int


ACTIONS: Final = Pace(1.0, 2)
"""Per action and machine. Fly allows a burst of 3: one less, so that calls which the network pushes together pass."""
LOOKS: Final = Pace(5.0, 8)
"""For Get Machine; Fly allows 10."""

MAX_WAIT_S: Final = 60
MAX_STOP_S: Final = 300
"""Fly's longest kill_timeout."""


class Bucket:
    """A token bucket in which whoever comes first goes first."""

    def __init__(self, pace: Pace, tempo: Tempo) -> None:
        self._pace = pace
        self._tempo = tempo
        self._left = float(pace.burst)
        self._at_s = tempo.now_s()

    async def take(self) -> None:
        """Return when one more call is within the pace."""
        now_s = self._tempo.now_s()
        self._left = min(self._pace.burst, self._left + (now_s - self._at_s) * self._pace.per_s)
        self._at_s = now_s
        self._left -= 1.0
        if self._left < 0.0:
            await self._tempo.pause(-self._left / self._pace.per_s)


class Began(BaseModel):
    """The answer to a start."""

    previous_state: str = ""
    migrated: bool = False
    """To another host, without its snapshot."""

    @property
    def from_suspended(self) -> bool | None:
        """Whether it went on from a snapshot, as far as Fly tells; None when it ran already."""
        if self.migrated or CONDITIONS.get(self.previous_state) is Condition.DOWN:
            return False
        return True if CONDITIONS.get(self.previous_state) is Condition.FROZEN else None


class _Machines(RootModel[tuple[Machine, ...]]):
    pass


class FlyApi:
    """One token's view of the API. Every call raises ApiError; app and machine are names as Fly makes them."""

    def __init__(self, token: str, *, url: str = PUBLIC_URL, tempo: Tempo | None = None) -> None:
        self._tempo = tempo or Tempo()
        self._rest = Rest(url, lambda: token, self._tempo)
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def __repr__(self) -> str:
        return f"<FlyApi {self._rest!r}>"

    async def machines(self, app: str) -> tuple[Machine, ...]:
        """Every machine of the app that is not destroyed."""
        path = f"/v1/apps/{app}/machines"
        response = await self._rest.ask("GET", path, before=self._bucket("list", app).take)
        return read(_Machines, response.content, f"GET {path}").root

    async def machine(self, app: str, id: str) -> Machine:
        path = f"/v1/apps/{app}/machines/{id}"
        response = await self._rest.ask("GET", path, before=self._bucket("get", id, LOOKS).take)
        return read(Machine, response.content, f"GET {path}")

    async def start(self, app: str, id: str) -> Began:
        path = f"/v1/apps/{app}/machines/{id}/start"
        response = await self._rest.ask("POST", path, before=self._bucket("start", id).take)
        return read(Began, response.content, f"POST {path}")

    async def stop(self, app: str, id: str, signal: str, timeout_s: float) -> None:
        """Ask it to stop by `signal`; SIGKILL follows after `timeout_s`, of which whole seconds from 1 to 300 count."""
        path = f"/v1/apps/{app}/machines/{id}/stop"
        body = {"signal": signal, "timeout": f"{max(1, min(MAX_STOP_S, round(timeout_s)))}s"}
        await self._rest.ask("POST", path, body=body, before=self._bucket("stop", id).take)

    async def suspend(self, app: str, id: str) -> None:
        path = f"/v1/apps/{app}/machines/{id}/suspend"
        await self._rest.ask("POST", path, before=self._bucket("suspend", id).take)

    async def wait(self, app: str, machine: Machine, state: str, timeout_s: int) -> bool:
        """Whether the machine got into `state` within `timeout_s`, from 1 to 60."""
        path = f"/v1/apps/{app}/machines/{machine.id}/wait"
        params: dict[str, str | int] = {"state": state, "timeout": timeout_s}
        if state == "stopped":
            params["instance_id"] = machine.instance_id  # wanted for this state only
        try:
            await self._rest.ask(
                "GET", path, params=params, answer_s=timeout_s + ANSWER_S, before=self._bucket("wait", machine.id).take
            )
        except ApiError as error:
            if error.status == 408:
                return False
            raise
        return True

    async def aclose(self) -> None:
        await self._rest.aclose()

    def _bucket(self, action: str, subject: str, pace: Pace = ACTIONS) -> Bucket:
        bucket = self._buckets.get((action, subject))
        if bucket is None:
            bucket = self._buckets[action, subject] = Bucket(pace, self._tempo)
        return bucket
