"""The Pods of one workload, as the API tells them: listed, then watched from there on for as long as it lasts.

Follows "Efficient detection of changes" of the API concepts page: a watch ends in time and is taken up where it ended;
a version that the server has forgotten (410 Gone) means another list.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from gateway.agent.kubernetes_api import GONE, Change, Changed, KubernetesApi, Listed
from gateway.agent.kubernetes_pods import Pod, Workload, version_number
from gateway.agent.rest import ApiError
from gateway.agent.tempo import Tempo

logger = structlog.get_logger(__name__)

FIRST_PAUSE_S: Final = 0.5
"""Before a workload is listed again whose watch failed; doubled with each failure in a row."""
LAST_PAUSE_S: Final = 30.0


class Followed:
    """A workload and its Pods. `on_change` is called whenever they are other than before."""

    def __init__(
        self, api: KubernetesApi, workload: Workload, tempo: Tempo, on_change: Callable[[Followed], None]
    ) -> None:
        self.workload = workload
        self.pods: dict[str, Pod] = {}
        """By uid: a StatefulSet gives the name of one to the next."""
        self.changed = asyncio.Event()
        """Set, and replaced by another one, at each change."""
        self._api = api
        self._tempo = tempo
        self._on_change = on_change
        self._selector = ""
        self._floor = -1
        self._away = False

    def __repr__(self) -> str:
        return f"<Followed {self.workload} pods={len(self.pods)}>"

    async def follow(self) -> None:
        """Keep `pods` up to date for ever; it does not raise."""
        failures = 0
        while True:
            try:
                version = await self.list()
                while True:
                    async with contextlib.aclosing(
                        self._api.watch(self.workload.namespace, self._selector, version)
                    ) as changes:
                        async for changed in changes:
                            failures = 0
                            version = changed.version or version
                            self._take(changed)
                    # Not in a circle, should a server end each watch at once.
                    await self._tempo.pause(FIRST_PAUSE_S)
            except ApiError as error:
                failures += 1
                if error.status != GONE:
                    self._say(error)
            await self._tempo.pause(min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16)))

    async def list(self) -> str:
        """Ask for everything; from which version on a watch tells the rest. Raises ApiError."""
        try:
            if not self._selector:
                scale = await self._api.scale(self.workload)
                if not scale.selector:
                    raise ApiError(0, f"the scale of {self.workload} tells no selector")
                self._selector = scale.selector
            listed = await self._api.pods(self.workload.namespace, self._selector)
        except ApiError as error:
            self._say(error)
            raise
        self._say(None)
        self._take_list(listed)
        return listed.version

    def _take_list(self, listed: Listed) -> None:
        version = version_number(listed.version)
        if version >= self._floor:
            self._floor = version
            self.pods = {pod.metadata.uid: pod for pod in listed.pods}
            self._tell()

    def _take(self, changed: Changed) -> None:
        pod = changed.pod
        # A list that was asked for beside the watch knows more than the events before it.
        if pod is None or 0 < version_number(changed.version) <= self._floor:
            return
        if changed.change is Change.DELETED:
            self.pods.pop(pod.metadata.uid, None)
        else:
            self.pods[pod.metadata.uid] = pod
        self._tell()

    def _tell(self) -> None:
        self._on_change(self)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def _say(self, error: ApiError | None) -> None:
        """Log that the API cannot be asked, or can be again, once each time."""
        if error is not None and not self._away:
            logger.warning("kubernetes cannot be asked", workload=str(self.workload), error=str(error))
        elif error is None and self._away:
            logger.info("kubernetes can be asked again", workload=str(self.workload))
        self._away = error is not None
