"""Which app a request is for: the index from host and path to an app's slot. Kept up to date by the catalog's fold.

Order, first that matches: the exact host, the longest `*.suffix`, the apps without hosts; within each the longest path
prefix, by whole segments. An app whose hosts match but whose path does not leaves the request to the next in order.
Of two apps with the same host and path the first by name gets all, so that every gateway agrees.
"""

from __future__ import annotations

from gateway.core.model import App
from gateway.core.tables import Slot

_Route = tuple[bytes, bytes, Slot]
"""The prefix (empty for "/"), the prefix with a "/" after it, the app's slot. Longest first, then by app name."""


class Routes:
    """The index. One writer; readers need no lock, since each list of routes is replaced as a whole."""

    def __init__(self) -> None:
        self.exact: dict[str, tuple[_Route, ...]] = {}
        """Hosts without wildcard. The empty one stands for every host: it belongs to the apps that name none."""
        self.suffixes: dict[str, tuple[_Route, ...]] = {}
        """`.example.com` for `*.example.com`."""

    def add(self, app: App, slot: Slot) -> None:
        path = app.path.rstrip("/").encode()
        route = (path, path + b"/", slot)
        for host in app.hosts or ("",):
            index, name = self._place(host)
            routes = [*index.get(name, ()), route]
            routes.sort(key=lambda each: (-len(each[0]), each[2].name))
            index[name] = tuple(routes)

    def remove(self, app: App, slot: Slot) -> None:
        for host in app.hosts or ("",):
            index, name = self._place(host)
            routes = tuple(route for route in index.get(name, ()) if route[2] is not slot)
            if routes:
                index[name] = routes
            else:
                index.pop(name, None)

    def find(self, host: str, path: bytes) -> Slot | None:
        """The slot of the app that a request for this host and raw path belongs to."""
        found = _longest(self.exact.get(host, ()), path) if host else None
        if found is None and self.suffixes:
            dot = host.find(".")
            while dot >= 0 and found is None:
                found = _longest(self.suffixes.get(host[dot:], ()), path)
                dot = host.find(".", dot + 1)
        return found if found is not None else _longest(self.exact.get("", ()), path)

    def _place(self, host: str) -> tuple[dict[str, tuple[_Route, ...]], str]:
        return (self.suffixes, host[1:]) if host.startswith("*.") else (self.exact, host)


def _longest(routes: tuple[_Route, ...], path: bytes) -> Slot | None:
    for prefix, inside, slot in routes:
        if not prefix or path == prefix or path.startswith(inside):
            return slot
    return None
