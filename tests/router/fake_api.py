"""A tiny API server: two collections, list and watch, and the ways a real one lets a client down."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from flywheel.specs.envoy import Endpoint, Routes, format_routes

Json = dict[str, Any]
CONFIG_MAPS, SLICES = "configmaps", "endpointslices"


class FakeApi:
    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.version = 100
        self.objects: dict[str, dict[str, Json]] = {CONFIG_MAPS: {}, SLICES: {}}
        self.events: list[tuple[int, str, str, Json]] = []  # version, collection, type, object
        self.oldest = 0  # watches from before this version are told 410
        self.expired = 0
        self.requests: list[str] = []
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._cut, self._ended = 0, 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/demo/{collection}", self._get)
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/demo/{collection}", self._get)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await self.cut_watches()
            await runner.cleanup()

    async def cut_watches(self) -> None:
        """End every watch in the middle, as a load balancer would."""
        async with self._changed:
            self._cut += 1
            self._changed.notify_all()

    async def forget_history(self) -> None:
        """Watches end as agreed, and going on from the version they stood at is answered with 410."""
        async with self._changed:
            self.version += 1
            self.oldest = self.version
            self._ended += 1
            self._changed.notify_all()

    async def set_routes(self, routes: Routes | str, service: str = "demo") -> None:
        text = routes if isinstance(routes, str) else format_routes(routes)
        await self._put(CONFIG_MAPS, {"metadata": {"name": f"{service}-routes"}, "data": {"routes.json": text}})

    async def set_endpoints(self, service: str, endpoints: list[Endpoint]) -> None:
        body = {
            "metadata": {"name": f"{service}-abc12", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": endpoints[0].port if endpoints else 8000}],
            "endpoints": [{"addresses": [one.address], "conditions": {"ready": one.ready}} for one in endpoints],
        }
        await self._put(SLICES, body)

    async def delete_routes(self) -> None:
        self.version += 1
        gone = self.objects[CONFIG_MAPS].pop("demo-routes")
        await self._announce(CONFIG_MAPS, "DELETED", gone)

    async def _put(self, collection: str, body: Json) -> None:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        known = body["metadata"]["name"] in self.objects[collection]
        self.objects[collection][body["metadata"]["name"]] = body
        await self._announce(collection, "MODIFIED" if known else "ADDED", body)

    async def _announce(self, collection: str, kind: str, body: Json) -> None:
        async with self._changed:
            self.events.append((self.version, collection, kind, body))
            self._changed.notify_all()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        collection, query = request.match_info["collection"], request.query
        self.requests.append(request.path_qs)
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        service = query.get("labelSelector", "").removeprefix("kubernetes.io/service-name=")

        def selected(body: Json) -> bool:
            meta = body["metadata"]
            return name in ("", meta["name"]) and service in ("", meta.get("labels", {}).get("kubernetes.io/service-name"))

        if query.get("watch"):
            return await self._watch(request, collection, selected, int(query["resourceVersion"]))
        items = [body for body in self.objects[collection].values() if selected(body)]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def _watch(self, request: web.Request, collection: str, selected: Any, since: int) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"content-type": "application/json"})
        reply.enable_chunked_encoding()
        await reply.prepare(request)

        async def send(kind: str, body: Json) -> None:
            await reply.write(json.dumps({"type": kind, "object": body}).encode() + b"\n")

        if since < self.oldest:
            self.expired += 1
            await send("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
            return reply
        cut, ended = self._cut, self._ended
        await send("BOOKMARK", {"metadata": {"resourceVersion": str(since)}})
        while True:
            async with self._changed:
                while (self._cut, self._ended) == (cut, ended) and self.events[-1][0] <= since:
                    await self._changed.wait()
                fresh = [event for event in self.events if event[0] > since]
            if self._ended != ended:
                return reply
            if self._cut != cut:
                if request.transport is not None:
                    request.transport.abort()
                return reply
            for version, where, kind, body in fresh:
                since = max(since, version)
                if where == collection and selected(body):
                    await send(kind, body)
