"""An API server on a port: objects by their path, merge patches, access reviews. All but HTTP is the real client's."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

from aiohttp import web

from flywheel.api.base import API_VERSION
from flywheel.api.crd import KINDS, crd
from flywheel.cli.kinds import BY_KIND, path

Json = dict[str, Any]


class FakeApi:
    """Runs in a thread, as the commands have an event loop of their own."""

    def __init__(self) -> None:
        self.answers: dict[str, Json | int] = {"/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.4"}}
        self.patches: list[Json] = []
        self.denied: set[str] = set()  # "verb plural" of access reviews
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def stop(self) -> None:
        assert self._runner is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def kubeconfig(self, file: Path, namespace: str) -> Path:
        """A kubeconfig of this server."""
        context = {"cluster": "fake", "user": "me", "namespace": namespace}
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
            "contexts": [{"name": "fake", "context": context}],
            "current-context": "fake",
        }
        file.write_text(json.dumps(body))
        return file

    def hold(self, *bodies: Json, namespace: str = "demo") -> None:
        """Objects of the five kinds; what is in the namespace besides stays."""
        for kind in KINDS:
            self.answers.setdefault(path(kind, namespace), {"items": []})
        for body in bodies:
            kind = BY_KIND[body["kind"]]
            self.answers[path(kind, namespace, body["metadata"]["name"])] = body
            collection = self.answers[path(kind, namespace)]
            assert isinstance(collection, dict)
            collection["items"].append({key: value for key, value in body.items() if key not in ("kind", "apiVersion")})

    def install(self) -> None:
        """The CRDs of this checkout."""
        self.answers[f"/apis/{API_VERSION}"] = {"resources": [{"name": kind.plural} for kind in KINDS]}
        for kind in KINDS:
            name = f"{kind.plural}.modelflywheel.dev"
            self.answers[f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"] = crd(kind)

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path.endswith("/selfsubjectaccessreviews"):
            asked = (await request.json())["spec"]["resourceAttributes"]
            return web.json_response({"status": {"allowed": f"{asked['verb']} {asked['resource']}" not in self.denied}})
        answer = self.answers.get(request.path)
        if answer is None:
            *_, plural, name = request.path.split("/")
            return web.json_response({"message": f'{plural}.modelflywheel.dev "{name}" not found'}, status=404)
        if isinstance(answer, int):
            return web.json_response({"message": f"no: {request.path}"}, status=answer)
        if request.method == "PATCH":
            self.patches.append(await request.json())
        return web.json_response(answer)
