"""What the bodies of app and instance records mean: from values to bodies and back.

An app's body has the names of moorage.toml with durations in seconds. A field that is absent has its default (a writer
may be older than its reader), one that is not known is ignored (it may be newer), and a wrong one makes the whole body
bad: half an app or half an instance is never used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.core.body_fields import (
    HOST_NAME,
    MAX_HOST,
    NAME,
    PATH,
    TOKEN,
    Wrong,
    boolean,
    count,
    ip_version,
    is_host,
    items,
    matching,
    seconds,
    shown,
    table,
    word,
)
from gateway.core.model import (
    Address,
    App,
    AppProtocol,
    AutoStop,
    Check,
    Concurrency,
    ConcurrencyType,
    IdleStreams,
    Instance,
    KeyRule,
    KeySource,
    OnLost,
    SessionIds,
    State,
)
from gateway.core.record import BadRecord
from gateway.core.replay_settings import replay_cache, replay_sources, rule_body

_NUMERIC = re.compile(r"[0-9.]+|.*\.[0-9]+|(?:.*\.)?0x[0-9a-f]*", re.ASCII)
_INCARNATION = re.compile(r"[0-9a-zA-Z]{1,16}", re.ASCII)
_AGENT = re.compile(r"(?:https?://[0-9A-Za-z.:\[\]-]{1,260})?", re.ASCII)
_SLEEP = re.compile(r"[0-9a-f]{0,32}", re.ASCII)
_OWNER = re.compile(r"[!-~]{0,128}", re.ASCII)
_QUERY_NAME = re.compile(r"[\x21-\x25\x27-\x3c\x3e-\x7e]+", re.ASCII)
_REQUEST_PATH = re.compile(r"/[\x21\x22\x24-\x7e]*", re.ASCII)

_APP: Final = App("")
_INSTANCE: Final = Instance("", "")
_CHECK: Final = Check("/")
_CONCURRENCY: Final = Concurrency()


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
        "on_lost": app.on_lost,
        "bind_principal": app.bind_principal,
        "sessions_survive_stop": app.sessions_survive_stop,
        "preserve_host": app.preserve_host,
        "pristine": app.pristine,
        "affinity_cookie": app.affinity_cookie,
        "steering": app.steering,
        "auto_start": app.auto_start,
        "auto_stop": app.auto_stop,
        "min_running": app.min_running,
        "idle_after": app.idle_after_s,
        "idle_grace": app.idle_grace_s,
        "idle_streams": app.idle_streams,
        "wake_timeout": app.wake_timeout_s,
        "wake_queue": app.wake_queue,
        "wake_keepalive": app.wake_keepalive_s,
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
        "replay_sources": list(app.replay_sources),
        "replay_cache": [rule_body(rule) for rule in app.replay_cache],
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
        "agent": instance.agent,
        "sleep": instance.sleep,
    }


# --- bodies to values ------------------------------------------------------------------


def parse_app(name: str, body: Mapping[str, object]) -> App | BadRecord:
    """The app that an app record's body describes; `name` is the record's id."""
    get = body.get
    try:
        return App(
            name=name,
            hosts=items(get("hosts", []), "hosts", _host_rule),
            path=_prefix(get("path", _APP.path)),
            strip_path=boolean(get("strip_path", _APP.strip_path), "strip_path"),
            org=matching(get("org", _APP.org), "org", NAME),
            protocol=word(get("protocol", _APP.protocol), "protocol", AppProtocol),
            key=items(get("key", []), "key", _key_rule),
            session_ids=word(get("session_ids", _APP.session_ids), "session_ids", SessionIds),
            on_lost=word(get("on_lost", _APP.on_lost), "on_lost", OnLost),
            bind_principal=boolean(get("bind_principal", _APP.bind_principal), "bind_principal"),
            sessions_survive_stop=boolean(
                get("sessions_survive_stop", _APP.sessions_survive_stop), "sessions_survive_stop"
            ),
            preserve_host=boolean(get("preserve_host", _APP.preserve_host), "preserve_host"),
            pristine=boolean(get("pristine", _APP.pristine), "pristine"),
            affinity_cookie=_cookie_name(get("affinity_cookie", _APP.affinity_cookie)),
            steering=boolean(get("steering", _APP.steering), "steering"),
            auto_start=boolean(get("auto_start", _APP.auto_start), "auto_start"),
            auto_stop=word(get("auto_stop", _APP.auto_stop), "auto_stop", AutoStop),
            min_running=count(get("min_running", _APP.min_running), "min_running", 0),
            idle_after_s=seconds(get("idle_after", _APP.idle_after_s), "idle_after", 0.001),
            idle_grace_s=seconds(get("idle_grace", _APP.idle_grace_s), "idle_grace"),
            idle_streams=word(get("idle_streams", _APP.idle_streams), "idle_streams", IdleStreams),
            wake_timeout_s=seconds(get("wake_timeout", _APP.wake_timeout_s), "wake_timeout", 0.001),
            wake_queue=count(get("wake_queue", _APP.wake_queue), "wake_queue"),
            wake_keepalive_s=seconds(get("wake_keepalive", _APP.wake_keepalive_s), "wake_keepalive"),
            stop_grace_s=seconds(get("stop_grace", _APP.stop_grace_s), "stop_grace"),
            session_idle_s=seconds(get("session_idle", _APP.session_idle_s), "session_idle", 0.001),
            concurrency=_concurrency(get("concurrency", {})),
            checks=items(get("checks", []), "checks", _check),
            replay_sources=replay_sources(get("replay_sources", [])),
            replay_cache=replay_cache(get("replay_cache", [])),
        )
    except Wrong as wrong:
        return BadRecord(str(wrong), f"app/{name}")


def parse_instance(record_id: str, body: Mapping[str, object]) -> Instance | BadRecord:
    """The instance that an instance record's body describes; `record_id` is `<app>/<id>`."""
    app, _, identity = record_id.partition("/")
    get = body.get
    try:
        if get("app", app) != app or get("id", identity) != identity:
            raise Wrong("the body is of another instance than the record")
        address = get("address")
        return Instance(
            app=app,
            id=identity,
            address=None if address is None else _address(address),
            region=matching(get("region", _INSTANCE.region), "region", NAME),
            state=word(get("state", _INSTANCE.state), "state", State),
            incarnation=matching(get("incarnation", _INSTANCE.incarnation), "incarnation", _INCARNATION),
            cordoned=boolean(get("cordoned", _INSTANCE.cordoned), "cordoned"),
            healthy=boolean(get("healthy", _INSTANCE.healthy), "healthy"),
            held_down=boolean(get("held_down", _INSTANCE.held_down), "held_down"),
            startable=boolean(get("startable", _INSTANCE.startable), "startable"),
            owner=matching(get("owner", _INSTANCE.owner), "owner", _OWNER),
            agent=matching(get("agent", _INSTANCE.agent), "agent", _AGENT),
            sleep=matching(get("sleep", _INSTANCE.sleep), "sleep", _SLEEP),
        )
    except Wrong as wrong:
        return BadRecord(str(wrong), f"instance/{record_id}")


# --- fields ----------------------------------------------------------------------------


def _host_rule(value: object) -> str:
    if (
        isinstance(value, str)
        and len(value) <= MAX_HOST
        and (is_host(value) or HOST_NAME.fullmatch(value.removeprefix("*.")))
    ):
        return value
    raise Wrong(f'hosts: {shown(value)} is not a lower-case host or "*.suffix"')


def _prefix(value: object) -> str:
    if isinstance(value, str) and PATH.fullmatch(value):
        return value.rstrip("/") or "/"
    raise Wrong(f"path {shown(value)} is not a path prefix")


def _key_rule(value: object) -> KeyRule:
    if value == KeySource.PRINCIPAL:
        return KeyRule(KeySource.PRINCIPAL, "")
    if isinstance(value, str):
        source, _, name = value.partition(":")
        match source:
            case KeySource.HEADER | KeySource.MCP_PARAM if TOKEN.fullmatch(name):
                return KeyRule(KeySource(source), name.lower())
            case KeySource.COOKIE if TOKEN.fullmatch(name):
                return KeyRule(KeySource.COOKIE, name)
            case KeySource.QUERY if _QUERY_NAME.fullmatch(name):
                return KeyRule(KeySource.QUERY, name)
    raise Wrong(f"key: {shown(value)} is not a key rule")


def _cookie_name(value: object) -> str:
    return "" if value == "" else matching(value, "affinity_cookie", TOKEN)


def _concurrency(value: object) -> Concurrency:
    get = table(value, "concurrency").get
    hard = get("hard")
    return Concurrency(
        word(get("type", _CONCURRENCY.type), "concurrency.type", ConcurrencyType),
        count(get("soft", _CONCURRENCY.soft), "concurrency.soft"),
        None if hard is None else count(hard, "concurrency.hard"),
    )


def _check(value: object) -> Check:
    get = table(value, "checks").get
    return Check(
        matching(get("path"), "checks.path", _REQUEST_PATH),
        seconds(get("interval", _CHECK.interval_s), "checks.interval", 0.001),
        seconds(get("timeout", _CHECK.timeout_s), "checks.timeout", 0.001),
        seconds(get("grace", _CHECK.grace_s), "checks.grace"),
    )


def _address(value: object) -> Address:
    """`host:port`. A host is a name or an IP address in its usual form: what other spellings of an address (0x7f000001,
    2130706433, 127.1) mean depends on the resolver, so none of them is taken."""
    if isinstance(value, str) and len(value) <= 260:
        host, _, port = value.lower().rpartition(":")
        if port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535:
            if host.startswith("[") and host.endswith("]"):
                if ip_version(host[1:-1]) == 6:
                    return Address(host[1:-1], int(port))
            elif HOST_NAME.fullmatch(host) and (not _NUMERIC.fullmatch(host) or ip_version(host) == 4):
                return Address(host, int(port))
    raise Wrong(f'address {shown(value)} is not "host:port"')
