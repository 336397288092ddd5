"""The private listener: every app is also known by its name, as `<app>.flycast`; the public one knows none of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from uvicorn import Config

from gateway.data.edge import protocol_class
from tests.net.rig import Rig
from tests.net.wire import Message, dial

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(host: str) -> bytes:
    return f"GET /a HTTP/1.1\r\nHost: {host}\r\nfly-client-ip: 1.2.3.4\r\n\r\n".encode()


@asynccontextmanager
async def private(rig: Rig) -> AsyncIterator[int]:
    """The port of a private listener of the rig's gateway."""
    loop = asyncio.get_running_loop()
    make = protocol_class(rig.gateway, private=True)
    config = Config(rig.gateway.slow_path, log_config=None, ws="none", lifespan="off")
    server = await loop.create_server(lambda: make(config, rig.state, {}, loop), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(rig: Rig, port: int, host: str) -> Message:
    client = rig.keep(await dial("127.0.0.1", port))
    client.send(get(host))
    return await client.answer()


@pytest.mark.parametrize("host", ["tools.flycast", "TOOLS.flycast:8080", "tools.example"])
async def test_an_app_is_known_by_its_name_and_by_its_hosts(rig: Rig, host: str) -> None:
    rig.app(hosts=("tools.example",), path="/a")
    instance = await rig.instance()
    instance.answers(OK)
    async with private(rig) as port:
        assert (await ask(rig, port, host)).status == 200
    # No more is believed here than in public.
    assert instance.requests[0].one("fly-client-ip") == "127.0.0.1"


@pytest.mark.parametrize("host", ["other.flycast", "flycast", ".flycast", "tools.example.flycast"])
async def test_no_other_name_of_that_domain_is_known(rig: Rig, host: str) -> None:
    rig.app(hosts=("tools.example",))
    instance = await rig.instance()
    async with private(rig) as port:
        assert (await ask(rig, port, host)).one("moorage-error") in ("PB13", "PB02")
    assert instance.untouched


async def test_the_public_listener_does_not_know_the_names(rig: Rig) -> None:
    rig.app(hosts=("tools.example",))
    instance = await rig.instance()
    assert (await rig.ask(get("tools.flycast"))).one("moorage-error") == "PB13"
    assert instance.untouched
