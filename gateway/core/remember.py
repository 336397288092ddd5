"""What of a replay is remembered, for which requests, and under which key: Fly, "Replay caching".

A key is a digest of app, host and what else an entry is kept by, so that no cookie's value is held anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core.keys import Head, cookie_value
from gateway.core.model import App, ReplayKey, ReplayRule
from gateway.core.replay import CacheOrder, Replay

MIN_TTL_S = 10.0
MAX_TTL_S = 7 * 86_400.0
MAX_DEPTH = 32
"""Segments of a path that are looked at for a path entry, and the most that an entry's prefix may have."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry for a request would be."""

    key: bytes
    """32 bytes."""
    ttl_s: float
    allow_bypass: bool
    by_path: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where a remembered replay leads."""

    app: str
    """The app's name, never empty."""
    instance: str = ""
    prefer_instance: str = ""
    regions: tuple[str, ...] = ()
    """As the app wrote them."""


def rule_for(app: App, host: str, path: bytes) -> ReplayRule | None:
    """The session rule that a request falls under: the longest prefix; of two, the one with a host."""
    fitting = [
        rule
        for rule in app.replay_cache
        if (not rule.host or rule.host == host) and _is_under(path, rule.path.encode())
    ]
    return max(fitting, key=lambda rule: (len(rule.path), bool(rule.host)), default=None)


def session_place(app: App, host: str, path: bytes, head: Head) -> Place | None:
    """The place of a request's session; None without a rule for it, or without the rule's cookie or header."""
    rule = rule_for(app, host, path)
    if rule is None:
        return None
    if rule.type is ReplayKey.COOKIE:
        value = cookie_value(head.values.get(b"cookie", b""), rule.name.encode())
    else:
        value = head.values.get(rule.name.encode())
    if not value:
        return None
    which = f"{rule.type}\0{rule.name}\0{rule.host}{rule.path}"
    return Place(_digest(app, host, which.encode(), value), rule.ttl_s, rule.allow_bypass, by_path=False)


def path_place(app: App, host: str, path: bytes, order: CacheOrder) -> Place | str:
    """The place that an app's headers name for a request, or why there is none."""
    if not host:
        return "its request names no host"
    if order.host and order.host != host:
        return "its fly-replay-cache names another host than the request"
    if not _is_under(path, order.prefix):
        return "its fly-replay-cache does not match the request's path"
    if order.prefix.count(b"/") > MAX_DEPTH:
        return f"its fly-replay-cache has more than {MAX_DEPTH} segments"
    key = path_key(app, host, order.prefix)
    return Place(key, order.ttl_s, order.allow_bypass, by_path=True)


def path_key(app: App, host: str, prefix: bytes) -> bytes:
    return _digest(app, host, b"path", prefix)


def prefixes(path: bytes) -> Iterator[bytes]:
    """The prefixes under which a path may have an entry, the longest first, down to the empty one."""
    prefix = b"/".join(path.split(b"/")[: MAX_DEPTH + 1]).rstrip(b"/")
    while prefix:
        yield prefix
        prefix = prefix[: prefix.rfind(b"/")]
    yield b""


def unkept(replay: Replay, ttl_s: float) -> str:
    """Why a replay is not remembered; empty when it may be."""
    if not replay.cacheable:
        return "it has state, transform, timeout, fallback or elsewhere"
    return f"its time to live is under {MIN_TTL_S:g} s" if ttl_s < MIN_TTL_S else ""


def _is_under(path: bytes, prefix: bytes) -> bool:
    """Whether a path lies under a prefix, by whole segments."""
    return not prefix or path == prefix or path.startswith(prefix + b"/")


def _digest(app: App, host: str, which: bytes, value: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (app.name.encode(), host.encode(), which, value):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()
