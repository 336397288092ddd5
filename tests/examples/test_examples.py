"""Every example runs as its README says, through a gateway started with the example's own file."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from gateway.config import load
from tests.rigs.gateway import Gateway
from tests.rigs.run import REPO, Bench

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

EXAMPLES = REPO / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and not path.name.startswith("_"))


async def serve(bench: Bench, example: str) -> Gateway:
    """The example's file with listeners of this test's own in front; what the README starts, started."""
    shutil.copytree(EXAMPLES / example, bench.directory, dirs_exist_ok=True)
    gateway = Gateway(bench, "gateway", (), {})
    text = (EXAMPLES / example / "moorage.toml").read_text()
    assert "[gateway]" not in text
    gateway.file.write_text(gateway.file.read_text() + text)
    await gateway.start()
    return gateway


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.toml")), ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_the_file_is_valid(file: object) -> None:
    assert load(str(file)).apps


@pytest.mark.parametrize("example", NAMES)
def test_the_readme_names_every_file(example: str) -> None:
    text = (EXAMPLES / example / "README.md").read_text()
    for file in (EXAMPLES / example).iterdir():
        if file.suffix in (".py", ".toml"):
            assert file.name in text


async def test_python_mcp(bench: Bench) -> None:
    gateway = await serve(bench, "python-mcp")
    client = await bench.start("client", [sys.executable, str(bench.directory / "client.py"), f"{gateway.url}/mcp"])
    assert await client.wait() == 0, client.output() + gateway.process.output()
    said = re.findall(r"session (\d): (i-\d) keeps (.*)", client.output())
    kept = {number: [what.split(", ") for of, _, what in said if of == number] for number in "123"}
    assert kept["1"] == [["bread for 1"], ["bread for 1", "salt for 1"], ["bread for 1", "salt for 1", "tea for 1"]]
    assert kept["2"] == [["salt for 2"], ["salt for 2", "tea for 2"]]
    assert kept["3"] == [["tea for 3"]]
    places = {(number, instance) for number, instance, _ in said}
    assert len(places) == 3, f"a session moved: {sorted(places)}"
    assert len({instance for _, instance in places}) == 3, "the sessions did not spread"


@asynccontextmanager
async def visitor(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser, as far as cookies go."""
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=20.0) as browser:
        assert (await browser.get("/")).status_code == 200
        assert set(browser.cookies) == {"visitor", "board-instance"}
        yield browser


@asynccontextmanager
async def stream(browser: httpx2.AsyncClient) -> AsyncIterator[AsyncIterator[tuple[int, str]]]:
    """An open EventSource: counts, and who keeps them."""
    async with browser.stream("GET", "/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")

        async def heard() -> AsyncIterator[tuple[int, str]]:
            async for line in response.aiter_lines():
                event = re.fullmatch(r"data: (\d+), kept by (\S+)", line)
                if event is not None:
                    yield int(event[1]), event[2]

        yield heard()


async def test_eventsource(bench: Bench) -> None:
    gateway = await serve(bench, "eventsource")
    async with visitor(gateway) as ann, visitor(gateway) as bob:
        async with stream(ann) as of_ann:
            count, place = await anext(of_ann)
            assert count == 1
            async with stream(bob) as of_bob:
                assert (await anext(of_bob))[0] == 1
            # A visitor who came while the first one's stream was open was placed by his own cookie.
            assert [await anext(of_ann) for _ in range(2)] == [(2, place), (3, place)]
        async with stream(ann) as again:
            goes_on, same = await anext(again)
        assert same == place, "the stream came back at another process"
        assert goes_on > 3, "the count started over"
