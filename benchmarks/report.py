"""From samples to what is printed: one markdown table per item, or everything as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bench import Column, Item, Sample
from benchmarks.peers import Peer
from benchmarks.rounds import Figure, figure, quiet_rounds, ratio


@dataclass(frozen=True, slots=True)
class Result:
    """The samples of one item, one list per peer in the order of the rounds, and why a peer has none."""

    item: Item
    peers: Sequence[Peer]
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def values(self, peer: str, column: Column) -> list[float]:
        return [sample[column.key] * column.scale for sample in self.samples[peer]]

    def quiet(self) -> list[int]:
        """The rounds that count: quiet by the first column."""
        return quiet_rounds({peer: self.values(peer, self.item.columns[0]) for peer in self.samples})


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    cpu = ""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        cpu = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown CPU")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def markdown(results: Sequence[Result]) -> str:
    """The tables, each under its title."""
    about = machine()
    lines = [f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']}"]
    for result in results:
        lines += ["", f"### {result.item.title}", ""]
        lines += _table(result)
        count = max(map(len, result.samples.values()), default=0)
        lines += ["", f"Median (lowest-highest) of the quieter {len(result.quiet())} of {count} rounds."]
        lines += [f"\n{peer}: no figures: {reason}" for peer, reason in result.broken.items()]
    return "\n".join(lines)


def as_json(results: Sequence[Result]) -> str:
    """All samples in SI units, and the figures of the quieter rounds in the units of the tables."""
    items = {
        result.item.name: {
            "reference": result.item.reference,
            "quiet_rounds": result.quiet(),
            "broken": result.broken,
            "samples": result.samples,
            "figures": {peer: _figures(result, peer) for peer in result.samples},
        }
        for result in results
    }
    return json.dumps({"machine": machine(), "items": items}, indent=2)


def _figures(result: Result, peer: str) -> dict[str, float]:
    found = {}
    for column in result.item.columns:
        found[column.label] = figure(result.values(peer, column), result.quiet()).median
        if column.compared and result.item.reference in result.samples:
            found[f"{column.label}, x {result.item.reference}"] = _ratio(result, peer, column).median
    return found


def _table(result: Result) -> list[str]:
    reference = result.item.reference
    head = [result.item.rows]
    for column in result.item.columns:
        head.append(column.label)
        if column.compared:
            head.append(f"x {reference}")
    rows = [head, ["---"] * len(head)]
    for peer in result.peers:
        if peer.name not in result.samples:
            continue
        row = [peer.label]
        for column in result.item.columns:
            row.append(_cell(figure(result.values(peer.name, column), result.quiet()), column.digits))
            if column.compared:
                known = reference in result.samples
                row.append(_cell(_ratio(result, peer.name, column), 2) if known else "")
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def _ratio(result: Result, peer: str, column: Column) -> Figure:
    return ratio(result.values(peer, column), result.values(result.item.reference, column), result.quiet())


def _cell(value: Figure, digits: int) -> str:
    median, low, high = (f"{number:.{digits}f}" for number in (value.median, value.low, value.high))
    return median if low == high else f"{median} ({low}-{high})"
