"""Gateways and an owner on a real Redis that loses, forgets, stops and fails over: nothing routable is ever dropped."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import redis as redis_library

from gateway.core.bodies import app_body, instance_body
from gateway.core.catalog import Catalog
from gateway.core.model import Address, App, Instance
from gateway.core.record import Record, decode
from gateway.log.follower import Follower
from gateway.log.publisher import Publisher
from gateway.log.redis import RedisLog
from tests.contract.redis_server import RedisServer
from tests.contract.switch import switched

CONVERGES_S = 10.0
NOTICED_S = 5.0
INSTANCES = 40
STREAM, STATE, GENERATION = (f"moorage:{{local}}:{key}" for key in ("log", "state", "generation"))


class Gateway:
    """A catalog and its follower, running; counts how often the table got smaller."""

    def __init__(self, url: str, seed: int) -> None:
        self.log = RedisLog(url, "local")
        self.catalog = Catalog("local")
        self.follower = Follower(
            self.log, self.catalog, "local", on_lost=lambda reason: self.lost(), rng=random.Random(seed)
        )
        self.lost: Callable[[], None] = lambda: None
        self.shrunk = 0
        self._size = 0
        self.catalog.subscribe(self._changed)

    def _changed(self, app: str) -> None:
        size = self.size()
        self.shrunk += size < self._size
        self._size = size

    def size(self) -> int:
        table = self.catalog.app("tools")
        return len(table.instances) if table is not None else 0


class Fleet:
    """Two gateways and the owner of all instances, which lives in the first one."""

    def __init__(self, url: str) -> None:
        self.gateways = [Gateway(url, 1), Gateway(url, 2)]
        first = self.gateways[0]
        self.owner = Publisher(first.log, "agent-1", version_of=first.catalog.version, rng=random.Random(3))
        first.lost = self.owner.republish_all

    def publish(self, names: range, *, cordoned: bool = False) -> None:
        for number in names:
            instance = Instance("tools", f"i-{number}", Address("10.0.0.1", 9000 + number), cordoned=cordoned)
            self.owner.put("instance", f"tools/i-{number}", instance_body(instance))

    def have(self, count: int) -> bool:
        return all(gateway.size() == count for gateway in self.gateways)

    def connected(self) -> int:
        return sum(gateway.follower.state().connected for gateway in self.gateways)

    def settled(self) -> bool:
        """All connected, in one history."""
        generations = {gateway.follower.state().generation for gateway in self.gateways}
        return self.connected() == 2 and len(generations) == 1 and "" not in generations

    def equal(self, state: dict[bytes, bytes]) -> bool:
        """The gateways equal each other, and a catalog made of nothing but what the log holds."""
        fresh = Catalog("local")
        for raw in state.values():
            fresh.fold(raw, source="local")
        return {gateway.catalog.digest() for gateway in self.gateways} == {fresh.digest()}


@asynccontextmanager
async def fleet(url: str) -> AsyncIterator[Fleet]:
    made = Fleet(url)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for gateway in made.gateways:
            stack.push_async_callback(gateway.log.aclose)
        made.owner.put("app", "tools", app_body(App("tools")))
        made.publish(range(INSTANCES))
        running = [tasks.create_task(gateway.follower.run()) for gateway in made.gateways]
        running.append(tasks.create_task(made.owner.run()))
        await until(lambda: made.have(INSTANCES) and made.settled())
        yield made
        for gateway in made.gateways:
            assert gateway.shrunk == 0, "instances left the table"
        for task in running:
            task.cancel()


async def until(true: Callable[[], bool], within_s: float = CONVERGES_S) -> float:
    """Return after how many seconds it became true. Fails when it does not."""
    began_s = time.monotonic()
    while not true():
        assert time.monotonic() - began_s < within_s, "it did not come true"
        await asyncio.sleep(0.005)  # noqa: TID251 - of another process's doings nobody tells
    return time.monotonic() - began_s


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis_library.Redis]:
    with redis_server.client() as client:
        yield client


def state(client: redis_library.Redis) -> dict[bytes, bytes]:
    answer: Any = client.hgetall(STATE)
    return dict(answer)


async def converged(fleet: Fleet, client: redis_library.Redis, count: int) -> None:
    await until(lambda: fleet.have(count) and len(state(client)) == count + 1 and fleet.equal(state(client)))


async def test_a_change_is_known_elsewhere_within_milliseconds(redis_server: RedisServer) -> None:
    async with fleet(redis_server.url) as gateways:
        other = gateways.gateways[1]
        took_s = []
        for number in range(30):
            gateways.publish(range(number, number + 1), cordoned=True)
            record = gateways.owner.record("instance", f"tools/i-{number}")
            assert record is not None
            began_s = time.monotonic()
            await other.follower.seen(record.key, record.version)
            took_s.append(time.monotonic() - began_s)
    median_s = sorted(took_s)[len(took_s) // 2]
    print(f"from published to routable elsewhere: median {median_s * 1000:.1f} ms, worst {max(took_s) * 1000:.1f} ms")
    assert median_s < 0.1


async def test_flushall(redis_server: RedisServer, client: redis_library.Redis) -> None:
    async with fleet(redis_server.url) as gateways:
        for round_number in range(3):
            client.flushall()
            gateways.publish(range(round_number), cordoned=True)
            await converged(gateways, client, INSTANCES)


async def test_flushall_without_the_owner(redis_server: RedisServer, client: redis_library.Redis) -> None:
    async with fleet(redis_server.url) as gateways:
        gateways.gateways[0].lost = lambda: None
        client.flushall()
        await converged(gateways, client, INSTANCES)


async def test_killed_and_started_empty(redis_server: RedisServer, client: redis_library.Redis) -> None:
    async with fleet(redis_server.url) as gateways:
        redis_server.kill()
        await until(lambda: gateways.connected() == 0, NOTICED_S)
        gateways.publish(range(INSTANCES, INSTANCES + 5))
        redis_server.start()
        await converged(gateways, client, INSTANCES + 5)
        await until(lambda: gateways.connected() == 2)


async def test_stopped_and_continued(redis_server: RedisServer, client: redis_library.Redis) -> None:
    async with fleet(redis_server.url) as gateways:
        resyncs = [gateway.follower.resyncs for gateway in gateways.gateways]
        redis_server.pause()
        gateways.publish(range(3), cordoned=True)
        await until(lambda: gateways.connected() == 0, NOTICED_S)
        assert gateways.have(INSTANCES)
        redis_server.resume()
        await converged(gateways, client, INSTANCES)
        # Nothing was lost, so nothing was read again.
        assert [gateway.follower.resyncs for gateway in gateways.gateways] == resyncs


async def test_trimmed_past_a_gateway_that_stood_still(redis_server: RedisServer, client: redis_library.Redis) -> None:
    async with fleet(redis_server.url) as gateways:
        for _ in range(3):
            # The loop does nothing else meanwhile, as when the process is stopped.
            with redis_server.client() as other:
                for _ in range(50):
                    write_now(other, gateways.owner.owned()[-1])
                other.xtrim(STREAM, maxlen=10, approximate=False)
            await converged(gateways, client, INSTANCES)


def write_now(client: redis_library.Redis, record: Record) -> None:
    """The same record under the next id, as if it had been said once more."""
    info: Any = client.xinfo_stream(STREAM)
    number = int(info["last-generated-id"].split(b"-")[0]) + 1
    client.xadd(STREAM, {"record": record.raw}, id=f"{number}-0")


async def test_another_database(redis_server: RedisServer, client: redis_library.Redis) -> None:
    async with fleet(redis_server.url) as gateways:
        client.swapdb(0, 1)
        await converged(gateways, client, INSTANCES)


@pytest.mark.parametrize("key", [STREAM, STATE, GENERATION])
async def test_one_key_lost(redis_server: RedisServer, client: redis_library.Redis, key: str) -> None:
    async with fleet(redis_server.url) as gateways:
        client.delete(key)
        await converged(gateways, client, INSTANCES)


async def test_a_lagging_replica_takes_over(redis_server: RedisServer, other_server: RedisServer) -> None:
    with other_server.client() as replica:
        replica.replicaof("127.0.0.1", str(redis_server.port))
        async with switched(redis_server.port) as switch, fleet(f"redis://127.0.0.1:{switch.port}/0") as gateways:
            redis_server.wait_for_replica()
            replica.replicaof("NO", "ONE")
            # Acknowledged, and lost with the old primary.
            gateways.publish(range(INSTANCES, 2 * INSTANCES))
            await until(lambda: gateways.have(2 * INSTANCES))
            assert len(state(replica)) == INSTANCES + 1
            switch.to(other_server.port)
            await until(lambda: gateways.have(2 * INSTANCES) and len(state(replica)) == 2 * INSTANCES + 1)
            await until(lambda: gateways.equal(state(replica)))


async def test_poison_harms_nothing_else(
    redis_server: RedisServer, client: redis_library.Redis, rng: random.Random
) -> None:
    async with fleet(redis_server.url) as gateways:
        good = gateways.owner.owned()[-1].raw
        poison = [
            b"",
            b"{",
            b"[" * 100_000,
            b"NaN",
            b'"\\ud800"',
            b"x" * 10_000_000,
            good.replace(b'"schema":1', b'"schema":9'),
        ]
        poison += [bytes(rng.choices(good, k=rng.randrange(len(good)))) for _ in range(200)]
        for number, raw in enumerate(poison):
            assert not isinstance(decode(raw), Record)
            client.xadd(STREAM, {"record": raw})
            client.hset(STATE, f"instance/tools/bad-{number}", raw)
        began_s = time.monotonic()
        gateways.publish(range(3), cordoned=True)
        records = [gateways.owner.record("instance", f"tools/i-{number}") for number in range(3)]
        for gateway in gateways.gateways:
            for record in records:
                assert record is not None
                await gateway.follower.seen(record.key, record.version)
        print("healthy records after poison took", time.monotonic() - began_s)
        await until(lambda: {len(gateway.catalog.quarantined()) for gateway in gateways.gateways} == {len(poison)})
        assert gateways.have(INSTANCES)
