"""An agent's answers as JSON: each comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agent.base import (
    Cordoned,
    Failure,
    FailureKind,
    InstanceKey,
    Listed,
    NotReached,
    Prepared,
    Reached,
    Refused,
    Started,
    StartFailed,
    Stopped,
)
from gateway.agent.outcomes import (
    MAX_MESSAGE,
    MAX_RETRY_S,
    BadAnswer,
    Outcome,
    decode,
    decode_listed,
    encode,
    encode_listed,
)
from gateway.core.model import Instance
from tests.core.test_bodies import INSTANCES as PLAIN

KEY = InstanceKey("tools", "i-1")
INSTANCES = st.builds(
    dataclasses.replace,
    PLAIN,
    agent=st.sampled_from(["", "http://10.0.0.5:8082", "https://[fd00::5]:8082"]),
    sleep=st.text("0a9f", max_size=32),
)
_TEXTS = st.text(max_size=50)
FAILURES = st.builds(Failure, st.sampled_from(FailureKind), _TEXTS, _TEXTS)
_RETRIES = st.floats(0, MAX_RETRY_S)
OUTCOMES: dict[type, st.SearchStrategy[Any]] = {
    Started: st.builds(Started, INSTANCES),
    StartFailed: st.builds(StartFailed, FAILURES, _RETRIES),
    Stopped: st.builds(Stopped, INSTANCES),
    Refused: st.builds(Refused, FAILURES),
    Prepared: st.builds(Prepared, INSTANCES, _TEXTS),
    Cordoned: st.builds(Cordoned, INSTANCES),
    Reached: st.builds(Reached, INSTANCES),
    NotReached: st.builds(NotReached, st.none() | INSTANCES),
}
LISTED = st.builds(Listed, INSTANCES, _TEXTS, _RETRIES, _TEXTS, _TEXTS)


def through_json(value: object) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def key_of(outcome: Any) -> InstanceKey:
    instance: Instance | None = getattr(outcome, "instance", None)
    return KEY if instance is None else InstanceKey(instance.app, instance.id)


def test_every_outcome_is_tried() -> None:
    assert set(OUTCOMES) == set(get_args(Outcome))


@given(st.one_of(list(OUTCOMES.values())))
def test_an_outcome_is_read_back_as_it_was(outcome: Outcome) -> None:
    assert decode(through_json(encode(outcome)), key_of(outcome)) == outcome


@given(LISTED)
def test_an_entry_of_a_list_is_read_back_as_it_was(listed: Listed) -> None:
    assert decode_listed(through_json(encode_listed(listed))) == listed


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
_FIELDS = st.fixed_dictionaries(
    {"outcome": st.sampled_from(["started", "start-failed", "stopped", "refused", "prepared", "not-reached"])},
    optional={
        "instance": _JSON | st.just({"app": "tools", "id": "i-1"}),
        "failure": _JSON | st.just({"kind": "exited", "message": "m", "detail": ""}),
        "retry_after_s": _JSON,
        "token": _JSON,
    },
)


@given(_JSON | _FIELDS)
def test_whatever_comes_is_an_outcome_or_a_bad_answer(value: object) -> None:
    with contextlib.suppress(BadAnswer):
        assert type(decode(value, KEY)) in OUTCOMES
    with contextlib.suppress(BadAnswer):
        assert isinstance(decode_listed(value), Listed)


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "begun"},
        {"outcome": None},
        {"instance": None},
        {"instance": {"app": "tools", "id": "i-2"}},
        {"instance": {"app": "other", "id": "i-1"}},
        {"instance": {"app": "tools", "id": "i-1", "state": "up"}},
        {"instance": {"app": "tools", "id": "i-1", "address": "127.1:80"}},
    ],
)
def test_an_answer_about_anything_else_is_bad(change: dict[str, object]) -> None:
    good = through_json(encode(Started(Instance("tools", "i-1"))))
    assert decode(good, KEY) == Started(Instance("tools", "i-1"))
    with pytest.raises(BadAnswer):
        decode({**good, **change}, KEY)


@pytest.mark.parametrize(
    "change",
    [
        {"failure": None},
        {"failure": {"kind": "tired", "message": "", "detail": ""}},
        {"failure": {"kind": ["exited"], "message": "", "detail": ""}},
        {"failure": {"kind": "exited", "message": 3, "detail": ""}},
        {"failure": {"kind": "exited", "message": ""}},
        {"retry_after_s": -1},
        {"retry_after_s": True},
        {"retry_after_s": "1"},
        {"retry_after_s": float("nan")},
        {"retry_after_s": 1e9},
        {"retry_after_s": 10**400},
    ],
)
def test_a_failure_that_is_none_is_bad(change: dict[str, object]) -> None:
    good = through_json(encode(StartFailed(Failure(FailureKind.EXITED, "m"), 1.0)))
    assert decode(good, KEY) == StartFailed(Failure(FailureKind.EXITED, "m"), 1.0)
    with pytest.raises(BadAnswer):
        decode({**good, **change}, KEY)


def test_a_message_is_cut_to_what_a_client_may_be_told() -> None:
    outcome = decode(encode(Refused(Failure(FailureKind.REFUSED, "x" * 2 * MAX_MESSAGE))), KEY)
    assert outcome == Refused(Failure(FailureKind.REFUSED, "x" * MAX_MESSAGE))
