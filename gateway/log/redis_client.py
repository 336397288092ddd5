"""A Redis client under our own deadlines: one attempt, bounded in time, and one kind of failure.

The library's retries are off: with them, a stopped Redis is noticed after half a minute. So is its socket timeout,
which wraps each sending in asyncio.wait_for: on Python 3.11 that may swallow a cancellation (CPython issue 86296), and
the task runs on. One deadline around each operation, a blocking read's wait included, does for both.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ReadOnlyError, RedisError

from gateway.log.base import LogUnavailable

CONNECT_S: Final = 2.0
DEADLINE_S: Final = 3.0
"""Longest time of one operation, beyond what it waits for on purpose."""
MAX_CONNECTIONS: Final = 16
"""Of one client; more operations wait for a free one."""


class RedisClient:
    """One user's connections. After a failure the next use connects anew."""

    def __init__(self, url: str, where: str) -> None:
        self.where = where
        self.connects = 0
        """Connections made so far. The library makes them unasked, perhaps to another server than before."""
        pool = BlockingConnectionPool.from_url(
            url,
            timeout=DEADLINE_S,
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            socket_timeout=None,
            socket_connect_timeout=CONNECT_S,
            socket_keepalive=True,
            health_check_interval=0,
            redis_connect_func=self._connected,
            protocol=2,
            decode_responses=False,
        )
        self.redis: Redis = Redis.from_pool(pool)

    @contextlib.asynccontextmanager
    async def asking(self, wait_s: float = 0.0) -> AsyncIterator[Redis]:
        """The client, for one operation that may take `wait_s` longer than usual. Any failure is LogUnavailable."""
        limit_s = DEADLINE_S + wait_s
        try:
            async with asyncio.timeout(limit_s):
                yield self.redis
        except TimeoutError as error:
            raise await self._failed(f"no answer within {limit_s:g} s", "look whether Redis is stuck") from error
        except AuthenticationError as error:
            raise await self._failed(str(error), "correct the user or password in the catalog's URL") from error
        except NoPermissionError as error:
            raise await self._failed(str(error), "allow this user the commands in docs/reference/catalog.md") from error
        except ReadOnlyError as error:
            raise await self._failed(str(error), "name the primary in the catalog's URL") from error
        except (RedisError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise await self._failed(reason, "look whether Redis runs and can be reached from here") from error

    async def aclose(self) -> None:
        await self.redis.aclose()

    async def _connected(self, connection: AbstractConnection) -> None:
        self.connects += 1
        await connection.on_connect()

    async def _failed(self, reason: str, remedy: str) -> LogUnavailable:
        # The connection that failed is closed by the library; the idle ones lead to the same server.
        with contextlib.suppress(RedisError, OSError):
            await self.redis.connection_pool.disconnect(inuse_connections=False)
        return LogUnavailable(self.where, reason, remedy)


def redacted(url: str) -> str:
    """The server and database of a URL, without user, password and options."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path or '/0'}"
