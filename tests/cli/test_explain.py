"""An explanation says why, with the numbers, and what comes next and when."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel.cli.advice import advice
from flywheel.cli.explain import explain
from flywheel.cli.reading import text
from tests.cli.recorded import LATER, NOW, Object, asking_rollout, condition, everything, recorded, run, running_lap, told

CUT_OVER = "2026-11-24T23:24:00Z"


def after(explanation: str, *words: str) -> bool:
    """Whether these words follow each other."""
    places = [explanation.find(word) for word in words]
    return -1 not in places and places == sorted(places)


# ------------------------------------------------------------------------------------------------------- laps


def test_a_rejected_lap_names_the_gate_with_value_and_limit_and_how_to_go_on() -> None:
    explanation = told(recorded("Generation", "companion-2"))
    assert "Generation companion-2 has ended: Rejected, 2 min ago (2026-11-24 23:22:10 UTC)." in explanation
    assert "safety_violation_rate is 0.03125, must be ≤ 0.03" in explanation
    assert "Hold    win_rate_user is 0.7545, must be < 0.65" in explanation
    assert "`kubectl flywheel retry generation/companion-2`" in explanation


def test_a_lap_that_waits_for_a_person_says_for_what_and_how_to_answer() -> None:
    waits = {"name": "sft", "kind": "TrainingRun", "phase": "AwaitingApproval", "message": "waits for approval of its samples"}
    busy = {"name": "judge", "kind": "RewardModel", "phase": "Running", "message": "Running: attempt 1"}
    lap = running_lap()
    lap["status"]["stages"] = [waits, busy, {"name": "sample", "kind": "TrainingRun", "phase": "Skipped"}]
    explanation = told(lap)
    assert "stage sft: waits for approval of its samples" in explanation
    assert "kubectl flywheel approve generation/NAME" in explanation
    assert "0 of 2 stages have passed" in explanation


def test_a_lap_that_users_left_shows_their_numbers_with_intervals() -> None:
    explanation = told(recorded("Generation", "companion-3"), recorded("Rollout", "companion-3"))
    assert "RolledBack: GuardrailHarm: harm is proven: breadth -64.5 %" in explanation
    assert "57 / 57 users  -64.5 % [-94.0 %, -23.6 %]" in explanation
    assert "Curate's `includeGenerations`" in explanation


def test_a_running_lap_tells_its_stage_what_is_to_come_and_its_deadline() -> None:
    body = running_lap()
    body["spec"]["deadline"] = "1h"
    explanation = told(body)
    assert "3 of 5 stages have passed" in explanation
    assert "stage rl runs: 40 %, about 2 min to go, since 4 min ago (2026-11-24 23:20:31 UTC), Running: step 18 of 44" in explanation
    assert "Then: evaluate, and the rollout." in explanation
    assert "in 55 min (2026-11-25 00:20:11 UTC): spec.deadline 1h ends the lap as Failed" in explanation


def test_a_lap_that_asks_users_tells_when_its_rollout_is_decided() -> None:
    rollout = asking_rollout()
    explanation = told(running_lap(phase="RollingOut", rollout=rollout["metadata"]["name"]), rollout)
    assert "The lap ends with Rollout companion-1-rollout-f250148c (Progressing)" in explanation
    assert "in 105 s (2026-11-24 23:26:45 UTC): the verdict" in explanation


def test_a_lap_whose_flywheel_serves_nobody_says_so() -> None:
    body = recorded("Generation", "companion-2")
    body["status"] = {
        "phase": "Pending",
        "conditions": [condition("Progressing", "True", "ReferenceNotFound", "Flywheel x serves nobody yet")],
    }
    explanation = told(body)
    assert "ReferenceNotFound: Flywheel x serves nobody yet" in explanation
    assert "It goes on by itself as soon as the object is there." in explanation


def test_an_edit_that_waits_is_told() -> None:
    note = condition("SpecPinned", "True", "Waiting", "revision 2 of the spec waits")
    assert "An edit waits for the end of the lap (revision 2 of the spec waits)." in told(running_lap(conditions=[note]))


# ------------------------------------------------------------------------------------------------------- rollouts


def test_a_rollout_tells_look_step_verdict_and_patience_in_the_order_of_time() -> None:
    explanation = told(asking_rollout())
    assert after(
        explanation,
        "in 1 s (2026-11-24 23:25:01 UTC): the next look",
        "in 30 s (2026-11-24 23:25:30 UTC): step 2 of 2 gives the candidate 50 % of users",
        "in 105 s (2026-11-24 23:26:45 UTC): the verdict",
        "in 2 min (2026-11-24 23:27:45 UTC): if numbers are then still missing, stale or contradictory: NoVerdict",
    )


def test_too_few_users_for_a_conclusion_are_counted() -> None:
    body = asking_rollout()
    body["spec"]["analysis"]["minimumUsers"] = 1000
    assert "from 1000 matured users a slice on; the smaller has 335." in told(body)


def test_weights_that_no_router_has_confirmed_are_not_called_real() -> None:
    explanation = told(asking_rollout(weights={"intended": 50, "revision": 3}))
    assert "50 % of users are to be sent to the candidate; no router pod has confirmed any yet" in explanation


def test_missing_numbers_come_with_what_to_look_at() -> None:
    conditions = [
        condition("Progressing", "True", "Enrolling"),
        condition("MetricsAvailable", "False", "MetricsStale", "97 s old (limit 15s)"),
    ]
    explanation = told(asking_rollout(conditions=conditions))
    assert "MetricsStale: 97 s old (limit 15s)" in explanation
    assert "Look at the collector's lag and at the scrape." in explanation


def test_a_paused_rollout_of_a_lap_is_resumed_by_the_lap() -> None:
    body = asking_rollout(phase="Paused")
    body["spec"]["suspend"] = True
    explanation = told(body)
    assert "Nothing is decided while it is paused; hard limits still act" in explanation
    assert "`kubectl flywheel resume generation/companion-1`" in explanation
    assert "step 2 of 2" not in explanation


def test_a_candidate_that_is_not_ready_yet_has_a_limit() -> None:
    body = asking_rollout(
        phase="Preparing", prepareStartTime="2026-11-24T23:24:00Z", conditions=[condition("Progressing", "True", "NotReady")]
    )
    assert "in 4 min (2026-11-24 23:29:00 UTC): a candidate that is still not ready is rolled back: NeverReady" in told(body)


def test_a_queued_rollout_tells_whom_it_waits_for() -> None:
    explanation = told(asking_rollout(phase="Pending", conditions=[condition("Progressing", "True", "Queued", "waits for Rollout other")]))
    assert "Queued: waits for Rollout other" in explanation
    assert "The Rollout starts when the other has ended" in explanation


def test_a_promotion_on_its_way_can_still_be_called_off() -> None:
    decision = {"verdict": "Promote", "reason": "SuccessProven", "message": "breadth +56 %", "time": "2026-11-24T23:24:30Z"}
    assert "until then an abort undoes it" in told(asking_rollout(phase="Promoting", decision=decision))
    watching = told(asking_rollout(phase="Watching", decision=decision, cutoverTime=CUT_OVER, watchEndTime=LATER))
    assert "in 60 s (2026-11-24 23:26:00 UTC): the watch ends" in watching


# ------------------------------------------------------------------------------------------------------- runs and reward models


def test_a_running_run_tells_step_speed_and_deadline() -> None:
    progress = {"phase": "Train", "step": 18, "totalSteps": 44, "percent": 41, "etaSeconds": 100, "tokensPerSecond": 3658.3}
    body = run("Running", progress=progress, attempts=[{"number": 1, "startTime": "2026-11-24T23:20:00Z"}])
    body["spec"]["deadline"] = "10m"
    explanation = told(body)
    assert "Train  step 18 of 44 (41 %)  about 100 s to go  3658 tokens/s" in explanation
    assert "in 5 min (2026-11-24 23:30:00 UTC): spec.deadline 10m ends the attempt" in explanation


def test_a_retry_tells_its_cause_its_time_and_how_many_are_left() -> None:
    ended = {"endTime": "2026-11-24T23:24:00Z", "exitCode": 75, "reason": "StorageUnavailable", "message": "no space left", "counted": True}
    conditions = [condition("Progressing", "True", "Retrying", "StorageUnavailable: no space left")]
    body = run("Retrying", nextRetryTime=LATER, conditions=conditions, attempts=[{"number": 1, **ended}, {"number": 2, **ended}])
    explanation = told(body)
    assert "attempt 2 ended 60 s ago (2026-11-24 23:24:00 UTC) with exit code 75: StorageUnavailable: no space left" in explanation
    assert "2 of 3 retries that count are used up" in explanation
    assert "in 60 s (2026-11-24 23:26:00 UTC): the next attempt starts, from the newest checkpoint" in explanation
    assert "Look at the claim or the store's credentials if it lasts." in explanation


def test_a_failed_run_of_nobody_can_be_retried_and_one_of_a_lap_points_to_the_lap() -> None:
    failed = run("Failed", conditions=[condition("Progressing", "False", "DatasetEmpty", "dataset 'train' has no rows")])
    assert "`kubectl flywheel explain generation/companion-2`" in told(failed)
    failed["metadata"]["ownerReferences"] = []
    explanation = told(failed)
    assert "DatasetEmpty: dataset 'train' has no rows" in explanation
    assert "widen the filters or the window" in explanation
    assert "`kubectl flywheel retry trainingrun/companion-2-rl-be0ad8e6`" in explanation


def test_a_reward_model_tells_what_it_reached_and_had_to() -> None:
    assert "accuracy_lower  0.7998  must be at least 0.5" in told(recorded("RewardModel", "companion-1-judge"))


def test_a_reward_model_in_training_shows_its_run() -> None:
    body = recorded("RewardModel", "companion-1-judge")
    body["status"] |= {"phase": "Training", "metrics": {}, "conditions": [condition("Ready", "False", "Running", "trains")]}
    trainer = recorded("TrainingRun", "companion-1-judge")
    trainer["status"]["progress"] |= {"step": 10, "percent": 25, "etaSeconds": 30}
    explanation = told(body, trainer)
    assert "step 10 of 40 (25 %)  about 30 s to go" in explanation
    assert "then accuracy_lower is checked" in explanation


# ------------------------------------------------------------------------------------------------------- flywheels


def flywheel(spec: dict[str, Any], **status: Any) -> Object:
    body = recorded("Flywheel", "companion")
    body["spec"] |= spec
    body["status"] |= status
    return body


def test_a_flywheel_without_a_trigger_waits_for_a_person() -> None:
    explanation = told(flywheel({"trigger": {}}))
    assert "companion-1 serves users since 4 min ago (2026-11-24 23:20:03 UTC)." in explanation
    assert "Nothing starts a lap by itself" in explanation


def test_a_flywheel_tells_both_of_its_triggers() -> None:
    trigger = {"schedule": "0 3 * * 1", "timeZone": "Europe/Berlin", "newConversations": 5000}
    explanation = told(flywheel({"trigger": trigger}, nextLapTime="2026-11-30T02:00:00Z"))
    assert "in 5 d (2026-11-30 02:00:00 UTC): the schedule '0 3 * * 1' (Europe/Berlin) starts the next lap" in explanation
    assert "5000 new conversations start the next lap; 1110 since the last lap began." in explanation


def test_a_flywheel_with_a_lap_tells_how_far_it_is() -> None:
    explanation = told(flywheel({}, active=["companion-2"]), running_lap(summary="rl: step 18 of 44"))
    assert "Lap companion-2 runs (Training: rl: step 18 of 44)" in explanation
    assert "The next lap waits for its end." in explanation


def test_a_paused_flywheel_starts_no_lap() -> None:
    explanation = told(flywheel({"suspend": True, "trigger": {"newConversations": 10}}))
    assert "`kubectl flywheel resume flywheel/companion`" in explanation
    assert "new conversations start" not in explanation


# ------------------------------------------------------------------------------------------------------- whatever comes


def test_a_new_object_has_nothing_to_explain_but_where_to_look() -> None:
    body = recorded("Generation", "companion-2")
    del body["status"]
    assert "The operator looks at a new object within seconds." in told(body)


def test_a_status_of_an_older_spec_is_called_so() -> None:
    body = recorded("Generation", "companion-2")
    body["metadata"]["generation"] = 2
    assert "about revision 1 of the spec; the operator has yet to look at revision 2" in told(body)


@pytest.mark.parametrize("body", everything(), ids=lambda body: f"{body['kind']} {text(body, 'metadata.name')}")
def test_no_absent_or_unknown_field_is_too_much_for_an_explanation(body: Object) -> None:
    """An object of an older or newer operator is explained as far as it is understood."""
    variants = [body | {"status": body["status"] | {"phase": "Pondering", "news": [{"of": "tomorrow"}]}}, body | {"spec": {}}]
    variants += [body | {"status": {k: v for k, v in body["status"].items() if k != field}} for field in body["status"]]
    variants += [body | {"status": body["status"] | {field: "other"}} for field in body["status"]]
    for variant in variants:
        assert explain(variant, everything(), advice(), NOW)[0].startswith(body["kind"])


def test_a_flywheel_that_backs_off_says_why_until_when_and_how_to_begin_anew() -> None:
    body = recorded("Flywheel", "companion")
    body["spec"]["trigger"] = {"newConversations": 400}
    body["status"] |= {"consecutiveFailures": 4, "backoffUntil": LATER, "nextLapTime": LATER, "active": []}
    message = "4 laps in a row ended badly (spec.backoff.after is 3): none starts by itself before 2026-11-24 23:26:00 UTC"
    body["status"]["conditions"].append(condition("NextLap", "False", "BackingOff", message))
    explanation = told(body)
    assert f"BackingOff: {message}" in explanation
    assert "in 60 s (2026-11-24 23:26:00 UTC): a lap may start again: 4 in a row had ended badly" in explanation
    assert "`kubectl flywheel retry flywheel/NAME`" in explanation


def test_a_flywheel_whose_adopted_deployment_was_replaced_says_that_it_may_go() -> None:
    body = recorded("Flywheel", "companion")
    message = "no user is sent to Deployment llama any more: it may be scaled down or deleted by whoever runs it"
    body["status"]["conditions"].append(condition("Adopted", "False", "Released", message))
    explanation = told(body)
    assert f"Released: {message}" in explanation
    assert "Scale it down or delete it" in explanation


def test_a_run_that_waits_for_gpus_says_who_has_them() -> None:
    waiting = run("Pending")
    message = "needs 8 GPUs, 4 of the operator's 16 are free; demo/x (12) holds the others"
    waiting["status"]["conditions"] = [condition("Progressing", "False", "WaitingForGPUs", message)]
    explanation = told(waiting)
    assert f"WaitingForGPUs: {message}" in explanation
    assert "begins by itself when enough GPUs are free" in explanation
