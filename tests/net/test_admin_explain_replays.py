"""Explain, where replays lead a request elsewhere: what is remembered of them, and sessions that they made."""

from __future__ import annotations

import json
import random
import time
from typing import Any

from gateway.data.sessions import name_of
from tests.net.serving import Serving, ok, replays, serving

INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}


def outcomes(told: Any) -> dict[str, str]:
    return {step["rule"]: step["outcome"] for step in told["steps"]}


# --- replay caches ---------------------------------------------------------------------

APPS = {"tools": 'hosts = ["tools.localhost"]', "user": 'hosts = ["user.localhost"]'}
BY_SID = '[[apps.tools.replay_cache]]\ntype = "cookie"\nname = "sid"'
PATH = ("fly-replay-cache: /u/1", "fly-replay-cache-ttl-secs: 60")


def in_session(head: bytes) -> bytes:
    """Makes a session of what carries none."""
    made = b"" if b"mcp-session-id" in head.lower() else b"Mcp-Session-Id: own-id\r\n"
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n" % made


async def ask(on: Serving, path: str, *lines: str) -> dict[str, Any]:
    """The explanation of a GET."""
    question = {"host": "tools.localhost", "path": path, "headers": lines}
    response = await on.admin.post("/v1/explain", json=question)
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


async def send(on: Serving, path: str, **headers: str) -> None:
    assert (await on.public.get(path, headers={"host": "tools.localhost", **headers})).status_code == 200


async def test_a_remembered_replay_decides_behind_a_pin_and_before_a_cookie() -> None:
    async with serving(APPS, {"tools/i-1": replays("app=user;instance=u-1", *PATH), "user/u-1": ok}) as on:
        assert outcomes(await ask(on, "/u/1/a"))["replay-cache"] == "nothing is remembered for this request"
        before_s = time.time()  # noqa: TID251 - compared with what the API says
        await send(on, "/u/1/a")
        told = await ask(on, "/u/1/b")
        assert (told["action"], told["rule"]) == ("forward", "replay-cache")
        assert (told["app"], told["addressed"], told["instance"]) == ("user", "tools", "u-1")
        cached = told["cached"]
        assert before_s + 59.9 <= cached.pop("until_s") <= time.time() + 60  # noqa: TID251 - as above
        assert cached == {
            "by": "path", "app": "user", "instance": "u-1", "prefer_instance": "", "region": "", "allow_bypass": False,
        }  # fmt: skip
        assert list(outcomes(told).items())[:4] == [
            ("force", "no fly-force-instance-id"),
            ("sealed", "the request carries no session that pins it"),
            ("replay-cache", "decides"),
            ("cookie", "not reached"),
        ]
        (note,) = told["notes"]
        assert note.startswith("app tools is not asked: its replay to app user is remembered by path, for ")
        # Skipping is not allowed here.
        assert (await ask(on, "/u/1/b", "fly-replay-cache-control: skip"))["rule"] == "replay-cache"
        assert outcomes(await ask(on, "/u/2"))["replay-cache"] == "nothing is remembered for this request"
        assert (await ask(on, "/u/1", "fly-force-instance-id: i-1"))["rule"] == "force"


async def test_a_client_that_skips_the_cache_is_told_of() -> None:
    order = replays("app=user", *PATH, "fly-replay-cache-allow-bypass: yes")
    async with serving(APPS, {"tools/i-1": order, "user/u-1": ok}) as on:
        await send(on, "/u/1")
        told = await ask(on, "/u/1", "fly-replay-cache-control: skip")
        assert (told["app"], told["rule"], told["cached"]) == ("tools", "least-loaded", None)
        assert outcomes(told)["replay-cache"] == "the client skips the cache"


async def test_within_the_app_that_a_cache_leads_to_other_instances_say_why_not() -> None:
    order = replays('app=user;region="fra,any"', *PATH)
    async with serving(APPS, {"tools/i-1": order, "user/u-1": ok, "user/u-2": ok}) as on:
        await send(on, "/u/1")
        await on.admin.post("/v1/apps/user/machines/u-1/cordon")
        told = await ask(on, "/u/1")
        assert (told["rule"], told["instance"], told["cached"]["region"]) == ("replay-cache", "u-2", "fra,any")
        assert [(one["instance"], one["why"]) for one in told["others"]] == [
            ("u-1", "cordoned: it takes no new sessions")
        ]
        assert told["regions"] == [["fra"], ["any"]]


async def test_what_is_remembered_by_session_goes_by_its_cookie() -> None:
    settings = {**APPS, "tools": f"{APPS['tools']}\n{BY_SID}"}
    async with serving(settings, {"tools/i-1": replays("app=user"), "user/u-1": ok}) as on:
        assert outcomes(await ask(on, "/"))["replay-cache"] == "the request carries no `sid` cookie"
        canary = "Cookie: sid=canary"
        assert outcomes(await ask(on, "/", canary))["replay-cache"] == "nothing is remembered for this request"
        await send(on, "/", cookie="sid=canary")
        told = await ask(on, "/", canary)
        assert (told["rule"], told["app"], told["cached"]["by"]) == ("replay-cache", "user", "session")
        assert "canary" not in json.dumps(told)


async def test_a_remembered_replay_that_cannot_be_used_is_dropped_as_by_a_request() -> None:
    async with serving(APPS, {"tools/i-1": replays("app=user;instance=u-9", *PATH), "user/u-1": ok}) as on:
        there = on.running.gateway.catalog.instance("user", "u-1")
        assert there is not None
        await on.admin.post("/v1/apps/user/machines", json={"id": "u-9", "address": str(there.address)})
        await send(on, "/u/1")
        assert (await ask(on, "/u/1"))["instance"] == "u-9"
        await on.admin.delete("/v1/apps/user/machines/u-9")
        told = await ask(on, "/u/1")
        assert (told["app"], told["rule"], told["cached"]) == ("tools", "least-loaded", None)
        dropped = "what was remembered cannot be used: it is dropped, and the app is asked"
        assert outcomes(told)["replay-cache"] == dropped
        assert outcomes(await ask(on, "/u/1"))["replay-cache"] == "nothing is remembered for this request"


async def test_caches_that_rest_are_told_of() -> None:
    async with serving(APPS, {"tools/i-1": replays("app=user", *PATH), "user/u-1": ok}) as on:
        await send(on, "/u/1")
        on.running.gateway.replays.connected = lambda: False
        told = await ask(on, "/u/1")
        assert (told["app"], told["rule"]) == ("tools", "least-loaded")
        assert outcomes(told)["replay-cache"] == "the caches rest while the catalog's store is away"


async def test_explaining_a_remembered_replay_counts_and_changes_nothing() -> None:
    order = replays("app=user;instance=u-1", *PATH, "fly-replay-cache-allow-bypass: yes")
    async with serving(APPS, {"tools/i-1": order, "user/u-1": ok}) as on:
        await send(on, "/u/1")
        gateway = on.running.gateway
        before = json.dumps([*gateway.replays.counts.items(), *gateway.counters.replays.items()])
        asked = {name: len(heads) for name, heads in on.asked.items()}
        for line in ("x-a: b", "fly-replay-cache-control: skip", "fly-force-instance-id: i-1"):
            await ask(on, "/u/1", line)
        assert json.dumps([*gateway.replays.counts.items(), *gateway.counters.replays.items()]) == before
        assert {name: len(heads) for name, heads in on.asked.items()} == asked
        assert (len(gateway.replays), len(gateway.traces)) == (1, 1)


async def test_what_is_explained_is_who_is_asked_first(rng: random.Random) -> None:
    order = replays("app=user;instance=u-2", *PATH, "fly-replay-cache-allow-bypass: yes")
    settings = {**APPS, "tools": f"{APPS['tools']}\n{BY_SID}\nallow_bypass = true"}
    names = ("tools/i-1", "tools/i-2", "user/u-1", "user/u-2")
    async with serving(settings, {name: order if name == "tools/i-1" else ok for name in names}) as on:
        for _ in range(60):
            path = rng.choice(["/u/1", "/u/1/a", "/u/2"])
            headers = {
                "cookie": f"sid={rng.randrange(4)}",
                "fly-replay-cache-control": "skip",
                "fly-prefer-instance-id": rng.choice(["i-1", "i-2"]),
                "fly-force-region": rng.choice(["local", "fra"]),
            }
            headers = {name: value for name, value in headers.items() if rng.random() < 0.4}
            told = await ask(on, path, *(f"{name}: {value}" for name, value in headers.items()))
            for heads in on.asked.values():
                heads.clear()
            await on.public.get(path, headers={"host": "tools.localhost", **headers})
            first = [name for name, heads in on.asked.items() if heads and b"fly-replay-src" not in heads[0]]
            expected = [f"{told['app']}/{told['instance']}"] if told["action"] == "forward" else []
            assert first == expected, (path, headers, told)


# --- sessions that a replay made -------------------------------------------------------


async def initialize(on: Serving) -> str:
    headers = {"host": "tools.localhost"}
    answer = await on.public.post("/mcp", headers=headers, json=INITIALIZE)
    token: str = answer.headers["mcp-session-id"]
    return token


async def test_a_session_that_a_replay_made_elsewhere_goes_straight_there() -> None:
    answers = {"tools/i-1": replays("app=user"), "user/u-1": in_session, "user/u-2": in_session}
    async with serving(APPS, answers) as on:
        token = await initialize(on)
        lives = next(name.partition("/")[2] for name in ("user/u-1", "user/u-2") if on.asked[name])
        other = {"u-1": "u-2", "u-2": "u-1"}[lives]
        response = await on.admin.post("/v1/explain", json={"session": token})
        by_name = await on.admin.post("/v1/explain", json={"name": name_of(token.encode())})
        for told in (response.json(), by_name.json()):
            assert (told["app"], told["addressed"]) == ("user", "tools")
            assert (told["action"], told["rule"], told["instance"]) == ("forward", "sealed", lives)
            assert (told["pin"]["app"], told["pin"]["instance"], told["pin"]["via"]) == ("user", lives, False)
            assert [(one["instance"], one["why"]) for one in told["others"]] == [
                (other, f"the request is pinned to user/{lives}")
            ]
            assert told["notes"] == ["the session lives in app user: a replay of app tools made it there"]


async def test_a_session_that_needs_what_its_app_adds_is_told_to_ask_there_first() -> None:
    answers = {"tools/i-1": replays("app=user;state=canary"), "user/u-1": in_session}
    async with serving(APPS, answers) as on:
        token = await initialize(on)
        for question in ({"session": token}, {"name": name_of(token.encode())}):
            told = (await on.admin.post("/v1/explain", json=question)).json()
            assert (told["app"], told["rule"], told["instance"]) == ("tools", "least-loaded", "i-1")
            assert (told["pin"]["app"], told["pin"]["instance"], told["pin"]["via"]) == ("user", "u-1", True)
            assert outcomes(told)["sealed"] == "pinned to user/u-1 by way of its app, which is asked first"
            assert outcomes(told)["replay-cache"] == "not looked into for a request with a pin"
            assert told["notes"] == [
                "the session lives on user/u-1; app tools is asked first, and its replay leads there"
            ]
