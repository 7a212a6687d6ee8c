"""A kind that not every cluster serves: watched while it is there, noticed when it comes or goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from flywheel.adapters.kube_api import KubeApi, find
from flywheel.adapters.resources import collection_path, resource_of
from flywheel.adapters.watch import Informer, Sink
from flywheel.ports import ClusterError

_log = logging.getLogger(__name__)
LOOK_AGAIN = 15.0  # seconds: one small request, so that whoever installs the CRD needs no patience
Watch = tuple[Callable[[], Informer], Sink]
ANSWER_WITHIN = 15.0  # seconds that the operator's start waits to know


class OptionalKind:
    """One kind by API version, with an informer for each namespace that is looked at (or one for all)."""

    def __init__(self, api: KubeApi, api_version: str, kind: str, watches: Sequence[Watch], *, every: float = LOOK_AGAIN) -> None:
        self._api, self._api_version, self._kind, self._watches, self._every = api, api_version, kind, watches, every
        self._plural = resource_of(collection_path(api_version, kind, None))
        self._running: dict[asyncio.Task[None], Informer] = {}
        self._looked = asyncio.Event()

    def __str__(self) -> str:
        return f"watch of {self._api_version} {self._kind}, if there is any"

    @property
    def available(self) -> bool:
        """Whether the cluster serves the kind and all of its objects are known."""
        return bool(self._running) and all(informer.synced.is_set() for informer in self._running.values())

    async def known(self) -> None:
        """Until it is known whether the kind is there, and if so its objects; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._looked.wait()
                for informer in self._running.values():
                    await informer.synced.wait()

    async def run(self) -> None:
        """Until cancelled. Raises what an informer raises: nothing here may die in silence."""
        try:
            while True:
                await self._look()
                if self._running:
                    done, _ = await asyncio.wait(self._running, timeout=self._every, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                else:
                    await asyncio.sleep(self._every)
        finally:
            await self._stop()

    async def _look(self) -> None:
        try:
            there = await self._served()
        except ClusterError as error:
            _log.log(logging.INFO if error.retryable else logging.WARNING, "is %s %s there? %s", self._api_version, self._kind, error)
            return  # nothing is known: what was known holds
        if there and not self._running:
            _log.info("%s %s is there: it is watched from now on", self._api_version, self._kind)
            for make, _ in self._watches:
                informer = make()
                self._running[asyncio.create_task(informer.run(), name=str(informer))] = informer
        elif not there and self._running:
            _log.warning("%s %s is gone: its CRD was removed", self._api_version, self._kind)
            await self._stop()
            for _, sink in self._watches:
                sink.keep(set(), sink.present())
        self._looked.set()

    async def _served(self) -> bool:
        found = await find(self._api, f"/apis/{self._api_version}")
        return found is not None and any(resource["name"] == self._plural for resource in found.get("resources") or ())

    async def _stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()
