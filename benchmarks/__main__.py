"""`python -m benchmarks`: run every item over the peers, in interleaved rounds, and print what came of it."""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench, Item
from benchmarks.items import ITEMS
from benchmarks.peers import PEERS, Peer, Proxy
from benchmarks.processes import Broken, cores, descriptor_limit, python, started
from benchmarks.report import Result, as_json, markdown

INSTANCES = ("i-1", "i-2", "i-3", "issuer")


def run(item: Item, bench: Bench, peers: Sequence[Peer]) -> Result:
    """Measure every peer once per round, in turn. A peer that breaks is left out from then on, with the reason."""
    result = Result(item, peers)
    core = None if item.any_core else cores()[1 if item.one_core else 0]

    def start(stack: contextlib.ExitStack, peer: Peer) -> Proxy:
        folder = Path(tempfile.mkdtemp(prefix=f"{peer.name}-", dir=bench.folder))
        return stack.enter_context(peer.running(folder, bench.instances, core))

    with contextlib.ExitStack() as kept:
        proxies: dict[str, Proxy] = {}
        for number in range(item.short_rounds if bench.short else item.rounds):
            for peer in peers:
                if not item.applies(peer) or peer.name in result.broken:
                    continue
                print(f"{item.name}: round {number + 1}, {peer.name}", file=sys.stderr)
                try:
                    with contextlib.ExitStack() as own:
                        if item.fresh:
                            proxy = start(own, peer)
                        else:
                            proxy = proxies[peer.name] = proxies.get(peer.name) or start(kept, peer)
                        result.samples.setdefault(peer.name, []).append(item.measure(bench, proxy))
                except Broken as broken:
                    print(broken.words, broken, sep="\n", file=sys.stderr)
                    result.broken[peer.name] = str(broken)
                    result.samples.pop(peer.name, None)
                    bench.end_streams()
    return result


def chosen(names: Sequence[str]) -> list[Peer]:
    """The named peers, or the default ones."""
    return present([peer for peer in PEERS if (peer.name in names if names else peer.default)])


def present(peers: Sequence[Peer]) -> list[Peer]:
    """Those that can be measured here."""
    lacking = {peer.name: peer.lacking() for peer in peers}
    for name, reason in lacking.items():
        if reason:
            print(f"{name} is left out: {reason}", file=sys.stderr)
    return [peer for peer in peers if not lacking[peer.name]]


def measured(item: Item, peers: Sequence[Peer]) -> Sequence[Peer]:
    """Who is measured: of an item that has its own, those, if Moorage was asked for."""
    if not item.own:
        return peers
    return present(item.own) if any(peer.name == "moorage" for peer in peers) else []


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description="Measure the gateway beside its peers.")
    names = [item.name for item in ITEMS]
    parser.add_argument(
        "--only", action="append", default=[], choices=names, help="run this item only; may be repeated"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        choices=[peer.name for peer in PEERS],
        help="measure this peer; may be repeated",
    )
    parser.add_argument(
        "--short", action="store_true", help="a few seconds per item: shows that it works, not how fast"
    )
    parser.add_argument("--json", action="store_true", help="print samples and figures as JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, so that nothing started here stays behind
    descriptor_limit()
    peers = chosen(options.peer)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-bench-")))
        upstream = stack.enter_context(
            started(python("benchmarks.upstream", *INSTANCES), core=cores()[1], log=folder / "upstream.log", talks=True)
        )
        _, *ports = upstream.answer().split()
        bench = Bench(upstream, list(map(int, ports)), folder, options.short)
        results = [
            run(item, bench, measured(item, peers)) for item in ITEMS if not options.only or item.name in options.only
        ]
    print(as_json(results) if options.json else markdown(results))
    return 1 if any(result.broken for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
