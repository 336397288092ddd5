"""What every test shares: hypothesis profiles and a seed that is printed and can be given back.

`pytest --hypothesis-profile=deep` looks 100 times longer. A run's seed stands in pytest's header;
`MOORAGE_SEED=<n>` repeats it, for hypothesis and for the `rng` fixture alike.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, settings

SEED = int(os.environ.get("MOORAGE_SEED") or random.SystemRandom().randrange(2**32))

settings.register_profile("fast", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", parent=settings.get_profile("fast"), max_examples=10_000, print_blob=True)
settings.load_profile("fast")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-seed", default=None) is None:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> str:
    return f"seed: MOORAGE_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"repeat with MOORAGE_SEED={SEED}")


@pytest.fixture
def rng() -> random.Random:
    """Randomness that the printed seed repeats."""
    return random.Random(SEED)
