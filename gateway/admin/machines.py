"""Apps and machines: list, register, remove, start, stop, suspend, cordon, wait. Paths as in the Fly Machines API.

A change is asked of the machine's owner (the agent, or the admin API's own source) and answered by the record that
follows; nothing here writes to the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_never

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import AdminCode, Fault, Refusal, Trouble, answer
from gateway.admin.asking import Query, json_body, no_body, no_query
from gateway.admin.needs import Admin
from gateway.admin.views import app_view, knowledge, machine_view
from gateway.agent.base import Cordoned, Failure, FailureKind, Refused, Started, StartFailed, StopOutcome, Stopped
from gateway.core.model import AppTable, Instance, State
from gateway.core.problems import Code, Problem
from gateway.lifecycle.waker import CODES
from gateway.sources.admin import BadMachine, ForeignMachine, Registered, Removed, UnknownApp, UnknownMachine

MAX_PAGE = 1000
MAX_WAIT_S = 60.0
"""Fly's: the most that `wait` waits, and its default."""
SETTLE_S = 2.0
"""How long an answer is kept back for the record of what it says."""
MAX_WAITING = 200
"""Requests that wait at once; each is looked at with every change of the catalog."""
DESTROYED = "destroyed"
"""Fly's word for a machine that is no more; here, one that the catalog has not."""


class Machines:
    """The endpoints under /v1/apps."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._waiting = 0

    # --- reading -----------------------------------------------------------------------

    async def apps(self, request: Request) -> Response:
        query = Query(request)
        limit, after = query.whole("limit", 100, 1, MAX_PAGE), query.text("after")
        query.done()
        catalog = self._admin.gateway.catalog
        names = catalog.apps()
        page = [name for name in names if name > after][: limit + 1]
        tables = [table for name in page[:limit] if (table := catalog.app(name)) is not None]
        return answer(
            {
                "apps": [app_view(table) for table in tables],
                "total_apps": len(names),
                "next": page[limit - 1] if len(page) > limit else None,
            }
        )

    async def machines(self, request: Request) -> Response:
        """Fly answers with a bare list; a further page is named by a Link header."""
        query = Query(request)
        limit, after = query.whole("limit", MAX_PAGE, 1, MAX_PAGE), query.text("after")
        region, state = query.text("region"), query.word("state", State)
        query.done()
        table = self._table(request)
        chosen = sorted(
            (one for one in table.instances.values() if region in ("", one.region) and state in ("", one.state)),
            key=lambda one: one.id,
        )
        page = [one for one in chosen if one.id > after][: limit + 1]
        known = await knowledge(self._admin, table.app.name)
        headers = {"total-count": str(len(chosen))}
        if len(page) > limit:
            link = request.url.include_query_params(after=page[limit - 1].id)
            headers["link"] = f'<{link.path}?{link.query}>; rel="next"'  # RFC 8288
        return answer([machine_view(one, known) for one in page[:limit]], headers=headers)

    async def machine(self, request: Request) -> Response:
        no_query(request)
        return answer(await self._view(self._instance(request)))

    async def wait(self, request: Request) -> Response:
        query = Query(request)
        wanted = query.word("state", [*State, DESTROYED], State.STARTED)
        incarnation = query.text("instance_id")
        timeout_s = query.seconds("timeout", MAX_WAIT_S, MAX_WAIT_S)
        query.done()
        app, id = _names(request)
        if wanted != DESTROYED:
            self._instance(request)

        def reached() -> bool:
            now = self._admin.instance(app, id)
            if now is None:
                return wanted == DESTROYED
            return now.state == wanted and incarnation in ("", now.incarnation)

        if await self._until(app, reached, timeout_s):
            return answer({"ok": True, "state": wanted})
        now = self._admin.instance(app, id)
        state = now.state.value if now is not None else DESTROYED
        message = f"it is {state} after {timeout_s:g} s, not {wanted}"
        raise Refusal(AdminCode.AD10, message, app=app, instance=id)

    # --- registering -------------------------------------------------------------------

    async def register(self, request: Request) -> Response:
        no_query(request)
        app = request.path_params["app"]
        outcome = self._admin.machines.register(app, await json_body(request))
        match outcome:
            case Registered():
                view = await self._view(outcome.instance)
                location = f"/v1/apps/{app}/machines/{outcome.instance.id}"
                return answer(view, 201 if outcome.new else 200, {"location": location})
            case UnknownApp():
                raise Refusal(AdminCode.AD03, f"there is no app {app[:63]}")
            case ForeignMachine():
                raise Refusal(AdminCode.AD05, f"the id is taken by {outcome.writer}", app=app)
            case BadMachine():
                faults = [Fault(*found) for found in outcome.faults]
                raise Refusal(AdminCode.AD07, f"the machine has {len(faults)} faults", app=app, faults=faults)
            case _:
                assert_never(outcome)

    async def remove(self, request: Request) -> Response:
        # Fly's `force` is about running machines; an address has nothing to be stopped.
        query = Query(request)
        query.word("force", ["true", "false"])
        query.done()
        await no_body(request)
        app, id = _names(request)
        outcome = self._admin.machines.remove(app, id)
        match outcome:
            case Removed():
                return answer({"ok": True})
            case UnknownMachine():
                raise _no_machine(app, id)
            case ForeignMachine():
                raise Refusal(AdminCode.AD05, f"it was declared by {outcome.writer}", app=app, instance=id)
            case _:
                assert_never(outcome)

    # --- changing ----------------------------------------------------------------------

    async def start(self, request: Request) -> Response:
        """The operator's start. Answers when it runs (200), when it cannot, or (202) when it still starts."""
        query = Query(request)
        timeout_s = query.seconds("timeout", MAX_WAIT_S, MAX_WAIT_S)
        query.done()
        await no_body(request)
        before = self._instance(request)
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await self._admin.agent.start(before.app, before.id, release=True)
        except TimeoutError:
            return await self._changed(request, before, 202)
        match outcome:
            case Started(instance):
                await self._until(instance.app, lambda: self._shows(instance), SETTLE_S)
                return await self._changed(request, before)
            case StartFailed():
                if before.running and outcome.failure.kind is FailureKind.UNKNOWN_INSTANCE:
                    return await self._changed(request, before)
                raise self._failed(before, outcome.failure, outcome.retry_after_s)
            case _:
                assert_never(outcome)

    async def stop(self, request: Request) -> Response:
        """The operator's stop: traffic does not wake it again."""
        return await self._rest(request, self._admin.agent.stop)

    async def suspend(self, request: Request) -> Response:
        """The operator's suspend: traffic does not wake it again. Its sessions wait with its memory."""
        return await self._rest(request, self._admin.agent.suspend)

    async def _rest(self, request: Request, ask: Callable[[str, str], Awaitable[StopOutcome]]) -> Response:
        no_query(request)
        await no_body(request)
        before = self._instance(request)
        outcome = await ask(before.app, before.id)
        match outcome:
            case Stopped(instance):
                await self._until(instance.app, lambda: self._shows(instance), SETTLE_S)
                return await self._changed(request, before)
            case Refused():
                raise self._failed(before, outcome.failure, 0.0)
            case _:
                assert_never(outcome)

    async def cordon(self, request: Request) -> Response:
        return await self._cordon(request, True)

    async def uncordon(self, request: Request) -> Response:
        return await self._cordon(request, False)

    async def _cordon(self, request: Request, cordoned: bool) -> Response:
        no_query(request)
        await no_body(request)
        before = self._instance(request)
        await self.set_cordon(before, cordoned)
        return await self._changed(request, before)

    async def set_cordon(self, before: Instance, cordoned: bool) -> None:
        """Take a machine out of placement or back into it, and return when the catalog has it so.

        Raises Refusal or Trouble.
        """
        if self._admin.machines.cordon(before.app, before.id, cordoned) is not None:
            return
        outcome = await self._admin.agent.cordon(before.app, before.id, cordoned)
        match outcome:
            case Cordoned(instance):
                await self._until(instance.app, lambda: self._shows(instance), SETTLE_S)
            case Refused():
                raise self._failed(before, outcome.failure, 0.0)
            case _:
                assert_never(outcome)

    # --- parts -------------------------------------------------------------------------

    def _table(self, request: Request) -> AppTable:
        app = request.path_params["app"]
        table = self._admin.gateway.catalog.app(app)
        if table is None:
            raise Refusal(AdminCode.AD03, f"there is no app {app[:63]}")
        return table

    def _instance(self, request: Request) -> Instance:
        return named(self._admin, request)

    def _shows(self, instance: Instance) -> bool:
        """Whether the catalog has it as its agent said; a later change counts too."""
        now = self._admin.instance(instance.app, instance.id)
        return now is None or now == instance or now.incarnation != instance.incarnation

    async def _view(self, instance: Instance) -> dict[str, object]:
        return machine_view(instance, await knowledge(self._admin, instance.app))

    async def _changed(self, request: Request, before: Instance, status: int = 200) -> Response:
        now = self._instance(request)
        value = {"ok": True, "previous_state": before.state.value, "machine": await self._view(now)}
        return answer(value, status)

    def _failed(self, instance: Instance, failure: Failure, retry_after_s: float) -> Refusal | Trouble:
        """Why nothing came of it: the machine is somebody else's, it is only an address, or its start failed."""
        app, id = instance.app, instance.id
        match failure.kind:
            case FailureKind.UNKNOWN_INSTANCE if self._admin.machines.owns(app, id):
                message = "it was registered by its address: nothing here started it or can stop it"
                return Refusal(AdminCode.AD06, message, app=app, instance=id)
            case FailureKind.UNKNOWN_INSTANCE:
                return Refusal(AdminCode.AD05, f"it belongs to {instance.owner or '?'}", app=app, instance=id)
            case FailureKind.NOT_SUSPENDABLE:
                return Refusal(AdminCode.AD11, failure.message, app=app, instance=id, detail=failure.detail)
            case FailureKind.NOT_STARTABLE:
                return Refusal(AdminCode.AD06, failure.message, app=app, instance=id)
            case kind:
                problem = Problem(CODES[kind], failure.message, app, id, round(retry_after_s) or None)
                return Trouble(problem, failure.detail)

    async def _until(self, app: str, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it came to hold within the time; looked at after every change of the app."""
        if holds():
            return True
        if self._waiting >= MAX_WAITING:
            raise Trouble(Problem(Code.PL02, f"{MAX_WAITING} requests wait already", app, retry_after_s=1))
        changed = asyncio.Event()

        def hear(name: str) -> None:
            if name == app:
                changed.set()

        unsubscribe = self._admin.gateway.catalog.subscribe(hear)
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
            unsubscribe()
        return True


def named(admin: Admin, request: Request) -> Instance:
    """The machine that a request's path names. Raises Refusal."""
    app, id = _names(request)
    instance = admin.instance(app, id)
    if instance is None:
        raise _no_machine(app, id)
    return instance


def _names(request: Request) -> tuple[str, str]:
    return request.path_params["app"], request.path_params["id"]


def _no_machine(app: str, id: str) -> Refusal:
    return Refusal(AdminCode.AD03, f"there is no machine {app[:63]}/{id[:64]}")
