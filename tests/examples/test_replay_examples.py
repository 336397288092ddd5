"""The examples of routing by the app: who answers, out of which memory, and how often an app was asked."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.examples.serving import EXAMPLES, fresh, serving
from tests.rigs import node
from tests.rigs.gateway import Gateway
from tests.rigs.run import Bench, free_port, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

# --- sticky, node-sticky -----------------------------------------------------------------

USERS, ROUNDS = 60, 5


@dataclass(frozen=True, slots=True)
class Sticky:
    """One of the two examples, served."""

    gateway: Gateway
    instances: tuple[str, str, str]
    by_cookie: bool

    def of(self, user: str) -> dict[str, str]:
        """What a request of this user carries."""
        return {"cookie": f"sid={user}"} if self.by_cookie else {"x-user": user}

    async def ask(self, client: httpx2.AsyncClient, user: str, at: str = "") -> dict[str, Any]:
        """One request; `at`: the instance where it is to begin, whatever is remembered."""
        steering = {"fly-force-instance-id": at} if at else {}
        answer = await client.get("/", headers={**self.of(user), **steering})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def begin(self, client: httpx2.AsyncClient, user: str) -> list[dict[str, Any]]:
        """The answers to a new user's requests, up to the first that had to be replayed."""
        answers = [await self.ask(client, user, self.instances[0])]
        if answers[0]["came"] == "direct":
            answers.append(await self.ask(client, user, self.instances[1]))
        assert answers[-1]["came"] == "miss"
        return answers

    async def replays(self, client: httpx2.AsyncClient) -> int:
        """How many requests the instances have sent on, by their own count."""
        total = 0
        for instance in self.instances:
            answer = await client.get("/replays", headers={"fly-force-instance-id": instance})
            assert answer.json()["instance"] == instance
            total += answer.json()["replays"]
        return total


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sticky", "node-sticky"])
async def sticky(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sticky]:
    by_cookie = request.param == "sticky"
    letter = "s" if by_cookie else "n"
    async with serving(request.param, tmp_path_factory.mktemp(request.param)) as (_, gateway):
        yield Sticky(gateway, (f"{letter}-1", f"{letter}-2", f"{letter}-3"), by_cookie)


async def test_a_user_stays_and_only_the_first_replay_is_paid_for(sticky: Sticky) -> None:
    async with fresh(sticky.gateway.url) as client:
        before = await sticky.replays(client)

        async def lives(user: str) -> list[dict[str, Any]]:
            answers = await sticky.begin(client, user)
            return answers + [await sticky.ask(client, user) for _ in range(ROUNDS - len(answers))]

        async with asyncio.TaskGroup() as group:
            users = [group.create_task(lives(f"user-{number}")) for number in range(USERS)]
        heard = [user.result() for user in users]
        after = await sticky.replays(client)
    owners = Counter(answers[0]["instance"] for answers in heard)
    assert owners.keys() == set(sticky.instances)
    misrouted = [answers for answers in heard if {one["instance"] for one in answers} != {answers[0]["instance"]}]
    assert not misrouted
    assert all([one["count"] for one in answers] == list(range(1, ROUNDS + 1)) for answers in heard)
    ways = Counter(tuple(one["came"] for one in answers) for answers in heard)
    assert ways == {
        ("direct", "miss", *["hit"] * (ROUNDS - 2)): owners[sticky.instances[0]],
        ("miss", *["hit"] * (ROUNDS - 1)): USERS - owners[sticky.instances[0]],
    }
    assert after - before == USERS


async def test_after_a_kill_the_user_is_answered_by_a_new_process(sticky: Sticky) -> None:
    async with fresh(sticky.gateway.url) as client:
        await sticky.begin(client, "killed")
        known = await sticky.ask(client, "killed")
        assert known["came"] == "hit"
        os.kill(known["pid"], signal.SIGKILL)
        await until(lambda: not is_there(known["pid"]), "the process is gone")
        answers: list[httpx2.Response] = []

        async def answered() -> bool:
            answers.append(await client.get("/", headers=sticky.of("killed")))
            return answers[-1].status_code == 200

        await until(answered, "the user is answered")
        # A process that did not live 10 s is started again after a second; until then the client is told to wait.
        assert {answer.status_code for answer in answers[:-1]} <= {503}
        new = answers[-1].json()
        assert new["pid"] != known["pid"]
        assert (new["instance"], new["count"]) == (known["instance"], 1)
        again = await sticky.ask(client, "killed")
        assert (again["pid"], again["count"], again["came"]) == (new["pid"], 2, "hit")


@pytest.mark.parametrize("sticky", ["sticky"], indirect=True)
async def test_a_new_user_gets_a_cookie_that_belongs_where_it_was_made(sticky: Sticky) -> None:
    async with fresh(sticky.gateway.url) as client:
        for instance in sticky.instances:
            answer = await client.get("/", headers={"fly-force-instance-id": instance})
            client.cookies.clear()
            made = re.match(r"sid=([0-9a-f]{32}); HttpOnly", answer.headers["set-cookie"])
            assert made is not None
            again = await sticky.ask(client, made[1])
            assert (again["instance"], again["count"]) == (instance, 2)


@pytest.mark.parametrize("sticky", ["sticky"], indirect=True)
async def test_a_websocket_comes_to_its_users_instance(sticky: Sticky) -> None:
    url = sticky.gateway.url.replace("http", "ws", 1) + "/live"
    async with fresh(sticky.gateway.url) as client:
        for number in range(6):
            user = f"socket-{number}"
            known = await sticky.ask(client, user, sticky.instances[0])
            wrong = next(instance for instance in sticky.instances if instance != known["instance"])
            forced = {**sticky.of(user), "fly-force-instance-id": wrong}
            async with connect(url, additional_headers=forced, proxy=None) as socket:
                for count in (2, 3):
                    await socket.send("?")
                    assert json.loads(await socket.recv()) == {**known, "count": count, "came": "miss"}
            async with connect(url, additional_headers=sticky.of(user), proxy=None) as socket:
                await socket.send("?")
                assert json.loads(await socket.recv()) == {**known, "count": 4, "came": "hit"}


@pytest.mark.parametrize("example", ["sticky", "node-sticky"])
async def test_what_came_by_replay_is_not_sent_on_again(example: str, tmp_path: Path) -> None:
    """One process without a gateway, so that it can be told what only the gateway may say."""
    python = example == "sticky"
    port = free_port()
    environment = {"FLY_MACHINE_ID": "one", "INSTANCES": "one,other", "PORT": str(port)}
    command = [sys.executable, "app.py", "--port", str(port)] if python else [node.program("node"), "app.mjs"]
    async with Bench(tmp_path) as bench, fresh(f"http://127.0.0.1:{port}") as client:
        process = await bench.start(example, command, environment, EXAMPLES / example)
        await process.ready(port)

        async def ask(user: int, **headers: str) -> httpx2.Response:
            identity = {"cookie": f"sid={user}"} if python else {"x-user": str(user)}
            told = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.get("/", headers={**identity, **told})

        users = range(20)
        others = [user for user in users if (await ask(user)).status_code == 307]
        assert 0 < len(others) < len(users)
        for user in others:
            plain = await ask(user)
            assert (plain.status_code, plain.headers["fly-replay"], plain.content) == (307, "instance=other", b"")
            assert "fly-replay-cache" not in plain.headers
            circle = await ask(user, fly_replay_src="instance=other;region=local;t=1;state=")
            assert circle.status_code == 409
            assert "fly-replay" not in circle.headers
            stale = await ask(user, fly_replay_cache_status="hit")
            assert (stale.headers["fly-replay"], stale.headers["fly-replay-cache"]) == ("instance=other", "invalidate")
            skipped = await ask(user, fly_replay_cache_status="bypass")
            assert skipped.headers["fly-replay"] == "instance=other"


def is_there(pid: int) -> bool:
    """Whether a process is there: until its last thread has ended, its port may still accept."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- router ------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Bench, Gateway]]:
    async with serving("router", tmp_path_factory.mktemp("router")) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def client(router: tuple[Bench, Gateway]) -> AsyncIterator[httpx2.AsyncClient]:
    async with fresh(router[1].url) as own:
        own.headers["host"] = "users.localhost"
        yield own


def token(user: str) -> dict[str, str]:
    return {"authorization": f"Bearer {user}-token"}


def forged(user: str) -> dict[str, str]:
    """The router's word for a user, from a client that knows even the key."""
    return {"fly-replay-src": f"instance=r-1;region=local;t=1;state={user}-key", "x-tenant": user}


async def asked(client: httpx2.AsyncClient, user: str) -> int:
    """How many requests for a user the router has seen, by its own count."""
    counts: dict[str, int] = (await client.get("/asked")).json()
    return counts.get(user, 0)


async def test_a_cached_path_skips_the_router_for_every_client(client: httpx2.AsyncClient) -> None:
    before = await asked(client, "bob"), await asked(client, "strangers")
    answers = [(await client.get("/u/bob/count", headers=token("bob"))).json() for _ in range(5)]
    ways = [one["came"] for one in answers]
    assert ways[1:] == ["hit"] * 4
    assert {(one["tenant"], one["path"]) for one in answers} == {("bob", "/count")}
    first = answers[0]["count"]
    assert [one["count"] for one in answers] == list(range(first, first + 5))
    for headers in (token("ada"), {}, forged("bob")):
        stranger = await client.get("/u/bob/count", headers=headers)
        assert (stranger.status_code, stranger.text) == (401, "wrong or no token")
    assert (await client.get("/u/bob/count", headers=token("bob"))).json()["count"] == first + 5
    after = await asked(client, "bob"), await asked(client, "strangers")
    assert after == (before[0] + ways.count("miss"), before[1])


async def test_every_request_is_answered_by_its_users_own_app(client: httpx2.AsyncClient) -> None:
    async def ask(number: int, user: str) -> dict[str, Any]:
        way = "u" if number % 4 < 2 else "t"
        answer = await client.post(f"/{way}/{user}/count?n={number}", headers=token(user), content=b"x" * number)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    users = ["ada", "bob"] * 30
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(number, user)) for number, user in enumerate(users)]
    answers = [task.result() for task in tasks]
    assert [answer["tenant"] for answer in answers] == users
    for user in ("ada", "bob"):
        counts = sorted(answer["count"] for answer in answers if answer["tenant"] == user)
        assert counts == list(range(counts[0], counts[0] + 30)), "a request was counted twice or not at all"


async def test_the_json_form_is_asked_for_each_time_and_changes_the_request(client: httpx2.AsyncClient) -> None:
    before = await asked(client, "ada")
    for _ in range(3):
        answer = (await client.get("/t/ada/count", headers=token("ada"))).json()
        assert (answer["tenant"], answer["path"], answer["came"]) == ("ada", "/count", "miss")
    assert await asked(client, "ada") == before + 3
    assert (await client.get("/t/ada/count", headers=token("bob"))).status_code == 401
    assert (await client.get("/t/nobody/count", headers=token("nobody"))).status_code == 401


async def test_an_event_stream_comes_through(client: httpx2.AsyncClient) -> None:
    for path in ("/u/ada/events", "/t/ada/events"):
        async with client.stream("GET", path, headers=token("ada")) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert re.fullmatch(r"data: \d+ for ada", await anext(stream.aiter_lines()))


async def test_a_users_app_lets_in_nobody_who_asks_for_it_by_name(client: httpx2.AsyncClient) -> None:
    by_name = {"host": "user-ada.invalid"}
    stranger = await client.get("/count", headers={**by_name, **forged("ada")})
    assert stranger.status_code == 401
    own = await client.get("/count", headers={**by_name, **token("ada")})
    assert (own.status_code, own.json()["came"]) == (200, "direct")


async def test_another_orgs_app_is_not_reached(router: tuple[Bench, Gateway], client: httpx2.AsyncClient) -> None:
    for path in ("/u/eve/count", "/t/eve/count"):
        answer = await client.get(path, headers=token("eve"))
        assert (answer.status_code, answer.headers["moorage-error"]) == (502, "PA05")
    machines = await router[1].admin("/v1/apps/user-eve/machines")
    assert [machine["state"] for machine in machines] == ["created"], "it was woken"


@pytest.mark.parametrize("path", ["/u/cyd/mcp", "/t/cyd/mcp"])
async def test_mcp_sessions_stay_where_a_replay_made_them(
    router: tuple[Bench, Gateway], client: httpx2.AsyncClient, path: str
) -> None:
    bench, gateway = router
    before = await asked(client, "cyd")
    script = [sys.executable, str(bench.directory / "client.py"), gateway.url + path]
    process = await bench.start(path.replace("/", "-"), script)
    assert await process.wait() == 0, process.output() + gateway.process.output()
    said = re.findall(r"session (\d): (c-\d) keeps (.*)", process.output())
    kept = {number: [notes for of, _, notes in said if of == number] for number in "12"}
    for number in "12":
        bread, salt, tea = (f"{what} for {number}" for what in ("bread", "salt", "tea"))
        assert kept[number] == [bread, f"{bread}, {salt}", f"{bread}, {salt}, {tea}"]
    places = {(number, instance) for number, instance, _ in said}
    assert len(places) == 2, f"a session moved: {sorted(places)}"
    assert len({instance for _, instance in places}) == 2, "the sessions did not spread"
    now = await asked(client, "cyd")
    if path.startswith("/u/"):
        assert now <= before + 1, "the router is asked for the first initialize alone"
    else:
        assert now >= before + 2 * 4, "the router is asked for every message"
