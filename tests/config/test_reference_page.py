"""docs/reference/configuration.md is what the models say, and leaves no key out."""

from __future__ import annotations

from pathlib import Path

from gateway.config.reference import render
from gateway.config.sections import (
    AgentSettings,
    AppSection,
    GatewaySettings,
    InstanceSection,
    LimitSettings,
    ReplayCacheSection,
)
from gateway.config.validate import known_keys

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_the_page_has_not_drifted() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run scripts/docs"


def test_every_key_has_a_meaning() -> None:
    page = render()
    for section in (GatewaySettings, LimitSettings, AgentSettings, AppSection, ReplayCacheSection, InstanceSection):
        for key in known_keys(section):
            assert f"| `{key}` |" in page
        for name, field in section.model_fields.items():
            assert field.description, name
