"""What surrounds a Generation: its Flywheel, its snapshot, its children and the queue for the users."""

from __future__ import annotations

import datetime as dt

from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Generation, GenerationSpec
from flywheel.api.reward_model import RewardModel
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import Manifest
from flywheel.plan.generation_observed import GenerationObserved, other_rollout
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
    siblings = view.of_service("Generation", generation.spec.flywheel) if status.revision is None else []
    return GenerationObserved(
        generation=generation,
        flywheel=flywheel,
        defaults=world.defaults,
        snapshot=parse(GenerationSpec, snapshot, "data", "spec") if snapshot else None,
        training_runs={b["metadata"]["name"]: parse(TrainingRun, b) for b in view.owned("TrainingRun", uid)},
        reward_models={b["metadata"]["name"]: parse(RewardModel, b) for b in view.owned("RewardModel", uid)},
        rollout=parse(Rollout, rollout) if rollout else None,
        other_rollout=other_rollout(generation, rollouts, flywheel),
        siblings=tuple(parse(Generation, b) for b in siblings),
        rollouts=tuple(rollouts),
    )
