"""What the live tests share: a bench for their processes, and the JavaScript peers installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rigs import node
from tests.rigs.run import Bench


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("live")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(180))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Processes that end with the test."""
    async with Bench(tmp_path) as own:
        yield own


@pytest.fixture(scope="session")
def peers() -> None:
    """The npm packages of tests/live/node, installed from the lock."""
    asyncio.run(node.install())
