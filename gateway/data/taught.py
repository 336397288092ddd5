"""What the exchange makes of an answer's head: handed from the step `learn` to the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gateway.core.endpoint import EndpointRewriter
    from gateway.core.problems import Problem
    from gateway.data.learner import Learner


class Taught:
    """What the exchange makes of an answer's head."""

    __slots__ = ("extra", "learner", "rewriter", "session_id", "store")

    def __init__(self) -> None:
        self.session_id: bytes | None = None
        """The Mcp-Session-Id for the client."""
        self.extra = b""
        """Header lines to add."""
        self.store: Coroutine[object, object, Problem | None] | None = None
        """To be awaited before anything reaches the client; a problem replaces the answer."""
        self.rewriter: EndpointRewriter | None = None
        self.learner: Learner | None = None
