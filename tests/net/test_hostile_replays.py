"""Apps that ask for replays they may not have, and apps that answer nonsense: no border is crossed, no worker stops
(docs/reference/replay.md)."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from gateway.core.model import ReplayKey, ReplayRule
from gateway.core.problems import TABLE, Code
from gateway.core.remembered import decode
from tests.net.hostile import SMUGGLED, Hostile
from tests.net.replies import JSON_TYPE, answer, get
from tests.net.rig import RawInstance, Rig
from tests.net.wire import Message, Wire

REPLIES = 10_000
MAY_FAIL = {
    *(Code.PA02, Code.PA03, Code.PA04, Code.PA05, Code.PR01, Code.PR02, Code.PR03, Code.PS07),
    *(Code.PH01, Code.PH02, Code.PH03, Code.PH05, Code.PU05),
}
"""What an app's nonsense can lead to: never the gateway's own fault."""


def outcome(got: Message, method: str) -> str:
    """Who answered, or the code of the gateway's error: nothing else may come."""
    code = got.one("moorage-error")
    if code is None:
        sender = got.one("x-from")
        assert sender is not None, got
        return sender
    assert code in MAY_FAIL, got
    assert got.status == TABLE[Code(code)].status
    assert got.one("x-from") is None
    if method != "HEAD":
        assert json.loads(got.body)["error"]["code"] == code
    return code


class Clients:
    """Sends requests on a few connections, until told to stop."""

    def __init__(self, rig: Rig, rng: random.Random) -> None:
        self.outcomes: Counter[str] = Counter()
        self._rig = rig
        self._rng = rng

    def _request(self) -> tuple[bytes, str]:
        rng = self._rng
        method = rng.choice(["GET", "GET", "GET", "POST", "HEAD"])
        body = "hello" if method == "POST" else ""
        lines = rng.sample(
            [
                "Authorization: Bearer s3cret",
                f"Cookie: sid={rng.randrange(50)}",
                "fly-replay-cache-control: skip",
                "fly-prefer-instance-id: g-1",
                "fly-replay-src: instance=g-1;state=forged",
                "X-Forwarded-Host: good.localhost",
            ],
            2,
        )
        target = f"/u/{rng.randrange(20)}" + rng.choice(["", "/a", "?host=good.localhost", "//good.localhost/"])
        lines.append(f"Content-Length: {len(body)}")
        return get(target, *lines, host="evil.localhost", method=method) + body.encode(), method

    async def run(self, enough: asyncio.Event) -> None:
        client: Wire | None = None
        while not enough.is_set():
            client = client or await self._rig.client()
            raw, method = self._request()
            client.send(raw)
            got = await client.answer(method)
            self.outcomes[outcome(got, method)] += 1
            if got.one("connection") == "close":
                client = None


async def test_ten_thousand_hostile_replies_reach_nobody_elses_instance(rig: Rig, rng: random.Random) -> None:
    """Nor is there a cache entry that leads to one, nor one for another app's host."""
    rule = ReplayRule(ReplayKey.COOKIE, "sid", 60, allow_bypass=True)
    rig.app("tools", org="tools", hosts=("tools.localhost",))
    # That it would take replays itself opens nothing.
    openly = ("org:good", "good", "friend")
    rig.app("evil", org="evil", hosts=("evil.localhost",), replay_cache=(rule,), replay_sources=openly)
    rig.app("good", org="good", hosts=("good.localhost",), replay_sources=("org:friend", "app:friendly", "friends"))
    rig.app("friend", org="friend", hosts=("friend.localhost",), replay_sources=("org:good",))
    places = ("fra", "ams", "syd")
    evil = [await rig.instance(id, "evil", region=at) for id, at in zip(("e-1", "e-2", "both"), places, strict=True)]
    good = [await rig.instance(id, "good", region=at) for id, at in zip(("g-1", "g-2", "both"), places, strict=True)]
    others = [*good, await rig.instance("f-1", "friend")]
    rig.asleep("g-3", "good", region="syd")
    said: list[bytes] = []
    rig.gateway.replays.publish = said.append
    # Of its own, so that a seed repeats the replies whoever asks first.
    hostile = Hostile(random.Random(rng.random()), [str(rig.known(one.id, "good").address) for one in good])
    left, enough = REPLIES, asyncio.Event()

    def answers(one: RawInstance, request: Message) -> bytes:
        nonlocal left
        # Some replays come to an end, or all would be too many.
        if request.one("fly-replay-src") and rng.random() < 0.3:
            return answer(one.id.encode(), f"X-From: {one.id}")
        left -= 1
        if left <= 0:
            enough.set()
        return hostile.reply(one.id)

    for one in evil:
        one.answers(partial(answers, one))
    clients = Clients(rig, rng)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(6):
            tasks.create_task(clients.run(enough))
    assert [one.accepted for one in others] == [0] * 4
    assert rig.waker.asked.empty()
    entries = [message.entry for message in (decode(raw, rig.wall_s) for raw in said) if message is not None]
    assert {entry.target.app for entry in entries if entry is not None} == {"evil"}
    assert {entry.host for entry in entries if entry is not None} == {"", "evil.localhost"}
    assert {app for app in ("good", "friend", "tools") if rig.gateway.replays.keys(app)} == set()
    # It took all ways, often.
    outcomes = clients.outcomes
    for expected in ("e-1", "e-2", "both", "PA03", "PA04", "PA05", "PR02", "PH01", "PU05"):
        assert outcomes[expected] > 10, outcomes
    # Its neighbours are where they were.
    good[0].answers(answer(b"g-1"))
    raw = get("/u/1", "fly-prefer-instance-id: g-1", host="good.localhost")
    assert (await rig.ask(raw)).body == b"g-1"


# --- nonsense ----------------------------------------------------------------------------

FRAGMENTS = [
    b"instance=", b"app=", b"region=", b"state=", b"elsewhere=true", b"timeout=5s", b"fallback=prefer_self", b"i-2",
    b"user", b"tools", b"eu", b"any", b";", b";", b"; ", b"=", b",", b'"', b"'", b"\\", b" ", b"\t", b"\r\n", b"\r\n ",
    b"\r", b"\n", b"\0", b"\xff", b"\xc3\xa9", b"%3b", b"a" * 300, b"a" * 5000, b"INSTANCE = i-2", b'region="eu,any"',
]  # fmt: skip
JSON_FRAGMENTS = [
    b"{", b"}", b"[", b"]", b":", b",", b'"app"', b'"user"', b'"tools"', b'"instance"', b'"i-2"', b'"elsewhere"',
    b"true", b"null", b"1", b"-0", b"1e999", b"9" * 5000, b"NaN", b'"transform"', b'{"path":"/a"}', b'"cache"',
    b'"\\ud800"', b"\xff", b'{"prefix":"/","ttl":10}', b'"delete_headers":["cookie"]', b" ", b"\r\n", b"[" * 5000,
    b'{"set_headers":[{"name":"X-A","value":"b"}]}', b'{"a":' * 2000, b"\\", b"\0", b'"', b"\xef\xbb\xbf",
]  # fmt: skip
WHOLE = [b"instance=i-2", b'app="user"; state=a ;elsewhere=false', b'region="eu,any";timeout=5s;fallback=prefer_self']
JSON_WHOLE = [
    b'{"instance": "i-2"}',
    b'{"app": "user", "state": "a", "elsewhere": false, "transform": {"path": "/b", "delete_headers": ["cookie"]}}',
    b'{"prefer_instance": "i-2", "cache": {"prefix": "/u", "ttl": 60, "allow_bypass": true}, "allow_bypass": true}',
]


def fuzzed(rng: random.Random, whole: list[bytes], fragments: list[bytes]) -> bytes:
    """A whole one with a few changes, fragments in a row, or any bytes."""
    match rng.randrange(4):
        case 0:
            return b"".join(rng.choices(fragments, k=rng.randrange(8)))
        case 1:
            return rng.randbytes(rng.randrange(200))
        case _:
            raw = bytearray(rng.choice(whole))
            for _ in range(rng.randrange(4)):
                at = rng.randrange(len(raw))
                match rng.randrange(3):
                    case 0:
                        raw[at] = rng.randrange(256)
                    case 1:
                        raw[at:at] = rng.choice(fragments)
                    case _:
                        del raw[at : at + rng.randrange(1, 4)]
            return bytes(raw)


def in_header(rng: random.Random) -> bytes:
    value = fuzzed(rng, WHOLE, FRAGMENTS)
    return b"HTTP/1.1 307 Whatever\r\nContent-Length: 0\r\nfly-replay: %b\r\n\r\n" % value


def in_json(rng: random.Random) -> bytes:
    body = fuzzed(rng, JSON_WHOLE, JSON_FRAGMENTS)
    head = f"HTTP/1.1 200 Whatever\r\nContent-Type: {JSON_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("make", [in_header, in_json])
async def test_whatever_an_app_says_is_a_replay_or_a_bad_one(
    rig: Rig, rng: random.Random, make: Callable[[random.Random], bytes]
) -> None:
    """Decided at once, and never the gateway's own fault."""
    rig.app("user", hosts=("user.localhost",))
    router, other = await rig.instance("i-1"), await rig.instance("i-2", region="fra")
    user = await rig.instance("u-1", "user")
    replies = [make(rng) for _ in range(2000)]

    def says(request: Message) -> bytes:
        told = request.one("fly-replay-src") or request.one("fly-replay-failed")
        return answer(b"ok", "X-From: i-1") if told else replies.pop()

    router.answers(says)
    other.answers(answer(b"ok", "X-From: i-2"))
    user.answers(answer(b"ok", "X-From: u-1"))
    outcomes: Counter[str] = Counter()
    client = await rig.client()
    while replies:
        # Asked of the router, whatever was cached for the request before.
        client.send(get(f"/u/{len(replies)}", "fly-force-instance-id: i-1"))
        outcomes[outcome(await client.answer(), "GET")] += 1
    assert outcomes["PA03"] > 500, outcomes
    assert outcomes["i-2"] + outcomes["u-1"] + outcomes["i-1"] > 100, outcomes
    assert sum(outcomes.values()) == 2000
    assert not rig.gateway.counters.problems["tools", "PG01"]


@pytest.mark.parametrize(("size", "code"), [(4097, "PA03"), (5000, "PA03"), (60_000, "PA03"), (100_000, "PH02")])
async def test_a_value_without_end_is_refused(rig: Rig, size: int, code: str) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    value = b"instance=i-2;state=".ljust(size, b"a")
    one.answers(b"HTTP/1.1 307 Whatever\r\nfly-replay: %b\r\nContent-Length: 0\r\n\r\n" % value)
    got = await rig.ask(get("/", "fly-force-instance-id: i-1"))
    assert (got.status, got.one("moorage-error")) == (502, code)
    assert other.untouched


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_body_without_end_is_refused(rig: Rig, framing: str) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    client.send(get("/", "fly-force-instance-id: i-1"))
    wire, _ = await one.request()
    body = b'{"instance": "i-2", "state": "'.ljust(100_000, b"a")
    head = f"HTTP/1.1 200 Whatever\r\nContent-Type: {JSON_TYPE}\r\n".encode()
    # More is to come, for ever: what is there is enough to refuse it.
    match framing:
        case "length":
            wire.send(head, b"Content-Length: 999999999\r\n\r\n", body)
        case "chunked":
            wire.send(head, b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%b\r\n" % (len(body), body))
        case _:
            wire.send(head, b"\r\n", body)
    got = await client.answer()
    assert (got.status, got.one("moorage-error")) == (502, "PA03")
    await wire.is_cut()
    assert other.untouched


async def test_nothing_behind_a_replay_reaches_another_request(rig: Rig) -> None:
    """Whatever the form: its connection is not used again."""
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    other.answers(answer(b"ok", "X-From: i-2"))
    body = b'{"instance": "i-2"}'
    by_header = b"HTTP/1.1 307 Whatever\r\nfly-replay: instance=i-2\r\nContent-Length: 0\r\n\r\n"
    by_body = f"HTTP/1.1 200 Ok\r\nContent-Type: {JSON_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    one.answers(lambda told: (by_header if told.first.startswith(b"GET /header") else by_body) + SMUGGLED)
    client = await rig.client()
    for number in range(20):
        client.send(get("/header" if number % 2 else "/json", "fly-force-instance-id: i-1"))
        assert (await client.answer()).one("x-from") == "i-2"
    assert one.accepted == 20
