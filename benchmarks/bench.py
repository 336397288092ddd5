"""What every measurement is made of: what all share, an item and its columns."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import Peer, Proxy
from benchmarks.processes import Broken, Child, cores, python, started

Sample = dict[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all items share: the instances, a folder for logs, and how much to do."""

    upstream: Child
    instances: Sequence[int]
    folder: Path
    short: bool

    def amount(self, long: int, short: int, share: float = 1.0) -> int:
        """How much work one measurement does."""
        return max(1, int((short if self.short else long) * share))

    @contextlib.contextmanager
    def load(self, module: str, *arguments: object) -> Iterator[Child]:
        """A load process that is ready to begin."""
        log = self.folder / f"{module}.log"
        with started(python(f"benchmarks.{module}", *arguments), core=cores()[1], log=log, talks=True) as child:
            child.answer()
            yield child

    def emit(self, events: int, per_s: int, streams: int) -> None:
        """Have the instances send events, round-robin over all streams. Raises Broken if there are not `streams`."""
        self.upstream.tell(f"emit {events} {per_s}")
        answer = self.upstream.answer()
        if answer != f"emitted {streams}":
            raise Broken(f"{streams} streams should be open at the instances: {answer}")

    def end_streams(self) -> None:
        self.upstream.tell("end")
        self.upstream.answer()


@dataclass(frozen=True, slots=True)
class Column:
    """One value of the samples. `compared` adds its ratio to the item's reference peer."""

    key: str
    label: str
    scale: float = 1.0
    digits: int = 1
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One measurement. The first column says which rounds were quiet."""

    name: str
    title: str
    reference: str
    columns: tuple[Column, ...]
    measure: Callable[[Bench, Proxy], Sample]
    applies: Callable[[Peer], bool] = lambda _: True
    fresh: bool = False
    """Every measurement gets a proxy of its own, because what an earlier one left behind would hide something."""
    one_core: bool = False
    """Proxy, load and instances share a core."""
    any_core: bool = False
    """The proxy goes wherever the kernel puts it, and so does what it starts."""
    own: tuple[Peer, ...] = ()
    """Measured in place of the proxies: the item is about what only Moorage does."""
    rows: str = "proxy"
    """What the rows of the table are."""
    rounds: int = 7
    short_rounds: int = 3
