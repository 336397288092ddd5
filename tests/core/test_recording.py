"""What is kept of a session that may begin anew: the same comes out again, and nothing else is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.model import Pin
from gateway.core.recording import (
    MAX_BINDING_BYTES,
    MAX_BODY_BYTES,
    MAX_RECORDING_BYTES,
    MAX_VALUE_BYTES,
    Binding,
    Recording,
    decode,
    decode_binding,
    encode,
    encode_binding,
    is_session_id,
    record,
)
from tests.core.builders import head

BODY = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}'
TYPE = (b"content-type", b"application/json")
ACCEPT = (b"accept", b"application/json, text/event-stream")
FIRST = b"moorage-recording 1\n"
BINDING = Binding(Pin("i-2", "k3j9"), b"up-2")


def padded(length: int) -> bytes:
    """An `initialize` of this many bytes."""
    return BODY[:-1] + b" " * (length - len(BODY)) + b"}"


# --- what is recorded ----------------------------------------------------------------------


def test_an_initialize_is_recorded_without_credentials_cookies_and_query() -> None:
    of = head(
        "POST",
        "/mcp?api_key=secret",
        content_type="application/json",
        accept="application/json, text/event-stream",
        authorization="Bearer secret",
        cookie="sid=secret",
        x_api_key="secret",
        mcp_protocol_version="2025-06-18",
        content_length="2",
    )
    recording = record(of.values, BODY)
    assert recording == Recording((ACCEPT, TYPE, (b"mcp-protocol-version", b"2025-06-18")), BODY)
    assert b"secret" not in encode(recording)


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"{",
        b"[" + BODY + b"]",
        BODY.replace(b"initialize", b"tools/call"),
        BODY.replace(b'"id":0,', b""),
        BODY.replace(b'"2.0"', b'"1.0"'),
        padded(MAX_BODY_BYTES + 1),
    ],
)
def test_nothing_else_is_recorded(body: bytes | None) -> None:
    assert record({}, body) is None


def test_what_is_recorded_has_bounds() -> None:
    assert record({}, padded(MAX_BODY_BYTES)) == Recording((), padded(MAX_BODY_BYTES))
    assert record({b"accept": b"a" * MAX_VALUE_BYTES}, BODY) is not None
    assert record({b"accept": b"a" * (MAX_VALUE_BYTES + 1)}, BODY) is None
    assert record({b"cookie": b"a" * (MAX_VALUE_BYTES + 1)}, BODY) is not None
    longest = dict.fromkeys((b"accept", b"content-type", b"mcp-protocol-version"), b"a" * MAX_VALUE_BYTES)
    full = record(longest, padded(MAX_BODY_BYTES))
    assert full is not None
    assert len(encode(full)) <= MAX_RECORDING_BYTES
    assert decode(encode(full)) == full


@pytest.mark.parametrize(("body", "rpc_id"), [(BODY, b"0"), (BODY.replace(b":0,", b':"a",'), b'"a"'), (b"?", b"")])
def test_a_recording_knows_its_id(body: bytes, rpc_id: bytes) -> None:
    assert Recording((), body).rpc_id == rpc_id


@pytest.mark.parametrize("value", [b"a", b"!~", b"a" * 4096])
def test_session_ids_are_visible_ascii(value: bytes) -> None:
    assert is_session_id(value)
    for bad in (b"", value + b" ", value + b"\n", b"\x7f" + value, b"\xe9", b"a" * 4097):
        assert not is_session_id(bad)


# --- recordings there and back ---------------------------------------------------------------

VALUES = st.text("".join(map(chr, [9, *range(32, 127), 0x80, 0xFF])), max_size=40).map(
    lambda s: s.strip(" \t").encode("latin-1")
)


@given(
    st.dictionaries(
        st.sampled_from([b"accept", b"content-type", b"mcp-protocol-version", b"cookie"]), VALUES, max_size=4
    ),
    st.text(max_size=20),
    st.sampled_from([b"", b"\n\n", b"\r\n \t"]),
)
def test_what_was_recorded_is_read_again(values: dict[bytes, bytes], text: str, blank: bytes) -> None:
    params = json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "replace")
    body = blank + b'{"jsonrpc": "2.0", "id": "1", "method": "initialize", "params": %b}' % params + blank
    recording = record(values, body)
    assert recording is not None
    assert decode(encode(recording)) == recording


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        BODY,
        FIRST + BODY,
        FIRST + b"\n",
        b"moorage-recording 2\n\n" + BODY,
        FIRST + b"\n" + BODY.replace(b"initialize", b"tools/call"),
        FIRST + b"authorization: Bearer x\n\n" + BODY,
        FIRST + b"accept: a\naccept: b\n\n" + BODY,
        FIRST + b"content-type: a\naccept: b\n\n" + BODY,
        FIRST + b"accept: a\r\n\n" + BODY,
        FIRST + b"accept:a\n\n" + BODY,
        FIRST + b"accept: \n\n" + BODY,
        FIRST + b"accept: a \n\n" + BODY,
        FIRST + b"Accept: a\n\n" + BODY,
        FIRST + b"accept: " + b"a" * (MAX_VALUE_BYTES + 1) + b"\n\n" + BODY,
        FIRST + b"\n" + padded(MAX_BODY_BYTES + 1),
        FIRST + b"\n" + padded(MAX_RECORDING_BYTES),
    ],
)
def test_what_could_not_have_been_recorded_is_not_there(raw: bytes) -> None:
    assert decode(raw) is None


@given(st.binary(max_size=200) | st.binary(max_size=60).map(FIRST.__add__))
@example(FIRST + b"\n" + b"[" * 5000)
def test_whatever_a_store_holds_is_read(raw: bytes) -> None:
    found = decode(raw)
    assert found is None or encode(found) == raw


# --- bindings there and back -----------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True)
PINS = st.builds(
    Pin,
    NAMES,
    st.from_regex(r"[0-9a-zA-Z]{1,16}", fullmatch=True),
    st.just("") | st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True),
    st.booleans(),
)
IDS = st.text("".join(map(chr, range(0x21, 0x7F))), min_size=1, max_size=50).map(str.encode)


@given(PINS, IDS)
@example(Pin("i" * 64, "0" * 16, "u" * 63, via=True), b'"' * 4096)
def test_a_binding_is_read_again(pin: Pin, upstream_id: bytes) -> None:
    binding = Binding(pin, upstream_id)
    assert decode_binding(encode_binding(binding)) == binding


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 5000,
        b'{"instance":7,"incarnation":"k3j9","id":"up-2"}',
        b'{"instance":"i-2","incarnation":null,"id":"up-2"}',
        b'{"instance":"i-2","incarnation":"k3j9"}',
        b'{"instance":"i-2","incarnation":"k3j9","id":""}',
        b'{"instance":"i-2","incarnation":"k3j9","id":"up 2"}',
        b'{"instance":"i-2","incarnation":"k3j9","id":"\\ud800"}',
        b'{"instance":"","incarnation":"k3j9","id":"up-2"}',
        b'{"instance":"a/b/c","incarnation":"k3j9","id":"up-2"}',
        b'{"instance":"i-2\\n","incarnation":"k3j9","id":"up-2"}',
        b'{"instance":"i-2","incarnation":"","id":"up-2"}',
        encode_binding(Binding(BINDING.pin, b"a" * 4097)),
        encode_binding(BINDING)[:-1] + b" " * MAX_BINDING_BYTES + b"}",
    ],
)
def test_what_is_no_binding_is_not_there(raw: bytes) -> None:
    assert decode_binding(encode_binding(BINDING)) == BINDING
    assert decode_binding(raw) is None
