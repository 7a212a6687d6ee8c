"""A model service is made whole, however often its making is cut short."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from flywheel.api.common import Artifact, Serving, Storage
from flywheel.api.flywheel import Engagement, Router
from flywheel.plan import arms
from flywheel.plan.base import Action, Apply, Create, Defaults
from flywheel.plan.kube import DeploymentState, deployment_state
from flywheel.plan.service import service_actions
from tests.plan.rollout_world import BASE, OLD_ARM

Objects = dict[tuple[str, str], dict[str, Any]]  # by kind and name


def deployments(objects: Objects) -> dict[str, DeploymentState]:
    return {name: deployment_state(body) for (kind, name), body in objects.items() if kind == "Deployment"}


def service(objects: Objects) -> list[Action]:
    return service_actions(
        deployments(objects),
        service="demo",
        namespace="demo",
        router=Router(),
        engagement=Engagement(),
        storage=Storage(),
        owners=[],
        defaults=Defaults(),
    )


def arm(objects: Objects) -> list[Action]:
    render = partial(
        arms.anchor,
        arm=OLD_ARM,
        service="demo",
        generation="demo-initial",
        model=Artifact(uri="file:///flywheel/artifacts/a", digest=BASE),
        serving=Serving(),
        storage=Storage(),
        namespace="demo",
        owners=[],
        defaults=Defaults(),
    )
    return arms.arm_actions(objects.get(("ControllerRevision", OLD_ARM)), deployments(objects).get(OLD_ARM), render, arms.STABLE)


def do(objects: Objects, actions: list[Action]) -> None:
    for action in actions:
        assert isinstance(action, Apply | Create)
        body = action.manifest
        key = body["kind"], body["metadata"]["name"]
        objects[key] = {**body, "metadata": {**body["metadata"], "uid": "-".join(key)}}


def made(plan: Callable[[Objects], list[Action]], crash_after: int | None = None) -> Objects:
    """What stands in the end; with a crash after so many acts of the pass that applies the parts."""
    objects: Objects = {}
    while actions := plan(objects):
        applies = isinstance(actions[0], Apply)
        do(objects, actions[:crash_after] if applies else actions)
        crash_after = None if applies else crash_after
    return objects


@pytest.mark.parametrize("crash_after", range(12))
@pytest.mark.parametrize("plan", [service, arm])
def test_a_crash_between_any_two_parts_leaves_none_of_them_out(plan: Callable[[Objects], list[Action]], crash_after: int) -> None:
    whole = made(plan)
    assert {kind for kind, _ in whole} >= {"Deployment", "Service", "PodDisruptionBudget"}
    assert made(plan, crash_after) == whole
