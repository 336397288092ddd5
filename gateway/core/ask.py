"""From a classified request to the question that `decide` answers: tokens opened, steering headers read.

Every token that does not hold is one and the same problem to its sender, whatever the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from gateway.core.decision import Ask
from gateway.core.keys import Head, cookie_value, key_of
from gateway.core.model import App, Dialect, Intent, Kind, Pin, Rule, SessionIds
from gateway.core.principal import address_key
from gateway.core.problems import Code, Problem
from gateway.core.regions import DEFAULT_GROUPS, Regions, parse_regions
from gateway.core.seal import Sealer, SealFault, Stream


class Asked(NamedTuple):
    """The question, and what the opened tokens say about the request."""

    ask: Ask
    upstream_id: bytes = b""
    """IN_SESSION: the Mcp-Session-Id that the instance knows. On no other request does one go upstream."""
    stream: Stream | None = None
    """LEGACY_POST: the stream that the request belongs to. If this gateway made it and it is over: `stream_gone`."""
    cookie_fault: SealFault | None = None
    """The affinity cookie was there and did not hold; it counts as absent."""


@dataclass(frozen=True, slots=True)
class LookUpPin:
    """Ask the pin store for this key, then build the ask again with what it said."""

    kind: Kind
    key: bytes


class Lookup(Enum):
    """What is known of the pin store's answer, where it is no pin."""

    NOT_ASKED = "not-asked"
    MISSING = "missing"


def build_ask(
    app: App,
    intent: Intent,
    head: Head,
    sealer: Sealer,
    *,
    principal: bytes | None,
    client_ip: str,
    stored: Pin | Lookup = Lookup.NOT_ASKED,
    groups: Mapping[str, tuple[str, ...]] = DEFAULT_GROUPS,
) -> Asked | LookUpPin | Problem:
    """The question for a request whose kind is known (not NEEDS_BODY).

    Args:
        principal: the caller, as `gateway.core.principal` names it.
        client_ip: stands in for a principal where there is none.
        stored: the pin store's answer to an earlier LookUpPin.
        groups: what the names of groups of regions stand for.
    """
    bound = _bind(app, intent, sealer, principal, stored)
    if not isinstance(bound, _Bound):
        return bound
    key = intent.key if bound.pin is not None else _key(intent, principal, client_ip)
    values = head.values
    force = prefer = ""
    regions: Regions = ()
    if app.steering:
        if b"fly-force-instance-id" in values:
            force = values[b"fly-force-instance-id"].decode("latin-1")
            if not force:
                return Problem(Code.PB01, "fly-force-instance-id names nothing", app.name)
        if b"fly-prefer-instance-id" in values:
            prefer = values[b"fly-prefer-instance-id"].decode("latin-1")
        places = _regions(app, values, groups)
        if isinstance(places, Problem):
            return places
        regions = places
    cookie: Pin | None = None
    fault: SealFault | None = None
    if app.affinity_cookie:
        value = cookie_value(values.get(b"cookie", b""), app.affinity_cookie.encode())
        if value is not None:
            named = sealer.open_cookie(app.name, value)
            cookie, fault = (None, named) if isinstance(named, SealFault) else (named, None)
    ask = Ask(intent, bound.pin, bound.rule, cookie, force, prefer, key, regions=regions)
    return Asked(ask, bound.upstream_id, bound.stream, fault)


def key_in(app: App, intent: Intent, head: Head, *, principal: bytes | None, client_ip: str) -> bytes:
    """What a request is hashed by in an app that a replay leads it into: by that app's own `key` rules."""
    modern = intent.dialect is Dialect.STATELESS_2026
    key = key_of(app, head, modern=modern) if app.key else b""
    return key or _key(replace(intent, key=b"") if intent.key else intent, principal, client_ip)


def stored_key(app: App, session_id: bytes, principal: bytes | None) -> bytes:
    """The pin store's key of a session whose id is not sealed: with bound sessions, another principal finds nothing."""
    bound = principal if app.bind_principal and principal is not None else b""
    return b"%d:%b%b" % (len(bound), bound, session_id)


def session_key(app: App, session_id: bytes, principal: bytes | None) -> bytes:
    """What a session is recorded by. A sealed id is its caller's own; a stored one may be another's elsewhere."""
    return session_id if app.session_ids is SessionIds.SEALED else stored_key(app, session_id, principal)


def session_unknown(app: App, detail: str) -> Problem:
    """The answer to every session id that is not this caller's; `detail` is for the log alone."""
    return Problem(Code.PS01, detail, app.name)


def stream_gone(app: App, detail: str) -> Problem:
    """The answer to a 2024-11-05 POST whose stream is over, or was never this caller's."""
    return Problem(Code.PS04, detail, app.name)


class _Bound(NamedTuple):
    """What ties a request to one instance, if anything does."""

    pin: Pin | None
    rule: Rule = Rule.SEALED
    upstream_id: bytes = b""
    stream: Stream | None = None


_UNBOUND = _Bound(None)


def _bind(
    app: App, intent: Intent, sealer: Sealer, principal: bytes | None, stored: Pin | Lookup
) -> _Bound | LookUpPin | Problem:
    kind = intent.kind
    if kind is Kind.IN_SESSION:
        if app.session_ids is SessionIds.SEALED:
            opened = sealer.open_session(app.name, intent.token, principal)
            if isinstance(opened, SealFault):
                return session_unknown(app, f"session id: {opened.value}")
            return _Bound(opened.pin, Rule.SEALED, opened.upstream_id)
        if isinstance(stored, Pin):
            return _Bound(stored, Rule.STORED, intent.token)
        if stored is Lookup.MISSING:
            return session_unknown(app, "session id: not in the pin store")
        return LookUpPin(kind, stored_key(app, intent.token, principal))
    if kind is Kind.LEGACY_POST:
        of_stream = sealer.open_stream(app.name, intent.token, principal)
        if isinstance(of_stream, SealFault):
            return stream_gone(app, f"stream pin: {of_stream.value}")
        return _Bound(of_stream.pin, Rule.SEALED, b"", of_stream.stream)
    if kind is Kind.TASK or kind is Kind.STATE:
        if stored is Lookup.NOT_ASKED:
            return LookUpPin(kind, intent.token)
        return _Bound(stored, Rule.STORED) if isinstance(stored, Pin) else _UNBOUND
    return _UNBOUND


def _key(intent: Intent, principal: bytes | None, client_ip: str) -> bytes:
    """What a request without a pin is hashed by: its key, or for want of anything better its caller.

    MCP 2026-07-28 servers keep keys and buses per process by default, so that scattered calls of one caller fail.
    """
    if intent.key or intent.dialect is not Dialect.STATELESS_2026 or intent.kind is Kind.ANYWHERE:
        return intent.key
    return b"principal:=" + principal if principal is not None else address_key(client_ip)


def _regions(app: App, values: Mapping[bytes, bytes], groups: Mapping[str, tuple[str, ...]]) -> Regions | Problem:
    """fly-force-region, else fly-prefer-region and then anywhere (Fly, "Dynamic request routing")."""
    for name, rest in ((b"fly-force-region", ()), (b"fly-prefer-region", (None,))):
        if name in values:
            regions = parse_regions(values[name], groups)
            if regions is None:
                return Problem(Code.PB01, f"{name.decode()} is not a list of regions", app.name)
            return (*regions, *rest)
    return ()
