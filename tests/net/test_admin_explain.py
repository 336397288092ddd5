"""Explain: the decision of the routing code itself, told with its rule, its outcome and what was passed over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.ask import stored_key
from gateway.core.model import (
    App,
    Concurrency,
    KeyRule,
    KeySource,
    Pin,
    SessionIds,
)
from gateway.core.principal import principal
from gateway.core.seal import Stream
from gateway.data.sessions import name_of
from tests.net.admin_bench import Bench, bench

HOST = {"host": "tools.localhost", "path": "/mcp"}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
BEARER = "Bearer alice-token"


def tools(**settings: Any) -> App:
    return App("tools", **{"hosts": ("tools.localhost",), **settings})


async def machines(on: Bench, *ids: str, **changes: Any) -> None:
    """Machines that are there already, as another writer's records."""
    for number, id in enumerate(ids, 1):
        body = {"app": "tools", "id": id, "address": f"10.0.0.{number}:80", "incarnation": "k3j9", **changes}
        on.logs.agent.put("instance", f"tools/{id}", body)


async def explain(on: Bench, **question: Any) -> Any:
    response = await on.client.post("/v1/explain", json=question)
    assert response.status_code == 200, response.text
    return response.json()


def sealed(on: Bench, instance: str = "i-2", incarnation: str = "k3j9", authorization: str | None = None) -> str:
    who = principal(authorization.encode()) if authorization is not None else None
    return on.gateway.sealer.seal_session("tools", Pin(instance, incarnation), b"upstream-id", who).decode()


def outcomes(told: Any) -> dict[str, str]:
    return {step["rule"]: step["outcome"] for step in told["steps"]}


async def test_a_sealed_session_goes_to_its_instance_and_the_others_are_told_why_not() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", "i-2", "i-3")
        token = sealed(on)
        told = await explain(on, **HOST, session=token)
        assert told["request"] == {"method": "GET", "host": "tools.localhost", "path": "/mcp"}
        assert (told["app"], told["kind"], told["dialect"]) == ("tools", "in-session", "session-2025")
        assert (told["action"], told["rule"], told["instance"]) == ("forward", "sealed", "i-2")
        assert told["pin"] == {"app": "tools", "instance": "i-2", "instance_id": "k3j9", "via": False}
        assert (told["addressed"], told["cached"], told["regions"]) == ("tools", None, [])
        assert outcomes(told)["force"] == "no fly-force-instance-id"
        assert outcomes(told)["sealed"] == "decides"
        assert outcomes(told)["least-loaded"] == "not reached"
        assert [(one["instance"], one["why"]) for one in told["others"]] == [
            ("i-1", "the request is pinned to i-2"),
            ("i-3", "the request is pinned to i-2"),
        ]
        assert told["session"] == name_of(token.encode())
        assert token not in json.dumps(told)
        assert "upstream-id" not in json.dumps(told)


async def test_get_and_post_say_the_same() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", "i-2")
        token = sealed(on)
        by_post = await explain(on, **HOST, session=token, headers=["X-A: 1"], method="POST")
        by_get = await on.get("/v1/explain", **HOST, session=token, header=["X-A: 1", "X-B: 2"], method="POST")
        assert by_get == by_post


async def test_a_session_alone_is_enough() -> None:
    async with bench(tools(), App("other")) as on:
        await machines(on, "i-2")
        told = await explain(on, session=sealed(on))
        assert (told["app"], told["action"], told["instance"]) == ("tools", "forward", "i-2")


async def test_a_bound_session_opens_with_its_callers_credentials_alone() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-2")
        token = sealed(on, authorization=BEARER)
        told = await explain(on, session=token)
        assert (told["action"], told["code"], told["status"]) == ("refuse", "PS01", 404)
        assert any("Authorization" in note for note in told["notes"])
        told = await explain(on, session=token, headers={"Authorization": BEARER})
        assert (told["action"], told["instance"]) == ("forward", "i-2")
        other = await explain(on, session=token, headers={"Authorization": "Bearer mallory"}, app="tools")
        assert other["code"] == "PS01"
        assert "alice" not in json.dumps([told, other])


async def test_a_listed_session_is_explained_by_its_name() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", "i-2")
        token = sealed(on, authorization=BEARER).encode()
        session = on.gateway.sessions.touch(token, "tools", Pin("i-2", "k3j9"), on.gateway.now_s)
        told = await explain(on, name=session.name)
        assert (told["action"], told["rule"], told["instance"]) == ("forward", "sealed", "i-2")
        assert told["session"] == session.name
        assert told["listed"] is True
        missing = await on.client.get("/v1/explain", params={"name": "0" * 16})
        assert missing.status_code == 404


async def test_a_session_of_another_incarnation_or_of_no_instance_is_lost() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", "i-2")
        for token in (sealed(on, incarnation="old"), sealed(on, instance="i-9")):
            told = await explain(on, **HOST, session=token)
            assert (told["action"], told["rule"], told["code"], told["status"]) == ("refuse", "sealed", "PS02", 404)
            assert told["remedy"]


async def test_an_ended_session_stays_ended() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-2")
        token = sealed(on)
        on.gateway.sessions.end(token.encode())
        told = await explain(on, **HOST, session=token)
        assert (told["action"], told["code"]) == ("refuse", "PS03")


@pytest.mark.parametrize("session", ["made-up", "AAAA.x", "x" * 5000])
async def test_made_up_ids_are_refused_as_their_senders_are(session: str) -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1")
        told = await explain(on, session=session)
        assert (told["action"], told["code"]) == ("refuse", "PS01")
        assert session not in json.dumps(told)


async def test_sleeping_instances_are_woken_unless_an_operator_stopped_them() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", state="suspended", startable=True, address=None)
        told = await explain(on, **HOST, session=sealed(on, "i-1"))
        assert (told["action"], told["instance"]) == ("wake", "i-1")
        assert "60 s" in told["why"]
        assert not on.admin.waker.waking()
        await machines(on, "i-1", state="suspended", startable=True, address=None, held_down=True)
        told = await explain(on, **HOST, session=sealed(on, "i-1"))
        assert (told["action"], told["code"]) == ("refuse", "PM08")
        assert "operator" in told["why"]


async def test_least_loaded_tells_of_every_reason() -> None:
    async with bench(tools(concurrency=Concurrency(soft=3, hard=5))) as on:
        await machines(on, "i-1", "i-2", "i-3", "i-4", "i-5", "i-6", "i-7")
        loads = on.gateway.loads
        loads.of("tools", "i-2").requests = 2
        loads.of("tools", "i-3").requests = 5
        loads.of("tools", "i-4").requests = 4
        loads.failed("tools", "i-7")
        on.logs.agent.put(
            "instance", "tools/i-5", {"app": "tools", "id": "i-5", "address": "10.0.0.5:80", "cordoned": True}
        )
        on.logs.agent.put(
            "instance", "tools/i-6", {"app": "tools", "id": "i-6", "address": "10.0.0.6:80", "healthy": False}
        )
        told = await explain(on, **HOST, body=INITIALIZE)
        assert (told["kind"], told["action"], told["rule"], told["instance"]) == (
            "initialize",
            "forward",
            "least-loaded",
            "i-1",
        )
        assert {one["instance"]: one["why"] for one in told["others"]} == {
            "i-2": "carries 2, the chosen one 0",
            "i-3": "at its hard limit: 5 of 5",
            "i-4": "at its soft limit: 4 of 3",
            "i-5": "cordoned: it takes no new sessions",
            "i-6": "its checks fail",
            "i-7": "connections to it failed a moment ago",
        }
        assert told["others_total"] == 6


async def test_full_instances_make_a_request_wait() -> None:
    async with bench(tools(concurrency=Concurrency(soft=1, hard=1))) as on:
        await machines(on, "i-1")
        on.gateway.loads.of("tools", "i-1").requests = 1
        told = await explain(on, **HOST)
        assert (told["action"], told["rule"], told["instance"]) == ("wait", "least-loaded", "")
        told = await explain(on, **HOST, session=sealed(on, "i-1"))
        assert (told["action"], told["rule"], told["instance"]) == ("wait", "sealed", "i-1")


async def test_nothing_that_can_serve_is_a_refusal() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", state="stopped", address=None)
        told = await explain(on, **HOST)
        assert (told["action"], told["rule"], told["code"]) == ("refuse", "least-loaded", "PR01")
        assert told["others"][0]["why"] == "stopped, and nothing here can start it"


async def test_steering_headers_decide_or_are_ignored() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", "i-2")
        told = await explain(on, **HOST, headers=["fly-force-instance-id: i-2"])
        assert (told["rule"], told["instance"]) == ("force", "i-2")
        assert told["others"][0]["why"] == "fly-force-instance-id names i-2"
        told = await explain(on, **HOST, headers=["Fly-Prefer-Instance-Id: i-2"])
        assert (told["rule"], told["instance"]) == ("prefer", "i-2")
        told = await explain(on, **HOST, headers=["fly-prefer-instance-id: i-9"])
        assert told["rule"] == "least-loaded"
        assert outcomes(told)["prefer"] == "names i-9, which is no instance of this app"
    async with bench(tools(steering=False)) as on:
        await machines(on, "i-1", "i-2")
        told = await explain(on, **HOST, headers=["fly-force-instance-id: i-2"])
        assert told["rule"] == "least-loaded"
        assert outcomes(told)["force"] == "steering is off for this app"


async def test_the_affinity_cookie_decides_or_says_why_it_does_not() -> None:
    async with bench(tools(affinity_cookie="sid")) as on:
        await machines(on, "i-1", "i-2")
        value = on.gateway.sealer.seal_cookie("tools", Pin("i-2", "k3j9")).decode()
        told = await explain(on, **HOST, headers=[f"Cookie: a=b; sid={value}"])
        assert (told["rule"], told["instance"]) == ("cookie", "i-2")
        told = await explain(on, **HOST, headers=["Cookie: sid=forged"])
        assert outcomes(told)["cookie"].startswith("the affinity cookie does not hold")


async def test_a_key_is_hashed_to_the_same_instance_as_in_routing() -> None:
    async with bench(tools(key=(KeyRule(KeySource.HEADER, "x-session"),))) as on:
        await machines(on, "i-1", "i-2", "i-3")
        chosen = {(await explain(on, **HOST, headers=[f"X-Session: s-{n}"]))["instance"] for n in range(20)}
        assert chosen == {"i-1", "i-2", "i-3"}
        first = await explain(on, **HOST, headers=["X-Session: s-1"])
        assert first["rule"] == "hash"
        assert {one["why"] for one in first["others"]} == {"later in this key's order"}
        told = await explain(on, **HOST)
        assert outcomes(told)["hash"] == "none of the app's keys came"


async def test_stored_ids_are_looked_up() -> None:
    async with bench(tools(session_ids=SessionIds.STORED)) as on:
        await machines(on, "i-1", "i-2")
        table = on.gateway.catalog.app("tools")
        assert table is not None
        key = stored_key(table.app, b"plain-id", None)
        await on.pins.put("tools", "in-session", key, Pin("i-2", "k3j9"), 60.0)
        told = await explain(on, **HOST, session="plain-id")
        assert (told["action"], told["rule"], told["instance"]) == ("forward", "stored", "i-2")
        assert outcomes(told)["stored"] == "decides"
        assert (await explain(on, **HOST, session="other-id"))["code"] == "PS01"
        on.pins.away = True
        assert (await explain(on, **HOST, session="plain-id"))["code"] == "PG04"


async def test_a_legacy_post_follows_its_stream() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", "i-2")
        pin = on.gateway.sealer.seal_stream("tools", Pin("i-2", "k3j9"), Stream("another-gateway", 1), None).decode()
        told = await explain(on, host="tools.localhost", path=f"/messages?moorage_pin={pin}", method="POST")
        assert (told["kind"], told["rule"], told["instance"]) == ("legacy-post", "sealed", "i-2")
        assert pin not in json.dumps(told)
        gone = on.gateway.sealer.seal_stream("tools", Pin("i-2", "k3j9"), Stream(on.gateway.boot, 1), None).decode()
        told = await explain(on, host="tools.localhost", path=f"/messages?moorage_pin={gone}", method="POST")
        assert told["code"] == "PS04"


async def test_a_post_without_its_body_asks_for_it() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1")
        told = await explain(on, **HOST, method="POST", headers=["content-type: application/json"])
        assert (told["action"], told["kind"]) == ("read-body", "needs-body")
        told = await explain(on, **HOST, body=json.dumps(INITIALIZE))
        assert told["kind"] == "initialize"


async def test_a_host_that_nobody_serves_and_a_request_that_is_none() -> None:
    async with bench(tools()) as on:
        told = await explain(on, host="nobody.example", path="/")
        assert (told["app"], told["action"], told["code"]) == ("", "refuse", "PB13")
        told = await explain(on, **HOST, headers=["Authorization: a", "Authorization: b"])
        assert (told["action"], told["code"], told["status"]) == ("refuse", "PB05", 400)
        assert told["request"] is None


async def test_an_app_is_asked_for_by_its_name() -> None:
    async with bench(tools(hosts=("*.tools.example",), path="/base")) as on:
        await machines(on, "i-1")
        told = await explain(on, app="tools")
        assert told["request"] == {"method": "GET", "host": "any.tools.example", "path": "/base"}
        assert told["instance"] == "i-1"


@pytest.mark.parametrize(
    ("question", "keys"),
    [
        ({}, ["host"]),
        ({"hosst": "a"}, ["hosst"]),
        ({"host": "a\r\nx: y", "path": "no-slash", "method": "G ET"}, ["host", "method", "path"]),
        ({"host": "a", "path": "/a b"}, ["path"]),
        ({"host": "a", "headers": ["a: b\r\nfly-force-instance-id: i-2"]}, ["headers[0]"]),
        ({"host": "a", "headers": ["no colon"]}, ["headers[0]"]),
        ({"host": "a", "headers": "x: y"}, ["headers"]),
        ({"host": "a", "headers": ["a: b"] * 101}, ["headers"]),
        ({"host": "a", "headers": {"n\u00e4me": "x"}}, ["headers[0]"]),
        ({"host": "a", "session": "two words"}, ["session"]),
        ({"session": "a", "name": "0" * 16}, ["name"]),
        ({"host": "a", "client": "me"}, ["client"]),
        ({"host": "a", "client": 1}, ["client"]),
        ({"host": "a", "body": "\ud800"}, ["body"]),
        ({"host": 1}, ["host"]),
    ],
)
async def test_questions_that_make_no_sense_name_their_faults(question: Any, keys: list[str]) -> None:
    async with bench(tools()) as on:
        response = await on.client.post("/v1/explain", content=json.dumps(question))
        assert response.status_code == 422
        assert sorted(fault["key"] for fault in response.json()["error"]["faults"]) == keys


async def test_explaining_leaves_no_trace() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1", "i-2")
        before = vars(on.gateway.counters).copy()
        await explain(on, **HOST, session=sealed(on))
        await explain(on, **HOST, body=INITIALIZE)
        assert vars(on.gateway.counters) == before
        assert len(on.gateway.sessions) == 0
        assert not on.gateway.loads.items()


# --- regions ---------------------------------------------------------------------------


async def test_regions_that_are_asked_for_are_told_and_what_they_leave_out() -> None:
    async with bench(tools()) as on:
        for number, region in enumerate(("local", "iad", "fra"), 1):
            body = {"app": "tools", "id": f"i-{number}", "address": f"10.0.0.{number}:80", "region": region}
            on.logs.agent.put("instance", f"tools/i-{number}", body)
        told = await explain(on, **HOST, headers=["fly-force-region: fra,iad"])
        assert (told["rule"], told["instance"], told["regions"]) == ("least-loaded", "i-3", [["fra"], ["iad"]])
        assert told["notes"] == ["regions, in order: fra; iad"]
        assert [one["why"] for one in told["others"]] == [
            "in region local, which the request rules out",
            "in region iad; the request asks for fra first",
        ]
        told = await explain(on, **HOST, headers=["fly-prefer-region: syd,iad"])
        assert (told["instance"], told["regions"]) == ("i-2", [["syd"], ["iad"], ["any"]])
        told = await explain(on, **HOST, headers=["fly-force-region: eu", "fly-prefer-instance-id: i-2"])
        assert told["instance"] == "i-3"
        assert outcomes(told)["prefer"] == "names i-2, which is in region iad, which the request rules out"
        told = await explain(on, **HOST, headers=["fly-force-region: syd"])
        assert (told["action"], told["code"]) == ("refuse", "PR01")
        assert {one["why"].partition(", ")[2] for one in told["others"]} == {"which the request rules out"}
        told = await explain(on, **HOST, headers=["fly-force-region: fra,,"])
        assert (told["action"], told["code"]) == ("refuse", "PB01")


async def test_a_session_in_an_app_that_is_gone_is_lost() -> None:
    async with bench(tools()) as on:
        await machines(on, "i-1")
        token = on.gateway.sealer.seal_session("tools", Pin("i-1", "k3j9", "user"), b"upstream-id", None).decode()
        told = await explain(on, **HOST, session=token)
        assert (told["action"], told["rule"], told["code"], told["app"]) == ("refuse", "sealed", "PS02", "tools")
        # An instance of the same name in another app is not the session's.
        assert told["others"][0]["why"] == "the request is pinned to user/i-1"
