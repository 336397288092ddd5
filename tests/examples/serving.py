"""An example, served by a gateway of its own: what its README starts, started, on ports that the test owns."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.rigs.gateway import Gateway
from tests.rigs.run import REPO, Bench

EXAMPLES = REPO / "examples"


@asynccontextmanager
async def serving(example: str, directory: Path) -> AsyncIterator[tuple[Bench, Gateway]]:
    """The example's folder, copied to `directory`, and its file with this test's listeners in front."""
    with pytest.MonkeyPatch.context() as patch:
        # `python` and `node` are those beside this interpreter, as in an activated environment.
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        shutil.copytree(EXAMPLES / example, directory, dirs_exist_ok=True)
        async with Bench(directory) as bench:
            gateway = Gateway(bench, "gateway", (), {})
            text = (EXAMPLES / example / "moorage.toml").read_text()
            assert "[gateway]" not in text
            gateway.file.write_text(gateway.file.read_text() + text)
            await gateway.start()
            yield bench, gateway


def fresh(url: str) -> httpx2.AsyncClient:
    """A client that opens a connection for each request."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    return httpx2.AsyncClient(base_url=url, limits=limits, timeout=20.0, trust_env=False)
