"""`moorage replay-test`: one real request, told hop by hop; and what keeps it from being told."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import typer

from gateway.cli.hops import hops
from gateway.cli.sending import read_request
from tests.cli.test_admin_commands import Result, moorage
from tests.net.serving import Serving, asleep, listening, ok, replays, serving

APPS = {"tools": 'hosts = ["tools.localhost"]', "user": 'hosts = ["user.localhost"]\nwake_timeout = "20s"'}
PATH = ("fly-replay-cache: /u/1", "fly-replay-cache-ttl-secs: 60", "fly-replay-cache-allow-bypass: yes")


@pytest.fixture(autouse=True)
def silent_logs() -> Iterator[None]:
    """The gateway runs in this process and logs to where the command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    yield
    structlog.reset_defaults()


async def shows(on: Serving, path: str, *options: str, host: str = "tools.localhost") -> Result:
    """The command, for the public listener under this name."""
    url = f"http://{host}:{on.running.public.port}{path}"
    return await moorage("replay-test", url, *options, "--admin", str(on.running.admin))


def lines(shown: Result) -> list[str]:
    """STEP and WHAT of each hop."""
    assert shown.code == 0, shown.err
    rows = shown.out.split("\n\n")[1].splitlines()
    assert rows[0].split() == ["AT", "STEP", "WHAT"]
    return [" ".join(row.partition(" ms ")[2].split()) for row in rows[1:]]


async def test_a_replay_is_shown_hop_by_hop() -> None:
    order = replays("app=user;instance=u-1;state=canary")
    async with serving(APPS, {"tools/i-1": order, "user/u-1": asleep()}) as on:
        shown = await shows(on, "/u/1?token=canary", "-H", "X-Secret: canary")
        assert lines(shown) == [
            "decide forward to tools/i-1, by the rule least-loaded",
            "replay tools/i-1 asks: app=user; instance=u-1; state=given",
            "decide wake user/u-1, by the rule replay",
            "cache miss: an app was asked first",
            "decide forward to user/u-1, by the rule replay",
            "answer 200",
        ]
        first, *_, last = shown.out.splitlines()
        assert first.startswith(f"GET http://tools.localhost:{on.running.public.port}/u/1  request ")
        assert last.startswith("200 OK, ")
        assert " bytes in " in last
        assert "canary" not in shown.out


async def test_what_the_caches_had_to_do_with_it_has_its_own_lines() -> None:
    async with serving(APPS, {"tools/i-1": replays("app=user;instance=u-1", *PATH), "user/u-1": ok}) as on:
        assert lines(await shows(on, "/u/1"))[2:] == [
            "decide forward to user/u-1, by the rule replay",
            "cache miss: an app was asked first",
            "cache made: the replay is remembered, by path",
            "answer 200",
        ]
        assert lines(await shows(on, "/u/1")) == [
            "decide forward to user/u-1, by the rule replay-cache",
            "cache hit: a remembered replay is followed",
            "answer 200",
        ]
        skipped = lines(await shows(on, "/u/1", "-H", "fly-replay-cache-control: skip"))
        assert skipped[1] == "cache bypass: the client skips what is remembered"


async def test_a_remembered_target_that_is_gone_is_told_from_a_fallback() -> None:
    async with serving(APPS, {"tools/i-1": replays("app=user;instance=u-9", *PATH), "user/u-1": ok}) as on:
        there = on.running.gateway.catalog.instance("user", "u-1")
        assert there is not None
        machines = "/v1/apps/user/machines"
        await on.admin.post(machines, json={"id": "u-9", "address": str(there.address)})
        await shows(on, "/u/1")
        await on.admin.delete(f"{machines}/u-9")
        await on.admin.post(machines, json={"id": "u-9", "address": "127.0.0.1:1"})
        shown = lines(await shows(on, "/u/1"))
        assert shown[2].startswith("connect user/u-9 was not reached: PC01 ")
        assert shown[3].startswith("decide refuse: PS07 ")
        assert shown[4].startswith("fall back what was remembered cannot be used, the app is asked again: ")
        # Asked again, it names the same one, which is not reached: nothing is remembered of that.
        assert not [line for line in shown if line.startswith("cache made")]


async def test_a_fallback_and_the_code_of_the_answer_are_shown() -> None:
    async with serving(APPS, {"tools/i-1": replays("app=user;instance=u-9;fallback=force_self"), "user/u-1": ok}) as on:
        shown = await shows(on, "/")
        assert lines(shown)[3].startswith("fall back the replay's target was not reached, the app is asked again: PR02")
        # i-1 replays again, which it may not.
        assert lines(shown)[5].startswith("replay tools/i-1 asks")
        assert ", PA03, " in shown.out.splitlines()[-1]


async def test_a_request_is_sent_as_it_is_described() -> None:
    async with serving(APPS, {"tools/i-1": ok, "user/u-1": ok}) as on:
        path, host = "/a/./b%2fc?d=%20", f"tools.localhost:{on.running.public.port}"
        told = (await shows(on, path, "-X", "PUT", "-H", "X-One: 1", "-H", "x-two:2", "-d", "hello", "--json")).json
        (head,) = on.asked["tools/i-1"]
        assert head.startswith(b"PUT /a/./b%2fc?d=%20 HTTP/1.1\r\n")
        for line in (b"X-One: 1", b"x-two: 2", b"Content-Length: 5", b"Content-Type: application/json"):
            assert line in head.split(b"\r\n")
        assert b"accept-encoding" not in head.lower()
        assert f"X-Forwarded-Host: {host}".encode() in head.split(b"\r\n")
        assert told["url"] == f"http://{host}/a/./b%2fc"
        answer = told["answer"]
        assert (answer["status"], answer["reason"], answer["code"], answer["size_bytes"], answer["end"]) == (
            200, "OK", None, 2, "whole",
        )  # fmt: skip
        assert answer["request_id"] == told["trace"]["request_id"]
        assert [event["step"] for event in told["trace"]["events"]] == ["decide", "answer"]
        # Another name than that of the address.
        await shows(on, "/", "-H", "Host: user.localhost", host="127.0.0.1")
        assert len(on.asked["user/u-1"]) == 1
        (listed, _) = (await on.get("/v1/traces"))["traces"]
        assert listed["host"] == "user.localhost"


async def test_redirects_are_not_followed_and_streams_not_waited_for() -> None:
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
    moved = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"

    def reply(head: bytes) -> bytes:
        return moved if head.startswith(b"GET /moved") else stream

    async with serving(APPS, {"tools/i-1": reply}) as on:
        shown = await shows(on, "/moved")
        assert shown.out.splitlines()[-1].startswith("302 Found, 0 bytes in ")
        shown = await shows(on, "/stream")
        assert shown.code == 0
        assert shown.out.splitlines()[-1].endswith(", an event stream, not read on")
        assert len(on.asked["tools/i-1"]) == 2


@pytest.mark.parametrize(("close", "said"), [(b"Connection: close\r\n", "broken off"), (b"", "not complete after")])
async def test_an_answer_without_an_end_is_shown_as_far_as_it_came(close: bytes, said: str) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n%b\r\nhalf" % close
    async with serving(APPS, {"tools/i-1": lambda head: half}) as on:
        shown = await shows(on, "/", "--timeout", "0.5")
        assert shown.out.splitlines()[-1].startswith("200 OK, 4 bytes in ")
        assert f", {said}" in shown.out.splitlines()[-1]


# --- what can go wrong -----------------------------------------------------------------


async def test_a_gateway_that_does_not_listen_there_or_has_no_admin_api_is_told_of() -> None:
    async with serving(APPS, {"tools/i-1": ok}) as on:
        admin = ("--admin", str(on.running.admin))
        nobody = await moorage("replay-test", "http://127.0.0.1:1/", *admin)
        assert nobody.code == 1
        assert nobody.err.startswith("moorage: no connection to http://127.0.0.1:1: ")
        unknown = await moorage("replay-test", "http://no-such-name.invalid/", *admin)
        assert unknown.code == 1
        assert unknown.err.startswith("moorage: no connection to http://no-such-name.invalid: ")
        # Nothing is sent before it is known that it can be told.
        unasked = await moorage(
            "replay-test", f"http://tools.localhost:{on.running.public.port}/", "--admin", "[::1]:1"
        )
        assert unasked.code == 1
        assert unasked.err.startswith("moorage: nothing listens at http://[::1]:1: start the gateway")
        assert not on.asked["tools/i-1"]


async def test_what_is_no_gateway_or_another_one_is_told_from_this_one() -> None:
    heads: list[bytes] = []

    def own_id(head: bytes) -> bytes:
        heads.append(head)
        made = b"Fly-Request-Id: 0123-iad\r\nmoorage-error: PR01\r\n" if head.startswith(b"GET /other") else b""
        return b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\nConnection: close\r\n\r\n" % made

    async with serving(APPS, {"tools/i-1": ok}) as on, listening(own_id) as port:
        admin = ("--admin", str(on.running.admin))
        none = await moorage("replay-test", f"http://any.localhost:{port}/", *admin)
        assert none.code == 1
        assert f"http://any.localhost:{port} is no Moorage gateway: it answers 200 without Fly-Request-Id" in none.err
        assert f"Host: any.localhost:{port}\r\n".encode() in heads[0]
        assert b"moorage-trace: " in heads[0]
        another = await moorage("replay-test", f"http://localhost:{port}/other", *admin)
        assert another.code == 1
        assert "another one answered (request 0123-iad)" in another.err
        as_json = await moorage("replay-test", f"http://localhost:{port}/other", *admin, "--json")
        assert as_json.code == 1
        assert "another one answered" in as_json.json["error"]["message"]


async def test_a_request_that_is_refused_before_it_is_routed_is_shown_without_hops() -> None:
    async with serving(APPS, {"tools/i-1": ok}) as on:
        shown = await shows(on, "/", "-H", "fly_force_instance_id: i-1")
        assert shown.code == 0
        assert "the gateway refused it before it was routed" in shown.out
        assert "400 Bad Request, PB06, " in shown.out
        assert (await shows(on, "/", "-H", "fly_force_instance_id: i-1", "--json")).json["trace"] is None


async def test_a_trace_that_is_not_kept_any_more_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.data.traces.MAX_KEPT", 0)
    async with serving(APPS, {"tools/i-1": ok}) as on:
        shown = await shows(on, "/")
        assert shown.code == 0
        assert "its trace is not kept any more" in shown.out
        assert shown.out.splitlines()[-1].startswith("200 OK, 2 bytes in ")


async def test_no_answer_in_time_is_told_with_where_to_look() -> None:
    async with serving(APPS, {"tools/i-1": lambda head: b""}) as on:
        late = await shows(on, "/", "--timeout", "0.3")
        assert late.code == 1
        assert "did not answer within 0.3 s: GET /v1/traces of the admin API shows how far" in late.err


async def test_what_does_not_speak_http_is_told_of() -> None:
    no_http = b"SSH-2.0-OpenSSH\r\nConnection: close\r\n"
    async with serving(APPS, {"tools/i-1": ok}) as on, listening(lambda head: no_http) as port:
        other = await moorage("replay-test", f"http://127.0.0.1:{port}/", "--admin", str(on.running.admin))
        assert other.code == 1
        assert other.err.startswith(f"moorage: http://127.0.0.1:{port} did not answer: ")


async def test_the_admin_token_goes_to_the_admin_api_alone() -> None:
    async with serving(APPS, {"tools/i-1": ok}, token="right-token") as on:
        refused = await shows(on, "/")
        assert refused.code == 1
        assert "set MOORAGE_ADMIN_TOKEN" in refused.err
        assert not on.asked["tools/i-1"]
        assert (await shows(on, "/", "--token", "right-token")).code == 0
        (head,) = on.asked["tools/i-1"]
        assert b"right-token" not in head


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tools.localhost/"], "is no URL"),
        (["ftp://a/"], "is no URL"),
        (["http:///a"], "is no URL"),
        (["http://a:x/"], "is no URL"),
        (["http://a/b c"], "percent-encode"),
        (["http://\u00e4/"], "percent-encode"),
        (["http://me:secret@a/"], "names a user"),
        (["http://a/", "-X", "A B"], "is no method"),
        (["http://a/", "-H", "no colon"], "is no header"),
        (["http://a/", "-H", "a: b\nc: d"], "is no header"),
        (["http://a/", "-H", "\u00e4: b"], "is no header"),
        (["http://a/", "--timeout", "0"], "greater than or equal to 0.1"),
        ([], "Missing argument"),
    ],
)
async def test_wrong_usage_is_told_at_once(arguments: list[str], said: str) -> None:
    wrong = await moorage("replay-test", *arguments, "--admin", "127.0.0.1:1")
    assert wrong.code == 2
    assert said in wrong.err
    assert "secret" not in wrong.err


async def test_the_help_says_that_it_is_a_real_request() -> None:
    shown = await moorage("replay-test", "--help")
    assert "This is no dry run, as `moorage explain` is: instances are woken" in " ".join(shown.out.split())
    assert "moorage replay-test http://tools.localhost:8080/cart" in shown.out


# --- the parts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("http://localhost:81/", "127.0.0.1"),
        ("http://Tools.LOCALHOST:81/", "127.0.0.1"),
        ("http://a.b.localhost.:81/", "127.0.0.1"),
        ("http://notlocalhost/", "notlocalhost"),
        ("http://localhost.example/", "localhost.example"),
        ("http://[::1]:81/", "::1"),
        ("http://10.0.0.7/", "10.0.0.7"),
    ],
)
def test_names_under_localhost_are_this_machine(url: str, dialled: str) -> None:
    assert read_request(url, None, [], None).dialled == dialled


@pytest.mark.parametrize(
    ("method", "headers", "body", "sent"),
    [
        (None, [], None, ("GET", None)),
        (None, [], "{}", ("POST", "application/json")),
        (None, ["content-type: text/plain"], "a", ("POST", "text/plain")),
        ("DELETE", [], None, ("DELETE", None)),
    ],
)
def test_a_body_makes_it_a_post_of_json(method: str | None, headers: list[str], body: str | None, sent: Any) -> None:
    request = read_request("http://a", method, headers, body)
    types = [value for name, value in request.headers if name.lower() == "content-type"]
    assert (request.method, types[0] if types else None) == sent
    assert request.target == "/"
    with pytest.raises(typer.BadParameter):
        read_request("http://a", "", [*headers, "x"], body)


def test_steps_that_are_not_known_are_shown_all_the_same() -> None:
    events: list[dict[str, Any]] = [
        {"at_ms": 0.1, "step": "decide", "action": "look up pin", "app": "tools"},
        {"at_ms": 0.2, "step": "decide", "action": "wait", "app": "tools", "rule": "hash"},
        {"at_ms": 0.3, "step": "problem", "code": "PA02", "why": "too often"},
        {"at_ms": 0.4, "step": "dance", "how": "well", "long": 3},
        {"at_ms": 0.5, "step": "answer", "status": 0},
    ]
    assert [hop.text for hop in hops(events)] == [
        "look up pin, app tools",
        "wait for any instance of tools, by the rule hash",
        "PA02 too often",
        "how=well; long=3",
        "none: the client left",
    ]


def test_a_replay_counts_as_remembered_only_when_its_target_was_reached() -> None:
    asked: dict[str, Any] = {"at_ms": 1.0, "step": "decide", "app": "user", "instance": "u-1", "rule": "replay"}
    asked |= {"cache": "miss", "remembers": "session, path"}
    failed = {"at_ms": 2.0, "step": "connect", "app": "user", "instance": "u-1", "code": "PC01", "why": "refused"}
    made = "made: the replay is remembered, by session, path"
    assert made not in [hop.text for hop in hops([{**asked, "action": "wake"}])]
    assert made not in [hop.text for hop in hops([{**asked, "action": "forward"}, failed])]
    assert made in [hop.text for hop in hops([{**asked, "action": "forward"}])]
