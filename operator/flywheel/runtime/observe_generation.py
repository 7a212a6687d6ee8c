"""What surrounds a Generation: its Flywheel, its snapshot, its children and the queue for the users."""

from __future__ import annotations

import datetime as dt

from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Generation, GenerationSpec, Stage
from flywheel.api.reward_model import RewardModel
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import Manifest
from flywheel.plan.collection import gone
from flywheel.plan.generation_cache import looks_back
from flywheel.plan.generation_lap import stages_if_any
from flywheel.plan.generation_observed import GenerationObserved, other_rollout
from flywheel.plan.recording import RECORD
from flywheel.runtime.cache import View
from flywheel.runtime.observe import World


async def observe_generation(view: View, body: Manifest, world: World, now: dt.datetime) -> GenerationObserved:
    """All of it from the caches."""
    generation = world.parser.parse(Generation, body)
    parse, uid, status = world.parser.parse, generation.metadata.uid, generation.status
    owner = view.get("Flywheel", generation.spec.flywheel)
    snapshot = view.get("ControllerRevision", status.snapshot) if status.snapshot else None
    # By name, but only ours: a foreign one is no answer of the users, and its name is a NameConflict when ours is applied.
    rollout = next((b for b in view.owned("Rollout", uid) if b["metadata"]["name"] == status.rollout), None)
    rollouts = [parse(Rollout, b) for b in view.of_service("Rollout", generation.spec.flywheel)]
    flywheel = parse(Flywheel, owner) if owner else None
    # Who was rejected before is asked once: a lap that has begun need not wake for what becomes of its siblings.
    # And one that may have to go looks whether somebody else remembers it.
    leaves = status.decision is not None and generation.spec.ttl_after_finished is not None
    siblings = view.of_service("Generation", generation.spec.flywheel) if status.revision is None or leaves else []
    spec = parse(GenerationSpec, snapshot, "data", "spec") if snapshot else None
    stages = tuple(Stage.model_validate(s) for s in snapshot["data"].get("stages", ())) if snapshot else ()
    children = {b["metadata"]["name"]: parse(TrainingRun, b) for b in view.owned("TrainingRun", uid)}
    records = {name: run for name, run in children.items() if RECORD in run.metadata.labels}
    models = {b["metadata"]["name"]: parse(RewardModel, b) for b in view.owned("RewardModel", uid)}
    trained = [b for model in models.values() for b in view.owned("TrainingRun", model.metadata.uid)]
    earlier = _earlier_runs(view, generation, spec, stages, world)
    return GenerationObserved(
        generation=generation,
        flywheel=flywheel,
        defaults=world.defaults,
        snapshot=spec,
        stages=stages or None,
        training_runs={name: run for name, run in children.items() if name not in records},
        reward_models=models,
        reward_runs={b["metadata"]["name"]: parse(TrainingRun, b) for b in trained},
        record_runs=records,
        rollout=parse(Rollout, rollout) if rollout else None,
        other_rollout=other_rollout(generation, rollouts, flywheel),
        siblings=tuple(parse(Generation, b) for b in siblings),
        rollouts=tuple(rollouts),
        records=_records(view, generation, spec, stages, flywheel, world),
        earlier_runs=earlier,
        gone=gone(flywheel, earlier),
    )


def _records(
    view: View, generation: Generation, spec: GenerationSpec | None, stages: tuple[Stage, ...], flywheel: Flywheel | None, world: World
) -> dict[str, Generation]:
    """The laps whose numbers a gate is measured against, if one is: those that made the parent and today's champion."""
    status = generation.status
    if status.decision is not None or not any(gate.baseline != "Absolute" for stage in _stages(spec, stages) for gate in stage.gates):
        return {}
    champions = (status.parent, status.opponent, flywheel.status.champion if flywheel else None)
    names = {champion.generation for champion in champions if champion is not None} - {generation.metadata.name}
    found = {name: view.get("Generation", name) for name in sorted(names)}
    records = {name: world.parser.parse(Generation, body) for name, body in found.items() if body is not None}
    return {name: lap for name, lap in records.items() if lap.spec.flywheel == generation.spec.flywheel}


def _earlier_runs(
    view: View, generation: Generation, spec: GenerationSpec | None, stages: tuple[Stage, ...], world: World
) -> tuple[TrainingRun, ...]:
    """The Flywheel's runs, while one of them may save the lap its own: a lap that has all it needs is not woken by others."""
    if spec is None or not looks_back(generation, spec, _stages(spec, stages), world.defaults):
        return ()
    return tuple(world.parser.parse(TrainingRun, b) for b in view.labelled("TrainingRun", "flywheel", generation.spec.flywheel))


def _stages(spec: GenerationSpec | None, pinned: tuple[Stage, ...]) -> tuple[Stage, ...]:
    return stages_if_any(spec, pinned) if spec else ()
