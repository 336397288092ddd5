"""The event loop of this folder's tests: with a gateway in them, the one that gateways run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.net.rig import Rig, open_rig


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Function
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "rig" in item.fixturenames:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A gateway in this process with the app `tools`, without instances."""
    async with open_rig() as one:
        yield one
