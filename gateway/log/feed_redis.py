"""A feed on Redis: a stream, and a string that names its history, written by one script and read by another.

Redis does not tell a reader that entries were trimmed, that the keys were deleted and written anew, or that another
server took over. So ids are dense, and each read sees history, last id and entries in one moment; the history's name
is `<history>@<the server's replication id>`. See docs/adr/0004-dense-ids-and-a-named-history.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

from gateway.log.base import LogUnavailable, Place
from gateway.log.feed import CHUNK, KEPT_MESSAGES, Kept, Read, checked, read_behind
from gateway.log.redis_client import RedisClient, redacted

_PLACE: Final = """
local feed, history, last = KEYS[1], redis.call('GET', KEYS[2]) or '', '0-0'
if redis.call('EXISTS', feed) == 1 then
  local info = redis.call('XINFO', 'STREAM', feed)
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then last = info[at + 1] end
  end
else
  -- A history is both keys.
  history = ''
end
"""

_APPEND: Final = f"""{_PLACE}
local number = tonumber(string.match(last, '^%d+'))
-- Ids from elsewhere may leave no room for the next one.
if history == '' or number > 9007199254740991 - 1000000 then
  redis.call('UNLINK', feed)
  redis.call('SET', KEYS[2], ARGV[1])
  number = 0
end
for at = 3, #ARGV do
  number = number + 1
  redis.call('XADD', feed, 'MAXLEN', '~', ARGV[2], string.format('%.0f-0', number), 'message', ARGV[at])
end
"""

_BEHIND: Final = f"""{_PLACE}
if history == '' then return {{'', last, false}} end
-- The replication id changes when another server takes over or this one is started anew. A user who may not ask for it
-- must do without.
local server = redis.pcall('INFO', 'replication')
server = type(server) == 'string' and string.match(server, 'master_replid:(%w+)') or 'unknown'
return {{history .. '@' .. server, last, redis.call('XREAD', 'COUNT', ARGV[2], 'STREAMS', feed, ARGV[1])}}
"""


class RedisFeed:
    """See Feed. Reading and writing use connections of their own, so that neither waits for the other."""

    def __init__(self, url: str, name: str, kept_messages: int = KEPT_MESSAGES) -> None:
        self.where = f"{redacted(url)} feed {name}"
        self._stream, self._history = f"moorage:{{feed}}:{name}", "moorage:{feed}:history"
        self._kept_messages = kept_messages
        self._reader = RedisClient(url, self.where)
        self._writer = RedisClient(url, self.where)
        self._append_script = self._writer.redis.register_script(_APPEND)
        self._behind_script = self._reader.redis.register_script(_BEHIND)
        self._closed = False

    async def append(self, messages: Sequence[bytes]) -> None:
        checked(messages)
        for at in range(0, len(messages), CHUNK):
            arguments: list[Any] = [secrets.token_hex(8), self._kept_messages, *messages[at : at + CHUNK]]
            async with self._open(self._writer).asking():
                await self._append_script([self._stream, self._history], arguments)

    async def read(self, history: str, position: str, wait_s: float) -> Read:
        return await read_behind(self._look, self._wait, history, position, wait_s)

    async def aclose(self) -> None:
        self._closed = True
        await self._reader.aclose()
        await self._writer.aclose()

    async def _look(self, place: Place) -> Kept:
        async with self._open(self._reader).asking():
            answer: Any = await self._behind_script([self._stream, self._history], [str(place), CHUNK])
        history, last, streams = answer
        entries = [
            # An entry without the field is somebody else's: an empty message is for the listener to refuse.
            (Place.parse(at.decode()), fields[1] if fields and fields[0] == b"message" else b"")
            for _, found in streams or ()
            for at, fields in found
        ]
        return Kept(history.decode(errors="replace"), Place.parse(last.decode()), entries)

    async def _wait(self, position: str, wait_s: float) -> None:
        async with self._open(self._reader).asking(wait_s) as redis:
            await redis.xread({self._stream: position}, count=1, block=max(1, int(wait_s * 1000)))

    def _open(self, client: RedisClient) -> RedisClient:
        if self._closed:
            raise LogUnavailable(self.where, "it is closed", "open it again")
        return client
