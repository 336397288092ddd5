"""Recorded sessions: the `initialize` of each, and its binding once it began anew elsewhere.

A session is named by the app that its client addresses and by the id that the client holds; both are hashed before
they leave this file. A recording is forgotten after its time without use; looking at it is use. Nothing is remembered
here: every question goes to the database, so that all gateways get the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from gateway.core.recording import Binding, Recorded, Recording, decode, decode_binding, encode, encode_binding
from gateway.log.pins import digest_of

RENEWED_AT_ONCE: Final = 500

_KIND: Final = "recording"


class Kept(NamedTuple):
    """One session's bytes, and for how long they live without use."""

    recording: bytes
    binding: bytes
    """Empty for none."""
    ttl_s: float


class RecordingTable(Protocol):
    """One database's recordings by digest: what differs between the kinds of database. All raise LogUnavailable."""

    async def put(self, digest: bytes, recording: bytes, ttl_s: float) -> None:
        """Keep it, in place of an earlier one and without a binding."""

    async def get(self, digest: bytes) -> Kept | None:
        """What is kept if it has not expired; it then lives for its full time again."""

    async def bind(self, digest: bytes, before: bytes, binding: bytes) -> bytes | None:
        """Put the binding in place of `before`, if that is the present one (empty: none); the one that holds now.

        None when there is no recording. In one step: of several that name the same `before`, one wins.
        """

    async def renew(self, digests: Sequence[bytes]) -> None:
        """Those that are kept live for their full time again."""

    async def delete(self, digest: bytes) -> None: ...

    async def aclose(self) -> None: ...


class Recordings:
    """The recorded sessions of all gateways. All raise LogUnavailable."""

    def __init__(self, table: RecordingTable) -> None:
        self._table = table

    async def put(self, app: str, key: bytes, recording: Recording, ttl_s: float) -> None:
        await self._table.put(_digest(app, key), encode(recording), ttl_s)

    async def get(self, app: str, key: bytes) -> Recorded | None:
        """What is known of the session; it then lives for its full time again."""
        kept = await self._table.get(_digest(app, key))
        recording = decode(kept.recording) if kept is not None else None
        if kept is None or recording is None:
            return None
        return Recorded(recording, decode_binding(kept.binding), kept.binding)

    async def bind(self, app: str, key: bytes, before: Recorded, binding: Binding) -> Recorded | None:
        """Bind the session, if nobody did since `before`; what holds now, whoever's it is. None: it was forgotten."""
        bound = await self._table.bind(_digest(app, key), before.bound, encode_binding(binding))
        return before._replace(binding=decode_binding(bound), bound=bound) if bound is not None else None

    async def renew(self, keys: Sequence[tuple[str, bytes]]) -> None:
        """These sessions, each an app and a key, are in use."""
        digests = [_digest(app, key) for app, key in keys]
        for at in range(0, len(digests), RENEWED_AT_ONCE):
            await self._table.renew(digests[at : at + RENEWED_AT_ONCE])

    async def delete(self, app: str, key: bytes) -> None:
        await self._table.delete(_digest(app, key))

    async def aclose(self) -> None:
        await self._table.aclose()


def _digest(app: str, key: bytes) -> bytes:
    return digest_of(app, _KIND, key)
