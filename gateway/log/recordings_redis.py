"""Recorded sessions on Redis: one hash with an expiry for each, `moorage:recording:<digest in hexadecimal>`.

Each change and each look is one script, so that what is read, compared, written and renewed is of one moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from gateway.log.recordings import Kept
from gateway.log.redis_client import RedisClient, redacted

_PUT: Final = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'recording', ARGV[1], 'binding', '', 'ttl', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

_RENEWED: Final = """
local function renewed(key)
  local ttl = tonumber(redis.call('HGET', key, 'ttl') or '')
  if ttl then redis.call('PEXPIRE', key, ttl) end
  return ttl
end
"""

_GET: Final = f"""{_RENEWED}
local ttl = renewed(KEYS[1])
if not ttl then return false end
return {{redis.call('HGET', KEYS[1], 'recording'), redis.call('HGET', KEYS[1], 'binding'), ttl}}
"""

_BIND: Final = f"""{_RENEWED}
if not renewed(KEYS[1]) then return false end
local present = redis.call('HGET', KEYS[1], 'binding')
if present ~= ARGV[1] then return present end
redis.call('HSET', KEYS[1], 'binding', ARGV[2])
return ARGV[2]
"""

_RENEW: Final = f"""{_RENEWED}
for _, key in ipairs(KEYS) do renewed(key) end
"""


class RedisRecordings:
    """See RecordingTable."""

    def __init__(self, url: str) -> None:
        self._client = RedisClient(url, f"{redacted(url)} recordings")
        scripts = (self._client.redis.register_script(script) for script in (_PUT, _GET, _BIND, _RENEW))
        self._put, self._get, self._bind, self._renew = scripts

    async def put(self, digest: bytes, recording: bytes, ttl_s: float) -> None:
        async with self._client.asking():
            await self._put([_key(digest)], [recording, _milliseconds(ttl_s)])

    async def get(self, digest: bytes) -> Kept | None:
        async with self._client.asking():
            found: Any = await self._get([_key(digest)])
        if found is None or None in found:
            return None
        recording, binding, ttl_ms = found
        return Kept(recording, binding, int(ttl_ms) / 1000)

    async def bind(self, digest: bytes, before: bytes, binding: bytes) -> bytes | None:
        async with self._client.asking():
            bound: Any = await self._bind([_key(digest)], [before, binding])
        return bytes(bound) if bound is not None else None

    async def renew(self, digests: Sequence[bytes]) -> None:
        async with self._client.asking():
            await self._renew([_key(digest) for digest in digests], [])

    async def delete(self, digest: bytes) -> None:
        async with self._client.asking() as redis:
            await redis.delete(_key(digest))

    async def aclose(self) -> None:
        await self._client.aclose()


def _key(digest: bytes) -> str:
    return f"moorage:recording:{digest.hex()}"


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
