"""`moorage ps`: every instance, its state, and why it is in it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli.client import connected
from gateway.cli.options import Admin, AdminConfig, AdminToken, Json
from gateway.cli.tables import failing, print_json, print_table

HEADINGS = (
    "APP", "INSTANCE", "STATE", "REGION", "ADDRESS", "REQUESTS", "STREAMS", "SESSIONS", "UP BECAUSE", "NOTE",
)  # fmt: skip


def ps(
    app: Annotated[str | None, typer.Argument(metavar="APP", help="Only this app's instances.")] = None,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Show the instances: state, address, what they carry over all gateways, and why they are still up, or are not.

    \b
    Examples:
      moorage ps
      moorage ps tools
      moorage ps --json | jq '.[] | select(.state == "failed")'
    """
    with failing(as_json), connected(config, admin, token) as client:
        names = [app] if app is not None else [one["name"] for one in client.apps()]
        machines = [machine for name in names for machine in client.machines(name)]
        if as_json:
            print_json(machines)
        elif machines:
            print_table(HEADINGS, map(_row, machines))
        else:
            typer.echo("no instances")


def _row(machine: dict[str, Any]) -> tuple[str, ...]:
    return (
        machine["app"],
        machine["id"],
        machine["state"],
        machine["region"],
        machine["address"] or "-",
        str(machine["requests_all"]),
        str(machine["streams_all"]),
        str(machine["sessions_all"]),
        machine["up_because"],
        note(machine),
    )


def note(machine: dict[str, Any]) -> str:
    """What is not as usual."""
    notes = [
        text
        for key, text in (
            ("cordoned", "cordoned"),
            ("held_down", "stopped by an operator"),
            ("suspect", "connections fail"),
        )
        if machine[key]
    ]
    if not machine["healthy"]:
        notes.append("unhealthy")
    if machine["state"] != "started" and not machine["startable"]:
        notes.append("nothing here can start it")
    if machine["reason"]:
        notes.append(machine["reason"])
    if machine["retry_after_s"]:
        notes.append(f"next start in {machine['retry_after_s']:.0f}s at the earliest")
    return ", ".join(notes)
