"""Traces: what happened to a request is told step by step, and no more of it than that; and what is counted of
replays."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway.core.head import RequestHead, parse_request
from tests.net.admin_bench import bench
from tests.net.serving import Serving, asleep, ok, replays, serving

TOOLS = {"tools": 'hosts = ["tools.localhost"]'}
PAIR = {**TOOLS, "user": 'hosts = ["user.localhost"]\nwake_timeout = "20s"'}
HOST = {"host": "tools.localhost"}
CACHED = ("fly-replay-cache: /u/1/*", "fly-replay-cache-ttl-secs: 60", "fly-replay-cache-allow-bypass: yes")


async def traced(on: Serving, path: str = "/u/1/a", **headers: str) -> Any:
    """The trace of a GET that asked for one."""
    made = await on.admin.post("/v1/traces")
    assert made.status_code == 201
    answer = await on.public.get(path, headers={**HOST, **headers, made.json()["header"]: made.json()["token"]})
    return await on.get(f"/v1/traces/{answer.headers['fly-request-id']}")


def steps(trace: Any) -> list[dict[str, Any]]:
    """The events without their times, which do not go back."""
    times = [event["at_ms"] for event in trace["events"]]
    assert times == sorted(times)
    return [{key: value for key, value in event.items() if key != "at_ms"} for event in trace["events"]]


def forward(instance: str, rule: str, **more: str) -> dict[str, str]:
    app, _, id = instance.partition("/")
    return {"step": "decide", "action": "forward", "app": app, "instance": id, "rule": rule, **more}


# --- asking for one --------------------------------------------------------------------


async def test_a_token_traces_one_request() -> None:
    async with serving(TOOLS, {"tools/i-1": ok}) as on:
        before_s = time.time()  # noqa: TID251 - compared with what the API says
        made = (await on.admin.post("/v1/traces")).json()
        assert made["header"] == "moorage-trace"
        headers = {**HOST, made["header"]: made["token"], "x-secret": "canary"}
        answer = await on.public.get("/a/b?query=canary", headers=headers)
        again = await on.public.get("/a/b", headers=headers)
        trace = await on.get(f"/v1/traces/{answer.headers['fly-request-id']}")
        assert set(trace) == {"request_id", "at_s", "method", "host", "path", "events"}
        assert trace["request_id"] == answer.headers["fly-request-id"]
        assert (trace["method"], trace["host"], trace["path"]) == ("GET", "tools.localhost", "/a/b")
        assert before_s - 0.001 <= trace["at_s"] <= time.time()  # noqa: TID251 - as above
        assert steps(trace) == [forward("tools/i-1", "least-loaded"), {"step": "answer", "status": 200}]
        assert "canary" not in json.dumps(trace)
        # Used up, and never shown to an app.
        assert (await on.admin.get(f"/v1/traces/{again.headers['fly-request-id']}")).status_code == 404
        assert (await on.get("/v1/traces"))["total"] == 1
        assert not [head for head in on.asked["tools/i-1"] if b"moorage-trace" in head.lower()]


async def test_a_made_up_token_traces_nothing() -> None:
    async with serving(TOOLS, {"tools/i-1": ok}) as on:
        await on.admin.post("/v1/traces")
        assert (await on.public.get("/", headers={**HOST, "moorage-trace": "0" * 32})).status_code == 200
        assert await on.get("/v1/traces") == {"traces": [], "total": 0, "next": None}


async def test_requests_that_mean_nothing_are_refused() -> None:
    async with bench() as on:
        for method, path, body in (
            ("GET", "/v1/traces?x=1", None),
            ("GET", "/v1/traces?limit=0", None),
            ("GET", "/v1/traces?limit=1001", None),
            ("GET", "/v1/traces/none?x=1", None),
            ("POST", "/v1/traces?x=1", None),
            ("POST", "/v1/traces", {"host": "a"}),
        ):
            response = await on.client.request(method, path, json=body)
            assert response.status_code == 422, (method, path)
            assert response.json()["error"]["faults"]
        missing = await on.client.get("/v1/traces/none")
        assert (missing.status_code, missing.headers["moorage-error"]) == (404, "AD03")
        assert missing.json()["error"]["message"].startswith("there is no trace of this request here")


async def test_traces_are_listed_in_pages_the_newest_first() -> None:
    async with bench() as on:
        for number in range(5):
            head = parse_request(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            assert isinstance(head, RequestHead)
            on.gateway.traces.replayed(b"r-%d" % number, head)
        first = await on.get("/v1/traces", limit=2)
        assert [one["path"] for one in first["traces"]] == ["/4", "/3"]
        assert (first["total"], first["next"]) == (5, 2)
        last = await on.get("/v1/traces", limit=2, offset=4)
        assert [one["request_id"] for one in last["traces"]] == ["r-0"]
        assert last["next"] is None


# --- what is told ----------------------------------------------------------------------


async def test_a_replay_is_told_hop_by_hop_without_its_secrets() -> None:
    order = replays("app=user;instance=u-1;state=canary")
    async with serving(PAIR, {"tools/i-1": order, "user/u-1": asleep()}) as on:
        trace = await traced(on)
        assert steps(trace) == [
            forward("tools/i-1", "least-loaded"),
            {
                "step": "replay",
                "app": "tools",
                "instance": "i-1",
                "asks": {"app": "user", "instance": "u-1", "state": "given"},
            },
            {**forward("user/u-1", "replay", cache="miss"), "action": "wake"},
            forward("user/u-1", "replay", cache="miss"),
            {"step": "answer", "status": 200},
        ]
        assert "canary" not in json.dumps(trace)


async def test_a_replayed_request_is_traced_without_being_asked_for() -> None:
    async with serving(PAIR, {"tools/i-1": replays("app=user"), "user/u-1": ok}) as on:
        await on.public.get("/", headers=HOST)
        (trace,) = (await on.get("/v1/traces"))["traces"]
        assert [event["step"] for event in trace["events"]] == ["decide", "replay", "decide", "answer"]


async def test_what_the_caches_had_to_do_with_it() -> None:
    async with serving(PAIR, {"tools/i-1": replays("app=user", *CACHED), "user/u-1": ok}) as on:
        made = steps(await traced(on))
        assert made[2] == forward("user/u-1", "least-loaded", cache="miss", remembers="path")
        hit = steps(await traced(on, "/u/1/b"))
        assert hit == [forward("user/u-1", "least-loaded", cache="hit"), {"step": "answer", "status": 200}]
        skipped = steps(await traced(on, **{"fly-replay-cache-control": "skip"}))
        assert skipped[0] == forward("tools/i-1", "least-loaded", cache="bypass")
        assert [step.get("cache") for step in skipped] == ["bypass", None, "bypass", None]


async def test_nothing_is_said_to_be_remembered_while_the_caches_rest() -> None:
    async with serving(PAIR, {"tools/i-1": replays("app=user", *CACHED), "user/u-1": ok}) as on:
        on.running.gateway.replays.connected = lambda: False
        assert steps(await traced(on))[2] == forward("user/u-1", "least-loaded", cache="miss")


async def test_a_replay_that_cannot_be_carried_out_says_why() -> None:
    async with serving(TOOLS, {"tools/i-1": replays("instance=i-2;wrong=1")}) as on:
        _, replay, *_, answer = steps(await traced(on))
        assert (replay["step"], replay["instance"], replay["code"]) == ("replay", "i-1", "PA03")
        assert replay["why"]
        assert answer == {"step": "answer", "status": 502}


async def test_what_was_not_reached_and_what_came_instead_are_told_once_each() -> None:
    order = replays("app=user;instance=u-1;fallback=prefer_self")

    def first_replays(head: bytes) -> bytes:
        return ok(head) if b"fly-replay-failed" in head.lower() else order(head)

    async with serving(PAIR, {"tools/i-1": first_replays, "user/u-1": asleep("--status", "3")}) as on:
        told = steps(await traced(on))
        wake, back, home = told[2:5]
        assert (wake["action"], wake["instance"]) == ("wake", "u-1")
        assert (back["step"], back["code"]) == ("fall back", "PM07")
        assert home == forward("tools/i-1", "replay")
        assert told[5:] == [{"step": "answer", "status": 200}]


async def test_attempts_to_connect_that_failed_are_told() -> None:
    async with serving(TOOLS, {"tools/i-1": ok, "tools/i-2": ok}) as on:
        # Registered, and nobody listens there.
        answer = await on.admin.post("/v1/apps/tools/machines", json={"id": "i-0", "address": "127.0.0.1:1"})
        assert answer.status_code == 201
        told = steps(await traced(on, **{"fly-prefer-instance-id": "i-0"}))
        assert told[0] == forward("tools/i-0", "prefer")
        assert (told[1]["step"], told[1]["instance"], told[1]["code"]) == ("connect", "i-0", "PC01")
        assert told[2]["rule"] == "least-loaded"
        assert told[3:] == [{"step": "answer", "status": 200}]


async def test_a_refusal_is_told_with_its_code() -> None:
    async with serving(TOOLS, {"tools/i-1": ok}) as on:
        (refused, answer) = steps(await traced(on, **{"fly-force-instance-id": "i-9"}))
        assert (refused["action"], refused["code"]) == ("refuse", "PR02")
        assert answer == {"step": "answer", "status": 502}


# --- metrics ---------------------------------------------------------------------------


async def metrics(on: Serving) -> dict[str, float]:
    text = (await on.admin.get("/metrics")).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_replays_and_their_caches_are_counted() -> None:
    answers = {"tools/i-1": replays("app=user", *CACHED), "user/u-1": ok}
    async with serving(PAIR, answers) as on:
        before = await metrics(on)
        assert before['moorage_replay_cache_entries{app="tools"}'] == 0
        assert before["moorage_traces"] == 0
        for path in ("/u/1/a", "/u/1/b", "/u/1/c", "/u/2"):
            assert (await on.public.get(path, headers=HOST)).status_code == 200
        await on.public.get("/u/1/a", headers={**HOST, "fly-replay-cache-control": "skip"})
        found = await metrics(on)
        assert found['moorage_replays_total{app="tools",outcome="followed"}'] == 3
        assert found['moorage_replay_cache_total{app="tools",outcome="made"}'] == 2
        assert found['moorage_replay_cache_total{app="tools",outcome="hit"}'] == 2
        assert found['moorage_replay_cache_total{app="tools",outcome="bypass"}'] == 1
        assert found['moorage_replay_cache_entries{app="tools"}'] == 1
        assert found['moorage_replay_cache_entries{app="user"}'] == 0
        assert found["moorage_traces"] == 3


@pytest.mark.parametrize(
    ("order", "outcome"), [("app=none", "refused"), ("app=user;instance=u-9;fallback=force_self", "fallback")]
)
async def test_replays_that_lead_nowhere_are_counted(order: str, outcome: str) -> None:
    async with serving(PAIR, {"tools/i-1": replays(order), "user/u-1": ok}) as on:
        await on.public.get("/", headers=HOST)
        assert (await metrics(on))[f'moorage_replays_total{{app="tools",outcome="{outcome}"}}'] == 1
