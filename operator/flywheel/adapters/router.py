"""What the router's replicas say of the routes they hold: each agent is asked by its pod IP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp

from flywheel.adapters.http import get_json, host
from flywheel.plan.rollout_observed import Acknowledgement

PORT = 9903
TIMEOUT = aiohttp.ClientTimeout(total=1.0)


class AgentRouter:
    """The TrafficRouter port over the agents' `/status`."""

    def __init__(self, session: aiohttp.ClientSession, port: int = PORT) -> None:
        self._session, self._port = session, port

    async def acknowledgements(self, pods: Mapping[str, str]) -> tuple[Acknowledgement, ...]:
        """Ask all at once; a silent replica has accepted nothing."""
        return tuple(await asyncio.gather(*(self._ask(pod, ip) for pod, ip in sorted(pods.items()))))

    async def _ask(self, pod: str, ip: str) -> Acknowledgement:
        if not ip:
            return Acknowledgement(pod, 0, accepted=False, error="the pod has no address yet")
        answer, error = await get_json(self._session, f"http://{host(ip)}:{self._port}/status", TIMEOUT)
        if answer is None:
            return Acknowledgement(pod, 0, accepted=False, error=error)
        revision, accepted, said = answer.get("revision"), answer.get("accepted"), answer.get("error")
        known = revision if isinstance(revision, int) and not isinstance(revision, bool) and revision >= 0 else 0
        return Acknowledgement(pod, known, accepted=accepted is True and known == revision, error=str(said)[:1024] if said else None)
