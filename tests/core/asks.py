"""Any table, any question, any view: what the properties of `decide` are drawn from."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from gateway.core.decision import Ask, Decision, Refuse
from gateway.core.model import Concurrency, Dialect, Instance, Intent, Kind, Pin, Rule, State
from tests.core.builders import Seen, instance, table

PLAIN = Intent(Kind.PLAIN, Dialect.HTTP)
INITIALIZE = Intent(Kind.INITIALIZE, Dialect.SESSION_2025)
SESSION = Intent(Kind.IN_SESSION, Dialect.SESSION_2025, b"token")
STREAM_POST = Intent(Kind.LEGACY_POST, Dialect.SSE_2024, b"pin")
TASK = Intent(Kind.TASK, Dialect.STATELESS_2026, b"t")
STATE = Intent(Kind.STATE, Dialect.STATELESS_2026, b"s")

REGIONS = ("local", "near", "far")

INSTANCES = st.builds(
    lambda state, incarnation, flags, region: instance(
        "i-?",
        state=state,
        incarnation=incarnation,
        cordoned=flags[0],
        healthy=flags[1],
        held_down=flags[2],
        startable=flags[3],
        region=region,
    ),
    st.sampled_from(State),
    st.sampled_from(["k3j9", "zzzz"]),
    st.tuples(*[st.booleans()] * 4),
    st.sampled_from(REGIONS),
)


def numbered(instances: list[Instance]) -> list[Instance]:
    return [replace(one, id=f"i-{number}") for number, one in enumerate(instances)]


TABLES = st.builds(
    lambda instances, hard, auto_start, survive: table(
        *numbered(instances),
        concurrency=Concurrency(soft=1, hard=hard),
        auto_start=auto_start,
        sessions_survive_stop=survive,
    ),
    st.lists(INSTANCES, max_size=4),
    st.sampled_from([None, 1, 2]),
    st.booleans(),
    st.booleans(),
)
SETS = st.frozensets(st.sampled_from(["i-0", "i-1", "i-2"]))
LOADS = st.dictionaries(st.sampled_from(["i-0", "i-1", "i-2", "i-3"]), st.integers(0, 3))
ORDERS = st.permutations(["i-0", "i-1", "i-2", "i-3"]).map(tuple)
VIEWS = st.builds(Seen, LOADS, LOADS, SETS, ORDERS)
PLACES = st.lists(st.none() | st.frozensets(st.sampled_from(REGIONS), min_size=1), max_size=3).map(tuple)
PINS = st.none() | st.builds(Pin, st.sampled_from(["i-0", "i-1", "i-9"]), st.sampled_from(["k3j9", "zzzz"]))
NAMES = st.sampled_from(["", "i-0", "i-1", "i-9"])
KEYS = st.sampled_from([b"", b"k"])
ASKS = st.builds(
    Ask,
    st.sampled_from([PLAIN, INITIALIZE, SESSION, STREAM_POST, TASK, STATE]),
    PINS,
    st.just(Rule.SEALED),
    PINS,
    NAMES,
    NAMES,
    KEYS,
    SETS,
    PLACES,
    st.sampled_from([None, Rule.REPLAY, Rule.REPLAY_CACHE]),
)


def chosen(decision: Decision) -> Instance | None:
    return None if isinstance(decision, Refuse) else decision.instance
