"""Where requests without a session go, seen from outside: cookies, keys, steering, load, and what callers share."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter

import pytest

from gateway.core.model import KeyRule, KeySource, Pin
from gateway.core.seal import Sealer
from tests.net.rig import INCARNATION, RawInstance, Rig, until
from tests.net.wire import Message

HOST = b"Host: tools.localhost\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def get(*lines: bytes, target: bytes = b"/") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"".join(one + b"\r\n" for one in lines) + b"\r\n"


def modern(method: str, params: dict[str, object] | None = None, *lines: bytes) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}).encode()
    head = (
        b"POST /mcp HTTP/1.1\r\n"
        + HOST
        + b"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: "
        + method.encode()
        + b"\r\n"
    )
    return head + b"".join(one + b"\r\n" for one in lines) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


async def fleet(rig: Rig, count: int = 3) -> list[RawInstance]:
    """Instances that answer with their own name."""
    instances = [await rig.instance(f"i-{number}") for number in range(1, count + 1)]
    for one in instances:
        one.answers(OK.replace(b"\r\n\r\n", b"\r\nX-Name: " + one.id.encode() + b"\r\n\r\n"))
    return instances


async def who(rig: Rig, raw: bytes) -> str:
    answer = await rig.ask(raw)
    return answer.one("x-name") or f"{answer.status} {answer.one('moorage-error')}"


def cookie_of(answer: Message) -> bytes:
    cookie = answer.one("set-cookie")
    assert cookie is not None
    return b"Cookie: other=1; " + cookie.partition(";")[0].encode() + b"; more=2"


# --- the affinity cookie -----------------------------------------------------------------


async def test_a_cookie_keeps_a_browser_where_it_was(rig: Rig) -> None:
    rig.app(affinity_cookie="pin", path="/a")
    await fleet(rig)
    first = await rig.ask(get(target=b"/a"))
    said = first.one("set-cookie") or ""
    assert said.split("; ")[1:] == ["Path=/a", "HttpOnly", "SameSite=Lax"]
    for _ in range(5):
        again = await rig.ask(get(cookie_of(first), target=b"/a"))
        assert again.one("x-name") == first.one("x-name")
        # Said once, not every time.
        assert again.one("set-cookie") is None


async def test_a_cookie_is_for_tls_where_the_client_speaks_it(rig: Rig) -> None:
    rig.app(affinity_cookie="pin")
    rig.gateway.trusted_proxies = (ipaddress.ip_network("127.0.0.1/32"),)
    await fleet(rig)
    behind_tls = await rig.ask(get(b"X-Forwarded-Proto: https"))
    assert (behind_tls.one("set-cookie") or "").endswith("; SameSite=Lax; Secure")
    assert (await rig.ask(get())).all("set-cookie")[0].endswith("; SameSite=Lax")


@pytest.mark.parametrize("lost", ["gone", "another life", "unhealthy", "closed"])
async def test_a_cookie_fails_over_and_is_issued_anew(rig: Rig, lost: str) -> None:
    rig.app(affinity_cookie="pin")
    instances = await fleet(rig)
    first = await rig.ask(get())
    name = first.one("x-name") or ""
    if lost == "gone":
        rig.forget(name)
    elif lost == "another life":
        # The same place, but what it knew of the browser is gone: the cookie is renewed.
        rig.change(name, incarnation="b00t2")
    elif lost == "unhealthy":
        rig.change(name, healthy=False)
    else:
        next(one for one in instances if one.id == name).close()
        rig.gateway.pool.close()
    second = await rig.ask(get(cookie_of(first)))
    assert second.status == 200
    assert (second.one("x-name") == name) is (lost == "another life")
    assert second.one("set-cookie") is not None
    third = await rig.ask(get(cookie_of(second)))
    assert (third.one("x-name"), third.one("set-cookie")) == (second.one("x-name"), None)


async def test_a_forged_cookie_counts_as_none(rig: Rig) -> None:
    rig.app(affinity_cookie="pin")
    await fleet(rig)
    genuine = rig.gateway.sealer.seal_cookie("tools", Pin("i-3", INCARNATION))
    assert await who(rig, get(b"Cookie: pin=" + genuine)) == "i-3"
    foreign = Sealer([b"another secret of thirty-two b.."]).seal_cookie("tools", Pin("i-3", INCARNATION))
    other_app = rig.gateway.sealer.seal_cookie("other", Pin("i-3", INCARNATION))
    for forged in (
        b"",
        b"i-3",
        genuine[:-1],
        genuine.swapcase(),
        foreign,
        other_app,
        rig.seal("i-3"),
        genuine + b"A" * 9000,
    ):
        answer = await rig.ask(get(b"Cookie: pin=" + forged))
        assert answer.status == 200
        assert answer.one("set-cookie") is not None


# --- keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "request_of"),
    [
        (KeyRule(KeySource.HEADER, "x-session"), lambda value: get(b"X-SESSION: " + value)),
        (KeyRule(KeySource.COOKIE, "sid"), lambda value: get(b"Cookie: a=b; sid=" + value)),
        (KeyRule(KeySource.QUERY, "session"), lambda value: get(target=b"/?a=b&session=" + value)),
        (KeyRule(KeySource.PRINCIPAL, ""), lambda value: get(b"Authorization: Bearer " + value)),
    ],
)
async def test_a_key_keeps_its_instance(rig: Rig, rule: KeyRule, request_of: object) -> None:
    assert callable(request_of)
    rig.app(key=(rule,))
    await fleet(rig)
    placed = {}
    for number in range(30):
        value = b"user-%d" % number
        placed[value] = await who(rig, request_of(value))
    assert set(placed.values()) == {"i-1", "i-2", "i-3"}
    for value, name in placed.items():
        assert await who(rig, request_of(value)) == name
    # Only what lived on the one that went away moves.
    rig.forget("i-2")
    for value, name in placed.items():
        now = await who(rig, request_of(value))
        assert now == name if name != "i-2" else now in ("i-1", "i-3")


async def test_a_key_that_comes_twice_is_refused(rig: Rig) -> None:
    rig.app(key=(KeyRule(KeySource.HEADER, "x-session"),))
    await fleet(rig)
    assert await who(rig, get(b"X-Session: a", b"x-session: b")) == "400 PB05"
    assert await who(rig, get(b"X-Other: a", b"x-other: b", b"X-Session: a")) in ("i-1", "i-2", "i-3")


# --- steering --------------------------------------------------------------------------


async def test_steering_is_obeyed_and_taken_out(rig: Rig) -> None:
    instances = await fleet(rig)
    assert await who(rig, get(b"Fly-Force-Instance-Id: i-3")) == "i-3"
    assert await who(rig, get(b"fly-prefer-instance-id: i-2")) == "i-2"
    assert await who(rig, get(b"fly-prefer-instance-id: none")) in ("i-1", "i-2", "i-3")
    assert await who(rig, get(b"fly-force-instance-id: none")) == "502 PR02"
    assert await who(rig, get(b"fly-force-instance-id: i-1", b"fly-force-instance-id: i-2")) == "400 PB05"
    for instance in instances:
        for request in instance.requests:
            assert not [name for name in request.names if "instance-id" in name.lower()]


async def test_steering_can_be_turned_off(rig: Rig) -> None:
    rig.app(steering=False)
    instances = await fleet(rig)
    assert await who(rig, get(b"fly-force-instance-id: none")) in ("i-1", "i-2", "i-3")
    assert not [name for one in instances for request in one.requests for name in request.names if "force" in name]


# --- load ------------------------------------------------------------------------------


async def test_open_requests_are_load(rig: Rig) -> None:
    """Each goes where least is under way; who is cordoned or unhealthy gets nothing new."""
    instances = [await rig.instance(f"i-{number}") for number in range(1, 5)]
    rig.change("i-3", cordoned=True)
    rig.change("i-4", healthy=False)
    for _ in range(6):
        client = await rig.client()
        client.send(get())
    held = [await (instances[number % 2]).request() for number in range(6)]
    assert Counter(one.accepted for one in instances) == {3: 2, 0: 2}
    for wire, _ in held:
        wire.send(OK)


# --- 2026-07-28 ------------------------------------------------------------------------


async def test_callers_stay_together(rig: Rig) -> None:
    """Default servers keep keys and buses per process, so one caller's calls belong on one instance."""
    await fleet(rig)
    placed = {}
    for number in range(12):
        caller = b"Authorization: Bearer user-%d" % number
        names = {
            await who(rig, modern(method, None, caller)) for method in ("tools/call", "subscriptions/listen", "x/y")
        }
        assert len(names) == 1
        placed[caller] = names.pop()
    assert len(set(placed.values())) == 3


async def test_a_call_that_asks_for_more_comes_back_to_who_asked(rig: Rig) -> None:
    """Whoever calls: the requestState finds the instance, through the pin store."""
    instances = [await rig.instance(f"i-{number}") for number in range(1, 4)]
    result = b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"s-%d"}}'
    for number, instance in enumerate(instances, 1):
        body = result % number
        head = b"HTTP/1.1 200 OK\r\nX-Name: i-%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        instance.answers(head % (number, len(body)) + body)
    for number in range(10):
        first = await rig.ask(modern("tools/call", None, b"Authorization: Bearer user-%d" % number))
        state = json.loads(first.body)["result"]["requestState"]
        retry = modern("tools/call", {"requestState": state, "inputResponses": {}}, b"Authorization: Bearer another")
        assert await who(rig, retry) == first.one("x-name")


async def test_also_when_the_answer_ends_with_its_connection(rig: Rig) -> None:
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    result = b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"s"}}'
    for number in range(6):
        client = await rig.client()
        client.send(modern("tools/call", None, b"Authorization: Bearer user-%d" % number))
        await until(lambda: one.accepted + other.accepted == 2 * number + 1, "the call")  # noqa: B023 - awaited here
        asked = one if one.waiting else other
        wire, _ = await asked.request()
        wire.send(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n", result)
        wire.close()
        assert (await client.answer()).body == result
        client.send(modern("tools/call", {"requestState": "s"}, b"Authorization: Bearer another"))
        wire, _ = await asked.request()
        wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_a_task_is_asked_for_where_it_runs(rig: Rig) -> None:
    instances = [await rig.instance(f"i-{number}") for number in range(1, 4)]
    for number, instance in enumerate(instances, 1):
        event = (
            b'data: {"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t-%d","ttlMs":1000}}\n\n' % number
        )
        head = (
            b"HTTP/1.1 200 OK\r\nX-Name: i-%d\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        instance.answers(head % number + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
    for number in range(10):
        first = await rig.ask(modern("tools/call", None, b"Authorization: Bearer user-%d" % number))
        name = first.one("x-name") or ""
        task = b"Mcp-Name: t-" + name.removeprefix("i-").encode()
        assert await who(rig, modern("tasks/get", None, task, b"Authorization: Bearer another")) == name


async def test_a_header_that_disagrees_with_its_body_is_refused(rig: Rig) -> None:
    instances = await fleet(rig)
    raw = modern("tools/call").replace(b'"tools/call"', b'"tools/list"')
    answer = await rig.ask(raw)
    assert (answer.status, answer.one("moorage-error")) == (400, "PB12")
    error = json.loads(answer.body)
    assert (error["id"], error["error"]["code"]) == (1, -32020)
    assert all(one.untouched for one in instances)
