"""What this gateway remembers of sessions that may begin anew: where they went, and which of them are in use.

Both may be lost without harm: the store (`gateway.log.recordings`) is asked again, and a session that is used is noted
again. Both are bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from gateway.core.recording import Binding

if TYPE_CHECKING:
    from gateway.data.sessions import Session

MAX_BINDINGS = 100_000
MAX_USED = 100_000

Key = tuple[str, bytes]
"""The app that the client addresses, and what the session is recorded by."""


class Bindings:
    """One gateway's. The least recently put or used go first."""

    __slots__ = ("_bound", "_listened", "_used")

    def __init__(self) -> None:
        self._bound: OrderedDict[Key, Binding] = OrderedDict()
        self._listened: set[Key] = set()
        """Those of `_bound` whose client has had an event stream since."""
        self._used: OrderedDict[Key, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._bound)

    def get(self, key: Key) -> Binding | None:
        """Where the session went; touches nothing."""
        return self._bound.get(key)

    def put(self, key: Key, binding: Binding) -> None:
        if self._bound.get(key) != binding:
            self._listened.discard(key)
        self._bound[key] = binding
        self._bound.move_to_end(key)
        if len(self._bound) > MAX_BINDINGS:
            self._listened.discard(self._bound.popitem(last=False)[0])

    def drop(self, key: Key) -> None:
        """The session is over."""
        self._bound.pop(key, None)
        self._listened.discard(key)
        self._used.pop(key, None)

    def listened(self, key: Key) -> bool:
        """Whether the client had an event stream of the session where it is now: a last event id may be of there."""
        return key in self._listened

    def listens(self, key: Key) -> None:
        """The client gets such a stream."""
        if key in self._bound:
            self._listened.add(key)

    def use(self, key: Key, session: Session) -> None:
        """The session is in use: its recording is to be kept."""
        self._used[key] = session
        self._used.move_to_end(key)
        if key in self._bound:
            self._bound.move_to_end(key)
        if len(self._used) > MAX_USED:
            self._used.popitem(last=False)

    def in_use(self, since_s: float) -> list[Key]:
        """The sessions with a request since then, by the gateway's coarse clock, or with a stream that is open."""
        used = [key for key, session in self._used.items() if session.streams or session.last_s >= since_s]
        for key in self._used.keys() - set(used):
            del self._used[key]
        return used
