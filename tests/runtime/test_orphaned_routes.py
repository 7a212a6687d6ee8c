"""A Flywheel that is deleted in the middle of an A/B leaves no user with a candidate that nobody judges; nothing else changes for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.plan.rollout_world import EQUAL, evidence
from tests.runtime import faketime
from tests.runtime.simulated_api import Body, Ref
from tests.runtime.simulated_cluster import SimulatedCluster, rendered_once
from tests.runtime.test_adoption import deploy
from tests.runtime.test_killed_anywhere import FLYWHEEL

DEMO = Ref("Flywheel", "demo")
LONG = {"interval": "2s", "window": "100h", "horizon": "2s", "minimumUsers": 50}


def asking(policy: str) -> Body:
    """A Flywheel whose laps ask users for days."""
    spec: dict[str, Any] = copy.deepcopy({**FLYWHEEL, "deletionPolicy": policy})
    spec["generationTemplate"]["rollout"]["analysis"] = LONG
    return spec


def routes(cluster: SimulatedCluster) -> Body:
    return cluster.state.routes[-1]


async def in_mid_experiment(cluster: SimulatedCluster, policy: str = "Retain", **spec: Any) -> None:
    """Live until half of the users are asked."""
    cluster.kept = lambda: 60.0
    cluster.answer = lambda experiment: evidence(EQUAL, EQUAL)
    cluster.make("Flywheel", "demo", {**asking(policy), **spec})
    async with cluster.operator():
        for _ in range(200):
            await cluster.live(0.5)
            if cluster.state.routes and routes(cluster)["weightPercent"] == 50:
                return
    raise AssertionError("users were never asked")


@pytest.mark.parametrize("away", [False, True])
def test_all_users_return_to_stable_when_the_last_judge_is_deleted_even_while_the_operator_is_away(away: bool) -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        await in_mid_experiment(cluster)
        stable, arms = routes(cluster)["stable"], {r for r in cluster.state.objects if r.kind == "Deployment"}
        if away:
            cluster.api.remove(DEMO)
            await cluster.live(5)
            assert cluster.state.every("Rollout") == []
            cluster.jump(86400)
            await cluster.live(5)
            assert routes(cluster)["weightPercent"] == 50  # an absent operator changes nobody's model
            async with cluster.operator():
                await cluster.live(3)
        else:
            async with cluster.operator():
                await cluster.live(1)
                cluster.api.remove(DEMO)
                await cluster.live(4)
        last = routes(cluster)
        assert (last["candidate"], last["experiment"], last["weightPercent"], last["stable"]) == (None, None, 0, stable)
        assert {r for r in cluster.state.objects if r.kind == "Deployment"} == arms  # under Retain nothing that was made goes

    with rendered_once():
        faketime.run(story())


def test_home_may_be_a_deployment_that_was_adopted() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        deploy(cluster)
        await in_mid_experiment(cluster, adopt={"deployment": "llama", "port": 8001})
        stable = routes(cluster)["stable"]
        assert "adopted" in stable["arm"]
        cluster.api.remove(DEMO)
        async with cluster.operator():
            await cluster.live(5)
        assert (routes(cluster)["candidate"], routes(cluster)["stable"]) == (None, stable)

    with rendered_once():
        faketime.run(story())


def test_users_are_not_sent_home_while_home_does_not_answer() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        await in_mid_experiment(cluster)
        stable, down = routes(cluster)["stable"]["arm"], True
        cluster.serves = lambda pod: not (down and pod["metadata"]["name"].startswith(stable))
        await cluster.live(2)
        async with cluster.operator():
            cluster.api.remove(DEMO)
            await cluster.live(15)
            assert routes(cluster)["weightPercent"] == 50
            down = False
            await cluster.live(15)
            assert routes(cluster)["candidate"] is None

    with rendered_once():
        faketime.run(story())


def test_under_delete_everything_goes_and_nothing_is_made_again() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        await in_mid_experiment(cluster, "Delete")
        async with cluster.operator() as operator:
            await cluster.live(1)
            cluster.api.remove(DEMO)
            await cluster.live(15)
            assert operator.errors == []
        left = {ref for ref in cluster.state.objects if ref.kind in ("ConfigMap", "Deployment", "ControllerRevision", "Rollout")}
        assert left == set()

    with rendered_once():
        faketime.run(story())


def test_a_rollout_deleted_under_a_living_flywheel_is_its_flywheels_business() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        await in_mid_experiment(cluster)
        async with cluster.operator():
            await cluster.live(1)
            written = len(cluster.state.routes)
            cluster.api.remove(Ref("Generation", "demo-1"))
            await cluster.live(15)
            assert routes(cluster)["candidate"] is None
            assert len(cluster.state.routes) == written + 1

    with rendered_once():
        faketime.run(story())
