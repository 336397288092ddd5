"""Both forms of a replay say the same, and nothing that an app sends is more than a Replay or a PA03."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.core import regions, replay, replay_json
from gateway.core.problems import Code, Problem
from gateway.core.replay import FIELDS, HEADERS, MAX_TTL_S, CacheOrder, Fallback, Replay, Transform, parse_replay
from gateway.core.replay_json import parse_replay_json

MAX_MESSAGE_CHARS = 250

NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
INSTANCES = st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True)
STATES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters=';"'), max_size=80)
SEGMENTS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="/?#*"), min_size=1, max_size=9
)
TOKENS = st.text("!#$%&'*+-.^`|~0189azAZ", min_size=1, max_size=9).map(lambda name: "x" + name)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20).map(str.strip)
BLANKS = st.text(" \t", max_size=2)


@st.composite
def cache_orders(draw: st.DrawFn) -> CacheOrder:
    if draw(st.booleans()):
        return CacheOrder(invalidate=True)
    segments = draw(st.lists(SEGMENTS.filter(lambda one: one not in (".", "..")), max_size=3))
    host = draw(st.just("") | st.lists(NAMES, min_size=1, max_size=3).map(".".join))
    prefix = "".join("/" + one for one in segments).encode()
    return CacheOrder(host, prefix, float(draw(st.integers(0, MAX_TTL_S))), allow_bypass=draw(st.booleans()))


@st.composite
def transforms(draw: st.DrawFn) -> Transform:
    path = draw(st.lists(SEGMENTS, max_size=3))
    lines = draw(st.lists(st.tuples(TOKENS, VALUES), max_size=3, unique_by=lambda line: line[0].lower()))
    return Transform(
        ("/" + "/".join(path)).encode() if path else b"",
        frozenset(name.lower().encode() for name in draw(st.lists(TOKENS, max_size=3))),
        tuple((name.encode(), value.encode()) for name, value in lines),
    )


@st.composite
def replays(draw: st.DrawFn, transform: st.SearchStrategy[Transform | None]) -> Replay:
    instance, preferred = draw(INSTANCES | st.just("")), draw(INSTANCES | st.just(""))
    one = Replay(
        draw(NAMES | st.just("")),
        instance,
        preferred if not instance else "",
        tuple(draw(st.lists(NAMES, max_size=5))),
        draw(st.none() | STATES),
        draw(st.booleans()),
        draw(st.none() | st.integers(1, 3_600_000).map(lambda ms: ms / 1000)),
        draw(st.sampled_from(Fallback)),
        draw(transform),
        draw(st.none() | cache_orders()),
    )
    assume(one.app or one.instance or one.prefer_instance or one.regions or one.elsewhere)
    return one


def told(one: Replay) -> Iterator[tuple[str, str]]:
    """The fields that make up a replay, as both forms spell them."""
    for name in ("app", "instance", "prefer_instance"):
        if getattr(one, name):
            yield name, getattr(one, name)
    if one.regions:
        yield "region", ",".join(one.regions)
    if one.state is not None:
        yield "state", one.state
    if one.elsewhere:
        yield "elsewhere", "true"
    if one.timeout_s is not None:
        yield "timeout", f"{round(one.timeout_s * 1000)}ms"
    if one.fallback:
        yield "fallback", one.fallback.value


def as_headers(one: Replay, data: st.DataObject) -> dict[bytes, bytes]:
    """One of the spellings of a replay as headers."""
    parts = []
    for name, value in data.draw(st.permutations(list(told(one)))):
        quoted = data.draw(st.booleans()) or re.search(r'[ ,;"]', value)
        spelt = [data.draw(st.sampled_from([name, name.upper()])), "=", f'"{value}"' if quoted else value]
        parts.append("".join(data.draw(BLANKS) + part for part in spelt) + data.draw(BLANKS))
    values = {b"fly-replay": ";".join(parts).encode() + data.draw(st.sampled_from([b"", b";", b" ; "]))}
    if one.cache is not None and one.cache.invalidate:
        values[b"fly-replay-cache"] = b"invalidate"
    elif one.cache is not None:
        values[b"fly-replay-cache"] = pattern(one.cache, data).encode()
        values[b"fly-replay-cache-ttl-secs"] = b"%d" % one.cache.ttl_s
        if one.cache.allow_bypass or data.draw(st.booleans()):
            values[b"fly-replay-cache-allow-bypass"] = b"yes" if one.cache.allow_bypass else b"No"
    return values


def as_json(one: Replay, data: st.DataObject) -> bytes:
    """One of the spellings of a replay as JSON."""
    body: dict[str, Any] = dict(told(one))
    if one.elsewhere and data.draw(st.booleans()):
        body["elsewhere"] = True
    if one.cache is not None and one.cache.invalidate:
        body["cache"] = {"invalidate": True}
    elif one.cache is not None:
        body["cache"] = cache = {"prefix": pattern(one.cache, data), "ttl": int(one.cache.ttl_s)}
        if one.cache.allow_bypass or data.draw(st.booleans()):
            data.draw(st.sampled_from([body, cache]))["allow_bypass"] = one.cache.allow_bypass
    if one.transform is not None:
        body["transform"] = {
            "delete_headers": [name.decode() for name in one.transform.delete],
            "set_headers": [{"name": name.decode(), "value": value.decode()} for name, value in one.transform.set],
        }
        if one.transform.target:
            body["transform"]["path"] = one.transform.target.decode()
    order = data.draw(st.permutations(list(body)))
    return json.dumps({key: body[key] for key in order}, indent=data.draw(st.sampled_from([None, 2]))).encode()


def pattern(order: CacheOrder, data: st.DataObject) -> str:
    host = data.draw(st.sampled_from([order.host, order.host.upper()]))
    return host + order.prefix.decode() + data.draw(st.sampled_from(["/", "/*", "" if order.prefix else "/"]))


def fair(parsed: Replay | Problem) -> Replay | Problem:
    """What was parsed, if it is a replay or a PA03 whose message does no harm in a log or on a terminal."""
    if isinstance(parsed, Problem):
        assert parsed.code is Code.PA03
        assert parsed.message.isascii()
        assert parsed.message.isprintable()
        assert 0 < len(parsed.message) <= MAX_MESSAGE_CHARS
    else:
        assert isinstance(parsed, Replay)
    return parsed


# --- what is written is read ---------------------------------------------------------------------------


@given(replays(st.none()), st.data())
def test_a_replay_is_read_back_from_its_headers(one: Replay, data: st.DataObject) -> None:
    assert parse_replay(as_headers(one, data), ()) == one


@given(replays(st.none() | transforms()), st.data())
def test_a_replay_is_read_back_from_its_json(one: Replay, data: st.DataObject) -> None:
    assert parse_replay_json(as_json(one, data), {}) == one


WORDS = st.dictionaries(
    st.sampled_from(sorted(FIELDS)),
    st.sampled_from(
        ["i-1", "fra", "fra,eu", "true", "false", "5s", "0s", "2h", "force_self", "", " ", "a_b", "A", "\t", "~"]
    )
    | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"'), max_size=9),
    max_size=5,
)


@given(WORDS)
def test_both_forms_judge_the_same(fields: dict[str, str]) -> None:
    header = ";".join(f'{name}="{value}"' for name, value in fields.items()).encode()
    assert parse_replay({b"fly-replay": header}, ()) == parse_replay_json(json.dumps(fields).encode(), {})


# --- what is not written is refused --------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(
        [b"app", b"instance", b"region", b"state", b"=", b"=", b"=", b";", b";", b'"', b'"', b",", b" ", b"\t", b"a",
         b"fra", b"App", b"x", b"\\", b"\0", b"\xe4"]
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


def read_slowly(header: str) -> dict[str, str] | None:
    """The fields of a header, character by character; None for what is none. The grammar told once more."""
    pieces, quoted = [""], False
    for char in header:
        if char != "\t" and not " " <= char <= "~":
            return None
        quoted ^= char == '"'
        if char == ";" and not quoted:
            pieces.append("")
        else:
            pieces[-1] += char
    if len(pieces) > 1 and not pieces[-1].strip(" \t"):
        pieces.pop()
    fields: dict[str, str] = {}
    for piece in pieces:
        name, equals, value = (part.strip(" \t") for part in piece.partition("="))
        if len(value) > 1 and value.startswith('"') and value.endswith('"'):
            value, forbidden = value[1:-1], '"'
        else:
            forbidden = '", \t'
        if not equals or any(char in value for char in forbidden) or name.lower() in fields:
            return None
        fields[name.lower()] = value
    return fields


@given(PIECES | st.lists(PIECES, max_size=3).map(b";".join))
@example(b'app=a;state="')
@example(b'app=a;state="";')
def test_the_grammar_is_what_a_slow_reader_finds(header: bytes) -> None:
    parsed = fair(parse_replay({b"fly-replay": header}, ()))
    fields = read_slowly(header.decode("latin-1"))
    if fields is None:
        assert isinstance(parsed, Problem)
    else:
        assert parsed == parse_replay_json(json.dumps(fields).encode(), {}) or not fields.keys() <= FIELDS


@given(
    st.dictionaries(st.sampled_from(HEADERS), st.binary(max_size=120) | PIECES, max_size=4),
    st.frozensets(st.sampled_from([*HEADERS, b"via"]), max_size=1),
)
def test_whatever_headers_come_are_a_replay_or_a_problem(
    values: dict[bytes, bytes], repeated: frozenset[bytes]
) -> None:
    parsed = fair(parse_replay(values, repeated))
    assert isinstance(parsed, Problem) or repeated <= {b"via"}


KEYS = st.sampled_from([*sorted(FIELDS), "transform", "cache", "allow_bypass", "path", "prefix", "name", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", "/", "5s"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
TRANSFORMS = st.fixed_dictionaries({}, optional={"path": JSON, "delete_headers": JSON, "set_headers": st.lists(JSON)})
CACHES = st.fixed_dictionaries({}, optional={"prefix": JSON, "ttl": JSON, "invalidate": JSON, "allow_bypass": JSON})


@given(
    st.binary(max_size=120).map(lambda raw: b'{"app": "' + raw + b'"}')
    | st.binary(max_size=120)
    | st.fixed_dictionaries({"app": st.just("a")}, optional={"transform": TRANSFORMS, "cache": CACHES, "state": JSON})
    .map(json.dumps)
    .map(str.encode)
    | JSON.map(json.dumps).map(str.encode)
)
def test_whatever_body_comes_is_a_replay_or_a_problem(body: bytes) -> None:
    fair(parse_replay_json(body, {}))


@given(
    st.sampled_from(sorted(FIELDS)), st.sampled_from("\r\n\0\x1b\x7f\x85\u2028\u00e4\ud800"), st.text("ab-", max_size=3)
)
def test_no_field_of_json_holds_a_control_character(name: str, char: str, text: str) -> None:
    body = json.dumps({"elsewhere": True, name: text + char + text}).encode()
    assert isinstance(fair(parse_replay_json(body, {})), Problem)


# --- long input costs no more than its length ----------------------------------------------------------


@pytest.mark.parametrize(
    "unit", [b"a", b" ", b"\t", b";", b"=", b'"', b",", b"-", b"a-", b"a=", b"a=b;", b' "', b"/", b"/a", b".a"]
)
def test_long_headers_are_bounded(unit: bytes) -> None:
    for length, refused in ((1000, False), (4000, False), (100_000, True)):
        long = unit * (length // len(unit))
        for value in (long, b"app=a;" + long, b"region=" + long, b'region="' + long, b'app="a' + long + b'"'):
            parsed = fair(parse_replay({b"fly-replay": value}, ()))
            assert isinstance(parsed, Problem) or not refused
        cached = {b"fly-replay": b"app=a", b"fly-replay-cache": long, b"fly-replay-cache-ttl-secs": b"60"}
        assert isinstance(fair(parse_replay(cached, ())), Problem) or not refused


def patterns(module: ModuleType) -> list[str]:
    """The sources of the patterns that a module has of its own."""
    values = [value for name, value in vars(module).items() if name.startswith("_")]
    values += [getattr(rule.read, "__self__", None) for rule in vars(module).get("_RULES", {}).values()]
    sources = [value.pattern for value in values if isinstance(value, re.Pattern)]
    return [one.decode() if isinstance(one, bytes) else one for one in sources]


@pytest.mark.parametrize("module", [regions, replay, replay_json], ids=lambda module: module.__name__)
def test_no_pattern_goes_back_over_what_it_took(module: ModuleType) -> None:
    sources = patterns(module)
    assert sources
    for source in sources:
        quantified = re.sub(r"\\.|\[(?:[^]\\]|\\.)+\]", "C", source)
        # What may repeat without a bound is possessive.
        assert not re.search(r"[*+]", re.sub(r"[*+]\+", "", quantified)), source
