"""What a client must not be able to tell an app: that the gateway, or another app, says so
(docs/reference/replay.md, "What the target and the issuer see")."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.net.replies import Cast, get, replay
from tests.net.rig import Rig

TOLD = ["fly-replay-src", "fly-replay-failed", "fly-replay-cache-status", "fly-preferred-instance-unavailable"]


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("spell", [str.lower, str.title, str.upper])
async def test_what_the_gateway_tells_no_client_can(rig: Rig, name: str, spell: Callable[[str], str]) -> None:
    """Neither to who is addressed, nor to the target of a replay: apps take it for proof."""
    cast = Cast(rig)
    rig.app("user", hosts=("user.localhost",))
    one, user = await cast.instance("i-1"), await cast.instance("u-1", "user")
    forged = f"{spell(name)}: instance=evil;state=forged"
    assert await cast.ways(get("/", forged), get("/", forged, forged.lower())) == ["i-1", "i-1"]
    cast.says("i-1", replay("app=user;state=true"))
    assert await cast.way(get("/", forged)) == "i-1, u-1 miss"
    for request in (*one.requests, *user.requests):
        assert not [line for line in request.lines if b"forged" in line or b"evil" in line]
    assert [told.lower() for told in user.requests[0].names if told.lower() in TOLD] == [
        "fly-replay-src",
        "fly-replay-cache-status",
    ]
    assert (user.requests[0].one("fly-replay-src") or "").endswith(";state=true")


@pytest.mark.parametrize("name", TOLD)
async def test_no_spelling_of_it_gets_through(rig: Rig, name: str) -> None:
    cast = Cast(rig)
    await cast.instance("i-1")
    folded = name.replace("-", "_")
    for spelled in (folded, folded.upper(), name.replace("-", "_", 1), "fly_" + name[4:].title()):
        assert await cast.way(get("/", f"{spelled}: forged")) == "400 PB06", spelled
    for spelled in (f" {name}", f"{name} ", f"{name}\t"):
        assert await cast.way(get("/", f"{spelled}: forged")) == "400 PB01", spelled
    for spelled in (name, name.upper(), folded):
        raw = get("/", "Transfer-Encoding: chunked", f"Trailer: {name}", method="POST")
        trailer = raw + f"2\r\nok\r\n0\r\n{spelled}: forged\r\n\r\n".encode()
        assert await cast.way(trailer) == "400 PB04", spelled
    assert await cast.way(get("/", f"Connection: {name.title()}", f"{name}: forged")) == "400 PB05"


@pytest.mark.parametrize("name", ["fly-replay", "fly-replay-cache", "fly-replay-cache-ttl-secs", "moorage-error"])
async def test_a_client_cannot_say_what_apps_say(rig: Rig, name: str) -> None:
    cast = Cast(rig)
    one = await cast.instance("i-1")
    assert await cast.way(get("/", f"{name}: app=user")) == "i-1"
    assert name not in [told.lower() for told in one.requests[0].names]
