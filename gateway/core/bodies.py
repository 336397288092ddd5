"""What the bodies of app and instance records mean: from values to bodies and back.

An app's body has the names of moorage.toml with durations in seconds. A field that is absent has its default (a writer
may be older than its reader), one that is not known is ignored (it may be newer), and a wrong one makes the whole body
bad: half an app or half an instance is never used.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, TypeVar

from gateway.core.model import (
    Address,
    App,
    AppProtocol,
    Check,
    Concurrency,
    ConcurrencyType,
    Instance,
    KeyRule,
    KeySource,
    SessionIds,
    State,
)
from gateway.core.record import BadRecord

MAX_COUNT: Final = 10_000_000
MAX_SECONDS: Final = 366 * 86400.0
MAX_LIST: Final = 1000
"""Hosts, key rules or checks of one app."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NUMERIC = re.compile(r"[0-9.]+|.*\.[0-9]+|(?:.*\.)?0x[0-9a-f]*", re.ASCII)
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_INCARNATION = re.compile(r"[0-9a-zA-Z]{1,16}", re.ASCII)
_OWNER = re.compile(r"[!-~]{0,128}", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 5.6.2
_QUERY_NAME = re.compile(r"[\x21-\x25\x27-\x3c\x3e-\x7e]+", re.ASCII)
_PATH = re.compile(r"/[\x21\x22\x24-\x3e\x40-\x7e]*", re.ASCII)  # origin form, no query (RFC 9112 3.2.1)
_REQUEST_PATH = re.compile(r"/[\x21\x22\x24-\x7e]*", re.ASCII)

_APP: Final = App("")
_INSTANCE: Final = Instance("", "")
_CHECK: Final = Check("/")
_CONCURRENCY: Final = Concurrency()

_Word = TypeVar("_Word", bound=StrEnum)
_Item = TypeVar("_Item")


class _Wrong(Exception):
    """A field of a body cannot be used; stays within this file."""


# --- values to bodies ------------------------------------------------------------------


def app_body(app: App) -> dict[str, object]:
    """The body of an app's record; `parse_app` takes it back."""
    return {
        "hosts": list(app.hosts),
        "path": app.path,
        "strip_path": app.strip_path,
        "org": app.org,
        "protocol": app.protocol,
        "key": [f"{rule.source}:{rule.name}" if rule.name else str(rule.source) for rule in app.key],
        "session_ids": app.session_ids,
        "bind_principal": app.bind_principal,
        "sessions_survive_stop": app.sessions_survive_stop,
        "preserve_host": app.preserve_host,
        "affinity_cookie": app.affinity_cookie,
        "steering": app.steering,
        "auto_start": app.auto_start,
        "wake_timeout": app.wake_timeout_s,
        "wake_queue": app.wake_queue,
        "stop_grace": app.stop_grace_s,
        "session_idle": app.session_idle_s,
        "concurrency": {
            "type": app.concurrency.type,
            "soft": app.concurrency.soft,
            "hard": app.concurrency.hard,
        },
        "checks": [
            {"path": check.path, "interval": check.interval_s, "timeout": check.timeout_s, "grace": check.grace_s}
            for check in app.checks
        ],
    }


def instance_body(instance: Instance) -> dict[str, object]:
    """The body of an instance's record; `parse_instance` takes it back."""
    return {
        "app": instance.app,
        "id": instance.id,
        "address": str(instance.address) if instance.address is not None else None,
        "region": instance.region,
        "state": instance.state,
        "incarnation": instance.incarnation,
        "cordoned": instance.cordoned,
        "healthy": instance.healthy,
        "held_down": instance.held_down,
        "startable": instance.startable,
        "owner": instance.owner,
    }


# --- bodies to values ------------------------------------------------------------------


def parse_app(name: str, body: Mapping[str, object]) -> App | BadRecord:
    """The app that an app record's body describes; `name` is the record's id."""
    get = body.get
    try:
        return App(
            name=name,
            hosts=_list(get("hosts", []), "hosts", _host_rule),
            path=_prefix(get("path", _APP.path)),
            strip_path=_bool(get("strip_path", _APP.strip_path), "strip_path"),
            org=_match(get("org", _APP.org), "org", _REGION),
            protocol=_word(get("protocol", _APP.protocol), "protocol", AppProtocol),
            key=_list(get("key", []), "key", _key_rule),
            session_ids=_word(get("session_ids", _APP.session_ids), "session_ids", SessionIds),
            bind_principal=_bool(get("bind_principal", _APP.bind_principal), "bind_principal"),
            sessions_survive_stop=_bool(
                get("sessions_survive_stop", _APP.sessions_survive_stop), "sessions_survive_stop"
            ),
            preserve_host=_bool(get("preserve_host", _APP.preserve_host), "preserve_host"),
            affinity_cookie=_cookie_name(get("affinity_cookie", _APP.affinity_cookie)),
            steering=_bool(get("steering", _APP.steering), "steering"),
            auto_start=_bool(get("auto_start", _APP.auto_start), "auto_start"),
            wake_timeout_s=_seconds(get("wake_timeout", _APP.wake_timeout_s), "wake_timeout", 0.001),
            wake_queue=_count(get("wake_queue", _APP.wake_queue), "wake_queue"),
            stop_grace_s=_seconds(get("stop_grace", _APP.stop_grace_s), "stop_grace"),
            session_idle_s=_seconds(get("session_idle", _APP.session_idle_s), "session_idle", 0.001),
            concurrency=_concurrency(get("concurrency", {})),
            checks=_list(get("checks", []), "checks", _check),
        )
    except _Wrong as wrong:
        return BadRecord(str(wrong), f"app/{name}")


def parse_instance(record_id: str, body: Mapping[str, object]) -> Instance | BadRecord:
    """The instance that an instance record's body describes; `record_id` is `<app>/<id>`."""
    app, _, identity = record_id.partition("/")
    get = body.get
    try:
        if get("app", app) != app or get("id", identity) != identity:
            raise _Wrong("the body is of another instance than the record")
        address = get("address")
        return Instance(
            app=app,
            id=identity,
            address=None if address is None else _address(address),
            region=_match(get("region", _INSTANCE.region), "region", _REGION),
            state=_word(get("state", _INSTANCE.state), "state", State),
            incarnation=_match(get("incarnation", _INSTANCE.incarnation), "incarnation", _INCARNATION),
            cordoned=_bool(get("cordoned", _INSTANCE.cordoned), "cordoned"),
            healthy=_bool(get("healthy", _INSTANCE.healthy), "healthy"),
            held_down=_bool(get("held_down", _INSTANCE.held_down), "held_down"),
            startable=_bool(get("startable", _INSTANCE.startable), "startable"),
            owner=_match(get("owner", _INSTANCE.owner), "owner", _OWNER),
        )
    except _Wrong as wrong:
        return BadRecord(str(wrong), f"instance/{record_id}")


# --- fields ----------------------------------------------------------------------------


def _bool(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _Wrong(f"{name} is not true or false")


def _match(value: object, name: str, pattern: re.Pattern[str]) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise _Wrong(f"{name} {_shown(value)} is not usable")


def _word(value: object, name: str, words: type[_Word]) -> _Word:
    # The member map: calling the enum costs three times as much, and this runs for every record.
    word = words._value2member_map_.get(value) if isinstance(value, str) else None
    if isinstance(word, words):
        return word
    raise _Wrong(f"{name} {_shown(value)} is none of {', '.join(words)}")


def _count(value: object, name: str) -> int:
    if type(value) is int and 1 <= value <= MAX_COUNT:
        return value
    raise _Wrong(f"{name} {_shown(value)} is not a whole number from 1 to {MAX_COUNT}")


def _seconds(value: object, name: str, least: float = 0.0) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= MAX_SECONDS:
        return float(value)
    raise _Wrong(f"{name} {_shown(value)} is not a usable number of seconds")


def _list(value: object, name: str, item: Callable[[object], _Item]) -> tuple[_Item, ...]:
    if not isinstance(value, list) or len(value) > MAX_LIST:
        raise _Wrong(f"{name} is not a list of at most {MAX_LIST}")
    return tuple(item(each) for each in value)


def _table(value: object, name: str) -> Mapping[str, object]:
    if isinstance(value, dict):
        return value
    raise _Wrong(f"{name} is not an object")


def _host_rule(value: object) -> str:
    if isinstance(value, str) and len(value) <= 253:
        if _HOST_NAME.fullmatch(value.removeprefix("*.")):
            return value
        if value.startswith("[") and value.endswith("]") and _ip_version(value[1:-1]) == 6:
            return value
    raise _Wrong(f'hosts: {_shown(value)} is not a lower-case host or "*.suffix"')


def _prefix(value: object) -> str:
    if isinstance(value, str) and _PATH.fullmatch(value):
        return value.rstrip("/") or "/"
    raise _Wrong(f"path {_shown(value)} is not a path prefix")


def _key_rule(value: object) -> KeyRule:
    if value == KeySource.PRINCIPAL:
        return KeyRule(KeySource.PRINCIPAL, "")
    if isinstance(value, str):
        source, _, name = value.partition(":")
        match source:
            case KeySource.HEADER | KeySource.MCP_PARAM if _TOKEN.fullmatch(name):
                return KeyRule(KeySource(source), name.lower())
            case KeySource.COOKIE if _TOKEN.fullmatch(name):
                return KeyRule(KeySource.COOKIE, name)
            case KeySource.QUERY if _QUERY_NAME.fullmatch(name):
                return KeyRule(KeySource.QUERY, name)
    raise _Wrong(f"key: {_shown(value)} is not a key rule")


def _cookie_name(value: object) -> str:
    return "" if value == "" else _match(value, "affinity_cookie", _TOKEN)


def _concurrency(value: object) -> Concurrency:
    get = _table(value, "concurrency").get
    hard = get("hard")
    return Concurrency(
        _word(get("type", _CONCURRENCY.type), "concurrency.type", ConcurrencyType),
        _count(get("soft", _CONCURRENCY.soft), "concurrency.soft"),
        None if hard is None else _count(hard, "concurrency.hard"),
    )


def _check(value: object) -> Check:
    get = _table(value, "checks").get
    return Check(
        _match(get("path"), "checks.path", _REQUEST_PATH),
        _seconds(get("interval", _CHECK.interval_s), "checks.interval", 0.001),
        _seconds(get("timeout", _CHECK.timeout_s), "checks.timeout", 0.001),
        _seconds(get("grace", _CHECK.grace_s), "checks.grace"),
    )


def _address(value: object) -> Address:
    """`host:port`. A host is a name or an IP address in its usual form: what other spellings of an address (0x7f000001,
    2130706433, 127.1) mean depends on the resolver, so none of them is taken."""
    if isinstance(value, str) and len(value) <= 260:
        host, _, port = value.lower().rpartition(":")
        if port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535:
            if host.startswith("[") and host.endswith("]"):
                if _ip_version(host[1:-1]) == 6:
                    return Address(host[1:-1], int(port))
            elif _HOST_NAME.fullmatch(host) and (not _NUMERIC.fullmatch(host) or _ip_version(host) == 4):
                return Address(host, int(port))
    raise _Wrong(f'address {_shown(value)} is not "host:port"')


def _ip_version(text: str) -> int:
    """4 or 6; 0 for what is no IP address. A zone (RFC 4007) is not taken: it means something on one machine only."""
    try:
        return 0 if "%" in text else ipaddress.ip_address(text).version
    except ValueError:
        return 0


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
