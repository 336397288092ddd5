"""`moorage sessions`: the sessions that passed through the gateway, and where each of them lives."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.client import connected
from gateway.cli.options import Admin, AdminConfig, AdminToken, Json
from gateway.cli.tables import ago, failing, print_json, print_table

HEADINGS = ("SESSION", "APP", "INSTANCE", "AGE", "IDLE", "REQUESTS", "STREAMS", "MISROUTES")


def sessions(
    app: Annotated[str | None, typer.Option("--app", metavar="APP", help="Only this app's.")] = None,
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="ID", help="Only those on this instance.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=1000, help="How many, the latest first.")
    ] = 100,
    end: Annotated[
        str | None, typer.Option("--end", metavar="SESSION", help="End this session here: its requests get 404.")
    ] = None,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Show the sessions, the latest first, each by a digest of its id: the id itself is its holder's secret.

    \b
    Examples:
      moorage sessions
      moorage sessions --app tools --instance i-1
      moorage sessions --end 3f9a0c1d2e4b5a69
    """
    with failing(as_json), connected(config, admin, token) as client:
        if end is not None:
            client.delete(f"/v1/sessions/{quote(end, safe='')}")
            print_json({"ok": True}) if as_json else typer.echo(f"ended {end}")
            return
        wanted = {"limit": limit, "app": app, "instance": instance}
        page = client.get("/v1/sessions", {key: value for key, value in wanted.items() if value is not None})
        listed = page["sessions"]
        if as_json:
            print_json(listed)
        elif listed:
            print_table(HEADINGS, map(_row, listed))
            if page["total"] > len(listed):
                typer.echo(f"the latest {len(listed)} of {page['total']}; --limit shows more")
        else:
            typer.echo("no sessions")


def _row(session: dict[str, Any]) -> tuple[str, ...]:
    return (
        session["name"],
        session["app"],
        session["instance"] if session["home"] == session["app"] else f"{session['home']}/{session['instance']}",
        ago(session["age_s"]),
        ago(session["idle_s"]),
        str(session["requests"]),
        str(session["streams"]),
        str(session["misroutes"]),
    )
