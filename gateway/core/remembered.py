"""Entries of the replay caches, and the messages in which gateways tell each other of them.

A message comes from a store that others may write to: it is hostile until checked. What it can do at worst is what
its app could do itself, since borders are looked at again when an entry is used.
"""

from __future__ import annotations

import binascii
import json
import re
from dataclasses import dataclass

from gateway.core.remember import MAX_TTL_S, Target

KEY_BYTES = 32
MAX_REGIONS = 32

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_INSTANCE = re.compile(r"[A-Za-z0-9-]{0,64}", re.ASCII)
_HOST = re.compile(r"[0-9a-z.:\[\]_-]{0,255}", re.ASCII)
_SENDER = re.compile(r"[0-9a-f]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """One remembered replay."""

    app: str
    """The app that the client addresses."""
    key: bytes
    target: Target
    until_s: float
    """When its time is over, in seconds since 1970."""
    allow_bypass: bool = False
    host: str = ""
    """Of a path entry, its host; empty for a session's."""


@dataclass(frozen=True, slots=True)
class Message:
    """An entry that was made, or with `entry` None the end of one."""

    sender: str
    """Names the gateway process, in hexadecimal digits."""
    app: str
    key: bytes
    entry: Entry | None


def encode(message: Message) -> bytes:
    fields: dict[str, object] = {"from": message.sender, "app": message.app, "key": message.key.hex()}
    entry = message.entry
    if entry is not None:
        target = entry.target
        fields |= {
            "to": [target.app, target.instance, target.prefer_instance, list(target.regions)],
            "until": entry.until_s,
            "bypass": entry.allow_bypass,
            "host": entry.host,
        }
    return json.dumps(fields, separators=(",", ":")).encode()


def decode(raw: bytes, now_s: float) -> Message | None:
    """The message, or None for what is none. An entry that would live longer than any may is none."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    sender, app, key = _text(fields.get("from"), _SENDER), _text(fields.get("app"), _NAME), _key(fields.get("key"))
    if sender is None or app is None or key is None:
        return None
    if "to" not in fields:
        return Message(sender, app, key, None)
    target, until_s = _target(fields["to"]), fields.get("until")
    host, bypass = _text(fields.get("host"), _HOST), fields.get("bypass")
    if target is None or host is None or not isinstance(bypass, bool):
        return None
    if isinstance(until_s, bool) or not isinstance(until_s, int | float) or not 0 <= until_s <= now_s + MAX_TTL_S + 60:
        return None
    return Message(sender, app, key, Entry(app, key, target, float(until_s), bypass, host))


def _text(value: object, pattern: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _key(value: object) -> bytes | None:
    if not isinstance(value, str) or len(value) != 2 * KEY_BYTES:
        return None
    try:
        return binascii.unhexlify(value)
    except ValueError:
        return None


def _target(value: object) -> Target | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    app, instance, prefer = _text(value[0], _NAME), _text(value[1], _INSTANCE), _text(value[2], _INSTANCE)
    regions = value[3]
    if app is None or instance is None or prefer is None or not isinstance(regions, list):
        return None
    if len(regions) > MAX_REGIONS or any(_text(one, _NAME) is None for one in regions):
        return None
    return Target(app, instance, prefer, tuple(regions))
