"""Two gateways on a feed: whatever is said and heard when, they come to agree, and what was dropped stays away."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.data.replays import Replays
from tests.data.entries import MINE, ROUTER, THEIRS, Clock, by_path, found, put, request, told

PATHS = ["/a", "/b"]


class Member:
    """A gateway on a feed; what it says waits to be appended, what was appended waits to be heard."""

    def __init__(self, feed: Feed, sender: str) -> None:
        self.feed = feed
        self.replays = Replays(sender, feed.clock)
        self.replays.publish = self.say
        self.waiting: list[int] = []
        """What it said, by number, and was not appended yet."""
        self.heard = 0
        self.dropped: dict[str, list[int]] = {}
        """By path, what it said since it last dropped its entry of that entry's end: again if the first word failed."""
        self._ends = {told(by_path(path), None, sender): path for path in PATHS}

    def say(self, raw: bytes) -> None:
        number = len(self.feed.said)
        self.waiting.append(number)
        self.feed.said.append(raw)
        if raw in self._ends:
            self.dropped[self._ends[raw]].append(number)

    def put(self, path: str, ttl_s: float) -> None:
        # The entry leads to the number of the message that tells of it.
        put(self.replays, by_path(path, ttl_s=ttl_s), str(len(self.feed.said)))

    def drop(self, path: str) -> None:
        entry = self.replays.find(ROUTER, request(path))
        if entry is not None:
            self.dropped[path] = []
            self.replays.drop(entry, "invalidated")

    def append(self) -> None:
        if self.waiting:
            self.feed.log.append(self.waiting.pop(0))

    def fail(self) -> None:
        if self.waiting:
            self.replays.failed(self.feed.said[self.waiting.pop(0)])

    def hear(self, count: int) -> None:
        numbers = self.feed.log[self.heard : self.heard + count]
        self.heard += len(numbers)
        if numbers:
            self.replays.take([self.feed.said[number] for number in numbers], restart=False)

    def found(self, path: str) -> int | None:
        """The number of the message that tells of the entry."""
        name = found(self.replays, path)
        return int(name) if name else None

    def check(self) -> None:
        """No entry that it dropped is found again: what is found was put later, here or as the feed has it."""
        for path, ends in self.dropped.items():
            made = self.found(path)
            if made is not None:
                own = made > ends[0] and self.feed.sender_of(made) is self
                assert own or self.feed.is_behind(made, ends), (path, made, ends)


class Feed:
    def __init__(self) -> None:
        self.clock = Clock()
        self.said: list[bytes] = []
        """Everything that was ever said; its place here is its number."""
        self.log: list[int] = []
        """The numbers of what was appended, in the one order."""
        self.members = [Member(self, MINE), Member(self, THEIRS)]

    def sender_of(self, number: int) -> Member:
        return self.members[f'"from":"{THEIRS}"'.encode() in self.said[number]]

    def is_behind(self, number: int, others: list[int]) -> bool:
        """Whether it was appended behind one of the others."""
        return any(self.log.index(number) > self.log.index(other) for other in others if other in self.log)

    def settle(self) -> None:
        """All that waits is appended and heard, and what is said in answer to it too."""
        while True:
            # The word of a third one: whoever hears anything has a store again.
            self.log.append(len(self.said))
            self.said.append(b"")
            for member in self.members:
                member.hear(len(self.log))
            if not any(member.waiting for member in self.members):
                return
            while any(member.waiting for member in self.members):
                for member in self.members:
                    member.append()


MEMBERS = st.sampled_from([0, 1])
STEPS = st.one_of(
    st.tuples(st.just("put"), MEMBERS, st.sampled_from(PATHS), st.sampled_from([10.0, 100.0])),
    st.tuples(st.just("drop"), MEMBERS, st.sampled_from(PATHS), st.just(0.0)),
    st.tuples(st.just("append"), MEMBERS, st.just(""), st.just(0.0)),
    st.tuples(st.just("hear"), MEMBERS, st.just(""), st.sampled_from([1.0, 2.0, 9.0])),
    st.tuples(st.just("wait"), MEMBERS, st.just(""), st.sampled_from([1.0, 10.0, 100.0])),
)
FAILING = STEPS | st.tuples(st.just("fail"), MEMBERS, st.just(""), st.just(0.0))
Step = tuple[str, int, str, float]


def after(steps: list[Step], check: Callable[[Member], None]) -> Feed:
    """A feed after these steps; `check` sees the member that took one, each time."""
    feed = Feed()
    for what, which, path, number in steps:
        member = feed.members[which]
        match what:
            case "put":
                member.put(path, number)
            case "drop":
                member.drop(path)
            case "append":
                member.append()
            case "fail":
                member.fail()
            case "hear":
                member.hear(int(number))
            case _:
                feed.clock.now_s += number
        check(member)
    return feed


CROSSED: list[Step] = [
    ("put", 0, "/a", 100.0),
    ("put", 1, "/a", 100.0),
    ("append", 1, "", 0.0),
    ("append", 0, "", 0.0),
    ("hear", 0, "", 1.0),
    ("drop", 0, "/a", 0.0),
    ("hear", 0, "", 1.0),
    ("hear", 1, "", 2.0),
]


LISTS = st.lists(STEPS, min_size=10, max_size=60)
FAILING_LISTS = st.lists(FAILING, min_size=10, max_size=60)


@given(LISTS)
@example(CROSSED)
def test_when_all_is_heard_all_agree(steps: list[Step]) -> None:
    feed = after(steps, lambda member: None)
    feed.settle()
    for path in PATHS:
        one, two = (member.replays.find(ROUTER, request(path)) for member in feed.members)
        assert one == two
    for member in feed.members:
        assert not member.replays._said


@given(FAILING_LISTS)
@example(CROSSED)
@example([*CROSSED[:5], ("drop", 0, "/a", 0.0), ("fail", 0, "", 0.0), ("hear", 0, "", 1.0)])
@example([("put", 0, "/a", 100.0), ("drop", 0, "/a", 0.0), ("append", 0, "", 0.0), ("fail", 0, "", 0.0)])
def test_what_was_dropped_does_not_come_back_where_it_was_dropped(steps: list[Step]) -> None:
    feed = after(steps, Member.check)
    feed.settle()
    for member in feed.members:
        member.check()


@given(FAILING_LISTS)
def test_what_was_dropped_ends_everywhere_whatever_could_not_be_said(steps: list[Step]) -> None:
    feed = after(steps, lambda member: None)
    feed.settle()
    for path in PATHS:
        found_by = [made for made in (member.found(path) for member in feed.members) if made is not None]
        assert len(set(found_by)) <= 1
        for made in found_by:
            assert all(feed.is_behind(made, member.dropped[path]) for member in feed.members if path in member.dropped)
    for member in feed.members:
        assert not member.replays._said
        assert not member.replays._owed
