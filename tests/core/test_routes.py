"""Which app a request is for: by host, suffix or neither, then by the longest path prefix, the same everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bodies import app_body
from gateway.core.catalog import Catalog
from gateway.core.model import App
from gateway.core.record import Record, RecordKind


def catalog(*apps: App) -> Catalog:
    made = Catalog("local")
    for app in apps:
        put(made, app)
    return made


def put(into: Catalog, app: App, counter: int = 1) -> None:
    into.fold(Record(RecordKind.APP, app.name, "config", 1, counter, False, app_body(app)))


def found(among: Catalog, host: str, path: bytes) -> str:
    table = among.lookup(host, path)
    return table.app.name if table is not None else ""


@pytest.mark.parametrize(
    ("host", "path", "name"),
    [
        ("a.example", b"/", "exact"),
        ("a.example", b"/api", "api"),
        ("a.example", b"/api/x", "api"),
        ("a.example", b"/api/v1", "v1"),
        ("a.example", b"/apis", "exact"),
        ("b.example", b"/", "wild"),
        ("b.c.example", b"/", "deep"),
        ("x.b.c.example", b"/", "deep"),
        ("c.example", b"/", "wild"),
        ("example", b"/", "rest"),
        ("other", b"/x", "rest"),
        ("other", b"/x/y", "rest-x-y"),
        ("", b"/x", "rest"),
        ("", b"/x/y/", "rest-x-y"),
        (".example", b"/", "wild"),
    ],
)
def test_the_nearest_host_then_the_longest_path(host: str, path: bytes, name: str) -> None:
    apps = [
        App("exact", ("a.example",)),
        App("api", ("a.example",), "/api"),
        App("v1", ("a.example",), "/api/v1/"),
        App("wild", ("*.example",)),
        App("deep", ("*.c.example",)),
        App("rest"),
        App("rest-x-y", path="/x/y"),
    ]
    for order in (apps, apps[::-1]):
        assert found(catalog(*order), host, path) == name


def test_an_app_whose_path_does_not_match_leaves_it_to_the_next() -> None:
    exact, wild = App("exact", ("a.b.example",), "/x"), App("wild", ("*.b.example",), "/y")
    made = catalog(exact, wild, App("wider", ("*.example",)))
    assert [found(made, "a.b.example", path) for path in (b"/x", b"/y", b"/z")] == ["exact", "wild", "wider"]
    assert found(made, "a.b.test", b"/z") == ""
    assert catalog().lookup("a.example", b"/") is None


def test_of_two_with_the_same_place_the_first_by_name_has_it() -> None:
    for names in (("a", "b"), ("b", "a")):
        made = catalog(*(App(name, ("x.example",)) for name in names))
        assert found(made, "x.example", b"/") == "a"


def test_an_app_moves_with_its_settings() -> None:
    made = catalog(App("a", ("x.example", "*.y.example")), App("b", ("x.example",)))
    put(made, App("a", ("z.example",)), 2)
    assert [found(made, host, b"/") for host in ("x.example", "1.y.example", "z.example")] == ["b", "", "a"]
    put(made, App("b"), 2)
    assert [found(made, host, b"/") for host in ("x.example", "z.example")] == ["b", "a"]
    made.fold(Record(RecordKind.APP, "a", "config", 1, 3, deleted=True))
    assert found(made, "z.example", b"/") == "b"


HOSTS = ["a.x", "b.a.x", "x", "*.x", "*.a.x"]
PATHS = ["/", "/p", "/p/q", "/q"]
APPS = st.lists(
    st.builds(
        App,
        st.sampled_from(["k", "l", "m", "n"]),
        st.lists(st.sampled_from(HOSTS), max_size=2, unique=True).map(tuple),
        st.sampled_from(PATHS),
    ),
    max_size=5,
)


def slowly(apps: dict[str, App], host: str, path: str) -> str:
    """The same by looking at every app: the best place, and of several equal ones the first by name."""
    best: tuple[int, int, str] | None = None
    for name in sorted(apps, reverse=True):
        app = apps[name]
        if app.path != "/" and path != app.path and not path.startswith(app.path + "/"):
            continue
        for pattern in app.hosts or ("",):
            if pattern == host or not pattern:
                nearness = 1000 if pattern else 0
            elif pattern.startswith("*.") and host.endswith(pattern[1:]):
                nearness = len(pattern)
            else:
                continue
            rank = (nearness, len(app.path.rstrip("/")), name)
            if best is None or rank[:2] >= best[:2]:
                best = rank
    return best[2] if best is not None else ""


@given(APPS, st.sampled_from(["a.x", "b.a.x", "c.b.a.x", "x", "y", "b.x"]), st.sampled_from([*PATHS, "/p/q/r", "/pq"]))
def test_the_index_finds_what_looking_at_all_does(apps: list[App], host: str, path: str) -> None:
    made, current = Catalog("local"), dict[str, App]()
    for counter, app in enumerate(apps):
        put(made, app, counter)
        current[app.name] = app
        assert found(made, host, path.encode()) == slowly(current, host, path)
