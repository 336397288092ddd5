"""What an agent answers, as JSON and back: every outcome survives the way unchanged.

An outcome is an object with its name in `outcome`; an instance in it is the body of its record. Reading never believes:
whatever is not an outcome, or is one of another instance than was asked for, is `BadAnswer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, assert_never

from gateway.agent.base import (
    Cordoned,
    Failure,
    FailureKind,
    InstanceKey,
    Listed,
    NotReached,
    Prepared,
    Reached,
    Refused,
    Started,
    StartFailed,
    Stopped,
)
from gateway.core.bodies import instance_body, parse_instance
from gateway.core.model import Instance
from gateway.core.record import BadRecord

Outcome = Started | StartFailed | Stopped | Refused | Prepared | Cordoned | Reached | NotReached

MAX_MESSAGE: Final = 4_000
"""Characters of a failure's message, which may reach a client; what is longer is cut."""
MAX_RETRY_S: Final = 3600.0

_NAMES: Final[dict[type[Outcome], str]] = {
    Started: "started",
    StartFailed: "start-failed",
    Stopped: "stopped",
    Refused: "refused",
    Prepared: "prepared",
    Cordoned: "cordoned",
    Reached: "reached",
    NotReached: "not-reached",
}


class BadAnswer(ValueError):
    """This is no answer of an agent."""


# --- values to JSON --------------------------------------------------------------------


def encode(outcome: Outcome) -> dict[str, object]:
    """The outcome as JSON; `decode` takes it back."""
    named: dict[str, object] = {"outcome": _NAMES[type(outcome)]}
    match outcome:
        case Started(instance) | Stopped(instance) | Cordoned(instance) | Reached(instance):
            return {**named, "instance": instance_body(instance)}
        case Prepared(instance, token):
            return {**named, "instance": instance_body(instance), "token": token}
        case NotReached(instance):
            return {**named, "instance": instance_body(instance) if instance is not None else None}
        case StartFailed(failure, retry_after_s):
            return {**named, "failure": _failure_body(failure), "retry_after_s": retry_after_s}
        case Refused(failure):
            return {**named, "failure": _failure_body(failure)}
        case _:
            assert_never(outcome)


def encode_listed(listed: Listed) -> dict[str, object]:
    return {
        "instance": instance_body(listed.instance),
        "reason": listed.reason,
        "retry_after_s": listed.retry_after_s,
        "detail": listed.detail,
        "output": listed.output,
    }


def _failure_body(failure: Failure) -> dict[str, object]:
    return {"kind": failure.kind, "message": failure.message, "detail": failure.detail}


# --- JSON to values --------------------------------------------------------------------


def decode(value: object, key: InstanceKey) -> Outcome:
    """The outcome of what was asked about this instance. Raises BadAnswer."""
    get = _table(value, "the answer").get
    match get("outcome"):
        case "started":
            return Started(_instance(get("instance"), key))
        case "start-failed":
            return StartFailed(_failure(get("failure")), _retry_after_s(get("retry_after_s")))
        case "stopped":
            return Stopped(_instance(get("instance"), key))
        case "refused":
            return Refused(_failure(get("failure")))
        case "prepared":
            return Prepared(_instance(get("instance"), key), _text(get("token"), "token"))
        case "cordoned":
            return Cordoned(_instance(get("instance"), key))
        case "reached":
            return Reached(_instance(get("instance"), key))
        case "not-reached":
            instance = get("instance")
            return NotReached(None if instance is None else _instance(instance, key))
        case _:
            raise BadAnswer("it names no outcome")


def decode_listed(value: object) -> Listed:
    """One entry of a list. Raises BadAnswer."""
    table = _table(value, "an entry")
    body = _table(table.get("instance"), "instance")
    key = InstanceKey(_text(body.get("app"), "app"), _text(body.get("id"), "id"))
    return Listed(
        _instance(body, key),
        _text(table.get("reason"), "reason"),
        _retry_after_s(table.get("retry_after_s")),
        _text(table.get("detail"), "detail"),
        _text(table.get("output"), "output"),
    )


def _instance(value: object, key: InstanceKey) -> Instance:
    body = _table(value, "instance")
    if body.get("app") != key.app or body.get("id") != key.id:
        raise BadAnswer("it is about another instance")
    instance = parse_instance(str(key), body)
    if isinstance(instance, BadRecord):
        raise BadAnswer(f"its instance is none: {instance.reason}")
    return instance


def _failure(value: object) -> Failure:
    get = _table(value, "failure").get
    kind, message = get("kind"), _text(get("message"), "message")
    if kind not in list(FailureKind):
        raise BadAnswer("its failure is of no kind")
    return Failure(FailureKind(kind), message[:MAX_MESSAGE], _text(get("detail"), "detail"))


def _retry_after_s(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_RETRY_S:
        return float(value)
    raise BadAnswer("its retry_after_s is no time to wait")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadAnswer(f"its {name} is no text")
    return value


def _table(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadAnswer(f"{name} is no object")
    return value
