"""A whole lap in the simulated cluster, and what it leaves in the store and in the memory of its Flywheel."""

from __future__ import annotations

from typing import Any

from flywheel.plan.garbage import COLLECTION
from tests.runtime import faketime
from tests.runtime.simulated_cluster import SimulatedCluster, rendered_once
from tests.runtime.test_killed_anywhere import CONVERSATIONS, FLYWHEEL, laps_over, users


async def a_lap(retention: dict[str, Any]) -> SimulatedCluster:
    """The first lap, to its promotion, and a while after it."""
    cluster = SimulatedCluster()
    cluster.kept = lambda: CONVERSATIONS[1]
    cluster.answer = users
    cluster.make("Flywheel", "demo", {**FLYWHEEL, "artifacts": {"retention": retention}})
    async with cluster.operator() as operator:
        for _ in range(120):
            await cluster.live(1)
            if laps_over(cluster.state) == 1:
                break
        await cluster.live(12)
        assert operator.errors == []
    return cluster


def test_a_lap_is_followed_by_a_collection_that_keeps_all_that_the_cluster_refers_to() -> None:
    with rendered_once():
        state = faketime.run(a_lap({"policy": "Delete"})).state
    (run,) = [b for b in state.every("TrainingRun") if COLLECTION in (b["metadata"].get("labels") or {})]
    status = state.every("Flywheel")[0]["status"]
    assert (status["collection"]["phase"], status["collection"]["name"]) == ("Done", run["metadata"]["name"])
    keep = set(run["spec"]["parameters"]["keep"]["digests"])
    runs = [b["status"] for b in state.every("TrainingRun") if b is not run]
    made = [status_["artifact"]["digest"] for status_ in runs if status_["completionTime"] < status["collection"]["time"]]
    served = [status["champion"]["digest"], *(c["digest"] for c in status["previous"])]
    assert len(runs) == 5
    assert len(made) >= 4, "all but the record, which may be younger than the mark: then the grace keeps it"
    assert {digest[7:27] for digest in (*made, *served)} <= keep


def test_the_flywheel_remembers_who_was_in_front_of_how_many_users() -> None:
    with rendered_once():
        state = faketime.run(a_lap({})).state
    initial, first = state.every("Flywheel")[0]["status"]["lineage"]
    assert initial["servedUntil"] == first["servedFrom"]
    assert (first["generation"], first["verdict"], first["baseline"]) == ("demo-1", "Promoted", "demo-initial")
    assert [share["percent"] for share in first["shares"]] == [5, 50, 0]
    assert first["shares"][-1]["since"] == first["servedFrom"]
    assert first["recordUri"] == state.every("Generation")[0]["status"]["recordArtifact"]["uri"]
    assert [b for b in state.every("TrainingRun") if COLLECTION in (b["metadata"].get("labels") or {})] == []
