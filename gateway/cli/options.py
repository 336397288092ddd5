"""Options that several commands share, and how they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.config import Config, ConfigFaults, load

EXIT_BAD_CONFIG = 2

ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


def load_or_exit(path: Path) -> Config:
    """The configuration, or every fault on stderr and exit 2."""
    try:
        return load(path)
    except ConfigFaults as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_BAD_CONFIG) from None
