"""The docker driver: instances are containers that exist already and carry our label; it starts, pauses and stops them.

Which container is which instance, and on which port, its labels say; they are read again before every action. An
instance's lives are named by the engine: an incarnation is the moment at which the container was started, so that every
agent computes the same. What is known of a container is what its last inspection said. Events only say when to look.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Final

from gateway.agent.base import DriverError, Failure, FailureKind, InstanceKey, Observed, Running, Spec
from gateway.agent.docker_api import DockerApi, DockerError, Event
from gateway.agent.docker_container import Container, Endpoint, address_of, attached
from gateway.core.model import Address

ACTIONS: Final = frozenset({"start", "die", "kill", "oom", "pause", "unpause", "stop", "rename", "destroy"})
LOOKS: Final = 10
"""At a container that changes while it is looked at."""


class DockerDriver:
    """Drives the containers of one engine. The client is the caller's to close, after this."""

    def __init__(self, api: DockerApi, *, is_attached: Callable[[Endpoint], bool] = attached) -> None:
        self._api = api
        self._is_attached = is_attached
        self._seen: dict[str, Container] = {}
        """By container id, as last inspected."""
        self._targets: dict[InstanceKey, str] = {}
        """Which container was started for an instance, where two claim to be it."""
        self._asked: dict[str, str] = {}
        """The incarnation of a container in which it was sent its stop signal by the engine."""
        self._stopped: set[str] = set()
        """Stopped by this driver, and not running since."""
        self._acting: collections.Counter[str] = collections.Counter()
        self._stale: set[str] = set()
        """Containers that had an event while this driver acted on them."""
        self._locks: dict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)
        """One inspection of a container at a time: an older answer must not replace a newer one."""
        self._complete = False
        """Whether everything was looked at once."""
        self._news: dict[InstanceKey, Observed] = {}
        self._has_news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<DockerDriver containers={len(self._seen)} {self._api!r}>"

    @property
    def startable(self) -> bool:
        return True

    @property
    def suspendable(self) -> bool:
        return True

    async def start(self, spec: Spec, incarnation: str) -> Running:
        """Ignores `incarnation`, and answers the engine's own."""
        key = spec.key
        with self._act(spec.target), _explained(key, "the engine would not start it"):
            container = self._ours(key, await self._look(spec.target), spec.port)
            self._targets[key] = container.id
            if not container.running:
                begin = self._api.unpause if container.paused else self._api.start
                container = self._ours(key, await self._do(begin, container.id, lambda after: after.running))
        if not container.running:
            early = Failure(FailureKind.EXITED, f"{key} exited before it was ready", container.detail)
            raise DriverError(self._failure(container) or early)
        address = self._address(container)
        if address is None:
            on = f" on the network {container.named.network}" if container.named.network else ""
            raise DriverError(Failure(FailureKind.REFUSED, f"{key} has no address{on}", container.detail))
        return Running(address, container.incarnation)

    async def suspend(self, key: InstanceKey) -> None:
        """Pause it: the freezer holds all its processes, which keep their memory and their connections."""
        id = self._target(key)
        if id is None:
            raise DriverError(Failure(FailureKind.NOT_SUSPENDABLE, f"{key} does not run"))
        with self._act(id), _explained(key, "the engine would not pause it", FailureKind.NOT_SUSPENDABLE):
            container = self._ours(key, await self._look(id))
            if container.running:
                container = self._ours(key, await self._do(self._api.pause, id, lambda after: after.paused))
        if not container.paused:
            raise DriverError(Failure(FailureKind.NOT_SUSPENDABLE, f"{key} does not run", container.detail))

    async def stop(self, key: InstanceKey, grace_s: float) -> None:
        if not self._complete:
            await self.refresh()  # else what nobody looked for yet would be absent
        id = self._target(key)
        if id is None:
            return

        async def end(id: str) -> None:
            await self._api.stop(id, grace_s)

        with self._act(id), _explained(key, "the engine would not stop it"):
            container = await self._look(id)
            if container is None:
                return
            self._ours(key, container)
            if container.paused:
                # A frozen process acts on no signal.
                await self._do(self._api.unpause, id, lambda after: not after.paused)
            self._stopped.add(id)
            container = await self._do(end, id, lambda after: not (after.running or after.paused))
            if container is not None and container.running:
                self._tell(container)  # somebody has started it again already

    async def refresh(self) -> None:
        try:
            await self._look_at_all()
        except DockerError as error:
            raise DriverError(Failure(FailureKind.REFUSED, "the docker engine cannot be asked", str(error))) from error

    def inspect(self, key: InstanceKey) -> Observed | None:
        id = self._target(key)
        return None if id is None or id in self._stopped else self._observed(self._seen[id])

    def list(self) -> Sequence[Observed]:
        keys = dict.fromkeys(container.key for container in self._seen.values() if container.key is not None)
        return [observed for key in keys if (observed := self.inspect(key)) is not None]

    async def watch(self) -> AsyncGenerator[Observed, None]:
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(self._api.follow(ACTIONS, self._look_at_all, self._on_event))
            try:
                while True:
                    await self._has_news.wait()
                    while self._news:
                        _, observed = self._news.popitem()
                        yield observed
                    self._has_news.clear()
            except GeneratorExit:
                pass  # a task group would wrap it
            finally:
                follower.cancel()

    async def aclose(self) -> None:
        """The containers go on."""
        self._seen.clear()
        self._targets.clear()
        self._stopped.clear()
        self._news.clear()
        self._complete = False

    # --- acting ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _act(self, id: str) -> Iterator[None]:
        """What happens to a container in the meantime is not news: whoever acts looks at the end."""
        self._acting[id] += 1
        try:
            yield
        finally:
            self._acting[id] -= 1
            if not self._acting[id]:
                del self._acting[id]

    async def _do(
        self, action: Callable[[str], Awaitable[None]], id: str, wanted: Callable[[Container], bool]
    ) -> Container | None:
        """Act, and look at what came of it. A refusal is none when the container is as wanted."""
        refusal: DockerError | None = None
        try:
            await action(id)
        except DockerError as error:
            refusal = error
        container = await self._look(id)
        for _ in range(LOOKS):
            if id not in self._stale:
                break
            container = await self._look(id)
        if refusal is not None and not (container is not None and wanted(container)):
            raise refusal
        return container

    def _ours(self, key: InstanceKey, container: Container | None, port: int | None = None) -> Container:
        """Only what carries our label, and for this instance, is ever touched."""
        if container is None:
            raise DriverError(Failure(FailureKind.UNKNOWN_INSTANCE, f"{key} has no container any more"))
        if container.key != key or port not in (None, container.named.port):
            text = f"{key} is not what its container's labels say"
            raise DriverError(Failure(FailureKind.REFUSED, text, f"{container.detail} says {container.key}"))
        return container

    # --- knowing -----------------------------------------------------------------------

    def _target(self, key: InstanceKey) -> str | None:
        """The container that is this instance: the one that was started for it, or else the oldest."""
        known = self._targets.get(key)
        if known is not None and (container := self._seen.get(known)) is not None and container.key == key:
            return known
        claims = [container.named for container in self._seen.values() if container.key == key]
        return min(claims, key=lambda named: (named.created_s, named.id)).id if claims else None

    def _observed(self, container: Container) -> Observed:
        assert container.key is not None
        return Observed(
            key=container.key,
            incarnation=container.incarnation,
            running=container.running,
            suspended=container.paused,
            address=self._address(container) if container.running else None,
            failure=None if container.running or container.paused else self._failure(container),
            detail=container.detail,
        )

    def _address(self, container: Container) -> Address | None:
        return address_of(container, self._api.host, self._is_attached) if container.named.port else None

    def _failure(self, container: Container) -> Failure | None:
        """Why it does not run: nothing to say of a success, nor when its stop signal was sent to it."""
        if container.exit_status == 0 or self._asked.get(container.id) == container.incarnation:
            return None
        detail = ": ".join(filter(None, (container.detail, container.error)))
        if container.out_of_memory:
            return Failure(FailureKind.EXITED, f"{container.key} was killed: it ran out of memory", detail)
        return Failure(FailureKind.EXITED, f"{container.key} exited with status {container.exit_status}", detail)

    # --- looking -----------------------------------------------------------------------

    async def _look_at_all(self) -> None:
        listed = await self._api.containers()
        for id in {*self._seen, *(named.id for named in listed)}:
            if id in self._acting:
                self._stale.add(id)
            else:
                await self._look(id)
        self._complete = True

    async def _on_event(self, event: Event) -> None:
        if event.action == "kill":
            self._note_kill(event)
        elif event.id in self._acting:
            self._stale.add(event.id)
        else:
            await self._look(event.id)

    def _note_kill(self, event: Event) -> None:
        container = self._seen.get(event.id)
        if container is None or event.attributes.get("signal") != str(container.stop_signal):
            return
        # The stream also tells of some moments before it was opened: that may have been another life.
        if event.time_ms >= container.started_ms:
            self._asked[event.id] = container.incarnation

    async def _look(self, id: str) -> Container | None:
        async with self._locks[id]:
            self._stale.discard(id)
            container = await self._api.inspect(id)
            self._remember(id, container)
        return container

    def _remember(self, id: str, container: Container | None) -> None:
        before = self._seen.get(id)
        known = self._observed(before) if before is not None else None
        if container is None or container.key is None:
            self._forget(id)
            if known is not None and (known.running or known.suspended) and id not in self._acting:
                self._put(dataclasses.replace(known, running=False, suspended=False, address=None))
            return
        self._seen[id] = container
        if container.running or container.paused:
            self._stopped.discard(id)
        if id in self._acting:
            self._news.pop(container.key, None)
            return
        now = self._observed(container)
        if now != known and (known is not None or now.running or now.suspended):
            self._tell(container)

    def _forget(self, id: str) -> None:
        for known in (self._seen, self._asked, self._locks):
            known.pop(id, None)
        self._stopped.discard(id)
        self._targets = {key: target for key, target in self._targets.items() if target != id}

    def _tell(self, container: Container) -> None:
        if container.key is None or container.id in self._stopped:
            return
        if self._target(container.key) == container.id:
            self._put(self._observed(container))

    def _put(self, observed: Observed) -> None:
        self._news[observed.key] = observed
        self._has_news.set()


@contextlib.contextmanager
def _explained(key: InstanceKey, what: str, kind: FailureKind = FailureKind.REFUSED) -> Iterator[None]:
    """The engine's refusals as the driver's."""
    try:
        yield
    except DockerError as error:
        if error.status == 404:
            text = f"{key} has no container any more"
            raise DriverError(Failure(FailureKind.UNKNOWN_INSTANCE, text, str(error))) from error
        raise DriverError(Failure(kind, f"{key}: {what}", str(error))) from error
