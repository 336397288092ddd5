"""`moorage drain`: an instance is cordoned, and what it still carries is shown until nothing is left."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer
from pydantic_core import PydanticCustomError

from gateway.cli.changes import names
from gateway.cli.client import AdminClient, AdminError, connected, machine_path
from gateway.cli.options import Admin, AdminConfig, AdminToken, Json
from gateway.cli.tables import ago, failing, print_json
from gateway.config.values import seconds

STEP_S = 2.0
"""How long one question to the gateway waits."""
REPEAT_S = 30.0
"""A line of progress that says the same comes this often."""


def drain(
    instance: Annotated[str, typer.Argument(metavar="APP/INSTANCE", help="The instance, as `moorage ps` shows.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing is left.")] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="How long to wait, in seconds or as 90s, 10m, 2h.")
    ] = "10m",
    no_sessions: Annotated[
        bool, typer.Option("--no-sessions", help="Sessions do not hold it up; requests and streams do.")
    ] = False,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Keep new sessions away from an instance, and see what it still has: requests, streams, sessions, at all gateways.

    It goes on running, and is not put to sleep: stop it when it is drained. A session is left while it was used within
    the app's `session_idle`. Ctrl-C ends the waiting; `moorage uncordon` ends the drain. Exit code 1 after --wait:
    something is left.

    \b
    Examples:
      moorage drain tools/i-1
      moorage drain tools/i-1 --wait --timeout 2h && moorage stop tools/i-1
    """
    app, id = names(instance)
    timeout_s = _duration(timeout)
    sessions = {"sessions": "false"} if no_sessions else {}
    with failing(as_json), connected(config, admin, token) as client:
        path = f"{machine_path(app, id)}/drain"
        progress = client.post(path, sessions)
        if wait and not progress["drained"]:
            progress = _waited(client, path, sessions, timeout_s, shows=_is_terminal() and not as_json)
        if as_json:
            print_json(progress)
        elif progress["drained"] or not wait:
            typer.echo(f"{instance} {'is drained' if progress['drained'] else f'drains: {line(progress)}'}")
        elif not progress["draining"]:
            raise AdminError(f"{instance} was uncordoned meanwhile: the drain is over")
        else:
            raise AdminError(f"{instance} is not drained after {timeout}: {line(progress)}")
    if wait and not progress["drained"]:
        raise typer.Exit(1)


def _waited(client: AdminClient, path: str, sessions: dict[str, str], timeout_s: float, *, shows: bool) -> Any:
    """The progress when it is drained, when the drain is over, or when the time is."""
    until_s = time.monotonic() + timeout_s
    told: object = None
    told_at_s = 0.0
    while True:
        step_s = max(0.01, min(STEP_S, until_s - time.monotonic()))
        progress = client.get(path, {"timeout": f"{step_s:.2f}", **sessions})
        now_s = time.monotonic()
        if progress["drained"] or not progress["draining"] or now_s >= until_s:
            return progress
        is_news = (progress["left"], progress["why"]) != told
        if shows and (is_news or now_s - told_at_s >= REPEAT_S):
            typer.echo(line(progress))
            told, told_at_s = (progress["left"], progress["why"]), now_s


def line(progress: dict[str, Any]) -> str:
    """What is left and for how long it has been there; or why it is not drained though nothing is left."""
    counts = [
        f"{count} {what[:-1] if count == 1 else what}"
        for what in ("requests", "streams", "sessions")
        if (count := progress["left"][what])
    ]
    if not counts:
        return str(progress["why"])
    text = f"{', '.join(counts)} left"
    if progress["oldest_session_s"] is not None:
        oldest, used = ago(progress["oldest_session_s"]), ago(progress["last_used_s"])
        text += f" (the oldest session here began {oldest} ago, the last was used {used} ago)"
    return text


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _duration(text: str) -> float:
    try:
        return seconds(float(text) if text.replace(".", "", 1).isdecimal() else text)
    except PydanticCustomError as error:
        context = error.context or {}
        raise typer.BadParameter(f"--timeout: {context['message']}; {context['remedy']}") from None
