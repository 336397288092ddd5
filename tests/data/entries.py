"""Short ways to put entries into replay caches and to look for them."""

from __future__ import annotations

from gateway.core.head import RequestHead, parse_request
from gateway.core.model import App, ReplayKey, ReplayRule
from gateway.core.remember import Place, Target, path_place, session_place
from gateway.core.remembered import Entry, Message, encode
from gateway.core.replay import CacheOrder
from gateway.data.replays import Replays

NOW_S = 1_767_225_600.0
HOST = "router.localhost"
ROUTER = App("router", replay_cache=(ReplayRule(ReplayKey.COOKIE, "sid", 600.0),))
OTHER = App("other")
MINE, THEIRS = "0a", "0b"


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def request(path: str, sid: str = "", host: str = HOST) -> RequestHead:
    cookie = f"Cookie: sid={sid}\r\n" if sid else ""
    head = parse_request(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n".encode())
    assert isinstance(head, RequestHead)
    return head


def by_path(prefix: str, app: App = ROUTER, host: str = HOST, ttl_s: float = 60.0) -> Place:
    place = path_place(app, host, prefix.encode() or b"/", CacheOrder("", prefix.encode(), ttl_s))
    assert isinstance(place, Place)
    return place


def by_session(sid: str, host: str = HOST) -> Place:
    place = session_place(ROUTER, host, b"/", request("/", sid))
    assert place is not None
    return place


def to(instance: str) -> Target:
    return Target("user", instance)


def put(one: Replays, place: Place, instance: str, app: App = ROUTER, host: str = HOST) -> None:
    one.put(app, host, place, to(instance))


def found(one: Replays, path: str, sid: str = "", app: App = ROUTER, host: str = HOST) -> str:
    """The instance that is remembered for a request; empty for none."""
    entry = one.find(app, request(path, sid, host))
    return entry.target.instance if entry is not None else ""


def held(one: Replays, path: str) -> Entry:
    entry = one.find(ROUTER, request(path))
    assert entry is not None
    return entry


def told(place: Place, instance: str | None, sender: str = THEIRS, until_s: float = NOW_S + 60.0) -> bytes:
    """What a gateway says of an entry that it made, or with no instance, ended."""
    host = HOST if place.by_path else ""
    entry = Entry("router", place.key, to(instance), until_s, host=host) if instance is not None else None
    return encode(Message(sender, "router", place.key, entry))
