"""What is asked of an app's table, what is decided, and what the decision may look at besides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from gateway.core.model import AppTable, Instance, Intent, Pin, Rule
from gateway.core.problems import Problem


@dataclass(frozen=True, slots=True)
class Ask:
    """What `decide` needs to know of a request, with every token already opened."""

    intent: Intent
    pin: Pin | None = None
    """From a sealed id, a legacy pin or the pin store. Binding: never placed elsewhere."""
    pin_rule: Rule = Rule.SEALED
    cookie: Pin | None = None
    """From the affinity cookie. A wish: it fails over."""
    force: str = ""
    """fly-force-instance-id."""
    prefer: str = ""
    """fly-prefer-instance-id."""
    key: bytes = b""
    """What is hashed when nothing above applies: a `key` rule's value, or the principal."""
    exclude: frozenset[str] = frozenset()
    """Instances that were tried and could not be reached, or are not wanted."""
    regions: tuple[frozenset[str] | None, ...] = ()
    """Where a new place is looked for, in this order; None is anywhere, and so is an empty list."""
    replayed: Rule | None = None
    """REPLAY or REPLAY_CACHE, when it was not the client but an app that chose `force`, `prefer` and `regions`."""


# --- what is decided -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forward:
    """Send it to this running instance now."""

    instance: Instance
    rule: Rule


@dataclass(frozen=True, slots=True)
class Wake:
    """Hold it, start this instance, then send it there."""

    instance: Instance
    rule: Rule


@dataclass(frozen=True, slots=True)
class Wait:
    """Hold it until a slot is free or the app's table changes, then decide again: every candidate is at its hard
    limit, or the session's instance has begun a life that the catalog here does not know yet."""

    rule: Rule
    instance: Instance | None = None
    """The one instance that will do, or None for any."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with this problem; no instance is touched."""

    problem: Problem


Decision = Forward | Wake | Wait | Refuse


class View(Protocol):
    """What a gateway knows beyond the catalog; read without waiting."""

    def load(self, instance: Instance) -> int:
        """Load that counts for placement: requests in flight and open streams here, plus what other gateways said."""

    def hard_load(self, instance: Instance) -> int:
        """Load that counts against `hard` (under `requests`, open streams do not)."""

    def suspect(self, instance: Instance) -> bool:
        """True for a short while after connections to it failed: placed last."""

    def turn(self, instance: Instance) -> int:
        """Higher the later something was last placed on it, 0 for never: of equally loaded ones the lowest is next."""

    def rank(self, table: AppTable, key: bytes) -> Iterable[Instance]:
        """The placeable and wakeable instances in consistent-hash order for a key."""
