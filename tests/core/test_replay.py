"""The header form of a replay, sentence by sentence of docs/reference/replay.md, "The header" and "Replay caches"."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.problems import Code, Problem
from gateway.core.replay import (
    MAX_PATTERN_BYTES,
    MAX_REPLAY_BYTES,
    MAX_STATE_CHARS,
    CacheOrder,
    Fallback,
    Replay,
    Transform,
    parse_replay,
)


def parse(header: str | bytes, repeated: frozenset[bytes] = frozenset(), **others: str) -> Replay | Problem:
    values = {b"fly-replay": header.encode("latin-1") if isinstance(header, str) else header}
    values |= {b"fly-replay-" + name.replace("_", "-").encode(): value.encode() for name, value in others.items()}
    return parse_replay(values, repeated)


def refused(header: str | bytes, repeated: frozenset[bytes] = frozenset(), **others: str) -> str:
    """The message of the PA03 that the header is."""
    problem = parse(header, repeated, **others)
    assert isinstance(problem, Problem), problem
    assert problem.code is Code.PA03
    return problem.message


# --- fields ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "replay"),
    [
        ("instance=i-2", Replay(instance="i-2")),
        ("prefer_instance=00bb33ff", Replay(prefer_instance="00bb33ff")),
        ("instance=E-1", Replay(instance="E-1")),
        ("instance=" + "x" * 64, Replay(instance="x" * 64)),
        ("region=fra", Replay(regions=("fra",))),
        ('region="fra,eu,any";state=cart-17', Replay(regions=("fra", "eu", "any"), state="cart-17")),
        ('region=" FRA , eu "', Replay(regions=("fra", "eu"))),
        ("app=user-123", Replay(app="user-123")),
        (
            "app=user-123;timeout=5s;fallback=prefer_self",
            Replay(app="user-123", timeout_s=5.0, fallback=Fallback.PREFER_SELF),
        ),
        ("app=a;fallback=force_self", Replay(app="a", fallback=Fallback.FORCE_SELF)),
        ("elsewhere=true", Replay(elsewhere=True)),
        ("elsewhere=false;app=a", Replay(app="a")),
        ("elsewhere=true;instance=i-1", Replay(instance="i-1", elsewhere=True)),
        ("app=a;instance=i-1;region=fra", Replay(app="a", instance="i-1", regions=("fra",))),
        ("app=a;prefer_instance=i-1", Replay(app="a", prefer_instance="i-1")),
    ],
)
def test_a_target_is_named_by_one_field_or_several(header: str, replay: Replay) -> None:
    assert parse(header) == replay


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("800ms", 0.8), ("1ms", 0.001), ("10s", 10.0), ("3600s", 3600.0), ("60m", 3600.0), ("1m", 60.0), ("007s", 7.0)],
)
def test_a_timeout_is_a_number_and_a_unit(told: str, seconds: float) -> None:
    assert parse(f"app=a;timeout={told}") == Replay(app="a", timeout_s=seconds)


@pytest.mark.parametrize(
    "told",
    [
        "0s",
        "0ms",
        "3601s",
        "61m",
        "3600001ms",
        "999999999m",
        "1000000000ms",
        "5",
        "s",
        "-1s",
        "1.5s",
        "5S",
        "1h",
        "5 s",
    ],
)
def test_a_timeout_is_more_than_nothing_and_at_most_an_hour(told: str) -> None:
    assert refused(f'app=a;timeout="{told}"').startswith("timeout is not ")


@pytest.mark.parametrize(
    ("header", "state"),
    [
        ("app=a;state=cart-17", "cart-17"),
        ("app=a;state=", ""),
        ('app=a;state=""', ""),
        ("state=;app=a", ""),
        ("app=a;state=c2VjcmV0==", "c2VjcmV0=="),
        ('app=a;state=" two words, and = "', " two words, and = "),
        ("app=a;state=!#$%&'()*+-./:<=>?@[\\]^_`{|}~", "!#$%&'()*+-./:<=>?@[\\]^_`{|}~"),
        ("app=a;state=" + "x" * MAX_STATE_CHARS, "x" * MAX_STATE_CHARS),
    ],
)
def test_state_is_printable_and_may_be_empty(header: str, state: str) -> None:
    assert parse(header) == Replay(app="a", state=state)


@pytest.mark.parametrize("told", ["x" * (MAX_STATE_CHARS + 1), "a;b", "a\tb"])
def test_state_is_bounded_and_holds_no_separator(told: str) -> None:
    assert refused(f'app=a;state="{told}"').startswith("state is not up to 2048 ")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("app", ["-a", "a-", "A", "a.b", "a_b", "x" * 64, "a b"]),
        ("instance", ["i_1", "i.1", "i/1", "x" * 65, " i-1"]),
        ("prefer_instance", ["i_1", "x" * 65, "a,b"]),
        ("region", ["fra,", "fra,,ord", "-fra", "fra ord", ",".join(["fra"] * 33)]),
        ("elsewhere", ["1", "yes", "True", "TRUE", "trueish"]),
        ("fallback", ["self", "Force_self", "force_self,prefer_self", "none"]),
    ],
)
def test_a_value_is_of_its_fields_kind(field: str, values: list[str]) -> None:
    for value in values:
        target = "" if field in ("app", "instance", "prefer_instance") else "app=a;"
        assert refused(f'{target}{field}="{value}"').startswith(f"{field} is n")


@pytest.mark.parametrize("field", ["instance", "prefer_instance", "region", "app", "elsewhere", "timeout", "fallback"])
def test_no_value_but_state_is_empty(field: str) -> None:
    assert refused(f"state=x;{field}=") == f"{field} is empty"
    assert refused(f'state=x;{field}=""') == f"{field} is empty"


@pytest.mark.parametrize("header", ["state=x", "elsewhere=false", "timeout=5s;fallback=force_self", ""])
def test_a_replay_needs_a_target(header: str) -> None:
    assert refused(header).startswith("no target: ")


def test_one_instance_at_most_is_named() -> None:
    assert refused("instance=i-1;prefer_instance=i-1") == "both instance and prefer_instance"


# --- the grammar -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "Instance=i-1;STATE=x",
        " \tinstance\t = \t i-1 \t;\t state = x \t",
        "instance=i-1;state=x;",
        "instance=i-1;state=x ; ",
        'instance="i-1";state="x"',
        'instance = "i-1" ; state = "x" ;',
    ],
)
def test_names_in_any_case_and_blanks_around_everything(header: str) -> None:
    assert parse(header) == Replay(instance="i-1", state="x")


@pytest.mark.parametrize(
    "header",
    [
        "app=a,state=b",  # a comma outside of quotes
        "region=fra,ord",
        "instance=i-1, instance=i-2",
        "app=a b",
        "app=a\tb",
        "app=a;;state=x",
        ";app=a",
        ";",
        "app=a;;",
        "app=a; ;",
        " ",
        "app",
        "app;state=x",
        "=a",
        "app=a;=",
        "app a",
        'app="a',
        'app=a"',
        'app="a"b',
        'app="a" "b"',
        'app=a"b"',
        'app="a\\"b"',
        "app='a b'",
        "app:a",
        "app =a; st ate=x",
    ],
)
def test_whatever_else_is_found_is_a_bad_replay(header: str) -> None:
    assert refused(header).startswith("the header fly-replay is malformed from '")


@pytest.mark.parametrize("char", [b"\0", b"\n", b"\r", b"\x0b", b"\x1f", b"\x7f", b"\x80", b"\xa0", b"\xff"])
def test_control_characters_and_bytes_beyond_ascii_are_refused_everywhere(char: bytes) -> None:
    header = b'app=a;state="x y";region="fra, ord" ; instance = i-1;'
    assert isinstance(parse(header), Replay)
    for at in range(len(header) + 1):
        message = refused(header[:at] + char + header[at:])
        assert message.isascii()
        assert message.isprintable()


def test_an_unknown_field() -> None:
    assert refused("app=a;machine=x") == "'machine' is no field of a replay"


def test_a_field_twice() -> None:
    assert refused("app=a;App=a") == "the field 'app' came twice"
    assert refused('state=x;app=a;state=""') == "the field 'state' came twice"


@pytest.mark.parametrize(
    "name", [b"fly-replay", b"fly-replay-cache", b"fly-replay-cache-ttl-secs", b"fly-replay-cache-allow-bypass"]
)
def test_a_second_header_of_the_same_name(name: bytes) -> None:
    assert refused("app=a", frozenset({b"via", name})) == f"the header {name.decode()} came twice"
    assert parse("app=a", frozenset({b"via", b"fly-replay-src"})) == Replay(app="a")


def test_a_header_over_its_bound() -> None:
    within = "app=a".ljust(MAX_REPLAY_BYTES)
    assert parse(within) == Replay(app="a")
    assert refused(within + " ") == "the header fly-replay is longer than 4096 bytes"
    assert refused("app=a;state=" + "x" * 100_000).startswith("the header fly-replay is longer")


def test_hostile_text_is_quoted_in_short() -> None:
    assert refused("app=a;instance=" + "_" * 41) == f"instance is no instance id: '{'_' * 40}'..."
    assert refused("app=a;instance=" + "_" * 40) == f"instance is no instance id: '{'_' * 40}'"
    assert "from '?[31m' on" in refused(b"app=a;\x1b[31m")


# --- the cache headers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "host", "prefix"),
    [
        ("/some/path/*", "", b"/some/path"),
        ("/some/path/", "", b"/some/path"),
        ("/some/path", "", b"/some/path"),
        ("/*", "", b""),
        ("/", "", b""),
        ("Example.com/some/path/*", "example.com", b"/some/path"),
        ("example.com/*", "example.com", b""),
        ("example.com/", "example.com", b""),
        ("10.0.0.1/a", "10.0.0.1", b"/a"),
        ("/a/%2E/b..c/.../~x:@", "", b"/a/%2E/b..c/.../~x:@"),
        ("/" + "x" * (MAX_PATTERN_BYTES - 1), "", b"/" + b"x" * (MAX_PATTERN_BYTES - 1)),
    ],
)
def test_a_cache_pattern_is_a_path_prefix_of_a_host_or_of_all(pattern: str, host: str, prefix: bytes) -> None:
    assert parse("app=a", cache=pattern, cache_ttl_secs="60") == Replay(
        app="a", cache=CacheOrder(host=host, prefix=prefix, ttl_s=60.0)
    )


@pytest.mark.parametrize(
    "pattern",
    [
        "", "*", "some", "example.com", "http://example.com/a", "//example.com/a", "example.com:80/a", "/a?b", "/a#b",
        "/a b", "/a\tb", "/a*", "/*/a", "/a/*/*", "/a/**", "/a/*/", "//", "/a//b", "/a//", "/.", "/..", "/a/../b",
        "/a/./b", "/a/..", "*.example.com/a", "exa mple.com/a", ".com/a", "a..b/c", "-a.com/b", "x" * 64 + "/a",
        ("x" * 60 + ".") * 5 + "com/a", "/" + "x" * MAX_PATTERN_BYTES, "/a\0", "/\u00e4", "\u212aa/b", "/a\n",
    ],
)  # fmt: skip
def test_a_cache_pattern_of_another_form(pattern: str) -> None:
    message = refused("app=a", cache=pattern, cache_ttl_secs="60")
    assert message.startswith("the header fly-replay-cache is neither /path/* nor host/path/*: '")


@pytest.mark.parametrize("told", ["", "x", "-1", "+1", "1.5", "60s", "1e3", "1" * 10, "\u0661", "60, 60"])
def test_a_time_to_live_is_whole_seconds(told: str) -> None:
    message = refused("app=a", cache="/", cache_ttl_secs=told)
    assert message.startswith("the header fly-replay-cache-ttl-secs is no number of seconds: ")


@pytest.mark.parametrize(("told", "ttl_s"), [("0", 0.0), ("9", 9.0), ("010", 10.0), ("9" * 9, 999_999_999.0)])
def test_a_time_to_live_is_told_even_if_it_is_too_short_to_cache(told: str, ttl_s: float) -> None:
    assert parse("app=a", cache="/", cache_ttl_secs=told) == Replay(app="a", cache=CacheOrder(ttl_s=ttl_s))


@pytest.mark.parametrize(("told", "allows"), [("yes", True), ("YES", True), ("no", False), ("No", False)])
def test_a_bypass_is_allowed_by_yes(told: str, allows: bool) -> None:
    replay = parse("app=a", cache="/", cache_ttl_secs="60", cache_allow_bypass=told)
    assert replay == Replay(app="a", cache=CacheOrder(ttl_s=60.0, allow_bypass=allows))


@pytest.mark.parametrize("told", ["", "true", "1", "y", "yes, yes"])
def test_a_bypass_is_allowed_by_no_other_word(told: str) -> None:
    message = refused("app=a", cache="/", cache_ttl_secs="60", cache_allow_bypass=told)
    assert message == f"the header fly-replay-cache-allow-bypass is neither yes nor no: '{told}'"


def test_cache_headers_come_together() -> None:
    assert refused("app=a", cache="/") == "the header fly-replay-cache without fly-replay-cache-ttl-secs"
    assert refused("app=a", cache_ttl_secs="60") == "the header fly-replay-cache-ttl-secs without fly-replay-cache"
    assert (
        refused("app=a", cache_allow_bypass="no") == "the header fly-replay-cache-allow-bypass without fly-replay-cache"
    )


def test_what_is_cached_is_dropped_by_a_word_alone() -> None:
    dropped = Replay(app="a", cache=CacheOrder(invalidate=True))
    assert parse("app=a", cache="invalidate") == dropped
    assert parse("app=a", cache="Invalidate") == dropped
    assert parse("app=a", cache="invalidate", cache_ttl_secs="60", cache_allow_bypass="yes") == dropped
    assert refused("app=a", cache="invalidate", cache_ttl_secs="x").startswith("the header fly-replay-cache-ttl-secs")
    assert refused("app=a", cache="/invalidate").endswith("without fly-replay-cache-ttl-secs")


def test_without_the_header_there_is_no_target() -> None:
    assert parse_replay({}, ()) == parse("")
    assert parse_replay({b"fly-replay-cache": b"invalidate"}, ()) == parse("")


# --- what a cache may repeat -------------------------------------------------------------------------


def test_a_cache_repeats_what_is_not_about_one_request() -> None:
    plain = Replay(app="a", prefer_instance="i-1", regions=("fra",), cache=CacheOrder(ttl_s=60.0))
    assert plain.cacheable
    assert Replay(instance="i-1").cacheable
    for once in (
        replace(plain, state="x"),
        replace(plain, state=""),
        replace(plain, transform=Transform()),
        replace(plain, timeout_s=5.0),
        replace(plain, fallback=Fallback.FORCE_SELF),
        replace(plain, elsewhere=True),
    ):
        assert not once.cacheable
