"""`moorage check`: every fault of a configuration file at once. Writes nothing, connects to nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import typer

from gateway.cli.options import EXIT_BAD_CONFIG, ConfigFile, Json
from gateway.config import AppConfig, Config, ConfigFaults, load


def check(config: ConfigFile = Path("moorage.toml"), as_json: Json = False) -> None:
    """Check a configuration file; print every fault with its line, key and remedy.

    Exit code 0: it can be used. 2: it cannot.

    \b
    Examples:
      moorage check
      moorage check -c /etc/moorage.toml
      moorage check --json | jq '.faults[].key'
    """
    try:
        loaded = load(config)
    except ConfigFaults as error:
        if as_json:
            typer.echo(json.dumps({"ok": False, "faults": [dataclasses.asdict(fault) for fault in error.faults]}))
        else:
            typer.echo(str(error))
            typer.echo(f"{config}: {_count(len(error.faults), 'fault')}")
        raise typer.Exit(EXIT_BAD_CONFIG) from None
    typer.echo(json.dumps(_summary(loaded)) if as_json else f"{config}: OK\n{_text(loaded)}")


def _summary(config: Config) -> dict[str, object]:
    gateway = config.gateway
    return {
        "ok": True,
        "listen": str(gateway.listen),
        "admin": str(gateway.admin),
        "catalog": gateway.catalog_shown,
        "region": gateway.region,
        "apps": [
            {
                "name": app.app.name,
                "hosts": list(app.app.hosts),
                "path": app.app.path,
                "instances": [instance.id for instance in app.instances],
            }
            for app in config.apps
        ],
    }


def _text(config: Config) -> str:
    gateway = config.gateway
    lines = [
        f"  listens on {gateway.listen}, admin API on {gateway.admin}",
        f"  region {gateway.region}, catalog {gateway.catalog_shown}",
    ]
    return "\n".join([*lines, *map(_app_text, config.apps)])


def _app_text(app: AppConfig) -> str:
    where = ", ".join(f"{host}{app.app.path}" for host in app.app.hosts or ("any host ",))
    static = sum(instance.address is not None for instance in app.instances)
    started = len(app.instances) - static
    what = [f"{count} {kind}" for count, kind in ((static, "static"), (started, "started when needed")) if count]
    return f"  app {app.app.name}: {where}, {_count(len(app.instances), 'instance')}" + (
        f" ({', '.join(what)})" if what else ""
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
