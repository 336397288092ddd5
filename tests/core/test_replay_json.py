"""The JSON form of a replay, sentence by sentence of docs/reference/replay.md, "The JSON form"."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.problems import Code, Problem
from gateway.core.replay import MAX_STATE_CHARS, MAX_TTL_S, CacheOrder, Fallback, Replay, Transform
from gateway.core.replay_json import (
    CONTENT_TYPE,
    MAX_JSON_BYTES,
    MAX_LISTED,
    MAX_PATH_BYTES,
    MAX_SET_BYTES,
    MAX_VALUE_BYTES,
    is_replay_json,
    parse_replay_json,
)


def parse(**members: Any) -> Replay | Problem:
    return parse_replay_json(json.dumps(members).encode(), {b"content-type": CONTENT_TYPE})


def refused(raw: bytes | None = None, **members: Any) -> str:
    """The message of the PA03 that the body is."""
    problem = parse_replay_json(raw, {}) if raw is not None else parse(**members)
    assert isinstance(problem, Problem), problem
    assert problem.code is Code.PA03
    assert problem.message.isascii()
    assert problem.message.isprintable()
    return problem.message


def transform(**members: Any) -> Transform:
    replay = parse(app="a", transform=members)
    assert isinstance(replay, Replay), replay
    assert replay.transform is not None
    return replay.transform


# --- which answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "is_replay"),
    [
        (b"application/vnd.fly.replay+json", True),
        (b"Application/Vnd.Fly.Replay+JSON", True),
        (b"application/vnd.fly.replay+json; charset=utf-8", True),
        (b"application/vnd.fly.replay+json \t;x", True),
        (b"application/vnd.fly.replay+jsonp", False),
        (b"application/json; x=application/vnd.fly.replay+json", False),
        (b"application/vnd.fly.replay+json, text/plain", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_a_replay_is_told_by_its_content_type(content_type: bytes, is_replay: bool) -> None:
    assert is_replay_json(content_type) is is_replay


@pytest.mark.parametrize(
    "name", ["fly-replay", "fly-replay-cache", "fly-replay-cache-ttl-secs", "fly-replay-cache-allow-bypass"]
)
def test_a_replay_header_beside_the_body(name: str) -> None:
    problem = parse_replay_json(b'{"app": "a"}', {name.encode(): b""})
    assert problem == Problem(Code.PA03, f"the header {name} beside a replay in JSON")


# --- fields ------------------------------------------------------------------------------------------


def test_the_fields_of_the_header_as_strings() -> None:
    every = {
        "app": "user-123",
        "prefer_instance": "i-1",
        "region": "fra, EU,any",
        "state": "cart-17",
        "timeout": "800ms",
        "fallback": "prefer_self",
        "elsewhere": True,
    }
    assert parse(**every) == Replay(
        app="user-123",
        prefer_instance="i-1",
        regions=("fra", "eu", "any"),
        state="cart-17",
        elsewhere=True,
        timeout_s=0.8,
        fallback=Fallback.PREFER_SELF,
    )
    assert parse(instance="i-1") == Replay(instance="i-1")


@pytest.mark.parametrize(("told", "is_elsewhere"), [(True, True), ("true", True), (False, False), ("false", False)])
def test_elsewhere_is_a_boolean_or_its_word(told: object, is_elsewhere: bool) -> None:
    assert parse(app="a", elsewhere=told) == Replay(app="a", elsewhere=is_elsewhere)


@pytest.mark.parametrize("told", ["", " x ", "a=b, c", "x" * MAX_STATE_CHARS])
def test_state_is_printable_and_may_be_empty(told: str) -> None:
    assert parse(app="a", state=told) == Replay(app="a", state=told)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"app": ""}, "app is empty"),
        ({"app": "A"}, "app is no app name: 'A'"),
        ({"app": "a\n"}, "app is no app name: 'a?'"),
        ({"app": "\ud800\u00e4"}, "app is no app name: '??'"),
        ({"instance": "i_1"}, "instance is no instance id: 'i_1'"),
        ({"region": "fra;ord"}, "region is no list of 1 to 32 regions: 'fra;ord'"),
        ({"region": "\u212a"}, "region is no list of 1 to 32 regions: '?'"),
        ({"app": "a", "elsewhere": "yes"}, "elsewhere is neither true nor false: 'yes'"),
        ({"app": "a", "fallback": ""}, "fallback is empty"),
        ({"instance": "a", "prefer_instance": "b"}, "both instance and prefer_instance"),
        ({"elsewhere": False}, "no target: one of instance, prefer_instance, region, app, elsewhere=true is needed"),
        ({}, "no target: one of instance, prefer_instance, region, app, elsewhere=true is needed"),
    ],
)
def test_fields_hold_what_they_hold_in_the_header(members: dict[str, Any], message: str) -> None:
    assert refused(**members) == message


@pytest.mark.parametrize("state", ["a;b", 'a"b', "a\tb", "a\r\nb", "a\0", "\u00e4", "x" * (MAX_STATE_CHARS + 1)])
def test_state_cannot_break_out_of_its_header(state: str) -> None:
    assert refused(app="a", state=state).startswith("state is not up to 2048 ")


@pytest.mark.parametrize("name", ["app", "instance", "prefer_instance", "region", "state", "timeout", "fallback"])
@pytest.mark.parametrize("value", [None, 1, 1.5, True, ["a"], {"a": "a"}])
def test_a_value_of_another_type(name: str, value: Any) -> None:
    assert refused(**{name: value}) == f"{name} is not a string"


@pytest.mark.parametrize("value", [None, 1, 0, ["a"], {}])
def test_elsewhere_of_another_type(value: object) -> None:
    assert refused(app="a", elsewhere=value) == "elsewhere is not a string"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"App": "a"}, "'App' is no key of the replay"),
        ({"machine\n": "a"}, "'machine?' is no key of the replay"),
        ({"app": "a", "transform": {"paths": "/"}}, "'paths' is no key of transform"),
        ({"app": "a", "cache": {"ttl_secs": 60}}, "'ttl_secs' is no key of cache"),
        (
            {"app": "a", "transform": {"set_headers": [{"name": "x", "value": "y", "z": 1}]}},
            "'z' is no key of an entry of transform.set_headers",
        ),
    ],
)
def test_an_unknown_key(members: dict[str, Any], message: str) -> None:
    assert refused(**members) == message


# --- JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b'{"app": "a", "app": "a"}',
        b'{"app": "a", "\\u0061pp": "b"}',
        b'{"app": "b", "transform": {"path": "/", "app": 1, "app": 2}}',
        b'{"app": "b", "transform": {"set_headers": [{"name": "x", "value": "y", "app": 1, "app": 1}]}}',
    ],
)
def test_a_key_twice(raw: bytes) -> None:
    assert refused(raw) == "the key 'app' came twice"


@pytest.mark.parametrize("raw", [b"[]", b'["app"]', b'"app"', b"1", b"null", b"true"])
def test_a_body_that_is_no_object(raw: bytes) -> None:
    assert refused(raw) == "the replay is not an object"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"app=a",
        b"{'app': 'a'}",
        b'{"app": "a"}x',
        b'{"app": "a",}',
        b'{"app": "a\n"}',
        b'{"app": "a", "cache": NaN}',
        b'{"app": "a", "cache": -Infinity}',
        b'{"app": "a", "cache": ' + b"9" * 5000 + b"}",
        b'{"app": "\xff"}',
        b'\xef\xbb\xbf{"app": "a"}',
        '{"app": "a"}'.encode("utf-16"),
        '{"app": "a"}'.encode("utf-32-le"),
        b"[" * MAX_JSON_BYTES,
        b'{"a":' * (MAX_JSON_BYTES // 5),
    ],
)
def test_a_body_that_is_not_json(raw: bytes) -> None:
    assert refused(raw) == "the replay is not JSON in UTF-8, or nested too deeply"


def test_a_body_over_its_bound() -> None:
    raw = b'{"app": "a"}'
    assert parse_replay_json(raw.ljust(MAX_JSON_BYTES), {}) == Replay(app="a")
    assert refused(raw.ljust(MAX_JSON_BYTES + 1)) == "the replay is longer than 65536 bytes"
    assert refused(app="x" * 100_000) == "the replay is longer than 65536 bytes"


# --- transform ---------------------------------------------------------------------------------------


def test_the_documented_example() -> None:
    raw = b"""{
      "app": "user-123",
      "transform": {
        "path": "/mcp?tenant=123",
        "delete_headers": ["cookie"],
        "set_headers": [{"name": "Authorization", "value": "Bearer t0k3n"}]
      },
      "cache": {"prefix": "/u/123/*", "ttl": 60, "allow_bypass": false}
    }"""
    assert parse_replay_json(raw, {}) == Replay(
        app="user-123",
        transform=Transform(b"/mcp?tenant=123", frozenset({b"cookie"}), ((b"Authorization", b"Bearer t0k3n"),)),
        cache=CacheOrder(prefix=b"/u/123", ttl_s=60.0),
    )


@pytest.mark.parametrize("path", ["/", "/a/b?c=d&e", '/%2e%2e/"<>\\^`{|}', "//x", "/x?/?", "/" + "x" * 8191])
def test_a_path_is_in_origin_form(path: str) -> None:
    assert transform(path=path) == Transform(path.encode())


@pytest.mark.parametrize(
    "path",
    [
        "", "a", "*", "http://h/a", "?a", "/a b", "/a#b", "/a\tb", "/a\r\nx: y", "/\0", "/\u00e4", "/\x7f",
        "/" + "x" * MAX_PATH_BYTES,
    ],
)  # fmt: skip
def test_a_path_in_another_form(path: str) -> None:
    message = refused(app="a", transform={"path": path})
    assert message.startswith("transform.path is no path of at most 8192 bytes: '")


def test_headers_are_deleted_by_their_names_in_any_case() -> None:
    told = ["Cookie", "cookie", "X-A", "authorization", "mcp-protocol-version"]
    assert transform(delete_headers=told).delete == {b"cookie", b"x-a", b"authorization", b"mcp-protocol-version"}
    assert transform(delete_headers=[]) == Transform()


@pytest.mark.parametrize(
    "name", ["fly-force-instance-id", "Fly-Replay-Src", "moorage-x", "TE", "fly_region", "forwarded"]
)
def test_what_never_reaches_an_app_may_be_deleted_in_vain(name: str) -> None:
    assert transform(delete_headers=[name]).delete == {name.lower().encode()}


@pytest.mark.parametrize(
    "name",
    [
        "Host", "Via", "X-Forwarded-For", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
        "x-forwarded-ssl", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Expect", "Mcp-Session-Id",
    ],
)  # fmt: skip
def test_what_the_gateway_writes_is_neither_deleted_nor_set(name: str) -> None:
    assert (
        refused(app="a", transform={"delete_headers": [name]})
        == f"transform.delete_headers: '{name.lower()}' is the gateway's to write"
    )
    assert (
        refused(app="a", transform={"set_headers": [{"name": name, "value": "x"}]})
        == f"transform.set_headers: '{name}' is the gateway's to write"
    )


@pytest.mark.parametrize(
    "name",
    [
        "fly-replay-src", "Fly-Client-IP", "fly-anything", "moorage-pin", "fly-prefer-region", "TE", "Keep-Alive",
        "Proxy-Authorization", "Forwarded", "fly_region", "X_Forwarded_For", "content_length", "mcp_session_id",
    ],
)  # fmt: skip
def test_what_is_told_by_the_gateway_is_not_set(name: str) -> None:
    message = refused(app="a", transform={"set_headers": [{"name": name, "value": "x"}]})
    assert message == f"transform.set_headers: '{name}' is the gateway's to write"


def test_headers_are_set_as_they_are_spelt_and_in_order() -> None:
    told = [
        {"name": "X-Tenant", "value": " a\tb "},
        {"name": "authorization", "value": "Bearer t0k3n=="},
        {"name": "Mcp-Param-Basket", "value": ""},
        {"name": "x_request_id", "value": "\t"},
        {"name": "Content-Type", "value": "x" * MAX_VALUE_BYTES},
    ]
    assert transform(set_headers=told).set == (
        (b"X-Tenant", b"a\tb"),
        (b"authorization", b"Bearer t0k3n=="),
        (b"Mcp-Param-Basket", b""),
        (b"x_request_id", b""),
        (b"Content-Type", b"x" * MAX_VALUE_BYTES),
    )


@pytest.mark.parametrize(("first", "second"), [("X-A", "x-a"), ("x-a", "X-A"), ("x-a", "x-a")])
def test_a_header_is_set_once(first: str, second: str) -> None:
    told = [{"name": first, "value": "1"}, {"name": second, "value": "1"}]
    assert refused(app="a", transform={"set_headers": told}) == f"transform.set_headers: '{second}' is set twice"


@pytest.mark.parametrize("name", ["", "x y", "x:", "x\r\n", "x\0", "\u00e4", "(x)"])
def test_a_name_is_a_token(name: str) -> None:
    for told in ({"delete_headers": [name]}, {"set_headers": [{"name": name, "value": ""}]}):
        assert "is no header name: '" in refused(app="a", transform=told)


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\0", "\x7f", "\u00e4", "x" * (MAX_VALUE_BYTES + 1)])
def test_a_value_is_printable_and_bounded(value: str) -> None:
    message = refused(app="a", transform={"set_headers": [{"name": "x", "value": value}]})
    assert message.startswith("transform.set_headers: value is not up to 8192 printable ASCII characters: '")


def test_what_is_set_is_bounded_together() -> None:
    half = MAX_SET_BYTES // 2
    told = [{"name": "x", "value": "y" * (half - 1)}, {"name": "z", "value": "y" * (half - 1)}]
    assert len(transform(set_headers=told).set) == 2
    told.append({"name": "w", "value": ""})
    assert refused(app="a", transform={"set_headers": told}) == "transform.set_headers is longer than 16384 bytes"


def test_lists_are_bounded() -> None:
    names = [f"x-{number}" for number in range(MAX_LISTED + 1)]
    lines = [{"name": name, "value": ""} for name in names]
    assert len(transform(delete_headers=names[1:]).delete) == MAX_LISTED
    assert len(transform(set_headers=lines[1:]).set) == MAX_LISTED
    assert refused(app="a", transform={"delete_headers": names}).endswith(" is not a list of at most 100")
    assert refused(app="a", transform={"set_headers": lines}).endswith(" is not a list of at most 100")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (None, "transform is not an object"),
        ([], "transform is not an object"),
        ({"path": 1}, "transform.path is not a string"),
        ({"path": None}, "transform.path is not a string"),
        ({"delete_headers": "cookie"}, "transform.delete_headers is not a list of at most 100"),
        ({"delete_headers": None}, "transform.delete_headers is not a list of at most 100"),
        ({"delete_headers": [1]}, "transform.delete_headers is not a string"),
        ({"set_headers": {"x": "y"}}, "transform.set_headers is not a list of at most 100"),
        ({"set_headers": ["x"]}, "an entry of transform.set_headers is not an object"),
        ({"set_headers": [{"value": "y"}]}, "transform.set_headers: name is not a string"),
        ({"set_headers": [{"name": "x"}]}, "transform.set_headers: value is not a string"),
        ({"set_headers": [{"name": "x", "value": 1}]}, "transform.set_headers: value is not a string"),
    ],
)
def test_a_transform_of_another_shape(told: object, message: str) -> None:
    assert refused(app="a", transform=told) == message


def test_an_empty_transform_is_one() -> None:
    assert parse(app="a", transform={}) == Replay(app="a", transform=Transform())


# --- cache -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [0, 1, 10, MAX_TTL_S])
def test_a_cache_has_a_prefix_and_a_ttl(ttl: int) -> None:
    assert parse(app="a", cache={"prefix": "H.example/a/*", "ttl": ttl}) == Replay(
        app="a", cache=CacheOrder("h.example", b"/a", float(ttl))
    )


@pytest.mark.parametrize("told", [{}, {"prefix": "/"}, {"ttl": 60}, {"invalidate": False}, {"allow_bypass": True}])
def test_a_cache_without_prefix_or_ttl(told: dict[str, object]) -> None:
    assert refused(app="a", cache=told) == "cache needs both prefix and ttl, or invalidate"


@pytest.mark.parametrize("more", [{}, {"prefix": "/a"}, {"ttl": 60}, {"prefix": "/a", "ttl": 60, "allow_bypass": True}])
def test_what_is_cached_is_dropped_whatever_stands_beside(more: dict[str, object]) -> None:
    assert parse(app="a", cache={"invalidate": True, **more}) == Replay(app="a", cache=CacheOrder(invalidate=True))


@pytest.mark.parametrize("ttl", [-1, MAX_TTL_S + 1, 10**300, 60.0, "60", True, None])
def test_a_ttl_is_whole_seconds(ttl: object) -> None:
    for invalidate in (False, True):
        message = refused(app="a", cache={"prefix": "/", "ttl": ttl, "invalidate": invalidate})
        assert message == "cache.ttl is no whole number of seconds, at most 999999999"


@pytest.mark.parametrize("prefix", ["", "invalidate", "/a?b", "/a*", "http://h/a", "h:80/a", "/a/../b", "\u212a/b"])
def test_a_prefix_is_a_pattern(prefix: str) -> None:
    for invalidate in (False, True):
        message = refused(app="a", cache={"prefix": prefix, "ttl": 60, "invalidate": invalidate})
        assert message.startswith("cache.prefix is neither /path/* nor host/path/*: '")


@pytest.mark.parametrize("allows", [True, False])
def test_a_bypass_is_allowed_in_either_place(allows: bool) -> None:
    told = {"allow_bypass": allows}
    cache = {"prefix": "/", "ttl": 60}
    expected = Replay(app="a", cache=CacheOrder(ttl_s=60.0, allow_bypass=allows))
    assert parse(app="a", cache=cache | told) == expected
    assert parse(app="a", cache=cache, **told) == expected
    assert parse(app="a", cache=cache | told, **told) == expected


def test_a_bypass_is_of_a_cache_and_one_word() -> None:
    assert refused(app="a", allow_bypass=False) == "allow_bypass without cache"
    for told in (True, False):
        message = refused(app="a", allow_bypass=told, cache={"prefix": "/", "ttl": 60, "allow_bypass": not told})
        assert message == "allow_bypass and cache.allow_bypass contradict each other"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"cache": None}, "cache is not an object"),
        ({"cache": "/a/*"}, "cache is not an object"),
        ({"cache": {"prefix": 1}}, "cache.prefix is not a string"),
        ({"cache": {"invalidate": "true"}}, "cache.invalidate is neither true nor false"),
        ({"cache": {"invalidate": 1}}, "cache.invalidate is neither true nor false"),
        ({"cache": {"allow_bypass": "yes"}}, "cache.allow_bypass is neither true nor false"),
        ({"cache": {}, "allow_bypass": None}, "allow_bypass is neither true nor false"),
        ({"allow_bypass": 1}, "allow_bypass is neither true nor false"),
    ],
)
def test_a_cache_of_another_shape(members: dict[str, Any], message: str) -> None:
    assert refused(app="a", **members) == message
