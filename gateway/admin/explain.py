"""/v1/explain: which rule decides a request, what would be done with it, and why not otherwise.

The answer is made by the very code that routes requests: a head is parsed from bytes, and `gateway.data.routing`
classifies it and decides. Nothing is woken, nothing is sent, and nothing changes but what routing itself may: a
remembered replay that cannot be used is dropped. Session ids go in and never come out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin import explained
from gateway.admin.answers import AdminCode, Refusal, answer
from gateway.admin.needs import Admin
from gateway.admin.question import Question, read_question
from gateway.core.ask import Asked, LookUpPin
from gateway.core.decision import Ask, Refuse
from gateway.core.head import RequestHead, parse_request
from gateway.core.headers import peer
from gateway.core.model import App, AppProtocol, AppTable, Dialect, Intent, Kind, SessionIds
from gateway.core.problems import Code, Problem
from gateway.core.seal import Opened
from gateway.data.routing import Routing, Step
from gateway.data.sessions import Session, name_of
from gateway.log.base import LogUnavailable


class Explain:
    """The endpoint."""

    def __init__(
        self,
        admin: Admin,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - how long entries last, for people
    ) -> None:
        self._admin = admin
        self._gateway = admin.gateway
        self._wall_clock = wall_clock

    async def explain(self, request: Request) -> Response:
        question = await read_question(request)
        listed = self._listed(question)
        app = self._app(question, listed)
        if question.session and app is None and not question.host:
            # No app's key opens it: the answer is the one its client gets.
            app = next((one for one in self._apps() if one.protocol is not AppProtocol.HTTP), None)
        raw = question.head(_host(app) if app is not None else "localhost", app.path if app is not None else "/")
        head = parse_request(raw, self._gateway.limits.header_count)
        if isinstance(head, Problem):
            return answer({"request": None, "app": "", **explained.refused(head)})
        step, routing, dropped = await self._route(question, head, listed)
        told = {
            "request": {"method": head.method.decode("ascii"), "host": head.host, "path": head.path.decode("ascii")},
            **explained.decision(step, routing),
            "session": question.name or (name_of(question.session.encode()) if question.session else None),
            "listed": listed is not None,
        }
        notes = []
        if isinstance(step, Refuse) and step.problem.code is Code.PS01:
            notes = _unknown_session(routing.table, question)
        elif routing.asked is not None and step is not None:
            told |= explained.reasoning(step, routing, routing.asked, dropped=dropped)
            notes = explained.notes(routing, routing.asked, self._wall_clock())
        return answer({**told, "notes": notes} if notes else told)

    # --- what is meant -----------------------------------------------------------------

    def _listed(self, question: Question) -> Session | None:
        """The session on this gateway's list."""
        wanted = question.name or (name_of(question.session.encode()) if question.session else "")
        found = next((one for one in self._gateway.sessions if one.name == wanted), None) if wanted else None
        if question.name and found is None:
            raise Refusal(AdminCode.AD03, "there is no session of this name here; GET /v1/sessions lists them")
        return found

    def _app(self, question: Question, listed: Session | None) -> App | None:
        """The app that a question without a host is about."""
        name = question.app or (listed.app if listed is not None else "")
        if name:
            table = self._gateway.catalog.app(name)
            if table is None:
                raise Refusal(AdminCode.AD03, f"there is no app {name}")
            return table.app
        if question.session and not question.host:
            return next((one for one in self._apps() if self._opens(one, question)), None)
        return None

    def _apps(self) -> list[App]:
        catalog = self._gateway.catalog
        return [table.app for name in catalog.apps() if (table := catalog.app(name)) is not None]

    def _opens(self, app: App, question: Question) -> bool:
        """Whether a session id is one of this app's, and of the caller whose credentials are given."""
        given = next((one for one in question.headers if one.lower().startswith("authorization:")), None)
        authorization = given.partition(":")[2].strip().encode("latin-1") if given is not None else None
        principal = self._gateway.principal(authorization)
        return isinstance(self._gateway.sealer.open_session(app.name, question.session.encode(), principal), Opened)

    # --- routing -----------------------------------------------------------------------

    async def _route(
        self, question: Question, head: RequestHead, listed: Session | None
    ) -> tuple[Step | None, Routing, bool]:
        """The decision, or None where the body is needed and was not given; and whether a remembered replay was
        dropped on the way."""
        gateway = self._gateway
        routing = Routing(gateway, head, peer(question.client, 0, gateway.region, gateway.trusted_proxies))
        if question.name and listed is not None:
            # Its id is not at hand, but what passed through here says where it lives.
            intent = Intent(Kind.IN_SESSION, Dialect.SESSION_2025)
            table = routing.table = gateway.catalog.app(listed.app)
            assert table is not None
            step: Step | None
            routing.entered, routing.intent = table.app, intent
            step = routing.first(Asked(Ask(intent, listed.pin)))
            return step, routing, False
        before = self._dropped()
        step = routing.by_head()
        if step is None and question.body is not None:
            step = routing.by_body(question.body)
        if isinstance(step, LookUpPin):
            try:
                pin = await self._admin.pins.get(routing.app, step.kind, step.key)
            except LogUnavailable as error:
                step = Refuse(Problem(Code.PG04, f"the pin store cannot be read: {error}", routing.app, "", 1))
            else:
                # Other requests came in the meantime.
                before = self._dropped()
                step = routing.found(pin)
        return step, routing, self._dropped() > before

    def _dropped(self) -> int:
        """How often a remembered replay could not be used."""
        return sum(count for (_, what), count in self._gateway.replays.counts.items() if what == "unusable")


def _unknown_session(table: AppTable | None, question: Question) -> list[str]:
    notes = [
        "a session id is opened by the secret and the app that it was made with; another gateway's secret may differ"
    ]
    if table is not None and table.app.session_ids is SessionIds.STORED:
        notes = ["this app's session ids are looked up in the pin store; an entry lasts for `session_idle`"]
    bound = table is None or table.app.bind_principal
    if bound and not any(one.lower().startswith("authorization:") for one in question.headers):
        notes.append("an id is bound to its caller's credentials: give the Authorization header, or the listed name")
    return notes


def _host(app: App) -> str:
    """A host that the app is reached by."""
    return app.hosts[0].replace("*", "any", 1) if app.hosts else "localhost"
