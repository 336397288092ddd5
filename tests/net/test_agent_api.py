"""The agent's API over real connections: who may ask, what is refused, and that a RemoteAgent gives back exactly what
the agent said, or `agent-away`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import httpx2
import pytest

from gateway.agent import gate
from gateway.agent.base import (
    Cordoned,
    Failure,
    FailureKind,
    Listed,
    NotReached,
    Prepared,
    Reached,
    Refused,
    Rest,
    Started,
    StartFailed,
    Stopped,
)
from gateway.agent.outcomes import encode
from gateway.agent.remote import MAX_ANSWER_BYTES, RemoteAgent, is_dialled
from gateway.agent.tokens import Tokens
from gateway.core.bodies import instance_body
from gateway.core.model import App, State
from tests.loops import both_loops
from tests.net.fleet_bench import INSTANCE, TOKENS, ScriptedAgent, json_answer, lying, serving
from tests.net.yard import LIMIT_S, agent_of, lines, toy, until

MACHINE = "/v1/apps/tools/machines/i-1"
EXITED = Failure(FailureKind.EXITED, "tools/i-1 exited", "status 3\nlast words")


def client(url: str, token: str | None = None) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {TOKENS.of(url) if token is None else token}"}
    return httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False)


# --- who may ask -----------------------------------------------------------------------


NO_TOKENS = [
    [],
    [""],
    ["Bearer"],
    ["Bearer x"],
    ["Basic TOKEN"],
    ["TOKEN"],
    ["Bearer TOKENx"],
    ["Bearer OTHER"],
    ["Bearer TOKEN", "Bearer TOKEN"],
    ["Bearer \xff\xfe"],
]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"{MACHINE}/start"), ("GET", "/v1/machines"), ("GET", "/nowhere"), ("DELETE", f"{MACHINE}/sleep/0a1b")],
)
async def test_without_its_token_nothing_is_said_and_nothing_asked(method: str, path: str) -> None:
    agent = ScriptedAgent()
    async with serving(agent) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as asking:
        token, other = TOKENS.of(url), TOKENS.of("http://10.0.0.5:8082")
        for values in NO_TOKENS:
            said = [value.replace("TOKEN", token).replace("OTHER", other).encode("latin-1") for value in values]
            response = await asking.request(method, path, headers=[(b"authorization", value) for value in said])
            assert (response.status_code, response.content) == (401, b""), values
            assert response.headers["www-authenticate"] == "Bearer"
    assert agent.asked == []


async def test_any_of_the_secrets_will_do() -> None:
    old, new = b"the old secret, 16 bytes or more", b"the new secret, 16 bytes or more"
    async with serving(ScriptedAgent(), Tokens([new, old])) as url:
        for secret, status in ((old, 200), (new, 200), (b"another secret of 16", 401)):
            async with client(url, Tokens([secret]).of(url)) as asking:
                assert (await asking.get("/v1/machines")).status_code == status


async def test_that_it_lives_is_said_to_everybody() -> None:
    async with serving(ScriptedAgent()) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as asking:
        response = await asking.get("/healthz")
        assert (response.status_code, response.json()) == (200, {"ok": True})


async def test_only_so_many_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_AT_ONCE", 1)
    agent = ScriptedAgent()
    agent.gate.clear()
    async with serving(agent) as url, client(url) as asking, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(asking.post(f"{MACHINE}/start"))
        await agent.begun.wait()
        assert (await asking.get("/v1/machines")).status_code == 503
        agent.gate.set()
        assert (await first).status_code == 200
        assert (await asking.get("/v1/machines")).status_code == 200


# --- strictness ------------------------------------------------------------------------


MEANINGLESS: list[tuple[str, str, bytes, int, str | None]] = [
    ("POST", f"{MACHINE}/start?now=1", b"", 422, "now"),
    ("POST", f"{MACHINE}/start", b'{"relase": true}', 422, "relase"),
    ("POST", f"{MACHINE}/start", b'{"release": 1}', 422, "release"),
    ("POST", f"{MACHINE}/start", b"[]", 422, ""),
    ("POST", f"{MACHINE}/start", b"{", 400, None),
    ("POST", f"{MACHINE}/stop", b'{"hold": null}', 422, "hold"),
    ("POST", f"{MACHINE}/suspend", b'{"hold": true, "hold": true}', 400, None),
    ("POST", f"{MACHINE}/stop", b'{"hold": "' + b"x" * 70_000 + b'"}', 413, None),
    ("POST", f"{MACHINE}/cordon", b'{"hold": true}', 422, ""),
    ("GET", f"{MACHINE}/wait?state=up", b"", 422, "state"),
    ("GET", f"{MACHINE}/wait?timeout=61", b"", 422, "timeout"),
    ("GET", f"{MACHINE}/wait?timeout=nan", b"", 422, "timeout"),
    ("POST", f"{MACHINE}/sleep", b"", 400, None),
    ("POST", f"{MACHINE}/sleep", b'{"instance_id": "a"}', 422, "rest"),
    ("POST", f"{MACHINE}/sleep", b'{"instance_id": 1, "rest": "stop"}', 422, "instance_id"),
    ("POST", f"{MACHINE}/sleep", b'{"instance_id": "a", "rest": ["stop"]}', 422, "rest"),
    ("GET", "/v1/machines?limit=0", b"", 422, "limit"),
    ("GET", "/v1/machines?page=2", b"", 422, "page"),
    ("GET", f"{MACHINE}/start", b"", 405, None),
    ("GET", MACHINE, b"", 404, None),
    ("GET", "/v1/machines/", b"", 404, None),
]


async def test_what_means_nothing_is_refused() -> None:
    agent = ScriptedAgent()
    async with serving(agent) as url, client(url) as asking:
        for method, path, body, status, key in MEANINGLESS:
            response = await asking.request(method, path, content=body)
            assert response.status_code == status, (path, body)
            error = response.json()["error"]
            assert error["remedy"]
            if key is not None:
                assert [fault["key"] for fault in error["faults"]] == [key]
    assert agent.asked == []


async def test_the_status_says_roughly_what_happened() -> None:
    agent = ScriptedAgent()
    async with serving(agent) as url, client(url) as asking:
        for kind, status in {
            FailureKind.UNKNOWN_INSTANCE: 404,
            FailureKind.HELD_DOWN: 409,
            FailureKind.NOT_STARTABLE: 409,
            FailureKind.NOT_PREPARED: 409,
            FailureKind.NOT_SUSPENDABLE: 409,
            FailureKind.EXITED: 503,
            FailureKind.AGENT_CLOSING: 503,
        }.items():
            agent.starts = StartFailed(Failure(kind, "no"), 1.2)
            agent.stops = Refused(Failure(kind, "no"))
            started = await asking.post(f"{MACHINE}/start")
            assert (started.status_code, started.headers["retry-after"]) == (status, "2")
            assert (await asking.post(f"{MACHINE}/stop")).status_code == status


async def test_the_answer_contains_the_instance_as_its_record_has_it() -> None:
    async with serving(ScriptedAgent()) as url, client(url) as asking:
        started = await asking.post(f"{MACHINE}/start")
        assert started.json() == {"outcome": "started", "instance": json.loads(json.dumps(instance_body(INSTANCE)))}
        prepared = await asking.post(f"{MACHINE}/sleep", json={"instance_id": "0mbench1", "rest": "stop"})
        assert (prepared.status_code, prepared.json()["token"]) == (202, "0a1b")
        late = await asking.get(f"{MACHINE}/wait", params={"state": "stopped", "timeout": "0.01"})
        assert (late.status_code, late.json()["instance"]["state"]) == (408, "started")


async def test_lists_come_in_pages() -> None:
    agent = ScriptedAgent()
    agent.owned = [
        Listed(dataclasses.replace(INSTANCE, app=app, id=id)) for app in ("alpha", "tools") for id in ("i-1", "i-2")
    ]
    async with serving(agent) as url, client(url) as asking:

        async def ids(path: str) -> list[str]:
            return [f"{one['instance']['app']}/{one['instance']['id']}" for one in (await asking.get(path)).json()]

        assert await ids("/v1/machines") == ["alpha/i-1", "alpha/i-2", "tools/i-1", "tools/i-2"]
        assert await ids("/v1/machines?limit=2&after=alpha/i-1") == ["alpha/i-2", "tools/i-1"]
        assert await ids("/v1/apps/tools/machines?after=i-1") == ["tools/i-2"]
        assert await ids("/v1/apps/none/machines") == []


async def test_a_fault_of_the_agent_is_an_answer_too(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(ScriptedAgent):
        async def cordon(self, app: str, id: str, cordoned: bool) -> Any:
            raise RuntimeError("a bug")

    async with serving(Broken()) as url, client(url) as asking:
        response = await asking.post(f"{MACHINE}/cordon")
        assert response.status_code == 500
        assert "a bug" not in response.text
        assert (await asking.post(f"{MACHINE}/start")).status_code == 200
        remote = RemoteAgent(url, TOKENS)
        outcome = await remote.cordon("tools", "i-1", True)
        await remote.aclose()
    assert isinstance(outcome, Refused)
    assert outcome.failure.kind is FailureKind.AGENT_AWAY
    assert TOKENS.of(url) not in "".join(capfd.readouterr())


# --- RemoteAgent -----------------------------------------------------------------------


@both_loops
async def test_everything_is_asked_and_answered_as_if_it_were_here() -> None:
    agent = ScriptedAgent()
    async with serving(agent) as url:
        remote = RemoteAgent(url, TOKENS)
        failed = StartFailed(EXITED, 3.25)
        assert await remote.start("tools", "i-1") == Started(INSTANCE)
        agent.starts = failed
        assert await remote.start("tools", "i-1", release=True) == failed
        assert await remote.stop("tools", "i-1") == Stopped(INSTANCE)
        agent.stops = Refused(EXITED)
        assert await remote.stop("tools", "i-1", hold=False) == Refused(EXITED)
        assert await remote.suspend("tools", "i-1", hold=False) == Refused(EXITED)
        assert await remote.prepare("tools", "i-1", "0mbench1", Rest.SUSPEND) == Prepared(INSTANCE, "0a1b")
        assert await remote.sleep("tools", "i-1", "0a1b") == Refused(EXITED)
        await remote.stay("tools", "i-1", "0a1b")
        assert await remote.cordon("tools", "i-1", True) == Cordoned(INSTANCE)
        assert await remote.cordon("tools", "i-1", False) == Cordoned(INSTANCE)
        agent.waits = Reached(INSTANCE)
        assert await remote.wait("tools", "i-1", State.STARTED, 5.0) == Reached(INSTANCE)
        agent.waits = NotReached(None)
        assert await remote.wait("tools", "i-1", State.STOPPED, 5.0) == NotReached(None)
        assert await remote.list() == agent.owned
        await remote.aclose()
    assert [call[0] for call in agent.asked[-2:]] == ["wait", "wait"]
    assert agent.asked[:-2] == [
        ("start", "tools", "i-1", False),
        ("start", "tools", "i-1", True),
        ("stop", "tools", "i-1", True),
        ("stop", "tools", "i-1", False),
        ("suspend", "tools", "i-1", False),
        ("prepare", "tools", "i-1", "0mbench1", Rest.SUSPEND),
        ("sleep", "tools", "i-1", "0a1b"),
        ("stay", "tools", "i-1", "0a1b"),
        ("cordon", "tools", "i-1", True),
        ("cordon", "tools", "i-1", False),
    ]


async def test_a_list_of_more_than_a_page_comes_whole() -> None:
    agent = ScriptedAgent()
    agent.owned = [Listed(dataclasses.replace(INSTANCE, id=f"i-{number:04}")) for number in range(2001)]
    async with serving(agent) as url:
        remote = RemoteAgent(url, TOKENS)
        assert await remote.list() == agent.owned
        await remote.aclose()


async def test_a_wait_asks_again_until_its_own_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.agent.remote.WAIT_S", 0.01)
    agent = ScriptedAgent()
    async with serving(agent) as url:
        remote = RemoteAgent(url, TOKENS)
        began_s = time.monotonic()
        assert await remote.wait("tools", "i-1", State.STOPPED, 0.1) == NotReached(INSTANCE)
        assert time.monotonic() - began_s >= 0.1
        await remote.aclose()
    assert len(agent.asked) > 1


@both_loops
async def test_a_caller_that_is_cancelled_closes_its_request_and_the_agent_goes_on() -> None:
    agent = ScriptedAgent()
    agent.gate.clear()
    async with serving(agent) as url:
        remote = RemoteAgent(url, TOKENS)
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(remote.start("tools", "i-1"))
            await agent.begun.wait()
            asking.cancel()
        assert remote.asked == 0
        assert not agent.ended.is_set()
        agent.gate.set()
        await asyncio.wait_for(agent.ended.wait(), LIMIT_S)
        # The connection that was given up is not used again.
        assert await remote.start("tools", "i-1") == Started(INSTANCE)
        await remote.aclose()


@both_loops
async def test_a_cancelled_request_is_closed_at_once() -> None:
    async with lying(b"") as (liar, url), asyncio.TaskGroup() as tasks:
        remote = RemoteAgent(url, TOKENS)
        asking = tasks.create_task(remote.start("tools", "i-1"))
        await until(lambda: bool(liar.heads), "the request has come")
        asking.cancel()
        await asyncio.wait_for(liar.left.wait(), LIMIT_S)
        await remote.aclose()


@both_loops
async def test_who_waits_when_it_is_closed_is_told_that_the_agent_is_away() -> None:
    async with lying(b"") as (liar, url), asyncio.TaskGroup() as tasks:
        remote = RemoteAgent(url, TOKENS)
        waiting = tasks.create_task(remote.start("tools", "i-1"))
        await until(lambda: bool(liar.heads), "the request has come")
        await remote.aclose()
        outcome = await asyncio.wait_for(waiting, LIMIT_S)
        assert isinstance(outcome, StartFailed)
        assert outcome.failure.kind is FailureKind.AGENT_AWAY


_STARTED = json.dumps(encode(Started(INSTANCE))).encode()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (json_answer(b""), "answers 200 and no JSON"),
        (json_answer(b"[]"), "answers what no agent answers"),
        (json_answer(b"[" * 100_000), "no JSON"),
        (json_answer(b'{"outcome": "started"}'), "answers what no agent answers"),
        (json_answer(_STARTED.replace(b"i-1", b"i-2")), "it is about another instance"),
        (json_answer(json.dumps(encode(Stopped(INSTANCE))).encode()), "something else than it was asked"),
        (json_answer(b"x" * (MAX_ANSWER_BYTES + 1)), f"answers more than {MAX_ANSWER_BYTES} bytes"),
        (json_answer(b"", "401 No"), "does not take this gateway's token"),
        (json_answer(b"", "302 Found", "Location: /v1/machines"), "answers 302 and no JSON"),
        (json_answer(_STARTED, "200 OK", "Content-Encoding: gzip"), ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{", ""),
        (b"SSH-2.0-OpenSSH_9.6\r\n", ""),
    ],
)
async def test_whoever_is_no_agent_is_an_agent_that_is_away(answer: bytes, why: str) -> None:
    async with lying(answer) as (liar, url):
        remote = RemoteAgent(url, TOKENS)
        outcome = await remote.start("tools", "i-1")
        await remote.aclose()
    if b"gzip" in answer:
        # Nothing is unpacked: this one is readable as it is.
        assert outcome == Started(INSTANCE)
        return
    assert isinstance(outcome, StartFailed)
    assert outcome.failure.kind is FailureKind.AGENT_AWAY
    assert outcome.failure.message == "the agent of tools/i-1 cannot be asked"
    assert why in outcome.failure.detail
    # Asked once, and for an answer that is not packed.
    assert len(liar.heads) == 1
    assert "accept-encoding: identity\r\n" in liar.heads[0].lower()


async def test_every_call_to_nobody_is_away() -> None:
    async with lying(b"") as (_, url):
        pass
    remote = RemoteAgent(url, TOKENS)
    outcomes: list[Any] = [
        await remote.start("tools", "i-1"),
        await remote.stop("tools", "i-1"),
        await remote.suspend("tools", "i-1"),
        await remote.prepare("tools", "i-1", "x", Rest.STOP),
        await remote.sleep("tools", "i-1", "0a"),
        await remote.cordon("tools", "i-1", True),
    ]
    assert {one.failure.kind for one in outcomes} == {FailureKind.AGENT_AWAY}
    await remote.stay("tools", "i-1", "0a")
    assert await remote.wait("tools", "i-1", State.STARTED, 5.0) == NotReached(None)
    assert await remote.list() == ()
    await remote.aclose()


async def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.agent.remote.SHORT_S", 0.05)
    async with lying(b"") as (liar, url):
        remote = RemoteAgent(url, TOKENS)
        outcome = await remote.cordon("tools", "i-1", True)
        assert isinstance(outcome, Refused)
        assert "did not answer within 0.05 s" in outcome.failure.detail
        await asyncio.wait_for(liar.left.wait(), LIMIT_S)
        await remote.aclose()


async def test_a_liars_token_is_worth_nothing_at_the_agent() -> None:
    """A record can name any URL: what is sent there opens no agent."""
    agent = ScriptedAgent()
    async with serving(agent) as url, lying(json_answer(b"")) as (liar, elsewhere):
        remote = RemoteAgent(elsewhere, TOKENS)
        await remote.start("tools", "i-1")
        await remote.aclose()
        assert liar.token == TOKENS.of(elsewhere)
        async with client(url, liar.token) as asking:
            assert (await asking.post(f"{MACHINE}/start")).status_code == 401
    assert agent.asked == []


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("http://10.0.0.5:8082", True),
        ("https://[fd00::5]:8082", True),
        ("http://agents.internal:1", True),
        ("", False),
        ("http://10.0.0.5", False),
        ("ftp://10.0.0.5:21", False),
        ("http://10.0.0.5:8082/", False),
        ("http://10.0.0.5:8082/x?y", False),
        ("http://user@10.0.0.5:8082", False),
        ("http://HOST:8082", False),
        ("http://0x0a000005:8082", False),
        ("http://10.5:8082", False),
        ("http://10.0.0.5:0", False),
        ("http://10.0.0.5:08082", False),
        ("http://[::1:8082", False),
        ("http://x:1\r\n", False),
    ],
)
def test_which_urls_are_dialled(url: str, dialled: bool) -> None:
    assert is_dialled(url) == dialled
    if not dialled:
        with pytest.raises(ValueError, match="is no agent's URL"):
            RemoteAgent(url, TOKENS)


# --- with the agent itself -------------------------------------------------------------


async def test_a_hundred_callers_start_an_instance_once(tmp_path: Any) -> None:
    starts = tmp_path / "starts"
    app = App("tools", wake_timeout_s=LIMIT_S, stop_grace_s=1.0)
    async with agent_of(app, toy("i-1", "--starts", str(starts))) as (agent, publish), serving(agent) as url:
        gateways = [RemoteAgent(url, TOKENS) for _ in range(2)]
        outcomes = await asyncio.gather(*(gateways[number % 2].start("tools", "i-1") for number in range(100)))
        assert set(outcomes) == {Started(publish.instance("i-1"))}
        assert len(lines(starts)) == 1
        incarnation = publish.instance("i-1").incarnation
        prepared = await gateways[0].prepare("tools", "i-1", incarnation, Rest.STOP)
        assert isinstance(prepared, Prepared)
        assert prepared.instance.sleep == prepared.token
        # Another gateway wants it: it stays, and the sleep is off.
        assert isinstance(await gateways[1].start("tools", "i-1"), Started)
        late = await gateways[0].sleep("tools", "i-1", prepared.token)
        assert isinstance(late, Refused)
        assert late.failure.kind is FailureKind.NOT_PREPARED
        again = await gateways[0].prepare("tools", "i-1", incarnation, Rest.STOP)
        assert isinstance(again, Prepared)
        slept = await gateways[0].sleep("tools", "i-1", again.token)
        assert slept == Stopped(publish.instance("i-1"))
        assert publish.instance("i-1").state is State.STOPPED
        for gateway in gateways:
            await gateway.aclose()
