"""One contract for every driver. A new driver joins by one more `Bench`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.agent.base import Driver, DriverError, FailureKind, InstanceKey, Spec
from gateway.agent.process import ProcessDriver
from gateway.agent.static import StaticDriver
from gateway.core.model import Address
from tests.loops import both_loops
from tests.net.yard import LIMIT_S, quiet, request, toy, until


@dataclass(frozen=True)
class Bench:
    """A driver, and how to get specs whose instances can run."""

    driver: Driver
    spec: Callable[[str], Spec]
    address: Address | None = None
    """Where a server listens already, for a driver that starts none."""


@asynccontextmanager
async def process_bench() -> AsyncIterator[Bench]:
    driver = ProcessDriver(output=quiet)
    try:
        yield Bench(driver, toy)
    finally:
        await driver.aclose()


@asynccontextmanager
async def static_bench() -> AsyncIterator[Bench]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        driver = StaticDriver()
        yield Bench(driver, lambda id: Spec(InstanceKey("tools", id), address=address), address)
        await driver.aclose()


MakeBench = Callable[[], AbstractAsyncContextManager[Bench]]


@pytest.fixture(params=[process_bench, static_bench], ids=["process", "static"])
def make_bench(request: pytest.FixtureRequest) -> MakeBench:
    make: MakeBench = request.param
    return make


async def answers(address: Address) -> str:
    """The answer of what listens there, once it listens."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await request(address)
            except OSError:
                await asyncio.sleep(0.005)  # noqa: TID251 - nobody tells when a port opens


@both_loops
async def test_a_started_instance_is_known_and_reachable(make_bench: MakeBench) -> None:
    async with make_bench() as bench:
        spec = bench.spec("i-1")
        address = (await bench.driver.start(spec, "aaaa0001")).address
        assert (await answers(address)).startswith("HTTP/1.1 200")
        observed = bench.driver.inspect(spec.key)
        assert observed is not None
        assert (observed.key, observed.incarnation, observed.running, observed.address, observed.failure) == (
            spec.key,
            "aaaa0001",
            True,
            address,
            None,
        )
        assert [each.key for each in bench.driver.list()] == [spec.key]
        if bench.driver.startable:
            assert "aaaa0001" in await request(address), "the incarnation reaches the instance"


@both_loops
async def test_starting_the_same_incarnation_again_changes_nothing(make_bench: MakeBench) -> None:
    async with make_bench() as bench:
        spec = bench.spec("i-1")
        first = (await bench.driver.start(spec, "aaaa0001")).address
        before = bench.driver.inspect(spec.key)
        assert (await bench.driver.start(spec, "aaaa0001")).address == first
        assert before is not None
        after = bench.driver.inspect(spec.key)
        assert after is not None
        assert after.detail == before.detail


@both_loops
async def test_a_late_start_of_another_incarnation_is_refused(make_bench: MakeBench) -> None:
    async with make_bench() as bench:
        spec = bench.spec("i-1")
        address = (await bench.driver.start(spec, "aaaa0002")).address
        with pytest.raises(DriverError, match="aaaa0002") as caught:
            await bench.driver.start(spec, "aaaa0001")
        assert caught.value.failure.kind is FailureKind.REFUSED
        observed = bench.driver.inspect(spec.key)
        assert observed is not None
        assert (observed.incarnation, observed.address) == ("aaaa0002", address)


@both_loops
async def test_a_stopped_instance_is_forgotten_and_can_be_started_again(make_bench: MakeBench) -> None:
    async with make_bench() as bench:
        spec = bench.spec("i-1")
        first = (await bench.driver.start(spec, "aaaa0001")).address
        await answers(first)
        await bench.driver.stop(spec.key, LIMIT_S)
        assert bench.driver.inspect(spec.key) is None
        assert not bench.driver.list()
        if bench.driver.startable:
            with pytest.raises(OSError, match=r"."):
                await request(first)
        second = (await bench.driver.start(spec, "aaaa0002")).address
        assert (await answers(second)).startswith("HTTP/1.1 200")


@both_loops
async def test_stopping_the_absent_is_success(make_bench: MakeBench) -> None:
    async with make_bench() as bench:
        await bench.driver.stop(InstanceKey("tools", "nobody"), 1.0)
        spec = bench.spec("i-1")
        await bench.driver.start(spec, "aaaa0001")
        await asyncio.gather(*(bench.driver.stop(spec.key, LIMIT_S) for _ in range(3)))
        await bench.driver.stop(spec.key, 1.0)
        assert bench.driver.inspect(spec.key) is None


@both_loops
async def test_instances_are_independent(make_bench: MakeBench) -> None:
    async with make_bench() as bench:
        one, two = bench.spec("i-1"), bench.spec("i-2")
        address_one, address_two = await asyncio.gather(
            bench.driver.start(one, "aaaa0001"), bench.driver.start(two, "aaaa0002")
        )
        if bench.driver.startable:
            assert address_one != address_two
        await bench.driver.stop(one.key, LIMIT_S)
        assert bench.driver.inspect(two.key) is not None
        assert (await answers(address_two.address)).startswith("HTTP/1.1 200")


@both_loops
async def test_a_stop_that_was_asked_for_is_no_news(make_bench: MakeBench) -> None:
    async with make_bench() as bench:
        spec = bench.spec("i-1")
        async with aclosing(bench.driver.watch()) as seen, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(seen.__anext__())
            await answers((await bench.driver.start(spec, "aaaa0001")).address)
            await bench.driver.stop(spec.key, LIMIT_S)
            assert not first.done()
            first.cancel()


@both_loops
async def test_closing_ends_everything_and_may_be_repeated(make_bench: MakeBench) -> None:
    async with make_bench() as bench:
        address = (await bench.driver.start(bench.spec("i-1"), "aaaa0001")).address
        await answers(address)
        await bench.driver.aclose()
        await bench.driver.aclose()
        assert not bench.driver.list()
        if bench.driver.startable:
            with pytest.raises(OSError, match=r"."):
                await request(address)


# --- drivers that start something ------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"), [(0, None), (3, FailureKind.EXITED)], ids=["with success", "with a failure"]
)
@both_loops
async def test_an_exit_is_news_with_its_reason(status: int, kind: FailureKind | None) -> None:
    async with process_bench() as bench:
        spec = bench.spec("i-1")
        address = (await bench.driver.start(spec, "aaaa0001")).address
        await answers(address)
        async with aclosing(bench.driver.watch()) as seen:
            await request(address, f"/exit/{status}", "POST")
            async with asyncio.timeout(LIMIT_S):
                observed = await anext(seen)
        assert (observed.key, observed.incarnation, observed.running) == (spec.key, "aaaa0001", False)
        assert observed.address is None
        assert (observed.failure.kind if observed.failure is not None else None) is kind
        assert "i-1 listens" in observed.output
        # The same incarnation may be asked for again: nothing runs, so it is a start.
        await answers((await bench.driver.start(spec, "aaaa0002")).address)


@both_loops
async def test_an_end_that_was_not_read_yet_is_replaced_by_the_next_start() -> None:
    async with process_bench() as bench:
        spec = bench.spec("i-1")
        await request_exit(bench, spec, "aaaa0001")
        address = (await bench.driver.start(spec, "aaaa0002")).address
        await answers(address)
        async with aclosing(bench.driver.watch()) as seen:
            await request(address, "/exit/1", "POST")
            async with asyncio.timeout(LIMIT_S):
                observed = await anext(seen)
        assert observed.incarnation == "aaaa0002"


async def request_exit(bench: Bench, spec: Spec, incarnation: str) -> None:
    address = (await bench.driver.start(spec, incarnation)).address
    await answers(address)
    await request(address, "/exit/1", "POST")

    def ended() -> bool:
        observed = bench.driver.inspect(spec.key)
        return observed is not None and not observed.running

    await until(ended, "the instance ended")
