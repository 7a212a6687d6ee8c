"""The parts of Jobs, Pods and Deployments that decisions read, as values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flywheel.specs import trainer_job, vllm
from flywheel.specs.pods import LABEL

Body = Mapping[str, Any]
IMAGE_PULL_REASONS = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
# The container that a pod is for, by the label `component`. The kubelet sorts statuses by name, and a mesh or a podTemplate adds others.
MAIN = {"trainer": trainer_job.CONTAINER, "vllm": vllm.CONTAINER, "router": "agent", "collector": "collector"}
CHECK = "verify-model"


@dataclass(frozen=True)
class PodState:
    """One pod, seen through its main container, or through the init container that keeps it from starting."""

    name: str
    uid: str = ""
    phase: str = "Pending"
    ip: str | None = None
    ready: bool = False
    created: dt.datetime | None = None
    deleting: bool = False
    waiting_reason: str | None = None
    waiting_message: str = ""
    restarts: int = 0
    exit_code: int | None = None  # of the last termination
    terminated_reason: str | None = None  # OOMKilled, Error, Completed
    termination_message: str = ""
    started: dt.datetime | None = None
    finished: dt.datetime | None = None
    pod_reason: str | None = None  # Evicted, NodeLost…
    disrupted: bool = False  # condition DisruptionTarget
    unschedulable: str | None = None
    image_id: str | None = None  # of the main container, with the digest the node knows it by

    @property
    def image_pull_failed(self) -> bool:
        """Whether the kubelet can't get the image."""
        return self.waiting_reason in IMAGE_PULL_REASONS


@dataclass(frozen=True)
class JobState:
    """One attempt of a run."""

    name: str
    uid: str
    attempt: int
    suspended: bool = False
    succeeded: bool = False
    failed: bool = False
    failure_reason: str | None = None  # BackoffLimitExceeded, DeadlineExceeded, PodFailurePolicy
    deleting: bool = False
    created: dt.datetime | None = None
    finished: dt.datetime | None = None  # when it became complete or failed
    pods: tuple[PodState, ...] = ()


@dataclass(frozen=True)
class DeploymentState:
    """One arm, router or collector."""

    name: str
    uid: str
    replicas: int
    ready_replicas: int = 0
    updated: bool = True  # observedGeneration has caught up
    owner_uid: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    hash: str | None = None  # annotation modelflywheel.dev/hash: what it was applied from
    created: dt.datetime | None = None
    pods: tuple[PodState, ...] = ()


def parse_time(value: str | None) -> dt.datetime | None:
    """A Kubernetes timestamp."""
    return dt.datetime.fromisoformat(value.replace("Z", "+00:00")) if value else None


def _conditions(body: Body) -> dict[str, Body]:
    return {c["type"]: c for c in (body.get("status") or {}).get("conditions") or ()}


def _container(status: Body, kind: str, name: str) -> Body:
    return next((c for c in status.get(kind) or () if c["name"] == name), {})


def _telling_container(status: Body, main: Body) -> Body:
    """The container that says why the pod is where it is: while the main one may not start, an init container that failed or waits."""
    state = main.get("state") or {}
    if state and (state.get("waiting") or {}).get("reason") != "PodInitializing":
        return main
    for container in status.get("initContainerStatuses") or ():
        state, last = container.get("state") or {}, container.get("lastState") or {}
        ended = state.get("terminated") or last.get("terminated") or {}
        waits_for = (state.get("waiting") or {}).get("reason", "PodInitializing")
        if ended.get("exitCode") or waits_for not in ("PodInitializing", "ContainerCreating"):
            return dict(container)
    return main


def pod_state(body: Body) -> PodState:
    """Read a Pod."""
    meta, status = body["metadata"], body.get("status") or {}
    conditions = _conditions(body)
    main = _container(status, "containerStatuses", MAIN.get((meta.get("labels") or {}).get(LABEL + "component", ""), ""))
    check = _container(status, "initContainerStatuses", CHECK)
    telling = _telling_container(status, main)
    state, last = telling.get("state") or {}, telling.get("lastState") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    running = state.get("running") or {}
    scheduled = conditions.get("PodScheduled") or {}
    return PodState(
        name=meta["name"],
        uid=meta.get("uid", ""),
        phase=status.get("phase", "Pending"),
        ip=status.get("podIP"),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        created=parse_time(meta.get("creationTimestamp")),
        deleting="deletionTimestamp" in meta,
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message", ""),
        restarts=max(container.get("restartCount", 0) for container in (main, check)),
        exit_code=ended.get("exitCode"),
        terminated_reason=ended.get("reason"),
        termination_message=ended.get("message", ""),
        started=parse_time(ended.get("startedAt") or running.get("startedAt")),
        finished=parse_time(ended.get("finishedAt")),
        pod_reason=status.get("reason"),
        disrupted=(conditions.get("DisruptionTarget") or {}).get("status") == "True",
        unschedulable=scheduled.get("message") if scheduled.get("reason") == "Unschedulable" else None,
        image_id=(main.get("imageID") or "")[:512] or None,
    )


def job_state(body: Body, pods: Iterable[Body], attempt: int) -> JobState:
    """Read a Job and its pods, newest pod first."""
    conditions = _conditions(body)
    failed, complete = conditions.get("Failed") or {}, conditions.get("Complete") or {}
    states = sorted((pod_state(p) for p in pods), key=lambda p: (p.created is not None, p.created), reverse=True)
    return JobState(
        name=body["metadata"]["name"],
        uid=body["metadata"].get("uid", ""),
        attempt=attempt,
        suspended=bool((body.get("spec") or {}).get("suspend")),
        succeeded=complete.get("status") == "True",
        failed=failed.get("status") == "True",
        failure_reason=failed.get("reason"),
        deleting="deletionTimestamp" in body["metadata"],
        created=parse_time(body["metadata"].get("creationTimestamp")),
        finished=parse_time(complete.get("lastTransitionTime") or failed.get("lastTransitionTime")),
        pods=tuple(states),
    )


def deployment_state(body: Body, pods: Iterable[Body] = ()) -> DeploymentState:
    """Read a Deployment and its pods."""
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    controller = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    return DeploymentState(
        name=meta["name"],
        uid=meta.get("uid", ""),
        replicas=spec.get("replicas", 1),
        ready_replicas=status.get("readyReplicas", 0),
        updated=status.get("observedGeneration", 0) >= meta.get("generation", 0),
        owner_uid=controller["uid"] if controller else None,
        labels=meta.get("labels") or {},
        hash=(meta.get("annotations") or {}).get("modelflywheel.dev/hash"),
        created=parse_time(meta.get("creationTimestamp")),
        pods=tuple(pod_state(p) for p in pods),
    )
