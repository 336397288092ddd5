"""Upgrades: after a 101 the two connections are one, bytes to bytes; without one it was a request like any other."""

from __future__ import annotations

import pytest

from tests.net.rig import RawInstance, Rig, until
from tests.net.wire import Wire

HOST = b"Host: tools.localhost\r\n"
UPGRADE = (
    b"GET /ws?x=1 HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\nOrigin: http://a\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def tunnel(rig: Rig, instance: RawInstance) -> tuple[Wire, Wire]:
    """A tunnel's client end and instance end."""
    client = await rig.client()
    client.send(UPGRADE)
    wire, _ = await instance.request()
    wire.send(SWITCH)
    assert (await client.answer()).status == 101
    return client, wire


async def test_the_handshake_goes_through(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(UPGRADE)
    wire, request = await instance.request()
    assert request.first == b"GET /ws?x=1 HTTP/1.1"
    assert request.lines[:6] == [
        f"Host: {rig.known().address}".encode(),
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"sec-websocket-version: 13",
        b"Origin: http://a",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
    ]
    wire.send(SWITCH)
    answer = await client.answer()
    assert answer.first == b"HTTP/1.1 101 Switching Protocols"
    assert (answer.one("connection"), answer.one("upgrade")) == ("Upgrade", "websocket")
    assert answer.one("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    wire.close()
    assert await client.rest() == b""


async def test_bytes_go_both_ways(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await tunnel(rig, instance)
    every_byte = bytes(range(256))
    for here, there in ((client, wire), (wire, client), (client, wire)):
        here.send(every_byte, b"GET /smuggled HTTP/1.1\r\n\r\n", b"\r\n0\r\n\r\n")
        assert await there.exactly(256 + 33) == every_byte + b"GET /smuggled HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"
    client.close()
    assert await wire.rest() == b""
    wire.close()


async def test_what_came_early_is_not_lost(rig: Rig) -> None:
    """A client may speak at the heels of its request, an instance at the heels of its 101."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(UPGRADE, b"early from the client")
    wire = await instance.accept()
    await wire.head()
    client.send(b", and more")
    wire.send(SWITCH, b"early from the instance")
    assert (await client.answer()).status == 101
    assert await client.exactly(23) == b"early from the instance"
    assert await wire.exactly(31) == b"early from the client, and more"
    wire.close()
    await client.rest()


async def test_nothing_goes_through_before_the_101(rig: Rig) -> None:
    """What a client says before it knows the answer may be a request of its own."""
    instance = await rig.instance()
    client = await rig.client()
    client.send(UPGRADE, b"GET /b HTTP/1.1\r\n" + HOST + b"\r\n")
    wire, _ = await instance.request()
    wire.send(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
    answer = await client.answer()
    assert (answer.status, answer.body) == (426, b"no")
    request = await wire.request()
    assert request.first == b"GET /b HTTP/1.1"
    assert request.one("upgrade") is None
    wire.send(OK)
    assert (await client.answer()).body == b"ok"
    assert instance.accepted == 1


@pytest.mark.parametrize("first", ["client", "instance"])
async def test_one_side_may_end_before_the_other(rig: Rig, first: str) -> None:
    instance = await rig.instance()
    client, wire = await tunnel(rig, instance)
    one, other = (client, wire) if first == "client" else (wire, client)
    one.send(b"last words")
    one.end()
    assert await other.rest() == b"last words"
    other.send(b"x" * 100_000)
    assert await one.exactly(100_000) == b"x" * 100_000
    other.end()
    assert await one.rest() == b""
    await until(lambda: rig.gateway.pool.open == 0, "the end of the tunnel")


@pytest.mark.parametrize("first", ["client", "instance"])
async def test_a_side_that_breaks_off_ends_the_other(rig: Rig, first: str) -> None:
    instance = await rig.instance()
    client, wire = await tunnel(rig, instance)
    one, other = (client, wire) if first == "client" else (wire, client)
    one.reset()
    await other.is_cut()
    await until(lambda: rig.gateway.counters.outcomes["tools", "completed"] == 1, "the outcome")


async def test_a_tunnel_is_a_connection_and_a_stream_until_it_ends(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await tunnel(rig, instance)
    load = rig.gateway.loads.of("tools", "i-1")
    assert (load.requests, load.streams) == (0, 1)
    assert (len(rig.gateway.edges), len(rig.state.connections), rig.gateway.pool.open) == (1, 1, 1)
    rig.limit(connections=1)
    other = await rig.client()
    assert (await other.answer()).one("moorage-error") == "PL01"
    client.close()
    wire.close()
    await until(lambda: not rig.gateway.edges, "the end")
    assert (load.requests, load.streams) == (0, 0)
    assert rig.gateway.pool.open == 0
    assert rig.gateway.counters.requests["tools", 101] == 1


async def test_a_tunnel_has_no_deadline(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await tunnel(rig, instance)
    rig.sweep(86_400)
    client.send(b"still here")
    assert await wire.exactly(10) == b"still here"
    wire.close()
    await client.rest()


async def test_the_end_of_the_server_ends_a_tunnel(rig: Rig) -> None:
    instance = await rig.instance()
    client, wire = await tunnel(rig, instance)
    rig.gateway.drain()
    for connection in list(rig.state.connections):
        connection.shutdown()
    assert await client.rest() == b""
    await wire.is_cut()


async def test_an_unasked_101_reaches_no_client(rig: Rig) -> None:
    instance = await rig.instance()
    client = await rig.client()
    client.send(b"GET /ws HTTP/1.1\r\n", HOST, b"Upgrade: websocket\r\n\r\n")
    wire, request = await instance.request()
    assert request.one("upgrade") is None
    wire.send(SWITCH, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (502, "PH05")
    await wire.is_cut()


async def test_an_upgrade_is_pinned_by_the_affinity_cookie(rig: Rig) -> None:
    """Also when nothing came before it: browsers keep the cookie of a 101."""
    rig.app(affinity_cookie="pin")
    one, other = await rig.instance("i-1"), await rig.instance("i-2")
    client = await rig.client()
    client.send(UPGRADE)
    wire, _ = await one.request()
    wire.send(SWITCH)
    cookie = (await client.answer()).one("set-cookie")
    assert cookie is not None
    assert cookie.startswith("pin=")
    second = await rig.client()
    second.send(UPGRADE.replace(HOST, HOST + b"Cookie: " + cookie.partition(";")[0].encode() + b"\r\n"))
    # The first instance carries a stream and the second nothing: but for the cookie it would be the second.
    again, _ = await one.request()
    again.send(SWITCH)
    assert (await second.answer()).one("set-cookie") is None
    assert other.untouched
    for end in (wire, again):
        end.close()
    await client.rest()
    await second.rest()


async def test_an_upgrade_that_no_instance_takes(rig: Rig) -> None:
    client = await rig.client()
    client.send(UPGRADE)
    answer = await client.answer()
    assert (answer.status, answer.one("moorage-error")) == (503, "PR01")


async def test_a_sleeping_instance_is_woken_for_an_upgrade(rig: Rig) -> None:
    rig.asleep("i-1")
    client = await rig.client()
    client.send(UPGRADE, b"early")
    _, outcome = await rig.waker.asked.get()
    instance = await rig.instance("i-1")
    outcome.set_result(rig.known())
    wire = await instance.accept()
    await wire.head()
    wire.send(SWITCH)
    assert (await client.answer()).status == 101
    assert await wire.exactly(5) == b"early"
    wire.close()
    await client.rest()
