"""How a target is shown the request of a replay, and what it is told of the way: byte for byte."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.detour import (
    CREDENTIALS,
    CacheStatus,
    Form,
    Reason,
    abroad,
    failed_line,
    source_line,
    status_line,
    transformed,
    unavailable_line,
    without,
)
from gateway.core.head import RequestHead, parse_request
from gateway.core.problems import Problem
from gateway.core.replay import Replay, Transform, parse_replay
from gateway.core.replay_json import parse_replay_json
from tests.core.builders import instance

ISSUER = instance("r-1", region="fra")

# --- the request as the target sees it ---------------------------------------------------------------

KEPT = (
    b"Accept: a\r\nCookie: s=1\r\nX-Multi: 1\r\nauthorization:Bearer x\r\nX-MULTI:  2\r\nX-Cookie: c\r\n"
    b"x-multi:\r\nCOOKIE: t=2\r\nMcp-Protocol-Version: 2025-11-25\r\nX-Note: cookie: no\r\n"
)
FORM = Form(b"/mcp?a=b", KEPT)


def test_a_transform_that_changes_nothing() -> None:
    assert transformed(FORM, Transform()) == FORM
    assert transformed(Form(b"/", b""), Transform()) == Form(b"/", b"")


def test_the_path_and_query_are_the_transforms() -> None:
    assert transformed(FORM, Transform(b"/new?x")) == Form(b"/new?x", KEPT)


def test_deleted_headers_go_in_every_case_and_number() -> None:
    shown = transformed(FORM, Transform(delete=frozenset({b"x-multi", b"cookie", b"x-absent"})))
    assert shown.kept == (
        b"Accept: a\r\nauthorization:Bearer x\r\nX-Cookie: c\r\n"
        b"Mcp-Protocol-Version: 2025-11-25\r\nX-Note: cookie: no\r\n"
    )
    assert shown.target == FORM.target


def test_set_headers_replace_the_clients_and_come_last() -> None:
    shown = transformed(FORM, Transform(set=((b"X-Multi", b"9"), (b"Authorization", b"Bearer t0k3n"), (b"X-New", b""))))
    assert shown.kept == (
        b"Accept: a\r\nCookie: s=1\r\nX-Cookie: c\r\nCOOKIE: t=2\r\n"
        b"Mcp-Protocol-Version: 2025-11-25\r\nX-Note: cookie: no\r\n"
        b"X-Multi: 9\r\nAuthorization: Bearer t0k3n\r\nX-New: \r\n"
    )


def test_what_is_deleted_and_set_is_set() -> None:
    shown = transformed(FORM, Transform(delete=frozenset({b"accept"}), set=((b"ACCEPT", b"b"),)))
    assert shown.kept == KEPT.removeprefix(b"Accept: a\r\n") + b"ACCEPT: b\r\n"


def test_transforms_add_up() -> None:
    once = transformed(FORM, Transform(b"/1", frozenset({b"accept"}), ((b"X-A", b"1"), (b"X-B", b"1"))))
    twice = transformed(once, Transform(b"", frozenset({b"x-multi"}), ((b"x-a", b"2"),)))
    assert twice.target == b"/1"
    assert twice.kept == (
        b"Cookie: s=1\r\nauthorization:Bearer x\r\nX-Cookie: c\r\nCOOKIE: t=2\r\n"
        b"Mcp-Protocol-Version: 2025-11-25\r\nX-Note: cookie: no\r\nX-B: 1\r\nx-a: 2\r\n"
    )


def test_abroad_there_are_no_credentials() -> None:
    shown = abroad(FORM)
    assert shown.target == FORM.target
    assert shown.kept == (
        b"Accept: a\r\nX-Multi: 1\r\nX-MULTI:  2\r\nX-Cookie: c\r\nx-multi:\r\n"
        b"Mcp-Protocol-Version: 2025-11-25\r\nX-Note: cookie: no\r\n"
    )
    assert not shown.in_session
    assert abroad(shown) == shown


def test_abroad_a_transforms_own_credentials_are_shown() -> None:
    shown = transformed(abroad(FORM), Transform(set=((b"Authorization", b"Bearer t0k3n"),)))
    assert shown.kept.endswith(b"X-Note: cookie: no\r\nAuthorization: Bearer t0k3n\r\n")
    assert not shown.in_session


# A small alphabet, so that names meet in every case; values that look like other header lines.
NAMES = st.text("aAbB-", min_size=1, max_size=3).map(str.encode) | st.sampled_from([b"Cookie", b"COOKIE"])
VALUES = st.text("aA: -\t\xff", max_size=6).map(lambda text: text.encode("latin-1"))
LINES = st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b":\t"]), VALUES), max_size=12)
LOWER = st.frozensets(st.text("ab-", min_size=1, max_size=3).map(str.encode) | st.just(b"cookie"), max_size=4)
TRANSFORMS = st.builds(
    Transform,
    st.sampled_from([b"", b"/new?x"]),
    LOWER,
    st.lists(st.tuples(NAMES, VALUES), max_size=3, unique_by=lambda line: line[0].lower()).map(tuple),
)

Line = tuple[bytes, bytes, bytes]


def block(lines: list[Line]) -> bytes:
    return b"".join(b"".join(line) + b"\r\n" for line in lines)


@given(LINES, LOWER)
def test_no_other_line_is_touched(lines: list[Line], names: frozenset[bytes]) -> None:
    left: list[Line] = []
    for line in lines:
        if not any(line[0].lower() == name for name in names):
            left.append(line)
    assert without(block(lines), names) == block(left)


@given(LINES, TRANSFORMS)
def test_a_transform_is_what_it_says_and_no_more(lines: list[Line], transform: Transform) -> None:
    expected: list[Line] = list(lines)
    for gone in (*transform.delete, *(name for name, _ in transform.set)):
        expected = [line for line in expected if line[0].lower() != gone.lower()]
    expected += [(name, b": ", value) for name, value in transform.set]
    shown = transformed(Form(b"/old", block(lines)), transform)
    assert shown == Form(transform.target or b"/old", block(expected))


@given(LINES, TRANSFORMS)
def test_what_an_instance_is_shown_is_still_a_head(lines: list[Line], transform: Transform) -> None:
    here, there = transformed(Form(b"/", block(lines)), transform), abroad(Form(b"/", block(lines)))
    for form in (here, there):
        head = parse_request(b"GET " + form.target + b" HTTP/1.1\r\nHost: x\r\n" + form.kept + b"\r\n")
        assert isinstance(head, RequestHead), head
        assert form is here or not CREDENTIALS & head.values.keys()


# --- what is told of it ------------------------------------------------------------------------------


def test_the_target_is_told_who_replayed() -> None:
    line = source_line(ISSUER, 1767225600000000, "cart-17")
    assert line == b"fly-replay-src: instance=r-1;region=fra;t=1767225600000000;state=cart-17\r\n"
    for nothing in (None, ""):
        assert source_line(ISSUER, 0, nothing) == b"fly-replay-src: instance=r-1;region=fra;t=0;state=\r\n"


def test_the_issuer_is_told_what_failed() -> None:
    line = failed_line(Replay("user-123"), ISSUER, Reason.TIMEOUT, 5004)
    assert line == (
        b"fly-replay-failed: instance=;app=user-123;region=;replay_source=r-1;reason=timeout;elapsed_ms=5004\r\n"
    )
    line = failed_line(Replay("", "u-1", regions=("fra", "eu")), ISSUER, Reason.RETRIES_EXHAUSTED, 0)
    assert line == (
        b"fly-replay-failed: instance=u-1;app=;region=fra,eu;replay_source=r-1;"
        b"reason=retries_exhausted;elapsed_ms=0\r\n"
    )
    preferred = failed_line(Replay(prefer_instance="u-2"), ISSUER, Reason.NO_CANDIDATE, 1)
    assert b": instance=u-2;app=;region=;replay_source=r-1;reason=no_candidate;" in preferred


def test_the_target_is_told_of_caches() -> None:
    assert [status_line(one) for one in CacheStatus] == [
        b"fly-replay-cache-status: miss\r\n",
        b"fly-replay-cache-status: hit\r\n",
        b"fly-replay-cache-status: bypass\r\n",
    ]


@pytest.mark.parametrize("id", ["i-1", "A", "0" * 64])
def test_an_instance_that_was_not_taken_is_named(id: str) -> None:
    assert unavailable_line(id) == f"fly-preferred-instance-unavailable: {id}\r\n".encode()


@pytest.mark.parametrize("id", ["", "0" * 65, "a b", "a\r\nx: y", "a\n", "\na", "é", "a;b", "a_b"])
def test_what_cannot_be_an_instance_is_not_repeated(id: str) -> None:
    assert unavailable_line(id) == b""


A_LINE = re.compile(rb"fly-[a-z-]+: [\x20-\x7e]*\r\n")
FIELD = st.tuples(
    st.sampled_from(["instance", "prefer_instance", "region", "state"]),
    st.text(st.sampled_from('aZ09-,;="\r\n\0\x7f\xe9 '), max_size=5) | st.sampled_from(["i-1", "fra,eu", '"fra,eu"']),
)


def assert_one_line_each(replay: Replay | Problem) -> None:
    if isinstance(replay, Replay):
        for line in (source_line(ISSUER, 1, replay.state), failed_line(replay, ISSUER, Reason.TIMEOUT, 1)):
            assert A_LINE.fullmatch(line), line


@given(FIELD)
@example(("state", "b"))
@example(("state", "b\r\nx: y"))
def test_no_replay_of_an_app_writes_a_second_line(field: tuple[str, str]) -> None:
    name, value = field
    assert_one_line_each(parse_replay({b"fly-replay": f"app=a;{name}={value}".encode("latin-1")}, ()))
    assert_one_line_each(parse_replay_json(json.dumps({"app": "a", name: value}).encode(), {}))


@given(st.text(max_size=70))
def test_no_header_of_a_client_writes_a_second_line(text: str) -> None:
    line = unavailable_line(text)
    assert line == b"" or A_LINE.fullmatch(line)
