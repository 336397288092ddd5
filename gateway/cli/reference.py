"""docs/reference/cli.md, made from the commands themselves: usage, text, arguments and options of each.

`scripts/docs` writes the page; a test fails when it has drifted.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import typer
from typer.core import TyperGroup

from gateway.cli import app

_HEAD = """\
# Commands

<!-- Made by scripts/docs from gateway/cli. Change it there. -->

`moorage COMMAND --help` says the same. Exit codes: 0 done, 1 failed, 2 wrong usage or a configuration with faults.
"""


def render() -> str:
    """The whole page."""
    return _HEAD + "".join(map(_section, commands()))


def commands() -> Iterator[typer.Context]:
    """A context of each command, in the order of `--help`."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    root = typer.Context(group, info_name="moorage")
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        assert command is not None
        yield typer.Context(command, info_name=name, parent=root)


def _section(context: typer.Context) -> str:
    command = context.command
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"\n## {context.command_path}\n\n```\n{context.command_path} {usage}\n```\n"]
    parts += map(_paragraph, inspect.cleandoc(command.help or "").split("\n\n"))
    records = [record for param in command.params if (record := param.get_help_record(context)) is not None]
    if records:
        rows = (f"| `{name}` | {_cell(text)} |\n" for name, text in records)
        parts.append("\n| | |\n| --- | --- |\n" + "".join(rows))
    return "".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _paragraph(text: str) -> str:
    """Running text, or what stands behind a `\\b`, which keeps its lines: a title and an indented block."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "\b":
        return f"\n{' '.join(text.split())}\n"
    title, *block = lines[1:]
    return f"\n{title}\n\n```\n{inspect.cleandoc(chr(10).join(['', *block]))}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(render())
