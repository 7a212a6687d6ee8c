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
from flywheel.plan.kube import job_state, pod_state
from flywheel.plan.references import Key as Reference
from flywheel.plan.references import referenced
from flywheel.plan.training_run import POLL, TrainingRunObserved
from flywheel.runtime.cache import View
from flywheel.runtime.observe import World

SLACK = dt.timedelta(seconds=0.2)  # a look that comes a little early asks all the same
_MODELS: dict[str, type[TrainingRun] | type[RewardModel] | type[Generation]] = {
    "TrainingRun": TrainingRun,
    "RewardModel": RewardModel,
    "Generation": Generation,
}


async def observe_training_run(view: View, body: Manifest, world: World, now: dt.datetime) -> TrainingRunObserved:
    """Everything from the caches, and the progress of the pod that runs."""
    run = world.parser.parse(TrainingRun, body)
    found = view.labelled("Job", "training-run", run.metadata.name)
    owned = [b for b in found if run.metadata.uid in _owners(b)]
    pods = view.labelled("Pod", "training-run", run.metadata.name)
    jobs = tuple(job_state(b, [p for p in pods if b["metadata"]["uid"] in _owners(p)], _attempt(b)) for b in owned)
    present = {b["metadata"]["uid"] for b in found}
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
        stray_pods=tuple(pod_state(p) for p in pods if not present & set(_owners(p))),
        progress=progress,
        poll=poll,
        refused=view.refused,
        defaults=world.defaults,
    )


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
