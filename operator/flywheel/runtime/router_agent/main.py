"""`prepare` writes Envoy's first files; `run` keeps them current until SIGTERM, then drains Envoy."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Sequence

from flywheel.runtime.router_agent.access_log import AccessLog, Limits
from flywheel.runtime.router_agent.agent import Agent
from flywheel.runtime.router_agent.envoy import Envoy
from flywheel.runtime.router_agent.kube import KubeApi
from flywheel.runtime.router_agent.server import Server
from flywheel.runtime.router_agent.settings import Settings, parse
from flywheel.runtime.router_agent.store import Store, read_seed, replace
from flywheel.specs.envoy import bootstrap, no_routes, render

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    command, settings = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if command == "prepare":
        prepare(settings)
    else:
        asyncio.run(run(settings))


def prepare(settings: Settings) -> None:
    """Everything Envoy needs to start: its log's directory, its configuration, and the newest routes known on this node."""
    directory = settings.log_directory
    directory.mkdir(parents=True, exist_ok=True)
    store = Store(settings.run)
    config = bootstrap(flywheel=settings.service, pod=settings.pod, log=str(directory / "access.jsonl"), directory=str(store.xds))
    replace(settings.run / "bootstrap.json", json.dumps(config))
    known, endpoints = store.load()
    routes = max((one for one in (known, read_seed(settings.seed)) if one is not None), key=lambda one: one.revision, default=None)
    if routes is None:
        store.swap(no_routes())
    else:
        store.swap(render(routes, endpoints, directory=str(store.xds), health_interval=settings.health_interval))
    log.info("prepared with %s", "no routes" if routes is None else f"revision {routes.revision}")


async def run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    api, envoy = KubeApi(settings.api, settings.credentials), Envoy(settings.admin)
    agent = Agent(settings, api, envoy, Store(settings.run))
    limits = Limits(settings.log_rotate_bytes, settings.log_rotate_seconds, settings.log_keep_bytes)
    access_log = AccessLog(settings.log_directory, envoy, limits)
    server = Server(agent, settings.port, access_log)
    await server.start()
    work = asyncio.create_task(agent.run())
    stopped = asyncio.create_task(stop.wait())
    care = asyncio.create_task(access_log.run(lambda: agent.routes))
    try:
        await asyncio.wait((work, stopped, care), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()  # an agent never ends by itself: raise what ended it
        if care.done():
            care.result()
        server.draining = True
        await drain(envoy, settings)
        await access_log.step(agent.routes)  # the last that can be said of this pod
    finally:
        care.cancel()
        work.cancel()
        stopped.cancel()
        await asyncio.gather(work, stopped, care, return_exceptions=True)
        await server.close()
        await envoy.close()
        await api.close()


async def drain(envoy: Envoy, settings: Settings) -> None:
    """Envoy is stopped after this process (it is a native sidecar): wait until it serves nobody."""
    log.info("draining for at most %g s", settings.drain_seconds)
    await asyncio.sleep(settings.drain_delay)
    await envoy.drain()
    deadline = asyncio.get_running_loop().time() + settings.drain_seconds
    while active := await envoy.active_requests():
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.5)
    log.info("drained, %d requests left", active)
