"""`moorage replay-test`: what the gateway does with one real request, hop by hop.

A token of the admin API makes sure that the request is traced; its trace is found by the answer's Fly-Request-Id.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.client import ANSWER_S, AdminClient, AdminError, connected
from gateway.cli.hops import hops
from gateway.cli.options import Admin, AdminConfig, AdminToken, Json
from gateway.cli.sending import Answer, Request, read_request, send
from gateway.cli.tables import failing, print_json, print_table


def replay_test(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where the request goes: the app's host, the gateway's public port.")
    ],
    method: Annotated[
        str | None,
        typer.Option("--method", "-X", metavar="METHOD", help="Its method. Not set: POST with a body, else GET."),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="NAME: VALUE", help="A header; may be repeated.")
    ] = None,
    body: Annotated[
        str | None, typer.Option("--body", "-d", metavar="TEXT", help="Its body; JSON, if no header says otherwise.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=3600, help="How long the answer may take.")
    ] = ANSWER_S,
    config: AdminConfig = None,
    admin: Admin = None,
    token: AdminToken = None,
    as_json: Json = False,
) -> None:
    """Send one real request, and show hop by hop what the gateway did with it: rules, replays, caches, wakes, errors.

    This is no dry run, as `moorage explain` is: instances are woken, apps get the request and do what it asks for.
    Redirects are not followed. `localhost` and every name that ends in `.localhost` are this machine.

    \b
    Examples:
      moorage replay-test http://tools.localhost:8080/cart
      moorage replay-test http://tools.localhost:8080/cart -H 'Cookie: sid=17' --json
      moorage replay-test http://tools.localhost:8080/mcp -d '{"jsonrpc":"2.0","id":1,"method":"initialize"}'
      moorage replay-test http://10.0.0.7:8080/cart -H 'Host: tools.example.com' --admin 10.0.0.7:8081
    """
    request = read_request(url, method, header or [], body)
    with failing(as_json), connected(config, admin, token) as gateway:
        traced = gateway.post("/v1/traces")
        answer = send(request, (traced["header"], traced["token"]), timeout)
        told = {
            "method": request.method,
            "url": request.shown,
            "answer": _view(answer),
            "trace": _trace(gateway, request, answer),
        }
        print_json(told) if as_json else _show(told)


def _trace(gateway: AdminClient, request: Request, answer: Answer) -> Any:
    """The gateway's trace, or None when it has none of a request that it answered. Raises AdminError."""
    if not answer.request_id:
        raise AdminError(
            f"{request.origin} is no Moorage gateway: it answers {answer.status} without Fly-Request-Id. Name the "
            "gateway's public listener"
        )
    try:
        return gateway.get(f"/v1/traces/{quote(answer.request_id, safe='')}")
    except AdminError as error:
        if error.error.get("code") != "AD03":
            raise
    (own,) = gateway.get("/v1/gateways")["gateways"]
    if answer.request_id.startswith(own["boot"]):
        return None
    raise AdminError(
        f"{answer.status} came from {request.origin}, but the gateway that was asked has no trace of it: another one "
        f"answered (request {answer.request_id}). Name that one's admin address with --admin, or send to this one's "
        "own address with -H 'Host: ...'"
    )


def _view(answer: Answer) -> dict[str, Any]:
    return {
        "status": answer.status,
        "reason": answer.reason,
        "code": answer.code or None,
        "request_id": answer.request_id,
        "size_bytes": answer.size_bytes,
        "took_ms": round(answer.took_ms, 1),
        "end": answer.end.value,
    }


def _show(told: dict[str, Any]) -> None:
    answer, trace = told["answer"], told["trace"]
    typer.echo(f"{told['method']} {told['url']}  request {answer['request_id']}\n")
    if trace is None:
        refused = "the gateway refused it before it was routed"
        typer.echo(refused if answer["code"] else "its trace is not kept any more: many requests came in the meantime")
    else:
        width = len(f"{trace['events'][-1]['at_ms']:.1f}") if trace["events"] else 0
        rows = [(f"{hop.at_ms:>{width}.1f} ms", hop.step, hop.text) for hop in hops(trace["events"])]
        print_table(("AT", "STEP", "WHAT"), rows)
    words = [f"{answer['status']} {answer['reason']}".strip()]
    if answer["code"]:
        words.append(answer["code"])
    words += [f"{answer['size_bytes']} bytes in {answer['took_ms']} ms", *_ends(answer["end"])]
    typer.echo(f"\n{', '.join(words)}")


def _ends(end: str) -> list[str]:
    """What is not as usual with an answer's end."""
    words = {"stream": "an event stream, not read on", "cut": "broken off", "late": "not complete after --timeout"}
    return [words[end]] if end in words else []
