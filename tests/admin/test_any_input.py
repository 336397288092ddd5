"""Whatever JSON comes: an outcome with a name, and nothing raised that has none."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.answers import Refusal
from gateway.admin.question import Question, checked
from gateway.admin.tasks import lease_of
from gateway.core.bodies import app_body, parse_instance
from gateway.core.catalog import Catalog
from gateway.core.head import parse_request
from gateway.core.model import App, Instance
from gateway.core.presence import MAX_LEASE_S
from gateway.core.record import Record, RecordKind
from gateway.log.presence import check_lease
from gateway.sources.admin import AdminMachines, BadMachine, Registered
from tests.sources.test_admin import Folding

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=30)
    | st.sampled_from(
        ["5m", "10.0.0.7:80", "[::1]:80", "i-9", "iad", "tools.localhost", "/mcp", "POST", "a: b", "0" * 16]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
MACHINE_KEYS = st.sampled_from(["id", "address", "region", "command", "env", "cwd", "regoin"]) | st.text(max_size=5)
QUESTION_KEYS = st.sampled_from(
    ["host", "path", "method", "session", "name", "app", "client", "headers", "body", "hots"]
) | st.text(max_size=5)


def parsed(value: Any) -> Any:
    """As it comes out of a request's body."""
    return json.loads(json.dumps(value))


@given(VALUES | st.dictionaries(MACHINE_KEYS, VALUES))
def test_any_machine_is_registered_or_has_named_faults(value: Any) -> None:
    catalog = Catalog("local")
    catalog.fold(Record(RecordKind.APP, "tools", "config", 1, 1, False, app_body(App("tools"))))
    outcome = AdminMachines(catalog, Folding(catalog, "admin"), "admin").register("tools", parsed(value))
    if isinstance(outcome, Registered):
        # What was taken is what every gateway reads from the record.
        record = catalog.record(f"instance/tools/{outcome.instance.id}")
        assert record is not None
        assert isinstance(parse_instance(record.id, record.body), Instance)
    else:
        assert isinstance(outcome, BadMachine)
        assert outcome.faults
        json.dumps([list(fault) for fault in outcome.faults]).encode()
        assert len(set(outcome.faults)) == len(outcome.faults)


@given(st.dictionaries(QUESTION_KEYS, VALUES))
def test_any_question_is_one_or_has_named_faults(value: Any) -> None:
    question: Question | None = None
    refusal: Refusal | None = None
    try:
        question = checked(parsed(value))
    except Refusal as caught:
        refusal = caught
    if question is None:
        assert refusal is not None
        assert refusal.faults
        return
    # Its head is one head: nothing in it ends a line or begins another.
    raw = question.head("localhost", "/")
    assert raw.endswith(b"\r\n\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    parse_request(raw)


@given(st.dictionaries(st.sampled_from(["name", "expire"]) | st.text(max_size=5), VALUES), st.sampled_from(["", "a"]))
def test_any_lease_is_one_or_has_named_faults(value: Any, name: str) -> None:
    lease: tuple[str, float] | None = None
    refusal: Refusal | None = None
    try:
        lease = lease_of(parsed(value), name)
    except Refusal as caught:
        refusal = caught
    if lease is None:
        assert refusal is not None
        assert refusal.faults
        return
    # What was taken is what the store takes.
    check_lease("tools", "i-1", *lease)
    assert lease[0] == (name or value["name"])
    assert 0 < lease[1] <= MAX_LEASE_S
