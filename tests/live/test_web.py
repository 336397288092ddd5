"""Not MCP: a WebSocket echo and a plain EventSource application, each client pinned by cookie."""

from __future__ import annotations

import asyncio

import pytest

from tests.rigs import servers
from tests.rigs.gateway import Gateway
from tests.rigs.run import Bench
from tests.rigs.web_clients import web_client

CLIENTS = 8


@pytest.mark.parametrize("gateways", [1, 2])
async def test_a_cookie_brings_a_client_back(bench: Bench, peers: None, gateways: int) -> None:
    """Hello, then three WebSockets, then an EventSource over several reconnects: one instance for each client."""
    instances = await servers.start(bench, "web_server", 3)
    app = instances.app("web", affinity_cookie="moorage")
    rigs = [await Gateway.serve(bench, f"gateway-{number}", app) for number in range(gateways)]
    bases = [gateway.url for gateway in rigs]
    told = await asyncio.gather(
        *(web_client(bases, f"client-{number}", sockets=3, messages=6, events=9) for number in range(CLIENTS))
    )
    for client in told:
        assert client.errors == []
        assert set(client.cookies) == {"moorage"}
        assert (client.echoes, client.events) == (18, 9)
        assert len(client.instances) == 1, f"{client.client} was at {client.instances}"
    places: dict[str, set[tuple[str, str]]] = {}
    for entry in instances.entries():
        places.setdefault(entry.session, set()).add(entry.where)
    assert {client: len(where) for client, where in places.items()} == {client.client: 1 for client in told}
    assert len({where for wheres in places.values() for where in wheres}) > 1, "all at one instance: nothing was shown"


async def test_a_cookie_of_the_app_itself_is_a_key(bench: Bench) -> None:
    """`key = ["cookie:sid"]`: hashed, no cookie of ours; two gateways agree without talking."""
    instances = await servers.start(bench, "web_server", 3)
    app = instances.app("web", key=["cookie:sid"])
    bases = [(await Gateway.serve(bench, f"gateway-{number}", app)).url for number in range(2)]
    for number in range(CLIENTS):
        told = await web_client(
            bases, f"client-{number}", sockets=2, messages=2, events=0, cookies={"sid": f"s-{number}"}
        )
        assert told.errors == []
        assert len(told.instances) == 1
    assert len({entry.instance for entry in instances.entries()}) > 1
