"""What a replay is, and its header form: `fly-replay` and the three `fly-replay-cache` headers beside it.

docs/reference/replay.md is the contract; Fly's page "Dynamic request routing" is where it comes from. The JSON form
is in `gateway.core.replay_json`; what a field's value may be is decided here for both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from gateway.core.body_fields import is_host
from gateway.core.problems import Code, Problem
from gateway.core.regions import MAX_REGIONS, region_names

REPLAY: Final = b"fly-replay"
CACHE: Final = b"fly-replay-cache"
CACHE_TTL: Final = b"fly-replay-cache-ttl-secs"
CACHE_BYPASS: Final = b"fly-replay-cache-allow-bypass"
HEADERS: Final = (REPLAY, CACHE, CACHE_TTL, CACHE_BYPASS)

MAX_REPLAY_BYTES: Final = 4096
MAX_STATE_CHARS: Final = 2048
MAX_TIMEOUT_S: Final = 3600.0
MAX_PATTERN_BYTES: Final = 1024
MAX_TTL_S: Final = 999_999_999
MAX_SHOWN_CHARS: Final = 40


class Fallback(StrEnum):
    """Who gets the request when the target is not reached. A closed set."""

    NONE = ""
    FORCE_SELF = "force_self"
    """The instance that answered, and no other."""
    PREFER_SELF = "prefer_self"
    """The instance that answered, else any of its app."""


@dataclass(frozen=True, slots=True)
class Transform:
    """How the target sees the request."""

    target: bytes = b""
    """Path and query in origin form; empty for unchanged."""
    delete: frozenset[bytes] = frozenset()
    """Names in lower case."""
    set: tuple[tuple[bytes, bytes], ...] = ()
    """Names as written, each once in whatever case, and values; they replace the client's fields of the same name."""


@dataclass(frozen=True, slots=True)
class CacheOrder:
    """For which requests the replay is to be repeated without asking, or that what is cached is to be dropped."""

    host: str = ""
    """In lower case, without a port; empty where the pattern names none."""
    prefix: bytes = b""
    """A path prefix by whole segments, without a `/` at its end: empty for every path."""
    ttl_s: float = 0.0
    """As told, so that it may be too short to cache at all."""
    invalidate: bool = False
    """Drop what is cached for this request; nothing else is set then."""
    allow_bypass: bool = False
    """Whether a client may ask with `fly-replay-cache-control: skip` that the app is asked anew."""


@dataclass(frozen=True, slots=True)
class Replay:
    """An app's answer that somebody else is to answer. Names a target; whether there is one, only the catalog knows."""

    app: str = ""
    instance: str = ""
    prefer_instance: str = ""
    """Never beside `instance`."""
    regions: tuple[str, ...] = ()
    """As listed, in lower case: `gateway.core.regions.resolve_regions` says what they stand for."""
    state: str | None = None
    """None for none, which is not the same as an empty one."""
    elsewhere: bool = False
    timeout_s: float | None = None
    """For reaching the target: more than 0, at most MAX_TIMEOUT_S."""
    fallback: Fallback = Fallback.NONE
    transform: Transform | None = None
    cache: CacheOrder | None = None

    @property
    def cacheable(self) -> bool:
        """Whether it would be right for another request too: a cache may repeat it."""
        return (
            self.state is None
            and self.transform is None
            and self.timeout_s is None
            and self.fallback is Fallback.NONE
            and not self.elsewhere
        )


class BadReplay(Exception):
    """What is wrong with a replay, in short and in printable ASCII; never leaves the function that parses it."""


def bad_replay(bad: BadReplay) -> Problem:
    """The PA03 that the client of an app with a bad replay gets."""
    return Problem(Code.PA03, str(bad))


def shown(text: str) -> str:
    """The beginning of hostile text, quoted, fit for an error message and a line of a log."""
    safe = "".join(char if " " <= char <= "~" else "?" for char in text[:MAX_SHOWN_CHARS])
    return f"'{safe}'" if len(text) <= MAX_SHOWN_CHARS else f"'{safe}'..."


# --- what a field may hold ------------------------------------------------------------

_TIMEOUT = re.compile(r"([0-9]{1,9})(ms|s|m)")
_UNITS_MS: Final[Mapping[str, int]] = {"ms": 1, "s": 1000, "m": 60_000}


def _timeout_s(text: str) -> float | None:
    told = _TIMEOUT.fullmatch(text)
    seconds = int(told[1]) * _UNITS_MS[told[2]] / 1000 if told is not None else 0
    return seconds if 0 < seconds <= MAX_TIMEOUT_S else None


class _Rule(NamedTuple):
    read: Callable[[str], object]
    """None for what it may not hold."""
    told: str


_INSTANCE = _Rule(re.compile(r"[A-Za-z0-9-]{1,64}").fullmatch, "is no instance id")

_RULES: Final[Mapping[str, _Rule]] = {
    "app": _Rule(re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?").fullmatch, "is no app name"),
    "instance": _INSTANCE,
    "prefer_instance": _INSTANCE,
    "region": _Rule(region_names, f"is no list of 1 to {MAX_REGIONS} regions"),
    "state": _Rule(
        re.compile(rf"[\x20\x21\x23-\x3a\x3c-\x7e]{{0,{MAX_STATE_CHARS}}}").fullmatch,
        f"is not up to {MAX_STATE_CHARS} printable ASCII characters without `;` and quotes",
    ),
    "elsewhere": _Rule(re.compile(r"true|false").fullmatch, "is neither true nor false"),
    "timeout": _Rule(_timeout_s, "is not a number with ms, s or m, more than 0 and at most 1 h"),
    "fallback": _Rule(re.compile(r"force_self|prefer_self").fullmatch, "is neither force_self nor prefer_self"),
}
FIELDS: Final = frozenset(_RULES)
"""The names that both forms know."""


def replay_of(fields: Mapping[str, str], transform: Transform | None, cache: CacheOrder | None) -> Replay:
    """The replay that these fields, by lower-case names, make together. Raises BadReplay."""
    for name, text in fields.items():
        rule = _RULES.get(name)
        if rule is None:
            raise BadReplay(f"{shown(name)} is no field of a replay")
        if rule.read(text) is None:
            raise BadReplay(f"{name} {rule.told}: {shown(text)}" if text else f"{name} is empty")
    instance, preferred = fields.get("instance", ""), fields.get("prefer_instance", "")
    if instance and preferred:
        raise BadReplay("both instance and prefer_instance")
    app, regions = fields.get("app", ""), fields.get("region")
    elsewhere = fields.get("elsewhere") == "true"
    if not (instance or preferred or regions or app or elsewhere):
        raise BadReplay("no target: one of instance, prefer_instance, region, app, elsewhere=true is needed")
    return Replay(
        app,
        instance,
        preferred,
        (region_names(regions) or ()) if regions else (),
        fields.get("state"),
        elsewhere,
        _timeout_s(fields.get("timeout", "")),
        Fallback(fields.get("fallback", "")),
        transform,
        cache,
    )


_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[\x21\x22\x24-\x29\x2b-\x2e\x30-\x3e\x40-\x7e]++")  # RFC 9112 3.2.1, no `*`


def cache_pattern(where: str, text: str) -> tuple[str, bytes]:
    """The host and the path prefix of `/path`, `host/path` and `host/path/*`. Raises BadReplay, which names `where`."""
    host, slash, path = text.partition("/")
    host = host.lower()
    segments = path.split("/")
    if segments[-1] in ("", "*"):
        segments.pop()
    if (
        not slash
        or not text.isascii()
        or len(text) > MAX_PATTERN_BYTES
        or not all(map(_SEGMENT.fullmatch, segments))
        or (host and not is_host(host))
    ):
        raise BadReplay(f"{where} is neither /path/* nor host/path/*: {shown(text)}")
    return host, "".join(f"/{segment}" for segment in segments).encode("ascii")


# --- the header form ------------------------------------------------------------------

_FIELD = re.compile(
    r"[ \t]*+([A-Za-z0-9_-]++)[ \t]*+=[ \t]*+"
    r'(?:"([\t\x20\x21\x23-\x7e]*+)"|([\x21\x23-\x2b\x2d-\x3a\x3c-\x7e]*+))'
    r"[ \t]*+(?:;[ \t]*+|\Z)"
)
_SECONDS = re.compile(rb"[0-9]{1,9}")


def parse_replay(values: Mapping[bytes, bytes], repeated: Collection[bytes]) -> Replay | Problem:
    """The replay of an answer that has a `fly-replay` field. Never raises; a Problem's code is PA03.

    Args:
        values: the answer's fields by lower-case name, repeated ones joined (`ResponseHead.values`).
        repeated: names of fields that came more than once.
    """
    try:
        for name in HEADERS:
            if name in repeated:
                raise BadReplay(f"the header {name.decode()} came twice")
        return replay_of(_fields(values.get(REPLAY, b"")), None, _cache_order(values))
    except BadReplay as bad:
        return bad_replay(bad)


def _fields(header: bytes) -> dict[str, str]:
    """The fields of a `fly-replay` header, values without their quotes."""
    if len(header) > MAX_REPLAY_BYTES:
        raise BadReplay(f"the header fly-replay is longer than {MAX_REPLAY_BYTES} bytes")
    text = header.decode("latin-1")
    fields: dict[str, str] = {}
    at = 0
    while at < len(text):
        one = _FIELD.match(text, at)
        if one is None:
            raise BadReplay(
                f"the header fly-replay is malformed from {shown(text[at:])} on; fields are name=value, separated by "
                "one `;`, and a value with a comma, a blank or a `;` in it is quoted"
            )
        name = one[1].lower()
        if name in fields:
            raise BadReplay(f"the field {shown(name)} came twice")
        fields[name] = one[3] if one[2] is None else one[2]
        at = one.end()
    return fields


def _cache_order(values: Mapping[bytes, bytes]) -> CacheOrder | None:
    """What the three `fly-replay-cache` headers say together."""
    pattern, ttl, bypass = values.get(CACHE), values.get(CACHE_TTL), values.get(CACHE_BYPASS)
    if pattern is None:
        if ttl is not None or bypass is not None:
            raise BadReplay(
                f"the header {(CACHE_TTL if bypass is None else CACHE_BYPASS).decode()} without {CACHE.decode()}"
            )
        return None
    if ttl is not None and _SECONDS.fullmatch(ttl) is None:
        raise BadReplay(f"the header {CACHE_TTL.decode()} is no number of seconds: {shown(ttl.decode('latin-1'))}")
    if bypass is not None and bypass.lower() not in (b"yes", b"no"):
        raise BadReplay(f"the header {CACHE_BYPASS.decode()} is neither yes nor no: {shown(bypass.decode('latin-1'))}")
    if pattern.lower() == b"invalidate":
        return CacheOrder(invalidate=True)
    host, prefix = cache_pattern(f"the header {CACHE.decode()}", pattern.decode("latin-1"))
    if ttl is None:
        raise BadReplay(f"the header {CACHE.decode()} without {CACHE_TTL.decode()}")
    return CacheOrder(host, prefix, float(ttl), allow_bypass=bypass is not None and bypass.lower() == b"yes")
