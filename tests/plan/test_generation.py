"""A Generation from its snapshot to its verdict, in a namespace of plain values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flywheel.api.base import Metadata, OwnerReference
from flywheel.api.generation import GenerationStatus
from flywheel.api.reward_model import RewardModelStatus
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRunStatus
from flywheel.plan.generation_observed import other_rollout
from tests.plan.generation_world import PASSING, STYLE, T0, World, digest_of


def sft_stage(name: str = "sft", **changes: Any) -> dict[str, Any]:
    data = {"name": "train", "from": {"type": "Uri", "uri": "file:///flywheel/d", "digest": digest_of("d")}}
    return {"name": name, "run": {"method": "SFT", "model": {"type": "Base"}, "datasets": [data], **changes}}


def test_the_papers_lap_runs_from_curation_to_promotion() -> None:
    world = World()
    status = world.run()
    assert [s.name for s in status.stages] == ["curate", "reward", "judge", "sample", "sft", "rl", "evaluate"]
    assert status.phase == "RollingOut"
    assert world.rollout is not None
    assert world.rollout.spec.candidate.digest == status.stages[5].artifact.digest  # type: ignore[union-attr]
    world.end_rollout("Watching", "Promote", "SuccessProven")
    assert world.step().decision.verdict == "Promoted"  # type: ignore[union-attr]


def test_stages_wait_for_what_they_read() -> None:
    world = World()
    status = world.run(4, succeed=False)
    assert [s.phase for s in status.stages] == ["Running"] + ["Waiting"] * 6
    assert [world.stage(name) for name in world.runs] == ["curate"]


def test_independent_stages_run_side_by_side() -> None:
    world = World()
    world.run(3, succeed=False)
    world.finish()
    world.step()
    assert {s.name for s in world.generation.status.stages if s.phase == "Running"} == {"reward", "judge"}


def test_a_too_good_win_rate_is_held_with_both_numbers_and_meets_no_user() -> None:
    world = World()
    world.metrics["evaluate"] = {**PASSING, "win_rate_user": 0.707, "win_rate_divergence_significant": 0.27}
    status = world.run()
    assert status.phase == "Held"
    assert status.decision is not None
    assert status.decision.stage == "evaluate"
    assert "win_rate_user is 0.707, must be < 0.65" in status.decision.message
    assert "win_rate_divergence_significant is 0.27" in status.decision.message
    assert "user prompts 70.7 %, on internal prompts 58.0 %" in status.decision.message
    assert world.rollout is None


def test_a_stage_that_bends_the_style_is_named_with_the_value_and_nothing_is_built_on_it() -> None:
    world = World()
    world.metrics["rl"] = {**STYLE, "style_garbage_delta": 0.31, "style_list_delta": 0.9}
    status = world.run()
    assert status.decision is not None
    assert (status.decision.verdict, status.decision.stage) == ("Held", "rl")
    assert "style_garbage_delta is 0.31" in status.decision.message
    assert "replies fall apart" in status.decision.message
    assert {s.name: s.phase for s in status.stages}["evaluate"] == "Waiting"


def test_a_lap_that_began_before_its_default_stages_were_pinned_meets_no_gate_that_came_later() -> None:
    world = World()
    world.metrics["sft"] = world.metrics["rl"] = {}  # as the trainers of then report
    for _ in range(3):
        world.step()
    world.pinned.clear()
    status = world.run()
    assert {s.name: (s.phase, len(s.gates)) for s in status.stages if s.name in ("sft", "rl")} == {
        "sft": ("Passed", 0),
        "rl": ("Passed", 0),
    }
    assert status.phase == "RollingOut"


def test_a_missing_metric_fails_its_gate() -> None:
    world = World()
    world.metrics["evaluate"] = {k: v for k, v in PASSING.items() if k != "safety_violation_rate"}
    status = world.run()
    assert status.phase == "Rejected"
    assert status.decision is not None
    assert "safety_violation_rate was not measured" in status.decision.message


def test_a_failed_stage_ends_the_lap_with_the_trainers_words() -> None:
    world = World()
    world.run(3, succeed=False)
    world.fail("curate", "DatasetEmpty", "dataset 'conversations' has no rows")
    status = world.step()
    assert status.phase == "Failed"
    assert status.decision is not None
    assert (status.decision.reason, status.decision.stage) == ("DatasetEmpty", "curate")
    assert "has no rows" in status.decision.message


def test_a_mended_spec_starts_again_and_keeps_the_stages_that_had_passed() -> None:
    data = [{"name": "conversations", "from": {"type": "Conversations"}}]
    curate = {"name": "curate", "run": {"method": "Curate", "datasets": data}}
    world = World(stages=[curate, sft_stage(seed=1)])
    world.run(3, succeed=False)
    world.succeed(next(iter(world.runs)))
    world.fail("sft", "InvalidParameter", "parameters.maxSteps is -1")
    world.step()
    before = {name for name in world.runs if world.stage(name) == "curate"}
    world.edit(stages=[curate, sft_stage(seed=2)])
    status = world.run()
    assert status.phase == "RollingOut"
    assert {name for name in world.runs if world.stage(name) == "curate"} == before
    assert len([name for name in world.runs if world.stage(name) == "sft"]) == 2


def test_an_edit_does_not_change_a_running_lap() -> None:
    world = World(stages=[sft_stage(seed=1)])
    world.run(3, succeed=False)
    world.edit(stages=[sft_stage(seed=2)])
    world.run(3, succeed=False)
    assert [run.spec.seed for run in world.runs.values()] == [1]
    conditions = {c.type: c for c in world.generation.status.conditions}
    assert "snapshot" in conditions["SpecPinned"].message


def test_a_new_champion_makes_the_stages_that_compare_with_it_run_again() -> None:
    world = World()
    world.run(5)
    sampled = [name for name in world.runs if world.stage(name) == "sample"]
    assert sampled
    assert world.flywheel is not None
    assert world.flywheel.status.champion is not None
    champion = world.flywheel.status.champion.model_copy(update={"generation": "g0", "digest": digest_of("new")})
    world.flywheel = world.flywheel.model_copy(update={"status": world.flywheel.status.model_copy(update={"champion": champion})})
    status = world.run()
    again = [name for name in world.runs if world.stage(name) == "sample"]
    assert len(again) == len(sampled) + 1
    assert status.opponent is not None
    assert status.opponent.generation == "g0"


def test_the_opponent_is_fixed_once_users_are_asked() -> None:
    world = World()
    world.run()
    runs = set(world.runs)
    assert world.flywheel is not None
    assert world.flywheel.status.champion is not None
    champion = world.flywheel.status.champion.model_copy(update={"generation": "g0", "digest": digest_of("new")})
    world.flywheel = world.flywheel.model_copy(update={"status": world.flywheel.status.model_copy(update={"champion": champion})})
    world.run(5)
    assert set(world.runs) == runs


def test_one_rollout_at_a_time_for_a_service() -> None:
    world = World()
    world.other_rollout = "g0-rollout"
    assert world.run().phase == "Training"
    assert world.rollout is None
    world.other_rollout = None
    assert world.run(2).phase == "RollingOut"


@pytest.mark.parametrize(
    ("phase", "verdict", "expected"),
    [("RolledBack", "Rollback", "RolledBack"), ("Inconclusive", "NoVerdict", "Inconclusive"), ("Failed", "Rollback", "Failed")],
)
def test_the_lap_ends_as_its_rollout_does(phase: str, verdict: str, expected: str) -> None:
    world = World()
    world.run()
    world.end_rollout(phase, verdict, "GuardrailHarm")
    decision = world.step().decision
    assert decision is not None
    assert decision.verdict == expected


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([sft_stage(model={"type": "Stage", "stage": "nowhere"})], "needs stage 'nowhere', which does not exist"),
        ([{**sft_stage("a"), "dependsOn": ["b"]}, {**sft_stage("b"), "dependsOn": ["a"]}], "wait for each other"),
    ],
)
def test_a_graph_that_can_not_run_is_refused_in_words(stages: list[dict[str, Any]], words: str) -> None:
    status = World(stages=stages).run(4)
    assert status.phase == "Failed"
    assert status.decision is not None
    assert status.decision.reason == "InvalidSpec"
    assert words in status.decision.message


def test_a_lap_without_a_flywheel_waits_and_goes_on_when_it_appears() -> None:
    world = World()
    flywheel, world.flywheel = world.flywheel, None
    status = world.run(3)
    assert status.phase == "Pending"
    assert {c.reason for c in status.conditions if c.type == "Progressing"} == {"ReferenceNotFound"}
    world.flywheel = flywheel
    assert world.run().phase == "RollingOut"


def test_suspend_starts_nothing_and_resume_goes_on() -> None:
    world = World()
    world.run(3, succeed=False)
    world.edit(suspend=True)
    world.run(2, succeed=False)
    assert all(run.spec.suspend for run in world.runs.values())
    world.finish()
    world.run(3, succeed=False)
    assert {world.stage(name) for name in world.runs} == {"curate"}
    world.edit(suspend=False)
    assert world.run().phase == "RollingOut"


def test_a_deadline_ends_a_lap_that_does_not_get_on() -> None:
    world = World(deadline="10s")
    status = world.run(15, succeed=False)
    assert status.decision is not None
    assert status.decision.reason == "DeadlineExceeded"
    assert "curate" in status.decision.message


def test_the_champions_own_model_is_not_rolled_out_against_itself() -> None:
    world = World(stages=[sft_stage()])
    world.run(3, succeed=False)
    name = next(iter(world.runs))
    world.succeed(name)
    made = world.runs[name].status.artifact
    assert made is not None
    assert world.flywheel is not None
    assert world.flywheel.status.champion is not None
    champion = world.flywheel.status.champion.model_copy(update={"digest": made.digest})
    world.flywheel = world.flywheel.model_copy(update={"status": world.flywheel.status.model_copy(update={"champion": champion})})
    assert world.step().phase == "Rejected"


def test_every_pass_ends_or_says_when_to_look_again() -> None:
    world = World()
    world.run()
    for plan in world.plans:
        status = GenerationStatus.model_validate(json.loads(json.dumps(plan.status, allow_nan=False)))
        assert (plan.requeue_at is None) == (status.decision is not None)
        assert status.start_time is None or status.start_time >= T0


def test_a_retry_of_a_failed_lap_starts_it_again_and_hands_the_wish_to_the_run_that_failed() -> None:
    world = World(stages=[sft_stage()])
    world.run(4, succeed=False)
    world.fail("sft", "OutOfMemory", "the pod was killed")
    assert world.step().phase == "Failed"
    world.annotate("now")
    status = world.run(5, succeed=False)
    assert (status.phase, status.retry, status.decision) == ("Training", "now", None)
    (run,) = world.runs.values()
    assert run.metadata.annotations["modelflywheel.dev/retry"] == "now"
    world.succeed(run.metadata.name)
    assert world.run(4).phase == "RollingOut"


def test_a_very_long_retry_annotation_is_a_retry_like_any_other() -> None:
    world = World(stages=[sft_stage()])
    world.run(4, succeed=False)
    world.fail("sft", "OutOfMemory", "the pod was killed")
    world.step()
    world.annotate("x" * 1000)
    assert world.run(5, succeed=False).decision is None


def test_a_lap_that_was_suspended_and_resumed_does_not_start_again_at_its_end() -> None:
    world = World(stages=[sft_stage()])
    world.run(3, succeed=False)
    world.edit(suspend=True)
    world.run(2, succeed=False)
    world.edit(suspend=False)
    world.run(5)
    world.end_rollout("Watching", "Promote", "SuccessProven")
    status = world.run(5)
    assert status.phase == "Promoted"
    assert "SpecPinned" not in {c.type for c in status.conditions}


def test_a_retry_asked_for_before_the_end_does_not_undo_a_promotion() -> None:
    world = World(stages=[sft_stage()])
    world.run()
    world.annotate("once more")
    world.end_rollout("Watching", "Promote", "SuccessProven")
    status = world.run(5)
    assert (status.phase, status.retry) == ("Promoted", None)


def test_the_old_failure_of_a_reward_model_is_not_held_against_a_retry() -> None:
    stage = {"name": "reward", "rewardModel": {"artifact": {"uri": "file:///flywheel/r", "digest": digest_of("r")}}}
    world = World(stages=[stage, sft_stage()])
    world.run(4, succeed=False)
    (name,) = world.rewards
    failed = RewardModelStatus.model_validate({"phase": "Failed"})
    world.rewards[name] = world.rewards[name].model_copy(update={"status": failed})
    assert world.step().phase == "Failed"
    world.annotate("now")
    world.run(3, succeed=False)
    world.rewards[name] = world.rewards[name].model_copy(update={"status": failed})  # it has yet to look at its annotation
    assert world.step().decision is None
    answered = failed.model_copy(update={"retry": "now"})
    world.rewards[name] = world.rewards[name].model_copy(update={"status": answered})
    assert world.step().phase == "Failed"


def test_a_stage_that_passed_stays_passed_when_its_run_is_deleted() -> None:
    world = World()
    world.run(6)
    gone = next(name for name in world.runs if world.stage(name) == "curate")
    made = world.generation.status.stages[0].artifact
    del world.runs[gone]
    world.run(2, succeed=False)
    assert gone not in world.runs
    assert (world.generation.status.stages[0].phase, world.generation.status.stages[0].artifact) == ("Passed", made)


def test_nothing_is_trained_again_while_users_are_asked() -> None:
    world = World()
    model = world.run().model
    asked = set(world.runs)
    assert world.flywheel is not None
    base = world.flywheel.spec.base.model_copy(update={"digest": digest_of("another")})
    world.flywheel = world.flywheel.model_copy(update={"spec": world.flywheel.spec.model_copy(update={"base": base})})
    status = world.run(5)
    assert (status.phase, status.model, set(world.runs)) == ("RollingOut", model, asked)


def test_another_rollout_template_after_an_inconclusive_end_asks_the_users_anew() -> None:
    world = World(stages=[sft_stage()])
    world.run()
    assert world.rollout is not None
    first = world.rollout.metadata.name
    world.end_rollout("Inconclusive", "Inconclusive", "NoDifference")
    assert world.step().phase == "Inconclusive"
    world.edit(rollout={"analysis": {"window": "336h"}})
    status = world.run(6)
    assert status.phase == "RollingOut"
    assert status.rollout != first


def test_a_lap_that_waits_for_anothers_rollout_starts_its_own_against_the_new_champion() -> None:
    world = World()
    assert world.flywheel is not None
    assert world.flywheel.status.champion is not None
    world.run()
    world.end_rollout("Watching", "Promote", "SuccessProven")
    assert world.rollout is not None
    theirs = OwnerReference(api_version="v1", kind="Generation", name="g0", uid="u-g0", controller=True)
    won = Rollout(
        metadata=Metadata(name="r0", namespace="demo", uid="u-r0", owner_references=(theirs,)),
        spec=world.rollout.spec,
        status=world.rollout.status,
    )
    assert other_rollout(world.generation, [won], world.flywheel) == "r0"
    champion = world.flywheel.status.champion.model_copy(
        update={"digest": won.spec.candidate.digest, "generation": "g0", "since": won.status.cutover_time}
    )
    known = world.flywheel.model_copy(update={"status": world.flywheel.status.model_copy(update={"champion": champion})})
    assert other_rollout(world.generation, [won], known) is None


def test_many_gates_that_fail_with_long_words_still_fit_the_status() -> None:
    gate = {"operator": "GreaterThan", "value": 0.5, "message": "w" * 256}
    world = World(stages=[{**sft_stage(), "gates": [{"metric": f"m{n}", **gate} for n in range(32)]}])
    world.run(6)
    (stage,) = world.generation.status.stages
    assert stage.phase == "Rejected"
    assert len(stage.message or "") <= 4096


def test_many_stages_that_run_at_once_still_fit_the_status() -> None:
    stages = [sft_stage(f"stage-{n:02}-{'x' * 31}", seed=n) for n in range(1, 25)]
    status = World(stages=stages).run(4, succeed=False)
    assert len([s for s in status.stages if s.phase == "Running"]) == 24
    assert len(status.current_stage or "") == 253


def half_failed() -> World:
    """Of two stages side by side one has failed; the other's run goes on, and so does a reward model."""
    training = {"method": "Reward", "model": {"type": "Base"}, "datasets": sft_stage()["run"]["datasets"]}
    world = World(stages=[sft_stage("bad"), sft_stage("good", seed=2), {"name": "reward", "rewardModel": {"training": training}}])
    world.run(4, succeed=False)
    world.fail("bad", "InvalidParameter", "parameters.maxSteps is -1")
    return world


def at_work(world: World) -> list[str]:
    children = {**world.runs, **world.rewards}
    return sorted(world.stage(name) for name, c in children.items() if c.status.phase in ("Pending", "Training") and not c.spec.suspend)


def test_a_lap_that_has_ended_pauses_what_it_left_running_and_a_retry_takes_it_up_again() -> None:
    world = half_failed()
    children = {*world.runs, *world.rewards}
    assert at_work(world) == ["good", "reward"]
    assert world.step().phase == "Failed"
    assert at_work(world) == []
    assert {*world.runs, *world.rewards} == children
    world.step()
    assert world.plans[-1].actions == ()
    world.annotate("now")
    assert world.run(3, succeed=False).phase == "Training"
    assert {"good", "reward"} <= set(at_work(world))
    assert {*world.runs, *world.rewards} == children


def test_what_a_crash_left_running_is_paused_by_the_next_pass() -> None:
    world = half_failed()
    assert world.step(crash_after_status=True).phase == "Failed"
    assert at_work(world) == ["good", "reward"]
    world.step()
    assert at_work(world) == []


def test_a_lap_that_a_deadline_or_a_gate_ends_leaves_nothing_running() -> None:
    late = World(deadline="10s")
    assert late.run(15, succeed=False).phase == "Failed"
    assert at_work(late) == []
    gate = {"metric": "loss", "operator": "LessThan", "value": 1, "onFailure": "Hold"}
    held = World(stages=[{**sft_stage("first"), "gates": [gate]}, sft_stage("second", seed=2)])
    held.run(4, succeed=False)
    held.succeed(next(name for name in held.runs if held.stage(name) == "first"))
    assert held.step().phase == "Held"
    assert at_work(held) == []


def test_the_pass_that_ends_a_lap_starts_nothing() -> None:
    world = World(stages=[sft_stage("bad"), sft_stage("good", seed=2), {**sft_stage("next", seed=3), "dependsOn": ["good"]}])
    world.run(4, succeed=False)
    world.fail("bad", "InvalidParameter", "parameters.maxSteps is -1")
    world.succeed(next(name for name in world.runs if world.stage(name) == "good"))
    assert world.step().phase == "Failed"
    assert {world.stage(name) for name in world.runs} == {"bad", "good"}


def test_a_run_that_somebody_asks_to_try_again_after_the_end_of_its_lap_goes_on() -> None:
    world = half_failed()
    world.step()
    name = next(name for name in world.runs if world.stage(name) == "bad")
    asked = world.runs[name].metadata.model_copy(update={"annotations": {"modelflywheel.dev/retry": "only this one"}})
    world.runs[name] = world.runs[name].model_copy(update={"metadata": asked, "status": TrainingRunStatus()})
    world.run(3, succeed=False)
    assert at_work(world) == ["bad"]
