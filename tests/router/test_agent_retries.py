"""The agent beside an Envoy that is slow to take new clusters, on fake time and without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from flywheel.runtime.router_agent.agent import Agent
from flywheel.runtime.router_agent.envoy import Taken
from flywheel.runtime.router_agent.settings import Settings
from flywheel.runtime.router_agent.store import Store
from flywheel.specs.envoy import Routes, format_routes
from tests.router.harness import QUIET, STABLE
from tests.runtime import faketime


class Api:
    """One ConfigMap and one EndpointSlice that never change."""

    def __init__(self, routes: Routes) -> None:
        self._routes: dict[str, Any] = {"metadata": {"name": "demo-routes"}, "data": {"routes.json": format_routes(routes)}}
        self._slice: dict[str, Any] = {
            "metadata": {"name": "stable"},
            "ports": [{"name": "http", "port": 8000}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
        }

    async def list(self, path: str, selector: Mapping[str, str]) -> tuple[dict[str, Any], str]:
        one = self._routes if path.endswith("configmaps") else self._slice
        return {one["metadata"]["name"]: one}, "1"

    async def watch(self, path: str, selector: Mapping[str, str], version: str) -> AsyncIterator[tuple[str, Any]]:
        await asyncio.sleep(1e6)
        yield "BOOKMARK", {"metadata": {"resourceVersion": version}}


class SlowEnvoy:
    """Takes files at once, but its new clusters are warm only after `warm_after` seconds."""

    def __init__(self, xds: Path, warm_after: float) -> None:
        self._xds, self._warm_after = xds, warm_after

    def _version(self, name: str) -> str:
        path = self._xds / name
        return str(json.loads(path.read_text())["version_info"]) if path.exists() else ""

    async def taken(self) -> Taken:
        return Taken(self._version("cds.json"), self._version("rds.json"), 0, 0)

    async def warm_clusters(self) -> frozenset[str]:
        return frozenset({STABLE.service}) if faketime.now() >= self._warm_after else frozenset()


async def served(tmp_path: Path, warm_after: float, until: float) -> bool:
    settings = Settings("demo", "demo", "demo-router-0", "http://nowhere", run=tmp_path, seed=tmp_path / "seed.json")
    envoy = SlowEnvoy(settings.xds, warm_after)
    agent = Agent(settings, Api(QUIET), envoy, Store(tmp_path))  # type: ignore[arg-type]
    task = asyncio.create_task(agent.run())
    await asyncio.sleep(until)
    status = await agent.status()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return status.accepted


def test_clusters_that_are_warm_only_after_the_agents_patience_are_routed_to_all_the_same(tmp_path: Path) -> None:
    assert not faketime.run(served(tmp_path / "early", warm_after=25, until=24))
    assert faketime.run(served(tmp_path / "late", warm_after=25, until=30))
