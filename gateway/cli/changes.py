"""Commands that change instances, named `APP/INSTANCE`: wake, stop, suspend, cordon, uncordon.

Each goes on after a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.client import AdminClient, AdminError, connected, machine_path
from gateway.cli.options import Admin, AdminConfig, AdminToken, Json
from gateway.cli.tables import failing, print_json

Instances = Annotated[
    list[str], typer.Argument(metavar="APP/INSTANCE...", help="The instances, as `moorage ps` shows.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=60, help="How long to wait until it runs.")
]


def wake(
    instances: Instances,
    timeout: Timeout = 60.0,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Start instances and wait until they run, also those that were stopped by `moorage stop`.

    \b
    Example:
      moorage wake tools/i-1 tools/i-2
    """

    def start(client: AdminClient, path: str) -> Any:
        answer = client.post(f"{path}/start", {"timeout": f"{timeout:g}"})
        if answer["machine"]["state"] != "started":
            state = answer["machine"]["state"]
            raise AdminError(f"it is {state} after {timeout:g} s: `moorage ps` shows how it goes on")
        return answer

    _each(instances, start, config, admin, token, as_json)


def stop(
    instances: Instances,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Stop instances. Requests do not wake them again; `moorage wake` does.

    \b
    Example:
      moorage stop tools/i-1
    """
    _each(instances, lambda client, path: client.post(f"{path}/stop"), config, admin, token, as_json)


def suspend(
    instances: Instances,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Freeze instances with their memory, sessions included. Requests do not wake them again; `moorage wake` does.

    \b
    Example:
      moorage suspend tools/i-1
    """
    _each(instances, lambda client, path: client.post(f"{path}/suspend"), config, admin, token, as_json)


def cordon(
    instances: Instances,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Keep new sessions away from instances; the sessions that they have go on.

    \b
    Example:
      moorage cordon tools/i-1
    """
    _each(instances, lambda client, path: client.post(f"{path}/cordon"), config, admin, token, as_json)


def uncordon(
    instances: Instances,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Let new sessions come to instances again; a drain ends.

    \b
    Example:
      moorage uncordon tools/i-1
    """
    _each(instances, lambda client, path: client.post(f"{path}/uncordon"), config, admin, token, as_json)


def _each(
    instances: list[str],
    change: Callable[[AdminClient, str], Any],
    config: Path | None,
    admin: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Change one after the other; exit 1 when any of them could not be."""
    pairs = [names(name) for name in instances]
    results: list[dict[str, Any]] = []
    with failing(as_json), connected(config, admin, token) as client:
        for name, (app, id) in zip(instances, pairs, strict=True):
            try:
                machine = change(client, machine_path(app, id))["machine"]
            except AdminError as error:
                results.append({"instance": name, "error": error.error})
                if not as_json:
                    typer.echo(f"moorage: {'' if name in str(error) else name + ': '}{error}", err=True)
            else:
                results.append({"instance": name, "machine": machine})
                if not as_json:
                    typer.echo(f"{name} {_now(machine)}")
    if as_json:
        print_json(results)
    if any("error" in result for result in results):
        raise typer.Exit(1)


def names(name: str) -> tuple[str, str]:
    """App and id of an instance as `moorage ps` shows it. Raises BadParameter."""
    app, slash, id = name.partition("/")
    if not (app and slash and id) or "/" in id:
        raise typer.BadParameter(f"{name} names no instance; write APP/INSTANCE, such as tools/i-1")
    return app, id


def _now(machine: dict[str, Any]) -> str:
    words = [machine["state"]]
    if machine["address"]:
        words.append(f"at {machine['address']}")
    if machine["cordoned"]:
        words.append("(cordoned)")
    return " ".join(words)
