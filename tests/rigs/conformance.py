"""The official conformance suite (npm @modelcontextprotocol/conformance) run against a URL, its counts parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.rigs import node

REVISION = "2025-11-25"
_SCENARIO = re.compile(r"^\S+ (?P<name>[a-z0-9-]+): (?P<passed>\d+) passed, (?P<failed>\d+) failed(?P<more>.*)$")


@dataclass(frozen=True, slots=True)
class Report:
    """What the suite printed as its summary."""

    scenarios: dict[str, str]
    """Scenario -> its counts as printed: passed, failed, and warnings if any."""
    passed: int
    failed: int
    output: str

    @property
    def bad(self) -> dict[str, str]:
        """The scenarios with a failure or a warning."""
        return {name: counts for name, counts in self.scenarios.items() if not counts.endswith(" passed, 0 failed")}


async def run(url: str, directory: Path) -> Report:
    """Run every scenario that 2025-11-25 requires, and the unscored ones, against the server at `url`."""
    arguments = ("server", "--url", url, "--requirements", REVISION, "-o", str(directory / "out"))
    _, output = await node.command("conformance", *arguments, cwd=directory, within_s=240.0)
    scenarios: dict[str, str] = {}
    passed = failed = 0
    for line in output.splitlines():
        found = _SCENARIO.match(line)
        if found:
            scenarios[found["name"]] = line.partition(": ")[2]
            passed += int(found["passed"])
            failed += int(found["failed"])
    return Report(scenarios, passed, failed, output)
