"""What an app's settings say about replays: `replay_sources` and `replay_cache`, as the file and records write them.

One grammar for both. docs/reference/replay.md says what the settings do; Fly's page "Dynamic request routing",
section "Session-based replay caching", is where a rule's fields come from.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, assert_never

from gateway.core.body_fields import PATH, TOKEN, Wrong, boolean, is_host, items, matching, seconds, shown, table, word
from gateway.core.fields import FIELDS, Field, reserved, shadows
from gateway.core.model import ReplayKey, ReplayRule

MAX_SOURCES: Final = 256
MAX_RULES: Final = 32
MIN_TTL_S: Final = 10.0
"""Fly's least time to live."""
DEFAULT_TTL_S: Final = 600.0
SOURCE: Final = re.compile(r"(?:org:|app:)?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""Who may replay: `org:NAME`, `app:NAME`, or NAME for an org or an app of that name."""


class Scope(NamedTuple):
    """What a rule of `replay_cache` is for; both parts as ReplayRule has them."""

    host: str = ""
    path: str = ""

    def __str__(self) -> str:
        return f"{self.host}{self.path or '/'}"


def parse_scope(text: str) -> Scope | None:
    """What `/`, `/api` or `host/api` stands for; None when it is none of them.

    `x`, `x/` and `x/*` are the same. The host is one host, without a port; case does not matter in it. A `*` means
    nothing but at the end, so it is not taken elsewhere.
    """
    if not text or not text.isascii():
        return None
    host, slash, rest = text.partition("/")
    path = (slash + rest).removesuffix("/*").rstrip("/")
    host = host.lower()
    if (host and not is_host(host)) or (path and not PATH.fullmatch(path)) or "*" in path:
        return None
    return Scope(host, path)


def may_key(header: str) -> bool:
    """Whether values of this request header (lower case) can be a cache's key: an app sees it as the client sent it.

    What the gateway takes out or writes itself, and what it refuses because a server could read it as such, is none.
    """
    name = header.encode()
    if reserved(name) or (b"_" in name and shadows(name)):
        return False
    return FIELDS.get(name, Field.PASS) in (Field.PASS, Field.SINGLE)


# --- records ---------------------------------------------------------------------------


def rule_body(rule: ReplayRule) -> dict[str, object]:
    """One entry of a record's `replay_cache`; `replay_cache` takes it back."""
    return {
        "path": str(Scope(rule.host, rule.path)),
        "ttl": rule.ttl_s,
        "type": rule.type,
        "name": rule.name,
        "allow_bypass": rule.allow_bypass,
    }


def replay_sources(value: object) -> tuple[str, ...]:
    """The field of a record's body; raises Wrong."""
    sources = items(value, "replay_sources", lambda each: matching(each, "replay_sources:", SOURCE), MAX_SOURCES)
    if len(set(sources)) != len(sources):
        raise Wrong("replay_sources has an entry twice")
    return sources


def replay_cache(value: object) -> tuple[ReplayRule, ...]:
    """The field of a record's body; raises Wrong."""
    rules = items(value, "replay_cache", _rule, MAX_RULES)
    if len({(rule.host, rule.path) for rule in rules}) != len(rules):
        raise Wrong("replay_cache has two rules for the same host and path")
    return rules


def _rule(value: object) -> ReplayRule:
    get = table(value, "replay_cache").get
    text = get("path", "/")
    scope = parse_scope(text) if isinstance(text, str) else None
    if scope is None:
        raise Wrong(f"replay_cache.path {shown(text)} is not usable")
    kind = word(get("type"), "replay_cache.type", ReplayKey)
    return ReplayRule(
        type=kind,
        name=_name(kind, matching(get("name"), "replay_cache.name", TOKEN)),
        ttl_s=seconds(get("ttl", DEFAULT_TTL_S), "replay_cache.ttl", MIN_TTL_S),
        host=scope.host,
        path=scope.path,
        allow_bypass=boolean(get("allow_bypass", False), "replay_cache.allow_bypass"),
    )


def _name(kind: ReplayKey, name: str) -> str:
    match kind:
        case ReplayKey.COOKIE:
            return name
        case ReplayKey.HEADER if may_key(name.lower()):
            return name.lower()
        case ReplayKey.HEADER:
            raise Wrong(f"replay_cache.name {shown(name)} is a header that never reaches an app")
        case _:
            assert_never(kind)
