"""A cluster in memory and in fake time around the real passes: Jobs and Deployments run pods, a router follows the routes, users answer.

The controllers look at nothing but the objects, as the operator does, so a copy of the API server's state is a copy of the whole cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

from flywheel.adapters.cluster import KubernetesCluster
from flywheel.api.base import API_VERSION
from flywheel.plan import service
from flywheel.plan.base import LABEL, Defaults
from flywheel.plan.rollout_observed import Acknowledgement, ErrorShare
from flywheel.ports import ClusterError
from flywheel.runtime.cache import Cache
from flywheel.runtime.gpu_queue import GpuQueue
from flywheel.runtime.keys import CHILDREN, KINDS, PARTS, Key
from flywheel.runtime.loop import Loop
from flywheel.runtime.metrics import Metrics
from flywheel.runtime.observe import World
from flywheel.runtime.planners import planners
from flywheel.runtime.reconcile import PlanOne, Reconciler
from flywheel.stats.verdict import Evidence
from tests.plan.generation_world import PASSING
from tests.plan.rollout_world import BETTER, evidence
from tests.runtime.faketime import START
from tests.runtime.simulated_api import VERSIONS, Body, Ref, SimulatedApi, State

BEAT = 0.5  # seconds between two looks of the controllers
WATCH = 0.02  # seconds until a watch tells of a change
ACCEPTS = dt.timedelta(seconds=0.4)  # how long Envoy takes over new routes
METRICS = {**PASSING, "accuracy": 0.9, "accuracy_lower": 0.85}
MADE = {"Reward": "reward-model", "Evaluate": "evaluation", "Curate": "dataset", "RejectionSample": "dataset", "Record": "dataset"}


class SimulatedCluster:
    """API server, controllers and the outside world; operators come and go."""

    def __init__(self, state: State | None = None, start: dt.datetime = START) -> None:
        self.clock, self._start = asyncio.get_running_loop(), start - dt.timedelta(seconds=asyncio.get_running_loop().time())
        self.api = SimulatedApi(state or State(), self.now)
        self.lag: Callable[[], float] = lambda: WATCH
        self.ends: Callable[[Body], tuple[int, str]] = lambda pod: (0, result(pod))  # how a trainer's pod ends
        self.serves: Callable[[Body], bool] = lambda pod: True  # whether a pod of a Deployment gets ready
        self.answer: Callable[[str], Evidence] = lambda experiment: evidence(BETTER, BETTER)  # what users say of a candidate
        self.kept: Callable[[], float | None] = lambda: None
        self.errors: ErrorShare | None = None
        self.router_listens = True
        self.gpu_budget: int | None = None
        self.listens: dict[int, tuple[str, ...]] = {}  # the models that servers of other people answer to, by port

    def now(self) -> dt.datetime:
        """The Clock port."""
        return self._start + dt.timedelta(seconds=self.clock.time())

    def jump(self, seconds: float) -> None:
        """The wall clock is set; nothing else notices."""
        self._start += dt.timedelta(seconds=seconds)

    @property
    def state(self) -> State:
        return self.api.state

    def make(self, kind: str, name: str, spec: Body) -> Body:
        """A user creates one of the five kinds."""
        return self.api.create({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})

    @contextlib.asynccontextmanager
    async def operator(self, plans: Callable[[World], dict[str, PlanOne]] = planners) -> AsyncIterator[Operator]:
        """An operator with empty hands; at the end it is killed, wherever it is."""
        operator = Operator(self, plans)
        task = asyncio.create_task(operator.loop.run())
        try:
            yield operator
        finally:
            self.api.watchers.remove(operator.watch)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def live(self, seconds: float) -> None:
        """Time passes, and the controllers do their part."""
        for _ in range(round(seconds / BEAT)):
            Controllers(self).beat()
            await asyncio.sleep(BEAT)

    # ------------------------------------------------------------------------------------------------ the operator's ports

    async def acknowledgements(self, pods: Mapping[str, str]) -> tuple[Acknowledgement, ...]:
        """TrafficRouter."""
        held = self.state.objects.get(Ref("ConfigMap", "demo-routes"))
        if held is None:
            return tuple(Acknowledgement(pod, 0, False) for pod in pods)
        revision = json.loads(held["data"]["routes.json"])["revision"]
        taken = self.router_listens and self.now() - self.state.changed[Ref("ConfigMap", "demo-routes")] >= ACCEPTS
        return tuple(Acknowledgement(pod, revision if taken else revision - 1, True) for pod in pods)

    async def read(self, namespace: str, deployment: str, service: str) -> tuple[Body | None, Body | None]:
        """AdoptedServers."""
        return self.state.objects.get(Ref("Deployment", deployment)), self.state.objects.get(Ref("Service", service))

    async def models(self, address: str) -> tuple[tuple[str, ...] | None, str]:
        """AdoptedServers: whatever listens on the port that a Service forwards to."""
        arm = address.removeprefix("http://").partition(".")[0]
        port = self.state.objects[Ref("Service", arm)]["spec"]["ports"][0]["targetPort"]
        return (self.listens[port], "") if port in self.listens else (None, f"{address}: connection refused")

    async def progress(self, pod_ip: str) -> Mapping[str, Any]:
        """TrainerProgress."""
        return {"phase": "train", "step": 5, "totalSteps": 10, "percent": 50.0, "etaSeconds": 1.0, "metrics": {}}

    async def put(self, collector: str, experiment: str, definition: Mapping[str, Any]) -> None:
        """Experiments."""
        self.api.before(f"PUT {experiment}")
        known = self.state.experiments.get(experiment)
        if known is None:
            self.state.experiments[experiment] = dict(definition)
            self.state.version += 1
        self.api.after(f"PUT {experiment}")
        if known not in (None, definition):
            raise ClusterError(f"experiment {experiment} is defined otherwise", status=409, retryable=False)

    async def evidence(self, experiment: str, metrics: Sequence[str], *, stale_after: dt.timedelta, window_over: bool) -> Evidence:
        """MetricsProvider."""
        known = experiment in self.state.experiments
        said = self.answer(experiment) if known else Evidence(assigned=None, metrics={}, window_over=window_over)
        return replace(said, window_over=window_over)

    async def error_share(self, namespace: str, service: str, generation: str) -> ErrorShare | None:
        """MetricsProvider."""
        return self.errors

    async def conversations(self, namespace: str, service: str) -> float | None:
        """MetricsProvider."""
        return self.kept()


class Operator:
    """The real cache, passes and loop on what the API server has."""

    def __init__(self, cluster: SimulatedCluster, plans: Callable[[World], dict[str, PlanOne]]) -> None:
        self._cluster = cluster
        world = World(Defaults(), lambda address: cluster, cluster, cluster, gpus=GpuQueue(cluster.gpu_budget), adopted=cluster)
        self.cache = Cache(lambda key: self.loop.wake(key))
        self.cache.listeners.append(world.gpus.seen)
        world.gpus.wakes(lambda key: self.loop.wake(key))
        port = KubernetesCluster(cluster.api)  # type: ignore[arg-type]  # the simulated one has the methods that are called
        self._passes = Reconciler(self.cache, port, cluster, cluster, Metrics(), plans(world))
        self.loop = Loop(
            self._passes.reconcile, clock=cluster, watcher=self, on_error=self._passes.failed, concurrency=8, jitter=lambda: 0.5
        )
        self.errors: list[Exception] = []  # that no cluster is to blame for
        for body in cluster.state.objects.values():
            self._take("put", body)
        cluster.api.watchers.append(self.watch)
        self.loop.open()

    def watch(self, what: str, body: Body) -> None:
        """The watch tells of it after a while."""
        self._cluster.clock.call_later(self._cluster.lag(), self._take, what, body)

    def _take(self, what: str, body: Body) -> None:
        ours = (body["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "flywheel-operator"
        if body["kind"] in KINDS or (body["kind"] in (*CHILDREN, *PARTS) and ours):
            getattr(self.cache, what)(body)

    def passed(self, key: Key, seconds: float, error: Exception | None) -> None:
        """Watcher."""
        if error is not None and not isinstance(error, ClusterError):
            self.errors.append(error)

    def depth(self, queued: int) -> None:
        """Watcher."""


class Controllers:
    """What kube-controller-manager and the kubelets do, in one look at everything."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster, self._api, self._now = cluster, cluster.api, cluster.now()

    def beat(self) -> None:
        """One step of each."""
        state = self._cluster.state
        self._collect_garbage()
        for job in state.every("Job"):
            self._run_job(job)
        for deployment in state.every("Deployment"):
            self._run_deployment(deployment)

    def _collect_garbage(self) -> None:
        state = self._cluster.state
        alive = {body["metadata"]["uid"] for body in state.objects.values()}
        for ref, body in list(state.objects.items()):
            owners = body["metadata"].get("ownerReferences") or ()
            if body["metadata"].get("deletionTimestamp"):
                self._api.remove(ref)
            elif owners and not any(owner["uid"] in alive for owner in owners):
                self._end(body)

    def _end(self, body: Body) -> None:
        """A pod is given time to stop, and is gone at the next look; everything else is gone at once."""
        if body["kind"] == "Pod":
            self._api.put({**body, "metadata": {**body["metadata"], "deletionTimestamp": self._stamp()}})
        else:
            self._api.remove(Ref(body["kind"], body["metadata"]["name"]))

    def _run_job(self, job: Body) -> None:
        pods = self._pods(job)
        if job.get("status"):
            return
        if job["spec"]["suspend"]:
            for pod in pods:
                self._end(pod)
        elif not pods:
            self._make_pod(job, job["spec"]["template"])
        elif pods[0]["status"]["phase"] == "Pending":
            self._pod_status(pods[0], "Running", {"running": {"startedAt": self._stamp()}})
        elif pods[0]["status"]["phase"] == "Running" and self._age(pods[0]) >= 2:
            code, message = self._cluster.ends(pods[0])
            ended = {"exitCode": code, "message": message, "startedAt": self._stamp(), "finishedAt": self._stamp()}
            self._pod_status(pods[0], "Failed" if code else "Succeeded", {"terminated": ended})
        elif pods[0]["status"]["phase"] in ("Failed", "Succeeded"):
            good = pods[0]["status"]["phase"] == "Succeeded"
            condition = {"type": "Complete" if good else "Failed", "status": "True", "lastTransitionTime": self._stamp()}
            self._api.put({**job, "status": {"conditions": [condition if good else {**condition, "reason": "BackoffLimitExceeded"}]}})

    def _run_deployment(self, deployment: Body) -> None:
        pods, spec = self._pods(deployment), deployment["spec"]
        for _ in range(spec["replicas"] - len(pods)):
            self._make_pod(deployment, spec["template"])
        for pod in pods[spec["replicas"] :]:
            self._end(pod)
        for pod in pods:
            up = self._cluster.serves(pod) and self._age(pod) >= 1
            if pod["status"]["phase"] != ("Running" if up else "Pending"):
                self._pod_status(pod, "Running" if up else "Pending", {"running": {"startedAt": self._stamp()}} if up else {})
        ready = sum(pod["status"]["phase"] == "Running" for pod in self._pods(deployment))
        status = {"observedGeneration": deployment["metadata"]["generation"], "readyReplicas": ready}
        if deployment.get("status") != status:
            self._api.put({**deployment, "status": status})

    def _pods(self, owner: Body) -> list[Body]:
        uid = owner["metadata"]["uid"]
        return [
            pod
            for pod in self._cluster.state.every("Pod")
            if pod["metadata"]["ownerReferences"][0]["uid"] == uid and not pod["metadata"].get("deletionTimestamp")
        ]

    def _make_pod(self, owner: Body, template: Body) -> None:
        meta, given = owner["metadata"], template["metadata"]
        number = 1 + sum(1 for ref in self._cluster.state.made if ref.kind == "Pod" and ref.name.startswith(meta["name"] + "-pod"))
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"], "controller": True}
        metadata = {
            "name": f"{meta['name']}-pod{number}",
            "labels": given["labels"],
            "annotations": given.get("annotations") or {},
            "ownerReferences": [reference],
        }
        self._api.create({"apiVersion": VERSIONS["Pod"], "kind": "Pod", "metadata": metadata, "status": {"phase": "Pending"}})

    def _pod_status(self, pod: Body, phase: str, told: Body) -> None:
        main = {"trainer": "trainer", "vllm": "vllm", "router": "agent"}.get(
            pod["metadata"]["labels"].get(LABEL + "component", ""), "collector"
        )
        container = {"name": main, "restartCount": 0, "state": told}
        ready = {"type": "Ready", "status": str(phase == "Running")}
        self._api.put({**pod, "status": {"phase": phase, "podIP": "10.0.0.1", "containerStatuses": [container], "conditions": [ready]}})

    def _age(self, body: Body) -> float:
        made = dt.datetime.fromisoformat(body["metadata"]["creationTimestamp"])
        return (self._now - made).total_seconds()

    def _stamp(self) -> str:
        return f"{self._now:%Y-%m-%dT%H:%M:%SZ}"


@contextlib.contextmanager
def rendered_once() -> Iterator[None]:
    """Router and collector are rendered in every pass of a Flywheel, always from the same; that takes half of the time of a lap."""
    with mock.patch.multiple(
        service, router_manifests=_remembered(service.router_manifests), collector_manifests=_remembered(service.collector_manifests)
    ):
        yield


def _remembered(render: Callable[..., list[Body]]) -> Callable[..., list[Body]]:
    known: dict[str, str] = {}

    def remember(**asked: Any) -> list[Body]:
        key = json.dumps(asked)
        if key not in known:
            known[key] = json.dumps(render(**asked))
        made: list[Body] = json.loads(known[key])
        return made

    return remember


def result(pod: Body, metrics: Mapping[str, float] = METRICS) -> str:
    """The last word of a trainer that ended well: what it made follows from which run it was."""
    meta = pod["metadata"]
    digest = "sha256:" + hashlib.sha256(meta["labels"][LABEL + "training-run"].encode()).hexdigest()
    kind = MADE.get(meta["annotations"][LABEL + "method"], "model")
    artifact = {"uri": f"file:///flywheel/artifacts/{digest.replace(':', '-')}", "digest": digest, "sizeBytes": 1, "kind": kind}
    return json.dumps({"artifact": artifact, "metrics": dict(metrics)})
