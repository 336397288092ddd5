"""`moorage demo`, as someone would run it: sessions at servers that slept, and nothing left after Ctrl-C."""

from __future__ import annotations

import re
from pathlib import Path

from tests.rigs.run import Bench, until

SAID = re.compile(r"session \d: (.*)")
KEPT = re.compile(r"(\d+) \(kept by (\w+)\)")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_demo(bench: Bench) -> None:
    demo = await bench.python("demo", "gateway", "demo")
    await demo.says("Ctrl-C")
    endpoint = re.search(r"http://127\.0\.0\.1:(\d+)/mcp", demo.output())
    assert endpoint is not None, demo.output()
    await demo.ready(int(endpoint[1]))

    client = await bench.python("client", "gateway.demo.client", endpoint[0], "--sessions", "3", "--calls", "4")
    assert await client.wait() == 0, client.output() + demo.output()
    sessions = [KEPT.findall(line) for line in SAID.findall(client.output())]
    assert len(sessions) == 3
    for kept in sessions:
        assert [count for count, _ in kept] == ["1", "2", "3", "4"]
        assert len({name for _, name in kept}) == 1, f"a session moved: {kept}"
    assert len({kept[0][1] for kept in sessions}) > 1, "one server kept every session: the others slept on"

    started = demo.children()
    assert started, "no server was started"
    assert await demo.interrupt() in (0, 130), demo.output()
    await until(lambda: not any(alive(pid) for pid in started), "the demo's servers end with it")
