"""List, then watch, for ever: a stream of changes that survives everything a network does.

client-python has an informer for threads only, and its async `Watch` neither lists again after 410 nor notices a silent
connection; both are the point here. Changes go to a sink synchronously and in the server's order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from flywheel.adapters.kube_api import KubeApi
from flywheel.adapters.resources import collection_path
from flywheel.plan.base import Manifest
from flywheel.ports import ClusterError

_log = logging.getLogger(__name__)
SERVER_TIMEOUT = 300.0  # the server ends a watch after that; we go on from the last version
INACTIVITY = 90.0  # bookmarks come every minute, if any: a longer silence may be a dead connection, and asking again is cheap
HUNG_UP = 5.0  # a watch that ends earlier, without an event, was refused in all but name
PAGE = 100  # objects; of a list, one page is in memory in full, and beside it at most what was kept of the page before
PARTIAL = "g=meta.k8s.io;v=v1"
JSON = "application/json"
MAX_BACKOFF = 30.0


class Sink(Protocol):
    """Where the objects go."""

    def put(self, body: Manifest) -> None:
        """An object as it stands now."""

    def remove(self, body: Manifest) -> None:
        """An object that is gone."""

    def present(self) -> set[str]:
        """The uids held now."""

    def keep(self, listed: set[str], before: set[str]) -> None:
        """After a complete list, by uids: whatever of `before` (held when it was asked for) isn't in it is gone."""


class Source(Protocol):
    """One kind in one scope."""

    def pages(self) -> AsyncIterator[tuple[list[Manifest], str]]:
        """All objects, page by page, and the version of the list."""

    def watch(self, version: str) -> AbstractAsyncContextManager[AsyncIterator[Manifest]]:
        """Events since a version."""


class ApiSource:
    """One kind of the API server, filtered by the server."""

    def __init__(
        self,
        api: KubeApi,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        selector: str = "",
        metadata_only: bool = False,
        trim: Callable[[Manifest], Manifest] = lambda body: body,
    ) -> None:
        self._api, self._api_version, self._kind = api, api_version, kind
        self._form = PARTIAL if metadata_only else ""
        self._trim = trim
        self._path = collection_path(api_version, kind, namespace)
        self._query = [("labelSelector", selector)] if selector else []

    def __str__(self) -> str:
        return self._path

    async def pages(self) -> AsyncIterator[tuple[list[Manifest], str]]:
        token = ""
        while True:
            query = [*self._query, ("limit", str(PAGE)), *([("continue", token)] if token else [])]
            accept = f"application/json;as=PartialObjectMetadataList;{self._form}" if self._form else JSON
            page = await self._api.request("GET", self._path, query=query, seconds=60, accept=accept)
            # Items of a list carry neither apiVersion nor kind.
            items = [self._trim({**item, "apiVersion": self._api_version, "kind": self._kind}) for item in page.get("items") or ()]
            token, version = page["metadata"].get("continue") or "", page["metadata"]["resourceVersion"]
            del page  # while the items are used, which have little of it
            yield items, version
            if not token:
                return

    def watch(self, version: str) -> AbstractAsyncContextManager[AsyncIterator[Manifest]]:
        query = [*self._query, ("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version)]
        query.append(("timeoutSeconds", str(int(SERVER_TIMEOUT * random.uniform(0.8, 1.2)))))  # noqa: S311 - spreads reconnects
        accept = f"application/json;as=PartialObjectMetadata;{self._form}" if self._form else JSON
        return self._typed(self._api.stream(self._path, query=query, seconds=SERVER_TIMEOUT * 1.5, accept=accept))

    @contextlib.asynccontextmanager
    async def _typed(self, stream: AbstractAsyncContextManager[AsyncIterator[Manifest]]) -> AsyncIterator[AsyncIterator[Manifest]]:
        async with stream as events:
            yield self._named(events) if self._form else events

    async def _named(self, events: AsyncIterator[Manifest]) -> AsyncIterator[Manifest]:
        """Metadata alone comes as an object of a kind of its own."""
        async for event in events:
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                event["object"] |= {"apiVersion": self._api_version, "kind": self._kind}
            yield event


async def take_list(source: Source, sink: Sink) -> str:
    """Put a complete list into the sink, page by page as it comes; returns its version. One that breaks off removes nothing."""
    before, listed, version = sink.present(), set[str](), ""
    async for items, of_list in source.pages():
        version = of_list
        for body in items:
            sink.put(body)
            listed.add(body["metadata"]["uid"])
    sink.keep(listed, before)
    return version


class Informer:
    """Keeps a sink equal to what the server holds."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        name: str = "",
        inactivity: float = INACTIVITY,
        jitter: Callable[[], float] = random.random,
        turn: asyncio.Semaphore | None = None,
    ) -> None:
        self._source, self._sink, self._name = source, sink, name or str(source)
        self._inactivity, self._jitter = inactivity, jitter
        self._turn = turn or asyncio.Semaphore()  # shared by those whose lists must not all be under way at once
        self._version: str | None = None
        self._failures = 0
        self.synced = asyncio.Event()

    def __str__(self) -> str:
        return f"watch of {self._name}"

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if self._version is None:
                    await self._list()
                healthy = await self._follow()
                self._failures = 0 if healthy else self._failures + 1
            except ClusterError as error:
                if error.status == 410:
                    _log.info("%s: version expired, listing again", self._name)
                    self._version = None
                self._failures += 1
                _log.log(logging.INFO if self._failures < 3 else logging.WARNING, "%s: %s", self._name, error)
                if error.retry_after:
                    await asyncio.sleep(error.retry_after)
            await asyncio.sleep(self._backoff())

    def _backoff(self) -> float:
        return min(MAX_BACKOFF, 0.1 * 2 ** min(self._failures, 10)) * (0.5 + self._jitter() / 2) if self._failures else 0.0

    async def _list(self) -> None:
        async with self._turn:
            self._version = await take_list(self._source, self._sink)
        self.synced.set()

    async def _follow(self) -> bool:
        """Apply events until the stream ends. False: the server hung up at once, and must not be asked in a storm.

        A quiet watch is a healthy one: bookmarks are a courtesy, and an older etcd lets the server give none.
        """
        heard, began = False, asyncio.get_running_loop().time()
        assert self._version is not None
        try:
            async with asyncio.timeout(self._inactivity) as deadline, self._source.watch(self._version) as events:
                async for event in events:
                    deadline.reschedule(asyncio.get_running_loop().time() + self._inactivity)
                    self._take(event)
                    heard = True
        except TimeoutError:
            _log.debug("%s: silent for %.0f s, connecting again", self._name, self._inactivity)
        return heard or asyncio.get_running_loop().time() - began >= HUNG_UP

    def _take(self, event: Manifest) -> None:
        kind, body = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            code = int(body.get("code") or 500)
            raise ClusterError(f"watch: {code} {body.get('message', '')}", status=code, retryable=True)
        if kind in ("ADDED", "MODIFIED"):
            self._sink.put(body)
        elif kind == "DELETED":
            self._sink.remove(body)
        # Any event, a bookmark too, moves the version to go on from; a partial object without one does not.
        self._version = (body.get("metadata") or {}).get("resourceVersion") or self._version
