"""The operator process: `python -m flywheel.runtime`.

Health server, caches and kopf's watch start at once, on a standby too; passes begin when the caches are complete and the
lease is ours. On SIGTERM kopf ends, passes that run are finished, the lease is released. A SIGKILL at any moment is as good:
nothing is kept but what the API server has.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

import aiohttp
from kubernetes.aio.client.configuration import Configuration

from flywheel.adapters.kube_api import KubeApi, load_configuration
from flywheel.plan.base import MANAGER
from flywheel.runtime.assembly import Operator, outside
from flywheel.runtime.clock import SystemClock
from flywheel.runtime.handlers import kopf_registry, run_kopf
from flywheel.runtime.health import HealthServer
from flywheel.runtime.leader import Leader
from flywheel.runtime.logs import configure_logs
from flywheel.runtime.metrics import Metrics
from flywheel.runtime.settings import Settings, load_settings

_log = logging.getLogger(__name__)
DRAIN = 20.0
# Objects that come and go between two collections of garbage: Python's defaults (700, 10, 10) walk the caches so often that reading
# JSON beside them takes twice as long.
GARBAGE_AFTER = (10_000, 20, 20)


def die(why: str) -> NoReturn:
    """End at once, without clean-up: whoever leads now must not meet a write of ours."""
    _log.critical("ending: %s", why)
    logging.shutdown()
    os._exit(3)


async def run(settings: Settings) -> None:
    """The life of the process."""
    metrics = Metrics()
    configuration = await load_configuration()
    api = KubeApi(configuration, on_request=metrics.request, user_agent=f"{MANAGER} ({settings.identity})")
    async with aiohttp.ClientSession(headers={"User-Agent": MANAGER}) as session:
        world, experiments = outside(api, session, settings.defaults, settings.gpu_budget)
        clock = SystemClock()
        operator = Operator(api, world=world, experiments=experiments, clock=clock, metrics=metrics, namespaces=settings.namespaces)
        leader = Leader(api, namespace=settings.namespace, identity=settings.identity, clock=clock, on_lost=die, pod=settings.pod)
        if settings.leader_election:
            api.fence = leader.fence
        health = HealthServer(
            port=settings.port,
            alive=operator.alive,
            # A standby is as ready as it can be: a roll-out of the Deployment must not wait for the lease.
            ready=lambda: None if operator.synced.is_set() else "the caches are not complete",
            registry=metrics.registry,
        )
        await health.start()
        try:
            await _live(settings, operator, _lead(settings, operator, leader, metrics), configuration)
        finally:
            await health.stop()
            if settings.leader_election:
                await leader.release()
            await api.close()


async def _lead(settings: Settings, operator: Operator, leader: Leader, metrics: Metrics) -> None:
    """Stand by with warm caches until the lease is ours, then lead for ever."""
    if settings.leader_election:
        await leader.acquire()

    async def begin() -> None:
        await operator.lead()
        metrics.leading(True)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(begin())
        tasks.create_task(leader.hold() if settings.leader_election else _for_ever())


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _live(settings: Settings, operator: Operator, leading: Coroutine[Any, Any, None], configuration: Configuration) -> None:
    stop = asyncio.Event()

    async def wind_down() -> None:
        operator.drain()
        stop.set()  # or kopf would wait five seconds for its own waiter of this event

    registry = kopf_registry(configuration, operator.cache, start=operator.sync, stop=wind_down)
    passes = asyncio.create_task(operator.loop.run(), name="loop")
    lease = asyncio.create_task(leading, name="lease")
    forever = [asyncio.create_task(informer.run(), name=str(informer)) for informer in operator.informers]
    forever += [asyncio.create_task(optional.run(), name=str(optional)) for optional in operator.optional]
    forever.append(asyncio.create_task(operator.relist(), name="relist"))
    for task in (passes, lease, *forever):
        task.add_done_callback(lambda done: _ended(done, operator, stop))
    await asyncio.sleep(0)  # kopf leaves alone what has begun before it
    await run_kopf(registry, settings.namespaces, stop)
    operator.drain()
    _, unfinished = await asyncio.wait([passes], timeout=DRAIN)
    for task in (*unfinished, lease, *forever):  # the lease is held until the last pass has ended
        task.cancel()
    results = await asyncio.gather(passes, lease, *forever, return_exceptions=True)
    failures = [r for r in results if isinstance(r, Exception)]
    if failures:
        raise failures[0]


def _ended(task: asyncio.Task[None], operator: Operator, stop: asyncio.Event) -> None:
    """Nothing here ever ends by itself: a dead watch or loop takes the process along, and Kubernetes starts another."""
    if not task.cancelled() and (task.exception() is not None or not operator.loop.stopping):
        _log.critical("%s has died: %r", task.get_name(), task.exception())
        stop.set()


def main() -> None:
    """Entry point."""
    try:
        settings = load_settings()
    except ValueError as error:
        sys.exit(str(error))
    configure_logs(settings.log_level)
    gc.set_threshold(*GARBAGE_AFTER)
    asyncio.run(run(settings))
