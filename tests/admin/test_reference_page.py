"""docs/reference/admin-api.md has every path and every code, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.admin.answers import CODES
from gateway.core.model import App
from tests.net.admin_bench import bench

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "admin-api.md").read_text(encoding="utf-8")


async def test_every_path_is_on_the_page() -> None:
    async with bench() as on:
        paths = (await on.get("/openapi.json"))["paths"]
        described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
        assert set(re.findall(r"^\| `(GET|POST|PUT|DELETE) (\S+)` \|", PAGE, re.MULTILINE)) == described


def test_every_code_is_on_the_page_with_its_status() -> None:
    listed = {code: int(status) for code, status in re.findall(r"^\| (AD\d\d) \| (\d+) \|", PAGE, re.MULTILINE)}
    assert listed == {code.value: row.status for code, row in CODES.items()}


async def test_every_key_of_a_machine_is_on_the_page() -> None:
    async with bench(App("tools")) as on:
        created = await on.client.post("/v1/apps/tools/machines", json={"id": "i-9", "address": "10.0.0.7:80"})
        section = PAGE.partition("## A machine\n")[2].partition("\n## ")[0]
        keys = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE)))
        assert set(keys) == set(created.json())
