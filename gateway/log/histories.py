"""The logs a gateway follows and writes: one history for the apps, one for each region that it must know.

A log is opened with its follower when its name first comes up. This gateway writes under three names: `config@`
for the file's apps, `agent@` for its agent's instances, `admin@` for what was registered through the admin API.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Coroutine, Iterable

from gateway.core.catalog import Catalog
from gateway.core.model import Address
from gateway.log.base import GLOBAL, CatalogLog, LossReason
from gateway.log.follower import Follower
from gateway.log.opening import open_log
from gateway.log.publisher import Publisher
from gateway.log.publishing import Publishing


class Logs:
    """All histories of one gateway."""

    def __init__(
        self,
        url: str,
        catalog: Catalog,
        region: str,
        regions: Iterable[str],
        listens: Address,
        run: Callable[[Coroutine[object, object, None]], None],
    ) -> None:
        """
        Args:
            regions: whose instances must be known from the start.
            listens: with the host's name, tells this gateway from others on the same host.
            run: keeps a coroutine running until the gateway ends.
        """
        self._url = url
        self._catalog = catalog
        self._run = run
        self._logs: dict[str, CatalogLog] = {}
        self._publishers: dict[tuple[str, str], Publisher] = {}
        self._by_name: dict[str, Follower] = {}
        self.followers: list[Follower] = []
        """One for each log that is followed; more may come."""
        self.name = f"{platform.node() or 'localhost'}:{listens.port}"
        self.agent_writer = f"agent@{self.name}"
        self.config_writer = f"config@{self.name}"
        self.admin_writer = f"admin@{self.name}"
        for name in (GLOBAL, *sorted({region, *regions})):
            self._open(name)
        self.agent, self.config, self.admin = (
            Publishing(catalog, region, self._of(writer))
            for writer in (self.agent_writer, self.config_writer, self.admin_writer)
        )

    async def ready(self) -> None:
        """Return once every log was read for the first time."""
        for follower in list(self.followers):
            await follower.ready()

    async def aclose(self) -> None:
        """Write what still waits; let go of the stores."""
        for publisher in self._publishers.values():
            await publisher.aclose()
        for log in self._logs.values():
            await log.aclose()

    def _open(self, name: str) -> CatalogLog:
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = open_log(self._url, name)

            def lost(reason: LossReason) -> None:
                for (_, of_log), publisher in self._publishers.items():
                    if of_log == name:
                        publisher.republish_all()

            follower = self._by_name[name] = Follower(log, self._catalog, name, on_lost=lost)
            self.followers.append(follower)
            self._run(follower.run())
        return log

    def _of(self, writer: str) -> Callable[[str], Publisher]:
        def publisher_of(name: str) -> Publisher:
            publisher = self._publishers.get((writer, name))
            if publisher is None:
                publisher = Publisher(self._open(name), writer, version_of=self._catalog.version)
                self._publishers[writer, name] = publisher
                self._run(_publish(publisher, self._by_name[name]))
            return publisher

        return publisher_of


async def _publish(publisher: Publisher, follower: Follower) -> None:
    """Write, once the history is known: a writer that starts one must not cross its own reader."""
    await follower.ready()
    await publisher.run()
