"""An agent's token: made by whoever has a secret, good for one agent only."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode

import pytest

from gateway.agent.tokens import Tokens

OLD, NEW = b"the old secret, 16 bytes or more", b"the new secret, 16 bytes or more"
URL = "http://10.0.0.5:8082"


def test_a_token_is_what_the_module_says() -> None:
    key = hashlib.blake2b(NEW, digest_size=32, person=b"moorage-agent").digest()
    signed = hmac.new(key, URL.encode(), hashlib.sha256).digest()
    assert Tokens([NEW]).of(URL) == urlsafe_b64encode(signed).decode().rstrip("=")


def test_the_first_secret_signs_and_all_are_accepted() -> None:
    rotating = Tokens([NEW, OLD])
    assert rotating.of(URL) == Tokens([NEW]).of(URL)
    assert rotating.accepts(URL, Tokens([OLD]).of(URL).encode())
    assert rotating.accepts(URL, rotating.of(URL).encode())
    assert not Tokens([OLD]).accepts(URL, Tokens([NEW]).of(URL).encode())


@pytest.mark.parametrize("other", ["http://10.0.0.5:8083", "https://10.0.0.5:8082", "http://10.0.0.50:8082", ""])
def test_a_token_for_another_agent_is_worth_nothing(other: str) -> None:
    tokens = Tokens([NEW])
    assert not tokens.accepts(URL, tokens.of(other).encode())


@pytest.mark.parametrize("said", [b"", b"\xff\xfe", b"A" * 43, b"A" * 10_000])
def test_anything_else_is_none(said: bytes) -> None:
    assert not Tokens([NEW, OLD]).accepts(URL, said)


def test_it_shows_no_secret_and_needs_one() -> None:
    assert "secret" not in repr(Tokens([NEW]))
    with pytest.raises(ValueError, match="at least one secret"):
        Tokens([])
