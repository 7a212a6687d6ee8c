"""Deployments that somebody else runs: read one by one, for no watch of ours selects them."""

from __future__ import annotations

import aiohttp

from flywheel.adapters.http import get_json
from flywheel.adapters.kube_api import KubeApi, find
from flywheel.adapters.resources import object_path
from flywheel.plan.base import Manifest

TIMEOUT = aiohttp.ClientTimeout(total=5.0)
LOCKED = (": status 401", ": status 403")  # it answers, but only to who has its key
MAX_MODELS = 32


class AdoptedDeployments:
    """The AdoptedServers port over the Kubernetes API and the OpenAI API."""

    def __init__(self, api: KubeApi, session: aiohttp.ClientSession) -> None:
        self._api, self._session = api, session

    async def read(self, namespace: str, deployment: str, service: str) -> tuple[Manifest | None, Manifest | None]:
        """Two GETs."""
        found = await find(self._api, object_path("apps/v1", "Deployment", namespace, deployment))
        return found, await find(self._api, object_path("v1", "Service", namespace, service))

    async def models(self, address: str) -> tuple[tuple[str, ...] | None, str]:
        """What `/v1/models` lists."""
        answer, error = await get_json(self._session, f"{address}/v1/models", TIMEOUT)
        if answer is None:
            return ((), "") if error.endswith(LOCKED) else (None, error)
        listed = answer.get("data")
        entries = listed[:MAX_MODELS] if isinstance(listed, list) else []
        return tuple(one["id"][:256] for one in entries if isinstance(one, dict) and isinstance(one.get("id"), str)), ""
