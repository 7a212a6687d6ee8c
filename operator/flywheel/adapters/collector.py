"""The collector's register of experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from flywheel.ports import ClusterError

TIMEOUT = aiohttp.ClientTimeout(total=5.0)


class CollectorExperiments:
    """The Experiments port."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def put(self, collector: str, experiment: str, definition: Mapping[str, Any]) -> None:
        """Register. 409 means it counts by another definition, which no retry mends."""
        url = f"{collector.rstrip('/')}/v1/experiments/{quote(experiment, safe='')}"
        try:
            async with self._session.put(url, json=dict(definition), timeout=TIMEOUT) as response:
                status, text = response.status, (await response.content.read(1024)).decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(f"collector {url}: {str(error) or type(error).__name__}", status=0, retryable=True) from error
        if not 200 <= status <= 299:
            raise ClusterError(f"collector {url}: {status} {text}", status=status, retryable=status >= 500 or status in (404, 408, 429))
