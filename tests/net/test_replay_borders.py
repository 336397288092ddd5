"""Replays between apps: who may send where, and what does not cross from one org into another
(docs/reference/replay.md, "Between apps: borders")."""

from __future__ import annotations

import json

import pytest

from gateway.core.model import AppProtocol
from tests.net.replies import MISS, TO_APP, Cast, Reply, answer, get, post, replay, replay_json, two_orgs
from tests.net.rig import RawInstance, Rig
from tests.net.wire import Message

SECRET = ("Authorization: Bearer s3cret", "Cookie: sid=s3cret")
WITH_SECRETS = get("/a?b", *SECRET, "X-One: 1")


def carried(request: Message) -> set[str]:
    """Which credentials arrived."""
    return {name.lower() for name in request.names} & {"authorization", "cookie", "mcp-session-id"}


# --- who may -----------------------------------------------------------------------------


@pytest.mark.parametrize("org", ["default", "acme"])
async def test_apps_of_one_org_may_replay_to_each_other(rig: Rig, org: str) -> None:
    cast = Cast(rig)
    rig.app("tools", org=org, hosts=("tools.localhost",))
    rig.app("user", org=org, hosts=("user.localhost",))
    await cast.instance("i-1", "tools", TO_APP)
    await cast.instance("u-1", "user")
    assert await cast.way(WITH_SECRETS) == MISS


@pytest.mark.parametrize("source", ["org:one", "app:tools", "one", "tools"])
async def test_a_target_may_name_who_else_may(rig: Rig, source: str) -> None:
    cast, *_ = await two_orgs(rig, sources=("org:x", source, "app:y"))
    assert await cast.way(WITH_SECRETS) == MISS


@pytest.mark.parametrize(
    "sources",
    [
        (),
        ("two", "user", "org:two", "app:user"),
        ("org:tools", "app:one"),
        ("org:default", "default"),
        ("on", "ones", "tool", "tools-2", "org:on", "app:tool"),
    ],
)
async def test_nobody_else_may(rig: Rig, sources: tuple[str, ...]) -> None:
    cast, _, user = await two_orgs(rig, sources=sources)
    assert await cast.way(WITH_SECRETS) == "i-1, 502 PA05"
    assert user.untouched


async def test_an_entry_with_a_kind_is_for_that_kind_only(rig: Rig) -> None:
    """An app may have the name of an org."""
    cast, *_ = await two_orgs(rig, sources=("org:one",))
    rig.app("one", org="three", hosts=("one.localhost",))
    await cast.instance("o-1", "one", TO_APP)
    raw = get("/", host="one.localhost")
    assert await cast.way(raw) == "o-1, 502 PA05"
    rig.app("user", org="two", hosts=("user.localhost",), replay_sources=("app:one",))
    assert await cast.ways(raw, WITH_SECRETS) == ["o-1, u-1 miss", "i-1, 502 PA05"]
    rig.app("user", org="two", hosts=("user.localhost",), replay_sources=("one",))
    assert await cast.ways(raw, WITH_SECRETS) == ["o-1, u-1 miss", MISS]


async def test_it_is_the_target_that_allows(rig: Rig) -> None:
    """And for one direction."""
    cast, _, user = await two_orgs(rig, sources=())
    rig.app("tools", org="one", hosts=("tools.localhost",), replay_sources=("org:two", "app:user"))
    assert await cast.way(WITH_SECRETS) == "i-1, 502 PA05"
    assert user.untouched
    cast.says("u-1", replay("app=tools"))
    cast.says("i-1", answer())
    assert await cast.way(get("/", host="user.localhost")) == "u-1, i-1 miss"


async def test_each_hop_is_a_border_of_its_own(rig: Rig) -> None:
    """Not the addressed app, but the one that answers asks for a replay."""
    cast, *_ = await two_orgs(rig)
    rig.app("last", org="three", hosts=("last.localhost",), replay_sources=("org:one",))
    last = await cast.instance("l-1", "last")
    cast.says("u-1", replay("app=last"))
    assert await cast.way(WITH_SECRETS) == "i-1, u-1 miss, 502 PA05"
    assert last.untouched
    rig.app("last", org="three", hosts=("last.localhost",), replay_sources=("org:two",))
    assert await cast.way(WITH_SECRETS) == "i-1, u-1 miss, l-1 miss"


@pytest.mark.parametrize("reply", [replay("app=none"), replay("app=none;fallback=force_self"), replay_json(app="none")])
async def test_an_unknown_app_is_an_error(rig: Rig, reply: bytes) -> None:
    cast, *_ = await two_orgs(rig, reply)
    assert await cast.way(WITH_SECRETS) == "i-1, 502 PA04"


async def test_an_app_of_which_only_instances_are_known_is_unknown(rig: Rig) -> None:
    cast, _, user = await two_orgs(rig)
    rig.forget_app("user")
    assert await cast.way(WITH_SECRETS) == "i-1, 502 PA04"
    assert user.untouched


@pytest.mark.parametrize(("app", "code"), [("none", "PA04"), ("user", "PA05")])
async def test_a_closed_border_is_told_and_counted(rig: Rig, app: str, code: str) -> None:
    await two_orgs(rig, replay(f"app={app}", "X-Secret: s"), sources=())
    got = await rig.ask(WITH_SECRETS)
    assert (got.status, got.one("moorage-error"), got.one("content-type")) == (502, code, "application/json")
    error = json.loads(got.body)["error"]
    assert (error["code"], error["app"], error["request_id"]) == (code, "tools", got.one("fly-request-id"))
    assert app in error["message"]
    assert got.one("x-secret") is None
    assert not [name for name in got.names if name.lower().startswith("fly-replay")]
    counters = rig.gateway.counters
    assert counters.problems["tools", code] == 1
    assert (counters.replays["tools", "refused"], counters.replays["tools", "followed"]) == (1, 0)
    # A caller that speaks MCP is told in its own form.
    got = await rig.ask(post("tools/list"))
    error = json.loads(got.body)
    assert (got.status, error["id"], error["error"]["data"]["code"]) == (502, "r-1", code)


# --- what does not cross -------------------------------------------------------------------


async def test_credentials_do_not_cross_into_another_org(rig: Rig) -> None:
    cast, router, user = await two_orgs(rig)
    lines = ("AUTHORIZATION: Bearer s3cret", "cookie: a=s3cret", "Cookie: b=s3cret", "X-One: 1", "X-Cookie: 2")
    assert await cast.way(get("/a?b", *lines)) == MISS
    assert carried(router.requests[0]) == {"authorization", "cookie"}
    (request,) = user.requests
    assert carried(request) == set()
    assert not [line for line in request.lines if b"s3cret" in line]
    assert (request.first, request.one("x-one"), request.one("x-cookie")) == (b"GET /a?b HTTP/1.1", "1", "2")


async def test_credentials_stay_within_their_org(rig: Rig) -> None:
    cast, _, user = await two_orgs(rig)
    rig.app("user", org="one", hosts=("user.localhost",))
    await cast.way(WITH_SECRETS)
    assert user.requests[0].one("authorization") == "Bearer s3cret"
    assert user.requests[0].one("cookie") == "sid=s3cret"


@pytest.mark.parametrize("protocol", [AppProtocol.AUTO, AppProtocol.HTTP])
@pytest.mark.parametrize("abroad", [True, False])
async def test_a_session_id_does_not_cross_either(rig: Rig, protocol: AppProtocol, abroad: bool) -> None:
    """The session is the issuer's own. For an app that speaks no MCP it is a header like any other."""
    cast, _, user = await two_orgs(rig)
    rig.app("tools", org="one" if abroad else "two", hosts=("tools.localhost",), protocol=protocol)
    token = rig.seal("i-1").decode()
    assert await cast.way(post("tools/call", f"Mcp-Session-Id: {token}")) == MISS
    own = "own-id" if protocol is AppProtocol.AUTO else token
    assert user.requests[0].one("mcp-session-id") == (None if abroad else own)


async def chain(rig: Rig, last: Reply) -> tuple[Cast, list[RawInstance]]:
    """From i-1 of org one to u-1 of org two to b-1 of org one again, which answers by `last`."""
    cast, router, user = await two_orgs(rig)
    rig.app("back", org="one", hosts=("back.localhost",), replay_sources=("org:two",))
    cast.says("u-1", replay("app=back"))
    cast.says("i-1", lambda request: answer() if request.one("fly-replay-src") else TO_APP)
    return cast, [router, user, await cast.instance("b-1", "back", last)]


async def test_once_dropped_they_stay_dropped(rig: Rig) -> None:
    """Who sent the request there could have looked into it, and have asked for more than the client did."""
    cast, (_, user, back) = await chain(rig, answer())
    assert await cast.way(WITH_SECRETS) == "i-1, u-1 miss, b-1 miss"
    assert carried(user.requests[0]) == carried(back.requests[0]) == set()


async def test_the_addressed_app_gets_its_clients_own_request_back(rig: Rig) -> None:
    cast, (router, _, back) = await chain(rig, replay("app=tools"))
    assert await cast.way(WITH_SECRETS) == "i-1, u-1 miss, b-1 miss, i-1 miss"
    assert carried(back.requests[0]) == set()
    assert carried(router.requests[1]) == {"authorization", "cookie"}
    first, second = router.requests
    assert (first.first, first.one("x-one")) == (second.first, second.one("x-one"))


async def test_but_not_with_a_transform(rig: Rig) -> None:
    to_router = replay_json(app="tools", transform={"set_headers": [{"name": "X-Two", "value": "2"}]})
    cast, (router, _, _) = await chain(rig, to_router)
    assert await cast.way(WITH_SECRETS) == "i-1, u-1 miss, b-1 miss, i-1 miss"
    assert carried(router.requests[1]) == set()
    assert (router.requests[1].one("x-one"), router.requests[1].one("x-two")) == ("1", "2")


async def test_what_a_transform_sets_arrives(rig: Rig) -> None:
    own = [{"name": "Authorization", "value": "Bearer theirs"}, {"name": "cookie", "value": "sid=theirs"}]
    cast, _, user = await two_orgs(rig, replay_json(app="user", transform={"set_headers": own, "path": "/t"}))
    assert await cast.way(WITH_SECRETS) == MISS
    (request,) = user.requests
    assert request.all("authorization") == ["Bearer theirs"]
    assert request.all("cookie") == ["sid=theirs"]
    assert (request.first, request.one("x-one")) == (b"GET /t HTTP/1.1", "1")


@pytest.mark.parametrize(("org", "arrives"), [("two", True), ("three", False)])
async def test_what_a_transform_set_for_one_org_does_not_cross_into_the_next(rig: Rig, org: str, arrives: bool) -> None:
    """The rest of it adds up along the chain."""
    own = [{"name": "Authorization", "value": "Bearer for-two"}, {"name": "X-Two", "value": "2"}]
    cast, *_ = await two_orgs(rig, replay_json(app="user", transform={"set_headers": own, "path": "/t"}))
    rig.app("last", org=org, hosts=("last.localhost",), replay_sources=("org:two",))
    last = await cast.instance("l-1", "last")
    cast.says("u-1", replay("app=last"))
    assert await cast.way(WITH_SECRETS) == "i-1, u-1 miss, l-1 miss"
    (request,) = last.requests
    assert request.one("authorization") == ("Bearer for-two" if arrives else None)
    assert (request.first, request.one("x-two"), request.one("cookie")) == (b"GET /t HTTP/1.1", "2", None)


@pytest.mark.parametrize("fallback", ["force_self", "prefer_self"])
async def test_who_gets_its_request_back_gets_its_credentials_back(rig: Rig, fallback: str) -> None:
    cast, router, user = await two_orgs(rig)
    cast.says(
        "i-1", lambda told: answer() if told.one("fly-replay-failed") else replay(f"app=user;fallback={fallback}")
    )
    user.close()
    assert await cast.way(WITH_SECRETS) == "i-1, i-1"
    assert carried(router.requests[1]) == {"authorization", "cookie"}
