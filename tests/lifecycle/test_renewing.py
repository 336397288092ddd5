"""Recordings of sessions in use live on, and the others expire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.core.bodies import app_body
from gateway.core.catalog import Catalog
from gateway.core.model import App, OnLost, Pin
from gateway.core.record import Record, RecordKind
from gateway.core.seal import Sealer
from gateway.data.bindings import Key
from gateway.data.sessions import Session
from gateway.data.state import Gateway, Limits
from gateway.lifecycle.renewing import AT_LEAST_S, AT_MOST_S, Renewal
from gateway.log.base import LogUnavailable

ONE, TWO = ("tools", b"1"), ("tools", b"2")


class Store:
    def __init__(self) -> None:
        self.renewed: list[Sequence[Key]] = []
        self.away = False

    async def renew(self, keys: Sequence[Key]) -> None:
        if self.away:
            raise LogUnavailable("redis://x", "away", "wait")
        self.renewed.append(keys)


def gateway(*apps: App) -> Gateway:
    catalog = Catalog("local")
    for number, app in enumerate(apps):
        catalog.fold(Record(RecordKind.APP, app.name, "test", 1, number, deleted=False, body=app_body(app)))
    pins: Any = None
    spawn: Any = None
    return Gateway(
        region="local",
        limits=Limits(),
        trusted_proxies=(),
        catalog=catalog,
        sealer=Sealer([b"a secret of 32 bytes or more....."]),
        pins=pins,
        spawn=spawn,
    )


async def test_what_was_used_since_the_last_time_is_renewed() -> None:
    one, store = gateway(), Store()
    renewal = Renewal(one, store)
    sessions = {key: Session("name", "tools", Pin("i-1", "a"), 0.0) for key in (ONE, TWO)}

    def used(key: Key) -> None:
        sessions[key].last_s = one.now_s
        one.bindings.use(key, sessions[key])

    one.sweep(10.0)
    await renewal.renew()
    used(ONE)
    used(TWO)
    one.sweep(20.0)
    await renewal.renew()
    used(TWO)
    one.sweep(30.0)
    store.away = True
    await renewal.renew()
    store.away = False
    one.sweep(40.0)
    await renewal.renew()
    one.sweep(50.0)
    await renewal.renew()
    assert store.renewed == [[ONE, TWO], [TWO]]


@pytest.mark.parametrize(
    ("apps", "every_s"),
    [
        ([], AT_MOST_S),
        ([App("a", session_idle_s=60.0)], AT_MOST_S),
        ([App("a", session_idle_s=60.0, on_lost=OnLost.REINITIALIZE)], 15.0),
        # A router's sessions live for its own time, in whichever app they are.
        ([App("a", session_idle_s=60.0), App("b", path="/b", on_lost=OnLost.REINITIALIZE)], 15.0),
        ([App("a", session_idle_s=0.5, on_lost=OnLost.REINITIALIZE)], AT_LEAST_S),
        ([App("a", session_idle_s=1e6, on_lost=OnLost.REINITIALIZE)], AT_MOST_S),
    ],
)
def test_it_is_done_often_enough(apps: list[App], every_s: float) -> None:
    assert Renewal(gateway(*apps), Store()).every_s() == every_s
