"""Gates: absolute limits, and limits on how far a stage is from what a champion measured."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel.api.base import Metadata
from flywheel.api.generation import Gate, Generation, GenerationSpec, GenerationStatus
from flywheel.plan.gates import Record, evaluate
from tests.plan.generation_world import BASE, World, digest_of
from tests.plan.test_generation import sft_stage


def gate(**fields: Any) -> Gate:
    return Gate.model_validate({"metric": "mean_length", "operator": "LessThanOrEqual", "value": 20, "baseline": "Champion", **fields})


@pytest.mark.parametrize(("ours", "theirs", "passed"), [(130, 115, True), (135, 115, True), (136, 115, False), (90, 115, True)])
def test_a_relative_gate_limits_the_difference(ours: float, theirs: float, passed: bool) -> None:
    (result,) = evaluate([gate()], {"mean_length": ours}, {"Champion": Record("g0", {"mean_length": theirs})})
    assert result.passed is passed
    assert (result.value, result.baseline_value, result.baseline_generation, result.limit) == (ours, theirs, "g0", 20)
    assert result.message == f"mean_length is {ours}, {ours - theirs:+} against the {theirs} of generation g0, must be ≤ +20"


def test_a_baseline_that_nobody_recorded_fails_with_words() -> None:
    (result,) = evaluate([gate(message="it talks more")], {"mean_length": 5}, {"Champion": Record("demo-initial", {})})
    assert not result.passed
    assert "mean_length is 5, and there is no record of it from generation demo-initial to compare with" in result.message
    assert result.message.endswith("(it talks more)")


def test_a_missing_metric_fails_whatever_the_baseline() -> None:
    (result,) = evaluate([gate()], {}, {"Champion": Record("g0", {"mean_length": 5})})
    assert (result.passed, result.value) == (False, None)


def test_a_baseline_once_read_outlives_its_record() -> None:
    first = evaluate([gate()], {"mean_length": 130}, {"Champion": Record("g0", {"mean_length": 115})})
    (again,) = evaluate([gate()], {"mean_length": 130}, {"Champion": Record("g0", {})}, first)
    assert (again.passed, again.baseline_value) == (True, 115)
    (other,) = evaluate([gate()], {"mean_length": 130}, {"Champion": Record("g1", {})}, first)
    assert other.passed is False


def test_absolute_is_the_default_and_reads_as_before() -> None:
    (result,) = evaluate([Gate(metric="loss", operator="LessThan", value=0.65)], {"loss": 0.707})
    assert (result.message, result.baseline, result.baseline_generation) == ("loss is 0.707, must be < 0.65", "Absolute", None)


def champion_lap(model: str, **metrics: float) -> Generation:
    """The record of the lap that made the champion."""
    stage = {"name": "sft", "kind": "TrainingRun", "phase": "Passed", "metrics": metrics}
    status = {"phase": "Promoted", "model": {"uri": "file:///flywheel/m", "digest": model}, "stages": [stage]}
    meta = Metadata(name="demo-initial", namespace="demo", uid="u-g0")
    return Generation(metadata=meta, spec=GenerationSpec(flywheel="demo"), status=GenerationStatus.model_validate(status))


@pytest.mark.parametrize("baseline", ["Parent", "Champion"])
def test_a_lap_is_measured_against_the_stage_of_the_same_name_in_the_champions_record(baseline: str) -> None:
    limit = {"metric": "mean_length", "operator": "LessThanOrEqual", "value": 20, "baseline": baseline, "onFailure": "Hold"}
    for length, phase in ((120.0, "RollingOut"), (160.0, "Held")):
        world = World(stages=[{**sft_stage(), "gates": [limit]}])
        world.laps = {"demo-initial": champion_lap(BASE, mean_length=110)}
        world.metrics["sft"] = {"mean_length": length}
        assert world.run().phase == phase


def test_the_record_of_another_model_under_the_champions_name_is_no_baseline() -> None:
    limit = {"metric": "mean_length", "operator": "LessThanOrEqual", "value": 20, "baseline": "Champion"}
    world = World(stages=[{**sft_stage(), "gates": [limit]}])
    world.laps = {"demo-initial": champion_lap(digest_of("another"), mean_length=110)}
    world.metrics["sft"] = {"mean_length": 115}
    status = world.run()
    assert status.phase == "Rejected"
    assert "there is no record of it from generation demo-initial" in (status.stages[0].message or "")


def test_a_new_champion_is_the_new_measure() -> None:
    limit = {"metric": "mean_length", "operator": "LessThanOrEqual", "value": 20, "baseline": "Champion"}
    world = World(stages=[{**sft_stage(), "gates": [limit]}])
    world.laps = {"demo-initial": champion_lap(BASE, mean_length=110)}
    world.metrics["sft"], world.other_rollout = {"mean_length": 115}, "g0-rollout"
    assert world.run().stages[0].phase == "Passed"
    assert world.flywheel is not None
    assert world.flywheel.status.champion is not None
    champion = world.flywheel.status.champion.model_copy(update={"generation": "g0", "digest": digest_of("new")})
    world.flywheel = world.flywheel.model_copy(update={"status": world.flywheel.status.model_copy(update={"champion": champion})})
    world.laps["g0"] = champion_lap(digest_of("new"), mean_length=80)
    status = world.run(3)
    assert status.phase == "Rejected"
    assert "+35 against the 80 of generation g0" in (status.stages[0].message or "")
