"""Who may ask the admin API: the token, this machine, no other web page; and never a route without the check."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.types import Message, Scope
from structlog.testing import capture_logs

from gateway.admin.access import Access, with_token, without_token
from gateway.core.model import App
from tests.net.admin_bench import bench, raw
from tests.net.yard import Clock

TOKEN = "correct-horse-battery"
PATHS = [
    "/", "/v1/apps", "//v1/apps", "/v1/apps/", "/v1/%61pps", "/v1;x/apps", "/v1/apps/tools/machines", "/v1/sessions",
    "/v1/explain", "/v1/catalog", "/v1/gateways", "/metrics", "/healthz", "/readyz", "/openapi.json", "/nothing",
    "/v1/../v1/apps",
]  # fmt: skip
HOST = (b"host", b"127.0.0.1:8081")


def test_only_the_whole_token_opens() -> None:
    def code(*values: bytes) -> str | None:
        refusal = with_token(TOKEN.encode(), [(b"authorization", value) for value in values])
        return refusal.code if refusal is not None else None

    right = b"Bearer " + TOKEN.encode()
    assert code(right) is None
    assert code(b"bearer " + TOKEN.encode()) is None
    for wrong in (
        (), (b"",), (b"Bearer",), (b"Bearer ",), (right[:-1],), (right + b"x",), (right.upper(),),
        (b"Basic " + TOKEN.encode(),), (TOKEN.encode(),), (right, right), (right, b"Bearer x"), (b"Bearer \xff\xfe",),
    ):  # fmt: skip
        assert code(*wrong) == "AD01"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", [b"127.0.0.1:8081", b"127.0.0.1", b"localhost:8081", b"LOCALHOST", b"[::1]:8081", b"[::1]", b"127.0.0.2:1"]
)
def test_without_a_token_this_machine_may_ask(peer: str, host: bytes) -> None:
    assert without_token(peer, [(b"host", host)]) is None
    assert without_token(peer, [(b"host", host), (b"origin", b"http://" + host)]) is None
    assert without_token(peer, [(b"host", host), (b"sec-fetch-site", b"same-origin")]) is None


@pytest.mark.parametrize("peer", ["10.0.0.7", "192.0.2.1", "fe80::1", "::ffff:10.0.0.7", "", "testclient"])
def test_without_a_token_no_other_machine_may(peer: str) -> None:
    assert without_token(peer, [HOST]) is not None


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"evil.example",
        b"evil.example:8081",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example",
        b"10.0.0.7:8081",
        b"0.0.0.0:8081",
        b"[::]:8081",
        b"127.0.0.1:80:80",
        b"127.0.0.1:x",
        b"2130706433",
        b"0x7f000001",
        b"::1",
        b"@127.0.0.1",
        b"evil.example@127.0.0.1",
        b"127.0.0.1,evil.example",
        b"\xff",
    ],
)
def test_a_rebound_name_is_refused(host: bytes) -> None:
    assert without_token("127.0.0.1", [(b"host", host)]) is not None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [HOST, HOST],
        [HOST, (b"host", b"evil.example")],
        [HOST, (b"origin", b"null")],
        [HOST, (b"origin", b"http://evil.example")],
        [HOST, (b"origin", b"http://127.0.0.1:3000")],
        [HOST, (b"origin", b"http://localhost:8081")],
        [HOST, (b"origin", b"http://127.0.0.1:8081"), (b"origin", b"http://evil.example")],
        [HOST, (b"origin", b"")],
        [HOST, (b"sec-fetch-site", b"cross-site")],
        [HOST, (b"sec-fetch-site", b"same-site")],
        [HOST, (b"x-forwarded-for", b"203.0.113.9")],
        [HOST, (b"forwarded", b"for=203.0.113.9")],
        [HOST, (b"x-real-ip", b"203.0.113.9")],
        [HOST, (b"via", b"1.1 proxy")],
    ],
)
def test_pages_and_proxies_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    refusal = without_token("127.0.0.1", headers)
    assert refusal is not None
    assert refusal.code == "AD02"


async def test_with_a_token_every_spelling_of_every_path_asks_for_it() -> None:
    async with bench(App("tools"), token=TOKEN) as on:
        for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD", "TRACE"):
            for path in PATHS:
                answer = await raw(on.address, f"{method} {path} HTTP/1.1", f"Host: {on.address}")
                assert answer.startswith(b"HTTP/1.1 401 "), (method, path, answer)
                assert b"www-authenticate: Bearer" in answer
                assert b"access-control" not in answer.lower()
        for target in (f"http://{on.address}/v1/apps", "http://evil.example/v1/apps"):
            answer = await raw(on.address, f"GET {target} HTTP/1.1", f"Host: {on.address}")
            assert answer.startswith(b"HTTP/1.1 401 "), answer
        wrong = await on.client.get("/v1/apps", headers={"authorization": "Bearer wrong"})
        assert wrong.status_code == 401
        assert TOKEN not in wrong.text
        # With it, also from a page's origin or under another name: no page can send it.
        answer = await raw(on.address, "GET /v1/apps HTTP/1.1", "Host: admin.example", f"Authorization: Bearer {TOKEN}")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_without_a_token_a_rebound_page_reads_nothing_and_changes_nothing() -> None:
    async with bench(App("tools")) as on:
        body = json.dumps({"id": "i-9", "address": "10.0.0.7:1"}).encode()
        for lines in (
            ["Host: evil.example"],
            [f"Host: {on.address}", "Origin: http://evil.example"],
            [f"Host: {on.address}", "X-Forwarded-For: 203.0.113.9"],
        ):
            answer = await raw(on.address, "GET /v1/apps HTTP/1.1", *lines)
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b"tools" not in answer
            assert b"access-control" not in answer.lower()
            length = f"Content-Length: {len(body)}"
            answer = await raw(on.address, "POST /v1/apps/tools/machines HTTP/1.1", *lines, length, body=body)
            assert answer.startswith(b"HTTP/1.1 403 ")
        assert await on.get("/v1/apps/tools/machines") == []


async def test_refusals_do_not_fill_the_log() -> None:
    clock = Clock()
    access = Access(Starlette(), TOKEN, clock)
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
    statuses = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Message:
        raise AssertionError

    with capture_logs() as lines:
        for _ in range(100):
            await access(dict(scope), receive, send)
        clock.now_s += 1.0
        await access(dict(scope), receive, send)
    assert statuses == [401] * 101
    assert [line["count"] for line in lines] == [1, 100]


async def test_nothing_is_changed_by_reading() -> None:
    async with bench(App("tools")) as on:
        await on.client.post("/v1/apps/tools/machines", json={"id": "i-9", "address": "10.0.0.7:1"})
        machine = "/v1/apps/tools/machines/i-9"
        for action in ("start", "stop", "suspend", "cordon", "uncordon"):
            for method in ("GET", "HEAD"):
                response = await on.client.request(method, f"{machine}/{action}")
                assert response.status_code == 405
                assert response.headers["allow"] == "POST"
        assert (await on.get(machine))["record"]["counter"] == (await on.get(machine))["record"]["counter"]


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/apps/", "//v1/apps", "/v1/tasks", "/v1/apps/tools/machines/i-9/tasks"]
)
async def test_what_is_not_there_is_404_in_the_same_shape(path: str) -> None:
    async with bench(App("tools")) as on:
        response = await on.client.get(path)
        assert response.status_code == 404
        assert response.headers["moorage-error"] == response.json()["error"]["code"] == "AD03"
        assert response.headers["content-type"] == "application/json"
        assert response.headers["cache-control"] == "no-store"
