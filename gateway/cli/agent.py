"""`moorage agent`: the agent, in the foreground, without a gateway."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import typer

from gateway.cli.options import EXIT_BAD_CONFIG, ConfigFile, load_or_exit


def agent(config: ConfigFile = Path("moorage.toml")) -> None:
    """Run the instances of a configuration file, without a gateway, until SIGTERM or Ctrl-C; then stop them.

    The agent publishes its instances in the catalog and starts them when a gateway asks it to. Gateways and agent share
    the catalog and the secret; a gateway on the same file needs `[agent] inside = false`, so that it leaves the
    instances to the agent. Where the agent is asked is `[agent] listen`, 127.0.0.1:8082 if not set.

    An agent that is killed takes its processes with it within seconds. When it comes back under the same host name and
    port, its instances can be started again.

    \b
    Examples:
      moorage agent
      moorage agent -c /etc/moorage.toml
    """
    loaded = load_or_exit(config)
    if loaded.gateway.catalog == "memory:":
        text = (
            'gateway.catalog: a memory: catalog is shared with no gateway; write "sqlite:moorage.db" or a redis:// URL'
        )
        typer.echo(f"{config}: {text}", err=True)
        raise typer.Exit(EXIT_BAD_CONFIG)
    import_module("gateway.agent_app").serve(loaded)
