"""The operator's process against a real API server (pods are played): all kinds, kills, reaction times, memory."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from flywheel.adapters.resources import collection_path
from flywheel.api.training_run import Inputs, TrainingRun
from flywheel.plan.base import Defaults, child_name
from flywheel.plan.references import resolve_inputs
from flywheel.specs.trainer_job import run_config, trainer_job
from tests.processes import free_ports
from tests.runtime.stage import Stage, moments, staged

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("stage_kubeconfig")]

BASE = {"uri": "file:///flywheel/models/base", "digest": "sha256:" + "a" * 64}
OTHER = {"uri": "file:///flywheel/models/other", "digest": "sha256:" + "b" * 64}
MODEL = {"type": "Uri", **BASE}
DATA = [{"name": "train", "from": {"type": "Uri", "uri": "file:///flywheel/data/x"}}]
SHORT: dict[str, Any] = {
    "traffic": {"steps": [{"weightPercent": 50}]},
    "analysis": {"interval": "1s", "window": "2s", "horizon": "1s", "minimumUsers": 100},
    "watch": {"duration": "1s"},
}
LAP = {"stages": [{"name": "sft", "run": {"method": "SFT", "model": {"type": "Base"}, "datasets": DATA}}], "rollout": SHORT}


def rollout(**more: Any) -> dict[str, Any]:
    return {"baseline": {"generation": "old", **BASE}, "candidate": {"generation": "new", **OTHER}} | SHORT | more


async def routes(stage: Stage, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await stage.get("ConfigMap", f"{service}-routes", "v1"))["data"]["routes.json"])
    return found


async def test_all_five_kinds_reach_their_end_and_the_better_model_serves(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        stage.samples, stage.metrics = moments(0.30, 0.50), lambda pod: {"accuracy_lower": 0.9}
        await stage.start()
        await stage.make("Flywheel", "companion", {"base": BASE})
        await stage.make("Generation", "g1", {"flywheel": "companion", **LAP})
        await stage.make("RewardModel", "rm", {"training": {"method": "Reward", "model": MODEL, "datasets": DATA}})
        await stage.make("TrainingRun", "run", {"method": "SFT", "model": MODEL, "datasets": DATA})
        await stage.make("Rollout", "alone", rollout())
        await stage.reaches("TrainingRun", "run", "Succeeded")
        await stage.reaches("RewardModel", "rm", "Ready")
        await stage.reaches("Rollout", "alone", "Promoted")
        lap = await stage.reaches("Generation", "g1", "Promoted")
        flywheel = await stage.reaches("Flywheel", "companion", "Serving")
        assert flywheel["status"]["champion"]["generation"] == "g1"
        assert lap["status"]["decision"]["verdict"] == "Promoted"
        held = await routes(stage, "companion")
        assert held["stable"]["generation"] == "g1"
        assert held["candidate"] is None
        print(f"\noperator RSS with a lap behind it: {stage.rss():.0f} MB")
        assert stage.rss() < 150
        assert "Traceback" not in stage.log()
        code, seconds = await stage.terminate()
        assert code == 0
        print(f"SIGTERM took {seconds:.1f} s")
        assert seconds < 15


async def test_a_worse_model_leaves_and_the_router_follows_the_decision_within_two_seconds(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        stage.samples = moments(0.50, 0.30)
        await stage.start()
        await stage.make("Rollout", "alone", rollout(analysis={**SHORT["analysis"], "window": "1h"}))
        ended = await stage.reaches("Rollout", "alone", "RolledBack")
        assert (await routes(stage, "alone"))["candidate"] is None
        status = ended["status"]
        decided, cut = (dt.datetime.fromisoformat(at) for at in (status["decision"]["time"], status["cutoverTime"]))
        print(f"\nfrom the decision to the router's word: {(cut - decided).total_seconds() * 1000:.0f} ms")
        assert dt.timedelta(0) <= cut - decided < dt.timedelta(seconds=2)
        assert status["decision"]["verdict"] == "Rollback"


async def test_an_abort_reaches_the_routes_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        stage.samples = moments(0.40, 0.40)
        await stage.start()
        took = [await abort(stage, name) for name in ("first", "second", "third")]
        print("\nfrom the edit to the routes:", ", ".join(f"{seconds * 1000:.0f} ms" for seconds in took))
        assert min(took) < 1.0  # the machine may be busy once; an operator that waits for a timer would be late every time


async def test_prometheus_hears_of_a_rollout_while_it_lasts_and_of_how_it_ended(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        stage.samples = moments(0.40, 0.44)
        await stage.start()
        await stage.make("Rollout", "alone", rollout(analysis={**SHORT["analysis"], "window": "1h"}))
        ours = {"flywheel_namespace": stage.namespace, "name": "alone"}
        weights = [series("flywheel_rollout_weight_percent", state=state, **ours) + "50.0" for state in ("intended", "acknowledged")]
        await stage.tells(*weights, series("flywheel_rollout_lift_ratio", metric="depth", bound="estimate", **ours))
        await stage.patch("Rollout", "alone", {"spec": {"abort": True}})
        told = await stage.tells(
            series("flywheel_decided_timestamp_seconds", kind="Rollout", verdict="Rollback", reason="Aborted", **ours),
            series("flywheel_objects", kind="Rollout", phase="RolledBack") + "1.0",
            series("flywheel_operator_api_requests_total", method="PUT", resource="rollouts", code="200"),
            series("flywheel_operator_api_requests_total", method="WATCH", resource="pods", code="200"),
            "flywheel_operator_leader 1.0",
        )
        assert not any(line.startswith("flywheel_rollout_") for line in told)
        (tick,) = [line for line in told if line.startswith("flywheel_operator_last_tick_timestamp_seconds ")]
        assert time.time() - float(tick.split()[-1]) < 30


def series(family: str, **labels: str) -> str:
    """As it stands in Prometheus' text format, up to its value."""
    return f"{family}{{{','.join(f'{label}={json.dumps(value)}' for label, value in sorted(labels.items()))}}} "


async def abort(stage: Stage, name: str) -> float:
    """Abort a Rollout that users meet; seconds from the edit to the routes without its candidate."""
    async with asyncio.timeout(60):
        arms = {"baseline": {"generation": f"{name}-old", **BASE}, "candidate": {"generation": f"{name}-new", **OTHER}}
        await stage.make("Rollout", name, rollout(**arms, analysis={**SHORT["analysis"], "window": "1h"}))
        while not (await stage.get("Rollout", name)).get("status", {}).get("windowStartTime"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        began = time.monotonic()
        await stage.patch("Rollout", name, {"spec": {"abort": True}})
        while (await routes(stage, name))["candidate"] is not None:  # noqa: ASYNC110 - polled like a user would
            await asyncio.sleep(0.005)
        return time.monotonic() - began


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_killing_the_operator_again_and_again_changes_no_outcome_and_makes_no_second_child(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with staged(tmp_path / "operator.log") as stage:
        stage.samples = moments(0.30, 0.50)
        await stage.start()
        await stage.make("Flywheel", "companion", {"base": BASE})
        await stage.make("Generation", "g1", {"flywheel": "companion", **LAP})
        for _ in range(6):
            await asyncio.sleep(chance.uniform(0.5, 4.0))
            await stage.kill()
            await stage.start()
        await stage.reaches("Generation", "g1", "Promoted", seconds=90)
        await until_recorded(stage, "g1")
        runs = await stage.every("TrainingRun")
        assert sorted("modelflywheel.dev/record" in run["metadata"]["labels"] for run in runs) == [False, True], (
            "a stage's, and the record's"
        )
        assert len(await stage.every("Job", "batch/v1")) == 2
        assert len(await stage.every("Rollout")) == 1
        assert [len(run["status"]["attempts"]) for run in runs] == [1, 1]


async def until_recorded(stage: Stage, name: str) -> None:
    """The record of a lap lies in the store."""
    async with asyncio.timeout(60):
        while "recordArtifact" not in (await stage.get("Generation", name))["status"]:  # noqa: ASYNC110 - polled like a user would
            await asyncio.sleep(0.1)


async def test_a_second_replica_stands_by_and_takes_over_when_the_leader_is_killed(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        here = {"FLYWHEEL_LEADER_ELECTION": "true", "POD_NAMESPACE": stage.namespace}
        await stage.start(**here)
        await stage.make("TrainingRun", "first", {"method": "SFT", "model": MODEL, "datasets": DATA})
        await stage.reaches("TrainingRun", "first", "Succeeded")
        leader = stage.process
        await stage.start(**here, FLYWHEEL_PORT=str(free_ports(1)[0]))
        await asyncio.sleep(3)
        assert leader is not None
        leader.kill()
        await leader.wait()
        await stage.make("TrainingRun", "second", {"method": "SFT", "model": MODEL, "datasets": DATA})
        await stage.reaches("TrainingRun", "second", "Succeeded", seconds=60)


def config_map_name(run: TrainingRun) -> str:
    """What the ConfigMap of the run's first attempt will be called."""
    inputs = resolve_inputs(run.spec, {})
    assert isinstance(inputs, Inputs)
    job = child_name(run.metadata, "a1", 1)
    made = trainer_job(run, attempt=1, job_name=job, config=run_config(run, inputs, 1), defaults=Defaults())
    return str(made[0]["metadata"]["name"])


async def test_a_foreign_object_of_a_childs_name_is_left_alone_and_named_until_it_is_gone(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        await stage.start()
        await stage.make("TrainingRun", "run", {"method": "SFT", "model": MODEL, "datasets": DATA, "suspend": True})
        made = await stage.reaches("TrainingRun", "run", "Suspended")
        name = config_map_name(TrainingRun.model_validate(made))
        foreign = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": stage.namespace},
            "data": {"mine": "yes"},
        }
        path = collection_path("v1", "ConfigMap", stage.namespace)
        await stage.api.request("POST", path, body=foreign)
        await stage.patch("TrainingRun", "run", {"spec": {"suspend": False}})
        said: list[str] = []
        async with asyncio.timeout(30):
            while "NameConflict" not in said:
                await asyncio.sleep(0.1)
                said = [c["reason"] for c in (await stage.get("TrainingRun", "run"))["status"]["conditions"]]
        assert (await stage.get("ConfigMap", name, "v1"))["data"] == {"mine": "yes"}
        await stage.api.request("DELETE", f"{path}/{name}")
        done = await stage.reaches("TrainingRun", "run", "Succeeded")
        shown = next(c for c in done["status"]["conditions"] if c["type"] == "Reconciled")
        assert shown["status"] == "True"
