"""Seals hold exactly what was sealed, for exactly whom; whatever else comes is refused without an exception."""

from __future__ import annotations

import random
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import seal
from gateway.core.model import Pin
from gateway.core.seal import MAX_TOKEN_BYTES, MIN_SECRET_BYTES, Opened, OpenedStream, Sealer, SealFault, Stream

OLD, NEW = b"an old secret that is retired", b"a new secret that replaces it"
SEALER = Sealer([NEW])
ALICE, BOB = b"a" * 16, b"b" * 16
PIN = Pin("i-1", "k3j9x0qa")
URL_SAFE = (string.ascii_letters + string.digits + "-_").encode()

NAMES = st.characters(exclude_categories=["Cs"], exclude_characters="~/")
PINS = st.builds(
    Pin,
    st.text(NAMES, max_size=40),
    st.text("0aZ", max_size=16),
    st.just("") | st.text(NAMES, max_size=20),
    st.booleans(),
)
IDS = st.binary(min_size=1, max_size=80).map(lambda raw: bytes(0x21 + byte % 94 for byte in raw))
APPS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PRINCIPALS = st.none() | st.binary(min_size=16, max_size=16)


@given(PINS, IDS, APPS, PRINCIPALS)
def test_what_was_sealed_comes_out_again(pin: Pin, upstream_id: bytes, app: str, principal: bytes | None) -> None:
    token = SEALER.seal_session(app, pin, upstream_id, principal)
    assert SEALER.open_session(app, token, principal) == Opened(pin, upstream_id, principal is not None)


@given(PINS, IDS, APPS, PRINCIPALS)
def test_tokens_are_visible_ascii(pin: Pin, upstream_id: bytes, app: str, principal: bytes | None) -> None:
    token = SEALER.seal_session(app, pin, upstream_id, principal)
    assert all(0x21 <= byte <= 0x7E for byte in token)
    assert token.endswith(b"." + upstream_id)
    assert all(byte in URL_SAFE for byte in token.partition(b".")[0])


@given(st.binary(max_size=300))
def test_no_bytes_raise(raw: bytes) -> None:
    assert isinstance(SEALER.open_session("tools", raw, ALICE), SealFault)
    assert isinstance(SEALER.open_stream("tools", raw, None), SealFault)
    assert isinstance(SEALER.open_cookie("tools", raw), SealFault)


@given(st.lists(st.sampled_from(URL_SAFE), max_size=120), st.integers(0, 255))
def test_no_plausible_bytes_raise(seal_bytes: list[int], key_id: int) -> None:
    # The right first bytes, so that the MAC is reached.
    text = bytes(seal_bytes)
    genuine = SEALER.seal_session("tools", PIN, b"id", None)
    assert isinstance(SEALER.open_session("tools", genuine[:3] + text + b".id", None), SealFault)
    assert isinstance(SEALER.open_cookie("tools", SEALER.seal_cookie("tools", PIN)[:2] + text), SealFault)


def test_no_altered_character_is_accepted() -> None:
    token = SEALER.seal_session("tools", PIN, b"5f2b0c8e", ALICE)
    for at in range(len(token)):
        for byte in range(256):
            altered = token[:at] + bytes((byte,)) + token[at + 1 :]
            if altered != token:
                assert isinstance(SEALER.open_session("tools", altered, ALICE), SealFault), (at, byte)


def test_no_truncated_or_extended_token_is_accepted() -> None:
    token = SEALER.seal_session("tools", PIN, b"5f2b0c8e", ALICE)
    for end in range(len(token)):
        assert isinstance(SEALER.open_session("tools", token[:end], ALICE), SealFault)
        assert isinstance(SEALER.open_session("tools", token[end + 1 :], ALICE), SealFault)
    for extra in (b"=", b"x", b"\n", b" ", b".", b"\0"):
        assert isinstance(SEALER.open_session("tools", token + extra, ALICE), SealFault)
        assert isinstance(SEALER.open_session("tools", extra + token, ALICE), SealFault)


def test_random_edits_are_refused(rng: random.Random) -> None:
    # reliability: 10^5 flips, truncations and swaps, none accepted.
    token = SEALER.seal_session("tools", PIN, b"5f2b0c8e4f4b4b7e8f9e7d6c5b4a3928", ALICE)
    other = SEALER.seal_session("tools", Pin("i-2", "0"), b"another", ALICE)
    for _ in range(20_000):
        cut, splice = rng.randrange(len(token)), rng.randrange(len(other))
        edited = bytearray(token[:cut] + other[splice:] if rng.random() < 0.5 else token)
        edited[rng.randrange(len(edited))] ^= 1 << rng.randrange(8)
        if bytes(edited) not in (token, other):
            assert isinstance(SEALER.open_session("tools", bytes(edited), ALICE), SealFault), bytes(edited)


def test_every_seal_has_one_spelling() -> None:
    # A seal full of `-` and `_` must not also open as `+` and `/`.
    for number in range(200):
        token = SEALER.seal_session("tools", PIN, b"%d" % number, None)
        respelled = token.replace(b"-", b"+").replace(b"_", b"/")
        if respelled != token:
            assert SEALER.open_session("tools", respelled, None) is SealFault.MALFORMED


@pytest.mark.parametrize(("principal", "app"), [(BOB, "tools"), (None, "tools"), (ALICE, "other"), (ALICE, "")])
def test_a_bound_id_is_worth_nothing_to_others(principal: bytes | None, app: str) -> None:
    token = SEALER.seal_session("tools", PIN, b"id", ALICE)
    assert SEALER.open_session(app, token, principal) is SealFault.FORGED


def test_an_unbound_id_works_with_any_credentials() -> None:
    token = SEALER.seal_session("tools", PIN, b"id", None)
    for principal in (None, ALICE, BOB):
        assert SEALER.open_session("tools", token, principal) == Opened(PIN, b"id", bound=False)


@given(st.text("ab", max_size=4), st.text("ab", max_size=4), IDS, IDS)
def test_fields_cannot_be_shifted_into_each_other(app: str, other: str, one: bytes, two: bytes) -> None:
    token = SEALER.seal_session(app, PIN, one, None)
    opened = SEALER.open_session(other, token.partition(b".")[0] + b"." + two, None)
    assert isinstance(opened, Opened) == (app == other and one == two)


def test_seals_of_one_purpose_do_not_open_for_another() -> None:
    stream = SEALER.seal_stream("tools", PIN, Stream("boot", 1), None)
    cookie = SEALER.seal_cookie("tools", PIN)
    session = SEALER.seal_session("tools", PIN, b"id", None).partition(b".")[0]
    for foreign in (stream, cookie):
        assert isinstance(SEALER.open_session("tools", foreign + b".id", None), SealFault)
    for foreign in (session, cookie):
        assert isinstance(SEALER.open_stream("tools", foreign, None), SealFault)
    for foreign in (session, stream):
        assert isinstance(SEALER.open_cookie("tools", foreign), SealFault)


def test_purposes_are_apart_by_their_keys_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # Even if the key ids met, the MACs would not.
    monkeypatch.setattr(seal, "_key_id", lambda key: 7)
    sealer = Sealer([NEW, OLD])
    assert sealer.open_session("tools", sealer.seal_cookie("tools", PIN) + b".id", None) is SealFault.FORGED
    old = Sealer([OLD])
    assert sealer.open_session("tools", old.seal_session("tools", PIN, b"id", None), None) == Opened(PIN, b"id", False)


def test_rotation_keeps_old_ids_and_seals_with_the_new_secret() -> None:
    before, during, after = Sealer([OLD]), Sealer([NEW, OLD]), Sealer([NEW])
    old = before.seal_session("tools", PIN, b"id", ALICE)
    new = during.seal_session("tools", PIN, b"id", ALICE)
    assert during.open_session("tools", old, ALICE) == Opened(PIN, b"id", bound=True)
    assert after.open_session("tools", new, ALICE) == Opened(PIN, b"id", bound=True)
    assert after.open_session("tools", old, ALICE) is SealFault.UNKNOWN_KEY
    assert before.open_session("tools", new, ALICE) is SealFault.UNKNOWN_KEY


def test_two_gateways_with_one_secret_make_the_same_id() -> None:
    make = [Sealer([NEW]).seal_session("tools", PIN, b"id", ALICE) for _ in range(2)]
    assert make[0] == make[1]


@given(PINS, st.text("0aZ", max_size=30), st.integers(0, 2**48 - 1), st.booleans(), PRINCIPALS)
def test_stream_pins_carry_their_stream(
    pin: Pin, gateway: str, number: int, strip_prefix: bool, principal: bytes | None
) -> None:
    stream = Stream(gateway, number, strip_prefix)
    token = SEALER.seal_stream("tools", pin, stream, principal)
    assert SEALER.open_stream("tools", token, principal) == OpenedStream(pin, stream)
    assert all(byte in URL_SAFE for byte in token)
    if principal is not None:
        assert SEALER.open_stream("tools", token, BOB if principal != BOB else ALICE) is SealFault.FORGED


@given(PINS)
def test_cookies_carry_their_pin(pin: Pin) -> None:
    value = SEALER.seal_cookie("tools", pin)
    assert SEALER.open_cookie("tools", value) == pin
    assert SEALER.open_cookie("other", value) is SealFault.FORGED


def test_seals_are_the_same_in_every_release() -> None:
    # Gateways of two releases share sessions while one replaces the other; a change needs a new version byte.
    sealer = Sealer([b"a new secret that replaces it"])
    bound = b"EbsDaS0xCGszajl4MHFhAABPH7tki2Kfcn-KUEtSCxPu.5f2b0c8e"
    free = b"ELsDaS0xCGszajl4MHFhAAAKuP0YXd5FA-EupsRWR2uC.5f2b0c8e"
    stream = b"E30DaS0xCGszajl4MHFhBGJvb3QAAAAAAAevShWN9ACYrlGz-pwr0_5Z"
    assert sealer.seal_session("tools", PIN, b"5f2b0c8e", ALICE) == bound
    assert sealer.seal_session("tools", PIN, b"5f2b0c8e", None) == free
    assert sealer.seal_stream("tools", PIN, Stream("boot", 7, strip_prefix=True), ALICE) == stream
    assert sealer.seal_cookie("tools", PIN) == b"EPADaS0xCGszajl4MHFhAAC1nWpK1uknkxULu6z-6Cl8"


@pytest.mark.parametrize(
    "pin", [replace(PIN, via=True), replace(PIN, app="user"), Pin("i" * 64, "0" * 16, "u" * 63, via=True)]
)
def test_a_pin_into_another_app_comes_out_of_every_seal(pin: Pin) -> None:
    stream = Stream("boot", 7)
    session = SEALER.seal_session("tools", pin, b"id", ALICE)
    assert SEALER.open_session("tools", session, ALICE) == Opened(pin, b"id", bound=True)
    assert SEALER.open_stream("tools", SEALER.seal_stream("tools", pin, stream, ALICE), ALICE) == (pin, stream)
    assert SEALER.open_cookie("tools", SEALER.seal_cookie("tools", pin)) == pin
    # It is the addressed app's: the app whose instance it names cannot be sent its sessions.
    assert SEALER.open_session(pin.app, session, ALICE) is SealFault.FORGED


def test_pins_into_other_apps_are_sealed_the_same_in_every_release() -> None:
    sealer = Sealer([b"a new secret that replaces it"])
    pin = replace(PIN, app="user", via=True)
    bound = b"EbsJfnVzZXIvaS0xCGszajl4MHFhAADWMRdNoC3Dh-afMqLH8I4l.5f2b0c8e"
    assert sealer.seal_session("tools", pin, b"5f2b0c8e", ALICE) == bound
    assert sealer.open_session("tools", bound, ALICE) == Opened(pin, b"5f2b0c8e", bound=True)


def test_an_unbound_stream_takes_posts_with_any_credentials() -> None:
    token = SEALER.seal_stream("tools", PIN, Stream("boot", 7), None)
    for principal in (None, ALICE, BOB):
        assert SEALER.open_stream("tools", token, principal) == OpenedStream(PIN, Stream("boot", 7))


def test_what_is_too_long_is_refused_unread() -> None:
    token = SEALER.seal_session("tools", PIN, b"x" * MAX_TOKEN_BYTES, None)
    assert SEALER.open_session("tools", token, None) is SealFault.MALFORMED
    assert SEALER.open_stream("tools", b"A" * (MAX_TOKEN_BYTES + 4), None) is SealFault.MALFORMED
    assert SEALER.open_cookie("tools", b"A" * (MAX_TOKEN_BYTES + 4)) is SealFault.MALFORMED
    longest = SEALER.seal_session("t" * 200, Pin("i" * 255, "0" * 16), b"x" * seal.MAX_UPSTREAM_ID_BYTES, ALICE)
    assert isinstance(SEALER.open_session("t" * 200, longest, ALICE), Opened)


def test_names_that_cannot_be_sealed_are_refused_when_sealing() -> None:
    for pin in (Pin("i" * 256, "0"), Pin("i", "0" * 256), Pin("\ud800", "0")):
        with pytest.raises(ValueError, match=r"cannot be sealed|surrogates"):
            SEALER.seal_session("tools", pin, b"id", None)


def test_remembered_pins_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "MAX_REMEMBERED_PINS", 3)
    sealer = Sealer([NEW])
    for number in list(range(10)) * 2:
        pin = Pin(f"i-{number}", "0")
        assert sealer.open_session("tools", sealer.seal_session("tools", pin, b"id", None), None) == (pin, b"id", False)
        assert len(sealer._pins._by_head) <= 3


@pytest.mark.parametrize("secrets", [[], [b"x" * (MIN_SECRET_BYTES - 1)], [NEW, b"short"]])
def test_weak_secrets_are_refused(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Sealer(secrets)


def test_any_bytes_make_a_secret() -> None:
    for secret in (b"\0" * MIN_SECRET_BYTES, bytes(range(256)) * 40):
        sealer = Sealer([secret])
        assert isinstance(sealer.open_session("t", sealer.seal_session("t", PIN, b"i", None), None), Opened)
