"""Each field of a replay, in the header and in the JSON form, over the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.model import Concurrency
from tests.net.rig import RawInstance, Rig
from tests.net.test_replay import OK, replay
from tests.net.wire import Message

HOST = b"Host: tools.localhost\r\n"
GET = b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"X-One: 1\r\nCookie: a=b\r\nAuthorization: Bearer t\r\n\r\n"


def as_json(fields: dict[str, Any], status: int = 200) -> bytes:
    body = json.dumps(fields).encode()
    head = b"HTTP/1.1 %d OK\r\nContent-Type: application/vnd.fly.replay+json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def as_header(fields: dict[str, Any]) -> bytes:
    return replay(";".join(f'{name}="{value}"' for name, value in fields.items()))


FORMS = pytest.mark.parametrize("form", [as_header, as_json])


async def three(rig: Rig) -> tuple[RawInstance, RawInstance, RawInstance]:
    """i-1 in the gateway's own region, where a request goes by itself; i-2 in iad, i-3 in nrt."""
    one = await rig.instance("i-1")
    two = await rig.instance("i-2", region="iad")
    three = await rig.instance("i-3", region="nrt")
    for instance in (two, three):
        instance.answers(OK)
    return one, two, three


@FORMS
@pytest.mark.parametrize(
    ("region", "to"),
    [
        ("iad", "i-2"),
        ("IAD", "i-2"),
        ("xyz,nrt,iad", "i-3"),
        ("us", "i-2"),
        ("usa,nrt", "i-2"),
        ("apac", "i-3"),
        ("sa,apac,us", "i-3"),
    ],
)
async def test_regions_are_tried_in_order(rig: Rig, form: Any, region: str, to: str) -> None:
    one, *others = await three(rig)
    one.answers(form({"region": region}))
    assert (await rig.ask(GET)).status == 200
    assert [instance.id for instance in others if instance.requests] == [to]


@FORMS
@pytest.mark.parametrize("why", ["unhealthy", "full", "unreachable"])
async def test_a_region_without_a_fit_instance_is_passed_over(rig: Rig, form: Any, why: str) -> None:
    one, two, other = await three(rig)
    one.answers(form({"region": "iad,nrt"}))
    if why == "unhealthy":
        rig.change("i-2", healthy=False)
    elif why == "full":
        rig.app(concurrency=Concurrency(soft=1, hard=1))
        rig.gateway.loads.of("tools", "i-2").requests += 1
    else:
        two.close()
    assert (await rig.ask(GET)).status == 200
    assert len(other.requests) == 1
    assert not two.requests
    if why == "full":
        rig.gateway.loads.of("tools", "i-2").requests -= 1


@FORMS
@pytest.mark.parametrize("preferred", [{}, {"prefer_instance": "i-1"}])
async def test_elsewhere_is_not_where_it_came_from(rig: Rig, form: Any, preferred: dict[str, str]) -> None:
    """Not even where the gateway would rather send it, or the app."""
    one, two, other = await three(rig)
    one.answers(form({"elsewhere": "true", **preferred}))
    for _ in range(4):
        assert (await rig.ask(GET)).status == 200
    assert len(one.requests) == len(two.requests) + len(other.requests) == 4


async def test_elsewhere_in_a_chain_rules_out_all_who_said_so(rig: Rig) -> None:
    one, two, other = await three(rig)
    one.answers(replay("elsewhere=true"))
    two.answers(replay("elsewhere=true"))
    assert (await rig.ask(GET)).status == 200
    assert [len(instance.requests) for instance in (one, two, other)] == [1, 1, 1]


@FORMS
async def test_a_preferred_instance_is_taken_when_it_is_fit(rig: Rig, form: Any) -> None:
    one, _, other = await three(rig)
    one.answers(form({"prefer_instance": "i-3"}))
    assert (await rig.ask(GET)).status == 200
    assert other.requests[0].one("fly-preferred-instance-unavailable") is None


@FORMS
@pytest.mark.parametrize("why", ["unhealthy", "gone", "unreachable", "full"])
async def test_a_preferred_instance_that_is_not_fit_gives_way_to_another(rig: Rig, form: Any, why: str) -> None:
    one, two, other = await three(rig)
    one.answers(form({"prefer_instance": "i-3", "region": "iad,nrt"}))
    if why == "unhealthy":
        rig.change("i-3", healthy=False)
    elif why == "gone":
        rig.forget("i-3")
    elif why == "full":
        rig.app(concurrency=Concurrency(soft=1, hard=1))
        rig.gateway.loads.of("tools", "i-3").requests += 1
    else:
        other.close()
    assert (await rig.ask(GET)).status == 200
    assert two.requests[0].one("fly-preferred-instance-unavailable") == "i-3"
    if why == "full":
        rig.gateway.loads.of("tools", "i-3").requests -= 1


@FORMS
async def test_an_instance_is_a_hard_pin(rig: Rig, form: Any) -> None:
    """No other one is tried."""
    one, two, other = await three(rig)
    one.answers(form({"instance": "i-2"}))
    two.close()
    answer = await rig.ask(GET)
    assert answer.status == 503
    assert not other.accepted


@FORMS
@pytest.mark.parametrize("state", [{"healthy": False}, {"cordoned": True}])
async def test_an_instance_is_taken_whatever_its_state(rig: Rig, form: Any, state: dict[str, Any]) -> None:
    one, two, _ = await three(rig)
    one.answers(form({"instance": "i-2"}))
    rig.change("i-2", **state)
    assert (await rig.ask(GET)).status == 200
    assert len(two.requests) == 1


@pytest.mark.parametrize("status", [201, 307, 404, 503])
async def test_the_json_form_may_be_of_any_status(rig: Rig, status: int) -> None:
    one, two, _ = await three(rig)
    one.answers(as_json({"instance": "i-2"}, status))
    assert (await rig.ask(GET)).body == b"ok"
    assert len(two.requests) == 1


@FORMS
async def test_an_empty_state_is_told_as_one(rig: Rig, form: Any) -> None:
    one, two, _ = await three(rig)
    orders: list[dict[str, str]] = []
    one.answers(lambda _: form({"instance": "i-2", **orders[-1]}))
    for state, told in ({}, ""), ({"state": ""}, ""), ({"state": "a=b c"}, "a=b c"):
        orders.append(state)
        await rig.ask(GET.replace(b"X-One", b"fly-force-instance-id: i-1\r\nX-One"))
        source = two.requests[-1].one("fly-replay-src")
        assert source is not None
        assert source.split(";")[3] == f"state={told}"


@FORMS
async def test_an_app_gets_the_request_by_its_own_rules(rig: Rig, form: Any) -> None:
    one, *_ = await three(rig)
    rig.app("user", hosts=("user.internal",), strip_path=True, path="/a")
    user = await rig.instance("u-1", app="user")
    user.answers(OK)
    one.answers(form({"app": "user"}))
    assert (await rig.ask(GET)).status == 200
    assert user.requests[0].first == b"GET /a?b=c HTTP/1.1"


@FORMS
async def test_an_instance_of_another_app(rig: Rig, form: Any) -> None:
    one, *_ = await three(rig)
    rig.app("user", hosts=("user.internal",))
    users = [await rig.instance(f"u-{n}", app="user") for n in range(3)]
    for user in users:
        user.answers(OK)
    one.answers(form({"app": "user", "instance": "u-2"}))
    assert (await rig.ask(GET)).status == 200
    assert [len(user.requests) for user in users] == [0, 0, 1]


@FORMS
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"app": "user", "instance": "i-2"}, "PA03"),
        ({"app": "user", "instance": "x-9"}, "PR02"),
        ({"instance": "u-1"}, "PR02"),
        ({"app": "nobody"}, "PA04"),
        ({"instance": "i-2", "region": "nrt"}, "PA03"),
        ({"instance": "i-1", "elsewhere": "true"}, "PA03"),
        ({"instance": "i-2", "prefer_instance": "i-3"}, "PA03"),
        ({"state": "x"}, "PA03"),
        ({"elsewhere": "false"}, "PA03"),
        ({"nonsense": "x", "app": "user"}, "PA03"),
        ({"app": ""}, "PA03"),
    ],
)
async def test_what_makes_no_sense_is_an_error(rig: Rig, form: Any, fields: dict[str, str], code: str) -> None:
    one, two, other = await three(rig)
    rig.app("user", hosts=("user.internal",))
    user = await rig.instance("u-1", app="user")
    one.answers(form(fields))
    answer = await rig.ask(GET)
    assert answer.status == 502
    assert answer.one("moorage-error") == code
    told = json.loads(answer.body)["error"]
    assert told["code"] == code
    assert told["remedy"]
    assert not [one for one in (two, other, user) if one.accepted]


@pytest.mark.parametrize(
    "lines",
    [
        b"fly-replay: instance=i-2\r\nfly-replay: instance=i-3\r\n",
        b"fly-replay: instance=i-2\r\nFly-Replay: instance=i-2\r\n",
        b"fly-replay: \r\n",
        b"fly-replay: app=tools,instance=i-2\r\n",
        b"fly-replay: instance=i-2;state=" + b"x" * 100_000 + b"\r\n",
        b"fly-replay: instance=i-2;state=\xe9\r\n",
    ],
)
async def test_a_header_that_is_not_in_the_grammar_is_an_error(rig: Rig, lines: bytes) -> None:
    one, two, other = await three(rig)
    one.answers(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 0\r\n\r\n")
    answer = await rig.ask(GET)
    assert answer.status == 502
    assert answer.one("moorage-error") == ("PH02" if len(lines) > 65536 else "PA03")
    assert not two.accepted
    assert not other.accepted


# --- transforms --------------------------------------------------------------------------


async def seen(rig: Rig, transform: dict[str, Any]) -> Message:
    """The request as the target sees it after a transform."""
    one, two, _ = await three(rig)
    one.answers(as_json({"instance": "i-2", "transform": transform}))
    answer = await rig.ask(GET)
    assert answer.status == 200, answer.body
    return two.requests[0]


async def test_a_transform_gives_path_and_query(rig: Rig) -> None:
    request = await seen(rig, {"path": "/x/y?tenant=1"})
    assert request.first == b"GET /x/y?tenant=1 HTTP/1.1"
    assert request.one("x-one") == "1"


async def test_a_transform_deletes_headers(rig: Rig) -> None:
    request = await seen(rig, {"delete_headers": ["COOKIE", "x-one", "x-not-there"]})
    assert request.one("cookie") is None
    assert request.one("x-one") is None
    assert request.one("authorization") == "Bearer t"


async def test_a_transform_sets_headers(rig: Rig) -> None:
    request = await seen(
        rig, {"set_headers": [{"name": "Authorization", "value": "Bearer s"}, {"name": "X-Two", "value": "2"}]}
    )
    assert request.one("authorization") == "Bearer s"
    assert request.one("x-two") == "2"


async def test_the_target_is_given_the_gateways_own_headers_all_the_same(rig: Rig) -> None:
    request = await seen(rig, {"delete_headers": ["fly-replay-src", "x-one"]})
    assert request.one("fly-client-ip") == "127.0.0.1"
    assert request.one("fly-replay-src") is not None
    assert request.one("via") is not None


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "fly-client-ip", "moorage-x", "Mcp-Session-Id", "Via", "X_Forwarded_For"]
)
async def test_what_the_gateway_writes_itself_cannot_be_set(rig: Rig, name: str) -> None:
    one, two, _ = await three(rig)
    one.answers(as_json({"instance": "i-2", "transform": {"set_headers": [{"name": name, "value": "x"}]}}))
    assert (await rig.ask(GET)).one("moorage-error") == "PA03"
    assert not two.accepted


async def test_transforms_add_up_along_a_chain(rig: Rig) -> None:
    """An issuer hands on what it was shown."""
    one, two, other = await three(rig)
    one.answers(as_json({"instance": "i-2", "transform": {"path": "/b", "delete_headers": ["cookie"]}}))
    rig.app("user", hosts=("user.internal",))
    user = await rig.instance("u-1", app="user")
    user.answers(OK)
    two.answers(as_json({"app": "user", "transform": {"set_headers": [{"name": "X-Two", "value": "2"}]}}))
    assert (await rig.ask(GET)).status == 200
    request = user.requests[0]
    assert request.first == b"GET /b HTTP/1.1"
    assert request.one("cookie") is None
    assert request.one("x-two") == "2"
    assert not other.requests


async def test_a_replay_back_to_the_addressed_app_delivers_the_clients_own_request(rig: Rig) -> None:
    one, two, other = await three(rig)
    one.answers(as_json({"app": "user", "transform": {"path": "/b", "delete_headers": ["cookie"]}}))
    rig.app("user", hosts=("user.internal",))
    user = await rig.instance("u-1", app="user")
    user.answers(replay("app=tools;instance=i-3"))
    assert (await rig.ask(GET)).status == 200
    assert other.requests[0].first == b"GET /a?b=c HTTP/1.1"
    assert other.requests[0].one("cookie") == "a=b"
    assert not two.requests
