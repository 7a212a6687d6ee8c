"""python -m dev.bench.operator_world --kubeconfig PATH — everything around the operator that a bench can't have for real.

A process of its own, so that it slows neither the operator nor whoever measures. It does the part of the job controller, of
the deployment controller and of the kubelet (pods appear, run, and end with a termination message), and answers for trainers,
router agents, the collector and Prometheus on loopback addresses. Everything else is real.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from flywheel.adapters.kube_api import KubeApi, load_configuration
from flywheel.adapters.resources import collection_path, object_path
from flywheel.adapters.watch import ApiSource, Informer
from flywheel.ports import ClusterError

Body = dict[str, Any]
LABEL = "modelflywheel.dev/"
SELECTOR = "app.kubernetes.io/managed-by=flywheel-operator"
HOME = "127.79.0.1"  # collector and Prometheus
TRAINERS = "127.79.0.2"  # every trainer pod has this address: their progress is alike
ENDLESS = "endless-"  # runs of this name never end
TRAIN_SECONDS = 2.0
USERS, TURNED = 5000, 2000  # per slice; both arms alike, so that no analysis ends
WRITES = 8


class Kubelet:
    """Plays the controllers and the kubelet for what the operator makes."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._slots = asyncio.Semaphore(WRITES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: dict[str, int] = {}  # uid of a Job or Deployment -> the generation that was dealt with
        self.services: dict[str, str] = {}  # address -> service
        self.revisions: dict[str, int] = {}  # service -> revision of its routes
        self.arms: dict[str, set[str]] = {}  # service -> generations that serve

    def put(self, body: Body) -> None:
        """Something was made or changed."""
        meta = body["metadata"]
        if body["kind"] == "ConfigMap":
            if text := (body.get("data") or {}).get("routes.json"):
                self.revisions[meta["labels"][LABEL + "flywheel"]] = json.loads(text)["revision"]
            return
        generation = 1 if body["kind"] == "Job" else meta["generation"]
        if self._seen.get(meta["uid"], 0) < generation:
            first = meta["uid"] not in self._seen
            self._seen[meta["uid"]] = generation
            self._spawn(self._job(body) if body["kind"] == "Job" else self._deployment(body, first))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_insist(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _job(self, job: Body) -> None:
        meta = job["metadata"]
        run = meta["labels"][LABEL + "training-run"]
        pod = await self._pod(job, f"{meta['name']}-0", TRAINERS)
        if run.startswith(ENDLESS):
            return
        await asyncio.sleep(TRAIN_SECONDS)
        now = _time()
        method = (pod["metadata"].get("annotations") or {}).get(LABEL + "method", "SFT")
        ended = {"startedAt": now, "finishedAt": now, "exitCode": 0, "reason": "Completed", "message": _result(run, method)}
        await self._status(pod, {"phase": "Succeeded", "containerStatuses": _containers(pod, {"terminated": ended}, ready=False)})
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now} for kind in ("SuccessCriteriaMet", "Complete")
        ]
        await self._status(job, {"startTime": now, "completionTime": now, "succeeded": 1, "ready": 0, "conditions": conditions})

    async def _deployment(self, deployment: Body, first: bool) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        service, component = meta["labels"][LABEL + "flywheel"], meta["labels"][LABEL + "component"]
        self.arms.setdefault(service, set())
        if component == "vllm":
            self.arms[service].add(meta["labels"][LABEL + "generation"])
        replicas = spec["replicas"]
        if first:
            address = self._router(service) if component == "router" else HOME
            for number in range(replicas):
                await self._pod(deployment, f"{meta['name']}-{number}", address)
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
        await self._status(deployment, {"observedGeneration": meta["generation"], **counts})

    def _router(self, service: str) -> str:
        address = router_address(int(service.removeprefix("f")))
        self.services[address] = service
        return address

    async def _pod(self, owner: Body, name: str, address: str) -> Body:
        meta, template = owner["metadata"], owner["spec"]["template"]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "labels": template["metadata"].get("labels", {}),
                "annotations": template["metadata"].get("annotations", {}),
                "ownerReferences": [
                    {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"], "controller": True}
                ],
            },
            "spec": template["spec"],
        }
        async with self._slots:
            pod = await self._api.request("POST", collection_path("v1", "Pod", meta["namespace"]), body=body)
        pod = {**pod, "apiVersion": "v1", "kind": "Pod"}
        now = _time()
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        running = _containers(pod, {"running": {"startedAt": now}}, ready=True)
        addresses = {"hostIP": "10.0.0.1", "podIP": address, "podIPs": [{"ip": address}]}
        await self._status(pod, {"phase": "Running", "startTime": now, "conditions": conditions, "containerStatuses": running, **addresses})
        return pod

    async def _status(self, body: Body, status: Body) -> None:
        meta = body["metadata"]
        path = object_path(body["apiVersion"], body["kind"], meta["namespace"], meta["name"]) + "/status"
        async with self._slots:
            await self._api.request("PATCH", path, body={"status": status}, content_type="application/merge-patch+json")

    def remove(self, body: Body) -> None:
        """Nothing is taken down in this bench."""

    def present(self) -> set[str]:
        return set()

    def keep(self, listed: set[str], before: set[str]) -> None:
        """Nor is anything missed."""


def router_address(number: int) -> str:
    """Where the router of Flywheel f<number> answers."""
    return f"127.79.{1 + number // 250}.{1 + number % 250}"


async def _insist(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except ClusterError as error:
        if error.status not in (404, 409):  # what is gone needs no status
            raise


def _containers(pod: Body, state: Body, *, ready: bool) -> list[Body]:
    return [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "sha256:" + "0" * 64,
            "containerID": "containerd://" + "1" * 64,
            "ready": ready,
            "started": ready,
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]


def _result(run: str, method: str) -> str:
    kind = {"Reward": "reward-model", "Evaluate": "evaluation", "Curate": "dataset", "Record": "dataset"}.get(method, "model")
    digest = "sha256:" + hashlib.sha256(run.encode()).hexdigest()
    artifact = {"uri": f"file:///flywheel/artifacts/{digest.replace(':', '-')}", "digest": digest, "sizeBytes": 1, "kind": kind}
    return json.dumps({"artifact": artifact, "metrics": {f"metric_{n}": n / 7 for n in range(12)}, "gpuSeconds": 0})


def _time() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Answers:
    """What pods, the collector and Prometheus say over HTTP; `asked` counts the questions."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._began = time.monotonic()
        self.asked: dict[str, int] = {}

    async def serve(self, flywheels: int) -> None:
        """Listen on every address there may be."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/status", self._router),
                web.get("/progress", self._progress),
                web.put("/v1/experiments/{name}", self._experiment),
                web.post("/api/v1/query", self._query),
                web.get("/asked", self._asked),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        routers = [router_address(number) for number in range(flywheels)]
        for host, port in [(HOME, 9090), (HOME, 8080), (TRAINERS, 8080), *((address, 9903) for address in routers)]:
            listening = socket.create_server((host, port), backlog=16)
            await web.SockSite(runner, listening).start()

    def _count(self, what: str) -> None:
        self.asked[what] = self.asked.get(what, 0) + 1

    async def _asked(self, _request: web.Request) -> web.Response:
        return web.json_response(self.asked)

    async def _router(self, request: web.Request) -> web.Response:
        self._count("router")
        assert request.transport is not None
        service = self._kubelet.services.get(request.transport.get_extra_info("sockname")[0], "")
        revision = self._kubelet.revisions.get(service)
        return web.json_response({"revision": revision or 0, "accepted": revision is not None, "error": None})

    async def _progress(self, _request: web.Request) -> web.Response:
        self._count("trainer")
        total = 1_000_000
        step = int((time.monotonic() - self._began) * 4)  # like a real trainer, it is further each time it is asked
        progress = {"phase": "Training", "step": step, "totalSteps": total, "percent": round(100 * step / total, 2), "etaSeconds": 3600.0}
        return web.json_response({**progress, "tokensPerSecond": 1000.0, "metrics": {"loss": round(3 / (1 + step), 4)}})

    async def _experiment(self, request: web.Request) -> web.Response:
        self._count("collector")
        await request.read()
        return web.json_response({})

    async def _query(self, request: web.Request) -> web.Response:
        self._count("prometheus")
        query, now = str((await request.post())["query"]), time.time()
        if "flywheel_experiment" in query:
            result = _moments(query.rsplit('experiment="', 1)[-1].split('"')[0], now)
        elif " by " in query:
            result = self._all(query, now)
        else:
            result = [{"metric": {}, "value": [now, "0" if "5.." in query else "100"]}]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    def _all(self, query: str, now: float) -> list[Body]:
        """One series a service, or one a service and generation, as the query groups them."""
        value: list[Any] = [now, "0" if "5.." in query else "100"]
        found: list[Body] = []
        for service, arms in self._kubelet.arms.items():
            labels = {"flywheel": service, "flywheel_namespace": "default"}
            found += (
                [{"metric": {**labels, "generation": arm}, "value": value} for arm in arms]
                if "generation" in query
                else [{"metric": labels, "value": value}]
            )
        return found


def _moments(experiment: str, now: float) -> list[Body]:
    numbers: list[tuple[Body, float]] = [({"__name__": "flywheel_experiment_updated_timestamp_seconds"}, now)]
    for slice_ in ("control", "candidate"):
        numbers.append(({"__name__": "flywheel_experiment_assigned_users", "slice": slice_}, USERS))
        for metric, total in (("breadth", TURNED), ("depth", TURNED), ("errors", 0), ("thumbs_down", 0)):
            for name, value in (("users", USERS), ("sum", total), ("sum_squares", total)):
                numbers.append(({"__name__": f"flywheel_experiment_{name}", "slice": slice_, "metric": metric}, value))
    return [{"metric": metric | {"experiment": experiment}, "value": [now, str(value)]} for metric, value in numbers]


async def play(kubeconfig: Path, flywheels: int) -> None:
    """For ever."""
    api = KubeApi(await load_configuration(str(kubeconfig)), max_requests=WRITES, user_agent="bench-world")
    kubelet = Kubelet(api)
    await Answers(kubelet).serve(flywheels)
    kinds = {"Job": "batch/v1", "Deployment": "apps/v1", "ConfigMap": "v1"}
    informers = [Informer(ApiSource(api, version, kind, selector=SELECTOR), kubelet) for kind, version in kinds.items()]
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*(informer.run() for informer in informers))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--flywheels", type=int, default=1000)
    arguments = parser.parse_args()
    asyncio.run(play(arguments.kubeconfig, arguments.flywheels))


if __name__ == "__main__":
    main()
