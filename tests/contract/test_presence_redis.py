"""What only Redis can do to presence: hang, vanish, evict, be written by others, forbid."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.presence import Lead
from gateway.log.base import LogUnavailable
from gateway.log.presence_redis import RedisPresence
from tests.contract.presences import SHORT_S, TTL_S, everything, is_, names, until
from tests.contract.redis_server import RedisServer

NOTICED_S = 5.0
"""A stopped server is noticed within this."""
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "catalog.md"
ACL = re.compile(r"^ACL SETUSER moorage on >PASSWORD resetkeys ~(\S+) (.+)$", re.MULTILINE)


@pytest.fixture
async def on_redis(redis_server: RedisServer) -> AsyncIterator[RedisPresence]:
    presence = RedisPresence(redis_server.url)
    yield presence
    await presence.aclose()


async def test_the_keys_are_those_of_the_reference_page(on_redis: RedisPresence, redis_server: RedisServer) -> None:
    await on_redis.put("gw-1", b"a", TTL_S)
    await on_redis.lead("sleeper", "gw-1", TTL_S)
    await on_redis.hold("tools", "i-1", "job", 60.0, replace=False)
    with redis_server.client() as client:
        keys: Any = client.keys("*")
        kept = sorted(key.decode() for key in keys)
        assert all(client.pttl(key) > 0 for key in kept if ":gateway:" in key or ":lead:" in key)
    assert kept == [f"moorage:{{presence}}:{key}" for key in ("awake", "gateway:gw-1", "gateways", "lead:sleeper")]
    text = PAGE.read_text(encoding="utf-8")
    for key in ("gateway:ID", "gateways", "lead:ROLE", "awake"):
        assert f"`moorage:{{presence}}:{key}`" in text


async def test_nothing_is_left_of_what_was_given_up(on_redis: RedisPresence, redis_server: RedisServer) -> None:
    await on_redis.put("gw-1", b"a", TTL_S)
    await on_redis.lead("sleeper", "gw-1", TTL_S)
    await on_redis.hold("tools", "i-1", "job", 60.0, replace=False)
    await on_redis.drop("gw-1")
    await on_redis.resign("sleeper", "gw-1")
    await on_redis.release("tools", "i-1", "job")
    with redis_server.client() as client:
        assert client.keys("*") == []


async def test_redis_keeps_nothing_that_ended(on_redis: RedisPresence, redis_server: RedisServer) -> None:
    await on_redis.put("gw-1", b"a", SHORT_S)
    await on_redis.hold("tools", "i-1", "job", SHORT_S, replace=False)
    await until(lambda: is_(on_redis.all(), {}))
    await until(lambda: is_(on_redis.held(), []))
    await on_redis.put("gw-2", b"a", TTL_S)
    await on_redis.hold("tools", "i-2", "job", 60.0, replace=False)
    with redis_server.client() as client:
        assert client.zrange("moorage:{presence}:gateways", 0, -1) == [b"gw-2"]
        assert client.zrange("moorage:{presence}:awake", 0, -1) == [b"tools/i-2/job"]


async def test_a_hung_server_is_noticed(on_redis: RedisPresence, redis_server: RedisServer) -> None:
    await on_redis.put("gw-1", b"a", TTL_S)
    redis_server.pause()
    began_s = time.monotonic()
    outcomes = await asyncio.gather(*(ask() for ask in everything(on_redis)), return_exceptions=True)
    assert time.monotonic() - began_s < NOTICED_S
    assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes), outcomes
    redis_server.resume()
    await on_redis.put("gw-2", b"a", TTL_S)
    assert "gw-2" in await on_redis.all()


async def test_a_killed_server_is_noticed_at_once_and_comes_back_empty(
    on_redis: RedisPresence, redis_server: RedisServer
) -> None:
    await on_redis.put("gw-1", b"a", TTL_S)
    await on_redis.lead("sleeper", "gw-1", TTL_S)
    redis_server.kill()
    for ask in everything(on_redis):
        with pytest.raises(LogUnavailable) as caught:
            await ask()
        assert f"127.0.0.1:{redis_server.port}/0 presence" in str(caught.value)
    redis_server.start()
    assert await on_redis.lead("sleeper", "gw-1", TTL_S) is Lead.TAKEN
    assert await on_redis.all() == {}


async def test_a_gateway_whose_key_was_evicted_still_lives(on_redis: RedisPresence, redis_server: RedisServer) -> None:
    await on_redis.put("gw-1", b"a", TTL_S)
    with redis_server.client() as client:
        client.delete("moorage:{presence}:gateway:gw-1")
    assert await on_redis.all() == {"gw-1": b""}
    await on_redis.drop("gw-1")
    assert await on_redis.all() == {}


async def test_what_others_wrote_is_no_lease(on_redis: RedisPresence, redis_server: RedisServer) -> None:
    await on_redis.hold("tools", "i-1", "job", 60.0, replace=False)
    members = dict.fromkeys([b"tools", b"tools/i-1/a/b", b"tools/i-1/\x1b[2J", b"tools/i-1/", b"\xff/i/a"], 9e15)
    with redis_server.client() as client:
        client.zadd("moorage:{presence}:awake", {member.decode("latin-1"): end for member, end in members.items()})
    assert await names(on_redis) == [("tools", "i-1", "job")]


async def test_a_key_of_another_type_is_a_failure_of_the_store(
    on_redis: RedisPresence, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        for key in ("gateways", "awake"):
            client.set(f"moorage:{{presence}}:{key}", "text")
        client.hset("moorage:{presence}:lead:sleeper", "a", "b")
    for ask in everything(on_redis):
        with pytest.raises(LogUnavailable, match="WRONGTYPE"):
            await ask()


async def test_the_user_of_the_reference_page_may_do_what_is_needed(redis_server: RedisServer) -> None:
    found = ACL.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    with redis_server.client() as client:
        client.acl_setuser("moorage", enabled=True, passwords=["+sesame"], keys=[found[1]], commands=found[2].split())
    presence = RedisPresence(redis_server.url.replace("://", "://moorage:sesame@"))
    assert "sesame" not in presence.where
    # Twice: the second time there is something to replace, renew, release.
    for ask in [*everything(presence), *everything(presence)]:
        await ask()
    await presence.put("gw-1", b"a", TTL_S)
    assert await presence.all() == {"gw-1": b"a"}
    await presence.aclose()
