"""The stages of a lap: which children must exist, and what they say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flywheel.api.base import API_VERSION, get_condition
from flywheel.api.common import Artifact
from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Champion, Generation, GenerationSpec, Stage, StageStatus
from flywheel.api.names import RETRY
from flywheel.api.reward_model import RewardModel, RewardModelTemplate
from flywheel.api.training_run import TrainingRun, TrainingTemplate
from flywheel.plan import gates
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Apply, Delete, Manifest, Owner, child_name
from flywheel.plan.generation_inputs import Surroundings, dependencies, resolve
from flywheel.plan.generation_observed import GenerationObserved

Child = TrainingRun | RewardModel


@dataclass(frozen=True)
class Lap:
    """What a pass over the stages found."""

    stages: tuple[StageStatus, ...]
    actions: tuple[Action, ...]


def plan_stages(
    observed: GenerationObserved, flywheel: Flywheel, spec: GenerationSpec, stages: tuple[Stage, ...], opponent: Champion, now: dt.datetime
) -> Lap:
    """Start what can start, read what runs, judge what has ended. Independent stages run side by side."""
    old = {s.name: s for s in observed.generation.status.stages}
    done: dict[str, StageStatus] = {}
    actions: list[Action] = []
    wanted: set[str] = set()
    pending = list(stages)
    while pending:
        stage = next((s for s in pending if all(d in done for d in dependencies(s))), pending[0])
        pending.remove(stage)
        before = old.get(stage.name) or StageStatus(name=stage.name, kind=_kind(stage))
        if any(d not in done or done[d].phase != "Passed" for d in dependencies(stage)):
            done[stage.name] = StageStatus(name=stage.name, kind=_kind(stage))
            continue
        artifacts = {name: s.artifact for name, s in done.items() if s.artifact}
        around = Surroundings(spec, flywheel, opponent, artifacts, observed.generation.status.quarantined)
        manifest = _child_manifest(observed, flywheel, stage, around)
        name = manifest["metadata"]["name"]
        wanted.add(name)
        child = _children(observed, stage).get(name)
        if child is None and before.child == name and before.phase == "Passed":
            done[stage.name] = before  # what it made is on record, whatever became of its child
            continue
        actions += _ensure(child, manifest, observed.generation)
        done[stage.name] = _read(stage, before if before.child == name else None, name, child, observed.generation, now)
    actions += [_remove(child) for child in _superseded(observed, wanted)]
    return Lap(tuple(done[s.name] for s in stages), tuple(actions))


def _kind(stage: Stage) -> Literal["TrainingRun", "RewardModel"]:
    return "TrainingRun" if stage.run else "RewardModel"


def _children(observed: GenerationObserved, stage: Stage) -> Mapping[str, Child]:
    return observed.training_runs if stage.run else observed.reward_models


def _child_manifest(observed: GenerationObserved, flywheel: Flywheel, stage: Stage, around: Surroundings) -> Manifest:
    """The child of a stage, named by everything that decides its result: other inputs are another child."""
    generation = observed.generation
    if stage.run:
        template: TrainingTemplate | RewardModelTemplate = resolve(stage.run, around)
    else:
        reward = stage.reward_model or RewardModelTemplate()
        template = reward.model_copy(update={"training": reward.training and resolve(reward.training, around)})
    spec = template.dump()
    # A default that a newer operator adds or changes is no other input: a running lap survives an upgrade.
    asked = template.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    name = child_name(generation.metadata, stage.name, asked)
    labels = {
        **MANAGED_BY,
        LABEL + "flywheel": flywheel.metadata.name,
        LABEL + "generation": generation.metadata.name,
        LABEL + "stage": stage.name,
    }
    metadata: Manifest = {
        "name": name,
        "namespace": generation.metadata.namespace,
        "labels": labels,
        "ownerReferences": [Owner("Generation", generation.metadata).reference()],
    }
    if generation.status.retry:
        metadata["annotations"] = {RETRY: generation.status.retry}
    spec["storage"] = flywheel.spec.storage.dump()
    spec["suspend"] = generation.spec.suspend
    return {"apiVersion": API_VERSION, "kind": _kind(stage), "metadata": metadata, "spec": spec}


def _ensure(child: Child | None, manifest: Manifest, generation: Generation) -> list[Action]:
    if child is None:
        return [] if generation.spec.suspend else [Apply(manifest)]
    ended = child.status.phase in ("Succeeded", "Ready")
    retried = child.metadata.annotations.get(RETRY) == generation.status.retry or generation.status.retry is None
    same = child.spec.suspend == generation.spec.suspend and retried
    return [] if ended or same else [Apply(manifest)]


def _read(
    stage: Stage, before: StageStatus | None, name: str, child: Child | None, generation: Generation, now: dt.datetime
) -> StageStatus:
    status = before or StageStatus(name=stage.name, kind=_kind(stage), child=name, start_time=now)
    if child is None:
        waiting = "spec.suspend is true" if generation.spec.suspend else "starting"
        return status.model_copy(update={"phase": "Waiting" if generation.spec.suspend else "Running", "message": waiting})
    made, metrics = child.status.artifact, child.status.metrics
    if child.status.phase in ("Succeeded", "Ready"):
        return _judge(stage, status, made, metrics, now)
    condition = get_condition(child.status.conditions, "Succeeded" if isinstance(child, TrainingRun) else "Ready")
    message = f"{condition.reason}: {condition.message}" if condition else "starting"
    if child.status.phase == "Failed" and _answers(child, generation):
        return status.model_copy(update={"phase": "Failed", "message": message[:4096], "completion_time": status.completion_time or now})
    progress = child.status.progress
    return status.model_copy(
        update={
            "phase": "Running",
            "message": message[:4096],
            "percent": progress.percent if progress else status.percent,
            "eta_seconds": progress.eta_seconds if progress else None,
        }
    )


def _answers(child: Child, generation: Generation) -> bool:
    """Whether a failure is about this lap, not about the one before a retry that the child has yet to see."""
    retry = generation.status.retry
    if retry is None:
        return True
    if isinstance(child, RewardModel):
        return child.status.retry == retry
    attempts = child.status.attempts
    heeded = not attempts or attempts[-1].retry_token == retry
    return child.metadata.annotations.get(RETRY) == retry and heeded


def _judge(stage: Stage, status: StageStatus, made: Artifact | None, metrics: Mapping[str, float], now: dt.datetime) -> StageStatus:
    results = gates.evaluate(stage.gates, metrics)
    level = gates.worst_failure(results)
    phase = {"Reject": "Rejected", "Hold": "Held"}.get(level or "", "Passed")
    message = (gates.failure_text(results, level)[:3900] + _win_rates(metrics)) if level else None
    return status.model_copy(
        update={
            "phase": phase,
            "artifact": made,
            "metrics": dict(metrics),
            "gates": results,
            "percent": 100.0,
            "eta_seconds": None,
            "completion_time": status.completion_time or now,
            "message": message,
        }
    )


def _win_rates(metrics: Mapping[str, float]) -> str:
    """Both win rates beside a failed gate: whether a model is too good, or the prompt sets disagree, is read off the pair."""
    pair = [f"{name} prompts {100 * metrics[key]:.1f} %" for name in ("user", "internal") if (key := f"win_rate_{name}") in metrics]
    return f"; win rate on {', on '.join(pair)}" if pair else ""


def pause_unfinished(observed: GenerationObserved) -> list[Action]:
    """What a lap that has ended left running is paused: its record stays, its pods go, and a retry of the lap takes it up again.

    A child that somebody asked to be tried again by itself goes on.
    """
    heeded = (None, observed.generation.status.retry)
    return [Apply(_paused(c)) for c in _unfinished(observed) if not c.spec.suspend and c.metadata.annotations.get(RETRY) in heeded]


def _paused(child: Child) -> Manifest:
    """The child as it was applied, but for `suspend`: a field that is left out would be taken from it."""
    meta = child.metadata
    metadata: Manifest = {
        "name": meta.name,
        "namespace": meta.namespace,
        "uid": meta.uid,  # one that is gone is not made again
        "labels": dict(meta.labels),
        "ownerReferences": [owner.dump() for owner in meta.owner_references],
    }
    if RETRY in meta.annotations:
        metadata["annotations"] = {RETRY: meta.annotations[RETRY]}
    spec = {**child.spec.dump(), "suspend": True}
    return {"apiVersion": API_VERSION, "kind": _kind_of(child), "metadata": metadata, "spec": spec}


def _superseded(observed: GenerationObserved, wanted: set[str]) -> list[Child]:
    """Children of inputs that hold no more and that still run: one live child a role."""
    return [child for child in _unfinished(observed) if child.metadata.name not in wanted]


def _unfinished(observed: GenerationObserved) -> list[Child]:
    children: list[Child] = [*observed.training_runs.values(), *observed.reward_models.values()]
    finished = ("Succeeded", "Failed", "Ready")
    mine = observed.generation.metadata.uid
    return [
        c
        for c in children
        if c.status.phase not in finished
        and c.metadata.deletion_timestamp is None
        and any(o.uid == mine and o.controller for o in c.metadata.owner_references)
    ]


def _remove(child: Child) -> Delete:
    meta = child.metadata
    return Delete(API_VERSION, _kind_of(child), meta.namespace, meta.name, meta.uid)


def _kind_of(child: Child) -> str:
    return "TrainingRun" if isinstance(child, TrainingRun) else "RewardModel"
