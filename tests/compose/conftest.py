"""What the tests with a Docker engine share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rigs.run import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Processes that end with the test."""
    async with Bench(tmp_path) as own:
        yield own
