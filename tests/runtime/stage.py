"""A stage for the real operator process on a real API server: everything around it is played.

Pods never run: the stage writes the status a kubelet would write, and answers for trainers, router agents, the collector and
Prometheus on loopback addresses. So a whole lap takes seconds, and a test can kill the operator wherever it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, web

from flywheel.adapters.kube_api import KubeApi, load_configuration
from flywheel.adapters.resources import collection_path, object_path
from flywheel.api.base import API_VERSION
from flywheel.ports import ClusterError
from tests.processes import end_with_parent, free_ports

Body = dict[str, Any]
LABEL = "modelflywheel.dev/"
INDEX = "batch.kubernetes.io/job-completion-index"
HOME = "127.77.0.1"
# The services' names exist in the cluster's DNS only; the process is told that all of them are the stage.
LAUNCH = f"""
import socket
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *a, **k: real("{HOME}" if str(host).endswith(".svc") else host, *a, **k)
from flywheel.runtime.main import main
main()
"""


class Stage:
    """One namespace, one operator process that may be killed and started again."""

    def __init__(self, api: KubeApi, namespace: str, logs: Path, port: int) -> None:
        self.api, self.namespace, self._logs, self.port = api, namespace, logs, port
        self.process: asyncio.subprocess.Process | None = None
        self._started: list[asyncio.subprocess.Process] = []
        self.experiments: dict[str, Body] = {}
        self.samples: list[Body] = []  # what Prometheus answers
        self.metrics: Callable[[Body], Body] = lambda pod: {}  # of a trainer, by its pod
        self.ends: Callable[[Body], tuple[int, str] | None] = lambda pod: None  # exit code and last words of a trainer; None: ended well
        self._addresses: dict[str, str] = {}  # owner -> loopback address
        self._services: dict[str, str] = {}  # address -> service
        self._runners: list[web.AppRunner] = []
        self._begun: dict[str, float] = {}
        self.train_seconds = 0.3

    # ------------------------------------------------------------------------------------------------ the operator

    async def start(self, **environment: str) -> None:
        """Start the operator, and wait until its caches are complete."""
        env = {
            **os.environ,
            "FLYWHEEL_WATCH_NAMESPACES": self.namespace,
            "FLYWHEEL_PORT": str(self.port),
            "FLYWHEEL_PROMETHEUS_ADDRESS": f"http://{HOME}:9090",
            **environment,
        }
        with self._logs.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", LAUNCH, env=env, stderr=log, preexec_fn=end_with_parent
            )
        self._started.append(self.process)

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            await _kill(self.process)

    async def terminate(self) -> tuple[int, float]:
        """SIGTERM; exit code and how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        return await self.process.wait(), time.monotonic() - began

    def rss(self) -> float:
        """Resident memory of the operator in MB."""
        assert self.process is not None
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    async def tells(self, *beginnings: str, seconds: float = 60) -> list[str]:
        """Scrape the operator until there is a line with each of these beginnings; all lines."""
        lines: list[str] = []
        deadline = time.monotonic() + seconds
        async with ClientSession() as session:
            while missing := [beginning for beginning in beginnings if not any(line.startswith(beginning) for line in lines)]:
                assert time.monotonic() < deadline, "\n".join([f"{missing} is missing in:", *lines, self.log()[-4000:]])
                await asyncio.sleep(0.2)
                with contextlib.suppress(ClientError):  # it may just be starting
                    async with session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
                        lines = [line for line in (await answer.text()).splitlines() if line.startswith("flywheel_")]
        return lines

    def log(self) -> str:
        return self._logs.read_text()

    # ------------------------------------------------------------------------------------------------ objects

    async def make(self, kind: str, name: str, spec: Body) -> Body:
        """Create one of our kinds."""
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": self.namespace}, "spec": spec}
        return await self.api.request("POST", collection_path(API_VERSION, kind, self.namespace), body=body)

    async def get(self, kind: str, name: str, version: str = API_VERSION) -> Body:
        return await self.api.request("GET", object_path(version, kind, self.namespace, name))

    async def every(self, kind: str, version: str = API_VERSION) -> list[Body]:
        found: list[Body] = (await self.api.request("GET", collection_path(version, kind, self.namespace)))["items"]
        return found

    async def patch(self, kind: str, name: str, patch: Body, version: str = API_VERSION) -> Body:
        path = object_path(version, kind, self.namespace, name)
        return await self.api.request("PATCH", path, body=patch, content_type="application/merge-patch+json")

    async def reaches(self, kind: str, name: str, phase: str, *, seconds: float = 60) -> Body:
        """Wait for a phase."""
        body: Body = {}
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            body = await self.get(kind, name)
            if (body.get("status") or {}).get("phase") == phase:
                return body
            await asyncio.sleep(0.05)
        raise AssertionError(
            f"{kind} {name} is not {phase} after {seconds} s:\n{json.dumps(body.get('status'), indent=1)}\n{self.log()[-4000:]}"
        )

    # ------------------------------------------------------------------------------------------------ the kubelet's part

    async def play(self) -> None:
        """For ever: what kubelets, trainers and router agents would do."""
        while True:
            with contextlib.suppress(ClusterError, OSError):  # a kubelet does not end because the API server was busy once
                for pod in await self.every("Pod", "v1"):
                    with contextlib.suppress(ClusterError, OSError):
                        await self._act(pod)
            await asyncio.sleep(0.1)

    async def _act(self, pod: Body) -> None:
        meta, status = pod["metadata"], pod.get("status") or {}
        if meta.get("deletionTimestamp") and not (pod.get("spec") or {}).get("nodeName"):
            return await self._delete_now(meta["name"])
        labels = meta.get("labels") or {}
        if status.get("phase") == "Pending":
            await self._run(pod, labels)
        elif labels.get(LABEL + "component") == "trainer" and status.get("phase") == "Running" and self._trained(meta["uid"]):
            code, said = self.ends(pod) or (0, self._result(pod) if labels.get(INDEX, "0") == "0" else "")
            ended = {**_times(), "exitCode": code, "reason": "Error" if code else "Completed", "message": said}
            await self._status(pod, "Failed" if code else "Succeeded", {"terminated": ended})

    def _trained(self, uid: str) -> bool:
        return time.monotonic() - self._begun.get(uid, 0) > self.train_seconds

    async def _run(self, pod: Body, labels: dict[str, str]) -> None:
        service = labels.get(LABEL + "flywheel", "") if labels.get(LABEL + "component") == "router" else ""
        address = await self._address(service or "everyone")
        self._services[address] = service
        self._begun[pod["metadata"]["uid"]] = time.monotonic()
        await self._status(pod, "Running", {"running": {"startedAt": _times()["startedAt"]}}, address)

    async def _status(self, pod: Body, phase: str, state: Body, address: str | None = None) -> None:
        ready = "True" if phase == "Running" else "False"
        containers = [
            {"name": c["name"], "image": c["image"], "imageID": "", "ready": ready == "True", "restartCount": 0, "state": state}
            for c in pod["spec"]["containers"]
        ]
        status: Body = {"phase": phase, "containerStatuses": containers, "conditions": [{"type": "Ready", "status": ready}]}
        if address:
            status |= {"podIP": address, "podIPs": [{"ip": address}]}
        path = object_path("v1", "Pod", self.namespace, pod["metadata"]["name"]) + "/status"
        await self.api.request("PATCH", path, body={"status": status}, content_type="application/merge-patch+json")

    async def _delete_now(self, name: str) -> None:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        await self.api.request("DELETE", object_path("v1", "Pod", self.namespace, name), body=options)

    def _result(self, pod: Body) -> str:
        labels = pod["metadata"]["labels"]
        method = (pod["metadata"].get("annotations") or {}).get(LABEL + "method", "SFT")
        kind = {"Reward": "reward-model", "Evaluate": "evaluation", "Curate": "dataset", "Record": "dataset"}.get(method, "model")
        digest = "sha256:" + hashlib.sha256(labels[LABEL + "training-run"].encode()).hexdigest()
        artifact = {"uri": f"file:///flywheel/artifacts/{digest.replace(':', '-')}", "digest": digest, "sizeBytes": 1, "kind": kind}
        return json.dumps({"artifact": artifact, "metrics": self.metrics(pod), "gpuSeconds": 0})

    # ------------------------------------------------------------------------------------------------ what answers over HTTP

    async def _address(self, owner: str) -> str:
        if owner not in self._addresses:
            address = f"127.77.1.{len(self._addresses) + 1}"
            self._addresses[owner] = address
            await self.serve(address, 9903, [web.get("/status", self._router)])
            await self.serve(address, 8080, [web.get("/progress", self._progress)])
        return self._addresses[owner]

    async def serve(self, host: str, port: int, routes: list[web.RouteDef]) -> None:
        """Answer over HTTP, until the stage is torn down."""
        app = web.Application()
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        self._runners.append(runner)

    async def _router(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        service = self._services.get(request.transport.get_extra_info("sockname")[0], "")
        try:
            routes = json.loads((await self.get("ConfigMap", f"{service}-routes", "v1"))["data"]["routes.json"])
        except ClusterError:
            return web.json_response({"revision": 0, "accepted": False, "error": None})
        return web.json_response({"revision": routes["revision"], "accepted": True, "error": None})

    async def _progress(self, _request: web.Request) -> web.Response:
        return web.json_response({"phase": "train", "step": 5, "totalSteps": 10, "percent": 50.0, "etaSeconds": 1.0, "metrics": {}})

    async def _experiment(self, request: web.Request) -> web.Response:
        self.experiments[request.match_info["name"]] = await request.json()
        return web.json_response({})

    async def _query(self, request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        now = time.time()
        wanted = self.samples if "flywheel_experiment" in query else []
        result = [{"metric": s["metric"], "value": [now, str(now if s["value"] == "now" else s["value"])]} for s in wanted]
        for sample in result:
            sample["metric"]["experiment"] = query.rsplit('experiment="', 1)[-1].split('"')[0]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    async def open(self) -> None:
        await self.api.request(
            "POST", "/api/v1/namespaces", body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        )
        await self.serve(HOME, 9090, [web.post("/api/v1/query", self._query)])
        await self.serve(HOME, 8080, [web.put("/v1/experiments/{name}", self._experiment)])

    async def close(self) -> None:
        for process in self._started:
            await _kill(process)
        for runner in self._runners:
            await runner.cleanup()
        with contextlib.suppress(ClusterError):  # a test may have deleted it
            await self.api.request("DELETE", f"/api/v1/namespaces/{self.namespace}")
        await self.api.close()


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _times() -> dict[str, str]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"startedAt": now, "finishedAt": now}


def moments(control: float, candidate: float, *, users: int = 5000) -> list[Body]:
    """What Prometheus has when two slices differ so in breadth and depth, and in nothing else."""
    samples: list[Body] = [{"metric": {"__name__": "flywheel_experiment_updated_timestamp_seconds"}, "value": "now"}]
    for slice_, mean in (("control", control), ("candidate", candidate)):
        samples.append({"metric": {"__name__": "flywheel_experiment_assigned_users", "slice": slice_}, "value": users})
        for metric, share in (("breadth", mean), ("depth", mean), ("errors", 0.0), ("thumbs_down", 0.0)):
            total = round(share * users)
            for name, value in (("users", users), ("sum", total), ("sum_squares", total)):
                samples.append({"metric": {"__name__": f"flywheel_experiment_{name}", "slice": slice_, "metric": metric}, "value": value})
    return samples


@contextlib.asynccontextmanager
async def staged(logs: Path) -> AsyncIterator[Stage]:
    """A stage of its own; torn down whatever happens."""
    stage = Stage(KubeApi(await load_configuration()), f"stage-{uuid.uuid4().hex[:8]}", logs, free_ports(1)[0])
    await stage.open()
    player = asyncio.create_task(stage.play())
    try:
        yield stage
    finally:
        player.cancel()
        (played,) = await asyncio.gather(player, return_exceptions=True)
        await stage.close()
        if isinstance(played, Exception):
            raise played  # nobody played the kubelet from then on: whatever else failed, failed by that
