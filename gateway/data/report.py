"""The log lines of requests that went wrong, or not as their app wanted: one each, but never more than a few a second.

A flood of bad requests must not become a flood of log lines; what was left out is counted and said.
"""

from __future__ import annotations

import structlog

from gateway.core.problems import Problem

MAX_LINES_PER_SWEEP = 50

log = structlog.get_logger(__name__)


class Report:
    """The reporter of one gateway."""

    __slots__ = ("_left", "_unsaid")

    def __init__(self) -> None:
        self._left = MAX_LINES_PER_SWEEP
        self._unsaid = 0

    def problem(self, problem: Problem, request_id: bytes, method: bytes, status: int) -> None:
        """A request was answered with a problem, or broken off because of one."""
        if self._left <= 0:
            self._unsaid += 1
            return
        self._left -= 1
        log.info(
            "request failed",
            code=problem.code.value,
            reason=problem.message,
            app=problem.app,
            instance=problem.instance,
            method=method.decode("ascii"),
            status=status,
            request_id=request_id.decode("ascii"),
        )

    def unkept(self, app: str, why: str) -> None:
        """An app wants a replay cached that cannot be."""
        if self._left <= 0:
            self._unsaid += 1
            return
        self._left -= 1
        log.warning("a replay is not cached", app=app, reason=why)

    def sweep(self) -> None:
        """Once a second."""
        if self._unsaid:
            log.warning("further requests are not told of", count=self._unsaid)
        self._left, self._unsaid = MAX_LINES_PER_SWEEP, 0
