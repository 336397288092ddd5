"""The JSON form of a replay: an answer of its own content type whose body says who is to answer.

docs/reference/replay.md, "The JSON form"; from Fly's page "Dynamic request routing". JSON from an app is taken
strictly: whatever two readers could understand differently is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from gateway.core.body_fields import TOKEN
from gateway.core.fields import deletable, settable
from gateway.core.problems import Problem
from gateway.core.replay import (
    FIELDS,
    HEADERS,
    MAX_TTL_S,
    BadReplay,
    CacheOrder,
    Replay,
    Transform,
    bad_replay,
    cache_pattern,
    replay_of,
    shown,
)

CONTENT_TYPE: Final = b"application/vnd.fly.replay+json"
MAX_JSON_BYTES: Final = 65_536
MAX_LISTED: Final = 100
"""Names to delete, and headers to set: as many as a request may have."""
MAX_PATH_BYTES: Final = 8192
MAX_VALUE_BYTES: Final = 8192
MAX_SET_BYTES: Final = 16_384
"""Names and values of all headers to set."""

_KEYS: Final = FIELDS | {"transform", "cache", "allow_bypass"}
_PATH = re.compile(r"/[\x21\x22\x24-\x7e]*+")  # origin form (RFC 9112 3.2.1)
_VALUE = re.compile(r"[\t\x20-\x7e]*+")


def is_replay_json(content_type: bytes) -> bool:
    """Whether a Content-Type says that the body is a replay; its parameters do not matter."""
    return content_type.partition(b";")[0].strip(b" \t").lower() == CONTENT_TYPE


def parse_replay_json(body: bytes, values: Mapping[bytes, bytes]) -> Replay | Problem:
    """The replay of an answer of type CONTENT_TYPE. Never raises; a Problem's code is PA03.

    Args:
        body: the whole of it, without a content coding.
        values: the answer's fields by lower-case name; none may speak of a replay too.
    """
    try:
        for name in HEADERS:
            if name in values:
                raise BadReplay(f"the header {name.decode()} beside a replay in JSON")
        return _replay(_object(_load(body), "the replay", _KEYS))
    except BadReplay as bad:
        return bad_replay(bad)


def _replay(top: Mapping[str, Any]) -> Replay:
    fields = {name: _field(value, name) for name, value in top.items() if name in FIELDS}
    transform = _transform(_object(top["transform"], "transform", _TRANSFORM_KEYS)) if "transform" in top else None
    return replay_of(fields, transform, _cache_order(top))


def _field(value: object, name: str) -> str:
    """A field as the header form spells it."""
    if name == "elsewhere" and isinstance(value, bool):
        return "true" if value else "false"
    return _string(value, name)


# --- the request as the target sees it ------------------------------------------------

_TRANSFORM_KEYS: Final = frozenset({"path", "delete_headers", "set_headers"})
_SET_KEYS: Final = frozenset({"name", "value"})


def _transform(told: Mapping[str, Any]) -> Transform:
    target = ""
    if "path" in told:
        target = _string(told["path"], "transform.path")
        if len(target) > MAX_PATH_BYTES or _PATH.fullmatch(target) is None:
            raise BadReplay(f"transform.path is no path of at most {MAX_PATH_BYTES} bytes: {shown(target)}")
    return Transform(target.encode("ascii"), _delete(told), _set(told))


def _delete(told: Mapping[str, Any]) -> frozenset[bytes]:
    where = "transform.delete_headers"
    names = frozenset(_name(one, where).lower() for one in _list(told.get("delete_headers", []), where))
    for name in names:
        if not deletable(name):
            raise BadReplay(f"{where}: {shown(name.decode('ascii'))} is the gateway's to write")
    return names


def _set(told: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    where = "transform.set_headers"
    lines: dict[bytes, tuple[bytes, bytes]] = {}
    for one in _list(told.get("set_headers", []), where):
        line = _object(one, f"an entry of {where}", _SET_KEYS)
        name = _name(line.get("name"), f"{where}: name")
        if not settable(name.lower()):
            raise BadReplay(f"{where}: {shown(name.decode('ascii'))} is the gateway's to write")
        if name.lower() in lines:
            raise BadReplay(f"{where}: {shown(name.decode('ascii'))} is set twice")
        value = _string(line.get("value"), f"{where}: value")
        if len(value) > MAX_VALUE_BYTES or _VALUE.fullmatch(value) is None:
            raise BadReplay(f"{where}: value is not up to {MAX_VALUE_BYTES} printable ASCII characters: {shown(value)}")
        lines[name.lower()] = (name, value.strip(" \t").encode("ascii"))
    if sum(len(name) + len(value) for name, value in lines.values()) > MAX_SET_BYTES:
        raise BadReplay(f"{where} is longer than {MAX_SET_BYTES} bytes")
    return tuple(lines.values())


def _name(value: object, where: str) -> bytes:
    name = _string(value, where)
    if TOKEN.fullmatch(name) is None:
        raise BadReplay(f"{where} is no header name: {shown(name)}")
    return name.encode("ascii")


# --- the path cache -------------------------------------------------------------------

_CACHE_KEYS: Final = frozenset({"prefix", "ttl", "invalidate", "allow_bypass"})


def _cache_order(top: Mapping[str, Any]) -> CacheOrder | None:
    outer = _flag(top["allow_bypass"], "allow_bypass") if "allow_bypass" in top else None
    if "cache" not in top:
        if outer is not None:
            raise BadReplay("allow_bypass without cache")
        return None
    cache = _object(top["cache"], "cache", _CACHE_KEYS)
    bypass = _flag(cache["allow_bypass"], "cache.allow_bypass") if "allow_bypass" in cache else outer
    if outer is not None and outer is not bypass:
        raise BadReplay("allow_bypass and cache.allow_bypass contradict each other")
    pattern = cache_pattern("cache.prefix", _string(cache["prefix"], "cache.prefix")) if "prefix" in cache else None
    ttl = _ttl(cache["ttl"]) if "ttl" in cache else None
    if "invalidate" in cache and _flag(cache["invalidate"], "cache.invalidate"):
        return CacheOrder(invalidate=True)
    if pattern is None or ttl is None:
        raise BadReplay("cache needs both prefix and ttl, or invalidate")
    return CacheOrder(*pattern, float(ttl), allow_bypass=bool(bypass))


def _ttl(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TTL_S:
        raise BadReplay(f"cache.ttl is no whole number of seconds, at most {MAX_TTL_S}")
    return value


# --- JSON of the right shape ----------------------------------------------------------


def _load(body: bytes) -> object:
    if len(body) > MAX_JSON_BYTES:
        raise BadReplay(f"the replay is longer than {MAX_JSON_BYTES} bytes")
    try:
        # Decoded here: json would guess UTF-16 and UTF-32 too. A byte order mark is refused by `loads`.
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadReplay("the replay is not JSON in UTF-8, or nested too deeply") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique: dict[str, object] = {}
    for key, value in pairs:
        if key in unique:
            raise BadReplay(f"the key {shown(key)} came twice")
        unique[key] = value
    return unique


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(value: object, where: str, keys: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadReplay(f"{where} is not an object")
    for key in value:
        if key not in keys:
            raise BadReplay(f"{shown(key)} is no key of {where}")
    return value


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list) or len(value) > MAX_LISTED:
        raise BadReplay(f"{where} is not a list of at most {MAX_LISTED}")
    return value


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadReplay(f"{where} is not a string")
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise BadReplay(f"{where} is neither true nor false")
    return value
