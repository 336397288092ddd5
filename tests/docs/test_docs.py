"""The pages are true where a program can tell: links, configuration, commands, codes, metrics, generated parts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.admin.answers import AdminCode
from gateway.cli.reference import commands, render
from gateway.config import parse
from gateway.core.problems import Code

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)
ADRS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))

_BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SHELL = {"", "sh", "bash"}


class Block(NamedTuple):
    """A fenced block: what it says it is, and its text."""

    page: Path
    info: str
    text: str
    line: int

    def __repr__(self) -> str:
        return f"{_name(self.page)}:{self.line}"


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> Iterator[Block]:
    text = _text(page)
    for found in _BLOCK.finditer(text):
        yield Block(page, found[1].strip(), found[2], text.count("\n", 0, found.start()) + 1)


BLOCKS = [block for page in PAGES for block in blocks(page)]


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_BLOCK.sub("", _text(page)))
    plain = (re.sub(r"[`*\[\]]|\([^)]*\.md[^)]*\)", "", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


# --- links -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in _LINK.findall(_BLOCK.sub("", _text(page))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_relative_to(ROOT) or not file.exists():
            wrong.append(target)
        elif anchor and anchor not in _anchors(file):
            wrong.append(f"{target}: no such heading")
    assert not wrong


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    seen, todo = {index}, [index]
    while todo:
        page = todo.pop()
        for target in _LINK.findall(_text(page)):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.exists() and file not in seen:
                seen.add(file)
                todo.append(file)
    assert not [_name(page) for page in PAGES if page not in seen]


def test_pages_that_the_code_names_exist() -> None:
    wrong = []
    for source in sorted((ROOT / "gateway").rglob("*.py")):
        for page in re.findall(r"docs/[a-z0-9/-]+\.md", _text(source)):
            if not (ROOT / page).exists():
                wrong.append(f"{_name(source)}: {page}")
    assert not wrong


# --- configuration -----------------------------------------------------------------------


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.info == "toml"], ids=repr)
def test_configurations_are_valid(block: Block) -> None:
    """A whole file each. A part of one is marked: ```toml fragment."""
    environ = dict.fromkeys(re.findall(r"env:([A-Z_]+)", block.text), "x" * 32)
    assert parse(block.text, repr(block), folder=ROOT, environ=environ).apps


def test_the_readme_shows_the_example() -> None:
    shown = next(block for block in BLOCKS if block.page == ROOT / "README.md" and block.info == "toml")
    assert shown.text == _text(ROOT / "examples" / "python-mcp" / "moorage.toml")


# --- commands ----------------------------------------------------------------------------

OPTIONS = {
    context.info_name: {"-h", "--help", *(name for param in context.command.params for name in param.opts)}
    for context in commands()
}


def _calls(page: Path) -> Iterator[list[str]]:
    """Every `moorage ...` in code, as words; from a `|`, `;`, `&`, `>` or comment on it is something else."""
    spans = _SPAN.findall(_BLOCK.sub("", _text(page)))
    lines = [line for block in blocks(page) if block.info in SHELL for line in block.text.splitlines()]
    for line in [*spans, *lines]:
        found = re.match(r"(?:\S*/)?(?:source \S+ && )?moorage (.+)", line.strip())
        if found is not None:
            lexer = shlex.shlex(found[1], posix=True, punctuation_chars="|;&>")
            lexer.whitespace_split = True
            words = list(lexer)
            end = next((at for at, word in enumerate(words) if word[0] in "|;&>"), len(words))
            yield words[:end]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_exist(page: Path) -> None:
    wrong = []
    for call in _calls(page):
        name = call[0]
        if name in ("COMMAND", "--help", "--version"):
            continue
        known = OPTIONS.get(name)
        bad = [word for word in call[1:] if re.match(r"--?[a-z]", word) and known and word not in known]
        if known is None or bad:
            wrong.append(" ".join(call))
    assert not wrong


def test_the_command_page_has_not_drifted() -> None:
    assert _text(ROOT / "docs" / "reference" / "cli.md") == render(), "run scripts/docs"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_scripts_exist(page: Path) -> None:
    named = re.findall(r"(?<![\w/.])((?:scripts|benchmarks|\.ci)/[a-z]+)\b(?![/.\w])", _text(page))
    assert not [script for script in named if not (ROOT / script).exists()]


# --- codes, metrics ----------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_codes_exist(page: Path) -> None:
    said, _, never = _text(page).partition("## Codes of Fly's that are never said here")
    known = {*map(str, Code), *map(str, AdminCode)}
    pattern = r"\b(?:P[BSCUHMRLAG]|AD)[0-9]{2}\b"
    assert set(re.findall(pattern, said)) <= known
    assert known.isdisjoint(re.findall(pattern, never))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_metrics_exist(page: Path) -> None:
    made = _text(ROOT / "gateway" / "admin" / "metrics.py")
    named = set(re.findall(r"\bmoorage_([a-z_]+)", _text(page))) - {"pin"}  # the query parameter
    assert not [name for name in named if not re.search(rf'"(?:moorage_)?{name.removesuffix("_total")}"', made)]


# --- decisions -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", ADRS, ids=_name)
def test_a_decision_says_why(page: Path) -> None:
    text = _text(page)
    assert text.startswith(f"# {page.name[:4]}: ")
    assert re.search(r"^Status: \w.*\. Date: [0-9]{4}-[0-9]{2}-[0-9]{2}\.$", text, re.MULTILINE)
    headings: list[Any] = _HEADING.findall(text)[1:]
    assert headings == ["Context", "Decision", "Consequences"]
    assert f"[{page.name[:4]}]({page.name})" in _text(page.parent / "README.md")
