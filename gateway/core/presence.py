"""What gateways say of themselves to each other: what each carries, and which sleeps it knows of.

A gateway repeats its message for as long as it lives; a message that is no longer repeated is forgotten. The messages
come from a store that others may write to: one is hostile until checked. What a wrong one can do at worst is to keep
instances up, or to put one to sleep a little early: who stops an instance asks every gateway first
(`gateway.core.sleep.agreed`), and no message can speak for another gateway.

Of an instance that a gateway does not name, it says that it carries nothing to it and does not know of any use.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, TypeGuard

from gateway.core.body_fields import MAX_COUNT, NAME

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Some 5,000 to 8,000 instances."""
NEVER_S: Final = 1e9
"""Longer ago than anything."""
MAX_LEASE_S: Final = 3600.0
MAX_LEASES: Final = 100
"""Of one instance."""
LEASE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

_GATEWAY = re.compile(r"[!-~]{1,128}", re.ASCII)
_BOOT = re.compile(r"[0-9a-f]{1,32}", re.ASCII)
_INSTANCE = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_SLEEP = re.compile(r"[0-9a-f]{0,32}", re.ASCII)

Key = tuple[str, str]
"""App and id of an instance."""


class Carried(NamedTuple):
    """What one instance carries through one gateway, or through all of them."""

    requests: int = 0
    """In flight."""
    streams: int = 0
    """Open event streams and tunnels; where streams may be parked, those that may, while the others are requests."""
    sessions: int = 0
    """Bound to this life of it, and used within the app's `session_idle`."""
    idle_s: float = NEVER_S
    """Since when nothing happened: neither request, nor stream. NEVER_S when nothing did for as long as is known."""
    sleep: str = ""
    """`Instance.sleep` of the record that this gateway knows; empty for all of them together."""

    @property
    def load(self) -> int:
        return self.requests + self.streams


NOTHING: Final = Carried()


@dataclass(frozen=True, slots=True)
class Said:
    """One gateway's message."""

    gateway: str
    boot: str
    """Names this life of the gateway, in hexadecimal digits: another one has forgotten what the one before it saw."""
    carried: Mapping[Key, Carried] = field(default_factory=dict)
    whole: bool = True
    """False when it carries more than its message has room for: what it does not name may carry something too."""


class Lead(IntEnum):
    """What came of asking for a role. True while the asker has it."""

    NO = 0
    """Another one has it."""
    TAKEN = 1
    """Nobody had it, as far as the store knows: it may be new, or may have lost what it held."""
    KEPT = 2
    """The asker had it already."""


class Lease(NamedTuple):
    """A promise to keep an instance awake, which ends by itself."""

    app: str
    id: str
    name: str
    left_s: float


class TooManyLeases(ValueError):
    """The instance has MAX_LEASES already."""


# --- messages --------------------------------------------------------------------------


def encode(said: Said) -> bytes:
    """The message, of at most MAX_MESSAGE_BYTES.

    If there is no room for everything, what carries something or is going to sleep comes first, then what was used
    last. If not even the former has room, it says so.
    """
    raw = _dumped(said, said.carried, said.whole)
    if len(raw) <= MAX_MESSAGE_BYTES:
        return raw
    fitting, whole = _fitting(said, len(raw))
    return _dumped(said, fitting, said.whole and whole)


def decode(raw: bytes) -> Said | None:
    """The message, or None for what is none: its gateway may carry anything."""
    if len(raw) > MAX_MESSAGE_BYTES:
        return None
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    gateway, boot, whole = fields.get("gateway"), fields.get("boot"), fields.get("whole")
    if not _is(gateway, _GATEWAY) or not _is(boot, _BOOT) or not isinstance(whole, bool):
        return None
    carried = _carried(fields.get("apps"))
    return Said(gateway, boot, carried, whole) if carried is not None else None


def heard(messages: Mapping[str, bytes]) -> list[Said | None]:
    """The messages of all live gateways by their names; None for each that cannot be believed."""
    said = [(gateway, decode(raw)) for gateway, raw in messages.items()]
    return [one if one is not None and one.gateway == gateway else None for gateway, one in said]


def merge(all_said: Iterable[Said | None]) -> dict[Key, Carried]:
    """What all gateways together carry, as far as they say: sums, and the shortest idleness."""
    merged: dict[Key, Carried] = {}
    for said in all_said:
        if said is None:
            continue
        for key, one in said.carried.items():
            known = merged.get(key, NOTHING)
            merged[key] = Carried(
                known.requests + one.requests,
                known.streams + one.streams,
                known.sessions + one.sessions,
                min(known.idle_s, one.idle_s),
            )
    return merged


def is_whole(all_said: Iterable[Said | None]) -> bool:
    """Whether what is not named carries nothing. If not, nothing should be chosen to sleep."""
    return all(said is not None and said.whole for said in all_said)


# --- parts -----------------------------------------------------------------------------


def _dumped(said: Said, carried: Mapping[Key, Carried], whole: bool) -> bytes:
    apps: dict[str, dict[str, list[object]]] = {}
    for (app, identity), one in carried.items():
        apps.setdefault(app, {})[identity] = _row(one)
    fields = {"gateway": said.gateway, "boot": said.boot, "whole": whole, "apps": apps}
    return _compact(fields)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _row(one: Carried) -> list[object]:
    # Rounded down: nobody is said to be idle for longer than it is.
    row: list[object] = [one.requests, one.streams, one.sessions, int(min(max(one.idle_s, 0.0), NEVER_S) * 10) / 10]
    return [*row, one.sleep] if one.sleep else row


def _fitting(said: Said, size: int) -> tuple[dict[Key, Carried], bool]:
    """What is left when there is room, and whether all that matters is; `size` is that of all of it."""
    rows = sorted(said.carried.items(), key=lambda row: (not _matters(row[1]), row[1].idle_s, row[0]))
    left = Counter(app for app, _ in said.carried)
    whole = True
    # One byte less: `false` is longer than `true`.
    while size > MAX_MESSAGE_BYTES - 1:
        (app, identity), one = rows.pop()
        left[app] -= 1
        # With quotes, colon and comma; the last one of an app takes the app's with it.
        size -= len(identity) + len(_compact(_row(one))) + (4 if left[app] else len(app) + 9)
        whole = not _matters(one)
    return dict(rows), whole


def _matters(one: Carried) -> bool:
    return bool(one.requests or one.streams or one.sessions or one.sleep)


def _carried(apps: object) -> dict[Key, Carried] | None:
    if not isinstance(apps, dict):
        return None
    carried: dict[Key, Carried] = {}
    for app, rows in apps.items():
        if not _is(app, NAME) or not isinstance(rows, dict):
            return None
        for identity, row in rows.items():
            one = _one(row)
            if one is None or not _is(identity, _INSTANCE):
                return None
            carried[app, identity] = one
    return carried


def _one(row: object) -> Carried | None:
    if not isinstance(row, list) or not 4 <= len(row) <= 5:
        return None
    requests, streams, sessions, idle_s, sleep = row if len(row) == 5 else [*row, ""]
    if not all(type(count) is int and 0 <= count <= MAX_COUNT for count in (requests, streams, sessions)):
        return None
    if type(idle_s) not in (int, float) or not 0 <= idle_s <= NEVER_S or not _is(sleep, _SLEEP):
        return None
    return Carried(requests, streams, sessions, float(idle_s), sleep)


def _is(value: object, pattern: re.Pattern[str]) -> TypeGuard[str]:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
