"""What surrounds a RewardModel: the TrainingRun that makes it."""

from __future__ import annotations

import datetime as dt

from flywheel.api.reward_model import RewardModel
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import Manifest
from flywheel.plan.reward_model import RewardModelObserved, training_run_name
from flywheel.runtime.cache import View
from flywheel.runtime.observe import World


async def observe_reward_model(view: View, body: Manifest, world: World, now: dt.datetime) -> RewardModelObserved:
    """All of it from the caches."""
    model = world.parser.parse(RewardModel, body)
    child = view.get("TrainingRun", training_run_name(model))
    return RewardModelObserved(
        reward_model=model,
        training_run=world.parser.parse(TrainingRun, child) if child else None,
        defaults=world.defaults,
    )
