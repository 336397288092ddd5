"""The vocabulary: what the catalog holds, what a request asks, what is decided.

Pure values. Everything here is immutable and valid once it exists; nothing here
knows about sockets, clocks or logs. Words are those of ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """An instance's state, in the words of the Fly Machines API."""

    CREATED = "created"
    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    FAILED = "failed"


class AppProtocol(StrEnum):
    """What is looked for in an app's traffic."""

    AUTO = "auto"
    MCP = "mcp"
    HTTP = "http"


class SessionIds(StrEnum):
    """How a session id finds its instance: sealed into the id, or looked up in the pin store."""

    SEALED = "sealed"
    STORED = "stored"


class OnLost(StrEnum):
    """What becomes of an MCP session whose instance is gone: it is over, or begins anew elsewhere under the same id."""

    NOT_FOUND = "404"
    REINITIALIZE = "reinitialize"


class KeySource(StrEnum):
    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"
    MCP_PARAM = "mcp-param"
    PRINCIPAL = "principal"


class ConcurrencyType(StrEnum):
    REQUESTS = "requests"
    CONNECTIONS = "connections"


class AutoStop(StrEnum):
    """What becomes of an instance that nobody needs."""

    OFF = "off"
    STOP = "stop"
    SUSPEND = "suspend"


class IdleStreams(StrEnum):
    """Whether a silent GET stream keeps its instance up, or stays open at the gateway while the instance sleeps."""

    COUNT = "count"
    PARK = "park"


class ReplayKey(StrEnum):
    """What a session's replay cache goes by."""

    COOKIE = "cookie"
    HEADER = "header"


class KeyRule(NamedTuple):
    """One entry of an app's `key` list; `name` is lower-case for headers, empty for `principal`."""

    source: KeySource
    name: str


class Address(NamedTuple):
    """Where an instance listens: a host name or IP address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Load limits of one instance (Fly: services.concurrency). `hard` None means no limit."""

    type: ConcurrencyType = ConcurrencyType.REQUESTS
    soft: int = 20
    hard: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A readiness and health check: GET `path` must answer 2xx within `timeout_s`."""

    path: str
    interval_s: float = 10.0
    timeout_s: float = 2.0
    grace_s: float = 5.0


@dataclass(frozen=True, slots=True)
class ReplayRule:
    """One entry of an app's `replay_cache` (Fly, "Session-based replay caching")."""

    type: ReplayKey
    name: str
    """The cookie's name, or the header's in lower case."""
    ttl_s: float
    """At least 10."""
    host: str = ""
    """The one host it is for, in lower case; empty for all. Entries are kept per host in any case."""
    path: str = ""
    """A path prefix by whole segments, without a `/` at its end: empty for every path."""
    allow_bypass: bool = False
    """Whether a client may ask with `fly-replay-cache-control: skip` that the app is asked anew."""


@dataclass(frozen=True, slots=True)
class App:
    """An app's settings, as validated from moorage.toml or from an app record."""

    name: str
    hosts: tuple[str, ...] = ()
    path: str = "/"
    strip_path: bool = False
    org: str = "default"
    protocol: AppProtocol = AppProtocol.AUTO
    key: tuple[KeyRule, ...] = ()
    session_ids: SessionIds = SessionIds.SEALED
    on_lost: OnLost = OnLost.NOT_FOUND
    bind_principal: bool = True
    """A session id works only with the credentials it was made with."""
    sessions_survive_stop: bool = False
    """Its sessions outlive the process (kept on disk, say): a stop or restart does not end them."""
    preserve_host: bool = False
    """Send the client's Host to the instance instead of the instance's own authority."""
    pristine: bool = False
    """Its answers go to the client without `Via` and `Fly-Request-Id` (Fly: http_options.response.pristine)."""
    affinity_cookie: str = ""
    steering: bool = True
    auto_start: bool = True
    wake_timeout_s: float = 60.0
    wake_queue: int = 1000
    wake_keepalive_s: float = 15.0
    """After being held this long, a request that accepts event streams gets comments; 0: never."""
    stop_grace_s: float = 5.0
    session_idle_s: float = 3600.0
    """Learned pins and listed sessions are forgotten after this long without a request."""
    concurrency: Concurrency = Concurrency()
    checks: tuple[Check, ...] = ()
    auto_stop: AutoStop = AutoStop.OFF
    min_running: int = 0
    """Never fewer than these are left running when others are put to sleep."""
    idle_after_s: float = 300.0
    idle_grace_s: float = 60.0
    """After a start, for how long idleness does not count."""
    idle_streams: IdleStreams = IdleStreams.COUNT
    replay_sources: tuple[str, ...] = ()
    """Who may replay requests to this app beside the apps of its own org: `org:NAME`, `app:NAME`, or NAME for both."""
    replay_cache: tuple[ReplayRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of an app, as its owner last published it."""

    app: str
    id: str
    address: Address | None = None
    """None while a driver has not yet given it a port."""
    region: str = "local"
    state: State = State.STARTED
    incarnation: str = "0"
    """Changes whenever the instance's memory was lost; `0` for static addresses. At most 16 of [0-9a-zA-Z]."""
    cordoned: bool = False
    """No new sessions; what is pinned goes on."""
    healthy: bool = True
    """False while the app's checks fail: no new sessions are placed here."""
    held_down: bool = False
    """Stopped by an operator: traffic does not wake it."""
    startable: bool = False
    """A driver can start it."""
    owner: str = ""
    """Writer id of the agent or source that publishes it."""
    agent: str = ""
    """Where its agent can be asked, as `http://host:port`; empty for one that only its own process can ask."""
    sleep: str = ""
    """While it is being put to sleep: what every gateway repeats to say that it knows, and with which load."""

    @property
    def running(self) -> bool:
        return self.state is State.STARTED and self.address is not None

    @property
    def wakeable(self) -> bool:
        """Whether traffic may start it: a driver can, and no operator stopped it."""
        return self.startable and not self.held_down and self.state is not State.STARTED


@dataclass(frozen=True, slots=True)
class AppTable:
    """All that is known of one app: replaced as a whole when anything in it changes.

    A request reads it once and decides from that value alone.
    """

    app: App
    instances: Mapping[str, Instance] = field(default_factory=dict)
    placeable: tuple[Instance, ...] = ()
    """Running, healthy, not cordoned: where new sessions go. In id order."""
    wakeable: tuple[Instance, ...] = ()
    """Not running, may be started by traffic, not cordoned. In id order."""
    region: str = "local"
    """The gateway's own region, preferred for placement."""


# --- what a request asks -------------------------------------------------------------


class Dialect(StrEnum):
    """Which protocol a request speaks; decides the form of error answers and what is learned."""

    HTTP = "http"
    SSE_2024 = "sse-2024"
    SESSION_2025 = "session-2025"
    STATELESS_2026 = "stateless-2026"


class Kind(StrEnum):
    """What a request is, as far as affinity is concerned. A closed set."""

    PLAIN = "plain"
    """Nothing of MCP in it, or MCP without a session that any instance can answer."""
    NEEDS_BODY = "needs-body"
    """A POST that may be MCP: its JSON-RPC message decides. Read the body, then `classify_body`."""
    INITIALIZE = "initialize"
    IN_SESSION = "in-session"
    """Carries Mcp-Session-Id."""
    LEGACY_STREAM = "legacy-stream"
    """A GET that may open a 2024-11-05 SSE session: its `endpoint` event is rewritten."""
    LEGACY_POST = "legacy-post"
    """A POST to a rewritten endpoint: carries the pin in its query."""
    ANYWHERE = "anywhere"
    """2026-07-28 discovery and lists: any instance, retried on another one."""
    TASK = "task"
    STATE = "state"
    """2026-07-28 retry that carries requestState."""
    PRINCIPAL = "principal"
    """2026-07-28, nothing better to go by: the same caller goes to the same instance."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A classified request."""

    kind: Kind
    dialect: Dialect
    token: bytes = b""
    """IN_SESSION: the Mcp-Session-Id as sent. LEGACY_POST: the pin. TASK, STATE: the pin store's key."""
    rpc_method: str = ""
    rpc_id: bytes = b""
    """The JSON-RPC id as raw JSON, empty when there is none or it is not known."""
    key: bytes = b""
    """The value of the first `key` rule present in the request, prefixed by the rule; empty for none."""
    learns: bool = False
    """The answer may carry a taskId or requestState to be pinned."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A session's or key's instance, as a seal, a cookie or the pin store names it."""

    instance: str
    incarnation: str
    app: str = ""
    """The instance's app, where a replay led into another one than the client addresses."""
    via: bool = False
    """Requests go to the addressed app first, whose replay adds what the instance needs."""

    @property
    def name(self) -> str:
        """Instance, app and `via` in one word, as seals and stores keep them; `named` takes it back."""
        name = f"{self.app}/{self.instance}" if self.app else self.instance
        return f"~{name}" if self.via else name

    @classmethod
    def named(cls, name: str, incarnation: str) -> Pin:
        """The pin of this `name`. Neither instance ids nor app names have a `/` or `~` in them."""
        app, _, instance = name.removeprefix("~").rpartition("/")
        return cls(instance, incarnation, app, name.startswith("~"))


class Rule(StrEnum):
    """Which rule chose the instance; the same words in logs, metrics and `explain`."""

    FORCE = "force"
    SEALED = "sealed"
    STORED = "stored"
    REPLAY = "replay"
    """An app's fly-replay named it."""
    REPLAY_CACHE = "replay-cache"
    """A fly-replay named it that is remembered."""
    COOKIE = "cookie"
    PREFER = "prefer"
    HASH = "hash"
    LEAST_LOADED = "least-loaded"
