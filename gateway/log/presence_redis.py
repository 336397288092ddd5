"""Presence on Redis: keys that expire by the server's own clock, each change one script.

Gateways are found by an index with the time at which each ends, since looking for keys by pattern walks through all of
the database. A gateway that is in it and whose key is gone before its time lost it to an eviction, and lives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.core.presence import MAX_LEASES, Lead, Lease
from gateway.log.base import LogUnavailable
from gateway.log.presence import check_gateway, check_lease, check_put, check_role, too_many
from gateway.log.redis_client import RedisClient, redacted

_PREFIX: Final = "moorage:{presence}:"
_GATEWAYS: Final = f"{_PREFIX}gateways"
_AWAKE: Final = f"{_PREFIX}awake"
_CHUNK: Final = 50
"""Messages in one read: 12 MiB at most."""

_MEMBER: Final = re.compile(r"([a-z0-9-]{1,63})/([A-Za-z0-9-]{1,64})/([A-Za-z0-9._-]{1,64})", re.ASCII)

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
"""In milliseconds since 1970."""

_PUT: Final = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
"""

_LIVE: Final = f"""{_NOW}
local live = {{}}
local ends = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for at = 1, #ends, 2 do
  local left = tonumber(ends[at + 1]) - now
  if left > 0 and string.sub(ends[at], 1, #ARGV[1]) == ARGV[1] then
    live[#live + 1] = ends[at]
    live[#live + 1] = left
  end
end
return live
"""
"""The members that begin with an argument, each followed by the milliseconds that are left to it."""

_LEAD: Final = """
local has = redis.call('GET', KEYS[1])
if has and has ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return has and 2 or 1
"""

_RESIGN: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

_HOLD: Final = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZSCORE', KEYS[1], ARGV[1] .. ARGV[2]) then
  if ARGV[4] == '0' then return 0 end
else
  -- Only a new name is counted: what comes often is a renewal.
  local count = 0
  for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if string.sub(member, 1, #ARGV[1]) == ARGV[1] then count = count + 1 end
  end
  if count >= tonumber(ARGV[5]) then return -1 end
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[1] .. ARGV[2])
return 1
"""

_RELEASE: Final = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZREM', KEYS[1], ARGV[1])
"""


class RedisPresence:
    """See Presence."""

    def __init__(self, url: str) -> None:
        self.where = f"{redacted(url)} presence"
        self._client = RedisClient(url, self.where)
        self._closed = False
        register = self._client.redis.register_script
        self._put, self._live = register(_PUT), register(_LIVE)
        self._lead, self._resign = register(_LEAD), register(_RESIGN)
        self._hold, self._release = register(_HOLD), register(_RELEASE)

    async def put(self, gateway: str, message: bytes, ttl_s: float) -> None:
        check_put(gateway, message, ttl_s)
        async with self._open().asking():
            await self._put([_GATEWAYS, _gateway(gateway)], [gateway, message, _milliseconds(ttl_s)])

    async def all(self) -> Mapping[str, bytes]:
        messages: dict[str, bytes] = {}
        async with self._open().asking() as redis:
            live: Any = await self._live([_GATEWAYS], [""])
            names = [name.decode(errors="replace") for name in live[::2]]
            for at in range(0, len(names), _CHUNK):
                chunk = names[at : at + _CHUNK]
                found: Any = await redis.mget([_gateway(name) for name in chunk])
                messages.update({name: message or b"" for name, message in zip(chunk, found, strict=True)})
        return messages

    async def drop(self, gateway: str) -> None:
        check_gateway(gateway)
        async with self._open().asking() as redis:
            pipeline = redis.pipeline(transaction=True)
            pipeline.zrem(_GATEWAYS, gateway)
            pipeline.delete(_gateway(gateway))
            await pipeline.execute()

    async def lead(self, role: str, holder: str, ttl_s: float) -> Lead:
        check_role(role, holder, ttl_s)
        async with self._open().asking():
            return Lead(await self._lead([_role(role)], [holder, _milliseconds(ttl_s)]))

    async def resign(self, role: str, holder: str) -> None:
        check_role(role, holder)
        async with self._open().asking():
            await self._resign([_role(role)], [holder])

    async def hold(self, app: str, id: str, name: str, expires_in_s: float, *, replace: bool) -> bool:
        check_lease(app, id, name, expires_in_s)
        arguments: list[Any] = [f"{app}/{id}/", name, _milliseconds(expires_in_s), int(replace), MAX_LEASES]
        async with self._open().asking():
            held: int = await self._hold([_AWAKE], arguments)
        if held < 0:
            raise too_many(app, id)
        return bool(held)

    async def release(self, app: str, id: str, name: str) -> bool:
        check_lease(app, id, name)
        async with self._open().asking():
            return bool(await self._release([_AWAKE], [f"{app}/{id}/{name}"]))

    async def held(self, app: str | None = None) -> Sequence[Lease]:
        async with self._open().asking():
            live: Any = await self._live([_AWAKE], ["" if app is None else f"{app}/"])
        leases = []
        for member, left in zip(live[::2], live[1::2], strict=True):
            # What has another form is somebody else's.
            if (parts := _MEMBER.fullmatch(member.decode(errors="replace"))) is not None:
                leases.append(Lease(parts[1], parts[2], parts[3], left / 1000))
        return sorted(leases)

    async def aclose(self) -> None:
        self._closed = True
        await self._client.aclose()

    def _open(self) -> RedisClient:
        if self._closed:
            raise LogUnavailable(self.where, "it is closed", "open it again")
        return self._client


def _gateway(gateway: str) -> str:
    return f"{_PREFIX}gateway:{gateway}"


def _role(role: str) -> str:
    return f"{_PREFIX}lead:{role}"


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
