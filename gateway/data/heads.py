"""Heads from raw bytes, remembered: a client that keeps its connection sends the same head again and again.

Each distinct head is parsed by the core, then shown to llhttp (through httptools): a head passes only when both
accept it. The parse is a pure function of the bytes, so remembering it changes nothing but the cost.
"""

from __future__ import annotations

import httptools

from gateway.core.head import RequestHead, ResponseHead, parse_request, parse_response
from gateway.core.problems import Code, Problem
from gateway.core.replay import HEADERS, Replay, parse_replay

MAX_REMEMBERED = 2048
MAX_REMEMBERED_BYTES = 2048
"""Longer heads are parsed each time."""


class _Nothing:
    """A parser's listener that is interested in nothing but faults."""


class Heads:
    """The heads of one gateway."""

    __slots__ = ("_max_count", "_replays", "_requests", "_responses")

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._requests: dict[bytes, RequestHead] = {}
        self._responses: dict[bytes, ResponseHead] = {}
        self._replays: dict[tuple[bytes | None, ...], Replay | Problem] = {}

    def request(self, raw: bytes) -> RequestHead | Problem:
        """A request's head, up to and including the empty line."""
        head = self._requests.get(raw)
        if head is not None:
            return head
        parsed = parse_request(raw, self._max_count)
        if isinstance(parsed, Problem):
            return parsed
        try:
            httptools.HttpRequestParser(_Nothing()).feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            return Problem(Code.PB01, f"not HTTP/1.1: {error}")
        if len(raw) <= MAX_REMEMBERED_BYTES:
            if len(self._requests) >= MAX_REMEMBERED:
                self._requests.clear()
            self._requests[raw] = parsed
        return parsed

    def response(self, raw: bytes) -> ResponseHead | Problem:
        """A response's head, up to and including the empty line."""
        head = self._responses.get(raw)
        if head is not None:
            return head
        parsed = parse_response(raw)
        if isinstance(parsed, ResponseHead) and len(raw) <= MAX_REMEMBERED_BYTES:
            if len(self._responses) >= MAX_REMEMBERED:
                self._responses.clear()
            self._responses[raw] = parsed
        return parsed

    def replay(self, head: ResponseHead) -> Replay | Problem:
        """What a response's fly-replay headers ask for. Most apps ask for the same few things, again and again."""
        values = head.values
        key = tuple(map(values.get, HEADERS))
        found = self._replays.get(key) if not head.repeated else None
        if found is None:
            found = parse_replay(values, head.repeated)
            if not head.repeated and sum(len(value) for value in key if value is not None) <= MAX_REMEMBERED_BYTES:
                if len(self._replays) >= MAX_REMEMBERED:
                    self._replays.clear()
                self._replays[key] = found
        return found
