"""Reading 2026-07-28 results on their way for what later requests will be pinned by: task ids, requestState.

Only answers to the three methods that may hand one out are read, and only up to a bound; an answer longer than
that is passed on unread, and its retries go by the caller's principal.
"""

from __future__ import annotations

from gateway.core.learn import Learned, learn_result
from gateway.core.sse import SseReader

MAX_BODY_BYTES = 262_144
"""A JSON answer is kept back this far to be read whole before the client sees it."""


class Learner:
    """Reads one answer's payload."""

    __slots__ = ("_body", "_reader", "_size", "over", "withholds")

    def __init__(self, *, stream: bool) -> None:
        self.withholds = not stream
        """The answer is kept back until it is read to its end; of event streams only the event that matters is."""
        self.over = False
        """There is nothing more to be learned."""
        self._reader = SseReader() if stream else None
        self._body: list[bytes] = []
        self._size = 0

    def note(self, payload: bytes, done: bool) -> Learned | None:
        """The next payload bytes; `done` with the last ones. What was learned, once."""
        if self._reader is not None:
            for event in self._reader.feed(payload):
                learned = learn_result(event.data)
                if learned is not None:
                    return learned
            self.over = done
            return None
        self._body.append(payload)
        self._size += len(payload)
        if self._size > MAX_BODY_BYTES or done:
            self.over = True
        return learn_result(b"".join(self._body)) if done and self._size <= MAX_BODY_BYTES else None
