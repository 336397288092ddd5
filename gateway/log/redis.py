"""The catalog log on Redis: a stream, a hash with the latest records, and a generation, written by one script.

Redis does not tell a reader that entries were trimmed, that the keys were deleted and written anew, or that another
server with fewer entries took over. So stream ids are dense, and after every read the generation, the last id and (at
most once a second) the server's replication id are looked at. A history's name has both: `<generation>@<replication>`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from gateway.core.record import Record, Version, encode
from gateway.log.base import (
    CHUNK_RECORDS,
    KEPT_ENTRIES,
    START,
    Batch,
    LogUnavailable,
    Lost,
    Newer,
    Place,
    Raw,
    Snapshot,
    Tail,
    judge,
)
from gateway.log.redis_client import RedisClient, redacted

REPLICATION_EVERY_S: Final = 1.0
CHUNK_BYTES: Final = 1024 * 1024
"""Bytes of records in one call of the script."""

APPEND: Final = """
local log, state, generation = KEYS[1], KEYS[2], KEYS[3]
local function whole(number)
  return type(number) == 'number' and number >= 0 and number <= 9007199254740991 and number == math.floor(number)
end

-- A history is all three keys. If one is gone, so is the history: what is left of the state begins the next one.
local last = nil
if redis.call('EXISTS', log, state, generation) == 3 then
  local info = redis.call('XINFO', 'STREAM', log)
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then last = tonumber(string.match(info[at + 1], '^%d+')) end
  end
end
-- Ids from elsewhere may leave no room for the next one.
if last == nil or last > 9007199254740991 - 1000000 then
  redis.call('UNLINK', log)
  redis.call('SET', generation, ARGV[1])
  last = 0
end

local newer = {}
for at = 3, #ARGV, 4 do
  local key, epoch, counter, raw = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local held = redis.call('HGET', state, key)
  local write = true
  if held then
    local read, record = pcall(cjson.decode, held)
    -- What cannot be read is older than anything.
    if read and type(record) == 'table' and whole(record.epoch) and whole(record.counter) then
      if record.epoch > epoch or (record.epoch == epoch and record.counter > counter) then
        newer[#newer + 1] = {key, string.format('%.0f', record.epoch), string.format('%.0f', record.counter),
          type(record.writer) == 'string' and record.writer or ''}
        write = false
      elseif record.epoch == epoch and record.counter == counter then
        write = false
      end
    end
  end
  if write then
    last = last + 1
    redis.call('HSET', state, key, raw)
    redis.call('XADD', log, 'MAXLEN', '~', ARGV[2], string.format('%.0f-0', last), 'record', raw)
  end
end
return newer
"""

PURGE: Final = """
local state, gone = KEYS[1], 0
for at = 1, #ARGV, 3 do
  local held = redis.call('HGET', state, ARGV[at])
  if held then
    local read, record = pcall(cjson.decode, held)
    if read and type(record) == 'table' and record.epoch == tonumber(ARGV[at + 1])
        and record.counter == tonumber(ARGV[at + 2]) then
      gone = gone + redis.call('HDEL', state, ARGV[at])
    end
  end
end
return gone
"""


class _Status(NamedTuple):
    generation: str
    last: Place | None


class RedisLog:
    """See CatalogLog. Reading and writing use connections of their own, so that neither waits for the other."""

    def __init__(
        self, url: str, region: str, kept_entries: int = KEPT_ENTRIES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.where = f"{redacted(url)} log {region}"
        prefix = f"moorage:{{{region}}}"
        self._stream, self._state, self._generation = f"{prefix}:log", f"{prefix}:state", f"{prefix}:generation"
        self._kept_entries = kept_entries
        self._clock = clock
        self._reader = RedisClient(url, self.where)
        self._writer = RedisClient(url, self.where)
        self._append_script = self._writer.redis.register_script(APPEND)
        self._purge_script = self._writer.redis.register_script(PURGE)
        self._replication = ""
        self._replication_at_s: float | None = None
        """None: to be asked for before anything is believed."""
        self._replication_connects = 0
        """The reader's connections made when it was asked for."""
        self._closed = False

    async def append(self, records: Sequence[Record]) -> Sequence[Newer]:
        newer: list[Newer] = []
        for chunk in _chunks([(record, encode(record)) for record in records]):
            arguments: list[Any] = [secrets.token_hex(8), self._kept_entries]
            for record, raw in chunk:
                arguments += (record.key, record.epoch, record.counter, raw)
            async with self._open(self._writer).asking():
                answer = await self._append_script([self._stream, self._state, self._generation], arguments)
            for key, epoch, counter, writer in answer:
                newer.append(Newer(key.decode(), Version(int(epoch), int(counter)), writer.decode(errors="replace")))
        return newer

    async def snapshot(self) -> Snapshot:
        self._replication_at_s = None
        status = await self._status()

        async def chunks() -> AsyncIterator[Sequence[Raw]]:
            cursor, begun = 0, False
            while cursor or not begun:
                async with self._asking() as redis:
                    answer: Any = await redis.hscan(self._state, cursor, count=CHUNK_RECORDS)
                begun, (cursor, found) = True, answer
                yield [Raw(key.decode(errors="replace"), raw) for key, raw in found.items()]
            if status.generation and (await self._status()).generation != status.generation:
                raise LogUnavailable(self.where, "its history changed while it was read", "it is read again")

        return Snapshot(status.generation, START if status.last is None else str(status.last), chunks())

    async def tail(self, generation: str, position: str, wait_s: float) -> Tail:
        place = Place.parse(position)
        if self._replication_at_s is None:
            # After a failure: if another server answers now, waiting for news of it is waiting in vain.
            status = await self._status()
            if (reason := judge(generation, place, *status, [Place(place.number + 1, 0)])) is not None:
                return Lost(reason)
        read = await self._read(position, wait_s)
        status = await self._status()
        if not read and status.last is not None and status.last > place:
            # Written since, or trimmed before it could be read.
            read = await self._read(position, 0)
        raws = tuple(Raw(f"stream {at}", raw) for at, raw in read)
        reason = judge(generation, place, *status, [at for at, _ in read])
        if reason is not None:
            return Lost(reason, raws)
        return Batch(str(read[-1][0]), raws) if read else Batch(position)

    async def purge(self, records: Sequence[Record]) -> None:
        arguments: list[Any] = []
        for record in records:
            arguments += (record.key, record.epoch, record.counter)
        async with self._open(self._writer).asking():
            await self._purge_script([self._state], arguments)

    async def aclose(self) -> None:
        self._closed = True
        await self._reader.aclose()
        await self._writer.aclose()

    async def _read(self, position: str, wait_s: float) -> list[tuple[Place, bytes]]:
        block = max(1, int(wait_s * 1000)) if wait_s > 0 else None
        async with self._asking(max(wait_s, 0.0)) as redis:
            answer: Any = await redis.xread({self._stream: position}, count=CHUNK_RECORDS, block=block)
        return [
            # An entry without the field is somebody else's: an empty record is refused as such.
            (Place.parse(at.decode()), (fields or {}).get(b"record", b""))
            for _, entries in answer
            for at, fields in entries
        ]

    async def _status(self) -> _Status:
        """The history's name, empty when the store has none, and the id given out last."""
        async with self._asking() as redis:
            pipeline = redis.pipeline(transaction=True)
            pipeline.get(self._generation)
            pipeline.exists(self._state)
            pipeline.xinfo_stream(self._stream)
            generation, state, info = await pipeline.execute(raise_on_error=False)
            for answer in (generation, state):
                if isinstance(answer, Exception):
                    raise answer
            if isinstance(info, Exception) and "no such key" not in str(info):
                raise info
            if self._is_replication_stale():
                self._replication = await _replication(redis)
                self._replication_at_s, self._replication_connects = self._clock(), self._reader.connects
        last = None if isinstance(info, Exception) else Place.parse(info["last-generated-id"].decode())
        if not generation or not state or last is None:
            return _Status("", last)
        return _Status(f"{generation.decode(errors='replace')}@{self._replication}", last)

    def _is_replication_stale(self) -> bool:
        return (
            self._replication_at_s is None
            or self._replication_connects != self._reader.connects
            or self._clock() - self._replication_at_s >= REPLICATION_EVERY_S
        )

    @contextlib.asynccontextmanager
    async def _asking(self, wait_s: float = 0.0) -> AsyncIterator[Redis]:
        """The reader; after a failure nothing that was known of the server counts."""
        try:
            async with self._open(self._reader).asking(wait_s) as redis:
                yield redis
        except BaseException:
            self._replication_at_s = None
            raise

    def _open(self, client: RedisClient) -> RedisClient:
        if self._closed:
            raise LogUnavailable(self.where, "it is closed", "open it again")
        return client


async def _replication(redis: Any) -> str:
    """The server's replication id, which changes when another server takes over or this one is started anew."""
    try:
        return str((await redis.info("replication")).get("master_replid", "unknown"))[:16]
    except NoPermissionError:
        # The generation and the ids must do.
        return "unknown"


def _chunks(rows: Sequence[tuple[Record, bytes]]) -> list[list[tuple[Record, bytes]]]:
    """Split by number and by size."""
    chunks: list[list[tuple[Record, bytes]]] = []
    size = 0
    for row in rows:
        if not chunks or len(chunks[-1]) >= CHUNK_RECORDS or size + len(row[1]) > CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(row)
        size += len(row[1])
    return chunks
