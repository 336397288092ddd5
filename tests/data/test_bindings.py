"""What a gateway remembers of sessions that began anew, and of those whose recordings are to be kept."""

from __future__ import annotations

import pytest

from gateway.core.model import Pin
from gateway.core.recording import Binding
from gateway.data import bindings as module
from gateway.data.bindings import Bindings
from gateway.data.sessions import Session

ONE, TWO, THREE = ("tools", b"1"), ("tools", b"2"), ("other", b"1")
HERE, THERE = Binding(Pin("i-1", "a"), b"up-1"), Binding(Pin("i-2", "a"), b"up-2")


def session(last_s: float) -> Session:
    return Session("name", "tools", HERE.pin, last_s)


def test_the_last_binding_of_a_session_counts() -> None:
    bindings = Bindings()
    bindings.put(ONE, HERE)
    bindings.put(TWO, HERE)
    bindings.put(ONE, THERE)
    assert (bindings.get(ONE), bindings.get(TWO), bindings.get(THREE), len(bindings)) == (THERE, HERE, None, 2)
    bindings.drop(ONE)
    bindings.drop(ONE)
    assert (bindings.get(ONE), len(bindings)) == (None, 1)


def test_a_stream_is_known_of_until_the_session_moves_on() -> None:
    bindings = Bindings()
    bindings.listens(ONE)
    bindings.put(ONE, HERE)
    assert not bindings.listened(ONE)
    bindings.listens(ONE)
    bindings.put(ONE, HERE)
    assert bindings.listened(ONE)
    bindings.put(ONE, THERE)
    assert not bindings.listened(ONE)
    bindings.listens(ONE)
    bindings.drop(ONE)
    bindings.put(ONE, THERE)
    assert not bindings.listened(ONE)


def test_what_was_not_used_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BINDINGS", 2)
    monkeypatch.setattr(module, "MAX_USED", 2)
    bindings = Bindings()
    for key in (ONE, TWO):
        bindings.put(key, HERE)
        bindings.listens(key)
        bindings.use(key, session(1.0))
    bindings.use(ONE, session(2.0))
    bindings.put(THREE, HERE)
    assert [key for key in (ONE, TWO, THREE) if bindings.get(key)] == [ONE, THREE]
    assert not bindings.listened(TWO)
    bindings.use(THREE, session(3.0))
    assert bindings.in_use(0.0) == [ONE, THREE]


def test_in_use_is_what_was_asked_lately_or_listens() -> None:
    bindings = Bindings()
    old, listening, new = session(1.0), session(1.0), session(5.0)
    listening.streams = 1
    for key, one in ((ONE, old), (TWO, listening), (THREE, new)):
        bindings.use(key, one)
    assert bindings.in_use(5.0) == [TWO, THREE]
    # What was not in use is looked at no more, until it is used.
    old.last_s = 9.0
    assert bindings.in_use(9.0) == [TWO]
    bindings.use(ONE, old)
    assert bindings.in_use(9.0) == [TWO, ONE]
