"""Options that several commands share, and how they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.config import Config, ConfigFaults, load

EXIT_BAD_CONFIG = 2

ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration file.")]
AdminConfig = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The gateway's configuration file, for its admin address and token."
    ),
]
Admin = Annotated[
    str | None,
    typer.Option("--admin", envvar="MOORAGE_ADMIN", metavar="HOST:PORT", help="The gateway's admin address."),
]
AdminToken = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="MOORAGE_ADMIN_TOKEN", metavar="TOKEN", help="Its admin token; better in the environment."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


def load_or_exit(path: Path) -> Config:
    """The configuration, or every fault on stderr and exit 2."""
    try:
        return load(path)
    except ConfigFaults as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_BAD_CONFIG) from None
