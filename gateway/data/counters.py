"""What is counted on the request path: plain integers, read by the metrics page."""

from __future__ import annotations

from collections import Counter


class Counters:
    """Counts since the gateway started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """Finished requests by app and status (0: the client left before a status was sent)."""
        self.rules: Counter[tuple[str, str]] = Counter()
        """Routed requests by app and rule."""
        self.problems: Counter[tuple[str, str]] = Counter()
        """Errors the gateway made, by app and code."""
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """How requests ended, by app: completed, client-gone, instance-failed, refused."""
        self.misroutes: Counter[str] = Counter()
        """An instance answered 404 to a session that its id says it holds, by app."""
        self.replays: Counter[tuple[str, str]] = Counter()
        """Replays that apps asked for, by addressed app: followed, refused, fallback."""
        self.sessions_made: Counter[str] = Counter()
        self.sessions_ended: Counter[str] = Counter()
        self.sessions_reinitialised: Counter[str] = Counter()
        """Handshakes made in place of a lost session's, by the addressed app."""
        self.punted = 0
        """Requests that went the slow path."""
        self.connections = 0
        """Client connections accepted."""
        self.connections_refused = 0
        self.retries = 0
        """Attempts after the first one."""
