"""What the agent needs and offers: the Protocols, the values that cross them, and every way in which a start can fail.

A driver starts and stops instances on one platform and knows nothing of sessions, HTTP, readiness or the catalog.
`AgentApi` is what the waker and the admin API call; the Agent itself is one implementation. Failures are values
(`Failure`), raised as `DriverError` only between a driver and the agent. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from gateway.core.model import Address, Instance, State


class InstanceKey(NamedTuple):
    """An instance's name in the catalog: unique in all apps and gateways."""

    app: str
    id: str

    def __str__(self) -> str:
        return f"{self.app}/{self.id}"


class DriverName(StrEnum):
    """Who runs an instance. A closed set: each has its class in `gateway.agent`."""

    STATIC = "static"
    PROCESS = "process"
    DOCKER = "docker"
    FLY = "fly"
    KUBERNETES = "kubernetes"


class Rest(StrEnum):
    """How an instance sleeps."""

    STOP = "stop"
    """Nothing of it runs; its memory is lost."""
    SUSPEND = "suspend"
    """It is frozen with its memory, and goes on where it was."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How to run one instance: a plain address, a command whose process listens on `{port}`, or what a platform
    already has under a name of its own.

    With address and command, the command is started and listens at that fixed address.
    """

    key: InstanceKey
    region: str = "local"
    address: Address | None = None
    command: tuple[str, ...] = ()
    """`{port}` in it, and in the values of `env`, becomes the port to listen on."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    platform: DriverName | None = None
    """None: a command is run by the process driver, a plain address by nobody."""
    target: str = ""
    """What the platform calls it: a container's id, a Machine's id, `statefulset/NAME/ORDINAL`."""
    port: int = 0
    """Where it listens on the platform's network."""

    def __post_init__(self) -> None:
        if self.platform is not None and not (self.target and self.port):
            raise ValueError(f"instance {self.key} needs the platform's name for it and a port")
        if self.platform is None and self.address is None and not self.command:
            raise ValueError(f"instance {self.key} needs an address or a command")

    @property
    def driver(self) -> DriverName:
        if self.platform is not None:
            return self.platform
        return DriverName.PROCESS if self.command else DriverName.STATIC


class FailureKind(StrEnum):
    """Why an instance does not run. A closed set: each kind has one problem code in the waker."""

    UNKNOWN_INSTANCE = "unknown-instance"
    """This agent does not own it."""
    NOT_STARTABLE = "not-startable"
    """It is a plain address: no driver can start or stop it."""
    HELD_DOWN = "held-down"
    """An operator stopped it: only an operator starts it."""
    AGENT_CLOSING = "agent-closing"
    AGENT_AWAY = "agent-away"
    """The agent could not be asked (never said by an agent itself)."""
    COMMAND_NOT_FOUND = "command-not-found"
    NOT_EXECUTABLE = "not-executable"
    CWD_MISSING = "cwd-missing"
    REFUSED = "refused"
    """The platform would not start it: no memory, too many processes, an API's error."""
    PORT_TAKEN = "port-taken"
    """Somebody else took its port between the choice and the listen. Another port may do."""
    EXITED = "exited"
    """It ended before it was ready, or crashed later."""
    NEVER_LISTENED = "never-listened"
    CHECK_FAILED = "check-failed"
    """Its port is open, but the app's checks did not pass in time."""
    CANCELLED = "cancelled"
    """A stop was asked for while it started."""
    NOT_SUSPENDABLE = "not-suspendable"
    """Its driver cannot freeze it, or could not."""
    NOT_PREPARED = "not-prepared"
    """It is not started in this incarnation, or somebody wanted it before it slept."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with which instance."""

    kind: FailureKind
    message: str
    """One line that may reach a client: no paths of this host, no output of the app."""
    detail: str = ""
    """The rest, for operators: the path, the system's words, the last lines the instance printed."""


class DriverError(Exception):
    """A driver could not do what it was asked to; nothing of the instance is left running by the attempt."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(": ".join(filter(None, (failure.message, failure.detail))))
        self.failure = failure


# --- driver ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observed:
    """What a driver sees of one instance."""

    key: InstanceKey
    incarnation: str
    running: bool
    """False too while it is suspended."""
    address: Address | None = None
    """None when it does not run."""
    failure: Failure | None = None
    """Why it ended; None while it runs, after an exit with success, and after a stop that was asked for."""
    detail: str = ""
    """The platform's own name for it, such as `pid 4711`."""
    output: str = ""
    """The last lines it printed, where the driver has them."""
    suspended: bool = False
    """Frozen: a start with the same incarnation resumes it."""


class Running(NamedTuple):
    """What a start led to."""

    address: Address
    """Where it will listen; it need not listen yet."""
    incarnation: str
    """The one that was asked for, unless the platform names lives itself."""


class Driver(Protocol):
    """Starts, stops and watches instances on one platform."""

    @property
    def startable(self) -> bool:
        """Whether `start` makes something run; False for plain addresses, which run by themselves."""

    @property
    def suspendable(self) -> bool:
        """Whether `suspend` freezes something."""

    async def start(self, spec: Spec, incarnation: str) -> Running:
        """Start it, or resume it if it is suspended in this incarnation.

        Idempotent for one incarnation: what runs is answered. `incarnation` reaches the instance, where the platform
        has a way. A platform that names lives itself ignores it, and answers its own name for the life that runs now.
        Two concurrent starts of one key are the agent's to prevent.

        Raises:
            DriverError: it does not run; or another incarnation of it does, which is left as it is.
        """

    async def suspend(self, key: InstanceKey) -> None:
        """Freeze it with its memory, and return when it is frozen. Freezing what is frozen is success.

        Raises:
            DriverError: it is not suspended, and is as it was before.
        """

    async def stop(self, key: InstanceKey, grace_s: float) -> None:
        """Return when nothing of it runs: asked politely, killed after `grace_s`. Stopping the absent is success.

        Raises:
            DriverError: the platform cannot be asked, or refuses.
        """

    async def refresh(self) -> None:
        """Ask the platform for everything again, for what events have missed; what changed is told by `watch`.

        Raises:
            DriverError: the platform cannot be asked.
        """

    def inspect(self, key: InstanceKey) -> Observed | None:
        """What is known of it without waiting; None for what this driver never started or has stopped."""

    def list(self) -> Sequence[Observed]:
        """Everything `inspect` would answer for."""

    def watch(self) -> AsyncGenerator[Observed, None]:
        """Yield an instance when it changed by itself: it ended, or somebody else started, froze or stopped it.

        One watcher at a time; it ends when it is closed or cancelled. An instance that changes twice before it is read
        is yielded once, as it is last known: compare incarnations.
        """

    async def aclose(self) -> None:
        """Free everything. Children of this process are killed; what a platform runs goes on. Idempotent."""


# --- records ---------------------------------------------------------------------------


class Publish(Protocol):
    """Where the agent's records go. The last body per id counts; neither call waits nor fails because a log is away."""

    def put(self, kind: str, id: str, body: Mapping[str, object]) -> None: ...

    def delete(self, kind: str, id: str) -> None: ...


# --- the agent's own interface ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """It runs and is ready. Its record is on its way."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It does not run."""

    failure: Failure
    retry_after_s: float = 0.0
    """Until then another start is refused with this same failure; 0 when there is nothing to wait for."""


StartOutcome = Started | StartFailed


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing of it runs."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was changed: unknown here, not startable, or the agent could not be asked."""

    failure: Failure


StopOutcome = Stopped | Refused


@dataclass(frozen=True, slots=True)
class Prepared:
    """No gateway sends it anything new, once it knows the record. It sleeps when that is agreed, and `token` comes
    back; a start ends the preparation, and so does time."""

    instance: Instance
    token: str


PrepareOutcome = Prepared | Refused


@dataclass(frozen=True, slots=True)
class Cordoned:
    """`instance` says whether it is cordoned now."""

    instance: Instance


CordonOutcome = Cordoned | Refused


@dataclass(frozen=True, slots=True)
class Reached:
    """It is in the state that was waited for."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class NotReached:
    """The time is over; `instance` is how it is now, or None when the agent does not own it."""

    instance: Instance | None


WaitOutcome = Reached | NotReached


@dataclass(frozen=True, slots=True)
class Listed:
    """One owned instance, for operators."""

    instance: Instance
    reason: str = ""
    """Why it is not running, when it failed; or which check fails."""
    retry_after_s: float = 0.0
    detail: str = ""
    """The driver's own name for it."""
    output: str = ""
    """The last lines it printed."""


class AgentApi(Protocol):
    """What may be asked of an agent. No call raises because of an instance, and each may be cancelled freely:
    what was begun goes on for the others."""

    async def start(self, app: str, id: str, *, release: bool = False) -> StartOutcome:
        """Make it run, and answer when it is ready. Asking twice starts once.

        `release` is the operator's start: it ends a hold and does not wait for the back-off. Traffic passes False.
        """

    async def stop(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        """Make it stop, and answer when nothing of it is left.

        `hold` is the operator's stop: traffic does not wake it until a start with `release`.
        """

    async def suspend(self, app: str, id: str, *, hold: bool = True) -> StopOutcome:
        """Freeze it, and answer when it is frozen. `hold` as for `stop`."""

    async def prepare(self, app: str, id: str, incarnation: str, rest: Rest) -> PrepareOutcome:
        """Begin to put it to sleep, if this incarnation of it is started (docs/adr/0016-stops-are-agreed.md)."""

    async def sleep(self, app: str, id: str, token: str) -> StopOutcome:
        """All gateways agree: it sleeps now. Refused when the preparation was ended meanwhile."""

    async def stay(self, app: str, id: str, token: str) -> None:
        """Not all agree: it goes on as if nothing had been. Does nothing when the preparation was ended already."""

    async def cordon(self, app: str, id: str, cordoned: bool) -> CordonOutcome:
        """Take it out of placement, or back into it; what is pinned to it goes on."""

    async def wait(self, app: str, id: str, state: State, timeout_s: float) -> WaitOutcome:
        """Answer when it is in `state`, or when `timeout_s` are over."""

    async def list(self) -> Sequence[Listed]:
        """Every instance this agent owns, in order of app and id."""
