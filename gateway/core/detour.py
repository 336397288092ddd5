"""What a replay asks of the gateway: who may replay where, what its target is asked and shown.

Follows Fly's page "Dynamic request routing". What is decided where that page is silent stands in
docs/reference/replay.md and docs/adr/0013-replays.md. The grammar is in `gateway.core.replay`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.core.decision import Ask
from gateway.core.model import App, AppTable, Instance, Intent, Pin, Rule
from gateway.core.problems import Code, Problem
from gateway.core.regions import resolve_regions
from gateway.core.replay import CacheOrder, Fallback, Replay, Transform

_INSTANCE = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)

MAX_REPLAYS = 10
"""Of one request; Fly's figure."""
CREDENTIALS = frozenset({b"authorization", b"cookie"})
"""Request fields that are not carried into another org (RFC 9110 11.6.2, RFC 6265 5.4)."""


class CacheStatus(StrEnum):
    """The values of fly-replay-cache-status."""

    MISS = "miss"
    HIT = "hit"
    BYPASS = "bypass"


class Reason(StrEnum):
    """Why a replay's target was not reached: the words of fly-replay-failed."""

    TIMEOUT = "timeout"
    RETRIES_EXHAUSTED = "retries_exhausted"
    NO_CANDIDATE = "no_candidate"


@dataclass(frozen=True, slots=True)
class Form:
    """A request as an instance is shown it, but for what the gateway adds."""

    target: bytes
    kept: bytes
    """The client's header lines."""
    in_session: bool = True
    """It may carry the instance's own Mcp-Session-Id."""


def allows(target: App, source: App) -> bool:
    """Whether `source` may replay requests to `target`: of the same org, or named in its `replay_sources`."""
    if source.org == target.org:
        return True
    return any(
        entry in (f"org:{source.org}", f"app:{source.name}", source.org, source.name) for entry in target.replay_sources
    )


def border(source: App, target: App | None, named: str) -> Problem | None:
    """Why a replay of `source` may not go to the app that it names; None when it may."""
    if target is None:
        return Problem(Code.PA04, f"the replay names app {named}, which does not exist", source.name)
    if not allows(target, source):
        message = f"app {target.name} takes no replays from app {source.name} of org {source.org}"
        return Problem(Code.PA05, message, source.name)
    return None


def question(
    replay: Replay,
    intent: Intent,
    issuer: Instance,
    target: AppTable,
    home: AppTable,
    groups: Mapping[str, tuple[str, ...]],
    *,
    pin: Pin | None = None,
    key: bytes = b"",
    exclude: frozenset[str] = frozenset(),
) -> Ask | Problem:
    """What is asked of the target's table; a PA03 where the replay's fields contradict each other.

    Args:
        issuer: the instance that asked for the replay.
        home: the issuer's app.
        pin: the session's own instance, if it is one of the target's.
        key: what the request is hashed by in the target's app.
        exclude: instances of the target's app that an `elsewhere` of this request ruled out.
    """
    name = replay.instance or replay.prefer_instance
    if name and target is not home and name not in target.instances and name in home.instances:
        message = f"the replay names app {target.app.name} and an instance of app {home.app.name}"
        return Problem(Code.PA03, message, home.app.name, issuer.id)
    if replay.instance and replay.instance in exclude:
        message = "the replay names the instance that it rules out by `elsewhere`"
        return Problem(Code.PA03, message, home.app.name, issuer.id)
    regions = resolve_regions(replay.regions, groups)
    found = target.instances.get(replay.instance)
    if found is not None and regions and not any(place is None or found.region in place for place in regions):
        message = "the replay names an instance and a region that it is not in"
        return Problem(Code.PA03, message, home.app.name, issuer.id)
    return Ask(
        intent,
        pin=pin if not replay.instance and not replay.prefer_instance else None,
        force=replay.instance,
        prefer=replay.prefer_instance,
        key=key,
        exclude=exclude,
        regions=regions,
        replayed=Rule.REPLAY,
    )


def back(intent: Intent, issuer: Instance, fallback: Fallback) -> Ask:
    """The question that brings a request back to who replayed it."""
    if fallback is Fallback.PREFER_SELF:
        return Ask(intent, prefer=issuer.id, replayed=Rule.REPLAY)
    return Ask(intent, force=issuer.id, replayed=Rule.REPLAY)


def transformed(form: Form, transform: Transform) -> Form:
    """The form after an app's transform."""
    gone = transform.delete | {name.lower() for name, _ in transform.set}
    kept = without(form.kept, gone) + b"".join(b"%b: %b\r\n" % pair for pair in transform.set)
    return Form(transform.target or form.target, kept, form.in_session)


def abroad(form: Form) -> Form:
    """The form for another org: without credentials."""
    return Form(form.target, without(form.kept, CREDENTIALS), in_session=False)


def without(kept: bytes, names: frozenset[bytes]) -> bytes:
    """Header lines without the fields of these names, which are lower case."""
    lines = kept.split(b"\r\n")[:-1]
    return b"".join(line + b"\r\n" for line in lines if line.partition(b":")[0].lower() not in names)


def source_line(issuer: Instance, at_us: int, state: str | None) -> bytes:
    """What the target is told of a replay; `at_us` are microseconds since 1970."""
    value = f"instance={issuer.id};region={issuer.region};t={at_us};state={state or ''}"
    return b"fly-replay-src: %b\r\n" % value.encode()


def failed_line(replay: Replay, issuer: Instance, reason: Reason, elapsed_ms: int) -> bytes:
    """What the issuer is told when its replay did not reach its target."""
    asked = f"instance={replay.instance or replay.prefer_instance};app={replay.app};region={','.join(replay.regions)}"
    value = f"{asked};replay_source={issuer.id};reason={reason};elapsed_ms={elapsed_ms}"
    return b"fly-replay-failed: %b\r\n" % value.encode()


def status_line(status: CacheStatus) -> bytes:
    return b"fly-replay-cache-status: %b\r\n" % status.encode()


def unavailable_line(instance: str) -> bytes:
    """Tells that a preferred instance was not taken. What cannot be an id is the client's own, and not repeated."""
    if _INSTANCE.fullmatch(instance) is None:
        return b""
    return b"fly-preferred-instance-unavailable: %b\r\n" % instance.encode()


def told(replay: Replay) -> dict[str, str]:
    """A replay's fields for people: without its state and the values that it sets, which may be secret."""
    transform = replay.transform
    fields = {
        "app": replay.app,
        "instance": replay.instance,
        "prefer_instance": replay.prefer_instance,
        "region": ",".join(replay.regions),
        "state": "given" if replay.state is not None else "",
        "elsewhere": "true" if replay.elsewhere else "",
        "timeout": f"{replay.timeout_s:g}s" if replay.timeout_s is not None else "",
        "fallback": replay.fallback.value,
        "transform.path": "given" if transform is not None and transform.target else "",
        "transform.delete_headers": b", ".join(sorted(transform.delete)).decode() if transform is not None else "",
        "transform.set_headers": ", ".join(name.decode() for name, _ in transform.set) if transform is not None else "",
        "cache": _cached(replay.cache),
    }
    return {name: value for name, value in fields.items() if value}


def _cached(order: CacheOrder | None) -> str:
    if order is None:
        return ""
    if order.invalidate:
        return "invalidate"
    return f"{order.host}{order.prefix.decode()}/* for {order.ttl_s:g} s"
