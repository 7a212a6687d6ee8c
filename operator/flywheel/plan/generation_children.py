"""The objects that run a lap's stages: what they are made from, and which of them must go on, pause or leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from flywheel.api.base import API_VERSION
from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Generation, Stage, StageStatus
from flywheel.api.names import RETRY
from flywheel.api.reward_model import RewardModel, RewardModelTemplate
from flywheel.api.training_run import TrainingRun, TrainingTemplate
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Apply, Delete, Manifest, Owner, child_name
from flywheel.plan.generation_inputs import Surroundings, resolve
from flywheel.plan.generation_observed import GenerationObserved

Child = TrainingRun | RewardModel
Template = TrainingTemplate | RewardModelTemplate


def kind_of(stage: Stage) -> Literal["TrainingRun", "RewardModel"]:
    """The kind that runs a stage."""
    return "TrainingRun" if stage.run else "RewardModel"


def children(observed: GenerationObserved, stage: Stage) -> Mapping[str, Child]:
    """The children of the stage's kind, by name."""
    return observed.training_runs if stage.run else observed.reward_models


def resolved(stage: Stage, around: Surroundings) -> Template:
    """What a stage asks for, with every reference made concrete."""
    if stage.run:
        return resolve(stage.run, around)
    reward = stage.reward_model or RewardModelTemplate()
    return reward.model_copy(update={"training": reward.training and resolve(reward.training, around)})


def name_for(generation: Generation, stage: Stage, template: Template, rerun: str | None) -> str:
    """The child's name, from everything that decides its result: other inputs are another child, and so is another run of the same ones."""
    # A default that a newer operator adds or changes is no other input: a running lap survives an upgrade.
    asked = template.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return child_name(generation.metadata, stage.name, asked, *([rerun] if rerun else []))


def manifest(generation: Generation, flywheel: Flywheel, stage: Stage, template: Template, name: str, token: str | None) -> Manifest:
    """The child of a stage, with the retry that it is to heed."""
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
    if token:
        metadata["annotations"] = {RETRY: token}
    spec = {**template.dump(), "storage": flywheel.spec.storage.dump(), "suspend": generation.spec.suspend}
    return {"apiVersion": API_VERSION, "kind": kind_of(stage), "metadata": metadata, "spec": spec}


def ensure(child: Child | None, wanted: Manifest, token: str | None, *, suspend: bool) -> list[Action]:
    """Make the child, and hand suspend and retry down to one that has not ended well."""
    if child is None:
        return [] if suspend else [Apply(wanted)]
    ended = child.status.phase in ("Succeeded", "Ready")
    retried = token is None or child.metadata.annotations.get(RETRY) == token
    same = child.spec.suspend == suspend and retried
    return [] if ended or same else [Apply(wanted)]


def answers(child: Child, token: str | None) -> bool:
    """Whether a failure is about this try, not about the one before a retry that the child has yet to see."""
    if token is None:
        return True
    if isinstance(child, RewardModel):
        return child.status.retry == token
    attempts = child.status.attempts
    heeded = not attempts or attempts[-1].retry_token == token
    return child.metadata.annotations.get(RETRY) == token and heeded


def pause_unfinished(observed: GenerationObserved) -> list[Action]:
    """What a lap that has ended left running is paused: its record stays, its pods go, and a retry of the lap takes it up again.

    A child that somebody asked to be tried again by itself goes on.
    """
    status = observed.generation.status
    going_on = goes_on(observed, status.stages)
    return [Apply(_paused(c)) for c in unfinished(observed) if not c.spec.suspend and c.metadata.name not in going_on]


def goes_on(observed: GenerationObserved, stages: tuple[StageStatus, ...]) -> frozenset[str]:
    """Children that somebody other than their lap has asked to be tried again."""
    heeded = {None, observed.generation.status.retry, *(stage.retry for stage in stages)}
    return frozenset(c.metadata.name for c in unfinished(observed) if c.metadata.annotations.get(RETRY) not in heeded)


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
    return {"apiVersion": API_VERSION, "kind": type(child).__name__, "metadata": metadata, "spec": spec}


def superseded(observed: GenerationObserved, wanted: set[str]) -> list[Action]:
    """Children of inputs that hold no more and that still run are removed: one live child a role."""
    return [
        Delete(API_VERSION, type(c).__name__, c.metadata.namespace, c.metadata.name, c.metadata.uid)
        for c in unfinished(observed)
        if c.metadata.name not in wanted
    ]


def unfinished(observed: GenerationObserved) -> list[Child]:
    """The lap's own children that have not ended."""
    found: list[Child] = [*observed.training_runs.values(), *observed.reward_models.values()]
    finished = ("Succeeded", "Failed", "Ready")
    mine = observed.generation.metadata.uid
    return [
        c
        for c in found
        if c.status.phase not in finished
        and c.metadata.deletion_timestamp is None
        and any(o.uid == mine and o.controller for o in c.metadata.owner_references)
    ]
