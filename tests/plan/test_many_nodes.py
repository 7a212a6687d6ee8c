"""Runs of several pods, of JobSets and of queues: who is to blame, who may pause, and what is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel.plan.attempts import outcome
from flywheel.plan.kube import JobState, PodState, job_set_state, pod_state
from tests.builders import T0, error_message, make_job_state, make_training_run, result_message, seconds, waiting_pod
from tests.builders import pod_state as pod
from tests.plan.training_world import World, started

FULL = frozenset({"Job", "JobSet"})


def nodes(count: int, *ends: dict[str, Any], **job: Any) -> JobState:
    """A Job of several pods that has failed; each end is that of the pod with its index."""
    pods = tuple(pod(f"pod-{index}", index=index, **{"finished": T0 + seconds(60), **end}) for index, end in enumerate(ends))
    return make_job_state("job", *pods, nodes=count, **{"failed": True, "failure_reason": "BackoffLimitExceeded", "finished": T0, **job})


LOST = {"exit_code": 75, "termination_message": error_message("PeerLost", "connection closed by peer")}
STOPPED = {"exit_code": 75, "termination_message": error_message("Interrupted", "SIGTERM")}


# ---------------------------------------------------------------------------------------------------------------- blame


@pytest.mark.parametrize(
    ("culprit", "reason", "counted"),
    [
        ({"exit_code": 64, "termination_message": error_message("InvalidParameter", "batchSize is 5")}, "InvalidParameter", False),
        ({"exit_code": 65, "termination_message": error_message("DatasetEmpty", "no rows")}, "DatasetEmpty", False),
        ({"exit_code": 137, "terminated_reason": "OOMKilled"}, "OutOfMemory", True),
        ({"exit_code": 137}, "OutOfMemory", True),
        ({"exit_code": 1, "termination_message": "Traceback: boom"}, "TrainerFailed", True),
        ({"exit_code": 75, "termination_message": error_message("StorageUnavailable", "disk full")}, "StorageUnavailable", True),
        ({"exit_code": 75, "disrupted": True, "termination_message": error_message("Interrupted")}, "Interrupted", False),
        ({"exit_code": None, "disrupted": True, "phase": "Failed", "pod_reason": "NodeLost"}, "Interrupted", False),
    ],
)
def test_the_first_cause_is_told_and_not_what_it_did_to_the_other_pods(culprit: dict[str, Any], reason: str, counted: bool) -> None:
    """The others end before it, after it, and in every way that a lost peer can be noticed."""
    victims = [LOST, {**STOPPED, "deleting": True}, {"exit_code": 137, "deleting": True, "finished": T0 + seconds(50)}]
    for place in range(4):
        ends = [*victims[:place], culprit, *victims[place:]]
        end = outcome(nodes(4, *ends), T0)
        assert end is not None
        assert (end.reason.value, end.counted) == (reason, counted), place
        assert end.message.startswith(f"node {place} of 4: ")


def test_two_causes_are_told_apart_by_time() -> None:
    late = {"exit_code": 1, "termination_message": "late", "finished": T0 + seconds(70)}
    early = {"exit_code": 1, "termination_message": "early", "finished": T0 + seconds(61)}
    end = outcome(nodes(2, late, early), T0)
    assert end is not None
    assert "early" in end.message


def test_victims_alone_are_not_believed_before_the_last_words_of_all_must_have_come() -> None:
    job = nodes(2, LOST)
    assert outcome(job, T0 + seconds(1)) is None
    end = outcome(job, T0 + seconds(10))
    assert end is not None
    assert (end.reason.value, end.retryable) == ("PeerLost", True)


def test_a_pod_that_is_gone_with_its_node_is_known_from_the_jobs_own_words() -> None:
    said = "Pod demo/job-1-x has condition DisruptionTarget matching FailJob rule at index 0"
    end = outcome(nodes(2, LOST, failure_reason="PodFailurePolicy", failure_message=said), T0 + seconds(10))
    assert end is not None
    assert (end.reason.value, end.counted, end.retryable) == ("Interrupted", False, True)
    assert said in end.message


def test_only_the_leaders_result_counts() -> None:
    assert outcome(make_job_state("job", pod("pod-1", index=1, exit_code=0), nodes=2), T0) is None
    done = make_job_state("job", pod("pod-1", index=1), pod("pod-0", index=0, exit_code=0, termination_message=result_message()), nodes=2)
    end = outcome(done, T0)
    assert end is not None
    assert end.artifact is not None


def test_a_pod_that_was_deleted_is_remembered_when_nothing_is_left_of_the_group() -> None:
    """Its Job deletes the others, and all of them are gone before it says that it has failed."""
    world = two_nodes()
    world.pod(pod("a", index=0), pod("b", index=1)).step(after=10)
    world.pod(pod("a", index=0), pod("b", index=1, deleting=True)).step(after=1)
    world.pod(failed=True, failure_reason="BackoffLimitExceeded", finished=world.now).step(after=1).step(after=10)
    (attempt,) = world.attempts
    assert (attempt.reason, attempt.counted, attempt.retryable) == ("Interrupted", False, True)
    assert attempt.message == "node 1 of 2: pod b was deleted"


def test_pods_that_their_job_deletes_after_a_failure_are_not_taken_for_its_cause() -> None:
    world = two_nodes()
    broken = pod("b", index=1, exit_code=1, termination_message="Traceback: boom")
    world.pod(pod("a", index=0, deleting=True), broken).step(after=1)
    world.pod(failed=True, failure_reason="BackoffLimitExceeded", finished=world.now).step(after=1).step(after=10)
    assert (world.attempts[0].reason, world.attempts[0].counted) == ("TrainerFailed", True)
    assert "boom" in (world.attempts[0].message or "")


def test_pods_that_leave_because_of_a_pause_are_no_sign_of_anything() -> None:
    world = two_nodes()
    world.pod(pod("a", index=0, deleting=True), pod("b", index=1, deleting=True)).step(after=1)
    world.pod(suspended=True).edit(suspend=True).step(after=1)
    assert world.attempts[0].reason is None


# ----------------------------------------------------------------------------------------------------------- on the way


def two_nodes(**spec: Any) -> World:
    return World(run=make_training_run(nodes=2, gpusPerNode=4, **spec)).step()


def test_several_nodes_get_an_indexed_job_and_a_service_that_outlives_the_attempt() -> None:
    world = two_nodes()
    assert world.job.nodes == 2
    assert list(world.services) == ["sft-pods"]
    world.pod(pod("a", index=0, started=T0), pod("b", index=1, started=T0)).step(after=10)
    assert world.reason == "Running"
    assert "on 2 nodes" in world.message
    assert world.run.status.gpu_seconds == 2 * 4 * 10
    world.pod(pod("a", index=0, exit_code=1), failed=True, finished=world.now).step()
    world.step(after=60).step(after=1)
    assert [a.number for a in world.attempts] == [1, 2]
    assert list(world.services) == ["sft-pods"]


def test_a_pod_that_is_still_missing_holds_the_run_up_and_is_named() -> None:
    world = two_nodes()
    world.pod(waiting_pod("b", index=1, waiting_reason=None, unschedulable="no GPU left"), pod("a", index=0)).step(after=10)
    assert (world.phase, world.reason) == ("Pending", "Unschedulable")
    assert "no node takes pod b: no GPU left; 1 of 2 pods have started, all are needed" in world.message
    world.pod(pod("a", index=0)).step()
    assert (world.phase, world.reason) == ("Pending", "Starting")


def test_the_leader_alone_is_asked_for_progress() -> None:
    from flywheel.plan.attempts import running_pod

    job = make_job_state("job", pod("b", index=1), pod("a", index=0), nodes=2)
    leader = running_pod([job])
    assert leader is not None
    assert leader.name == "a"


def test_names_leave_room_for_the_rank_in_pod_and_host_names() -> None:
    long = "a-run-with-a-name-of-forty-characters-xx"
    many = World(run=make_training_run(long, nodes=64)).step().attempts[0].job
    alone = World(run=make_training_run(long)).step().attempts[0].job
    assert len(f"{many}-node-0-63-abcde") <= 63
    assert len(alone) > len(many)


def test_the_image_that_ran_is_on_record_with_its_digest() -> None:
    world = started()
    world.pod(pod(image_id="registry/trainer@sha256:0123")).step()
    assert world.attempts[0].image_id == "registry/trainer@sha256:0123"
    world.ends(0, result_message()).step()
    assert world.attempts[0].image_id == "registry/trainer@sha256:0123"


# -------------------------------------------------------------------------------------------------------------- backends


def test_a_backend_that_is_not_there_is_waited_for_and_taken_when_it_comes() -> None:
    world = World(run=make_training_run(backend="JobSet")).step()
    assert (world.phase, world.reason, world.created, world.attempts) == ("Pending", "BackendMissing", [], ())
    assert "install JobSet" in world.message
    assert world.wait == 30
    world.backends = FULL
    world.step(after=30)
    assert (world.job.backend, world.attempts[0].backend) == ("JobSet", "JobSet")


def test_a_backend_that_goes_before_its_object_is_made_is_missed_and_not_asked_again_and_again() -> None:
    """The CRD was removed, and the API server has refused the JobSet before that was noticed."""
    world = World(run=make_training_run(backend="JobSet"), backends=FULL).step(crash=True)
    world.refused, world.backends = "404 page not found", frozenset({"Job"})
    world.step(after=5)
    assert (world.reason, world.created) == ("BackendMissing", [])
    assert not any(hasattr(action, "manifest") for action in world.plan.actions)
    world.refused, world.backends = None, FULL
    assert len(world.step(after=30).created) == 1


def test_a_jobset_that_nobody_can_see_is_not_taken_for_deleted() -> None:
    world = World(run=make_training_run(backend="JobSet"), backends=FULL).step()
    world.pod(pod()).step(after=2)
    world.backends = frozenset({"Job"})
    world.step(after=60, jobs=())
    assert (world.reason, len(world.attempts)) == ("BackendMissing", 1)
    world.backends = FULL
    world.step(after=1)
    assert world.reason == "Running"


def test_a_jobset_is_paused_and_removed_as_what_it_is() -> None:
    world = World(run=make_training_run(backend="JobSet"), backends=FULL).step()
    world.pod(pod()).step(after=2)
    world.edit(suspend=True).step()
    patch = next(action.manifest for action in world.plan.actions if hasattr(action, "manifest"))
    assert (patch["apiVersion"], patch["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


@pytest.mark.parametrize(
    ("conditions", "job", "expected"),
    [
        ({}, {}, (False, False, None)),
        ({"Completed": "AllJobsCompleted"}, {}, (True, False, None)),
        ({"Failed": "FailedJobs"}, {"Failed": "PodFailurePolicy"}, (False, True, "PodFailurePolicy")),
        ({"Failed": "FailedJobs"}, {"Failed": "DeadlineExceeded"}, (False, True, "DeadlineExceeded")),
        ({"Failed": "FailedJobs"}, {}, (False, True, "FailedJobs")),
    ],
)
def test_a_jobset_is_read_with_the_reason_of_the_job_that_failed(
    conditions: dict[str, str], job: dict[str, str], expected: tuple[bool, bool, str | None]
) -> None:
    def body(kind: str, said: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
        listed = [{"type": t, "status": "True", "reason": r, "lastTransitionTime": "2026-11-23T12:00:00Z"} for t, r in said.items()]
        return {"kind": kind, "metadata": {"name": "js", "uid": "u"}, "spec": spec, "status": {"conditions": listed}}

    template = {"template": {"spec": {"completions": 3}}}
    state = job_set_state(
        body("JobSet", conditions, {"suspend": True, "replicatedJobs": [template]}), [body("Job", job, {"completions": 3})], [], 2
    )
    assert (state.succeeded, state.failed, state.failure_reason) == expected
    assert (state.backend, state.nodes, state.suspended, state.attempt) == ("JobSet", 3, True, 2)


def test_a_pod_knows_its_rank_and_its_image() -> None:
    body = {
        "metadata": {"name": "p", "labels": {"modelflywheel.dev/component": "trainer", "batch.kubernetes.io/job-completion-index": "3"}},
        "status": {"containerStatuses": [{"name": "trainer", "imageID": "registry/trainer@sha256:ab", "state": {}, "restartCount": 0}]},
    }
    state: PodState = pod_state(body)
    assert (state.index, state.image_id) == (3, "registry/trainer@sha256:ab")


# --------------------------------------------------------------------------------------------------------------- queues


def queued(**spec: Any) -> World:
    return World(run=make_training_run(queueName="gpus", **spec)).step().step(after=2)


def suspends(world: World) -> list[Any]:
    """Patches of a Job's `suspend` in the newest plan."""
    return [action.manifest for action in world.plan.actions if "suspend" in getattr(action, "manifest", {}).get("spec", {})]


def test_a_queued_run_begins_suspended_and_waits_without_touching_suspend() -> None:
    world = queued()
    assert (world.job.suspended, world.job.queue) == (True, "gpus")
    assert (world.phase, world.reason) == ("Pending", "Queued")
    assert "waits for admission by Kueue queue gpus" in world.message
    assert suspends(world) == []
    world.queue_says = "Pending: insufficient quota for nvidia.com/gpu"
    assert "insufficient quota for nvidia.com/gpu" in world.step(after=5).message
    assert suspends(world) == []


def test_an_admitted_run_runs_and_an_evicted_one_waits_again_in_the_same_attempt() -> None:
    world = queued()
    world.pod(pod(started=world.now), suspended=False).step(after=5)
    assert (world.reason, suspends(world)) == ("Running", [])
    world.pod(suspended=True).step(after=5)
    assert (world.phase, world.reason, suspends(world)) == ("Pending", "Queued", [])
    assert "no retry is counted" in world.message
    world.pod(pod("other"), suspended=False).step(after=600)
    assert (world.reason, len(world.attempts), world.attempts[0].counted) == ("Running", 1, False)


def test_pausing_a_queued_run_gives_its_quota_back_and_resuming_it_queues_it_again() -> None:
    world = queued()
    world.pod(pod(started=world.now), suspended=False).step(after=5)
    world.edit(suspend=True).step()
    assert (world.phase, world.jobs, suspends(world)) == ("Suspended", {}, [])
    world.step(after=1)
    assert (world.phase, world.attempts[0].reason, world.attempts[0].counted) == ("Suspended", "Suspended", False)
    world.edit(suspend=False).step(after=1)
    assert [a.number for a in world.attempts] == [1, 2]
    assert (world.job.suspended, world.job.queue) == (True, "gpus")


# ------------------------------------------------------------------------------------------------------- custom trainers

SCHEMA = {
    "type": "object",
    "required": ["rate"],
    "additionalProperties": False,
    "properties": {
        "rate": {"type": "number", "maximum": 1},
        "mode": {"type": "string", "enum": ["fast", "slow"]},
        "layers": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "tag": {"type": "string", "pattern": "^(a+)+$"},
        "nested": {"type": "object", "properties": {"deep": {"type": "boolean"}}},
    },
}


def custom(schema: Any, **parameters: Any) -> World:
    spec = {"method": "Custom", "image": "mine:1", "custom": {"parametersSchema": schema}, "parameters": parameters}
    return World(run=make_training_run(**spec)).step()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "spec.parameters.rate: is required"),
        ({"rate": 3}, "spec.parameters.rate: Input should be less than or equal to 1, not '3'"),
        ({"rate": True}, "spec.parameters.rate: Input should be a valid number"),
        ({"rate": 1, "mode": "c"}, "spec.parameters.mode: must be one of fast, slow, not 'c'"),
        ({"rate": 1, "layers": [2, 0]}, "spec.parameters.layers[1]: Input should be greater than or equal to 1"),
        ({"rate": 1, "nested": {"deep": "yes"}}, "spec.parameters.nested.deep: Input should be a valid boolean"),
        ({"rate": 1, "raet": 1}, "spec.parameters.raet: Extra inputs are not permitted"),
        ({"rate": 1, "tag": "a" * 5000 + "b"}, "spec.parameters.tag: String should match pattern"),
    ],
)
def test_a_custom_trainers_parameters_are_checked_before_a_pod_is_made(parameters: dict[str, Any], said: str) -> None:
    world = custom(SCHEMA, **parameters)
    assert (world.phase, world.reason, world.created, world.attempts) == ("Failed", "InvalidParameter", [], ())
    assert said in world.message


def test_mended_parameters_start_the_run() -> None:
    world = custom(SCHEMA, rate=3)
    world.edit(parameters={"rate": 0.5, "mode": "fast", "layers": [1, 2], "tag": "aaa", "nested": {"deep": True, "free": 1}}).step()
    assert (world.reason, len(world.created)) == ("Starting", 1)
    assert world.configs[world.created[0]]["parameters"]["layers"] == [1, 2]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "#"}, "parametersSchema.type is None; write one of"),
        ({"type": "object", "properties": {"a": {"type": "string", "$ref": "#/x"}}}, "properties.a.$ref is not supported for type string"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "can't be used"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)"}}}, "can't be used"),
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": "x"}}}, "can't be used"),
        ({"type": "object", "properties": ["a"]}, "properties must be an object"),
        ({"type": "object", "required": ["b"], "properties": {"a": {"type": "string"}}}, "required names 'b'"),
        ({"type": "object", "properties": {"a": {"type": "string", "enum": []}}}, "enum must be a list"),
        ({"type": "object", "properties": {"a": 7}}, "properties.a must be an object with a type"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_path(schema: Any, said: str) -> None:
    world = custom(schema, a="x")
    assert (world.phase, world.reason, world.created) == ("Failed", "InvalidSpec", [])
    assert said in world.message


def test_a_schema_of_endless_depth_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    assert "nested more than 16 deep" in custom({"type": "object", "properties": {"a": schema}}).message


def test_a_trainer_without_a_schema_takes_any_parameters() -> None:
    assert custom({}, anything={"goes": [1, "x"]}).reason == "Starting"


# --------------------------------------------------------------------------------------------------------------- progress


def test_a_run_that_was_over_before_it_was_asked_has_done_the_steps_it_was_asked_for() -> None:
    world = started(parameters={"maxSteps": 3})
    world.progress = {"phase": "Starting", "step": 0, "totalSteps": 0, "percent": 0}
    world.step(after=2).ends(0, result_message()).step()
    progress = world.run.status.progress
    assert progress is not None
    assert (progress.step, progress.total_steps, progress.percent, progress.phase) == (3, 3, 100, "Done")


def test_a_run_whose_method_counts_no_steps_does_not_claim_any() -> None:
    world = started().ends(0, result_message()).step()
    assert world.run.status.progress is None
