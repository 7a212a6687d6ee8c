"""A lap's stages as people shape them: skipped, added, changed, tried again, taken over from an earlier run, approved."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.api.generation import Approval, GenerationStatus, GenerationTemplate
from flywheel.api.training_run import TrainingRun, TrainingRunStatus
from flywheel.plan.base import Defaults, Emit
from flywheel.plan.generation_cache import content
from flywheel.plan.generation_inputs import InputError
from flywheel.plan.generation_lap import check_lap, lap_stages
from tests.plan.generation_world import PASSING, World, digest_of
from tests.plan.test_generation import sft_stage

IMAGE = "registry.example/trainer@sha256:" + "1" * 64
CURATED = {"type": "Stage", "stage": "curate"}


def curate() -> dict[str, Any]:
    return {"name": "curate", "run": {"method": "Curate"}}


def phases(status: GenerationStatus) -> dict[str, str]:
    return {s.name: s.phase for s in status.stages}


def events(world: World) -> list[str]:
    return [a.reason for plan in world.plans for a in plan.actions if isinstance(a, Emit)]


# ------------------------------------------------------------------------------------------------ skipped, added, changed


def test_a_default_stage_that_is_skipped_is_said_and_the_others_run() -> None:
    evaluate = {"name": "evaluate", "patch": {"run": {"model": {"type": "Stage", "stage": "sft"}}}}
    world = World(skip=["rl"], stagePatches=[evaluate])
    status = world.run()
    assert phases(status) == dict.fromkeys(("curate", "reward", "judge", "sample", "sft", "evaluate"), "Passed") | {"rl": "Skipped"}
    assert (status.phase, status.percent) == ("RollingOut", 100.0)
    assert status.model == next(s.artifact for s in status.stages if s.name == "sft")


def test_what_needs_a_skipped_stage_is_refused_with_the_mend() -> None:
    status = World(skip=["sample"]).run()
    assert status.decision is not None
    assert (status.decision.verdict, status.decision.reason) == ("Failed", "InvalidSpec")
    assert status.decision.message.startswith("stage 'sft' needs stage 'sample', which spec.skip leaves out; skip 'sft' too")


def test_a_stage_is_added_to_the_default_ones_and_stands_after_what_it_needs() -> None:
    data = [{"name": "train", "subset": "preferences-reward", "from": CURATED}]
    dpo = {"name": "dpo", "run": {"method": "DPO", "model": {"type": "Stage", "stage": "sft"}, "datasets": data}}
    rl = {"name": "rl", "patch": {"run": {"model": {"type": "Stage", "stage": "dpo"}}}}
    world = World(defaultStages="Extend", stages=[dpo], stagePatches=[rl])
    status = world.run()
    assert [s.name for s in status.stages] == ["curate", "reward", "judge", "sample", "sft", "dpo", "rl", "evaluate"]
    assert status.model == status.stages[6].artifact


def test_a_stage_of_a_default_ones_name_takes_its_place() -> None:
    spec = GenerationTemplate.model_validate({"defaultStages": "Extend", "stages": [sft_stage(seed=5)]})
    names = [stage.name for stage in lap_stages(spec)]
    assert names == ["curate", "reward", "judge", "sample", "sft", "rl", "evaluate"]
    assert next(s.run.seed for s in lap_stages(spec) if s.name == "sft" and s.run) == 5


def test_a_patch_changes_what_it_names_and_leaves_the_rest() -> None:
    more = {"name": "written", "from": {"type": "Uri", "uri": "s3://d/v4", "digest": digest_of("v4")}}
    patch = {"run": {"gpusPerNode": 8, "parameters": {"maxSteps": 9}, "datasets": [{"name": "train", "weight": 2}, more]}}
    spec = GenerationTemplate.model_validate({"stagePatches": [{"name": "sft", "patch": patch}]})
    sft = next(s for s in lap_stages(spec) if s.name == "sft")
    assert sft.run is not None
    assert (sft.run.gpus_per_node, sft.run.parameters, sft.run.method) == (8, {"maxSteps": 9}, "SFT")
    assert [(d.name, d.subset, d.weight) for d in sft.run.datasets] == [("train", "sft", 2), ("written", None, 1)]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a patch of an unknown stage": (
        {"stagePatches": [{"name": "stf", "patch": {}}]},
        "spec.stagePatches names stage 'stf', which does not exist; stages are curate, reward",
    ),
    "a skip of an unknown stage": ({"skip": ["dpo"]}, "spec.skip names stage 'dpo', which does not exist"),
    "nothing left": ({"stages": [sft_stage()], "skip": ["sft"]}, "spec.skip leaves no stage"),
    "a misspelt field": (
        {"stagePatches": [{"name": "sft", "patch": {"run": {"gpus": 8}}}]},
        "spec.stagePatches['sft'].patch.run.gpus: unknown field; correct its name",
    ),
    "a wrong type": (
        {"stagePatches": [{"name": "sft", "patch": {"run": {"seed": "one"}}}]},
        "spec.stagePatches['sft'].patch.run.seed: Input should be a valid integer",
    ),
    "another name": ({"stagePatches": [{"name": "sft", "patch": {"name": "tune"}}]}, "a stage can't be renamed"),
    "no work left": ({"stagePatches": [{"name": "sft", "patch": {"run": None}}]}, "both or none of 'run' and 'rewardModel'"),
    "a candidate that is skipped": ({"skip": ["rl", "evaluate"], "candidate": "rl"}, "spec.candidate 'rl' is skipped"),
    "too many": ({"defaultStages": "Extend", "stages": [sft_stage(f"s{n}") for n in range(20)]}, "are 27 stages, at most 24"),
    "a bottomless patch": ({"stagePatches": [{"name": "sft", "patch": {"run": {"parameters": "deep"}}}]}, "patch.run.parameters"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_lap_that_can_not_be_is_refused_with_the_field_and_the_mend(case: str) -> None:
    body, words = BAD[case]
    spec = GenerationTemplate.model_validate(body)
    with pytest.raises(InputError) as refused:
        check_lap(spec, lap_stages(spec))
    assert words in str(refused.value)


JSON = st.recursive(st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=5), lambda c: st.lists(c, max_size=3), max_leaves=6)
PATCHES = st.dictionaries(
    st.sampled_from(["run", "rewardModel", "gates", "dependsOn", "name", "retry", "x"]),
    st.dictionaries(st.sampled_from(["method", "seed", "datasets", "training", "limit", "y"]), JSON, max_size=3) | JSON,
    max_size=4,
)


@given(PATCHES)
def test_whatever_a_patch_holds_it_makes_a_stage_or_a_sentence(patch: dict[str, Any]) -> None:
    spec = GenerationTemplate.model_validate({"stagePatches": [{"name": "sft", "patch": patch}]})
    try:
        said = [s.name for s in lap_stages(spec)][4]
    except InputError as error:
        said = str(error)
    assert said == "sft" or "spec.stagePatches['sft'].patch" in said


def test_a_newer_operators_default_lap_does_not_change_one_that_runs() -> None:
    world = World()
    world.run(3, succeed=False)
    pinned = next(iter(world.pinned.values()))
    assert [s["name"] for s in pinned] == ["curate", "reward", "judge", "sample", "sft", "rl", "evaluate"]
    pinned[4]["run"]["seed"] = 77  # as an operator of another version might have had it
    world.run()
    assert [run.spec.seed for name, run in world.runs.items() if world.stage(name) == "sft"] == [77]


# ------------------------------------------------------------------------------------------------------------ tried again


def retrying(**policy: Any) -> World:
    world = World(stages=[{**sft_stage(), "retry": policy}])
    world.run(4, succeed=False)
    return world


def test_a_stage_is_tried_again_by_its_policy_after_a_wait_that_is_on_record() -> None:
    world = retrying(limit=2, backoff="30s")
    world.fail("sft", "RetriesExhausted", "failed 4 times")
    (stage,) = world.step().stages
    assert stage.phase == "Retrying"
    assert stage.next_retry_time == world.now + dt.timedelta(seconds=29)
    assert "retry 1 of 2 at 2026-11-23 12:00:" in (stage.message or "")
    assert world.plans[-1].requeue_at is not None
    assert world.plans[-1].requeue_at <= stage.next_retry_time
    world.run(20, succeed=False)
    (run,) = world.runs.values()
    assert "modelflywheel.dev/retry" not in run.metadata.annotations
    world.run(12, succeed=False)
    (run,) = world.runs.values()
    token = run.metadata.annotations["modelflywheel.dev/retry"]
    (stage,) = world.generation.status.stages
    assert (stage.phase, stage.retries, stage.retry, stage.next_retry_time) == ("Running", 1, token, None)
    assert world.generation.status.decision is None
    world.succeed(run.metadata.name)
    assert world.run(4).phase == "RollingOut"
    assert events(world).count("Retrying") == 2  # when it was put off, and when it began


def test_a_stage_that_fails_every_time_ends_the_lap_once_its_tries_are_used_up() -> None:
    world = retrying(limit=2, backoff="1s")
    for _ in range(60):
        (name,) = world.runs
        token = world.runs[name].metadata.annotations.get("modelflywheel.dev/retry")
        world.fail("sft", "OutOfMemory", "killed", token=token)
        world.step()
    status = world.generation.status
    assert status.phase == "Failed"
    assert (status.stages[0].retries, status.stages[0].phase) == (2, "Failed")


def test_what_would_fail_in_the_same_way_is_not_tried_again() -> None:
    world = retrying(limit=5)
    world.fail("sft", "InvalidParameter", "parameters.maxSteps is -1")
    assert world.step().phase == "Failed"


def test_a_crash_between_the_record_of_a_retry_and_its_act_loses_neither() -> None:
    world = retrying(limit=1, backoff="1s")
    world.fail("sft", "OutOfMemory", "killed")
    world.step()
    world.run(1, succeed=False)
    (stage,) = world.step(crash_after_status=True).stages
    assert stage.retries == 1
    world.step()
    (run,) = world.runs.values()
    assert run.metadata.annotations["modelflywheel.dev/retry"] == stage.retry
    assert world.generation.status.stages[0].retries == 1


def failed_at_evaluate() -> World:
    world = World()
    world.metrics["evaluate"] = {**PASSING, "safety_violation_rate": 0.5}
    assert world.run().phase == "Rejected"
    return world


def test_one_stage_is_run_again_though_it_had_ended_well_and_what_depends_on_it_follows_if_its_result_is_another() -> None:
    world = failed_at_evaluate()
    before = set(world.runs)
    world.annotate("again", stage="sft")
    world.metrics["evaluate"] = PASSING
    status = world.run()
    assert status.phase == "RollingOut"
    assert status.retry_stage == "sft"
    new = sorted(world.stage(name) for name in set(world.runs) - before)
    assert new == ["evaluate", "rl", "sft"]
    assert next(s.rerun for s in status.stages if s.name == "sft") == "again"


def test_the_stage_that_was_run_again_keeps_its_second_result_when_the_lap_starts_once_more() -> None:
    world = failed_at_evaluate()
    world.annotate("again", stage="sft")
    world.run()
    runs = {name for name in world.runs if world.stage(name) == "sft"}
    world.annotate("and again")
    status = world.run()
    assert {name for name in world.runs if world.stage(name) == "sft"} == runs
    assert next(s.rerun for s in status.stages if s.name == "sft") == "again"


def test_a_retry_of_one_failed_stage_is_not_handed_to_another_that_failed() -> None:
    world = World(stages=[sft_stage("one"), sft_stage("two", seed=2)])
    world.run(4, succeed=False)
    for name in ("one", "two"):
        world.fail(name, "OutOfMemory", "killed")
    world.step()
    world.annotate("now", stage="two")
    world.step()
    status = world.step()
    notes = {world.stage(name): run.metadata.annotations for name, run in world.runs.items()}
    assert notes == {"one": {}, "two": {}}  # the lap ends at once, for the other failure stands
    assert status.decision is not None or world.step().decision is not None
    assert world.generation.status.decision is not None
    assert world.generation.status.decision.stage == "one"


# ------------------------------------------------------------------------------------------------------- taken over


def earlier(world: World, **changes: Any) -> TrainingRun:
    """What another lap of the Flywheel has made, of what this one's only run would read."""
    done = World(stages=[sft_stage()], seed=world.generation.spec.seed)
    done.run(4, succeed=False)
    (name,) = done.runs
    done.metrics["sft"] = {"loss": 0.25}
    done.succeed(name)
    run = done.runs[name]
    inputs = {"model": {"uri": "s3://elsewhere", "digest": "sha256:" + "a" * 64}}
    inputs |= {"datasets": {"train": {"uri": "s3://elsewhere", "digest": digest_of("d")}}}  # type: ignore[dict-item]
    attempt = {"number": 1, "job": "j", "imageId": IMAGE}
    status = {**run.status.dump(), "inputs": inputs, "attempts": [attempt], "completionTime": "2026-11-22T12:00:00Z", **changes}
    meta = run.metadata.model_copy(update={"name": "g0-sft-1"})
    return run.model_copy(update={"metadata": meta, "status": TrainingRunStatus.model_validate(status)})


def looking_back(**spec: Any) -> World:
    world = World(stages=[sft_stage()], **spec)
    world.defaults = Defaults(trainer_image=IMAGE)
    world.earlier_runs = [earlier(world)]
    return world


def test_what_an_earlier_lap_has_made_of_the_same_is_taken_over_without_a_pod() -> None:
    world = looking_back()
    status = world.run(5)
    (stage,) = status.stages
    assert world.runs == {}
    assert (stage.phase, stage.reused_from, stage.metrics) == ("Passed", "g0-sft-1", {"loss": 0.25})
    assert stage.artifact == world.earlier_runs[0].status.artifact
    assert "taken over from TrainingRun g0-sft-1" in (stage.message or "")
    assert (status.phase, status.gpu_seconds) == ("RollingOut", 0)
    assert events(world).count("Reused") == 1


def test_the_record_of_a_lap_says_by_which_method_and_run_a_stage_that_was_taken_over_had_been_made() -> None:
    record = looking_back(rollout=None).run(5).record
    assert record is not None
    (stage,) = record.stages
    assert (stage.method, stage.reused_from, stage.child is not None) == ("SFT", "g0-sft-1", True)


def test_the_result_stays_when_the_earlier_run_goes() -> None:
    world = looking_back(rollout=None, deadline="1h")
    world.run(2)
    world.step()
    made = world.generation.status.stages
    world.earlier_runs = []
    world.other_rollout = "g0-rollout"
    world.run(3)
    assert world.runs == {}
    assert world.generation.status.stages == made


def test_the_gates_judge_what_was_taken_over_anew() -> None:
    gate = {"metric": "loss", "operator": "LessThan", "value": 0.2}
    world = World(stages=[{**sft_stage(), "gates": [gate]}])
    world.defaults, world.earlier_runs = Defaults(trainer_image=IMAGE), [earlier(world)]
    status = world.run(5)
    assert status.phase == "Rejected"
    assert status.decision is not None
    assert "loss is 0.25, must be < 0.2" in status.decision.message


DIFFERENT: dict[str, Any] = {
    "other data": {"stage": {"datasets": [{"name": "train", "from": {"type": "Uri", "uri": "s3://x", "digest": digest_of("e")}}]}},
    "another seed": {"stage": {"seed": 4}},
    "another seed of the lap": {"spec": {"seed": 4}, "made": {"seed": 0}},
    "other parameters": {"stage": {"parameters": {"maxSteps": 3}}},
    "an adapter": {"stage": {"adapter": {"rank": 8}}},
    "more GPUs, which make other batches": {"stage": {"gpusPerNode": 2}},
    "data that grows": {"stage": {"datasets": [{"name": "train", "from": {"type": "Uri", "uri": "file:///flywheel/d"}}]}},
    "a mutable tag": {"image": "registry.example/trainer:v1"},
    "another image": {"image": IMAGE.replace("1" * 64, "2" * 64)},
    "an image that podTemplate brings": {"stage": {"podTemplate": {"spec": {"containers": [{"name": "trainer", "image": "x"}]}}}},
    "another store": {"claim": "other"},
    "a run that failed": {"run": {"phase": "Failed"}},
    "an artifact that was collected": {"gone": True},
    "an image that nobody recorded": {"run": {"attempts": [{"number": 1, "job": "j"}]}},
    "the wish to run": {"spec": {"cache": "Never"}},
}


@pytest.mark.parametrize("difference", DIFFERENT)
def test_what_may_come_out_otherwise_is_not_taken_over(difference: str) -> None:
    change = DIFFERENT[difference]
    world = World(stages=[sft_stage(**change.get("stage", {}))], **change.get("spec", {}))
    world.defaults = Defaults(trainer_image=change.get("image", IMAGE))
    run = earlier(World(), **change.get("run", {}))
    if "claim" in change:
        storage = run.spec.storage.model_copy(update={"claim_name": change["claim"]})
        run = run.model_copy(update={"spec": run.spec.model_copy(update={"storage": storage})})
    if change.get("gone"):
        assert run.status.artifact is not None
        world.gone = frozenset({run.status.artifact.digest or ""})
    world.earlier_runs = [run]
    (stage,) = world.run(4, succeed=False).stages
    assert (stage.phase, stage.reused_from) == ("Running", None)
    assert len(world.runs) == 1


def test_always_means_whatever_the_image_was_but_never_data_that_grows() -> None:
    world = World(stages=[curate(), {**sft_stage(), "cache": "Always"}])
    world.earlier_runs = [earlier(world)]
    status = world.run(4, succeed=False)
    assert phases(status) == {"curate": "Running", "sft": "Passed"}
    world = World(stages=[curate()], cache="Always")
    world.run(4, succeed=False)
    name = next(iter(world.runs))
    world.succeed(name)
    grown = World(stages=[curate()], cache="Always")
    grown.earlier_runs = [world.runs[name]]
    assert phases(grown.run(4, succeed=False)) == {"curate": "Running"}


def test_a_stage_that_was_asked_to_run_again_takes_nothing_over() -> None:
    gate = {"metric": "loss", "operator": "LessThan", "value": 0.2}
    world = World(stages=[{**sft_stage(), "gates": [gate]}])
    world.defaults, world.earlier_runs = Defaults(trainer_image=IMAGE), [earlier(world)]
    world.run(5)
    world.annotate("again", stage="sft")
    world.run(4, succeed=False)
    assert len(world.runs) == 1


def test_a_reward_model_is_taken_over_if_it_reaches_todays_minimum() -> None:
    data = sft_stage()["run"]["datasets"]
    stage = {"name": "reward", "rewardModel": {"training": {"method": "Reward", "model": {"type": "Base"}, "datasets": data}}}
    run = earlier(World(), metrics={"accuracy_lower": 0.7})
    spec = run.spec.model_copy(update={"method": "Reward"})
    run = run.model_copy(update={"spec": spec})
    for minimum, taken in ((0.6, "g0-sft-1"), (0.8, None)):
        stage["rewardModel"]["validation"] = {"minimum": minimum}  # type: ignore[index]
        world = World(stages=[stage])
        world.defaults, world.earlier_runs = Defaults(trainer_image=IMAGE), [run]
        (found,) = world.run(3, succeed=False).stages
        assert found.reused_from == taken


def test_the_content_of_a_run_does_not_depend_on_where_its_inputs_lie() -> None:
    run = earlier(World())
    assert run.status.inputs is not None
    assert run.status.inputs.model is not None
    moved = run.status.inputs.model_copy(update={"model": run.status.inputs.model.model_copy(update={"uri": "gs://moved"})})
    assert content(run.spec, moved) == content(run.spec, run.status.inputs) is not None


# ------------------------------------------------------------------------------------------------------------- approved


def asking(**spec: Any) -> World:
    world = World(stages=[{**sft_stage(), "approval": {"message": "its samples"}}, {**sft_stage("next", seed=2), "dependsOn": ["sft"]}])
    world.run(4, succeed=False)
    world.finish()
    world.step()
    return world


def say(world: World, stage: str, decision: str, digest: str, by: str = "alice", comment: str = "") -> None:
    word = Approval.model_validate({"stage": stage, "digest": digest, "decision": decision, "by": by, "comment": comment})
    meta = world.generation.metadata.model_copy(update={"generation": world.generation.metadata.generation + 1})
    spec = world.generation.spec.model_copy(update={"approvals": (*world.generation.spec.approvals, word)})
    world.generation = world.generation.model_copy(update={"metadata": meta, "spec": spec})


def digest(world: World, stage: str) -> str:
    made = next(s.artifact for s in world.generation.status.stages if s.name == stage)
    assert made is not None
    assert made.digest is not None
    return made.digest


def test_a_lap_waits_for_a_person_and_says_who_may_speak() -> None:
    world = asking()
    status = world.run(5)
    assert (status.phase, status.current_stage) == ("AwaitingApproval", "sft")
    assert phases(status) == {"sft": "AwaitingApproval", "next": "Waiting"}
    progressing = next(c for c in status.conditions if c.type == "Progressing")
    assert (progressing.status, progressing.reason) == ("True", "AwaitingApproval")
    assert "`kubectl flywheel approve generation/g1 --stage sft`" in progressing.message
    assert "right 'approve' on generations" in progressing.message
    assert events(world).count("AwaitingApproval") == 1


def test_an_approval_lets_the_lap_go_on_and_stands_in_its_record() -> None:
    world = asking()
    say(world, "sft", "Approve", digest(world, "sft"), comment="read 50")
    status = world.run()
    assert status.phase == "RollingOut"
    (record,) = status.approvals
    assert (record.stage, record.by, record.decision, record.comment) == ("sft", "alice", "Approve", "read 50")
    assert status.stages[0].message == "approved by alice: read 50"
    assert "SpecPinned" not in {c.type for c in status.conditions}
    noted = record.time
    assert world.run(3).approvals[0].time == noted


def test_a_rejection_ends_the_lap_with_the_persons_name() -> None:
    world = asking()
    say(world, "sft", "Reject", digest(world, "sft"), comment="it flatters")
    status = world.run(3)
    assert status.decision is not None
    assert (status.phase, status.decision.reason, status.decision.stage) == ("Rejected", "RejectedByHand", "sft")
    assert "rejected by alice: it flatters" in status.decision.message
    assert status.approvals[0].decision == "Reject"


def test_an_approval_of_another_result_counts_for_nothing() -> None:
    world = asking()
    say(world, "sft", "Approve", digest_of("another"))
    status = world.run(5)
    assert status.phase == "AwaitingApproval"
    assert "alice spoke of another result" in (status.stages[0].message or "")


def test_an_approval_after_the_end_of_a_lap_does_not_start_it_again() -> None:
    world = World(stages=[sft_stage()])
    world.run(3, succeed=False)
    world.fail("sft", "OutOfMemory", "killed")
    world.run(3)
    say(world, "sft", "Approve", digest_of("x"))
    assert world.run(3).phase == "Failed"


def test_the_lap_itself_may_ask_before_its_model_meets_users() -> None:
    world = World(stages=[sft_stage()], approval={})
    status = world.run()
    assert (status.phase, status.rollout, world.rollout) == ("AwaitingApproval", None, None)
    assert status.model is not None
    assert events(world).count("AwaitingApproval") == 1
    say(world, "rollout", "Approve", status.model.digest or "")
    status = world.run(5)
    assert (status.phase, status.approvals[0].stage) == ("RollingOut", "rollout")


def test_a_lap_that_was_refused_its_users_meets_none() -> None:
    world = World(stages=[sft_stage()], approval={})
    model = world.run().model
    assert model is not None
    say(world, "rollout", "Reject", model.digest or "")
    status = world.run(3)
    assert status.decision is not None
    assert (status.phase, status.decision.reason, world.rollout) == ("Rejected", "RejectedByHand", None)


def test_the_approval_of_a_stage_whose_child_is_deleted_still_counts() -> None:
    world = asking()
    say(world, "sft", "Approve", digest(world, "sft"))
    for name in [n for n in world.runs if world.stage(n) == "sft"]:
        del world.runs[name]
    assert world.run().phase == "RollingOut"
    assert "sft" not in {world.stage(name) for name in world.runs}


def test_a_deadline_does_not_wait_for_people() -> None:
    world = World(stages=[{**sft_stage(), "approval": {}}], deadline="20s")
    status = world.run(30)
    assert status.decision is not None
    assert status.decision.reason == "DeadlineExceeded"
