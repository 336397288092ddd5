"""What instances print: whole lines, bounded in length and rate, each with the instance's name before it.

A chatty or hostile instance costs the agent a bounded amount of memory and log; what is too much is dropped and
counted, never waited for, so that no instance blocks on a full pipe.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.agent.base import InstanceKey

LINE_BYTES: Final = 2_000
"""Longer lines are cut."""
TAIL_LINES: Final = 20
"""Kept to explain a failure."""
TAIL_LINE_BYTES: Final = 300
LINES_PER_S: Final = 500
"""Per instance; a burst of one second's worth passes at once."""

Output = Callable[[InstanceKey, bytes], None]
"""Takes one line without its end. Must not raise and must not wait."""


def to_stderr(key: InstanceKey, line: bytes) -> None:
    """Write to the agent's own standard error; a reader that went away or does not read loses lines."""
    _write(sys.stderr.fileno(), key, line)


def _write(descriptor: int, key: InstanceKey, line: bytes) -> None:
    # Nothing useful can be done about the log from inside the log.
    with contextlib.suppress(OSError):
        os.write(descriptor, b"%s | %s\n" % (str(key).encode(), line))


class Lines:
    """Cuts one instance's output into lines, and keeps the last ones."""

    def __init__(self, key: InstanceKey, output: Output, clock_s: Callable[[], float]) -> None:
        self._key = key
        self._output = output
        self._clock_s = clock_s
        self._unfinished = bytearray()
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._window_s = 0.0
        self._in_window = 0
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._unfinished += line[: LINE_BYTES - len(self._unfinished)]
            self._finish_line()
        self._unfinished += rest[: LINE_BYTES - len(self._unfinished)]

    def end(self) -> None:
        """No more output: what came without a line end is a line too."""
        if self._unfinished:
            self._finish_line()
        self._report_dropped()

    def tail(self) -> str:
        """The last lines, for an error message."""
        return "\n".join(line.decode("utf-8", "replace") for line in self._tail)

    def _finish_line(self) -> None:
        line = bytes(self._unfinished).rstrip(b"\r")
        self._unfinished.clear()
        self._tail.append(line[:TAIL_LINE_BYTES])
        now_s = self._clock_s()
        if now_s >= self._window_s + 1.0:
            self._report_dropped()
            self._window_s, self._in_window = now_s, 0
        if self._in_window >= LINES_PER_S:
            self._dropped += 1
            return
        self._in_window += 1
        self._output(self._key, line)

    def _report_dropped(self) -> None:
        if self._dropped:
            self._output(self._key, b"(%d lines dropped: more than %d a second)" % (self._dropped, LINES_PER_S))
            self._dropped = 0
