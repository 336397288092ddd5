"""Plain addresses and periodic checks: they decide over `healthy`, and over nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from gateway.agent.base import FailureKind, InstanceKey, Refused, Spec, Started
from gateway.agent.probes import NotPassed, Passed, check_client, listens, run_check
from gateway.core.model import Address, App, Check, State
from tests.loops import both_loops
from tests.net.yard import LIMIT_S, agent_of, request, toy, until


class Web:
    """A server in this process whose answer is set by the test."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.heads: list[bytes] = []
        self.address = Address("", 0)
        self.hang = False

    def status(self, line: str) -> None:
        self.answer = f"HTTP/1.1 {line}\r\nContent-Length: 0\r\nLocation: /elsewhere\r\n\r\n".encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.hang:
                await reader.read()
            writer.write(self.answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):  # a connect without a request
            pass
        finally:
            writer.close()


@asynccontextmanager
async def web() -> AsyncIterator[Web]:
    site = Web()
    async with await asyncio.start_server(site.serve, "127.0.0.1", 0) as server:
        site.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        yield site


def at(site: Web) -> Spec:
    return Spec(InstanceKey("tools", "i-1"), address=site.address)


FAST = Check("/healthz", interval_s=0.01, timeout_s=LIMIT_S, grace_s=0.0)


@both_loops
async def test_a_plain_address_is_started_from_the_first_moment() -> None:
    async with web() as site, agent_of(App("tools"), at(site)) as (agent, publish):
        instance = publish.instance("i-1")
        assert (instance.state, instance.address, instance.incarnation) == (State.STARTED, site.address, "0")
        assert instance.healthy
        assert not instance.startable
        assert await agent.start("tools", "i-1") == Started(instance)
        refused = await agent.stop("tools", "i-1")
        assert isinstance(refused, Refused)
        assert refused.failure.kind is FailureKind.NOT_STARTABLE
        assert publish.instance("i-1") == instance
        assert not site.heads, "an app without checks is not asked"
    # Its agent goes; the address does not.
    assert publish.instance("i-1").state is State.STARTED


@both_loops
async def test_checks_take_it_out_and_put_it_back() -> None:
    async with web() as site, agent_of(App("tools", checks=(FAST,)), at(site)) as (agent, publish):
        await until(lambda: len(site.heads) >= 2, "the checks began")
        assert publish.instance("i-1").healthy
        assert site.heads[0].startswith(b"GET /healthz HTTP/1.1\r\n")
        site.status("503 Service Unavailable")
        await until(lambda: not publish.instance("i-1").healthy, "the failure was noticed")
        assert publish.instance("i-1").state is State.STARTED
        assert "/healthz answered 503" in (await agent.list())[0].reason
        site.status("204 No Content")
        await until(lambda: publish.instance("i-1").healthy, "the success was noticed")
        assert (await agent.list())[0].reason == ""
        published = [healthy for _, _, _, healthy in publish.history]
        assert published == [True, False, True], "only changes are published"


@both_loops
async def test_failures_within_the_grace_do_not_count() -> None:
    patient = Check("/healthz", interval_s=0.01, timeout_s=LIMIT_S, grace_s=1000.0)
    async with web() as site:
        site.status("503 Service Unavailable")
        async with agent_of(App("tools", checks=(patient,)), at(site)) as (_, publish):
            await until(lambda: len(site.heads) >= 5, "it was asked often")
            assert publish.instance("i-1").healthy


@both_loops
async def test_every_check_must_pass() -> None:
    other = Check("/other", interval_s=0.01, timeout_s=LIMIT_S, grace_s=0.0)
    async with web() as site, agent_of(App("tools", checks=(FAST, other)), at(site)) as (_, publish):
        await until(lambda: {head.split()[1] for head in site.heads} == {b"/healthz", b"/other"}, "both are asked")
        assert publish.instance("i-1").healthy


@both_loops
async def test_a_started_process_is_checked_too(tmp_path: Path) -> None:
    async with agent_of(App("tools", checks=(FAST,)), toy("i-1", "--unready", f"{tmp_path}/unready")) as (
        agent,
        publish,
    ):
        await agent.start("tools", "i-1")
        before = publish.instance("i-1")
        with open(f"{tmp_path}/unready", "w", encoding="utf-8"):  # noqa: ASYNC230 - an empty file
            pass
        await until(lambda: not publish.instance("i-1").healthy, "the failure was noticed")
        after = publish.instance("i-1")
        assert (after.state, after.incarnation) == (State.STARTED, before.incarnation), "a check never restarts"
        await agent.stop("tools", "i-1", hold=False)
        assert publish.instance("i-1").healthy, "what does not run is not unhealthy"


# --- one check -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "passes"),
    [("200 OK", True), ("204 No Content", True), ("299 Odd", True), ("302 Found", False), ("404 Not Found", False)],
)
@both_loops
async def test_only_2xx_passes(line: str, passes: bool) -> None:
    async with web() as site, check_client() as client:
        site.status(line)
        result = await run_check(site.address, Check("/x"), client)
        assert isinstance(result, Passed) is passes
        assert len(site.heads) == 1, "a redirect is not followed"
        assert b"user-agent: moorage-check" in site.heads[0].lower()


@both_loops
async def test_a_check_ends_within_its_timeout() -> None:
    async with web() as site, check_client() as client:
        site.hang = True
        result = await run_check(site.address, Check("/x", timeout_s=0.05), client)
        assert isinstance(result, NotPassed)
        assert "not answered within 0.05 s" in result.reason


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200"])
@both_loops
async def test_what_is_not_http_does_not_pass(answer: bytes) -> None:
    async with web() as site, check_client() as client:
        site.answer = answer
        assert isinstance(await run_check(site.address, Check("/x"), client), NotPassed)


@both_loops
async def test_nobody_there_does_not_pass() -> None:
    async with web() as site:
        address = site.address
    async with check_client() as client:
        assert isinstance(await run_check(address, Check("/x"), client), NotPassed)
    assert not await listens(address)
    assert not await listens(Address("does-not-exist.invalid", 80))


@both_loops
async def test_names_are_resolved() -> None:
    async with web() as site:
        assert await listens(Address("localhost", site.address.port))


@both_loops
async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with web() as site, check_client() as client:
        assert isinstance(client, httpx2.AsyncClient)
        assert isinstance(await run_check(site.address, Check("/x"), client), Passed)
        assert (await request(site.address)).startswith("HTTP/1.1 200")
