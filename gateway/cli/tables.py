"""What the commands print: aligned columns for people, JSON for programs; failures on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import typer

from gateway.cli.client import AdminError

WIDE = 10_000
"""Columns where there is no terminal: nothing is cut for a pipe."""
_NUMBERS = frozenset({"REQUESTS", "STREAMS", "SESSIONS", "MISROUTES", "AGE", "IDLE", "LOAD"})


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings; what is in a cell is never taken for markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in _NUMBERS else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    if sys.stdout.isatty():
        Console(highlight=False).print(table)
        return
    console = Console(width=WIDE, highlight=False)
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


@contextmanager
def failing(as_json: bool) -> Iterator[None]:
    """Exit 1 with the reason of an AdminError."""
    try:
        yield
    except AdminError as error:
        if as_json:
            print_json({"error": error.error})
        else:
            typer.echo(f"moorage: {error}", err=True)
        raise typer.Exit(1) from None


def ago(seconds: float) -> str:
    """A duration in its largest unit: 42s, 5m, 3h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
