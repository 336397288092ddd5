"""The sleeper: puts instances to sleep that nobody needs. One at a time over all gateways, by a lease in the store.

What sleeps is decided in `gateway.core.sleep`; how it is done without losing a request, in
docs/adr/0016-stops-are-agreed.md. Without the store nothing sleeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from gateway.agent.base import AgentApi, Prepared, Rest, Stopped
from gateway.core.catalog import Catalog
from gateway.core.model import AppTable, AutoStop, Instance, State
from gateway.core.presence import NEVER_S, NOTHING, Lead, Lease, is_whole
from gateway.core.sleep import Sleep, Why, agreed, choose, why_up
from gateway.lifecycle.presence import LIVE_S, Presence
from gateway.log.base import LogUnavailable

PASS_EVERY_S: Final = 1.0
LOOK_AT_MOST_S: Final = 30.0
LOOK_AT_LEAST_S: Final = 1.0
"""An app is looked at every quarter of its `idle_after`, within these bounds."""
LEAD_S: Final = 5.0
AGREE_S: Final = 8.0
"""How long all gateways may take to agree to one sleep."""
ASK_EVERY_S: Final = 0.2
ROLE: Final = "sleeper"

logger = structlog.get_logger(__name__)


class Store(Protocol):
    """What is used of the presence store (`gateway.log.presence`). All raise LogUnavailable."""

    async def lead(self, role: str, holder: str, ttl_s: float) -> Lead: ...

    async def held(self, app: str | None = None) -> Sequence[Lease]: ...


class Sleeper:
    """Runs in every gateway; acts in the one that leads. Its tasks belong to the given group."""

    def __init__(
        self, tasks: asyncio.TaskGroup, catalog: Catalog, agent: AgentApi, presence: Presence, store: Store, name: str
    ) -> None:
        self.leads = False
        self.slept = 0
        """Instances that this gateway put to sleep."""
        self.called_off = 0
        """Sleeps that were not agreed in time, or that somebody prevented."""
        self._tasks = tasks
        self._catalog = catalog
        self._agent = agent
        self._presence = presence
        self._store = store
        self._name = name
        self._up: dict[tuple[str, str], tuple[str, float]] = {}
        """Running instances: their incarnation, and since when they are known to run in it."""
        self._watched: set[str] = set()
        """Apps that were looked at before."""
        self._stops: dict[tuple[str, str], str] = {}
        """Instances, in the life they had, that are stopped where they should be suspended."""
        self._lead_since_s: float | None = None
        self._next_look_s: dict[str, float] = {}
        self._busy: set[tuple[str, str]] = set()
        self._leases: Sequence[Lease] = ()

    async def run(self) -> None:
        """Look after the apps until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            tables = [table for name in self._catalog.apps() if (table := self._catalog.app(name)) is not None]
            concerned = [table for table in tables if table.app.auto_stop is not AutoStop.OFF]
            self._note_up(concerned, now_s)
            try:
                await self._pass(concerned, now_s)
            except LogUnavailable as error:
                if self.leads:
                    logger.warning("nothing is put to sleep: the store is away", error=str(error))
                self.leads, self._lead_since_s = False, None
            await asyncio.sleep(PASS_EVERY_S)  # noqa: TID251 - idleness is not an event

    async def _pass(self, tables: Sequence[AppTable], now_s: float) -> None:
        if not tables:
            return
        await self._keep_lead(now_s)
        due = [table for table in tables if self._next_look_s.get(table.app.name, 0.0) <= now_s]
        if not due or not self.leads or not self._presence.all_said or not is_whole(self._presence.all_said):
            return
        self._leases = await self._store.held()
        for table in due:
            wait_s = min(max(table.app.idle_after_s / 4, LOOK_AT_LEAST_S), LOOK_AT_MOST_S)
            self._next_look_s[table.app.name] = now_s + wait_s
            for sleep in self.chosen(table, now_s):
                key = (sleep.instance.app, sleep.instance.id)
                if key not in self._busy:
                    self._busy.add(key)
                    self._tasks.create_task(self.put_to_sleep(sleep, table), name=f"sleep {key[0]}/{key[1]}")

    async def _keep_lead(self, now_s: float) -> bool:
        """Renew the lead; it counts once it was kept for as long as a gateway may be silent. A lead that nobody had may
        be one of a store that has just been emptied, in which the others have not spoken yet."""
        lead = await self._store.lead(ROLE, self._name, LEAD_S)
        if lead is Lead.NO:
            self._lead_since_s = None
        elif lead is Lead.TAKEN or self._lead_since_s is None:
            self._lead_since_s = now_s
        self.leads = self._lead_since_s is not None and now_s - self._lead_since_s >= LIVE_S
        return self.leads

    def chosen(self, table: AppTable, now_s: float) -> Sequence[Sleep]:
        """The instances to put to sleep now."""
        return [sleep for sleep in self._chosen(table, now_s) if not self._would_end_sessions(sleep)]

    def _would_end_sessions(self, sleep: Sleep) -> bool:
        """Whether its agent cannot suspend it, and its stop would end sessions."""
        key = (sleep.instance.app, sleep.instance.id)
        return (
            self._stops.get(key) == sleep.instance.incarnation and self._presence.merged.get(key, NOTHING).sessions > 0
        )

    def _chosen(self, table: AppTable, now_s: float) -> Sequence[Sleep]:
        return choose(table, self._presence.merged, self._leases, self._up_s(table, now_s), self._watched_s())

    def why(self, table: AppTable) -> Mapping[str, Why | None]:
        """Why each running instance of an app is up, as far as this gateway knows."""
        now_s = asyncio.get_running_loop().time()
        return why_up(table, self._presence.merged, self._leases, self._up_s(table, now_s), self._watched_s())

    # --- one sleep ---------------------------------------------------------------------

    async def put_to_sleep(self, sleep: Sleep, table: AppTable) -> None:
        """Carry one sleep out, if all gateways agree and nobody wants the instance meanwhile."""
        one = sleep.instance
        rest = Rest.SUSPEND if sleep.rest is AutoStop.SUSPEND else Rest.STOP
        try:
            prepared = await self._agent.prepare(one.app, one.id, one.incarnation, rest)
            if not isinstance(prepared, Prepared):
                logger.info("sleep not prepared", instance=f"{one.app}/{one.id}", reason=prepared.failure.message)
                return
            if rest is Rest.SUSPEND and prepared.instance.state is State.STOPPING:
                self._stops[one.app, one.id] = one.incarnation
            if await self._is_agreed(table, prepared.instance) and await self._may_still(one):
                outcome = await self._agent.sleep(one.app, one.id, prepared.token)
                self._count(one, slept=isinstance(outcome, Stopped))
            else:
                await self._agent.stay(one.app, one.id, prepared.token)
                self._count(one, slept=False)
        finally:
            self._busy.discard((one.app, one.id))

    async def _is_agreed(self, table: AppTable, prepared: Instance) -> bool:
        """Whether every live gateway says that it knows, and carries nothing, before the time is over."""
        known = False
        try:
            async with asyncio.timeout(AGREE_S):
                while not agreed(table.app, prepared, self._presence.all_said):
                    now = self._catalog.instance(prepared.app, prepared.id)
                    if now is not None and now.sleep == prepared.sleep:
                        known = True
                    elif known:
                        # Somebody wanted it.
                        return False
                    await asyncio.sleep(ASK_EVERY_S)  # noqa: TID251 - the others say so in the store
                    await self._presence.listen()
        except (TimeoutError, LogUnavailable):
            return False
        return True

    async def _may_still(self, one: Instance) -> bool:
        """Whether this gateway still leads, and nobody asked for the instance to be kept awake meanwhile."""
        try:
            if not await self._keep_lead(asyncio.get_running_loop().time()):
                return False
            return all(lease.id != one.id for lease in await self._store.held(one.app))
        except LogUnavailable:
            return False

    def _count(self, one: Instance, *, slept: bool) -> None:
        if slept:
            self.slept += 1
        else:
            self.called_off += 1
        logger.info("instance sleeps" if slept else "sleep called off", instance=f"{one.app}/{one.id}")

    # --- facts -------------------------------------------------------------------------

    def _note_up(self, tables: Iterable[AppTable], now_s: float) -> None:
        before, self._up = self._up, {}
        for table in tables:
            # What runs when an app is first looked at may have run for ever.
            begin_s = now_s if table.app.name in self._watched else now_s - NEVER_S
            self._watched.add(table.app.name)
            for one in table.instances.values():
                if one.running:
                    key = (one.app, one.id)
                    known = before.get(key)
                    since = known if known is not None and known[0] == one.incarnation else (one.incarnation, begin_s)
                    self._up[key] = since

    def _up_s(self, table: AppTable, now_s: float) -> dict[str, float]:
        name = table.app.name
        return {id: now_s - known[1] for id in table.instances if (known := self._up.get((name, id))) is not None}

    def _watched_s(self) -> float:
        return self._presence.heard_for_s()
