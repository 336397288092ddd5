"""Seals: an instance's name, tied by a keyed hash to what it is the instance of.

A sealed session id is `<seal>.<upstream id>`, so that any gateway with the secret routes it with no lookup. The
same seal, made with other keys, pins 2024-11-05 streams and fills the affinity cookie. A seal is, before base64url:

    version and flags   1 byte
    key id              1 byte, names the secret that made it
    pin's name          1 byte length, UTF-8: the instance, and what `Pin.name` puts before it
    incarnation         1 byte length, ASCII
    [stream]            only in stream pins: 1 byte length and the gateway's boot id, 6 bytes stream number
    zeroes              0-2, so that the whole is a multiple of 3 bytes and base64 has no bits to spare
    MAC                 16 bytes, BLAKE2b keyed per purpose, over (seal so far, app, principal, upstream id)

Every part of the MAC's input but the last is preceded by its length, so no two inputs have the same bytes.
There is no expiry inside: a session ends with its instance's memory, which the incarnation names.
Secrecy is not claimed: who holds a seal may read the instance's name in it.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from gateway.core.model import Pin

MIN_SECRET_BYTES = 16
MAX_TOKEN_BYTES = 8192
"""Longer tokens are refused unread; nothing here makes one, as upstream ids are bounded by MAX_UPSTREAM_ID_BYTES."""
MAX_UPSTREAM_ID_BYTES = 4096
MAX_REMEMBERED_PINS = 4096

_VERSION = 0x10
_BOUND = 0x01
_STRIP_PREFIX = 0x02
_KNOWN_FLAGS = _BOUND | _STRIP_PREFIX
_MAC_BYTES = 16
_SHORTEST = 4 + _MAC_BYTES
_NUMBER_BYTES = 6
_LENGTHS = struct.Struct(">HHH")

# base64url to base64, and the two characters that base64url does not have to one that base64 refuses: each seal has
# exactly one spelling.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL = bytes.maketrans(b"+/", b"-_")


class SealFault(Enum):
    """Why a token was not opened. For logs and metrics: to clients all are the same."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    FORGED = "forged"
    """The keyed hash is another: made up, altered, of another app or of another principal."""


class Opened(NamedTuple):
    """A session id whose seal held."""

    pin: Pin
    upstream_id: bytes
    bound: bool
    """It works only with the credentials it was made with."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A 2024-11-05 SSE stream, as its pin names it."""

    gateway: str
    """The boot id of the gateway process that holds the stream; at most 255 ASCII characters."""
    number: int
    """Of that process; 0 to 2**48 - 1."""
    strip_prefix: bool = False
    """The endpoint was given to the client with the app's path in front."""


class OpenedStream(NamedTuple):
    """A stream pin whose seal held."""

    pin: Pin
    stream: Stream


class _Purpose:
    """The keys of one purpose: sealing with the first secret, opening with any."""

    __slots__ = ("_by_id", "_key_id", "_seal_mac")

    def __init__(self, secrets: Sequence[bytes], person: bytes) -> None:
        by_id: dict[int, list[hashlib.blake2b]] = {}
        for secret in secrets:
            key = hashlib.blake2b(secret, digest_size=32, person=person).digest()
            by_id.setdefault(_key_id(key), []).append(hashlib.blake2b(key=key, digest_size=_MAC_BYTES))
        self._by_id = {key_id: tuple(macs) for key_id, macs in by_id.items()}
        self._key_id = next(iter(self._by_id))
        self._seal_mac = self._by_id[self._key_id][0]

    def seal(self, flags: int, fields: bytes, app: str, principal: bytes, tail: bytes) -> bytes:
        head = bytes((_VERSION | flags, self._key_id)) + fields
        head += bytes(-(len(head) + _MAC_BYTES) % 3)
        mac = self._seal_mac.copy()
        mac.update(_framed(head, app, principal, tail))
        return binascii.b2a_base64(head + mac.digest(), newline=False).translate(_TO_URL)

    def open(self, seal: bytes, app: str, principal: bytes | None, tail: bytes) -> bytes | SealFault:
        """The seal's bytes up to its MAC, when the MAC holds."""
        try:
            raw = binascii.a2b_base64(seal.translate(_TO_STANDARD), strict_mode=True)
        except binascii.Error:
            return SealFault.MALFORMED
        if len(raw) < _SHORTEST or len(raw) % 3 or raw[0] & ~_KNOWN_FLAGS != _VERSION:
            return SealFault.MALFORMED
        macs = self._by_id.get(raw[1])
        if macs is None:
            return SealFault.UNKNOWN_KEY
        head = raw[:-_MAC_BYTES]
        said = raw[-_MAC_BYTES:]
        framed = _framed(head, app, (principal or b"") if raw[0] & _BOUND else b"", tail)
        for keyed in macs:
            mac = keyed.copy()
            mac.update(framed)
            if hmac.compare_digest(mac.digest(), said):
                return head
        return SealFault.FORGED


def _key_id(key: bytes) -> int:
    return hashlib.blake2b(key, digest_size=1, person=b"moorage-key-id").digest()[0]


def _framed(head: bytes, app: str, principal: bytes, tail: bytes) -> bytes:
    name = app.encode()
    return b"".join((_LENGTHS.pack(len(head), len(name), len(principal)), head, name, principal, tail))


def _named(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"{text[:40]!r}... cannot be sealed: {len(raw)} bytes, at most 255")
    return bytes((len(raw),)) + raw


def _fields(pin: Pin) -> bytes:
    return _named(pin.name) + _named(pin.incarnation)


def _text(head: bytes, at: int) -> tuple[str, int]:
    """The length-prefixed text at an offset, and where it ends. Only for bytes whose MAC held."""
    start = at + 1
    end = start + head[at]
    return head[start:end].decode(), end


def _pin(head: bytes) -> tuple[Pin, int]:
    name, end = _text(head, 2)
    incarnation, end = _text(head, end)
    return Pin.named(name, incarnation), end


class _Pins:
    """Pins by the seal's bytes that name them: the same for all sessions of an instance, so read once.

    Only what a MAC vouched for gets in; when it is full it starts anew.
    """

    __slots__ = ("_by_head",)

    def __init__(self) -> None:
        self._by_head: dict[bytes, Pin] = {}

    def get(self, head: bytes) -> Pin:
        pin = self._by_head.get(head)
        if pin is None:
            if len(self._by_head) >= MAX_REMEMBERED_PINS:
                self._by_head.clear()
            pin = self._by_head[head] = _pin(head)[0]
        return pin


class Sealer:
    """Makes and opens seals. The first secret seals; all open, so that secrets can be rotated.

    Sealing raises ValueError for an instance id, incarnation or boot id of more than 255 bytes. Opening never
    raises, whatever the bytes. Principals are as `gateway.core.principal` gives them: 16 bytes or None.
    """

    __slots__ = ("_cookie", "_pins", "_session", "_stream")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """Raises ValueError for no secret at all, or one shorter than MIN_SECRET_BYTES."""
        if not secrets:
            raise ValueError("at least one secret is needed")
        if any(len(secret) < MIN_SECRET_BYTES for secret in secrets):
            raise ValueError(f"a secret needs at least {MIN_SECRET_BYTES} bytes")
        self._pins = _Pins()
        self._session = _Purpose(secrets, b"moorage-session")
        self._stream = _Purpose(secrets, b"moorage-stream")
        self._cookie = _Purpose(secrets, b"moorage-cookie")

    def seal_session(self, app: str, pin: Pin, upstream_id: bytes, principal: bytes | None) -> bytes:
        """The session id for the client. `upstream_id` is 1 to MAX_UPSTREAM_ID_BYTES visible ASCII characters.

        With a principal, the id works only for that principal.
        """
        flags = 0 if principal is None else _BOUND
        return self._session.seal(flags, _fields(pin), app, principal or b"", upstream_id) + b"." + upstream_id

    def open_session(self, app: str, token: bytes, principal: bytes | None) -> Opened | SealFault:
        """What a client's session id names. The caller's principal matters only to ids that were bound to one."""
        seal, dot, upstream_id = token.partition(b".")
        if not dot or not upstream_id or len(token) > MAX_TOKEN_BYTES:
            return SealFault.MALFORMED
        head = self._session.open(seal, app, principal, upstream_id)
        if isinstance(head, SealFault):
            return head
        return Opened(self._pins.get(head), upstream_id, bool(head[0] & _BOUND))

    def seal_stream(self, app: str, pin: Pin, stream: Stream, principal: bytes | None) -> bytes:
        """The pin for the POSTs of a 2024-11-05 stream: base64url, safe in a query."""
        flags = (0 if principal is None else _BOUND) | (_STRIP_PREFIX if stream.strip_prefix else 0)
        fields = _fields(pin) + _named(stream.gateway) + stream.number.to_bytes(_NUMBER_BYTES, "big")
        return self._stream.seal(flags, fields, app, principal or b"", b"")

    def open_stream(self, app: str, token: bytes, principal: bytes | None) -> OpenedStream | SealFault:
        """What a stream's pin names."""
        if len(token) > MAX_TOKEN_BYTES:
            return SealFault.MALFORMED
        head = self._stream.open(token, app, principal, b"")
        if isinstance(head, SealFault):
            return head
        pin, end = _pin(head)
        gateway, end = _text(head, end)
        number = int.from_bytes(head[end : end + _NUMBER_BYTES], "big")
        return OpenedStream(pin, Stream(gateway, number, bool(head[0] & _STRIP_PREFIX)))

    def seal_cookie(self, app: str, pin: Pin) -> bytes:
        """The affinity cookie's value: base64url. Bound to the app and to nothing else."""
        return self._cookie.seal(0, _fields(pin), app, b"", b"")

    def open_cookie(self, app: str, value: bytes) -> Pin | SealFault:
        """The instance that an affinity cookie names."""
        if len(value) > MAX_TOKEN_BYTES:
            return SealFault.MALFORMED
        head = self._cookie.open(value, app, None, b"")
        return head if isinstance(head, SealFault) else _pin(head)[0]
