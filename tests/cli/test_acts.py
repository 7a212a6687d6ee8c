"""What people may tell the operator, and the sentence they get where it makes no sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flywheel.cli import acts
from flywheel.cli.errors import Problem
from tests.cli.recorded import NOW, Object, asking_rollout, recorded, run, running_lap


def alone(body: Object, **spec: Any) -> Object:
    """An object that belongs to nobody."""
    body["metadata"].pop("ownerReferences", None)
    body["spec"] |= spec
    return body


def retry(body: Object) -> acts.Act:
    return acts.retry(body, NOW)


def test_pause_and_resume_change_suspend() -> None:
    assert acts.pause(running_lap()).patch == {"spec": {"suspend": True}}
    assert acts.resume(alone(running_lap(), suspend=True)).patch == {"spec": {"suspend": False}}
    assert "no lap is started; serving goes on" in acts.pause(recorded("Flywheel", "companion")).said


def test_what_is_as_asked_already_is_left_alone_and_is_no_error() -> None:
    assert acts.pause(alone(running_lap(), suspend=True)).patch is None
    assert acts.resume(running_lap()).patch is None
    assert acts.abort(alone(asking_rollout(), abort=True)).patch is None


def test_abort_sends_users_back_while_that_is_possible() -> None:
    promoting = asking_rollout(phase="Promoting", decision={"verdict": "Promote", "reason": "SuccessProven"})
    for body in (asking_rollout(), promoting):
        act = acts.abort(body)
        assert act.patch == {"spec": {"abort": True}}
        assert "all users return to companion-initial now" in act.said


def test_retry_is_a_new_value_of_the_annotation() -> None:
    act = retry(alone(recorded("Rollout", "companion-3")))
    assert act.patch == {"metadata": {"annotations": {"modelflywheel.dev/retry": "2026-11-24T23:25:00.000000Z"}}}
    lap = retry(recorded("Generation", "companion-2")).patch
    assert lap is not None
    assert lap["metadata"]["annotations"]["modelflywheel.dev/retry"] == "2026-11-24T23:25:00.000000Z"


def test_a_retry_of_what_is_paused_says_how_to_let_it_start() -> None:
    assert "`kubectl flywheel resume trainingrun/companion-2-rl-be0ad8e6`" in retry(alone(run("Failed"), suspend=True)).said


PICK = {"name": "sft", "kind": "TrainingRun", "phase": "AwaitingApproval", "artifact": {"digest": "sha256:" + "a" * 64}}


def waiting(*stages: Object, model: str | None = None, **spec: Any) -> Object:
    """A lap that waits for somebody's word."""
    status = {"phase": "AwaitingApproval", "stages": list(stages), **({"model": {"digest": model}} if model else {})}
    return {**alone(running_lap(), **spec), "status": status}


def approve(body: Object, **word: Any) -> acts.Act:
    return acts.approve(body, acts.Word("alice", **word), NOW)


def test_an_approval_is_of_the_result_that_waits_and_in_ones_own_name() -> None:
    body = waiting(PICK)
    body["metadata"]["resourceVersion"] = "77"
    act = approve(body, comment="read 50")
    assert act.patch is not None
    (entry,) = act.patch["spec"]["approvals"]
    assert entry == {
        "stage": "sft",
        "digest": "sha256:" + "a" * 64,
        "decision": "Approve",
        "by": "alice",
        "comment": "read 50",
        "time": "2026-11-24T23:25:00.000000Z",
    }
    assert act.patch["metadata"] == {"resourceVersion": "77"}  # nobody else's word is overwritten
    assert "Stage sft of Generation companion-2 (sha256:aaaaaaaa…) is approved by alice: the lap goes on." in act.said


def test_a_rejection_keeps_what_others_have_said() -> None:
    other = {"stage": "sft", "digest": "sha256:" + "b" * 64, "decision": "Approve", "by": "bob"}
    act = approve(waiting(PICK, approvals=[other]), reject=True)
    assert act.patch is not None
    assert [(a["by"], a["decision"]) for a in act.patch["spec"]["approvals"]] == [("bob", "Approve"), ("alice", "Reject")]
    assert "the lap ends" in act.said


def test_a_lap_that_waits_before_its_rollout_is_approved_by_its_model() -> None:
    act = approve(waiting({**PICK, "phase": "Passed"}, model="sha256:" + "c" * 64))
    assert act.patch is not None
    assert act.patch["spec"]["approvals"][0]["stage"] == "rollout"
    assert act.patch["spec"]["approvals"][0]["digest"] == "sha256:" + "c" * 64


def test_what_was_said_already_is_not_said_twice() -> None:
    said = {"stage": "sft", "digest": "sha256:" + "a" * 64, "decision": "Approve", "by": "bob"}
    act = approve(waiting(PICK, approvals=[said]))
    assert (act.patch, "is approved already, by bob" in act.said) == (None, True)


def test_a_promotion_by_hand_names_the_candidate_by_its_digest() -> None:
    body = asking_rollout()
    act = acts.promote(body, "alice", "Prometheus is down")
    wish = {"digest": body["spec"]["candidate"]["digest"], "by": "alice", "reason": "Prometheus is down"}
    assert act.patch == {"spec": {"promote": wish}}
    assert "unless it breaks a hard limit" in act.said
    again = alone(asking_rollout(), promote=wish)
    assert (acts.promote(again, "bob", "so do I").patch, "already, by alice" in acts.promote(again, "bob", "so do I").said) == (None, True)


def test_a_retry_may_be_of_one_stage_and_a_later_one_of_the_lap_takes_that_back() -> None:
    act = acts.retry(recorded("Generation", "companion-2"), NOW, "rl")
    assert act.patch is not None
    assert act.patch["metadata"]["annotations"]["modelflywheel.dev/retry-stage"] == "rl"
    assert "Stage rl of Generation companion-2 is tried again, and what depends on it." in act.said
    whole = retry(recorded("Generation", "companion-2"))
    assert whole.patch is not None
    assert whole.patch["metadata"]["annotations"]["modelflywheel.dev/retry-stage"] is None


def test_a_flywheel_that_is_retried_forgets_its_failures() -> None:
    body = recorded("Flywheel", "companion")
    body["status"]["consecutiveFailures"] = 4
    act = retry(body)
    assert act.patch == {"metadata": {"annotations": {"modelflywheel.dev/retry": "2026-11-24T23:25:00.000000Z"}}}
    assert "forgets 4 laps that ended badly" in act.said


NONSENSE: dict[str, tuple[Callable[[Object], acts.Act], Object, str]] = {
    "pausing a lap that has ended": (acts.pause, recorded("Generation", "companion-2"), "has ended (Rejected): there is nothing to pause"),
    "pausing a decided rollout": (
        acts.pause,
        alone(asking_rollout(phase="RollingBack", decision={"verdict": "Rollback"})),
        "is decided (Rollback): a pause keeps nothing back",
    ),
    "pausing a run below its lap": (acts.pause, run("Running"), "belongs to Generation companion-2, which decides this for it"),
    "resuming a rollout below its lap": (acts.resume, asking_rollout(), "resume generation/companion-1"),
    "aborting a promoted rollout": (
        acts.abort,
        recorded("Rollout", "companion-1"),
        "is decided (Promote): all users have the candidate; to return to companion-initial, ask users again",
    ),
    "aborting a rolled back rollout": (acts.abort, recorded("Rollout", "companion-3"), "is decided (Rollback): all users get the baseline"),
    "aborting a lap with a rollout": (acts.abort, recorded("Generation", "companion-1"), "abort rollout/companion-1-rollout-f250148c"),
    "aborting a lap without one": (acts.abort, running_lap(), "pause it: `kubectl flywheel pause generation/companion-2`"),
    "retrying a success": (retry, recorded("Generation", "companion-1"), "has ended well (Promoted)"),
    "retrying what runs": (retry, running_lap(), "is Training and goes on by itself"),
    "retrying a flywheel": (retry, recorded("Flywheel", "companion"), "does not end, and no lap of it ended badly last"),
    "retrying what would be aborted again": (retry, alone(recorded("Rollout", "companion-3"), abort=True), "set it to false first"),
    "retrying a run below its lap": (retry, run("Failed"), "retry generation/companion-2"),
    "retrying what would be promoted at once": (
        retry,
        alone(recorded("Rollout", "companion-3"), promote={"by": "alice"}),
        "would be promoted at once; remove it first",
    ),
    "retrying a stage that is none": (
        lambda body: acts.retry(body, NOW, "dpo"),
        recorded("Generation", "companion-2"),
        "runs no stage dpo; its stages are curate",
    ),
    "retrying a stage of a rollout": (
        lambda body: acts.retry(body, NOW, "sft"),
        alone(recorded("Rollout", "companion-3")),
        "has no stages; leave out --stage",
    ),
    "approving what runs": (approve, running_lap(), "is Training and waits for nobody's approval"),
    "approving what has ended": (
        approve,
        recorded("Generation", "companion-2"),
        "has ended (Rejected): there is nothing to approve; `kubectl",
    ),
    "approving a rollout": (approve, asking_rollout(), "Only a Generation waits for approval"),
    "approving another stage": (lambda body: approve(body, stage="rl"), waiting(PICK), "Stage rl of Generation companion-2 does not wait"),
    "approving one of two": (
        approve,
        waiting(PICK, {**PICK, "name": "rl"}),
        "2 stages of Generation companion-2 wait for approval; give --stage",
    ),
    "promoting a lap": (lambda body: acts.promote(body, "alice", "x"), running_lap(), "Only a Rollout can be promoted"),
    "promoting what is decided": (
        lambda body: acts.promote(body, "alice", "x"),
        recorded("Rollout", "companion-3"),
        "is decided (Rollback); a promotion by hand comes too late",
    ),
    "promoting what is aborted": (
        lambda body: acts.promote(body, "alice", "x"),
        alone(asking_rollout(), abort=True),
        "is being aborted (spec.abort: true), which is stronger",
    ),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused_with_a_sentence(case: str) -> None:
    act, body, words = NONSENSE[case]
    with pytest.raises(Problem) as refusal:
        act(body)
    assert words in str(refusal.value)
    assert refusal.value.code == 1
