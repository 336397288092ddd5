"""`moorage explain`: which rule decides a request or a session, and why."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from gateway.cli.client import connected
from gateway.cli.options import Admin, AdminConfig, AdminToken, Json
from gateway.cli.tables import failing, print_json, print_table

_NAME = re.compile(r"[0-9a-f]{16}")


def explain(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT",
            help="A URL, a session as `moorage sessions` lists it, a session id, or - to read the id from stdin.",
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="The Mcp-Session-Id of the request.")
    ] = None,
    app: Annotated[str | None, typer.Option("--app", metavar="APP", help="An app in place of a URL.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-X", metavar="METHOD", help="The request's method.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="NAME: VALUE", help="A header; may be repeated.")
    ] = None,
    body: Annotated[str | None, typer.Option("--body", "-d", metavar="TEXT", help="The request's body.")] = None,
    client: Annotated[str | None, typer.Option("--client", metavar="IP", help="The client's IP address.")] = None,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Show where a request would go, by which rule, and why not elsewhere. Nothing is sent and nothing is woken.

    \b
    Examples:
      moorage explain http://tools.localhost/mcp
      moorage explain http://tools.localhost/mcp -d '{"jsonrpc":"2.0","id":1,"method":"initialize"}'
      moorage explain 3f9a0c1d2e4b5a69
      moorage explain - < session-id.txt
    """
    given = {"session": session, "app": app, "method": method, "headers": header, "body": body, "client": client}
    question = {key: value for key, value in given.items() if value} | _meant(what)
    with failing(as_json), connected(config, admin, token) as gateway:
        told = gateway.post("/v1/explain", body=question)
        print_json(told) if as_json else _show(told)


def _meant(what: str | None) -> dict[str, str]:
    if what is None:
        return {}
    if what.startswith(("http://", "https://")):
        parts = urlsplit(what)
        query = f"?{parts.query}" if parts.query else ""
        return {"host": parts.netloc, "path": (parts.path or "/") + query}
    if _NAME.fullmatch(what):
        return {"name": what}
    return {"session": sys.stdin.readline().strip() if what == "-" else what}


def _show(told: dict[str, Any]) -> None:
    request = told["request"]
    if request is not None:
        typer.echo(f"{request['method']} {request['host']}{request['path']}")
    lines = {
        "app": told["app"] or "none",
        "request": f"{told['kind']}, {told['dialect']}" if told.get("kind") else "",
        "session": told.get("session") or "",
        "decision": _decision(told),
        "because": told["why"],
        "remedy": told["remedy"],
    }
    for key, text in lines.items():
        if text:
            typer.echo(f"  {key:<10}{text}")
    for text in told.get("notes", ()):
        typer.echo(f"  {'note':<10}{text}")
    for heading, columns, keys in (
        ("rules, in order", ("RULE", "OUTCOME"), ("rule", "outcome")),
        ("other instances", ("INSTANCE", "STATE", "LOAD", "WHY NOT"), ("instance", "state", "load", "why")),
    ):
        rows = told.get("steps" if keys[0] == "rule" else "others")
        if rows:
            typer.echo(f"\n{heading}")
            print_table(columns, [[str(row[key]) for key in keys] for row in rows])
    hidden = told.get("others_total", 0) - len(told.get("others", ()))
    if hidden:
        typer.echo(f"and {hidden} more")


def _decision(told: dict[str, Any]) -> str:
    rule = f", by the rule {told['rule']}" if told["rule"] else ""
    match told["action"]:
        case "refuse":
            return f"{told['status']} {told['code']}{rule}"
        case "read-body":
            return "not yet: the body is needed (-d)"
        case action:
            words = {"forward": "forward to", "wake": "wake", "wait": "wait for"}
            instance = told["instance"] or "any instance"
            where = instance if told["addressed"] == told["app"] else f"{instance} of app {told['app']}"
            return f"{words.get(action, action)} {where}{rule}"
