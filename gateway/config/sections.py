"""The tables of moorage.toml: one model per table, one field per key, with type, default and meaning.

This is the only place where a key is declared; `gateway.config.reference` makes the reference page from it. A key's
name in the file is the field's name without its unit: `head_timeout` for `head_timeout_s`. What a value looks like is
in `gateway.config.values`, `replays` and `references`; what must hold between keys, in `gateway.config.across`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from gateway.config.agents import AgentListener, AgentUrl, DockerHost
from gateway.config.platforms import ApiUrl, FlyMachine, KubernetesApi, Workload
from gateway.config.references import BearerToken, CatalogUrl, Folder, SealSecret, redacted
from gateway.config.replays import (
    RegionGroups,
    ReplayBufferBytes,
    ReplayKeyName,
    ReplayScope,
    ReplaySource,
    ReplayTtl,
)
from gateway.config.values import (
    Argument,
    Bool,
    CookieName,
    Count,
    HeadBytes,
    HostRule,
    InstanceAddress,
    InstanceId,
    Key,
    ListenAddress,
    Name,
    Network,
    PathPrefix,
    RegionName,
    RequestPath,
    Seconds,
    SizeBytes,
    SomeCount,
    SomeSeconds,
    VariableName,
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
    OnLost,
    ReplayKey,
    ReplayRule,
    SessionIds,
)
from gateway.core.replay_settings import DEFAULT_TTL_S, MAX_RULES, MAX_SOURCES, Scope

_APP = App("")
_CHECK = Check("/")
_CONCURRENCY = Concurrency()


def _alias(name: str) -> str:
    return name.removesuffix("_s")


class Section(BaseModel):
    """A table of the file. Frozen, and never shows a secret."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=_alias,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class LimitSettings(Section):
    """What one gateway accepts before it refuses or gives up. Sizes in bytes, times in seconds."""

    connections: Count = 8000
    """Client connections in all. Each open session costs one more towards its instance: keep twice this below the
    process's limit of open files."""
    header_bytes: HeadBytes = 32 * 1024
    """A request's or response's head in bytes; a request over it gets 431."""
    header_count: Count = 100
    """Header fields in one head."""
    body_bytes: SizeBytes = 0
    """A request's body; one over it gets 413. 0 means no limit."""
    replay_buffer_bytes: ReplayBufferBytes = 1024 * 1024
    """How much of a request's body is kept while its app may still answer with a replay; at most 10 MiB. A longer body
    streams on, and a replay of it is refused (413, `PA01`)."""
    head_timeout_s: SomeSeconds = 10.0
    """From a head's first byte, how long its last may take."""
    body_timeout_s: SomeSeconds = 30.0
    """How long a request's body may stand still."""
    write_timeout_s: SomeSeconds = 60.0
    """How long a peer may take nothing of what is sent to it."""
    connect_timeout_s: SomeSeconds = 2.0
    """How long a connection to a running instance may take to open."""
    keep_alive_s: SomeSeconds = 75.0
    """How long an idle client connection is kept."""


class GatewaySettings(Section):
    """The gateway itself."""

    listen: ListenAddress = Address("127.0.0.1", 8080)
    """The public listener. Port 0 lets the kernel choose."""
    private: AgentListener = None
    """A second listener, where every app is also known as `<app>.flycast`. It trusts no more than the public one, and
    is for a network that the public does not reach. Not set: none."""
    admin: ListenAddress = Address("127.0.0.1", 8081)
    """The admin API and metrics. Any address that is not loopback needs an `admin_token`."""
    admin_token: BearerToken | None = None
    """The bearer token of the admin API; without one, the API answers on loopback only."""
    secret: tuple[SealSecret, ...] = Field((), max_length=16)
    """Keys of the seals on session ids, at least 16 bytes each: the first seals, all open. Without one, a key is made
    once and kept beside a `sqlite:` catalog as `moorage.secret`; gateways that share a Redis must be given the same."""
    region: RegionName = "local"
    """Where this gateway is. Instances of the same region are preferred."""
    region_groups: RegionGroups = Field(default_factory=dict)
    """Names for groups of regions, as in `{ eu = ["ams", "fra"] }`, for replays and steering headers. `apac`, `eu`,
    `na`, `sa`, `us` and `usa` are built in; a group set here replaces the built-in one of its name. What a group lists
    are regions, not other groups. `any`, which is every region, cannot be set."""
    catalog: CatalogUrl = Field("sqlite:moorage.db", repr=False, validate_default=True)
    """Where apps and instances are recorded: `sqlite:PATH`, `redis://host:6379/0`, `rediss://...` or `memory:`.
    The password may be a reference: `redis://:env:REDIS_PASSWORD@host:6379/0`."""
    trusted_proxies: tuple[Network, ...] = ()
    """Peers whose `X-Forwarded-*` headers are believed."""
    drain_grace_s: Seconds = 10.0
    """After SIGTERM, how long requests in flight may go on."""
    start_limit: Count = 16
    """Instances of one agent that may be starting at once; more wait for their turn."""
    limits: LimitSettings = LimitSettings()
    """See `[gateway.limits]` below."""

    @property
    def catalog_shown(self) -> str:
        """The catalog's URL without its password."""
        return redacted(self.catalog)


class AgentSettings(Section):
    """Who runs the instances of this file, and who else may ask for it: see [the agent](agent.md)."""

    listen: AgentListener = None
    """Where gateways ask this agent. Not set: a gateway's own agent is asked by that gateway alone, and `moorage agent`
    listens on `127.0.0.1:8082`. Port 0 lets the kernel choose."""
    url: AgentUrl = ""
    """How they reach it, as `http://host:port`; it stands in the records. Not set: `http://` and where it listens. Must
    be set when it listens on every address (`0.0.0.0`, `[::]`)."""
    inside: Bool = True
    """Whether `moorage serve` runs the agent of the file's instances. `false`: they belong to a `moorage agent` with
    the same file, and the gateway only asks it."""
    docker: DockerHost = ""
    """The Docker whose containers are instances: `unix:///var/run/docker.sock` or `tcp://host:port`; empty for none."""
    fly_token: BearerToken | None = None
    """The token for Fly's Machines API, for instances that are Machines."""
    fly_api: ApiUrl = "https://api.machines.dev"
    """Where that API is; within Fly's network `http://_api.internal:4280`."""
    kubernetes: KubernetesApi = ""
    """The Kubernetes API, for instances that are Pods: `in-cluster`, or its URL; empty for none."""
    kubernetes_token: BearerToken | None = None
    """Its token, where the URL is given."""
    kubernetes_ca: Folder | None = None
    """The file with its certificate authority, where the URL is given. Not set: the system's."""


class ConcurrencySection(Section):
    """Load limits of one instance."""

    type: ConcurrencyType = _CONCURRENCY.type
    """What is counted: requests in flight, or connections."""
    soft: Count = _CONCURRENCY.soft
    """From this load on, new sessions go elsewhere if they can. Not set: `hard`, if that is lower."""
    hard: Count | None = _CONCURRENCY.hard
    """At this load a new request waits, at most `wake_timeout`. Not set: no limit. Under `requests` an open stream
    does not count against it."""

    def value(self) -> Concurrency:
        soft = self.soft
        if self.hard is not None and "soft" not in self.model_fields_set:
            soft = min(soft, self.hard)
        return Concurrency(self.type, soft, self.hard)


class CheckSection(Section):
    """A readiness and health check: a GET that must be answered 2xx."""

    path: RequestPath
    """What is asked for."""
    interval_s: SomeSeconds = _CHECK.interval_s
    """From one check to the next."""
    timeout_s: SomeSeconds = _CHECK.timeout_s
    """How long an answer may take."""
    grace_s: Seconds = _CHECK.grace_s
    """After a start, how long failures do not count."""

    def value(self) -> Check:
        return Check(self.path, self.interval_s, self.timeout_s, self.grace_s)


class ReplayCacheSection(Section):
    """For which requests, by what and for how long the target of a replay is remembered; at most one such table for a
    host and path. What it does is said in [replay caches](replay.md#replay-caches)."""

    path: ReplayScope = Scope()
    """Path prefix that it is for, by whole segments: `/`, `/api`, or `host/api` for one host alone. `/api`, `/api/` and
    `/api/*` are the same; the longest one wins."""
    ttl_s: ReplayTtl = DEFAULT_TTL_S
    """How long a target is remembered, at least 10 s."""
    type: ReplayKey
    """Whether a cookie or a header of the request tells its sessions apart."""
    name: ReplayKeyName
    """The cookie's or header's name. A header must be one that the gateway passes on. `mcp-session-id` is not: MCP
    sessions are pinned without a cache."""
    allow_bypass: Bool = False
    """Whether a client may skip the cache with `fly-replay-cache-control: skip`."""

    def value(self) -> ReplayRule:
        host, path = self.path
        return ReplayRule(self.type, self.name, self.ttl_s, host, path, self.allow_bypass)


class AppSection(Section):
    """One app: what it is reached by, how its sessions find their instance, and how it is woken."""

    hosts: tuple[HostRule, ...] = _APP.hosts
    """Hosts that belong to the app: exact, or `*.suffix`. None: whatever no other app's hosts match."""
    path: PathPrefix = _APP.path
    """Path prefix that belongs to the app, by whole segments; the longest one wins."""
    strip_path: Bool = _APP.strip_path
    """Whether the prefix is cut off before the instance sees the path."""
    org: Name = _APP.org
    """Whom the app belongs to. Apps of one org may [replay](replay.md) requests to each other."""
    protocol: AppProtocol = _APP.protocol
    """What is looked for in the traffic. `auto` recognises MCP by itself; `http` never looks into bodies."""
    key: tuple[Key, ...] = _APP.key
    """What requests are pinned by: `header:NAME`, `cookie:NAME`, `query:NAME`, `mcp-param:NAME`, `principal`. The first
    one present in a request is used."""
    session_ids: SessionIds = _APP.session_ids
    """How a session id finds its instance: sealed into the id, or looked up in the catalog's database."""
    on_lost: OnLost = _APP.on_lost
    """What happens to an MCP session whose instance is gone. `404`: its client has to begin again. `reinitialize`: it
    begins anew on another instance under the same id, without its state: see
    [MCP servers](../howto/mcp-servers.md#sessions-that-may-lose-their-state)."""
    bind_principal: Bool = _APP.bind_principal
    """Whether a session id works only with the credentials it was made with."""
    preserve_host: Bool = _APP.preserve_host
    """Whether the instance sees the client's Host instead of its own address."""
    pristine: Bool = _APP.pristine
    """Whether answers reach the client without the `Via` and `Fly-Request-Id` that the gateway adds."""
    affinity_cookie: CookieName = _APP.affinity_cookie
    """The name of a signed cookie that keeps a browser on its instance; empty for none."""
    steering: Bool = _APP.steering
    """Whether `fly-force-instance-id`, `fly-prefer-instance-id` and the other steering headers are obeyed."""
    auto_start: Bool = _APP.auto_start
    """Whether a request starts a sleeping instance."""
    auto_stop: AutoStop = _APP.auto_stop
    """What happens to an instance that nobody needs: it goes on, is stopped, or is suspended with its memory."""
    min_running: SomeCount = _APP.min_running
    """Instances of the app that are never put to sleep for being idle."""
    idle_after_s: SomeSeconds = _APP.idle_after_s
    """How long nothing must happen to an instance before it is put to sleep."""
    idle_grace_s: Seconds = _APP.idle_grace_s
    """After a start, how long idleness does not count."""
    idle_streams: IdleStreams = _APP.idle_streams
    """Whether a silent GET stream of an MCP session keeps its instance up, or is parked: kept open by the gateway while
    the instance sleeps."""
    wake_timeout_s: SomeSeconds = _APP.wake_timeout_s
    """How long a request is held for an instance that starts or is full."""
    wake_queue: Count = _APP.wake_queue
    """Requests held for the app at once; more get 503."""
    wake_keepalive_s: Seconds = _APP.wake_keepalive_s
    """After how long a held request that accepts event streams gets comments to stay alive, and then its answer as
    events; never `initialize`. 0: never."""
    stop_grace_s: Seconds = _APP.stop_grace_s
    """After SIGTERM, how long an instance may take before SIGKILL."""
    session_idle_s: SomeSeconds = _APP.session_idle_s
    """After how long without a request a learned pin or a listed session is forgotten."""
    sessions_survive_stop: Bool = _APP.sessions_survive_stop
    """Whether the instances keep their sessions on disk, so that a session goes on after a stop and a start."""
    concurrency: ConcurrencySection = ConcurrencySection()
    """See `[apps.NAME.concurrency]` below."""
    checks: tuple[CheckSection, ...] = Field((), max_length=16)
    """See `[[apps.NAME.checks]]` below."""
    replay_sources: tuple[ReplaySource, ...] = Field(_APP.replay_sources, max_length=MAX_SOURCES)
    """Who may replay requests to this app, beside the apps of its own `org`: `org:NAME`, `app:NAME`, or `NAME` for an
    org or an app of that name."""
    replay_cache: tuple[ReplayCacheSection, ...] = Field((), max_length=MAX_RULES)
    """See `[[apps.NAME.replay_cache]]` below."""

    def value(self, name: str) -> App:
        """The app as the core knows it."""
        tables = ("concurrency", "checks", "replay_cache")
        same = {key: getattr(self, key) for key in type(self).model_fields if key not in tables}
        return App(
            name=name,
            concurrency=self.concurrency.value(),
            checks=tuple(check.value() for check in self.checks),
            replay_cache=tuple(rule.value() for rule in self.replay_cache),
            **same,
        )


class InstanceSection(Section):
    """One instance: an address that is always there, a command that is started when needed, or what a platform runs."""

    id: InstanceId
    """The instance's name within its app."""
    address: InstanceAddress | None = None
    """Where a static instance listens."""
    command: tuple[Argument, ...] = Field((), max_length=1024)
    """The program and its arguments; no shell. `{port}` is replaced by the port it must listen on, on 127.0.0.1."""
    region: RegionName | None = None
    """Where it is. Not set: the gateway's region."""
    env: dict[VariableName, Argument] = Field(default_factory=dict, repr=False)
    """Environment variables for the command, over those of the gateway. `{port}` is replaced here too."""
    cwd: Folder | None = None
    """The command's folder, from the file's own. Not set: the folder the gateway was started in."""
    fly: FlyMachine = ""
    """The Fly Machine that it is, as `app/machine-id`."""
    kubernetes: Workload = ""
    """The Pod that it is: `statefulset/NAMESPACE/NAME/ORDINAL`, or `deployment/NAMESPACE/NAME` with one replica."""
    port: Count | None = Field(None, le=65535)
    """Where a Machine or Pod listens."""
