"""A TrainingRun from its first pass to its end."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel.api.generation import Generation
from flywheel.plan.references import referenced
from flywheel.plan.training_run import TrainingRunObserved, plan_training_run
from tests.builders import (
    DIGEST,
    OTHER_DIGEST,
    T0,
    error_message,
    make_artifact,
    make_job_state,
    make_reward_model,
    make_training_run,
    metadata,
    pod_state,
    result_message,
    seconds,
    uri,
)
from tests.plan.training_world import World, started

# ------------------------------------------------------------------------------------------------------------ the way


def test_a_run_is_on_record_before_its_job_is_made_and_then_makes_a_config_map_and_a_job() -> None:
    world = World().step()
    attempt = world.attempts[0]
    assert (attempt.number, attempt.end_time, world.phase, world.reason) == (1, None, "Pending", "Starting")
    assert [a.manifest["kind"] for a in world.plan.actions if hasattr(a, "manifest")] == ["ConfigMap", "Job"]
    assert world.created == [attempt.job]
    assert world.configs[attempt.job]["model"] == {"uri": "file:///flywheel/base", "digest": DIGEST}


def test_a_run_succeeds_with_artifact_metrics_and_times() -> None:
    world = started(gpusPerNode=2)
    assert (world.phase, world.reason, world.wait) == ("Running", "Running", 2)
    world.now += seconds(58)
    world.pod(pod_state(exit_code=0, termination_message=result_message(), started=T0, finished=T0 + seconds(60)), succeeded=True).step()
    status = world.run.status
    assert (world.phase, world.succeeded, world.wait) == ("Succeeded", "True", None)
    assert status.artifact == make_artifact()
    assert status.metrics == {"loss": 0.5}
    assert (status.start_time, status.completion_time, status.gpu_seconds) == (T0, T0 + seconds(60), 120)
    assert status.observed_generation == 1


def test_an_attempt_remembers_the_image_that_its_pod_ran() -> None:
    world = started()
    ran = "registry.example/trainer@sha256:" + "1" * 64
    world.pod(pod_state(image_id=ran)).step()
    assert world.run.status.attempts[-1].image_id == ran
    world.pod(pod_state(exit_code=0, termination_message=result_message()), succeeded=True).step()
    assert world.run.status.attempts[-1].image_id == ran


def test_gpu_seconds_of_a_running_attempt_grow_by_polls_and_are_no_reason_to_write_at_every_look() -> None:
    world = started(gpusPerNode=8)
    before = world.step(after=2.0).run.status
    assert before.gpu_seconds > 0
    looks = [world.step(after=0.05).run.status for _ in range(20)]  # each write of a status is followed by a look
    assert all(status == before for status in looks)
    later = world.step(after=1.5).run.status
    assert later.gpu_seconds - before.gpu_seconds == pytest.approx(8 * 2.5, abs=0.2)
    world.ends(75).step(after=0.5)
    assert world.run.status.gpu_seconds >= later.gpu_seconds


def test_a_run_is_looked_at_as_often_as_there_is_time_for_so_many_trainers() -> None:
    world = started()
    plan = plan_training_run(TrainingRunObserved(run=world.run, jobs=tuple(world.jobs.values()), poll=seconds(40)), world.now)
    assert plan.requeue_at == world.now + seconds(40)


def test_progress_is_mirrored_while_the_pod_runs_and_nonsense_is_ignored() -> None:
    world = started()
    world.progress = {
        "phase": "Train",
        "step": 5,
        "totalSteps": 50,
        "percent": 10,
        "etaSeconds": 9,
        "metrics": {"reward": 0.2, "bad": float("nan")},
    }
    world.step(after=2)
    progress = world.run.status.progress
    assert progress is not None
    assert (progress.step, progress.total_steps, progress.eta_seconds) == (5, 50, 9)
    assert world.run.status.metrics == {"reward": 0.2}
    world.progress = {"step": -3, "percent": float("nan"), "metrics": [1]}
    world.step(after=2)
    assert world.run.status.progress == progress


def test_a_resumed_pod_that_has_not_counted_its_steps_yet_takes_nothing_back() -> None:
    world = started()
    world.progress = {"phase": "Training", "step": 40, "totalSteps": 120, "percent": 33.3, "etaSeconds": 9, "tokensPerSecond": 50}
    world.step()
    world.progress = {"phase": "Starting", "step": 0, "totalSteps": 0, "percent": 0}
    progress = world.step(after=2).run.status.progress
    assert progress is not None
    assert (progress.phase, progress.step, progress.total_steps, progress.percent) == ("Starting", 40, 120, 33.3)
    assert (progress.eta_seconds, progress.tokens_per_second) == (None, None)
    world.progress = {"phase": "Training", "step": 41, "totalSteps": 120, "percent": 34.2}
    progress = world.step(after=2).run.status.progress
    assert progress is not None
    assert progress.step == 41


def test_a_run_that_succeeded_never_runs_again_even_if_its_job_is_collected_or_its_spec_is_changed() -> None:
    world = started().ends(0, result_message()).step()
    world.delete_job().step(after=3600)
    world.edit(seed=9).annotate_retry("again").step(after=3600)
    assert (world.phase, len(world.created), world.plan.actions, world.wait) == ("Succeeded", 1, (), None)
    assert world.run.status.artifact is not None


def test_a_result_is_taken_from_the_pod_before_the_job_controller_has_closed_the_job() -> None:
    world = started()
    world.pod(pod_state(exit_code=0, termination_message=result_message())).step()
    assert world.phase == "Succeeded"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "no JSON"),
        ("Traceback…", "no JSON"),
        ('{"metrics": {}}', "no JSON with an 'artifact'"),
        (result_message(digest="md5:1"), "artifact.digest"),
        (result_message(digest=None), "artifact.digest is missing"),
        (result_message(sizeBytes=-1), "artifact.sizeBytes"),
        (result_message(metrics={"loss": "NaN"}), "metric 'loss' is 'NaN'"),
        (result_message().replace("0.5", "NaN"), "metric 'loss' is nan"),
        (result_message(metrics={"loss": True}), "not a finite number"),
        (result_message(metrics={str(i): i for i in range(300)}), "300 metrics"),
        ("[" * 50_000, "no JSON"),
    ],
)
def test_a_result_that_cannot_be_used_is_tried_again(message: str, said: str) -> None:
    world = started().ends(0, message).step()
    assert (world.phase, world.attempts[0].reason) == ("Retrying", "TrainerFailed")
    assert said in (world.attempts[0].message or "")
    assert world.run.status.artifact is None


# --------------------------------------------------------------------------------------------------------------- crashes


def test_a_crash_between_record_and_act_makes_no_second_job() -> None:
    world = World().step(crash=True)
    assert world.created == []
    world.step(after=5).step(after=1, jobs=())
    assert len(world.created) == 1
    assert len(world.attempts) == 1


def test_a_lost_status_adopts_the_job_that_runs() -> None:
    world = started()
    world.run = make_training_run()
    world.step()
    assert len(world.created) == 1
    assert world.attempts[0].job == world.job.name


def test_a_stale_status_never_deletes_a_newer_job() -> None:
    world = started()
    stale = world.run
    world.ends(75, error_message("StorageUnavailable")).step().step(after=11).starts().step(after=2)
    world.run = stale
    world.step()
    assert [job.attempt for job in world.live()] == [2]


def test_a_job_deleted_by_hand_gives_a_new_attempt_once_its_pod_is_gone() -> None:
    world = started()
    world.stray = [pod_state("old")]
    world.delete_job().step()
    assert (world.phase, world.reason, world.attempts[0].end_time, world.wait) == ("Retrying", "Interrupted", None, 5)
    world.step(after=5)
    assert world.attempts[0].reason == "Interrupted"
    assert "was deleted" in (world.attempts[0].message or "")
    world.step(after=20)
    assert "waiting until pod old is gone" in world.message
    world.stray = []
    world.step(after=20)
    assert [attempt.number for attempt in world.attempts] == [1, 2]
    assert world.attempts[0].counted is False


def test_a_job_that_was_only_missing_from_a_cache_that_lags_is_left_alone() -> None:
    world = started().step(jobs=()).step(after=2)
    assert (world.phase, len(world.attempts)) == ("Running", 1)
    assert world.run.status.next_retry_time is None
    assert len(world.live()) == 1


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    world = started().pod(pod_state(), deleting=True).step()
    assert (world.phase, world.reason) == ("Pending", "Waiting")
    assert len(world.created) == 1


# -------------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("exit_code", "reason"),
    [
        (64, "InvalidConfig"),
        (64, "InvalidParameter"),
        (65, "DatasetMissing"),
        (65, "DatasetEmpty"),
        (65, "DatasetInvalid"),
        (65, "DigestMismatch"),
        (65, "ModelMissing"),
        (65, "ModelInvalid"),
    ],
)
def test_bad_config_and_bad_data_end_the_run_with_the_trainers_own_words(exit_code: int, reason: str) -> None:
    world = started().ends(exit_code, error_message(reason, "dataset 'train' has no rows; point it to another")).step()
    assert (world.phase, world.succeeded, world.reason, world.wait) == ("Failed", "False", reason, None)
    assert "has no rows" in world.message
    assert "modelflywheel.dev/retry" in world.message
    assert world.step(after=86400).phase == "Failed"
    assert len(world.created) == 1


@pytest.mark.parametrize("message", [error_message("Promoted"), error_message("Interrupted"), "segfault", ""])
def test_a_reason_that_is_not_the_exit_codes_is_not_believed(message: str) -> None:
    assert started().ends(65, message).step().reason == "TrainerFailed"


def test_a_retryable_failure_is_tried_again_with_doubled_waits_until_the_limit() -> None:
    world = started(retry={"limit": 2, "backoff": "10s"})
    for wait in (10, 20):
        world.ends(75, error_message("StorageUnavailable", "disk full")).step()
        assert (world.phase, world.reason, world.wait) == ("Retrying", "Retrying", wait)
        assert world.run.status.next_retry_time == world.now + seconds(wait)
        world.step(after=wait - 1)
        assert world.phase == "Retrying"
        world.step(after=1).starts().step(after=2)
        assert world.phase == "Running"
    world.ends(75, error_message("StorageUnavailable", "disk full")).step()
    assert (world.phase, world.reason, world.wait) == ("Failed", "RetriesExhausted", None)
    assert "failed 3 times, spec.retry.limit is 2" in world.message
    assert "disk full" in world.message


def test_the_status_does_not_change_at_every_look_during_a_wait() -> None:
    world = started(retry={"backoff": "60s"}).ends(75, error_message("StorageUnavailable")).step(after=1)
    status = world.step(after=5).plan.status
    assert world.step(after=20).plan.status == status


def test_the_wait_is_never_longer_than_ten_minutes() -> None:
    world = started(retry={"limit": 50, "backoff": "1m"})
    for _ in range(12):
        world.ends(1).step()
        assert world.wait is not None
        assert world.wait <= 600
        world.step(after=world.wait).starts().step()
    assert world.wait == 2


def test_retries_read_the_same_inputs_and_share_checkpoints() -> None:
    world = World(run=make_training_run(model={"type": "TrainingRun", "trainingRun": "base"}))
    base = make_training_run("base", status={"phase": "Succeeded", "artifact": make_artifact().dump()})
    world.objects = {("TrainingRun", "base"): base}
    world.step().starts().step().ends(75, error_message("StorageUnavailable")).step()
    world.objects = {}
    world.step(after=11)
    first, second = (world.configs[attempt.job] for attempt in world.attempts)
    assert first["run"].pop("attempt") == 1
    assert second["run"].pop("attempt") == 2
    assert first == second


def test_out_of_memory_is_tried_once_more_and_then_names_the_limit_to_raise() -> None:
    world = started(resources={"limits": {"memory": "4Gi"}})
    world.ends(137, terminated_reason="OOMKilled").step()
    assert (world.phase, world.attempts[0].reason) == ("Retrying", "OutOfMemory")
    world.step(after=10).starts().step().ends(137, terminated_reason="OOMKilled").step()
    assert (world.phase, world.reason) == ("Failed", "OutOfMemory")
    assert "raise spec.resources.limits.memory (now 4Gi)" in world.message
    world.edit(resources={"limits": {"memory": "8Gi"}}).step()
    assert len(world.created) == 3
    configs = list(world.configs.values())
    assert configs[0]["checkpoint"]["uri"] == configs[2]["checkpoint"]["uri"], "more memory goes on from the checkpoint"


def test_out_of_memory_with_no_retries_wanted_is_final_at_once() -> None:
    world = started(retry={"limit": 0}).ends(137, terminated_reason="OOMKilled").step()
    assert (world.phase, world.reason) == ("Failed", "OutOfMemory")
    assert "the default of 4Gi" in world.message


@pytest.mark.parametrize(
    "pod", [{"disrupted": True, "exit_code": 75}, {"disrupted": True, "exit_code": 137}, {"pod_reason": "Evicted", "exit_code": 137}]
)
def test_an_eviction_is_not_counted_against_the_user(pod: dict[str, Any]) -> None:
    world = started(retry={"limit": 0}).ends(pod.pop("exit_code"), **pod).step()
    assert (world.phase, world.attempts[0].reason, world.attempts[0].counted) == ("Retrying", "Interrupted", False)


def test_a_pod_that_its_job_replaces_after_an_eviction_stays_in_the_same_attempt() -> None:
    world = started().pod(pod_state("old", exit_code=75, disrupted=True)).step(after=2)
    assert "evicted" in world.message
    world.pod(pod_state("new", created=T0 + seconds(9)), pod_state("old", exit_code=75, disrupted=True)).step(after=2)
    assert (world.phase, len(world.attempts)) == ("Running", 1)


def test_an_unknown_exit_code_quotes_the_end_of_the_log() -> None:
    world = started().ends(1, "lots of lines\nValueError: bad shape").step()
    assert (world.phase, world.attempts[0].reason) == ("Retrying", "TrainerFailed")
    assert "ValueError: bad shape" in (world.attempts[0].message or "")


def test_a_passed_deadline_is_final() -> None:
    world = started(deadline="1m").pod(pod_state(exit_code=75), failed=True, failure_reason="DeadlineExceeded").step()
    assert (world.phase, world.reason) == ("Failed", "DeadlineExceeded")
    assert "spec.deadline" in world.message


@pytest.mark.parametrize("job", [{"succeeded": True}, {"failed": True, "failure_reason": "BackoffLimitExceeded"}])
def test_a_job_whose_pod_is_gone_is_given_ten_seconds_and_is_then_tried_again(job: dict[str, Any]) -> None:
    world = started().pod(**job, finished=T0 + seconds(2)).step()
    assert world.attempts[0].end_time is None
    world.step(after=11)
    assert (world.phase, world.attempts[0].counted) == ("Retrying", True)
    assert "pod was gone" in (world.attempts[0].message or "")


def test_hundreds_of_attempts_stay_within_the_bounds_of_the_status() -> None:
    world = started(retry={"limit": 100, "backoff": "1s"})
    for _ in range(140):
        world.delete_job().step().step(after=5).step(after=600).starts().step()
    assert len(world.attempts) == 128
    assert world.attempts[-1].number == 141


# -------------------------------------------------------------------------------------------------------- can't start


def test_an_image_that_cannot_be_pulled_is_a_condition_and_the_run_goes_on_when_it_appears() -> None:
    world = World(run=make_training_run(image="registry/none:1")).step()
    world.waits(waiting_reason="ImagePullBackOff", waiting_message="not found").step()
    assert (world.phase, world.succeeded, world.reason) == ("Pending", "Unknown", "ImagePullFailed")
    assert "registry/none:1" in world.message
    assert "not found" in world.message
    assert world.wait is not None
    world.starts().step()
    assert world.phase == "Running"


def test_a_changed_image_replaces_a_job_that_could_not_start() -> None:
    world = World(run=make_training_run(image="registry/none:1")).step().waits(waiting_reason="ErrImagePull").step()
    world.edit(image="registry/some:1").step()
    assert world.live() == []
    world.step(after=5)
    assert len(world.created) == 2
    assert [attempt.reason for attempt in world.attempts] == ["ImagePullFailed", None]
    assert world.attempts[0].counted is False


def test_a_changed_spec_does_not_touch_a_running_attempt() -> None:
    world = started().edit(parameters={"maxSteps": 5}).step()
    assert (world.phase, len(world.live()), len(world.attempts)) == ("Running", 1, 1)
    assert "next attempt only" in world.message
    world.ends(65, error_message("DatasetEmpty")).step()
    assert len(world.attempts) == 2, "the change is the mend"


@pytest.mark.parametrize(
    ("pod", "reason", "said"),
    [
        ({"unschedulable": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}, "Unschedulable", "Insufficient nvidia.com/gpu"),
        (
            {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "s3" not found'},
            "InvalidSpec",
            'secret "s3" not found',
        ),
        ({"waiting_reason": "ContainerCreating"}, "Starting", "ContainerCreating"),
    ],
)
def test_a_pod_that_waits_says_why(pod: dict[str, Any], reason: str, said: str) -> None:
    world = World().step().waits(**pod).step()
    assert (world.phase, world.reason) == ("Pending", reason)
    assert said in world.message


def test_a_job_without_a_pod_is_remarked_on() -> None:
    world = World().step().step(after=31)
    assert "kubectl describe job" in world.message


def test_what_the_api_server_refuses_is_said_and_goes_on_after_a_mend() -> None:
    world = World(run=make_training_run(podTemplate={"spec": {"restartPolicy": "Always"}}))
    world.refused = "spec.template.spec.restartPolicy: Unsupported value"
    world.step(crash=True).step(crash=True, after=5)
    assert (world.reason, world.phase) == ("InvalidSpec", "Pending")
    assert "Unsupported value" in world.message
    world.refused = None
    world.edit(podTemplate={}).step()
    assert len(world.created) == 1
    assert len(world.attempts) == 1


def test_a_trainer_reads_the_spec_as_it_was_mended_and_not_as_it_was_when_its_job_was_refused() -> None:
    world = World(run=make_training_run(parameters={"maxSteps": 50}, podTemplate={"spec": {"restartPolicy": "Always"}}))
    world.refused = "spec.template.spec.restartPolicy: Unsupported value"
    world.step().step(after=5)
    assert (len(world.config_maps), world.created) == (1, [])
    world.refused = None
    world.edit(podTemplate={}, parameters={"maxSteps": 100}).step()
    assert world.configs[world.job.name]["parameters"] == {"maxSteps": 100}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"containers": []}, "podTemplate.containers is not a field"),
        ({"spec": {"containers": "x"}}, "podTemplate.spec.containers must be a list"),
        ({"spec": {"containers": [{"image": "x"}]}}, "podTemplate.spec.containers[0] must be an object with 'name'"),
        ({"spec": []}, "podTemplate.spec must be an object, not a list"),
        ({"spec": {"containers": None}}, "must not remove the container"),
    ],
)
def test_a_pod_template_that_does_not_fit_is_refused_with_the_field(template: dict[str, Any], said: str) -> None:
    world = World(run=make_training_run(podTemplate=template)).step()
    assert (world.phase, world.reason, world.created) == ("Failed", "InvalidSpec", [])
    assert said in world.message
    assert world.edit(podTemplate={}).step().created


# ---------------------------------------------------------------------------------------------------- suspend and retry


def test_suspend_pauses_the_job_and_resume_goes_on_in_the_same_attempt() -> None:
    world = started().edit(suspend=True).step()
    assert (world.phase, world.job.suspended) == ("Suspended", True)
    assert "saves a checkpoint" in world.message
    world.pod().step(after=5)
    assert (world.phase, world.succeeded) == ("Suspended", "Unknown")
    world.edit(suspend=False).step()
    assert world.job.suspended is False
    world.starts().step()
    assert (world.phase, len(world.attempts)) == ("Running", 1)
    world.ends(65, error_message("DatasetEmpty")).step()
    assert len(world.attempts) == 1, "pausing was no mend"


def test_a_suspended_run_starts_nothing() -> None:
    world = World(run=make_training_run(suspend=True)).step()
    assert (world.phase, world.created) == ("Suspended", [])
    world.edit(suspend=False).step()
    assert len(world.created) == 1


def test_a_failed_run_goes_on_after_its_spec_was_mended() -> None:
    world = started().ends(65, error_message("DatasetEmpty")).step()
    world.edit(datasets=[{"name": "train", "from": uri("more")}]).step()
    assert (world.phase, len(world.created)) == ("Pending", 2)
    assert world.configs[world.attempts[1].job]["datasets"][0]["uri"] == "file:///flywheel/more"
    first, second = world.configs.values()
    assert first["checkpoint"]["uri"] != second["checkpoint"]["uri"], "another dataset must not go on from this one's checkpoints"


def test_a_failed_run_goes_on_after_a_retry_annotation_but_once_per_value() -> None:
    world = started().ends(65, error_message("DatasetMissing")).step()
    world.annotate_retry("1").step()
    assert len(world.created) == 2
    world.starts().step().ends(65, error_message("DatasetMissing")).step().step(after=3600)
    assert (world.phase, len(world.created)) == ("Failed", 2)
    world.annotate_retry("2").step()
    assert len(world.created) == 3


def test_a_retry_after_exhaustion_gets_a_fresh_budget() -> None:
    world = started(retry={"limit": 1, "backoff": "1s"})
    world.ends(1).step().step(after=1).starts().step().ends(1).step()
    assert world.reason == "RetriesExhausted"
    world.annotate_retry("now").step().starts().step().ends(1).step()
    assert world.phase == "Retrying"


def test_a_spec_change_during_a_wait_starts_at_once() -> None:
    world = started(retry={"backoff": "10m"}).ends(75, error_message("StorageUnavailable")).step()
    world.edit(parameters={"maxSteps": 9}).step(after=1)
    assert len(world.created) == 2


# ----------------------------------------------------------------------------------------------------------- references


def test_a_reference_that_is_not_there_is_waited_for() -> None:
    world = World(run=make_training_run(model={"type": "TrainingRun", "trainingRun": "base"})).step()
    assert (world.phase, world.succeeded, world.reason, world.created) == ("Pending", "Unknown", "ReferenceNotFound", [])
    assert "TrainingRun 'base'" in world.message
    assert world.wait == 30
    world.objects = {("TrainingRun", "base"): make_training_run("base", status={"phase": "Running"})}
    assert world.step().reason == "Waiting"
    artifact = make_artifact(digest=OTHER_DIGEST)
    world.objects = {("TrainingRun", "base"): make_training_run("base", status={"phase": "Succeeded", "artifact": artifact.dump()})}
    world.step()
    assert world.configs[world.attempts[0].job]["model"]["digest"] == OTHER_DIGEST
    assert world.run.status.inputs is not None
    assert world.run.status.inputs.model == artifact


def test_a_reference_that_failed_says_so_and_goes_on_when_that_one_was_retried() -> None:
    failed = World(run=make_training_run("base")).step().starts().step().ends(65, error_message("DatasetEmpty", "no rows")).step().run
    world = World(
        run=make_training_run(model={"type": "TrainingRun", "trainingRun": "base"}), objects={("TrainingRun", "base"): failed}
    ).step()
    assert (world.phase, world.reason) == ("Pending", "ReferenceFailed")
    assert "DatasetEmpty" in world.message
    assert world.wait is not None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"model": {"type": "Base"}}, "spec.model.type is Base"),
        ({"model": {"type": "Champion"}}, "spec.model.type is Champion"),
        ({"opponent": {"type": "Stage", "stage": "rl"}}, "spec.opponent.type is Stage"),
        (
            {"datasets": [{"name": "conversations", "from": {"type": "Conversations"}}]},
            "spec.datasets[conversations].from.type is Conversations",
        ),
        ({"rewards": [{"name": "r", "from": {"type": "Stage", "stage": "reward"}}]}, "spec.rewards[r].from.type is Stage"),
        ({"model": {"type": "Uri"}}, "give spec.model.uri"),
    ],
)
def test_words_that_only_a_generation_knows_are_refused_with_the_mend(spec: dict[str, Any], said: str) -> None:
    world = World(run=make_training_run(**spec)).step()
    assert (world.phase, world.succeeded, world.reason, world.created) == ("Failed", "False", "InvalidSpec", [])
    assert said in world.message


def test_a_reference_to_the_wrong_kind_of_artifact_is_refused() -> None:
    world = World(run=make_training_run(model={"type": "TrainingRun", "trainingRun": "curate"}))
    curate = make_training_run("curate", status={"phase": "Succeeded", "artifact": make_artifact("dataset").dump()})
    world.objects = {("TrainingRun", "curate"): curate}
    assert world.step().reason == "InvalidSpec"
    assert "makes a dataset, but a model is needed" in world.message


def test_every_kind_of_reference_is_named_for_the_watcher_and_resolved() -> None:
    run = make_training_run(
        method="GRPO",
        model={"type": "Generation", "generation": "g1"},
        pool=[uri("other")],
        datasets=[{"name": "prompts", "from": {"type": "TrainingRun", "trainingRun": "curate"}, "subset": "prompts-train"}],
        rewards=[
            {"name": "preference", "from": {"type": "RewardModel", "rewardModel": "rm"}, "role": "Judge"},
            {"name": "rule", "from": {"type": "Uri", "uri": "builtin:question-mark"}},
        ],
    )
    assert referenced(run.spec) == {("Generation", "g1"), ("TrainingRun", "curate"), ("RewardModel", "rm")}
    generation = Generation.model_validate(
        {"metadata": metadata("g1"), "spec": {"flywheel": "f"}, "status": {"phase": "Promoted", "model": make_artifact().dump()}}
    )
    world = World(run=run)
    world.objects = {
        ("Generation", "g1"): generation,
        ("TrainingRun", "curate"): make_training_run("curate", status={"phase": "Succeeded", "artifact": make_artifact("dataset").dump()}),
        ("RewardModel", "rm"): make_reward_model("rm", status={"phase": "Ready", "artifact": make_artifact("reward-model").dump()}),
    }
    world.step()
    config = world.configs[world.attempts[0].job]
    assert config["datasets"] == [
        {"name": "prompts", "uri": make_artifact().uri, "digest": DIGEST, "subset": "prompts-train", "weight": 1.0}
    ]
    assert config["rewards"][1] == {"name": "rule", "role": "Reward", "uri": "builtin:question-mark", "weight": 1.0}
    assert config["pool"] == [{"uri": "file:///flywheel/other", "digest": DIGEST}]


# --------------------------------------------------------------------------------------------------------------- others


def test_events_are_emitted_when_the_reason_changes_and_only_then() -> None:
    world = started().step(after=2).step(after=2).ends(65, error_message("DatasetEmpty")).step().step(after=2)
    assert [(event.type, event.reason) for event in world.events] == [
        ("Normal", "Starting"),
        ("Normal", "Running"),
        ("Warning", "DatasetEmpty"),
    ]


def test_nothing_is_done_for_a_run_that_is_being_deleted() -> None:
    run = make_training_run()
    gone = run.model_copy(update={"metadata": run.metadata.model_copy(update={"deletion_timestamp": T0})})
    assert plan_training_run(TrainingRunObserved(gone), T0).actions == ()


def test_a_leftover_job_of_an_earlier_attempt_is_deleted() -> None:
    world = started().ends(75, error_message("StorageUnavailable")).step().step(after=11).starts().step()
    first = world.attempts[0].job
    world.jobs[first] = make_job_state(first, pod_state())
    world.step(after=2)
    assert any(getattr(action, "name", None) == first for action in world.plan.actions)
