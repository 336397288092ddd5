"""The way of one request that an app, or a replay cache, sends elsewhere than its head alone would."""

from __future__ import annotations

from asyncio import TimerHandle
from typing import TYPE_CHECKING

from gateway.core.detour import CacheStatus, Form, status_line

if TYPE_CHECKING:
    from gateway.core.model import Instance
    from gateway.core.remember import Place, Target
    from gateway.core.remembered import Entry
    from gateway.core.replay import Replay


class Trip:
    """What is known of the way so far. Kept by the request's routing; changed by `gateway.data.detour`."""

    __slots__ = (
        "entry",
        "excluded",
        "failed",
        "fell_back",
        "form",
        "hops",
        "issuer",
        "issuer_form",
        "late",
        "plain",
        "reached",
        "remember",
        "replay",
        "since_s",
        "source",
        "status",
        "timer",
        "tried",
    )

    def __init__(self, form: Form) -> None:
        self.form = form
        """What the present target is shown."""
        self.hops = 0
        """Replays so far."""
        self.status: CacheStatus | None = None
        self.entry: Entry | None = None
        """What a cache said, while that is what is followed."""
        self.replay: Replay | None = None
        """The last one."""
        self.issuer: Instance | None = None
        """Who asked for it."""
        self.issuer_form = form
        """What the issuer was shown."""
        self.plain = True
        """Nothing was added on the way that a later request would miss: no state, no transform."""
        self.excluded: dict[str, frozenset[str]] = {}
        """Ruled out by `elsewhere`, by app."""
        self.remember: tuple[tuple[Place, Target], ...] = ()
        """To be put into the caches once the target is reached."""
        self.source = b""
        """The fly-replay-src line."""
        self.failed = b""
        """The fly-replay-failed line."""
        self.fell_back = False
        self.reached = True
        """A connection to the present target was opened."""
        self.tried = False
        """A connection to it was tried."""
        self.since_s = 0.0
        """When the replay was asked for, by the loop's clock."""
        self.timer: TimerHandle | None = None
        self.late = False
        """The replay's `timeout` is over."""

    def lines(self) -> bytes:
        """What the present target is told of the way."""
        status = status_line(self.status) if self.status is not None else b""
        return self.source + self.failed + status

    def arrived(self) -> None:
        """A connection to the target is open, or nothing is to be reached any more."""
        self.reached = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
