"""The feed: a bounded list of small messages in the catalog's store, which every gateway appends to and reads whole.

Everybody reads the same messages in the same order, its own among them. Ids are dense and the history has a name, as in
a catalog log, so a reader sees that it missed something; then it forgets what it knew and takes what is still kept.
There is no state to read again: what was trimmed is forgotten by all.

Declared here: the Feed protocol and its values; `read_behind`, the one rule of what a reader is given, over what a
store holds; and Following, which reads and appends for as long as a gateway runs. Implementations: memory, sqlite,
redis. One contract suite runs over all of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from gateway.log.base import CHUNK_RECORDS, START, LogUnavailable, LossReason, Place, judge
from gateway.log.follower import BACKOFF_FIRST_S, BACKOFF_MAX_S, WAIT_S

KEPT_MESSAGES: Final = 50_000
"""Length of a feed; Redis keeps up to a hundred more."""
MAX_MESSAGE_BYTES: Final = 4096
CHUNK: Final = CHUNK_RECORDS
"""Messages in one read or write."""
MAX_OUTGOING: Final = 1000
"""Messages of one gateway that wait for being appended."""

logger = structlog.get_logger(__name__)


class Read(NamedTuple):
    """What was appended behind a position, in order, and where the reader then stands."""

    history: str
    """Names the history; empty when the store has none."""
    position: str
    messages: Sequence[bytes]
    restart: bool
    """Before taking the messages, the reader must forget everything it took earlier: what came between is missing."""
    end: bool
    """Nothing more was there. Until then, what was taken may be outdated by what follows."""


class Feed(Protocol):
    """One feed. Reads and appends of one object may overlap; reads may not."""

    where: str
    """The store and the feed, without password."""

    async def append(self, messages: Sequence[bytes]) -> None:
        """Put these at the end, in this order; each chunk of them whole or not at all.

        Raises ValueError for one over MAX_MESSAGE_BYTES, and LogUnavailable; then any of them may have been appended.
        """

    async def read(self, history: str, position: str, wait_s: float) -> Read:
        """What was appended behind `position` of `history`, at most a chunk; waits up to `wait_s` for the first.

        A reader begins with "" and "", and gets what is kept, from the oldest. A first read and a restart do not wait.
        Raises LogUnavailable.
        """

    async def aclose(self) -> None:
        """Let go of the store. Whoever waits in `read` gets LogUnavailable."""


def checked(messages: Sequence[bytes]) -> Sequence[bytes]:
    """The messages. Raises ValueError if one is over the bound."""
    for message in messages:
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes; at most {MAX_MESSAGE_BYTES} are taken")
    return messages


# --- what a reader is given ------------------------------------------------------------


class Kept(NamedTuple):
    """What a store holds behind a place, all of one moment."""

    history: str
    """Empty when there is none, or only a part of one; then there are no entries."""
    last: Place
    """The id given out last."""
    entries: Sequence[tuple[Place, bytes]]
    """In order, at most a chunk."""


Look = Callable[[Place], Awaitable[Kept]]


async def read_behind(
    look: Look, wait: Callable[[str, float], Awaitable[None]], history: str, position: str, wait_s: float
) -> Read:
    """See Feed.read. `wait` returns when there may be something behind a position, or after a time in seconds."""
    read = await _look_behind(look, history, position)
    if read.restart or read.messages or wait_s <= 0:
        return read
    await wait(read.position, wait_s)
    return await _look_behind(look, history, position)


async def _look_behind(look: Look, history: str, position: str) -> Read:
    place = Place.parse(position or START)
    kept = await look(place)
    reason = judge(history, place, kept.history, kept.last, [at for at, _ in kept.entries])
    if position and reason is None:
        return _read(kept, kept.entries, restart=False)
    if position and reason is not LossReason.GAP:
        # The place says nothing about what the store holds now. After a gap, nothing older is worth reading.
        kept = await look(Place.parse(START))
    return _read(kept, _unbroken(kept.entries), restart=True)


def _read(kept: Kept, entries: Sequence[tuple[Place, bytes]], *, restart: bool) -> Read:
    at = entries[-1][0] if entries else kept.last
    return Read(kept.history, str(at), tuple(message for _, message in entries), restart, at == kept.last)


def _unbroken(entries: Sequence[tuple[Place, bytes]]) -> Sequence[tuple[Place, bytes]]:
    """Those behind the last gap: what is missing there may outdate what stands before."""
    first = 0
    for index in range(1, len(entries)):
        if entries[index][0] != (entries[index - 1][0].number + 1, 0):
            first = index
    return entries[first:]


# --- as long as a gateway runs ---------------------------------------------------------


class Listener(Protocol):
    """Told what comes of a feed. Must not raise or wait."""

    def take(self, messages: Sequence[bytes], restart: bool) -> None:
        """These came, in order; with `restart`, first forget what came before. At most a chunk."""

    def lost(self) -> None:
        """The store is away, so messages may be missed: forget everything. Once for each outage; `take` with `restart`
        follows when it is over."""

    def failed(self, message: bytes) -> None:
        """This was published here and perhaps not appended: forget what followed from it."""


class Following:
    """Reads a feed for one listener and appends what it publishes. `run` in a task of its own."""

    def __init__(self, feed: Feed, listener: Listener, rng: random.Random | None = None) -> None:
        self.connected = False
        """The store answers, and since it does, everything that it kept was taken."""
        self.received = 0
        """Messages taken, those read again included."""
        self.sent = 0
        """Messages appended."""
        self.dropped = 0
        """Messages published and not known to be appended."""
        self._feed = feed
        self._listener = listener
        self._rng = rng if rng is not None else random.Random()
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue(MAX_OUTGOING)

    def publish(self, message: bytes) -> None:
        """Append this soon. If that fails, `failed` is told, perhaps before this returns. Nothing is tried twice.

        Raises ValueError for a message over MAX_MESSAGE_BYTES.
        """
        checked([message])
        try:
            self._outgoing.put_nowait(message)
        except asyncio.QueueFull:
            self._drop([message])

    async def run(self) -> None:
        """Read and append until cancelled. What waits for being appended then is dropped without a word."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._send())

    async def _receive(self) -> None:
        history, position, failures = "", "", 0
        while True:
            try:
                read = await self._feed.read(history, position, WAIT_S)
            except LogUnavailable as error:
                history, position, failures = "", "", failures + 1
                if failures == 1:
                    logger.warning("the feed is away; what came by it is forgotten", error=str(error))
                    self.connected = False
                    self._listener.lost()
                # Back-off: nothing announces that a store is back.
                await asyncio.sleep(self._delay_s(failures))  # noqa: TID251 - see above
                continue
            if failures:
                logger.info("the feed is back", where=self._feed.where)
                failures = 0
            history, position = read.history, read.position
            self._take(read)
            # A store in this process answers without waiting, and there may be many chunks.
            await asyncio.sleep(0)  # noqa: TID251 - lets the loop's other tasks run

    def _take(self, read: Read) -> None:
        if read.messages or read.restart:
            self.received += len(read.messages)
            self._listener.take(read.messages, read.restart)
        # Lagging behind the end is no outage; not having reached it since a restart is one.
        self.connected = read.end or (self.connected and not read.restart)

    async def _send(self) -> None:
        failing = False
        while True:
            batch = [await self._outgoing.get()]
            while len(batch) < CHUNK and not self._outgoing.empty():
                batch.append(self._outgoing.get_nowait())
            try:
                await self._feed.append(batch)
            except LogUnavailable as error:
                if not failing:
                    logger.warning("the feed takes no messages; they are dropped", error=str(error))
                failing = True
                self._drop(batch)
            else:
                failing = False
                self.sent += len(batch)

    def _drop(self, messages: Sequence[bytes]) -> None:
        self.dropped += len(messages)
        for message in messages:
            self._listener.failed(message)

    def _delay_s(self, failures: int) -> float:
        """Up to 100 ms, doubling to 2 s; anything below it, so that many do not return at once."""
        return self._rng.uniform(0.0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16)))
