"""What a running trainer says of itself, polled by pod IP: trainer pods hold no API token to report with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from flywheel.adapters.http import get_json, host

PORT = 8080
TIMEOUT = aiohttp.ClientTimeout(total=1.0)


class TrainerPoll:
    """The TrainerProgress port."""

    def __init__(self, session: aiohttp.ClientSession, port: int = PORT) -> None:
        self._session, self._port = session, port

    async def progress(self, pod_ip: str) -> Mapping[str, Any] | None:
        """The trainer's /progress; None while it doesn't answer (it is loading, saving or gone)."""
        answer, _ = await get_json(self._session, f"http://{host(pod_ip)}:{self._port}/progress", TIMEOUT)
        return answer
