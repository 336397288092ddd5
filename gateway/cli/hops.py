"""A trace in words: the steps of one request, as the admin API tells them, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_CACHE = {
    "hit": "hit: a remembered replay is followed",
    "miss": "miss: an app was asked first",
    "bypass": "bypass: the client skips what is remembered",
}


class Hop(NamedTuple):
    """One line of it."""

    at_ms: float
    step: str
    text: str


def hops(events: Sequence[Mapping[str, Any]]) -> Iterator[Hop]:
    """The steps, with a line of its own for what concerns the caches. Steps that are not known here are shown as
    they are."""
    cache = ""
    for event, after in zip(events, [*events[1:], None], strict=True):
        at_ms, step = event["at_ms"], event["step"]
        told = {key: value for key, value in event.items() if key not in ("at_ms", "step")}
        yield Hop(at_ms, step, _text(step, told, cache))
        if step != "decide" or told["action"] == "refuse":
            continue
        before, cache = cache, told.get("cache", "")
        if cache and cache != before:
            yield Hop(at_ms, "cache", _CACHE.get(cache, cache))
        # A forward that no failure to connect follows has reached its instance.
        reached = told.get("action") == "forward" and (after is None or after["step"] != "connect")
        if reached and told.get("remembers"):
            yield Hop(at_ms, "cache", f"made: the replay is remembered, by {told['remembers']}")


def _text(step: str, told: Mapping[str, Any], cache: str) -> str:
    """`cache`: what the cache had to do with the decision before."""
    match step:
        case "decide":
            return _decided(told)
        case "connect":
            return f"{_where(told)} was not reached: {_why(told)}"
        case "replay" if "asks" in told:
            return f"{_where(told)} asks: {'; '.join(f'{key}={value}' for key, value in told['asks'].items())}"
        case "replay":
            return f"{_where(told)} asks for what cannot be done: {_why(told)}"
        case "fall back":
            what = "what was remembered cannot be used" if cache == "hit" else "the replay's target was not reached"
            return f"{what}, the app is asked again: {_why(told)}"
        case "retry":
            return f"{_where(told)}: {_why(told)}" if "app" in told else _why(told)
        case "answer":
            return str(told["status"]) if told["status"] else "none: the client left"
        case _ if "code" in told:
            return _why(told)
        case _:
            return "; ".join(f"{key}={value}" for key, value in told.items())


def _decided(told: Mapping[str, Any]) -> str:
    action = told["action"]
    if action == "refuse":
        return f"refuse: {_why(told)}"
    if "rule" not in told:
        return f"{action}, app {told.get('app', 'none')}"
    words = {"forward": "forward to", "wake": "wake", "wait": "wait for"}
    return f"{words.get(action, action)} {_where(told)}, by the rule {told['rule']}"


def _where(told: Mapping[str, Any]) -> str:
    app = told.get("app", "?")
    return f"{app}/{told['instance']}" if "instance" in told else f"any instance of {app}"


def _why(told: Mapping[str, Any]) -> str:
    return f"{told.get('code', '')} {told.get('why', '')}".strip()
