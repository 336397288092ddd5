"""Steering by the client: four request headers choose among the instances of the app that is addressed
(docs/reference/replay.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.model import AppProtocol, Concurrency, KeyRule, KeySource, State
from tests.net.replies import Cast, answer, get, post
from tests.net.rig import Rig
from tests.net.wire import Message

STEERING = ["fly-force-instance-id", "fly-prefer-instance-id", "fly-force-region", "fly-prefer-region"]
SPELLINGS = [str.lower, str.title, str.upper]
UNAVAILABLE = "fly-preferred-instance-unavailable"


async def three(rig: Rig) -> Cast:
    """i-1 in fra, i-2 in ams and i-3 in iad."""
    cast = Cast(rig)
    for id, region in (("i-1", "fra"), ("i-2", "ams"), ("i-3", "iad")):
        await cast.instance(id, region=region)
    return cast


async def seen(cast: Cast, *lines: str) -> set[str]:
    """Where requests with these lines go."""
    return set(await cast.ways(*[get("/", *lines)] * 4))


# --- fly-force-instance-id ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["fly-force-instance-id", "Fly-Force-Instance-Id", "FLY-FORCE-INSTANCE-ID"])
async def test_a_forced_instance_gets_the_request(rig: Rig, name: str) -> None:
    cast = await three(rig)
    for id in ("i-1", "i-2", "i-3"):
        assert await seen(cast, f"{name}:  {id} ") == {id}


@pytest.mark.parametrize("unfit", [{"healthy": False}, {"cordoned": True}])
async def test_a_forced_instance_need_not_be_fit(rig: Rig, unfit: dict[str, Any]) -> None:
    cast = await three(rig)
    rig.change("i-2", **unfit)
    assert await seen(cast, "fly-force-instance-id: i-2") == {"i-2"}


@pytest.mark.parametrize("forced", ["i-4", "I-1", "i-1, i-2", "i-1;", "*", "any", "tools/i-1", "127.0.0.1", "\xe9"])
async def test_an_instance_that_is_not_there_is_an_error(rig: Rig, forced: str) -> None:
    cast = await three(rig)
    assert await seen(cast, f"fly-force-instance-id: {forced}") == {"502 PR02"}


async def test_an_instance_that_cannot_be_used_is_an_error(rig: Rig) -> None:
    """Never another one."""
    cast = await three(rig)
    rig.asleep("i-1", held_down=True)
    assert await seen(cast, "fly-force-instance-id: i-1") == {"503 PM08"}
    lost = await rig.instance("i-2")
    lost.close()
    assert await seen(cast, "fly-force-instance-id: i-2") == {"503 PS07"}
    rig.forget("i-3")
    assert await seen(cast, "fly-force-instance-id: i-3") == {"502 PR02"}


async def test_a_forced_instance_that_sleeps_is_woken(rig: Rig) -> None:
    cast = await three(rig)
    awake = rig.known("i-2")
    rig.asleep("i-2")
    client = await rig.client()
    client.send(get("/", "fly-force-instance-id: i-2"))
    asked, outcome = await rig.waker.asked.get()
    assert asked == "i-2"
    rig.know(awake)
    outcome.set_result(awake)
    assert (await client.answer()).body == b"i-2"
    assert cast.asked == ["i-2"]


# --- fly-prefer-instance-id --------------------------------------------------------------


async def test_a_preferred_instance_gets_the_request_if_it_is_fit(rig: Rig) -> None:
    cast = await three(rig)
    for id in ("i-1", "i-2", "i-3"):
        assert await seen(cast, f"fly-prefer-instance-id: {id}") == {id}


@pytest.mark.parametrize("unfit", ["gone", "unhealthy", "cordoned", "stopped", "failed", "unreachable", "full"])
async def test_another_one_gets_it_if_the_preferred_one_is_not_fit_and_is_told(rig: Rig, unfit: str) -> None:
    rig.app(concurrency=Concurrency(hard=1))
    cast = await three(rig)
    match unfit:
        case "gone":
            rig.forget("i-2")
        case "unhealthy":
            rig.change("i-2", healthy=False)
        case "cordoned":
            rig.change("i-2", cordoned=True)
        case "stopped":
            rig.asleep("i-2", held_down=True)
        case "failed":
            rig.change("i-2", state=State.FAILED, address=None)
        case "unreachable":
            (await rig.instance("i-2")).close()
        case _:
            holding = await rig.instance("i-2")
            client = await rig.client()
            client.send(get("/", "fly-force-instance-id: i-2"))
            await holding.request()
    told: list[str | None] = []

    def reads(request: Message) -> bytes:
        told.append(request.one(UNAVAILABLE))
        return answer()

    for id in ("i-1", "i-3"):
        cast.says(id, reads)
    assert await seen(cast, "fly-prefer-instance-id: i-2") == {"i-1", "i-3"}
    assert told == ["i-2"] * 4


@pytest.mark.parametrize("followed", ["fly-prefer-instance-id: i-2", "fly-force-instance-id: i-2", "X-One: 1"])
async def test_what_was_followed_is_not_told_as_unavailable(rig: Rig, followed: str) -> None:
    cast = Cast(rig)
    one = await cast.instance("i-2")
    assert await cast.way(get("/", followed)) == "i-2"
    assert UNAVAILABLE not in [name.lower() for name in one.requests[0].names]


@pytest.mark.parametrize("preferred", ["a b", "i-1\t;x", "\xe9", "x" * 65, "i_1", ""])
async def test_what_cannot_be_an_id_is_not_repeated_to_an_app(rig: Rig, preferred: str) -> None:
    cast = Cast(rig)
    one = await cast.instance("i-1")
    assert await cast.way(get("/", f"fly-prefer-instance-id: {preferred}")) == "i-1"
    assert UNAVAILABLE not in [name.lower() for name in one.requests[0].names]


# --- regions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "where"),
    [
        ("fra", {"i-1"}),
        ("FRA", {"i-1"}),
        ("ams,fra", {"i-2"}),
        ("fra, ams", {"i-1"}),
        ("gru,\tiad , fra", {"i-3"}),
        ("eu", {"i-1", "i-2"}),
        ("us,eu", {"i-3"}),
        ("gru,any", {"i-1", "i-2", "i-3"}),
        ("any,fra", {"i-1", "i-2", "i-3"}),
    ],
)
@pytest.mark.parametrize("name", ["fly-force-region", "fly-prefer-region"])
async def test_regions_are_tried_in_order(rig: Rig, name: str, listed: str, where: set[str]) -> None:
    cast = await three(rig)
    assert await seen(cast, f"{name}: {listed}") == where


async def test_a_region_without_a_fit_instance_is_passed_over(rig: Rig) -> None:
    cast = await three(rig)
    rig.change("i-1", healthy=False)
    assert await seen(cast, "fly-force-region: fra,iad") == {"i-3"}
    # Also when that turns out only now.
    (await rig.instance("i-1", region="fra")).close()
    assert await seen(cast, "fly-force-region: fra,iad") == {"i-3"}


async def test_no_other_region_than_the_forced_ones_is_tried(rig: Rig) -> None:
    cast = await three(rig)
    assert await seen(cast, "fly-force-region: gru") == {"503 PR01"}
    assert await seen(cast, "fly-force-region: gru, apac") == {"503 PR01"}
    rig.change("i-1", healthy=False)
    assert await seen(cast, "fly-force-region: fra") == {"503 PR01"}


async def test_any_region_is_tried_behind_the_preferred_ones(rig: Rig) -> None:
    cast = await three(rig)
    assert await seen(cast, "fly-prefer-region: gru") == {"i-1", "i-2", "i-3"}
    rig.change("i-1", healthy=False)
    assert await seen(cast, "fly-prefer-region: fra") == {"i-2", "i-3"}


async def test_one_that_sleeps_in_the_region_is_woken(rig: Rig) -> None:
    """Rather than that a forced region is left."""
    cast = await three(rig)
    awake = rig.known("i-1")
    rig.asleep("i-1", region="fra")
    client = await rig.client()
    client.send(get("/", "fly-force-region: fra"))
    asked, outcome = await rig.waker.asked.get()
    assert asked == "i-1"
    rig.know(awake)
    outcome.set_result(awake)
    assert (await client.answer()).body == b"i-1"
    assert cast.asked == ["i-1"]


async def test_the_apps_own_key_decides_within_the_region(rig: Rig) -> None:
    rig.app(key=(KeyRule(KeySource.HEADER, "x-session"),))
    cast = await three(rig)
    for number in range(6):
        assert len(await seen(cast, f"X-Session: {number}", "fly-force-region: eu")) == 1
        assert await seen(cast, f"X-Session: {number}", "fly-force-region: iad") == {"i-3"}


@pytest.mark.parametrize("listed", ["", ",", "fra,", "fra,,ams", "fra ams", "fra;ams", '"fra"', "-fra", "fr\xe4", "*"])
@pytest.mark.parametrize("name", ["fly-force-region", "fly-prefer-region"])
async def test_a_malformed_list_is_an_error(rig: Rig, name: str, listed: str) -> None:
    cast = await three(rig)
    assert await cast.way(get("/", f"{name}: {listed}")) == "400 PB01"


async def test_a_list_is_bounded(rig: Rig) -> None:
    cast = await three(rig)
    assert await cast.way(get("/", "fly-prefer-region: " + ",".join(["fra"] * 32))) == "i-1"
    assert await cast.way(get("/", "fly-prefer-region: " + ",".join(["fra"] * 33))) == "400 PB01"
    assert await cast.way(get("/", "fly-prefer-region: " + ",".join(["f" * 63] * 17))) == "400 PB01"


# --- several at once ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (["fly-force-instance-id: i-1", "fly-prefer-instance-id: i-2"], {"i-1"}),
        (["fly-force-instance-id: i-1", "fly-prefer-region: ams"], {"i-1"}),
        (["fly-force-region: fra", "fly-prefer-region: ams"], {"i-1"}),
        (["fly-force-region: fra", "fly-prefer-instance-id: i-2"], {"i-1"}),
        (["fly-force-region: eu", "fly-prefer-instance-id: i-2"], {"i-2"}),
        (["fly-prefer-region: eu", "fly-prefer-instance-id: i-2"], {"i-2"}),
        (["fly-force-instance-id: i-2", "fly-force-region: fra,ams"], {"i-2"}),
        (["fly-force-instance-id: i-2", "fly-force-region: any"], {"i-2"}),
        (["fly-force-instance-id: i-2", "fly-force-region: fra"], {"503 PR01"}),
        (["fly-force-region: gru", "fly-prefer-instance-id: i-2", "fly-prefer-region: ams"], {"503 PR01"}),
    ],
)
async def test_force_beats_prefer_and_an_instance_of_the_region_comes_first(
    rig: Rig, lines: list[str], where: set[str]
) -> None:
    cast = await three(rig)
    assert await seen(cast, *lines) == where
    assert await seen(cast, *reversed(lines)) == where


async def test_a_preferred_instance_outside_of_the_forced_region_is_told_as_unavailable(rig: Rig) -> None:
    cast = Cast(rig)
    one = await cast.instance("i-1", region="fra")
    other = await cast.instance("i-2", region="ams")
    assert await cast.way(get("/", "fly-force-region: fra", "fly-prefer-instance-id: i-2")) == "i-1"
    assert one.requests[0].one(UNAVAILABLE) == "i-2"
    assert other.untouched


# --- of the addressed app, and of no other -------------------------------------------------


@pytest.mark.parametrize("line", ["fly-force-instance-id: u-1", "fly-prefer-instance-id: u-1", "fly-force-region: gru"])
async def test_an_instance_of_another_app_is_never_chosen(rig: Rig, line: str) -> None:
    """Not even one of the same org that would take replays."""
    rig.app("user", hosts=("user.localhost",), replay_sources=("app:tools",))
    cast = await three(rig)
    user = await cast.instance("u-1", "user", region="gru")
    wanted = {
        "fly-force-instance-id": {"502 PR02"},
        "fly-prefer-instance-id": {"i-1", "i-2", "i-3"},
        "fly-force-region": {"503 PR01"},
    }
    assert await seen(cast, line) == wanted[line.partition(":")[0]]
    assert user.untouched
    assert await cast.way(get("/", line, host="user.localhost")) == "u-1"


async def test_an_id_that_two_apps_have_is_the_addressed_apps_own(rig: Rig) -> None:
    rig.app("user", hosts=("user.localhost",))
    cast = await three(rig)
    user = await rig.instance("i-1", "user")
    assert await seen(cast, "fly-force-instance-id: i-1") == {"i-1"}
    assert user.untouched


async def test_an_app_may_ignore_them(rig: Rig) -> None:
    rig.app(steering=False)
    cast = Cast(rig)
    one = await cast.instance("i-1", region="fra")
    lines = [
        "fly-force-instance-id: none",
        "fly-prefer-instance-id: i-2",
        "fly-force-region: , gru",
        "fly-prefer-region: \xe9",
    ]
    assert await seen(cast, *lines) == {"i-1"}
    assert await cast.ways(*(get("/", line) for line in lines)) == ["i-1"] * 4
    for request in one.requests:
        assert not [name for name in request.names if name.lower() in [*STEERING, UNAVAILABLE]]


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("protocol", [AppProtocol.AUTO, AppProtocol.HTTP])
async def test_no_app_sees_them(rig: Rig, name: str, spell: Callable[[str], str], protocol: AppProtocol) -> None:
    rig.app(protocol=protocol)
    cast = Cast(rig)
    one = await cast.instance("i-1", region="fra")
    value = "fra" if name.endswith("region") else "i-1"
    assert await cast.way(get("/", "X-One: 1", f"{spell(name)}: {value}", "X-Two: 2")) == "i-1"
    assert not [one for one in one.requests[0].names if one.lower() in STEERING]
    assert (one.requests[0].one("x-one"), one.requests[0].one("x-two")) == ("1", "2")


@pytest.mark.parametrize("name", [*STEERING, "fly-replay-cache-control"])
@pytest.mark.parametrize("steering", [True, False])
async def test_each_may_come_once_and_under_its_own_name(rig: Rig, name: str, steering: bool) -> None:
    """Whoever reads the other of two, or `_` for `-`, would be steered by it."""
    rig.app(steering=steering)
    cast = await three(rig)
    line = f"{name}: {'fra' if name.endswith('region') else 'i-1'}"
    assert await cast.way(get("/", line, line)) == "400 PB05"
    assert await cast.way(get("/", line, "X-One: 1", line.upper())) == "400 PB05"
    assert await cast.way(get("/", line.replace("-", "_"))) == "400 PB06"
    assert await cast.way(get("/", line, line.replace("fly-", "FLY_"))) == "400 PB06"
    assert await cast.way(get("/", line, f"Connection: close, {name}")) == "400 PB05"
    trailer = get("/", "Transfer-Encoding: chunked", method="POST") + f"0\r\n{line}\r\n\r\n".encode()
    assert await cast.way(trailer) == "400 PB04"


# --- sessions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["fly-prefer-instance-id: i-2"],
        ["fly-prefer-region: ams"],
        ["fly-force-region: ams"],
        ["fly-force-region: gru"],
        ["fly-force-instance-id: i-1"],
        ["fly-force-instance-id: i-1", "fly-force-region: ams", "fly-prefer-instance-id: i-2"],
    ],
)
async def test_a_session_is_not_moved(rig: Rig, lines: list[str]) -> None:
    cast = await three(rig)
    session = f"Mcp-Session-Id: {rig.seal('i-1').decode()}"
    assert await cast.way(post("tools/call", session, *lines)) == "i-1"
    assert await cast.way(get("/mcp", session, *lines)) == "i-1"


async def test_a_session_is_no_other_instances(rig: Rig) -> None:
    cast = await three(rig)
    session = f"Mcp-Session-Id: {rig.seal('i-1').decode()}"
    assert await cast.way(post("tools/call", session, "fly-force-instance-id: i-2")) == "421 PS05"
    rig.forget("i-1")
    assert await cast.way(post("tools/call", session, "fly-prefer-instance-id: i-2")) == "404 PS02"
    assert await cast.way(post("tools/call", session, "fly-force-region: ams")) == "404 PS02"
