"""A catalog record and its bytes: one whole object, one writer's version of it.

`decode` is the only way from bytes to a Record. It never raises: whatever a log may hold is either a Record or a
BadRecord that says why not. What a body means is in `gateway.core.bodies`; what a record replaces, in
`gateway.core.catalog`. The format is described in docs/reference/catalog.md.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

SCHEMA: Final = 1
MAX_RECORD_BYTES: Final = 256 * 1024
"""An app with hundreds of hosts and checks needs a tenth of it."""
MAX_DEPTH: Final = 16
MAX_VERSION: Final = 2**53 - 1
"""Largest epoch and counter: the log's script compares them as doubles (Lua 5.1 has no integers)."""
_MAX_DIGITS: Final = 20

_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_INSTANCE = r"[A-Za-z0-9-]{1,64}"
_WRITER = re.compile(r"[!-~]{1,128}", re.ASCII)


class RecordKind(StrEnum):
    """What a record describes."""

    APP = "app"
    INSTANCE = "instance"
    GATEWAY = "gateway"


_IDS: Final = {
    RecordKind.APP: re.compile(_NAME, re.ASCII),
    RecordKind.INSTANCE: re.compile(rf"{_NAME}/{_INSTANCE}", re.ASCII),
    RecordKind.GATEWAY: re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII),
}


class Version(NamedTuple):
    """Orders the writes of one record: the writer's epoch (ms since 1970 at its start, raised where needed so that it
    exceeds every version seen), then its counter."""

    epoch: int
    counter: int


@dataclass(frozen=True, slots=True)
class Record:
    """One version of one app, instance or gateway; `deleted` makes it a tombstone."""

    kind: RecordKind
    id: str
    """`<app>`, `<app>/<instance>` or a gateway's id."""
    writer: str
    epoch: int
    counter: int
    deleted: bool = False
    body: Mapping[str, object] = field(default_factory=dict)
    raw: bytes = field(default=b"", compare=False, repr=False)
    """The bytes it was decoded from, with all fields that are not known here; empty for a new record. A changed record
    is made anew, never by `dataclasses.replace`, which would keep these."""

    @property
    def key(self) -> str:
        """Its name in a log's state: `<kind>/<id>`."""
        return f"{self.kind}/{self.id}"

    @property
    def version(self) -> Version:
        return Version(self.epoch, self.counter)

    @property
    def app(self) -> str:
        """The app it belongs to; empty for a gateway."""
        return "" if self.kind is RecordKind.GATEWAY else self.id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """Bytes, or a body, that cannot be used, and why."""

    reason: str
    key: str = ""
    """Empty when not even that could be read."""


def encode(record: Record) -> bytes:
    """The record's bytes: those it was decoded from, unchanged, or new ones.

    Raises ValueError for what `decode` would not take back: no writer may publish it.
    """
    if record.raw:
        return record.raw
    fields = {
        "kind": record.kind,
        "id": record.id,
        "schema": SCHEMA,
        "writer": record.writer,
        "epoch": record.epoch,
        "counter": record.counter,
        "deleted": record.deleted,
        "body": record.body,
    }
    try:
        raw = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"record {record.key}: {error}") from error
    taken = decode(raw)
    if isinstance(taken, BadRecord):
        raise ValueError(f"record {record.key}: {taken.reason}")
    return raw


def decode(raw: bytes) -> Record | BadRecord:
    """Read a record; never raises."""
    if len(raw) > MAX_RECORD_BYTES:
        return BadRecord(f"{len(raw)} bytes; a record has at most {MAX_RECORD_BYTES}")
    try:
        # json.loads(bytes) would let surrogates pass.
        text = raw.decode()
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        return BadRecord(f"not JSON: {_short(error)}")
    if not isinstance(value, dict):
        return BadRecord("not a JSON object")
    if (reason := _hidden_fault(raw, value)) is not None:
        return BadRecord(reason, _key(value))
    return _record(value, raw)


def _record(value: dict[str, object], raw: bytes) -> Record | BadRecord:
    """The envelope; the first fault found is the reason."""
    kind, identity = value.get("kind"), value.get("id")
    if kind == "instance":  # by far the most
        known = RecordKind.INSTANCE
    elif kind == "app":
        known = RecordKind.APP
    elif kind == "gateway":
        known = RecordKind.GATEWAY
    else:
        return BadRecord(f"unknown kind {_shown(kind)}")
    if not isinstance(identity, str) or not _IDS[known].fullmatch(identity):
        return BadRecord(f"{_shown(identity)} is not the id of a record of kind {kind}")
    key = f"{known}/{identity}"
    if type(value.get("schema")) is not int or value["schema"] != SCHEMA:
        return BadRecord(f"unknown schema version {_shown(value.get('schema'))}; {SCHEMA} is known here", key)
    writer, epoch, counter = value.get("writer"), value.get("epoch"), value.get("counter")
    deleted, body = value.get("deleted"), value.get("body")
    if not isinstance(writer, str) or not _WRITER.fullmatch(writer):
        return BadRecord(f"{_shown(writer)} is not a writer's id", key)
    # Not isinstance: true is an int.
    if type(epoch) is not int or not 0 <= epoch <= MAX_VERSION:
        return BadRecord(f"epoch {_shown(epoch)} is not a whole number from 0 to 2^53-1", key)
    if type(counter) is not int or not 0 <= counter <= MAX_VERSION:
        return BadRecord(f"counter {_shown(counter)} is not a whole number from 0 to 2^53-1", key)
    if not isinstance(deleted, bool):
        return BadRecord(f"deleted is {_shown(deleted)}, not true or false", key)
    if not isinstance(body, dict):
        return BadRecord("body is not an object", key)
    return Record(known, identity, writer, epoch, counter, deleted, body, raw)


def _key(value: dict[str, object]) -> str:
    read = _record(value, b"")
    return read.key


# --- JSON, stricter than the standard library's ----------------------------------------


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        # RFC 8259 4: readers disagree on which of two equal names counts.
        raise ValueError("an object has a name twice")
    return result


def _constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number has more than {_MAX_DIGITS} digits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int)


def _hidden_fault(raw: bytes, value: object) -> str | None:
    """What the parser lets pass and a later reader would trip over. Looked for only where it can be."""
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and not _shallow(value):
        return f"nested deeper than {MAX_DEPTH}"
    if b"\\u" in raw:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return "a string has half of a surrogate pair"
    return None


def _shallow(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return not level


def _shown(value: object) -> str:
    """A value for a message: short, and on one line."""
    text = ascii(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _short(error: Exception) -> str:
    return str(error).replace("\n", " ")[:100]
