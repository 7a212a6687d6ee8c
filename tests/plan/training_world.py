"""A cluster made of values: it does what a plan asks for, and pods do what a test says."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field, replace
from typing import Any

from flywheel.api.names import RETRY
from flywheel.api.training_run import Attempt, Backend, TrainingRun
from flywheel.plan.base import Apply, Create, Delete, Emit, Plan
from flywheel.plan.gpu_budget import Wait
from flywheel.plan.kube import JobState, PodState
from flywheel.plan.references import Objects
from flywheel.plan.training_run import TrainingRunObserved, plan_training_run
from tests.builders import T0, make_training_run, pod_state, seconds, waiting_pod


@dataclass
class World:
    run: TrainingRun = field(default_factory=make_training_run)
    now: dt.datetime = T0
    jobs: dict[str, JobState] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)  # every Job that ever was
    config_maps: dict[str, Any] = field(default_factory=dict)  # immutable: the first run.json under a name stays
    configs: dict[str, Any] = field(default_factory=dict)  # what the trainer of each Job reads
    stray: list[PodState] = field(default_factory=list)
    events: list[Emit] = field(default_factory=list)
    objects: Objects = field(default_factory=dict)
    progress: dict[str, Any] | None = None
    backends: frozenset[Backend] = frozenset({"Job"})
    services: dict[str, Any] = field(default_factory=dict)
    queue_says: str | None = None
    refused: str | None = None
    gpu_wait: Wait | None = None
    plan: Plan = field(default_factory=lambda: Plan({}))

    # ------------------------------------------------------------------------------------------------------- operator

    def step(self, *, after: float = 0, crash: bool = False, jobs: tuple[JobState, ...] | None = None) -> World:
        """One pass of the operator. `crash`: the status was persisted, the actions were lost. `jobs`: a stale view of them."""
        self.now += seconds(after)
        seen = tuple(self.jobs.values()) if jobs is None else jobs
        observed = TrainingRunObserved(
            run=self.run,
            jobs=seen,
            objects=self.objects,
            stray_pods=tuple(self.stray),
            progress=self.progress,
            refused=self.refused,
            gpu_wait=self.gpu_wait,
            backends=self.backends,
            queue_says=self.queue_says,
        )
        self.plan = plan_training_run(observed, self.now)
        json.dumps(self.plan.status, allow_nan=False)
        self.run = TrainingRun.model_validate(json.loads(json.dumps({**self.run.dump(), "status": self.plan.status})))
        if not crash:
            for action in self.plan.actions:
                self._do(action)
        return self

    def _do(self, action: Any) -> None:
        if isinstance(action, Emit):
            self.events.append(action)
        elif isinstance(action, Delete):
            if (job := self.jobs.get(action.name)) and job.uid == action.uid:
                self.delete_job()
        elif isinstance(action, Create) and action.manifest["kind"] == "ConfigMap":
            self.config_maps.setdefault(action.manifest["metadata"]["name"], json.loads(action.manifest["data"]["run.json"]))
        elif isinstance(action, Create) and action.manifest["kind"] == "Service":
            self.services.setdefault(action.manifest["metadata"]["name"], action.manifest)
        elif isinstance(action, Create):
            self._create_job(action.manifest)
        elif isinstance(action, Apply):
            meta = action.manifest["metadata"]
            job = self.jobs.get(meta["name"])
            if job is not None and job.uid == meta["uid"]:
                self.jobs[job.name] = replace(job, suspended=action.manifest["spec"]["suspend"])

    def _create_job(self, manifest: dict[str, Any]) -> None:
        meta, job = manifest["metadata"], manifest["spec"]
        if manifest["kind"] == "JobSet":
            job = job["replicatedJobs"][0]["template"]["spec"]
        template = job["template"]["spec"]
        if meta["name"] not in self.jobs and self.refused is None:
            mounted = next(volume["configMap"]["name"] for volume in template["volumes"] if volume["name"] == "config")
            self.configs[meta["name"]] = self.config_maps[mounted]
            attempt = int(meta["labels"]["modelflywheel.dev/attempt"])
            self.created.append(meta["name"])
            suspended = manifest["spec"]["suspend"]
            self.jobs[meta["name"]] = JobState(
                name=meta["name"],
                uid=f"uid-{len(self.created)}",
                attempt=attempt,
                suspended=suspended,
                created=self.now,
                backend=manifest["kind"],
                nodes=job["completions"],
                queue=meta["labels"].get("kueue.x-k8s.io/queue-name"),
            )

    # -------------------------------------------------------------------------------------------------------- cluster

    @property
    def job(self) -> JobState:
        return max(self.jobs.values(), key=lambda job: job.attempt)

    def live(self) -> list[JobState]:
        return [job for job in self.jobs.values() if not (job.failed or job.succeeded)]

    def pod(self, *pods: PodState, **job: Any) -> World:
        """The newest Job's pods, and how the Job is."""
        self.jobs[self.job.name] = replace(self.job, pods=pods, **job)
        return self

    def starts(self) -> World:
        return self.pod(pod_state("pod", started=self.now, created=self.now))

    def waits(self, **fields: Any) -> World:
        return self.pod(waiting_pod("pod", **fields))

    def ends(self, exit_code: int, message: str = "", **fields: Any) -> World:
        """The pod ends, and its Job with it."""
        pod = pod_state(
            "pod", exit_code=exit_code, termination_message=message, started=self.now, finished=self.now, created=self.now, **fields
        )
        done = {"succeeded": True} if exit_code == 0 else {"failed": True, "failure_reason": "BackoffLimitExceeded"}
        return self.pod(pod, **done, finished=self.now)

    def delete_job(self) -> World:
        del self.jobs[self.job.name]
        return self

    # ----------------------------------------------------------------------------------------------------------- user

    def edit(self, **spec: Any) -> World:
        """The user changes the spec."""
        body = self.run.dump()
        body["spec"] |= spec
        body["metadata"]["generation"] += 1
        self.run = TrainingRun.model_validate(body)
        return self

    def annotate_retry(self, token: str) -> World:
        body = self.run.dump()
        body["metadata"].setdefault("annotations", {})[RETRY] = token
        self.run = TrainingRun.model_validate(body)
        return self

    # -------------------------------------------------------------------------------------------------------- reading

    @property
    def phase(self) -> str:
        return self.run.status.phase

    @property
    def reason(self) -> str:
        return next(c.reason for c in self.run.status.conditions if c.type == "Succeeded")

    @property
    def message(self) -> str:
        return next(c.message for c in self.run.status.conditions if c.type == "Succeeded")

    @property
    def succeeded(self) -> str:
        return next(c.status for c in self.run.status.conditions if c.type == "Succeeded")

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return self.run.status.attempts

    @property
    def wait(self) -> float | None:
        return None if self.plan.requeue_at is None else (self.plan.requeue_at - self.now).total_seconds()


def started(**spec: Any) -> World:
    """A run whose first pod runs."""
    return World(run=make_training_run(**spec)).step().starts().step(after=2)
