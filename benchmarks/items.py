"""What is measured: each item is one way to load a running proxy, and the columns that come of it.

An item returns plain numbers in SI units, once per round; rounds.py makes figures of them and report.py a table.
"""

from typing import Any

from benchmarks.bench import Bench, Column, Item, Sample
from benchmarks.parked import PARKED
from benchmarks.peers import Peer, Proxy
from benchmarks.processes import Broken
from benchmarks.wakes import WAKE

CONNECTIONS = 32
STREAMS = 100
EVENTS_PER_S = 5000


def _posts(
    bench: Bench, port: int, connections: int, count: int, proxy: Proxy | None = None, *path: str
) -> dict[str, Any]:
    """Run one closed loop; with a proxy, `cpu_s` is what the proxy used meanwhile."""
    with bench.load("posts", port, connections, count, *path) as load:
        before_s = proxy.process.cpu_s() if proxy else 0.0
        load.tell("go")
        result = load.result()
        result["cpu_s"] = proxy.process.cpu_s() - before_s if proxy else 0.0
    if result["failed"]:
        raise Broken(f"{result['failed']} of {count} requests were not answered 200")
    return result


def pinned(bench: Bench, proxy: Proxy) -> Sample:
    """CPU per request of open sessions, over kept connections."""
    count = bench.amount(20_000, 5_000, proxy.peer.share)
    result = _posts(bench, proxy.port, CONNECTIONS, count, proxy)
    return {
        "cpu_s": result["cpu_s"] / count,
        "p50_s": result["p50_s"],
        "p99_s": result["p99_s"],
        "per_s": count / result["seconds"],
        "kept": result["sessions_kept"] / result["sessions"],
    }


def replays(bench: Bench, proxy: Proxy) -> Sample:
    """CPU per request that an app replays to another one, and per one whose replay is cached, beside a plain one's."""
    count = bench.amount(20_000, 5_000)
    cpu_s = {
        path: _posts(bench, proxy.port, CONNECTIONS, count, proxy, path)["cpu_s"] / count
        for path in ("/plain", "/replay", "/replay/cached")
    }
    plain_s, replay_s, cached_s = cpu_s.values()
    return {
        "plain_s": plain_s,
        "replay_s": replay_s,
        "replay_x": replay_s / plain_s,
        "cached_s": cached_s,
        "cached_x": cached_s / plain_s,
    }


def latency(bench: Bench, proxy: Proxy) -> Sample:
    """What the proxy adds to the latency of an instance, one request at a time; both are measured, in turn."""
    count = bench.amount(5_000, 2_000, proxy.peer.share)
    direct = _posts(bench, bench.instances[0], 1, count)
    through = _posts(bench, proxy.port, 1, count)
    return {
        "added_p50_s": through["p50_s"] - direct["p50_s"],
        "added_p99_s": through["p99_s"] - direct["p99_s"],
        "direct_p50_s": direct["p50_s"],
    }


def events(bench: Bench, proxy: Proxy) -> Sample:
    """CPU per event of open streams."""
    count = bench.amount(10_000, 5_000)
    with bench.load("streams", proxy.port, STREAMS, count) as load:
        before_s = proxy.process.cpu_s()
        bench.emit(count, EVENTS_PER_S, STREAMS)
        result = load.result()
        cpu_s = proxy.process.cpu_s() - before_s
        bench.end_streams()
    return {
        "cpu_s": cpu_s / count,
        "delay_p50_s": result["delay_p50_s"],
        "delay_p99_s": result["delay_p99_s"],
        "lost": count - result["received"],
        "disordered": result["disordered"],
    }


def memory(bench: Bench, proxy: Proxy) -> Sample:
    """Memory per open stream that has relayed an event, against a first reading after a little of everything."""
    _posts(bench, proxy.port, CONNECTIONS, bench.amount(2_000, 1_000, proxy.peer.share))
    _open_streams(bench, proxy, 1)
    before_bytes = proxy.process.memory_bytes()
    streams = bench.amount(1_000, 300)
    return {"bytes": (_open_streams(bench, proxy, streams) - before_bytes) / streams}


def _open_streams(bench: Bench, proxy: Proxy, streams: int) -> int:
    """Open streams, pass one event through each; returns the proxy's memory in bytes at that point."""
    with bench.load("streams", proxy.port, streams, streams) as load:
        bench.emit(streams, EVENTS_PER_S, streams)
        load.answer()
        in_use_bytes = proxy.process.memory_bytes()
        bench.end_streams()
    return in_use_bytes


def _streams_pass(peer: Peer) -> bool:
    return peer.streams


ITEMS = (
    Item(
        "requests",
        f"Pinned requests: small JSON POSTs of {CONNECTIONS} sessions, keep-alive, closed loop",
        "haproxy",
        (
            Column("cpu_s", "CPU us per request", 1e6, compared=True),
            Column("p50_s", "p50 us", 1e6, 0),
            Column("p99_s", "p99 us", 1e6, 0),
            Column("per_s", "requests/s", 1, 0),
            Column("kept", "sessions kept %", 100, 0),
        ),
        pinned,
    ),
    Item(
        "replays",
        f"Replays: small POSTs of {CONNECTIONS} connections, keep-alive, closed loop",
        "moorage",
        (
            Column("plain_s", "CPU us per plain request", 1e6),
            Column("replay_s", "per replayed one", 1e6),
            Column("replay_x", "x plain", 1, 2),
            Column("cached_s", "per one from a cache", 1e6),
            Column("cached_x", "x plain", 1, 2),
        ),
        replays,
        applies=lambda peer: peer.name == "moorage",
    ),
    Item(
        "latency",
        "Latency added to the instance's own, 1 connection, everything on one core",
        "haproxy",
        (
            Column("added_p50_s", "added p50 us", 1e6, compared=True),
            Column("added_p99_s", "added p99 us", 1e6, compared=True),
            Column("direct_p50_s", "instance alone p50 us", 1e6),
        ),
        latency,
        one_core=True,
    ),
    Item(
        "events",
        f"SSE relay: {STREAMS} streams, {EVENTS_PER_S} events/s in all",
        "nginx",
        (
            Column("cpu_s", "CPU us per event", 1e6, compared=True),
            Column("delay_p50_s", "delay p50 us", 1e6, 0),
            Column("delay_p99_s", "delay p99 us", 1e6, 0),
            Column("lost", "lost", 1, 0),
            Column("disordered", "out of order", 1, 0),
        ),
        events,
        applies=_streams_pass,
    ),
    Item(
        "memory",
        "Memory per open SSE session",
        "nginx",
        (Column("bytes", "KiB per stream", 1 / 1024, compared=True),),
        memory,
        applies=_streams_pass,
        fresh=True,
        rounds=3,
        short_rounds=1,
    ),
    WAKE,
    PARKED,
)
