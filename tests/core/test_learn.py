"""Pins come from 2xx answers to `initialize` and nothing else; results teach what later requests will carry."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ask import Asked, build_ask, stored_key
from gateway.core.classify import classify, state_key, task_key
from gateway.core.decision import Ask
from gateway.core.learn import (
    MAX_TTL_S,
    STATE_TTL_S,
    TASK_GRACE_S,
    TASK_TTL_S,
    Event,
    Learned,
    Lesson,
    learn,
    learn_result,
)
from gateway.core.model import App, AppProtocol, Dialect, Intent, Kind, Pin, SessionIds
from gateway.core.seal import MAX_UPSTREAM_ID_BYTES, Opened, Sealer
from tests.core.builders import app, head

SEALER = Sealer([b"the secret of these tests"])
APP = app()
PIN = Pin("i-1", "k3j9")
ALICE = b"a" * 16
INITIALIZE = Asked(Ask(Intent(Kind.INITIALIZE, Dialect.SESSION_2025)))
TOKEN = SEALER.seal_session("tools", PIN, b"up-1", ALICE)
IN_SESSION = Asked(Ask(Intent(Kind.IN_SESSION, Dialect.SESSION_2025, TOKEN), PIN), b"up-1")


def lesson(of_app: App, asked: Asked, **answer: Any) -> Lesson:
    answer.setdefault("principal", ALICE)
    answer.setdefault("method", b"POST")
    answer.setdefault("status", 200)
    answer.setdefault("session_id", None)
    return learn(of_app, asked, PIN, SEALER, **answer)


@pytest.mark.parametrize("status", [200, 202, 299])
def test_initialize_makes_a_session(status: int) -> None:
    taught = lesson(APP, INITIALIZE, status=status, session_id=b"up-1")
    assert taught.event is Event.MADE
    assert taught.store == b""
    assert taught.session_id is not None
    assert SEALER.open_session("tools", taught.session_id, ALICE) == Opened(PIN, b"up-1", bound=True)


def test_without_credentials_or_binding_the_id_is_not_bound() -> None:
    for of_app, principal in ((APP, None), (app(bind_principal=False), ALICE)):
        token = lesson(of_app, INITIALIZE, session_id=b"up-1", principal=principal).session_id
        assert token is not None
        assert SEALER.open_session("tools", token, None) == Opened(PIN, b"up-1", bound=False)


def test_a_stored_session_keeps_its_id_and_names_its_key() -> None:
    stored = app(session_ids=SessionIds.STORED)
    taught = lesson(stored, INITIALIZE, session_id=b"up-1")
    assert taught == Lesson(b"up-1", Event.MADE, stored_key(stored, b"up-1", ALICE))


def test_a_server_without_sessions_makes_none() -> None:
    assert lesson(APP, INITIALIZE) == Lesson(None)


@pytest.mark.parametrize("status", [199, 300, 400, 401, 404, 405, 406, 500, 503])
def test_an_error_makes_no_session(status: int) -> None:
    assert lesson(APP, INITIALIZE, status=status, session_id=b"dead") == Lesson(None, Event.STRIPPED)


@pytest.mark.parametrize("bad", [b"", b"a b", b"a\x7f", b"\xe9", b"x" * (MAX_UPSTREAM_ID_BYTES + 1)])
def test_an_id_that_mcp_forbids_is_kept_back(bad: bytes) -> None:
    assert lesson(APP, INITIALIZE, session_id=bad) == Lesson(None, Event.BAD_ID)


@pytest.mark.parametrize(
    "intent",
    [
        Intent(Kind.PLAIN, Dialect.HTTP),
        Intent(Kind.PLAIN, Dialect.SESSION_2025, rpc_method="tools/list"),
        Intent(Kind.LEGACY_STREAM, Dialect.SSE_2024),
        Intent(Kind.LEGACY_POST, Dialect.SSE_2024),
        Intent(Kind.ANYWHERE, Dialect.STATELESS_2026),
        Intent(Kind.PRINCIPAL, Dialect.STATELESS_2026),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_no_other_answer_hands_out_an_id(intent: Intent, status: int) -> None:
    assert lesson(APP, Asked(Ask(intent)), status=status, session_id=b"dead") == Lesson(None, Event.STRIPPED)
    assert lesson(APP, Asked(Ask(intent)), status=status) == Lesson(None)


def test_for_an_http_app_it_is_a_header_like_any_other() -> None:
    plain = app(protocol=AppProtocol.HTTP)
    assert lesson(plain, Asked(Ask(Intent(Kind.PLAIN, Dialect.HTTP))), session_id=b"own id") == Lesson(b"own id")


@pytest.mark.parametrize("status", [200, 202, 400, 405, 409, 500])
def test_an_echo_gives_the_client_its_own_id_back(status: int) -> None:
    assert lesson(APP, IN_SESSION, status=status, session_id=b"up-1") == Lesson(TOKEN)
    assert lesson(APP, IN_SESSION, status=status) == Lesson(None)


def test_another_id_in_a_session_is_sealed_when_it_may_be_alive() -> None:
    taught = lesson(APP, IN_SESSION, session_id=b"up-2")
    assert taught.event is Event.MADE
    assert taught.session_id is not None
    assert SEALER.open_session("tools", taught.session_id, ALICE) == Opened(PIN, b"up-2", bound=True)
    for status in (199, 300, 400):
        assert lesson(APP, IN_SESSION, status=status, session_id=b"up-2") == Lesson(None, Event.STRIPPED)


def test_an_accepted_delete_ends_the_session() -> None:
    for status in (200, 202, 204):
        assert lesson(APP, IN_SESSION, method=b"DELETE", status=status, session_id=b"up-1") == Lesson(None, Event.ENDED)


@pytest.mark.parametrize("status", [300, 405, 500])
def test_a_refused_delete_ends_nothing(status: int) -> None:
    assert lesson(APP, IN_SESSION, method=b"DELETE", status=status, session_id=b"up-1") == Lesson(TOKEN)


@pytest.mark.parametrize("method", [b"POST", b"GET", b"DELETE"])
def test_an_instance_that_does_not_know_its_session_lost_it(method: bytes) -> None:
    assert lesson(APP, IN_SESSION, method=method, status=404, session_id=b"up-1") == Lesson(None, Event.LOST)


def test_what_initialize_was_given_finds_its_instance_again() -> None:
    token = lesson(APP, INITIALIZE, session_id=b"up-1", principal=None).session_id
    assert token is not None
    request = head("POST", "/mcp", mcp_session_id=token)
    intent = classify(APP, request)
    assert isinstance(intent, Intent)
    asked = build_ask(APP, intent, request, SEALER, principal=None, client_ip="")
    assert isinstance(asked, Asked)
    assert (asked.ask.pin, asked.upstream_id) == (PIN, b"up-1")


@pytest.mark.parametrize("pin", [Pin("u-1", "k3j9", "user"), Pin("u-1", "k3j9", "user", via=True)])
def test_a_session_that_another_app_made_belongs_to_the_one_the_client_addressed(pin: Pin) -> None:
    known: dict[str, Any] = {"principal": ALICE, "method": b"POST", "status": 200, "session_id": b"up-1"}
    sealed = learn(APP, INITIALIZE, pin, SEALER, **known)
    assert sealed.event is Event.MADE
    assert sealed.session_id is not None
    assert SEALER.open_session("tools", sealed.session_id, ALICE) == Opened(pin, b"up-1", bound=True)
    assert not isinstance(SEALER.open_session("user", sealed.session_id, ALICE), Opened)
    stored = app(session_ids=SessionIds.STORED)
    assert learn(stored, INITIALIZE, pin, SEALER, **known).store == stored_key(stored, b"up-1", ALICE)


@given(st.sampled_from([INITIALIZE, IN_SESSION]), st.integers(100, 599), st.none() | st.binary(max_size=40))
def test_clients_only_ever_see_ids_that_lead_back(asked: Asked, status: int, session_id: bytes | None) -> None:
    token = lesson(APP, asked, status=status, session_id=session_id).session_id
    if token is not None:
        assert isinstance(SEALER.open_session("tools", token, ALICE), Opened)


# --- results ---------------------------------------------------------------------------------


def result(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": members}).encode()


def test_a_task_is_learned_for_its_lifetime() -> None:
    learned = Learned(Kind.TASK, task_key("t\u00e9".encode()), 60 + TASK_GRACE_S)
    assert learn_result(result(resultType="task", taskId="t\u00e9", ttlMs=60_000)) == learned
    assert learn_result(result(resultType="task", taskId="t", ttlMs=0)) == Learned(Kind.TASK, b"t", TASK_GRACE_S)


@pytest.mark.parametrize("ttl_ms", [None, -1, "60", True, []])
def test_a_task_without_a_lifetime_is_kept_for_a_day(ttl_ms: object) -> None:
    assert learn_result(result(resultType="task", taskId="t", ttlMs=ttl_ms)) == Learned(Kind.TASK, b"t", TASK_TTL_S)


@pytest.mark.parametrize("ttl_ms", [10**12, 1e300, 10**400])
def test_no_task_is_kept_for_ever(ttl_ms: float) -> None:
    learned = learn_result(result(resultType="task", taskId="t", ttlMs=ttl_ms))
    assert learned == Learned(Kind.TASK, b"t", MAX_TTL_S + TASK_GRACE_S)


def test_a_state_is_learned() -> None:
    learned = Learned(Kind.STATE, state_key("opaque"), STATE_TTL_S)
    assert learn_result(result(resultType="input_required", requestState="opaque")) == learned


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'"resultType"',
        b'["resultType"]',
        b'{"result": {"resultType": "task"}',
        b"[" * 50_000 + b'"resultType"',
        b'{"result": "resultType", "resultType": "task"}',
        result(resultType="complete"),
        result(resultType=["task"]),
        result(resultType="task"),
        result(resultType="task", taskId=""),
        result(resultType="task", taskId=7),
        result(resultType="input_required"),
        result(resultType="input_required", requestState=None),
        result(inner={"resultType": "task", "taskId": "t"}),
        result(resultType="task", taskId="x" * (1 << 20)),
    ],
)
def test_everything_else_teaches_nothing(data: bytes) -> None:
    assert learn_result(data) is None


@given(st.binary(max_size=100))
def test_no_bytes_raise(raw: bytes) -> None:
    learn_result(raw)
    learn_result(b'{"result": {"resultType": "task", "taskId": ' + raw + b"}}")
