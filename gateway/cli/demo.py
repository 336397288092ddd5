"""`moorage demo`: the gateway and three sleeping MCP servers, on this machine alone."""

from __future__ import annotations

from importlib import import_module


def demo() -> None:
    """Run the gateway in front of three sleeping MCP servers; Ctrl-C ends all of it.

    Needs no Redis, no Docker and no configuration file: `pip install 'moorage[demo]'`.

    \b
    Example:
      moorage demo
    """
    import_module("gateway.demo").run()
