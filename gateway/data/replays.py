"""The replay caches of one gateway: where apps sent requests, for as long as they allow it to be remembered.

An optimisation, never a promise (Fly, "Replay caching"): an entry may be missing at any time, and the app is asked.
What must not be is an entry that was invalidated: everything is dropped whenever a message of another gateway may have
been missed.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

from gateway.core.head import RequestHead
from gateway.core.model import App
from gateway.core.remember import MAX_TTL_S, Place, Target, path_key, prefixes, session_place
from gateway.core.remembered import Entry, Message, decode, encode

MAX_OWED = 10_000
MAX_ENTRIES = 10_000
"""Of one app; the one used longest ago goes. About 5 MB."""


class Replays:
    """Entries by app and key. Read and written by the event loop only."""

    def __init__(
        self,
        sender: str,
        clock_s: Callable[[], float] = time.time,  # noqa: TID251 - other gateways are told when an entry ends
    ) -> None:
        self.publish: Callable[[bytes], None] | None = None
        """Tells the other gateways; must not wait. What it is given comes back by `take`, or else by `failed` or
        `lost`. None: there are no others."""
        self.connected: Callable[[], bool] = lambda: True
        """Whether what the other gateways say comes in. While it does not, nothing is remembered, and nothing used."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """By app, and by what happened: hit, bypass, made, invalidated, unusable, evicted."""
        self._sender = sender
        self._clock_s = clock_s
        self._apps: dict[str, OrderedDict[bytes, Entry]] = {}
        self._paths: Counter[tuple[str, str]] = Counter()
        """How many path entries there are, by app and host."""
        self._owed: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        """Ends of entries that the others could not be told of."""
        self._said: Counter[tuple[str, bytes]] = Counter()
        """Messages of our own about a key that did not come back yet: until then, ours is the last word."""

    def __len__(self) -> int:
        return sum(map(len, self._apps.values()))

    def find(self, app: App, head: RequestHead) -> Entry | None:
        """The entry for a request to this app: its session's, else its path's."""
        entries = self._apps.get(app.name)
        if not entries or not self.connected():
            return None
        place = session_place(app, head.host, head.path, head) if app.replay_cache else None
        found = self._live(entries, place.key) if place is not None else None
        if found is None and self._paths[app.name, head.host]:
            for prefix in prefixes(head.path):
                found = self._live(entries, path_key(app, head.host, prefix))
                if found is not None:
                    break
        return found

    def put(self, app: App, host: str, place: Place, target: Target) -> None:
        """Remember where a request was sent."""
        if not self.connected():
            return
        until_s = self._clock_s() + min(place.ttl_s, MAX_TTL_S)
        entry = Entry(app.name, place.key, target, until_s, place.allow_bypass, host if place.by_path else "")
        self.counts[app.name, "made"] += 1
        self._set(entry)
        self._tell(app.name, place.key, entry)

    def drop(self, entry: Entry, why: str) -> None:
        """An entry holds no more: the app invalidated it, or its target cannot be used."""
        self.counts[entry.app, why] += 1
        self._remove(entry.app, entry.key)
        self._tell(entry.app, entry.key, None)

    def invalidate(self, app: App, head: RequestHead) -> None:
        """Drop everything that a request like this one could find: its session's, and those of its path's prefixes."""
        while (entry := self.find(app, head)) is not None:
            self.drop(entry, "invalidated")
        if self.connected():
            return
        place = session_place(app, head.host, head.path, head)
        keys = [path_key(app, head.host, prefix) for prefix in prefixes(head.path)]
        for key in keys if place is None else [place.key, *keys]:
            self._owe(app.name, key)

    def keys(self, app: str) -> int:
        """How many entries an app has."""
        return len(self._apps.get(app, ()))

    # --- the other gateways ------------------------------------------------------------

    def take(self, messages: Sequence[bytes], restart: bool) -> None:
        """What all gateways said, in the one order in which all of them hear it."""
        if restart:
            self.lost()
        # Messages come, so the store is there.
        self._pay()
        now_s = self._clock_s()
        for raw in messages:
            message = decode(raw, now_s)
            if message is not None:
                self._hear(message, now_s)

    def lost(self) -> None:
        """A message may have been missed: what it would have ended must not be used."""
        self._apps.clear()
        self._paths.clear()
        self._said.clear()

    def failed(self, raw: bytes) -> None:
        """A message of our own did not get through: what it made is not shared, and so not kept."""
        message = decode(raw, self._clock_s())
        if message is not None:
            self._remove(message.app, message.key)
            self._answered(message.app, message.key)
            if message.entry is None:
                self._owe(message.app, message.key)

    def _owe(self, app: str, key: bytes) -> None:
        """An entry has ended, and the others are to hear of it once they can be told."""
        self._remove(app, key)
        self._owed[app, key] = None
        if len(self._owed) > MAX_OWED:
            self._owed.popitem(last=False)

    def _pay(self) -> None:
        owed, self._owed = self._owed, OrderedDict()
        for app, key in owed:
            self._tell(app, key, None)

    def _hear(self, message: Message, now_s: float) -> None:
        app, key, entry = message.app, message.key, message.entry
        if message.sender == self._sender:
            if not self._answered(app, key):
                return
        elif (app, key) in self._said:
            # What we said last comes behind this one.
            return
        if entry is None or entry.until_s <= now_s or (app, key) in self._owed:
            self._remove(app, key)
        else:
            self._set(entry)

    def _answered(self, app: str, key: bytes) -> bool:
        """One of our messages about a key came back; whether it was the last one."""
        self._said[app, key] -= 1
        if self._said[app, key] > 0:
            return False
        del self._said[app, key]
        return True

    def _tell(self, app: str, key: bytes, entry: Entry | None) -> None:
        if self.publish is None:
            return
        self._said[app, key] += 1
        self.publish(encode(Message(self._sender, app, key, entry)))

    # --- entries -------------------------------------------------------------------------

    def _live(self, entries: OrderedDict[bytes, Entry], key: bytes) -> Entry | None:
        entry = entries.get(key)
        if entry is None:
            return None
        if entry.until_s <= self._clock_s():
            self._remove(entry.app, key)
            return None
        entries.move_to_end(key)
        return entry

    def _set(self, entry: Entry) -> None:
        self._remove(entry.app, entry.key)
        entries = self._apps.setdefault(entry.app, OrderedDict())
        entries[entry.key] = entry
        if entry.host:
            self._paths[entry.app, entry.host] += 1
        if len(entries) > MAX_ENTRIES:
            self.counts[entry.app, "evicted"] += 1
            self._remove(entry.app, next(iter(entries)))

    def _remove(self, app: str, key: bytes) -> None:
        entries = self._apps.get(app)
        entry = entries.pop(key, None) if entries is not None else None
        if entry is None:
            return
        if not entries:
            del self._apps[app]
        if entry.host:
            self._paths[app, entry.host] -= 1
            if not self._paths[app, entry.host]:
                del self._paths[app, entry.host]
