"""The sessions this gateway has seen: for people and metrics, never for routing.

A sealed id routes by itself; this table may be lost or overflow without harm. It is bounded, and its entries are
named by a digest, so that nothing that lists sessions can leak an id.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from gateway.core.model import Pin

MAX_SESSIONS = 100_000
MAX_ENDED = 100_000


class Session:
    """One session, by what passed through here. Times are of the gateway's coarse clock, in seconds."""

    __slots__ = ("app", "created_s", "last_s", "misroutes", "name", "pin", "requests", "streams")

    def __init__(self, name: str, app: str, pin: Pin, now_s: float) -> None:
        self.name = name
        self.app = app
        """The one that its client addresses."""
        self.pin = pin
        self.created_s = now_s
        self.last_s = now_s
        self.requests = 0
        self.streams = 0
        self.misroutes = 0

    @property
    def home(self) -> str:
        """The app of its instance."""
        return self.pin.app or self.app


def name_of(token: bytes) -> str:
    """How a session is called in lists and logs: a digest of the id its client holds."""
    return hashlib.blake2b(token, digest_size=8).hexdigest()


class Sessions:
    """Sessions by the id their client holds, least recently used first."""

    def __init__(self, capacity: int = MAX_SESSIONS) -> None:
        self._capacity = capacity
        self._by_token: OrderedDict[bytes, Session] = OrderedDict()
        self._ended: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_token)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_token.values())

    def touch(self, token: bytes, app: str, pin: Pin, now_s: float) -> Session:
        """A request of this session came; a session first seen here (after a restart) is entered."""
        session = self._by_token.get(token)
        if session is None:
            session = self._by_token[token] = Session(name_of(token), app, pin, now_s)
            if len(self._by_token) > self._capacity:
                self._by_token.popitem(last=False)
        else:
            self._by_token.move_to_end(token)
            session.last_s = now_s
        return session

    def end(self, token: bytes) -> None:
        """Its client ended it, or its instance no longer knows it: later requests get 404 here."""
        self._by_token.pop(token, None)
        self._ended[token] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def ended(self, token: bytes) -> bool:
        return token in self._ended

    def find(self, name: str) -> bytes | None:
        """The id of the session with this listed name."""
        return next((token for token, session in self._by_token.items() if session.name == name), None)

    def sweep(self, idle_before_s: dict[str, float]) -> None:
        """Forget sessions without a request since their app's moment, unless a stream is open."""
        stale = [
            token
            for token, session in self._by_token.items()
            if session.streams == 0 and session.last_s < idle_before_s.get(session.app, 0.0)
        ]
        for token in stale:
            del self._by_token[token]
