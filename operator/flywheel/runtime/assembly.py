"""The parts of the operator and how they hang together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import aiohttp

from flywheel.adapters.adopted import AdoptedDeployments
from flywheel.adapters.cluster import KubernetesCluster
from flywheel.adapters.collector import CollectorExperiments
from flywheel.adapters.discovery import OptionalKind
from flywheel.adapters.kube_api import KubeApi
from flywheel.adapters.kueue import KueueQueues
from flywheel.adapters.prometheus import PrometheusMetrics
from flywheel.adapters.prometheus_shared import SharedPrometheus
from flywheel.adapters.router import AgentRouter
from flywheel.adapters.trainer import TrainerPoll
from flywheel.adapters.watch import ApiSource, Informer, take_list
from flywheel.api.base import API_VERSION
from flywheel.api.training_run import Backend
from flywheel.plan.base import MANAGER, Defaults
from flywheel.ports import Clock, ClusterError, Experiments, MetricsProvider
from flywheel.runtime.cache import Cache, KindSink, slim
from flywheel.runtime.gpu_queue import GpuQueue
from flywheel.runtime.keys import CHILDREN, KINDS, OPTIONAL, PARTS, Key
from flywheel.runtime.loop import Loop
from flywheel.runtime.metrics import Metrics
from flywheel.runtime.object_metrics import ObjectMetrics
from flywheel.runtime.observe import World
from flywheel.runtime.planners import planners
from flywheel.runtime.reconcile import Reconciler

_log = logging.getLogger(__name__)
SELECTOR = f"app.kubernetes.io/managed-by={MANAGER}"
RELIST = 300.0  # the five kinds are listed again that often, whatever kopf's watch has told meanwhile
MAX_SILENCE = 180.0  # of the loop; then the liveness probe fails


def outside(api: KubeApi, session: aiohttp.ClientSession, defaults: Defaults, gpu_budget: int | None = None) -> tuple[World, Experiments]:
    """Everything the operator talks to besides the API server."""
    providers: dict[str, MetricsProvider] = {}

    def provider(address: str) -> MetricsProvider:
        if address not in providers:
            providers[address] = SharedPrometheus(PrometheusMetrics(session, address))
        return providers[address]

    world = World(
        defaults, provider, AgentRouter(session), TrainerPoll(session), gpus=GpuQueue(gpu_budget), adopted=AdoptedDeployments(api, session)
    )
    return world, CollectorExperiments(session)


class Operator:
    """Caches, loop and passes of one scope (some namespaces, or all)."""

    def __init__(
        self, api: KubeApi, *, world: World, experiments: Experiments, clock: Clock, metrics: Metrics, namespaces: tuple[str, ...] = ()
    ) -> None:
        self.cache = Cache(lambda key: self.loop.wake(key))
        self.cache.listeners.append(world.gpus.seen)
        objects = ObjectMetrics(clock, shown=lambda: self.opened)
        self.cache.listeners.append(objects.seen)
        world.gpus.wakes(lambda key: self.loop.wake(key))
        world = replace(world, queues=world.queues or KueueQueues(api), backends=self._backends)
        reconciler = Reconciler(self.cache, KubernetesCluster(api), experiments, clock, metrics, planners(world))
        self.loop = Loop(reconciler.reconcile, clock=clock, watcher=Log(metrics), on_error=reconciler.failed)
        scopes: tuple[str | None, ...] = namespaces or (None,)
        sources = [
            (kind, scope, ApiSource(api, version, kind, namespace=scope, selector=SELECTOR, metadata_only=kind in PARTS, trim=slim))
            for kind, version in (CHILDREN | PARTS).items()
            for scope in scopes
        ]
        turn = asyncio.Semaphore(2)  # lists under way at a time: while the server makes one, the other is read
        self.informers = [Informer(source, KindSink(self.cache, kind, scope), turn=turn) for kind, scope, source in sources]
        self.optional = [self._optional(api, kind, version, scopes) for kind, version in OPTIONAL.items()]
        self._own = [
            (ApiSource(api, API_VERSION, kind, namespace=scope, trim=slim), KindSink(self.cache, kind, scope))
            for kind in KINDS
            for scope in scopes
        ]
        self.opened = False  # passes run
        self.synced = asyncio.Event()  # the caches are complete; on a standby too
        self._clock = clock
        # A standby's loop stands still, with everything queued: that is no backlog.
        waiting, unseen = (lambda: self.loop.depth if self.opened else 0), (lambda: self.loop.unseen if self.opened else 0)
        metrics.watch_loop(waiting, unseen, self._ticked)
        metrics.registry.register(objects)

    async def sync(self) -> None:
        """All caches complete."""
        await self._list_insistently()
        for informer in self.informers:
            await informer.synced.wait()
        for optional in self.optional:
            await optional.known()
        self.synced.set()
        _log.info("caches are complete: %d objects of ours", len(self.cache.keys(KINDS)))

    async def lead(self) -> None:
        """Begin with the passes, as soon as the caches are complete."""
        if self.synced.is_set():
            # A standby that was in step all along: what decisions are recorded in is read once more, should its watch have been silent.
            await self._list_insistently()
        await self.synced.wait()
        self.opened = True
        self.loop.open()

    async def _list_insistently(self) -> None:
        while True:
            try:
                return await self._list_own()
            except ClusterError as error:
                hint = "; are the CRDs installed (kubectl apply --server-side -f crds/)?" if error.status == 404 else ""
                _log.warning("can't list the operator's kinds yet: %s%s", error, hint)
                await asyncio.sleep(2)

    async def relist(self) -> None:
        """List the five kinds again and again: kopf's watch does not tell what was deleted while it was interrupted."""
        while True:
            await asyncio.sleep(RELIST)
            try:
                await self._list_own()
            except ClusterError as error:
                _log.warning("listing again: %s", error)

    def drain(self) -> None:
        """No further pass; the running ones to their end."""
        self.opened = False
        self.loop.stop()

    def alive(self) -> str | None:
        """What is wrong with the loop."""
        silence = asyncio.get_running_loop().time() - self.loop.last_tick
        return f"the loop has not ticked for {silence:.0f} s" if self.opened and silence > MAX_SILENCE else None

    def _optional(self, api: KubeApi, kind: str, version: str, scopes: tuple[str | None, ...]) -> OptionalKind:
        def watch(scope: str | None) -> tuple[Callable[[], Informer], KindSink]:
            sink = KindSink(self.cache, kind, scope)
            return lambda: Informer(ApiSource(api, version, kind, namespace=scope, selector=SELECTOR), sink), sink

        return OptionalKind(api, version, kind, [watch(scope) for scope in scopes])

    def _backends(self) -> frozenset[Backend]:
        both: frozenset[Backend] = frozenset({"Job", "JobSet"})
        return both if all(optional.available for optional in self.optional) else both - {"JobSet"}

    async def _list_own(self) -> None:
        for source, sink in self._own:
            await take_list(source, sink)

    def _ticked(self) -> float:
        if not self.loop.last_tick:
            return 0.0  # a standby's loop does not run
        return self._clock.now().timestamp() - (asyncio.get_running_loop().time() - self.loop.last_tick)


class Log:
    """Counts passes, and writes down those that failed."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def passed(self, key: Key, seconds: float, error: Exception | None) -> None:
        self._metrics.passed(key, seconds, error)
        extra = {"object": str(key), "seconds": round(seconds, 3)}
        if isinstance(error, ClusterError):
            _log.log(logging.DEBUG if error.status == 409 else logging.WARNING, "pass failed: %s", error, extra=extra)
        elif error is not None:
            _log.error("pass failed: %s", error, exc_info=error, extra=extra)
        else:
            _log.debug("pass", extra=extra)
