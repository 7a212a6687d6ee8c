"""Envoy's admin interface: what it has taken, and how it is told to drain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

_FILTER = r"^(cluster_manager\.cds|http\.users\.rds\.routes)\.(version_text|update_rejected)$"
_LOGGED = r"^(logged\.requests|server\.uptime$|filesystem\.write_failed$)"
_SAMPLE = re.compile(r"envoy_(logged_requests|server_uptime|filesystem_write_failed)\{(.*)\} (\d+)")
_LABEL = re.compile(r'(\w+)="([^"\\]*)"')


@dataclass(frozen=True)
class Taken:
    """Versions Envoy serves (empty: none yet), and how many it has refused."""

    clusters: str
    routes: str
    clusters_refused: int
    routes_refused: int


@dataclass(frozen=True)
class Counts:
    """What one life of Envoy has logged."""

    uptime: float
    requests: Mapping[tuple[str, str], int]
    """By experiment and slice; "" where there is none."""
    failed_writes: int


class Envoy:
    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2))

    async def close(self) -> None:
        await self._session.close()

    async def taken(self) -> Taken | None:
        """None while Envoy doesn't answer."""
        text = await self._get("/stats", {"filter": _FILTER})
        if text is None:
            return None
        stats = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

        def of(source: str) -> tuple[str, int]:
            return stats.get(f"{source}.version_text", "").strip('"'), int(stats.get(f"{source}.update_rejected", 0))

        (clusters, clusters_refused), (routes, routes_refused) = of("cluster_manager.cds"), of("http.users.rds.routes")
        return Taken(clusters, routes, clusters_refused, routes_refused)

    async def warm_clusters(self) -> frozenset[str]:
        """Clusters that serve; one still being warmed is not among them."""
        text = await self._get("/clusters") or ""
        return frozenset(line.split("::", 1)[0] for line in text.splitlines())

    async def active_requests(self) -> int:
        """0 also when Envoy is gone."""
        text = await self._get("/stats", {"filter": r"^http\.users\.downstream_rq_active$"}) or ""
        return int(text.partition(": ")[2] or 0)

    async def logged(self) -> Counts | None:
        """None while Envoy doesn't answer."""
        text = await self._get("/stats/prometheus", {"filter": _LOGGED})
        if text is None:
            return None
        uptime, failed, requests = 0, 0, {}
        for line in text.splitlines():
            if (sample := _SAMPLE.fullmatch(line)) is None:
                continue
            name, labels, value = sample[1], dict(_LABEL.findall(sample[2])), int(sample[3])
            if name == "logged_requests":
                requests[labels.get("experiment", ""), labels.get("slice", "")] = value
            elif name == "server_uptime":
                uptime = value
            else:
                failed = value
        return Counts(uptime, requests, failed)

    async def reopen_logs(self) -> bool:
        """What was logged since the file was renamed and not yet written goes to the new one."""
        try:
            async with self._session.post(f"{self._url}/reopen_logs") as reply:
                return reply.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def drain(self) -> None:
        """Ask clients to go elsewhere; nothing is closed."""
        try:
            async with self._session.post(f"{self._url}/drain_listeners?graceful&skip_exit"):
                pass
        except (aiohttp.ClientError, TimeoutError):
            return

    async def _get(self, path: str, params: dict[str, str] | None = None) -> str | None:
        try:
            async with self._session.get(self._url + path, params=params) as reply:
                return await reply.text() if reply.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None
