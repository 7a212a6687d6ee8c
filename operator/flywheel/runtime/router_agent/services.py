"""Endpoints of the arms: one watch a Service, and what to do while the API server is silent."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping

from flywheel.runtime.router_agent.endpoints import endpoints_of
from flywheel.runtime.router_agent.kube import Json, KubeApi, follow
from flywheel.specs.envoy import Arm, Endpoint

log = logging.getLogger(__name__)
LIST_PATIENCE_SECONDS = 2.0
Endpoints = tuple[Endpoint, ...]


class Services:
    """`remembered` (of the last agent in this pod) serves until a Service's slices were listed."""

    def __init__(
        self,
        namespace: str,
        api: KubeApi,
        remembered: Mapping[str, Endpoints],
        changed: Callable[[], None],
        broken: Callable[[str], None],
    ) -> None:
        self._namespace, self._api, self._changed, self._broken = namespace, api, changed, broken
        self._fallback = dict(remembered)
        self._listed: dict[str, Endpoints] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup

    def start_in(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def follow(self, arms: Iterable[Arm]) -> None:
        """Watch exactly these arms."""
        wanted = {arm.service: arm for arm in arms}
        for service in self._watches.keys() - wanted.keys():
            self._watches.pop(service).cancel()
            self._listed.pop(service, None)
            self._fallback.pop(service, None)
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        for service in wanted.keys() - self._watches.keys():
            selector = {"labelSelector": f"kubernetes.io/service-name={service}"}
            watch = follow(self._api, path, selector, self._listener(wanted[service]), self._broken)
            self._watches[service] = self._group.create_task(watch)

    async def known(self, arms: Iterable[Arm], unless: Callable[[], bool]) -> bool:
        """Wait a little for the first lists; then make do with memory or DNS. False if `unless` came true meanwhile."""
        deadline = asyncio.get_running_loop().time() + LIST_PATIENCE_SECONDS
        for arm in arms:
            while arm.service not in self._listed and asyncio.get_running_loop().time() < deadline:
                if unless():
                    return False
                await asyncio.sleep(0.005)
            if arm.service not in self._listed and not self._fallback.get(arm.service):
                self._fallback[arm.service] = await self._by_name(arm)
        return True

    def endpoints(self) -> dict[str, Endpoints]:
        return {**self._fallback, **self._listed}

    def _listener(self, arm: Arm) -> Callable[[dict[str, Json]], None]:
        def listed(slices: dict[str, Json]) -> None:
            found = endpoints_of(slices.values(), arm.port)
            if self._listed.get(arm.service) != found:
                self._listed[arm.service] = found
                self._changed()

        return listed

    async def _by_name(self, arm: Arm) -> Endpoints:
        """Without the API server a Service can still be found: its name resolves to its address."""
        host = f"{arm.service}.{self._namespace}.svc"
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, arm.port, type=socket.SOCK_STREAM)
        except OSError as error:
            log.warning("no endpoints of %s: the API server is silent and its name does not resolve (%s)", arm.service, error)
            return ()
        return tuple(Endpoint(str(address[0]), arm.port) for *_, address in found)
