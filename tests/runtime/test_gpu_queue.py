"""Runs of many namespaces' worth of passes share the GPUs: never more than there are, nobody forgotten, whatever dies or comes late."""

from __future__ import annotations

import random
from typing import Any

import pytest

from flywheel.runtime.gpu_queue import GpuQueue
from flywheel.runtime.keys import Key
from tests.builders import make_training_run, uri
from tests.runtime import faketime
from tests.runtime.simulated_api import Body
from tests.runtime.simulated_cluster import SimulatedCluster

LIMIT = 8
EIGHT = {"method": "SFT", "model": uri("base"), "datasets": [{"name": "train", "from": uri("data")}]}


def ask_for(cluster: SimulatedCluster, name: str, gpus: int, **labels: str) -> None:
    cluster.make("TrainingRun", name, {**EIGHT, "gpusPerNode": gpus})
    if labels:
        (body,) = [b for b in cluster.state.every("TrainingRun") if b["metadata"]["name"] == name]
        named = {f"modelflywheel.dev/{key}": value for key, value in labels.items()}
        cluster.api.put({**body, "metadata": {**body["metadata"], "labels": named}})


def run(cluster: SimulatedCluster, name: str) -> Body:
    return next(body for body in cluster.state.every("TrainingRun") if body["metadata"]["name"] == name)


def reason(cluster: SimulatedCluster, name: str) -> str:
    conditions = run(cluster, name)["status"]["conditions"]
    return str(next(c["reason"] for c in conditions if c["type"] == "Progressing"))


class Most:
    """The most GPUs that statuses ever promised, and that pods ever had."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.promised = self.used = 0
        self._cluster = cluster
        cluster.api.watchers.append(self.look)

    def look(self, _what: str, _body: Body) -> None:
        runs = {b["metadata"]["name"]: b for b in self._cluster.state.every("TrainingRun")}
        self.promised = max(self.promised, sum((b.get("status") or {}).get("gpus", 0) for b in runs.values()))
        alive = [p for p in self._cluster.state.every("Pod") if p["status"]["phase"] in ("Pending", "Running")]
        names = [p["metadata"]["labels"]["modelflywheel.dev/training-run"] for p in alive]
        self.used = max(self.used, sum(runs[name]["spec"]["gpusPerNode"] for name in names if name in runs))


@pytest.mark.parametrize("seed", range(6))
def test_passes_that_run_at_once_never_take_the_same_gpus_and_every_run_gets_its_turn(seed: int) -> None:
    chance = random.Random(seed)

    async def story() -> None:
        cluster = SimulatedCluster()
        cluster.gpu_budget, cluster.lag = LIMIT, lambda: chance.choice([0.0, 0.02, 0.4])
        most = Most(cluster)
        names = [f"r{number}" for number in range(14)]
        for name in names[:9]:
            ask_for(cluster, name, chance.choice([1, 2, 4, 8]))
        for _ in range(3):  # the operator is killed and comes back with empty hands
            async with cluster.operator() as operator:
                await cluster.live(chance.uniform(0.5, 6))
                for name in names[9:]:
                    if chance.random() < 0.5 and name not in {b["metadata"]["name"] for b in cluster.state.every("TrainingRun")}:
                        ask_for(cluster, name, chance.choice([1, 3, 8]))
                await cluster.live(chance.uniform(0.5, 6))
                assert operator.errors == []
        async with cluster.operator():
            await cluster.live(150)
        stuck = [(b["metadata"]["name"], b["status"]) for b in cluster.state.every("TrainingRun") if b["status"]["phase"] != "Succeeded"]
        assert stuck == []
        assert 0 < most.promised <= LIMIT
        assert 0 < most.used <= LIMIT

    faketime.run(story())


def test_a_waiting_run_is_woken_when_its_gpus_become_free_and_says_meanwhile_who_has_them() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        cluster.gpu_budget = LIMIT
        hold = True
        cluster.ends = lambda pod: (75, "") if hold else (0, "")
        ask_for(cluster, "first", 6)
        async with cluster.operator():
            await cluster.live(1)
            ask_for(cluster, "second", 4)
            await cluster.live(1)
            said = run(cluster, "second")["status"]["conditions"]
            told = {c["message"] for c in said}
            assert told == {"needs 4 GPUs, 2 of the operator's 8 are free; demo/first (6) holds the others"}
            for _ in range(20):
                await cluster.live(0.5)
                if not run(cluster, "first")["status"]["gpus"]:
                    break
            await cluster.live(1)  # the queue wakes it: it does not sleep until its next look
            assert run(cluster, "second")["status"]["gpus"] == 4

    faketime.run(story())


def test_a_flywheels_budget_holds_its_own_runs_and_nobody_elses_and_a_raised_one_wakes_them() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        cluster.conversations = lambda: 0.0
        base = {"uri": "file:///flywheel/models/base", "digest": "sha256:" + "a" * 64}
        made = cluster.make("Flywheel", "demo", {"base": base, "gpuBudget": 4})
        async with cluster.operator():
            await cluster.live(1)
            for name, owner in (("a", "demo"), ("b", "demo"), ("c", "other")):
                ask_for(cluster, name, 4, flywheel=owner)
            await cluster.live(1)
            assert [run(cluster, name)["status"]["gpus"] for name in "abc"] == [4, 0, 4]
            assert reason(cluster, "b") == "WaitingForGPUs"
            flywheel = cluster.state.every("Flywheel")[0]
            cluster.api.put({**flywheel, "spec": {**made["spec"], "gpuBudget": 8}})
            await cluster.live(1)
            assert run(cluster, "b")["status"]["gpus"] == 4

    faketime.run(story())


def body(name: str, *, gpus: int = 8, version: str = "1", **status: Any) -> Body:
    run_ = make_training_run(name, gpusPerNode=gpus, status=status).dump()
    return {**run_, "kind": "TrainingRun", "metadata": {**run_["metadata"], "resourceVersion": version}}


def test_a_claim_counts_before_its_status_is_written_and_until_that_is_seen() -> None:
    queue = GpuQueue(8)
    first, second = Key("TrainingRun", "demo", "first"), Key("TrainingRun", "demo", "second")
    begun = {"gpus": 8, "attempts": [{"number": 1, "job": "j"}]}
    queue.seen(first, body("first"))
    queue.claim(first, body("first"), begun)
    assert queue.ask(make_training_run("second", gpusPerNode=1)) is not None
    queue.seen(first, body("first"))  # a late list tells of what was before
    assert queue.ask(make_training_run("second", gpusPerNode=1)) is not None
    queue.seen(first, body("first", version="2", **begun))
    assert queue.ask(make_training_run("second", gpusPerNode=1)) is not None
    queue.seen(first, body("first", version="3", gpus=0))
    assert queue.ask(make_training_run("second", gpusPerNode=1)) is None
    assert second != first


def test_a_claim_that_never_got_into_a_status_is_given_up_with_the_next_plan() -> None:
    queue, key = GpuQueue(8), Key("TrainingRun", "demo", "first")
    queue.seen(key, body("first"))
    queue.claim(key, body("first"), {"gpus": 8, "attempts": [{"number": 1, "job": "j"}]})
    queue.claim(key, body("first"), {"gpus": 0})
    assert queue.ask(make_training_run("second", gpusPerNode=8)) is None


def test_a_run_that_is_gone_or_can_not_be_read_holds_nothing() -> None:
    queue, key = GpuQueue(8), Key("TrainingRun", "demo", "first")
    queue.seen(key, body("first", gpus=8))
    assert queue.ask(make_training_run("second", gpusPerNode=1)) is None
    queue.seen(key, body("first", version="2", **{"gpus": 8, "attempts": [{"number": 1, "job": "j"}]}))
    assert queue.ask(make_training_run("second", gpusPerNode=1)) is not None
    queue.seen(key, None)
    assert queue.ask(make_training_run("second", gpusPerNode=1)) is None
    strange = body("first", version="3")
    queue.seen(key, {**strange, "spec": {**strange["spec"], "method": "Unheard"}, "status": {"gpus": 8}})
    assert queue.ask(make_training_run("second", gpusPerNode=1)) is None


def test_without_any_budget_nobody_waits_and_nothing_is_counted() -> None:
    assert GpuQueue().ask(make_training_run("second", gpusPerNode=64)) is None
