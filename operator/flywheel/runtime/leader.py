"""Leader election by a Lease: one replica reconciles, the others stand by.

client-python's election compares wall clocks of two machines and writes whole-second times; this one does as client-go
does: a lease has expired when *we* have watched it stand still for its duration. Deadlines are nested, so that a
leader that can't renew stops before another may start: request timeout < renew deadline < lease duration.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
from collections.abc import Callable

from flywheel.adapters.kube_api import KubeApi
from flywheel.adapters.resources import collection_path, object_path
from flywheel.plan.base import Manifest
from flywheel.ports import Clock, ClusterError, Conflict

_log = logging.getLogger(__name__)
NAME = "flywheel-operator"
DURATION, RENEW_DEADLINE, RETRY, REQUEST_TIMEOUT = 15.0, 10.0, 2.0, 4.0
_KIND = ("coordination.k8s.io/v1", "Lease")


class Leader:
    """This replica's claim to the lease."""

    def __init__(self, api: KubeApi, *, namespace: str, identity: str, clock: Clock, on_lost: Callable[[str], None], pod: str = "") -> None:
        self._api, self._namespace, self._identity, self._clock, self._on_lost = api, namespace, identity, clock, on_lost
        self._lease: Manifest | None = None
        self._seen: tuple[str, float] = ("", 0.0)  # version of the lease and when we first saw it
        # Containers of one pod never run at once: a holder that was in our pod before us is dead, and its lease is not waited for.
        self._before_us = f"{pod}_" if pod else None
        self._renewed: float | None = None  # when the attempt that last gave us the lease began

    async def acquire(self) -> None:
        """Until this replica leads."""
        started = self._now()
        while not await self._try():
            await asyncio.sleep(RETRY * random.uniform(1.0, 1.2))  # noqa: S311 - spreads the rivals
            started = self._now()
        self._renewed = started
        _log.info("leading as %s", self._identity)

    async def hold(self) -> None:
        """Renew for ever; `on_lost` (which ends the process) when that fails for too long or another leads."""
        while True:
            await asyncio.sleep(RETRY)
            started = self._now()  # others count from a moment after this one
            try:
                if not await self._try():
                    return self._on_lost(f"the lease is held by {self._holder()}")
                self._renewed = started
            except ClusterError as error:
                _log.warning("renewing the lease: %s", error)
            if (why := self.fence()) is not None:
                return self._on_lost(why)

    def fence(self) -> str | None:
        """Why nothing may be written now: asked before every write, for a process that stood still does not know it."""
        if self._renewed is None:
            return "this replica does not lead"
        late = self._now() - self._renewed > RENEW_DEADLINE
        return f"the lease could not be renewed for {RENEW_DEADLINE:.0f} s" if late else None

    async def release(self) -> None:
        """Let a standby take over at once."""
        if self._lease is not None and self._holder() == self._identity:
            try:
                await self._put({**self._lease["spec"], "holderIdentity": ""})
            except ClusterError as error:
                _log.info("releasing the lease: %s", error)

    async def _try(self) -> bool:
        """One attempt to take or renew the lease. Raises ClusterError only to a holder, who must know that a renewal failed."""
        holding = self._lease is not None and self._holder() == self._identity
        try:
            if not holding:
                await self._read()
                if self._lease is None:
                    await self._create()
                    return True
                if not self._free():
                    return False
            await self._put(self._spec())
            return True
        except Conflict:
            await self._read_quietly()
            return self._holder() == self._identity
        except ClusterError as error:
            if holding:
                raise
            _log.warning("reading the lease: %s", error)
            return False

    def _free(self) -> bool:
        assert self._lease is not None
        version = self._lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._now())
        duration = float(self._lease["spec"].get("leaseDurationSeconds") or DURATION)
        holder = self._holder()
        if self._before_us is not None and holder.startswith(self._before_us):
            return True
        return holder in ("", self._identity) or self._now() - self._seen[1] > duration

    def _holder(self) -> str:
        return str((self._lease or {}).get("spec", {}).get("holderIdentity") or "")

    def _spec(self) -> Manifest:
        now = self._clock.now().astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (self._lease or {}).get("spec") or {}
        mine = old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if mine else 1),
        }

    async def _read(self) -> None:
        try:
            self._lease = await self._api.request("GET", object_path(*_KIND, self._namespace, NAME), seconds=REQUEST_TIMEOUT, urgent=True)
        except ClusterError as error:
            if error.status != 404:
                raise
            self._lease = None

    async def _read_quietly(self) -> None:
        try:
            await self._read()
        except ClusterError:
            self._lease = None  # unknown: not ours until it has been read

    async def _create(self) -> None:
        body = {"apiVersion": _KIND[0], "kind": _KIND[1], "metadata": {"name": NAME, "namespace": self._namespace}, "spec": self._spec()}
        path = collection_path(*_KIND, self._namespace)
        self._lease = await self._api.request("POST", path, body=body, seconds=REQUEST_TIMEOUT, urgent=True)

    async def _put(self, spec: Manifest) -> None:
        assert self._lease is not None
        path = object_path(*_KIND, self._namespace, NAME)
        self._lease = await self._api.request("PUT", path, body={**self._lease, "spec": spec}, seconds=REQUEST_TIMEOUT, urgent=True)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
