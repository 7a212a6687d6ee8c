"""The record of a lap: written once with the decision, and then into the store, whatever becomes of that."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.api.base import get_condition
from flywheel.api.generation import GenerationStatus
from flywheel.api.generation_record import GenerationRecord
from flywheel.api.rollout import RolloutStatus
from flywheel.api.training_run import TrainingRun, TrainingRunStatus
from flywheel.plan.base import Apply, Defaults
from flywheel.plan.generation_observed import GenerationObserved
from flywheel.plan.generation_record import build_record, canonical_digest
from flywheel.plan.prices import PriceError, parse_prices
from flywheel.plan.recording import FIRST_RETRY, unrecorded
from tests.plan.generation_world import BASE, PASSING, T0, World, digest_of

DATA = {"name": "train", "from": {"type": "Uri", "uri": "file:///flywheel/d", "digest": digest_of("d")}}
SFT = {"name": "sft", "run": {"method": "SFT", "model": {"type": "Base"}, "datasets": [DATA], "gpusPerNode": 2}}
LIFT = {"name": "breadth", "role": "Success", "nControl": 900, "nCandidate": 910, "lift": 0.12, "liftLower": 0.05, "liftUpper": 0.2}


def decided(world: World, verdict: str) -> GenerationStatus:
    """A lap that ended so."""
    if verdict == "Failed":
        world.run(4, succeed=False)
        world.fail("curate", "DatasetEmpty", "dataset 'conversations' has no rows")
        return world.step()
    metrics = {"Held": {"win_rate_user": 0.7}, "Rejected": {"safety_violation_rate": 0.9}}.get(verdict, {})
    world.metrics["evaluate"] = {**PASSING, **metrics}
    world.metrics["curate"] = {"rows_sft": 120.0, "rows_prompts_train": 300.0, "turns": 900.0}
    status = world.run()
    if verdict in ("Held", "Rejected"):
        return status
    phase, answer, reason = {
        "Promoted": ("Watching", "Promote", "SuccessProven"),
        "RolledBack": ("RolledBack", "Rollback", "GuardrailHarm"),
        "Inconclusive": ("Inconclusive", "Inconclusive", "NoSignificantLift"),
    }[verdict]
    assert world.rollout is not None
    world.end_rollout(phase, answer, reason)
    body = {**world.rollout.status.dump(), "metrics": [LIFT]}
    body["decision"]["evidenceDigest"] = digest_of("evidence")
    world.rollout = world.rollout.model_copy(update={"status": RolloutStatus.model_validate(body)})
    return world.step()


def end(world: World, **status: Any) -> None:
    """The run that writes the record ends."""
    ((name, run),) = world.record_runs.items()
    world.record_runs[name] = run.model_copy(update={"status": TrainingRunStatus.model_validate(status)})


def recorded(status: GenerationStatus) -> tuple[str, str, str]:
    condition = get_condition(status.conditions, "Recorded")
    assert condition is not None
    return condition.status, condition.reason, condition.message


@pytest.mark.parametrize("verdict", ["Promoted", "RolledBack", "Inconclusive", "Rejected", "Held", "Failed"])
def test_a_lap_that_ends_in_any_way_is_on_record_with_its_decision_and_then_in_the_store(verdict: str) -> None:
    world = World()
    status = decided(world, verdict)
    assert (status.phase, status.record and status.record.verdict) == (verdict, verdict)
    (run,) = world.record_runs.values()
    assert run.spec.method == "Record"
    assert run.spec.parameters["record"] == status.record.dump()  # type: ignore[union-attr]
    assert recorded(status)[:2] in (("False", "Starting"), ("False", "Running"))
    made = {"uri": "file:///flywheel/artifacts/r", "digest": digest_of("r"), "kind": "dataset"}
    end(world, phase="Succeeded", artifact=made)
    status = world.step()
    assert status.record_artifact is not None
    assert status.record_artifact.digest == digest_of("r")
    assert recorded(status)[0] == "True"
    assert world.plans[-1].requeue_at is None


def test_the_record_says_what_the_lap_was_made_from_who_judged_it_and_what_users_answered() -> None:
    record = decided(World(), "Promoted").record
    assert record is not None
    assert record.parent is not None
    assert (record.parent.generation, record.parent.digest) == ("demo-initial", BASE)
    assert record.base is not None
    assert record.base.digest == BASE
    assert [stage.method for stage in record.stages] == ["Curate", "Reward", "Reward", "RejectionSample", "SFT", "GRPO", "Evaluate"]
    assert len({stage.parameters for stage in record.stages if stage.parameters}) == 5  # every run's own
    assert record.data[0].name == "curate"
    assert record.data[0].rows == {"prompts-train": 300, "sft": 120}
    assert [reward.accuracy for reward in record.reward_models] == [0.9, 0.9]
    assert record.gates
    assert all(gate.passed for gate in record.gates)
    assert record.predicted_win_rate is not None
    assert (record.predicted_win_rate.value, record.predicted_win_rate.lower, record.predicted_win_rate.upper) == (0.6, 0.55, 0.64)
    (lift,) = record.realised_lift
    assert (lift.lift, lift.lower, lift.upper, lift.users) == (0.12, 0.05, 0.2, 1810)
    assert record.evidence_digest == digest_of("evidence")
    assert record.serving_image == Defaults().vllm_image


def test_a_gate_that_decided_is_evidence_and_another_value_is_other_evidence() -> None:
    first, second = World(), World()
    held = decided(first, "Held").record
    second.metrics["evaluate"] = {**PASSING, "win_rate_user": 0.71}
    other = second.run().record
    assert held is not None
    assert other is not None
    assert not held.gates[0].passed
    assert held.evidence_digest != other.evidence_digest
    assert held.recipe == other.recipe


def test_another_parameter_is_another_recipe_and_a_pause_is_none() -> None:
    def recipe(*, pause: bool = False, **changes: Any) -> str:
        world = World(rollout=None, stages=[{**SFT, "run": {**SFT["run"], **changes}}])  # type: ignore[dict-item]
        if pause:
            world.step()
            world.edit(suspend=True)
            world.run(3)
            world.edit(suspend=False)
        record = world.run().record
        assert record is not None
        return record.recipe

    assert recipe() == recipe()
    assert recipe(pause=True) == recipe()
    assert recipe(parameters={"maxSteps": 3}) != recipe()


def test_once_written_the_record_never_changes() -> None:
    world = World()
    record = decided(world, "Promoted").record
    world.rollout = None
    world.flywheel = None
    world.runs.clear()
    assert world.step().record == record


def test_a_failing_store_changes_no_verdict_and_is_tried_again_later_and_later() -> None:
    world = World()
    before = decided(world, "Promoted")
    condition = {"type": "Succeeded", "status": "False", "reason": "StorageUnavailable", "message": "no space", "lastTransitionTime": T0}
    attempts = [{"number": i, "job": f"j{i}", "revision": 1} for i in range(1, 5)]
    ended = world.now
    end(world, phase="Failed", conditions=[condition], attempts=attempts, completionTime=ended)
    status = world.step()
    assert (status.phase, status.decision) == ("Promoted", before.decision)
    assert recorded(status)[:2] == ("False", "StorageUnavailable")
    assert "no space" in recorded(status)[2]
    assert world.plans[-1].actions == ()
    assert world.plans[-1].requeue_at == ended + FIRST_RETRY
    world.now = ended + FIRST_RETRY
    world.step()
    (again,) = world.plans[-1].actions
    assert isinstance(again, Apply)
    assert again.manifest["metadata"]["annotations"] == {"modelflywheel.dev/retry": "4"}
    assert again.manifest["metadata"]["name"] == next(iter(world.record_runs))


def test_a_lap_can_do_without_a_record_in_the_store() -> None:
    world = World(record=False)
    status = decided(world, "Held")
    assert status.record is not None
    assert world.record_runs == {}
    assert get_condition(status.conditions, "Recorded") is None


def test_a_lap_that_an_older_operator_decided_gets_no_record_and_no_run() -> None:
    world = World()
    status = decided(world, "Held")
    world.record_runs.clear()
    old = status.model_copy(update={"record": None, "record_run": None, "conditions": ()})
    world.generation = world.generation.model_copy(update={"status": old})
    status = world.step()
    assert (status.record, world.record_runs) == (None, {})


def test_a_retry_keeps_the_earlier_record_in_brief_and_where_its_whole_lies() -> None:
    world = World()
    first = decided(world, "Held").record
    assert first is not None
    world.annotate("again")
    status = world.run(3)
    assert status.decision is None or status.record != first
    (earlier,) = status.earlier_records
    assert (earlier.verdict, earlier.digest, earlier.artifact) == ("Held", canonical_digest(first.dump()), None)
    end_first(world, earlier.run or "")
    (earlier,) = world.step().earlier_records
    assert earlier.artifact is not None
    assert earlier.artifact.digest == digest_of("first")


def end_first(world: World, name: str) -> None:
    made = {"uri": "file:///flywheel/artifacts/first", "digest": digest_of("first"), "kind": "dataset"}
    done = TrainingRunStatus.model_validate({"phase": "Succeeded", "artifact": made})
    world.record_runs[name] = world.record_runs[name].model_copy(update={"status": done})


def test_a_retried_laps_record_waits_for_the_one_that_is_being_written() -> None:
    world = World()
    decided(world, "Held")
    world.annotate("again")
    world.run()
    assert world.generation.status.decision is not None
    assert len(world.record_runs) == 1
    assert recorded(world.generation.status)[:2] == ("False", "Waiting")
    end_first(world, next(iter(world.record_runs)))
    world.step()
    assert len(world.record_runs) == 2


def test_the_records_pod_runs_like_the_laps_lightest_stage_but_asks_for_no_gpu() -> None:
    curate = {"name": "curate", "run": {"method": "Curate", "imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"pool": "cpu"}}}
    world = World(rollout=None, stages=[SFT, curate])
    world.run()
    (run,) = world.record_runs.values()
    assert (run.spec.gpus_per_node, run.spec.node_selector, run.spec.image_pull_secrets[0].name) == (0, {"pool": "cpu"}, "registry")


def test_a_lap_waits_for_its_record_before_it_is_cleared_away_but_not_for_ever() -> None:
    world = World()
    decided(world, "Rejected")
    assert unrecorded(world.generation, world.now, dt.timedelta(hours=1))
    assert not unrecorded(world.generation, world.now + dt.timedelta(hours=2), dt.timedelta(hours=1))
    end_first(world, next(iter(world.record_runs)))
    world.step()
    assert not unrecorded(world.generation, world.now, dt.timedelta(hours=1))


# ------------------------------------------------------------------------------------------------------------------ cost


def spent(run: TrainingRun, gpu_seconds: float, hours: float = 0.0) -> TrainingRun:
    """The run with an attempt of so many hours behind it."""
    attempt = {"number": 1, "job": "j", "startTime": T0, "endTime": T0 + dt.timedelta(hours=hours)}
    body = {**run.status.dump(), "gpuSeconds": gpu_seconds, "attempts": [attempt]}
    return run.model_copy(update={"status": TrainingRunStatus.model_validate(body)})


def cost_of(prices: str, **template: Any) -> Any:
    world = World(rollout=None, stages=[{**SFT, "run": {**SFT["run"], **template}}])  # type: ignore[dict-item]
    world.defaults = Defaults(prices=parse_prices(prices))
    world.run(4, succeed=False)
    world.runs = {name: spent(run, 7200.0, 1.0) for name, run in world.runs.items()}
    world.finish()
    world.runs = {name: spent(run, 7200.0, 1.0) for name, run in world.runs.items()}
    return world.step().cost


def test_a_laps_cost_is_its_gpu_hours_by_the_price_table() -> None:
    cost = cost_of('{"currency": "USD", "perHour": {"nvidia.com/gpu": 2.5}}')
    assert (cost.currency, cost.gpu_seconds, cost.amount) == ("USD", 7200.0, 5.0)
    assert [(stage.name, stage.amount) for stage in cost.stages] == [("sft", 5.0)]


def test_cpu_hours_cost_where_they_have_a_price() -> None:
    resources = {"requests": {"cpu": "1500m"}}
    cost = cost_of('{"currency": "EUR", "perHour": {"nvidia.com/gpu": 2.5, "cpu": 0.1}}', resources=resources)
    assert (cost.cpu_seconds, cost.amount) == (5400.0, 5.15)


def test_the_nodes_that_a_run_asks_for_have_their_own_price() -> None:
    prices = """{"currency": "USD", "perHour": {"nvidia.com/gpu": 2.5},
                 "nodes": [{"label": "gpu", "value": "h100", "perHour": {"nvidia.com/gpu": 4}}]}"""
    assert cost_of(prices, nodeSelector={"gpu": "h100"}).amount == 8.0
    assert cost_of(prices, nodeSelector={"gpu": "a10"}).amount == 5.0


def test_without_a_price_of_what_was_used_there_is_no_amount() -> None:
    assert cost_of("").dump() == {
        "gpuSeconds": 7200.0,
        "cpuSeconds": 900.0,
        "stages": [{"name": "sft", "gpuSeconds": 7200.0, "cpuSeconds": 900.0}],
    }
    assert cost_of('{"currency": "USD", "perHour": {"cpu": 0.1}}').amount is None


def test_the_runs_of_reward_models_cost_as_well() -> None:
    world = World()
    world.defaults = Defaults(prices=parse_prices('{"currency": "USD", "perHour": {"nvidia.com/gpu": 3}}'))
    world.run()
    (name, model) = next((n, m) for n, m in world.rewards.items() if world.stage(n) == "judge")
    owner = {"apiVersion": "v", "kind": "RewardModel", "name": name, "uid": model.metadata.uid}
    run = TrainingRun.model_validate({"metadata": {"name": "t", "ownerReferences": [owner]}, "spec": {"method": "Reward"}})
    world.reward_runs["t"] = spent(run, 3600.0)
    world.end_rollout("RolledBack", "Rollback", "GuardrailHarm")
    status = world.step()
    assert status.record is not None
    assert [(stage.name, stage.amount) for stage in status.record.cost.stages if stage.gpu_seconds] == [("judge", 3.0)]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"perHour": {"nvidia.com/gpu": 2}}', "no currency; set currency"),
        ('{"currency": "USD", "perHour": {"nvidia.com/gpu": -1}}', "perHour.nvidia.com/gpu must be a number that is not negative, not -1"),
        ('{"currency": "USD", "perHour": {"gpu": 1}}', "perHour.gpu is not known; known: nvidia.com/gpu, cpu"),
        ('{"currency": "USD", "nodes": [{"value": "h100"}]}', "nodes[0] needs label and value"),
        ('{"currency": "USD", "price": 1}', "price is not known"),
        ('{"currency": "USD", "perHour": {"cpu": true}}', "not True"),
    ],
)
def test_a_price_table_that_makes_no_sense_is_refused_by_field_and_value(table: str, says: str) -> None:
    with pytest.raises(PriceError) as refused:
        parse_prices(table)
    assert says in str(refused.value)


# ------------------------------------------------------------------------------------------------------------ properties

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=4))


@given(JSON)
def test_the_digest_of_json_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    def turned(part: Any) -> Any:
        return {k: turned(v) for k, v in reversed(part.items())} if isinstance(part, dict) else part

    assert canonical_digest(value) == canonical_digest(turned(value))


def test_a_record_stays_small_whatever_a_lap_has() -> None:
    gate = {"metric": "m" * 63, "operator": "GreaterThanOrEqual", "limit": 0.5, "value": 0.25, "passed": False, "onFailure": "Warn"}
    world = World()
    decided(world, "Rejected")
    stages = [
        {"name": f"s{i}", "kind": "TrainingRun", "gates": [gate] * 32, "metrics": {f"rows_{n}": 1.0 for n in range(200)}} for i in range(24)
    ]
    full = GenerationStatus.model_validate({**world.generation.status.dump(), "stages": stages})
    record = build_record(GenerationObserved(generation=world.generation), full)
    assert record is not None
    assert GenerationRecord.model_validate(record.dump()) == record
    assert len(json.dumps(record.dump())) < 64_000
