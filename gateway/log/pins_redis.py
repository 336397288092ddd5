"""Pins on Redis: one string with an expiry for each, `moorage:pin:<digest in hexadecimal>`."""

from __future__ import annotations

import math
from typing import Any

from gateway.core.model import Pin
from gateway.log.pins import Found, decode_pin, encode_pin
from gateway.log.redis_client import RedisClient, redacted


class RedisPins:
    """See PinTable."""

    def __init__(self, url: str) -> None:
        self._client = RedisClient(url, f"{redacted(url)} pins")

    async def put(self, digest: bytes, pin: Pin, ttl_s: float) -> None:
        async with self._client.asking() as redis:
            await redis.set(_key(digest), encode_pin(Found(pin, ttl_s)), px=_milliseconds(ttl_s))

    async def get(self, digest: bytes) -> Found | None:
        async with self._client.asking() as redis:
            raw: Any = await redis.get(_key(digest))
            found = decode_pin(raw) if raw is not None else None
            if found is not None:
                await redis.pexpire(_key(digest), _milliseconds(found.ttl_s))
            return found

    async def delete(self, digest: bytes) -> None:
        async with self._client.asking() as redis:
            await redis.delete(_key(digest))

    async def aclose(self) -> None:
        await self._client.aclose()


def _key(digest: bytes) -> str:
    return f"moorage:pin:{digest.hex()}"


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
