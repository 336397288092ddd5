"""The commands that ask a running gateway, against a real admin listener."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from gateway.agent.base import InstanceKey, Spec
from gateway.cli import app
from gateway.cli.ps import note
from gateway.core.model import Address, App, Check, Pin
from gateway.core.problems import Code, Problem, json_body
from tests.net.admin_bench import Bench, bench
from tests.net.yard import toy

TOOLS = App("tools", hosts=("tools.localhost",), stop_grace_s=1.0, wake_timeout_s=20.0)
STATIC = (TOOLS, Spec(InstanceKey("tools", "i-1"), address=Address("127.0.0.1", 9001)))


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def silent_logs() -> Iterator[None]:
    """The gateway runs in this process and logs to where the command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    yield
    structlog.reset_defaults()


async def moorage(*arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Result:
    """Run a command in a thread, while the loop serves it."""
    clean = {key: None for key in os.environ if key.startswith("MOORAGE_")}
    ran = await asyncio.to_thread(CliRunner().invoke, app, arguments, input=stdin, env={**clean, **(env or {})})
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return Result(ran.exit_code, ran.stdout, ran.stderr)


def at(on: Bench) -> tuple[str, str]:
    return ("--admin", str(on.address))


async def test_ps_shows_the_instances_and_what_is_not_as_usual() -> None:
    async with bench(TOOLS, App("other"), instances=[STATIC, (TOOLS, toy("i-2"))]) as on:
        await on.agent.cordon("tools", "i-1", True)
        on.gateway.loads.of("tools", "i-1").requests = 3
        shown = await moorage("ps", *at(on))
        assert shown.code == 0, shown.err
        lines = [line.split() for line in shown.out.splitlines()]
        assert lines[0][:5] == ["APP", "INSTANCE", "STATE", "REGION", "ADDRESS"]
        assert lines[0][5:] == ["REQUESTS", "STREAMS", "SESSIONS", "UP", "BECAUSE", "NOTE"]
        why = ["auto_stop", "is", "off"]
        assert lines[1] == ["tools", "i-1", "started", "local", "127.0.0.1:9001", "3", "0", "0", *why, "cordoned"]
        assert lines[2] == ["tools", "i-2", "created", "local", "-", "0", "0", "0"]
        listed = await moorage("ps", "tools", "--json", *at(on))
        assert [(one["id"], one["state"]) for one in listed.json] == [("i-1", "started"), ("i-2", "created")]
        assert (await moorage("ps", "other", *at(on))).out == "no instances\n"
        missing = await moorage("ps", "none", *at(on))
        assert missing.code == 1
        assert missing.err.startswith("moorage: there is no app none (AD03). ")


async def test_instances_are_woken_stopped_and_cordoned() -> None:
    async with bench(TOOLS, instances=[STATIC, (TOOLS, toy("i-2"))]) as on:
        woken = await moorage("wake", "tools/i-2", *at(on))
        assert woken.code == 0, woken.err
        assert woken.out == f"tools/i-2 started at {on.instance('i-2').address}\n"
        cordoned = await moorage("cordon", "tools/i-1", "tools/i-2", *at(on))
        assert cordoned.out.splitlines() == [
            "tools/i-1 started at 127.0.0.1:9001 (cordoned)",
            f"tools/i-2 started at {on.instance('i-2').address} (cordoned)",
        ]
        assert (await moorage("uncordon", "tools/i-1", "tools/i-2", *at(on))).code == 0
        assert not on.instance("i-1").cordoned
        # One that fails does not keep the others from it.
        stopped = await moorage("stop", "tools/i-1", "tools/i-9", "tools/i-2", *at(on))
        assert stopped.code == 1
        assert stopped.out == "tools/i-2 stopped\n"
        first, second = stopped.err.splitlines()
        assert first.startswith(
            "moorage: tools/i-1 is a plain address: nothing here started it or can stop it (AD06). "
        )
        assert second.startswith("moorage: there is no machine tools/i-9 (AD03). ")
        assert on.instance("i-2").held_down
        assert (await moorage("wake", "tools/i-2", *at(on))).code == 0
        assert (await moorage("suspend", "tools/i-2", *at(on))).out == "tools/i-2 suspended\n"
        results = (await moorage("stop", "--json", "tools/i-1", "tools/i-2", *at(on))).json
        assert results[0]["error"]["code"] == "AD06"
        assert results[1]["machine"]["state"] == "stopped"
        wrong = await moorage("stop", "tools", *at(on))
        assert wrong.code == 2
        assert "write APP/INSTANCE" in wrong.err


async def test_sessions_are_shown_and_ended_by_their_digests() -> None:
    async with bench(TOOLS) as on:
        assert (await moorage("sessions", *at(on))).out == "no sessions\n"
        for number in range(3):
            token = on.gateway.sealer.seal_session("tools", Pin(f"i-{number}", "0"), b"secret", None)
            on.gateway.sessions.touch(token, "tools", Pin(f"i-{number}", "0"), on.gateway.now_s).requests = number
        shown = await moorage("sessions", "--limit", "2", *at(on))
        lines = shown.out.splitlines()
        assert lines[0].split() == ["SESSION", "APP", "INSTANCE", "AGE", "IDLE", "REQUESTS", "STREAMS", "MISROUTES"]
        assert lines[1].split()[1:] == ["tools", "i-2", "0s", "0s", "2", "0", "0"]
        assert lines[-1] == "the latest 2 of 3; --limit shows more"
        assert "secret" not in shown.out
        (one,) = (await moorage("sessions", "--instance", "i-1", "--json", *at(on))).json
        assert (await moorage("sessions", "--end", one["name"], *at(on))).out == f"ended {one['name']}\n"
        assert len(on.gateway.sessions) == 2
        again = await moorage("sessions", "--end", one["name"], *at(on))
        assert again.code == 1
        assert "there is no session of this name here" in again.err


async def test_explain_tells_of_requests_and_of_sessions() -> None:
    async with bench(TOOLS, instances=[STATIC, (TOOLS, toy("i-2"))]) as on:
        token = on.gateway.sealer.seal_session("tools", Pin("i-1", "0"), b"secret", None).decode()
        told = await moorage("explain", "-", *at(on), stdin=token + "\n")
        assert told.code == 0, told.err
        assert "  decision  forward to i-1, by the rule sealed\n" in told.out
        assert "the request is pinned to i-1" in told.out
        assert token not in told.out
        session = on.gateway.sessions.touch(token.encode(), "tools", Pin("i-1", "0"), 0.0)
        assert (await moorage("explain", session.name, "--json", *at(on))).json["instance"] == "i-1"
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize"})
        told = await moorage("explain", "http://tools.localhost:8080/mcp?a=b", "-d", body, "-H", "X-A: b", *at(on))
        assert told.out.splitlines()[0] == "POST tools.localhost/mcp"
        assert "by the rule least-loaded" in told.out
        refused = await moorage("explain", "http://nobody.example/", *at(on))
        assert refused.code == 0
        assert "  decision  404 PB13\n" in refused.out
        wrong = await moorage("explain", *at(on))
        assert wrong.code == 1
        assert "  host: is missing; send `host` and `path`" in wrong.err


async def test_the_token_comes_from_the_option_the_environment_or_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(TOOLS, token="right-token") as on:
        assert (await moorage("ps", *at(on), "--token", "right-token")).code == 0
        assert (await moorage("ps", *at(on), env={"MOORAGE_ADMIN_TOKEN": "right-token"})).code == 0
        assert (
            await moorage("ps", env={"MOORAGE_ADMIN": str(on.address), "MOORAGE_ADMIN_TOKEN": "right-token"})
        ).code == 0
        file = tmp_path / "moorage.toml"
        # The sealing secret is not set in this shell, and is not needed for asking.
        file.write_text(
            f'[gateway]\nadmin = "{on.address}"\nadmin_token = "env:MY_TOKEN"\nsecret = ["env:NOT_SET_HERE"]\n'
        )
        assert (await moorage("ps", "-c", str(file), env={"MY_TOKEN": "right-token"})).code == 0
        monkeypatch.chdir(tmp_path)
        assert (await moorage("ps", env={"MY_TOKEN": "right-token"})).code == 0
        unset = await moorage("ps", "-c", str(file))
        assert unset.code == 1
        assert "gateway.admin_token: the environment variable MY_TOKEN is not set" in unset.err
        # The file beside it is not asked for a token that goes elsewhere.
        assert (await moorage("ps", *at(on), env={"MY_TOKEN": "right-token"})).code == 1
        for env in ({}, {"MOORAGE_ADMIN_TOKEN": "wrong-token"}):
            refused = await moorage("ps", *at(on), env=env)
            assert refused.code == 1
            assert "set MOORAGE_ADMIN_TOKEN" in refused.err
            assert "wrong-token" not in refused.err


async def test_a_start_that_fails_tells_what_the_instance_said_and_one_that_lasts_where_it_stands(
    tmp_path: Path,
) -> None:
    unready = tmp_path / "unready"
    unready.touch()
    slow = App("slow", checks=(Check("/", 0.05, 1.0, 0.0),))
    waits = (slow, toy("i-1", "--unready", str(unready), app="slow"))
    async with bench(TOOLS, slow, instances=[(TOOLS, toy("i-1", "--status", "3")), waits]) as on:
        failed = await moorage("wake", "tools/i-1", *at(on))
        assert failed.code == 1
        assert "(PM07)" in failed.err
        assert "status 3" in failed.err
        shown = await moorage("ps", "tools", *at(on))
        assert "status 3" in shown.out.splitlines()[1]
        late = await moorage("wake", "slow/i-1", "--timeout", "0.1", *at(on))
        assert late.code == 1
        assert late.err == "moorage: slow/i-1: it is starting after 0.1 s: `moorage ps` shows how it goes on\n"


async def test_lists_longer_than_a_page_are_read_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.client.PAGE", 2)
    async with bench(TOOLS, App("b"), App("c"), instances=[STATIC, (TOOLS, toy("i-2")), (TOOLS, toy("i-3"))]) as on:
        listed = (await moorage("ps", "--json", *at(on))).json
        assert [one["id"] for one in listed] == ["i-1", "i-2", "i-3"]


async def test_the_public_listener_is_told_from_the_admin_api() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json_body(Problem(Code.PB13, "no app is served at this host"), "id")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        result = await moorage("ps", "--admin", f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert "is the gateway's public listener" in result.err


def test_notes_tell_what_is_not_as_usual() -> None:
    usual = {
        "state": "started", "cordoned": False, "held_down": False, "suspect": False, "healthy": True,
        "startable": False, "reason": "", "retry_after_s": 0.0,
    }  # fmt: skip
    assert note(usual) == ""
    assert (
        note({**usual, "cordoned": True, "suspect": True, "healthy": False}) == "cordoned, connections fail, unhealthy"
    )
    assert note({**usual, "state": "stopped"}) == "nothing here can start it"
    failed = {**usual, "state": "failed", "startable": True, "reason": "it exited", "retry_after_s": 3.2}
    assert note(failed) == "it exited, next start in 3s at the earliest"


async def test_a_gateway_that_is_not_there_is_said_to_be_not_there() -> None:
    nobody = await moorage("ps", "--admin", "127.0.0.1:1")
    assert nobody.code == 1
    assert nobody.err.startswith("moorage: nothing listens at http://127.0.0.1:1: start the gateway")
    as_json = await moorage("ps", "--json", "--admin", "http://127.0.0.1:1")
    assert as_json.code == 1
    assert "nothing listens" in as_json.json["error"]["message"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"SSH-2.0-OpenSSH\r\n", b""])
async def test_what_is_no_admin_api_is_said_to_be_none(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await moorage("ps", "--admin", f"127.0.0.1:{port}")
        assert result.code == 1
        assert result.err.startswith(f"moorage: http://127.0.0.1:{port} ")
        assert "Traceback" not in result.err


async def test_commands_that_ask_nobody_start_without_what_asking_needs() -> None:
    script = "import sys, gateway.cli; print(*({'httpx2', 'rich.table', 'uvicorn'} & set(sys.modules)))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().strip() == ""
