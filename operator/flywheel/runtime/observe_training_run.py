"""What surrounds a TrainingRun: what it refers to, its Jobs with their pods, and its trainer's word on progress."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from flywheel.api.generation import Generation
from flywheel.api.reward_model import RewardModel
from flywheel.api.training_run import TrainingRun
from flywheel.plan.attempts import running_pod
from flywheel.plan.base import LABEL, Manifest
from flywheel.plan.kube import JobState, job_set_state, job_state, pod_state
from flywheel.plan.references import Key as Reference
from flywheel.plan.references import referenced
from flywheel.plan.training_run import POLL, TrainingRunObserved
from flywheel.runtime.cache import View
from flywheel.runtime.observe import World

QUEUE_EVERY = dt.timedelta(seconds=10)
SLACK = dt.timedelta(seconds=0.2)  # a look that comes a little early asks all the same
_MODELS: dict[str, type[TrainingRun] | type[RewardModel] | type[Generation]] = {
    "TrainingRun": TrainingRun,
    "RewardModel": RewardModel,
    "Generation": Generation,
}


async def observe_training_run(view: View, body: Manifest, world: World, now: dt.datetime) -> TrainingRunObserved:
    """Everything from the caches, and the progress of the pod that runs."""
    run = world.parser.parse(TrainingRun, body)
    jobs, pods_of_jobs, pods = _jobs(view, run)
    trainer = running_pod(jobs)
    progress, poll = None, POLL
    if trainer is not None and trainer.ip:
        address = trainer.ip
        poll = world.trainers.interval(trainer.uid, now)
        progress = await world.throttle.ask(f"progress/{trainer.uid}", poll - SLACK, now, lambda: world.trainer.progress(address))
    return TrainingRunObserved(
        run=run,
        jobs=jobs,
        objects=dict(_objects(view, world, referenced(run.spec))),
        stray_pods=tuple(pod_state(p) for p in pods if p["metadata"]["uid"] not in pods_of_jobs),
        progress=progress,
        queue_says=await _queue_says(jobs, run, world, now),
        backends=world.backends(),
        poll=poll,
        refused=view.refused,
        gpu_wait=world.gpus.ask(run),  # after everything that takes time: what is free now is claimed in this very pass
        defaults=world.defaults,
    )


def _jobs(view: View, run: TrainingRun) -> tuple[tuple[JobState, ...], set[str], list[Manifest]]:
    """(the run's own Jobs and JobSets, the uids of their pods, all pods labelled as the run's)."""
    name, uid = run.metadata.name, run.metadata.uid
    labelled, pods = view.labelled("Job", "training-run", name), view.labelled("Pod", "training-run", name)

    def pods_of(*owners: Manifest) -> list[Manifest]:
        uids = {owner["metadata"]["uid"] for owner in owners}
        return [pod for pod in pods if uids & set(_owners(pod))]

    states: list[JobState] = []
    theirs: set[str] = set()
    for body in labelled:
        if uid in _owners(body):
            mine = pods_of(body)
            theirs |= {pod["metadata"]["uid"] for pod in mine}
            states.append(job_state(body, mine, _attempt(body)))
        elif not any(owner["kind"] == "JobSet" for owner in body["metadata"].get("ownerReferences") or ()):
            theirs |= {pod["metadata"]["uid"] for pod in pods_of(body)}  # somebody else's Job with our label
    for body in view.labelled("JobSet", "training-run", name):
        if uid in _owners(body):
            jobs = [job for job in labelled if body["metadata"]["uid"] in _owners(job)]
            mine = pods_of(*jobs)
            theirs |= {pod["metadata"]["uid"] for pod in mine}
            states.append(job_set_state(body, jobs, mine, _attempt(body)))
    return tuple(states), theirs, pods


async def _queue_says(jobs: tuple[JobState, ...], run: TrainingRun, world: World, now: dt.datetime) -> str | None:
    """Kueue's word, asked only while the newest Job waits for it."""
    newest = max(jobs, key=lambda job: job.attempt, default=None)
    if world.queues is None or newest is None or newest.queue is None or not newest.suspended or newest.failed or newest.succeeded:
        return None
    queues, namespace, uid = world.queues, run.metadata.namespace, newest.uid
    return await world.throttle.ask(f"queue/{uid}", QUEUE_EVERY, now, lambda: queues.waits_for(namespace, uid))


def _owners(body: Manifest) -> list[str]:
    return [owner["uid"] for owner in body["metadata"].get("ownerReferences") or ()]


def _attempt(job: Manifest) -> int:
    label = (job["metadata"].get("labels") or {}).get(LABEL + "attempt", "")
    return int(label) if label.isdigit() else 0


def _objects(view: View, world: World, keys: frozenset[Reference]) -> Iterator[tuple[Reference, Any]]:
    for kind, name in sorted(keys):
        body = view.get(kind, name)
        if body is not None:
            yield (kind, name), world.parser.parse(_MODELS[kind], body)
