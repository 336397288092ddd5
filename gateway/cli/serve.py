"""`moorage serve`: the gateway, in the foreground."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from gateway.cli.options import ConfigFile, load_or_exit


def serve(config: ConfigFile = Path("moorage.toml")) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; then it drains.

    \b
    Examples:
      moorage serve
      moorage serve -c /etc/moorage.toml
    """
    loaded = load_or_exit(config)
    import_module("gateway.app").serve(loaded)
