"""Observer and planner of each kind, paired."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import TypeVar

from flywheel.plan.base import Manifest, Plan
from flywheel.plan.flywheel import plan_flywheel
from flywheel.plan.generation import plan_generation
from flywheel.plan.reward_model import plan_reward_model
from flywheel.plan.rollout import plan_rollout
from flywheel.plan.routes_orphaned import plan_routes
from flywheel.plan.training_run import plan_training_run
from flywheel.runtime.cache import View
from flywheel.runtime.keys import Key
from flywheel.runtime.observe import World
from flywheel.runtime.observe_flywheel import observe_flywheel
from flywheel.runtime.observe_generation import observe_generation
from flywheel.runtime.observe_reward_model import observe_reward_model
from flywheel.runtime.observe_rollout import observe_rollout
from flywheel.runtime.observe_routes import observe_routes
from flywheel.runtime.observe_training_run import observe_training_run
from flywheel.runtime.reconcile import PlanOne

Observed = TypeVar("Observed")
Observe = Callable[[View, Manifest, World, dt.datetime], Awaitable[Observed]]


def planners(world: World) -> dict[str, PlanOne]:
    """By kind. Of ConfigMaps, only routes are ever planned."""
    return {
        "Flywheel": _pair(observe_flywheel, plan_flywheel, world),
        "Generation": _pair(observe_generation, plan_generation, world),
        "TrainingRun": _claiming(_pair(observe_training_run, plan_training_run, world), world),
        "RewardModel": _pair(observe_reward_model, plan_reward_model, world),
        "Rollout": _pair(observe_rollout, plan_rollout, world),
        "ConfigMap": _pair(observe_routes, plan_routes, world),
    }


def _pair(observe: Observe[Observed], plan: Callable[[Observed, dt.datetime], Plan], world: World) -> PlanOne:
    async def one(view: View, body: Manifest, now: dt.datetime) -> Plan:
        return plan(await observe(view, body, world, now), now)

    return one


def _claiming(plan: PlanOne, world: World) -> PlanOne:
    """What a run takes of the GPU budgets counts from the moment it is planned, for whoever plans next."""

    async def one(view: View, body: Manifest, now: dt.datetime) -> Plan:
        planned = await plan(view, body, now)
        world.gpus.claim(Key("TrainingRun", view.namespace, body["metadata"]["name"]), body, planned.status)
        return planned

    return one
