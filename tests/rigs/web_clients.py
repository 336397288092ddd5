"""Clients that keep cookies, for `web_server`: WebSocket in Python, EventSource as browsers have it (npm).

A client says hello first, keeps whatever cookies it is given, and sends them with everything after.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.rigs import node

_STEP_S = 10.0


@dataclass(slots=True)
class Told:
    """What one client was told about who answers."""

    client: str
    instances: set[str] = field(default_factory=set)
    echoes: int = 0
    events: int = 0
    cookies: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


async def web_client(
    bases: Sequence[str],
    client: str,
    sockets: int,
    messages: int,
    events: int,
    cookies: Mapping[str, str] | None = None,
) -> Told:
    """Say hello, open `sockets` WebSockets one after another (`messages` echoes each), then read `events` events.

    With several `bases` every new connection goes to the next of them. `cookies` are those it comes with.
    """
    told = Told(client)
    urls = cycle(bases)
    async with httpx2.AsyncClient(trust_env=False, timeout=_STEP_S, cookies=dict(cookies or {})) as http:
        response = await http.get(f"{next(urls)}/hello", params={"client": client})
        told.instances.add(_place(response.json()))
        told.cookies = dict(http.cookies)
    cookie = "; ".join(f"{name}={value}" for name, value in told.cookies.items())
    for number in range(sockets):
        url = f"{next(urls).replace('http', 'ws', 1)}/ws?client={client}"
        try:
            async with asyncio.timeout(_STEP_S):
                await _echo(url, cookie, f"{client}-{number}", messages, told)
        except (WebSocketException, OSError, TimeoutError) as error:
            told.errors.append(f"{client} socket {number}: {error!r}")
    if events:
        await _events(bases, cookie, events, told)
    return told


async def _echo(url: str, cookie: str, name: str, messages: int, told: Told) -> None:
    """Text and binary, small and larger than one buffer, in turn."""
    async with connect(url, additional_headers={"Cookie": cookie}, max_size=None, proxy=None) as socket:
        told.instances.add(_place(json.loads(await socket.recv())))
        for number in range(messages):
            text = f"{name}-{number}-" + "x" * (200_000 if number % 3 == 2 else 10)
            sent: str | bytes = text.encode() if number % 2 else text
            await socket.send(sent)
            if await socket.recv() == sent:
                told.echoes += 1
            else:
                told.errors.append(f"{name}: message {number} came back different")


async def _events(bases: Sequence[str], cookie: str, events: int, told: Told) -> None:
    config = {"bases": list(bases), "client": told.client, "cookie": cookie, "burst": 3, "until": events}
    heard = await node.script("event_source.mjs", config)
    numbers = [event["n"] for event in heard["events"]]
    if numbers != list(range(1, events + 1)):
        told.errors.append(f"{told.client} heard {numbers}, not 1..{events}")
    told.errors += heard["errors"]
    told.events = len(numbers)
    told.instances |= {_place(event) for event in heard["events"]}


def _place(stamp: dict[str, str]) -> str:
    return f"{stamp['instance']}/{stamp['boot']}"
