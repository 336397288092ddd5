"""The step `learn`: what an answer's head means for sessions, pins and cookies, and what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gateway.core.endpoint import EndpointRewriter, own_authorities
from gateway.core.head import ResponseHead
from gateway.core.learn import Event, Lesson, learn
from gateway.core.model import App, Dialect, Instance, Kind, Pin
from gateway.core.seal import Stream
from gateway.data import carrying, listening
from gateway.data.learner import Learner
from gateway.data.taught import Taught

if TYPE_CHECKING:
    from gateway.data.exchange import Exchange

log = structlog.get_logger(__name__)


def teach(exchange: Exchange, head: ResponseHead, *, is_stream: bool) -> Taught:
    """Learn from the head of a final answer, before it goes to the client."""
    gateway, instance = exchange.gateway, exchange.attempts.instance
    app, asked = exchange.routing.settled
    assert instance is not None
    intent = asked.ask.intent
    taught = Taught()
    session_id = head.values.get(b"mcp-session-id")
    kind = intent.kind
    if session_id is not None or kind is Kind.IN_SESSION:
        pin = exchange.routing.pin_of(instance)
        lesson = learn(
            app,
            asked,
            pin,
            gateway.sealer,
            principal=gateway.principal(exchange.head.values.get(b"authorization")),
            method=exchange.head.method,
            status=head.status,
            session_id=session_id,
        )
        taught.session_id = lesson.session_id
        _follow(exchange, app, pin, lesson)
        if lesson.store:
            taught.store = gateway.store_pin(app, Kind.IN_SESSION, lesson.store, pin, app.session_idle_s, binds=True)
        if carrying.is_carried(exchange):
            taught.store = carrying.learned(exchange, lesson, head.status, taught.store)
            if is_stream and listening.listens(exchange):
                listening.begins(exchange)
    elif kind is Kind.LEGACY_STREAM and is_stream and head.status == 200:
        taught.rewriter = _rewriter(exchange, app, instance)
    elif intent.learns and head.status == 200:
        taught.learner = Learner(stream=is_stream)
    if app.affinity_cookie and kind is not Kind.IN_SESSION and intent.dialect is not Dialect.STATELESS_2026:
        pin = Pin(instance.id, instance.incarnation)
        # A cookie names an instance of the addressed app; where a replay leads, its app says each time.
        if asked.ask.cookie != pin and instance.app == app.name:
            value = gateway.sealer.seal_cookie(app.name, pin).decode()
            secure = "; Secure" if exchange.secure else ""
            cookie = f"Set-Cookie: {app.affinity_cookie}={value}; Path={app.path}; HttpOnly; SameSite=Lax{secure}\r\n"
            taught.extra = cookie.encode()
    return taught


def _follow(exchange: Exchange, app: App, pin: Pin, lesson: Lesson) -> None:
    """Keep the lists and counts of sessions."""
    gateway, intent = exchange.gateway, exchange.routing.intent
    assert intent is not None
    event = lesson.event
    if event is Event.MADE and lesson.session_id is not None:
        gateway.counters.sessions_made[app.name] += 1
        token = lesson.session_id
    elif event is Event.ENDED:
        gateway.counters.sessions_ended[app.name] += 1
        gateway.sessions.end(intent.token)
        return
    else:
        token = intent.token
    if not token:
        return
    session = gateway.sessions.touch(token, app.name, pin, gateway.now_s)
    session.requests += 1
    exchange.session = session
    if event is Event.LOST:
        session.misroutes += 1
        gateway.counters.misroutes[app.name] += 1
        log.warning("instance does not know its session", app=app.name, instance=pin.name, session=session.name)
    elif event is Event.BAD_ID:
        log.warning("instance minted a session id with characters that MCP forbids", app=app.name, instance=pin.name)


def _rewriter(exchange: Exchange, app: App, instance: Instance) -> EndpointRewriter:
    """Rewrites a 2024-11-05 stream's endpoint, so that its POSTs come back with their pin."""
    gateway = exchange.gateway
    number = exchange.stream_number = gateway.stream_number()
    gateway.legacy.add(number)
    stream = Stream(gateway.boot, number, app.strip_path)
    principal = gateway.principal(exchange.head.values.get(b"authorization")) if app.bind_principal else None
    pin = gateway.sealer.seal_stream(app.name, exchange.routing.pin_of(instance), stream, principal)
    assert instance.address is not None
    prefix = app.path.rstrip("/").encode() if app.strip_path else b""
    return EndpointRewriter(pin, prefix, own_authorities(instance.address))
