"""One request and its answer, seen from outside: what an instance is sent, what a client gets back."""

from __future__ import annotations

import ipaddress

import pytest

from tests.net.rig import Rig

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"GET / HTTP/1.1\r\nHost: tools.localhost\r\n"


@pytest.mark.parametrize(
    "target",
    [
        b"/", b"/?", b"//", b"/a%2f..%2fb/../c?x=1&y", b"/./a/../b/%2e%2e/c", b"/a?b?c=%00%0d%0a", b"/;a=b;c",
        b"/a//b///", b"/\\a|b^`{}<>\"'", b"/%zz%", b"/a?=&&=", b"/*", b"/" + b"x" * 8000,
    ],
)  # fmt: skip
async def test_the_target_arrives_byte_for_byte(rig: Rig, target: bytes) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    await rig.ask(b"GET " + target + b" HTTP/1.1\r\nHost: tools.localhost\r\n\r\n")
    assert instance.requests[0].first == b"GET " + target + b" HTTP/1.1"


async def test_an_absolute_target_arrives_as_a_path(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    await rig.ask(b"GET http://tools.localhost/a?b HTTP/1.1\r\nHost: tools.localhost\r\n\r\n")
    assert instance.requests[0].first == b"GET /a?b HTTP/1.1"


@pytest.mark.parametrize("strip", [False, True])
async def test_options_for_the_server_as_a_whole(rig: Rig, strip: bool) -> None:
    rig.app(strip_path=strip)
    instance = await rig.instance()
    instance.answers(OK)
    answer = await rig.ask(b"OPTIONS * HTTP/1.1\r\nHost: tools.localhost\r\n\r\n")
    assert answer.status == 200
    assert instance.requests[0].first == b"OPTIONS * HTTP/1.1"


async def test_a_stripped_prefix_does_not_arrive(rig: Rig) -> None:
    rig.app(path="/tools", strip_path=True)
    instance = await rig.instance()
    instance.answers(OK)
    for sent in (b"/tools/a%2Fb?c", b"/tools?c", b"/tools"):
        await rig.ask(b"GET " + sent + b" HTTP/1.1\r\nHost: tools.localhost\r\n\r\n")
    assert [one.first.split()[1] for one in instance.requests] == [b"/a%2Fb?c", b"/?c", b"/"]
    answer = await rig.ask(b"GET /toolsmith HTTP/1.1\r\nHost: tools.localhost\r\n\r\n")
    assert (answer.status, answer.one("moorage-error")) == (404, "PB13")


async def test_order_and_case_of_the_fields_are_kept_both_ways(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(
        b"POST /mcp HTTP/1.1\r\nX-Zebra: 1\r\naccept: text/event-stream\r\nHOST: tools.localhost\r\n"
        b"X-a:2\r\nCOOKIE:  a=b; c=d\r\nx-A: 3\r\nContent-LENGTH: 1\r\nCookie: e=f\r\n\r\nx"
    )
    wire, request = await instance.request()
    ours = request.names.index("Fly-Client-IP")
    assert request.lines[: ours - 1] == [
        f"Host: {rig.known().address}".encode(),
        b"X-Zebra: 1",
        b"accept: text/event-stream",
        b"X-a:2",
        b"COOKIE:  a=b; c=d",
        b"x-A: 3",
        b"Cookie: e=f",
    ]
    assert request.one("content-length") == "1"
    wire.send(b"HTTP/1.1 299 Rather \xe9\r\nset-cookie: 1\r\nX-b: 2\r\nSET-Cookie:3\r\ncontent-length: 0\r\n\r\n")
    answer = await client.answer()
    assert answer.first == b"HTTP/1.1 299 Rather \xe9"
    assert answer.lines[:3] == [b"set-cookie: 1", b"X-b: 2", b"SET-Cookie:3"]
    assert answer.names[3:] == ["Content-Length", "Via", "Fly-Request-Id"]


async def test_fields_of_one_hop_go_no_further(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(
        HEAD,
        b"Connection: keep-alive, X-Mine\r\nconnection: x-also\r\nX-Mine: 1\r\nX-ALSO: 2\r\nKeep-Alive: timeout=1\r\n"
        b"Proxy-Connection: close\r\nProxy-Authorization: x\r\nTE: trailers\r\nX-Theirs: 3\r\n\r\n",
    )
    wire, request = await instance.request()
    assert [name for name in request.names if not name.startswith(("Fly-", "X-Forwarded-"))] == [
        "Host",
        "X-Theirs",
        "Via",
    ]
    wire.send(
        b"HTTP/1.1 200 OK\r\nConnection: X-Ours, keep-alive\r\nX-Ours: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: x\r\nTE: x\r\nX-All: 1\r\nContent-Length: 0\r\n\r\n"
    )
    assert (await client.answer()).names == ["X-All", "Content-Length", "Via", "Fly-Request-Id"]


async def test_blanks_around_values_do_not_arrive(rig: Rig) -> None:
    """httptools keeps trailing ones, and Python's servers take MCP values with them for other values."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(HEAD, b"Mcp-Method:\ttools/list \t\r\nX-A: b \r\nX-B:   c\r\nX-C: \t \r\n\r\n")
    wire, request = await instance.request()
    assert request.lines[1:5] == [b"Mcp-Method: tools/list", b"X-A: b", b"X-B:   c", b"X-C: "]
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length:2 \r\nX-A: b\t\r\n\r\nok")
    answer = await client.answer()
    assert answer.lines[0] == b"X-A: b"
    assert answer.body == b"ok"


# --- provenance ------------------------------------------------------------------------


async def test_who_asked_is_said_by_the_gateway_alone(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    answer = await rig.ask(
        HEAD + b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: evil\r\nX-Forwarded-Port: 443\r\nX-Forwarded-SSL: on\r\nForwarded: for=1.1.1.1\r\n"
        b"Fly-Client-IP: 1.1.1.1\r\nFly-Region: xyz\r\nFly-Forwarded-Port: 1\r\nFly-Request-Id: mine\r\n"
        b"fly-replay-src: instance=x\r\nfly-replay-failed: x\r\nfly-replay-cache-status: hit\r\n"
        b"fly-preferred-instance-unavailable: x\r\nVia: 1.0 proxy\r\nmoorage-internal: x\r\n\r\n"
    )
    request = instance.requests[0]
    port = str(rig.address.port)
    assert request.lines[1:-1] == [
        b"Fly-Client-IP: 127.0.0.1",
        b"Fly-Forwarded-Port: " + port.encode(),
        b"Fly-Region: local",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Port: " + port.encode(),
        b"X-Forwarded-SSL: off",
        b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 127.0.0.1",
        b"X-Forwarded-Host: tools.localhost",
        b"Via: 1.0 proxy, 1.1 moorage",
    ]
    request_id = request.one("fly-request-id")
    assert request_id is not None
    assert request_id.endswith("-local")
    assert answer.one("fly-request-id") == request_id
    assert answer.one("via") == "1.1 moorage"


async def test_who_asked_is_believed_from_a_trusted_proxy(rig: Rig) -> None:
    rig.gateway.trusted_proxies = (ipaddress.ip_network("127.0.0.0/8"),)
    instance = await rig.instance()
    instance.answers(OK)
    await rig.ask(
        HEAD + b"X-Forwarded-For: 3.3.3.3, 2.2.2.2, 127.0.0.9\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\nFly-Client-IP: 1.1.1.1\r\n\r\n"
    )
    request = instance.requests[0]
    assert request.one("fly-client-ip") == "2.2.2.2"
    assert request.one("x-forwarded-for") == "3.3.3.3, 2.2.2.2, 127.0.0.9, 127.0.0.1"
    assert request.one("x-forwarded-host") == "shop.example"
    assert (request.one("x-forwarded-proto"), request.one("x-forwarded-ssl")) == ("https", "on")
    assert request.one("x-forwarded-port") == "443"
    assert request.one("fly-forwarded-port") == str(rig.address.port)


async def test_request_ids_differ(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    client = await rig.client()
    ids = set()
    for _ in range(5):
        client.send(HEAD, b"\r\n")
        ids.add((await client.answer()).one("fly-request-id"))
    assert len(ids) == 5


@pytest.mark.parametrize("preserve", [False, True])
async def test_which_host_an_instance_sees(rig: Rig, preserve: bool) -> None:
    """Python's MCP servers bound to localhost refuse any other Host with 421: so the instance's own is sent."""
    rig.app(preserve_host=preserve)
    instance = await rig.instance()
    instance.answers(OK)
    await rig.ask(b"GET / HTTP/1.1\r\nHost: Tools.Localhost:81\r\n\r\n")
    assert instance.requests[0].one("host") == ("Tools.Localhost:81" if preserve else str(rig.known().address))
    assert instance.requests[0].one("x-forwarded-host") == "Tools.Localhost:81"


# --- answers without a body ------------------------------------------------------------


async def test_the_answer_to_head_tells_the_length_and_has_no_body(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: x\r\n\r\n")
    client = await rig.client()
    for _ in range(2):
        client.send(b"HEAD / HTTP/1.1\r\nHost: tools.localhost\r\n\r\n")
        answer = await client.answer("HEAD")
        assert (answer.status, answer.one("content-length"), answer.one("etag")) == (200, "1234", "x")
    assert instance.accepted == 1


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", None),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", "77"),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "0"),
    ],
)
async def test_statuses_without_a_body(rig: Rig, answer: bytes, length: str | None) -> None:
    instance = await rig.instance()
    instance.answers(answer)
    client = await rig.client()
    for _ in range(2):
        client.send(HEAD, b"\r\n")
        got = await client.answer("HEAD")
        assert (got.status, got.one("content-length"), got.one("transfer-encoding")) == (
            int(answer[9:12]),
            length,
            None,
        )
    assert instance.accepted == 1


# --- HTTP/1.0 --------------------------------------------------------------------------


async def test_a_client_of_http_1_0_is_answered_and_closed(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(OK)
    client = await rig.client()
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = await client.answer()
    assert (answer.body, answer.one("connection"), answer.one("content-length")) == (b"ok", "close", "2")
    assert await client.rest() == b""
    assert instance.requests[0].first == b"GET / HTTP/1.1"
    assert instance.requests[0].one("via") == "1.0 moorage"


async def test_a_client_of_http_1_0_gets_no_chunks(rig: Rig) -> None:
    instance = await rig.instance()
    instance.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;x=y\r\nay!\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    answer = await rig.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert (answer.framing, answer.body) == ("close", b"okay!")


async def test_an_instance_of_http_1_0(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(HEAD, b"\r\n")
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    wire.close()
    answer = await client.answer()
    assert (answer.framing, answer.body, answer.one("via")) == ("chunked", b"until the end", "1.0 moorage")
    client.send(HEAD, b"\r\n")
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    assert (await client.answer()).body == b"ok"
    client.send(HEAD, b"\r\n")
    await wire.request()
    wire.send(OK)
    await client.answer()
    assert instance.accepted == 2


async def test_a_pristine_app_is_answered_without_what_the_gateway_adds(rig: Rig) -> None:
    rig.app(pristine=True)
    instance = await rig.instance()
    instance.answers(b"HTTP/1.1 200 OK\r\nServer: own\r\nVia: 1.1 inner\r\nContent-Length: 2\r\n\r\nok")
    answer = await rig.ask(b"GET / HTTP/1.1\r\nHost: tools.localhost\r\n\r\n")
    assert answer.names == ["Server", "Content-Length", "Via"]
    assert answer.one("via") == "1.1 inner"
    assert instance.requests[0].one("fly-request-id") is not None
