"""The demo: `scene` writes its file and serves it, `server` is one of its MCP servers, `client` one to try.

Kept light: each of the demo's servers imports this package and none of the gateway.
"""

from __future__ import annotations

from importlib import import_module


def run() -> None:
    """`moorage demo`: see `scene.run`."""
    import_module("gateway.demo.scene").run()
