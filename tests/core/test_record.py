"""Records and their bytes: what was written is read back, and whatever else a log may hold is a BadRecord."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.record import MAX_DEPTH, MAX_RECORD_BYTES, MAX_VERSION, BadRecord, Record, RecordKind, decode, encode

ENVELOPE: dict[str, Any] = {
    "kind": "instance",
    "id": "tools/i-1",
    "schema": 1,
    "writer": "agent-1",
    "epoch": 7,
    "counter": 8,
    "deleted": False,
    "body": {"address": "10.0.0.1:9001"},
}
RECORD = Record(RecordKind.INSTANCE, "tools/i-1", "agent-1", 7, 8, False, {"address": "10.0.0.1:9001"})


def bytes_of(**fields: Any) -> bytes:
    """An envelope with these fields in place of its own; with None, without them."""
    told = {name: value for name, value in (ENVELOPE | fields).items() if value is not None}
    return json.dumps(told).encode()


def reason(raw: bytes) -> str:
    read = decode(raw)
    assert isinstance(read, BadRecord), read
    assert "\n" not in read.reason
    return read.reason


IDS = {
    RecordKind.APP: st.sampled_from(["a", "tools", "0-z", "a" * 63]),
    RecordKind.INSTANCE: st.sampled_from(["a/i-1", "tools/A", "t" * 63 + "/" + "0" * 64]),
    RecordKind.GATEWAY: st.sampled_from(["gw", "A.b_c:1-2", "g" * 128]),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
VERSIONS = st.integers(0, MAX_VERSION)


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(RecordKind))
    body = draw(st.dictionaries(TEXTS, VALUES, max_size=3))
    writer = draw(st.sampled_from(["w", "!~", "w" * 128]))
    return Record(kind, draw(IDS[kind]), writer, draw(VERSIONS), draw(VERSIONS), draw(st.booleans()), body)


@given(records())
def test_what_was_written_is_read_back(record: Record) -> None:
    raw = encode(record)
    read = decode(raw)
    assert read == record
    assert isinstance(read, Record)
    assert encode(read) is read.raw == raw


def test_what_is_not_known_here_is_handed_on() -> None:
    raw = bytes_of(more={"a": [1]}).replace(b'", "', b'" , "')
    read = decode(raw)
    assert isinstance(read, Record)
    assert read == RECORD
    assert encode(read) == raw


def test_what_a_record_is_called() -> None:
    assert (RECORD.key, RECORD.app, RECORD.version) == ("instance/tools/i-1", "tools", (7, 8))
    app = Record(RecordKind.APP, "tools", "w", 1, 1)
    assert (app.key, app.app) == ("app/tools", "tools")
    gateway = Record(RecordKind.GATEWAY, "gw-1", "w", 1, 1)
    assert (gateway.key, gateway.app) == ("gateway/gw-1", "")
    assert RECORD.version > Record(RecordKind.APP, "tools", "w", 6, 9).version


@pytest.mark.parametrize("kind", [("app", "tools"), ("instance", "tools/i-1"), ("gateway", "gw-1")])
def test_each_kind_is_read(kind: tuple[str, str]) -> None:
    read = decode(bytes_of(kind=kind[0], id=kind[1]))
    assert isinstance(read, Record)
    assert read.key == "/".join(kind)


@pytest.mark.parametrize(
    ("fields", "told", "key"),
    [
        ({"kind": "apps"}, "unknown kind 'apps'", ""),
        ({"kind": None}, "unknown kind None", ""),
        ({"kind": []}, "unknown kind a list", ""),
        ({"id": "tools"}, "'tools' is not the id of a record of kind instance", ""),
        ({"id": "tools/i_1"}, "is not the id", ""),
        ({"id": "tools/i-1\n"}, "is not the id", ""),
        ({"id": 7}, "7 is not the id", ""),
        ({"kind": "app", "id": "A"}, "is not the id", ""),
        ({"id": "x" * 100}, "'" + "x" * 56 + "...", ""),
        ({"schema": 2}, "unknown schema version 2; 1 is known here", "instance/tools/i-1"),
        ({"schema": True}, "unknown schema version True", "instance/tools/i-1"),
        ({"schema": None}, "unknown schema version None", "instance/tools/i-1"),
        ({"writer": ""}, "is not a writer's id", "instance/tools/i-1"),
        ({"writer": "a b"}, "is not a writer's id", "instance/tools/i-1"),
        ({"writer": "w" * 129}, "is not a writer's id", "instance/tools/i-1"),
        ({"writer": None}, "None is not a writer's id", "instance/tools/i-1"),
        ({"epoch": -1}, "epoch -1", "instance/tools/i-1"),
        ({"epoch": True}, "epoch True", "instance/tools/i-1"),
        ({"epoch": 1.0}, "epoch 1.0", "instance/tools/i-1"),
        ({"epoch": MAX_VERSION + 1}, "epoch", "instance/tools/i-1"),
        ({"counter": -1}, "counter -1", "instance/tools/i-1"),
        ({"counter": "8"}, "counter '8'", "instance/tools/i-1"),
        ({"counter": MAX_VERSION + 1}, "counter", "instance/tools/i-1"),
        ({"deleted": 0}, "deleted is 0, not true or false", "instance/tools/i-1"),
        ({"body": []}, "body is not an object", "instance/tools/i-1"),
        ({"body": None}, "body is not an object", "instance/tools/i-1"),
    ],
)
def test_one_fault_makes_it_bad(fields: dict[str, Any], told: str, key: str) -> None:
    read = decode(bytes_of(**fields))
    assert isinstance(read, BadRecord)
    assert told in read.reason
    assert read.key == key


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b'{"a":1,"a":2}', "an object has a name twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":1e999}', "a number is out of range"),
        (b'{"a":' + b"1" * 21 + b"}", "more than 20 digits"),
        (b" " * (MAX_RECORD_BYTES + 1), "a record has at most"),
    ],
)
def test_what_two_readers_may_not_agree_on_is_bad(raw: bytes, told: str) -> None:
    assert told in reason(raw)


def nested(depth: int) -> Any:
    value: Any = 7
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def test_what_is_nested_too_deeply_is_bad_and_still_called_by_its_name() -> None:
    # The envelope and the body are two.
    many: list[object] = [[] for _ in range(MAX_DEPTH)]
    assert isinstance(decode(bytes_of(body={"a": nested(MAX_DEPTH - 2), "b": many})), Record)
    read = decode(bytes_of(body={"a": nested(MAX_DEPTH - 1)}))
    assert read == BadRecord("nested deeper than 16", "instance/tools/i-1")


def test_half_of_a_surrogate_pair_is_bad() -> None:
    assert decode(bytes_of(body={"a": "\ud800"})) == BadRecord(
        "a string has half of a surrogate pair", "instance/tools/i-1"
    )
    read = decode(bytes_of(body={"a": "\U0001f6a2"}))
    assert isinstance(read, Record)
    assert read.body == {"a": "\U0001f6a2"}


@pytest.mark.parametrize(
    "record",
    [
        Record(RecordKind.APP, "A", "w", 1, 1),
        Record(RecordKind.APP, "a", "", 1, 1),
        Record(RecordKind.APP, "a", "w", -1, 1),
        Record(RecordKind.APP, "a", "w", 1, 1, False, {"a": float("nan")}),
        Record(RecordKind.APP, "a", "w", 1, 1, False, {"a": object()}),
        Record(RecordKind.APP, "a", "w", 1, 1, False, {"a": nested(MAX_DEPTH)}),
        Record(RecordKind.APP, "a", "w", 1, 1, False, {"a": nested(100_000)}),
        Record(RecordKind.APP, "a", "w", 1, 1, False, {"a": "x" * MAX_RECORD_BYTES}),
        Record(RecordKind.APP, "a", "w", 1, 1, False, {"a": "\ud800"}),
    ],
)
def test_what_nobody_could_read_is_not_written(record: Record) -> None:
    with pytest.raises(ValueError, match=r"record app/|JSON|surrogates"):
        encode(record)


@given(st.binary(max_size=80))
def test_no_bytes_raise(raw: bytes) -> None:
    decode(raw)
    decode(b'{"kind":"app","id":' + raw + b"}")


@given(st.sampled_from(sorted(ENVELOPE)), VALUES)
def test_no_field_raises(name: str, value: object) -> None:
    read = decode(bytes_of(**{name: value}))
    assert isinstance(read, BadRecord) or decode(encode(read)) == read


@given(st.integers(0, len(bytes_of()) - 1), st.integers(0, 255))
def test_no_flipped_byte_raises(at: int, byte: int) -> None:
    raw = bytearray(bytes_of())
    raw[at] = byte
    read = decode(bytes(raw))
    assert isinstance(read, BadRecord) or read.raw == raw
