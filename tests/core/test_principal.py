"""A principal is stable over token refresh, distinct between callers, and always to be had."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.principal import MAX_CLAIMS_BYTES, address_key, principal


def jwt(claims: object, signature: bytes = b"sig") -> bytes:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return b"Bearer eyJhbGciOiJub25lIn0." + payload + b"." + signature


ALICE = {"iss": "https://idp", "sub": "alice", "client_id": "cli", "exp": 1}


def test_nobody_without_credentials() -> None:
    assert principal(None) is None


def test_a_refreshed_token_is_the_same_caller() -> None:
    assert principal(jwt(ALICE)) == principal(jwt({**ALICE, "exp": 2, "jti": "x"}, b"other"))
    assert principal(jwt(ALICE)) == principal(b"bearer  " + jwt(ALICE)[7:] + b" ")


@pytest.mark.parametrize("change", [{"iss": "https://other"}, {"sub": "bob"}, {"client_id": "web"}])
def test_another_subject_is_another_caller(change: dict[str, str]) -> None:
    assert principal(jwt(ALICE)) != principal(jwt({**ALICE, **change}))


def test_azp_stands_in_for_client_id() -> None:
    azp = {"iss": "https://idp", "sub": "alice", "azp": "cli"}
    assert principal(jwt(azp)) == principal(jwt(ALICE))
    assert principal(jwt({**azp, "client_id": "web"})) != principal(jwt(ALICE))


def test_claims_cannot_be_shifted_into_each_other() -> None:
    assert principal(jwt({"iss": "ab", "sub": "c"})) != principal(jwt({"iss": "a", "sub": "bc"}))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Basic YTpi",
        b"Bearer opaque",
        b"Bearer a.b",
        b"Bearer a.!!!!.c",
        b"Bearer a.b.c",
        jwt([1]),
        jwt({"iss": "x"}),
        jwt({"sub": 7}),
        b"Bearer a." + base64.urlsafe_b64encode(b"[" * 12_000) + b".c",
        b"Bearer a." + base64.urlsafe_b64encode(b'{"sub": "\xff"}') + b".c",
    ],
)
def test_what_has_no_readable_subject_is_named_by_the_header(header: bytes) -> None:
    name = principal(header)
    assert name is not None
    assert len(name) == 16
    assert name == principal(header)
    assert name != principal(header + b"x")


def test_a_very_long_payload_is_not_parsed() -> None:
    long = jwt({**ALICE, "roles": "x" * MAX_CLAIMS_BYTES})
    assert principal(long) != principal(jwt(ALICE))
    assert principal(long) != principal(jwt({**ALICE, "roles": "y" * MAX_CLAIMS_BYTES}))


def test_lone_surrogates_in_claims_are_names_too() -> None:
    segment = base64.urlsafe_b64encode(b'{"sub": "\\ud800"}').rstrip(b"=")
    assert principal(b"Bearer a." + segment + b".c") == principal(b"Bearer x." + segment + b".y")


def test_addresses_are_no_principals() -> None:
    assert address_key("10.0.0.1") != address_key("10.0.0.2")
    assert address_key("10.0.0.1").startswith(b"ip:")
    assert address_key("\ud800") == b"ip:?"


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    for header in (raw, b"Bearer " + raw, b"Bearer a." + raw + b".c"):
        name = principal(header)
        assert name is not None
        assert len(name) == 16
