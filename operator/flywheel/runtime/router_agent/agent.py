"""Routes in, discovery files out: newest revision only, clusters before routes, and an answer to "has Envoy taken it?"."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from flywheel.runtime.router_agent.envoy import Envoy, Taken
from flywheel.runtime.router_agent.kube import Json, KubeApi, follow
from flywheel.runtime.router_agent.services import Services
from flywheel.runtime.router_agent.settings import Settings
from flywheel.runtime.router_agent.store import Store, read_seed
from flywheel.specs.envoy import Routes, RoutesError, parse_routes, render

log = logging.getLogger(__name__)
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 10.0  # for Envoy to take new clusters: their first health checks belong to it
RETRY_SECONDS = 1.0  # after that patience: an Envoy that is busy gets there in the end
UNPREPARED = ("", "0")  # versions of "no routes"


@dataclass(frozen=True)
class Status:
    """The acknowledgement (ARCHITECTURE §3)."""

    revision: int
    accepted: bool
    error: str | None

    def body(self) -> dict[str, Any]:
        return asdict(self)


class Agent:
    def __init__(self, settings: Settings, api: KubeApi, envoy: Envoy, store: Store) -> None:
        self._settings, self._api, self._envoy, self._store = settings, api, envoy, store
        self._wake = asyncio.Event()
        self._keep: list[Routes] = []  # earlier routes whose clusters may still carry streams and retries
        self._offered_at = 0.0
        self._held_clusters = ""  # version of the clusters that Envoy is known to serve
        self._seen: Taken | None = None  # what Envoy said last
        self._refusal: str | None = None  # why the newest offer was not followed
        self._failure: str | None = None  # why Envoy does not serve what was written
        self.counts: Counter[str] = Counter()
        self.reaction_seconds = 0.0
        known_routes, known_endpoints = store.load()
        self.services = Services(settings.namespace, api, known_endpoints, self._wake.set, self._broken)
        found = [one for one in (known_routes, read_seed(settings.seed)) if one is not None]
        self.routes = max(found, key=lambda one: one.revision, default=None)
        if self.routes is not None:
            self._wake.set()

    async def run(self) -> None:
        """Follow the ConfigMap and apply, for ever."""
        name = f"{self._settings.service}-routes"
        path = f"/api/v1/namespaces/{self._settings.namespace}/configmaps"
        async with asyncio.TaskGroup() as group:
            self.services.start_in(group)
            group.create_task(follow(self._api, path, {"fieldSelector": f"metadata.name={name}"}, self._config_maps, self._broken))
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self.routes is not None:
                    await self._apply(self.routes)

    def offer(self, text: str) -> None:
        """Take routes that are newer than the newest seen; say why others are not taken."""
        try:
            routes = parse_routes(text)
        except RoutesError as error:
            return self._refuse("invalid", str(error))
        seen = self.routes
        if seen is None or routes.revision > seen.revision:
            if seen is not None:
                self._keep.append(seen)
                asyncio.get_running_loop().call_later(self._settings.linger_seconds, self._let_go, seen)
            self.routes, self._refusal, self._failure = routes, None, None
            self._offered_at = time.perf_counter()
            self._wake.set()
        elif routes.revision < seen.revision:
            self._refuse("ignored", f"revision {routes.revision} is older than {seen.revision}, which was seen before")
        elif routes != seen:
            self._refuse("ignored", f"revision {routes.revision} was seen before with other content: a change needs a new revision")
        else:
            self._refusal = None

    async def status(self) -> Status:
        """Asked of Envoy at this moment, never remembered."""
        if self.routes is None:
            return Status(0, False, self._refusal or "no routes yet")
        taken = await self._envoy.taken()
        accepted = taken is not None and taken.routes == str(self.routes.revision)
        waiting = "Envoy does not answer" if taken is None else f"Envoy serves revision {taken.routes or 'none'}"
        return Status(self.routes.revision, accepted, self._refusal or (None if accepted else self._failure or waiting))

    async def ready(self) -> bool:
        taken = await self._envoy.taken()
        return taken is not None and taken.routes not in UNPREPARED

    async def _apply(self, routes: Routes) -> None:
        keep = tuple(self._keep)
        arms = {arm.service: arm for one in (*keep, routes) for arm in one.arms}
        self.services.follow(arms.values())
        if not await self.services.known(routes.arms, unless=lambda: self.routes is not routes):
            return
        endpoints = self.services.endpoints()
        self._store.save(routes, endpoints)
        directory = str(self._store.xds)
        files = render(routes, endpoints, keep=keep, directory=directory, health_interval=self._settings.health_interval)
        rds, cds = files.pop("rds.json"), files["cds.json"]
        held = self._held_clusters == cds["version_info"]  # a change of weight alone waits for nothing
        before = self._seen if held else await self._envoy.taken()
        self._store.swap(files)
        if held or before is None or await self._clusters_taken(routes, cds, before):
            self._store.swap({"rds.json": rds})
            self._swapped(routes)
            self._held_clusters = cds["version_info"]
            if before is not None and await self._routes_taken(routes, before):
                self._store.forget(files)

    def _swapped(self, routes: Routes) -> None:
        if self._offered_at:
            self.reaction_seconds = time.perf_counter() - self._offered_at
            self.counts["applied"] += 1
            self._offered_at = 0.0
            log.info("revision %d written after %.1f ms", routes.revision, self.reaction_seconds * 1000)

    async def _clusters_taken(self, routes: Routes, cds: Json, before: Taken) -> bool:
        """Routes must not name a cluster that Envoy doesn't serve yet: such a request would fail."""
        wanted = frozenset(cluster["name"] for cluster in cds["resources"])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while self.routes is routes:
            taken = await self._envoy.taken()
            if taken is None or (taken.clusters == cds["version_info"] and wanted <= await self._envoy.warm_clusters()):
                return True
            if taken.clusters_refused > before.clusters_refused:
                return self._fail(f"Envoy rejected the clusters of revision {routes.revision} and goes on with {taken.routes or 'none'}")
            if loop.time() > deadline:
                loop.call_later(RETRY_SECONDS, self._wake.set)  # nothing else may ever change
                return self._fail(f"Envoy has not made the clusters of revision {routes.revision} ready in {PATIENCE_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _routes_taken(self, routes: Routes, before: Taken) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while self.routes is routes and loop.time() < deadline:
            self._seen = taken = await self._envoy.taken()
            if taken is not None and taken.routes == str(routes.revision):
                self._failure = None
                return True
            if taken is not None and taken.routes_refused > before.routes_refused:
                return self._fail(f"Envoy rejected revision {routes.revision} and goes on with {taken.routes or 'none'}")
            await asyncio.sleep(POLL_SECONDS)
        return False

    def _config_maps(self, found: dict[str, Json]) -> None:
        name = f"{self._settings.service}-routes"
        text = (found.get(name, {}).get("data") or {}).get("routes.json")
        if text is None:
            self._refuse("invalid", f"ConfigMap {name} with key routes.json does not exist")
        else:
            self.offer(text)

    def _let_go(self, routes: Routes) -> None:
        self._keep.remove(routes)
        self._wake.set()

    def _refuse(self, result: str, reason: str) -> None:
        self.counts[result] += 1
        self._refusal = reason
        log.warning("routes not followed: %s", reason)

    def _fail(self, reason: str) -> bool:
        self.counts["rejected"] += 1
        self._failure = reason
        log.error("%s", reason)
        return False

    def _broken(self, _: str) -> None:
        self.counts["reconnects"] += 1
