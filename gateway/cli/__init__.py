"""The `moorage` command: one module per command, registered here.

A command parses, calls, prints and exits; what it does lives elsewhere and is imported when it runs, so that
`moorage check` and `--help` start at once. Exit codes: 0 done, 1 failed, 2 bad usage or a bad configuration.
"""

from __future__ import annotations

from importlib.metadata import version as distribution_version
from typing import Annotated

import typer

from gateway.cli.agent import agent
from gateway.cli.changes import cordon, stop, suspend, uncordon, wake
from gateway.cli.check import check
from gateway.cli.demo import demo
from gateway.cli.drain import drain
from gateway.cli.explain import explain
from gateway.cli.import_ import import_app
from gateway.cli.ps import ps
from gateway.cli.replay_test import replay_test
from gateway.cli.serve import serve
from gateway.cli.sessions import sessions

app = typer.Typer(
    name="moorage",
    help="A session-affinity gateway for MCP and SSE: sessions stay on their instance, sleeping instances are woken.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a traceback with local variables would show secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moorage {distribution_version('moorage')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (
    serve, agent, demo, check, ps, sessions, explain, replay_test, wake, stop, suspend, cordon, uncordon, drain,
):  # fmt: skip
    app.command()(command)
app.command("import")(import_app)


def main() -> None:
    """The entry point of the `moorage` command."""
    app()
