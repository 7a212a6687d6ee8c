"""A Rollout from its first pass to its end, in a world of plain values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flywheel.api.base import Metadata
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.plan.base import Apply, PutExperiment, stable_hash
from flywheel.plan.rollout_observed import ErrorShare, RoutesState, experiment_id, queued_behind
from flywheel.plan.routes import UNREADABLE
from flywheel.stats.verdict import Evidence, NoData, Stale, Unavailable
from flywheel_collector.logline import EXPERIMENT
from tests.plan.rollout_world import (
    BASE,
    BETTER,
    EQUAL,
    NEW_ARM,
    NEXT,
    OLD_ARM,
    T0,
    WORSE,
    World,
    evidence,
    rollout_spec,
    seconds,
)

METRICS = ("breadth", "depth", "errors", "thumbs_down")


def answered_by(world: World) -> tuple[str, float]:
    assert world.routes is not None
    return world.routes.routes.stable.arm, world.routes.routes.weight_percent


def test_a_better_candidate_is_promoted_once_the_window_and_the_horizon_are_over() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    assert world.run(160) == "Progressing"
    assert world.run(175) in ("Watching", "Promoting")
    decision = world.rollout.status.decision
    assert decision is not None
    assert (decision.verdict, decision.reason) == ("Promote", "SuccessProven")
    assert "breadth" in decision.message
    assert decision.evidence_digest is not None
    assert answered_by(world) == (NEW_ARM, 0)
    assert world.run(230) == "Promoted"


def test_promotion_restarts_no_pod_and_parks_the_old_arm() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    world.run(175)
    assert set(world.deployments) == {OLD_ARM, NEW_ARM}
    assert world.deployments[NEW_ARM].labels["modelflywheel.dev/role"] == "stable"
    assert [w for w in world.writes if w == f"Deployment {NEW_ARM}"] == [f"Deployment {NEW_ARM}"] * 2  # made once, relabelled once


def test_a_harmful_candidate_is_rolled_back_before_the_window_is_over() -> None:
    world = World()
    world.evidence = evidence(EQUAL, WORSE)
    assert world.run(10) == "RolledBack"
    decision = world.rollout.status.decision
    assert decision is not None
    assert (decision.verdict, decision.reason) == ("Rollback", "GuardrailHarm")
    assert answered_by(world) == (OLD_ARM, 0)


def test_no_difference_is_inconclusive_and_keeps_the_baseline() -> None:
    world = World()
    world.evidence = evidence(EQUAL, EQUAL)
    assert world.run(180) == "Inconclusive"
    assert answered_by(world) == (OLD_ARM, 0)


@pytest.mark.parametrize("word", [NoData(), Stale(600.0), Unavailable("connection refused")])
def test_a_prometheus_outage_never_rolls_back_and_never_promotes(word: NoData | Stale | Unavailable) -> None:
    world = World()
    world.evidence = Evidence(assigned=None, metrics=dict.fromkeys(METRICS, word), window_over=False)
    assert world.run(200) == "Progressing"
    conditions = {c.type: c for c in world.rollout.status.conditions}
    assert conditions["MetricsAvailable"].status == "False"
    world.evidence = evidence(EQUAL, BETTER)
    assert world.run(210) == "Watching"


def test_metrics_that_never_come_back_end_in_no_verdict_with_the_baseline() -> None:
    world = World()
    world.evidence = Evidence(assigned=None, metrics=dict.fromkeys(METRICS, NoData()), window_over=False)
    assert world.run(240) == "Inconclusive"
    assert world.rollout.status.decision is not None
    assert world.rollout.status.decision.verdict == "NoVerdict"
    assert answered_by(world) == (OLD_ARM, 0)


def test_a_broken_sample_ratio_is_held_and_never_blamed_on_the_model() -> None:
    world = World()
    world.evidence = evidence(EQUAL, WORSE, assigned=(600, 400))
    assert world.run(60) == "Progressing"
    conditions = {c.type: c for c in world.rollout.status.conditions}
    assert conditions["MetricsAvailable"].reason == "SampleRatioMismatch"


def test_no_traffic_goes_to_an_arm_without_ready_pods() -> None:
    world = World()
    world.ready = False
    assert world.run(60) == "Preparing"
    assert world.routes is None or world.routes.routes.weight_percent == 0


def test_a_candidate_that_never_gets_ready_ends_with_a_reason_and_met_no_user() -> None:
    world = World()
    world.ready = False
    assert world.run(310, tick=5) == "Failed"
    decision = world.rollout.status.decision
    assert decision is not None
    assert decision.reason == "NeverReady"
    assert "5m" in decision.message


def test_a_mended_candidate_is_asked_about_anew_after_a_failure() -> None:
    world = World()
    world.ready = False
    world.run(310, tick=5)
    world.ready = True
    mended = world.rollout.spec.candidate.model_copy(update={"digest": "sha256:" + "c" * 64, "generation": "g2"})
    world.edit(candidate=mended)
    world.evidence = evidence(EQUAL, BETTER)
    assert world.run(320) == "Progressing"
    assert world.rollout.status.decision is None


def test_a_crash_looping_candidate_leaves_at_once_without_any_metric() -> None:
    world = World()
    world.run(5)
    world.deployments[NEW_ARM] = World.deployment(NEW_ARM, "candidate", ready=False, restarts=3, exit_code=1, terminated_reason="Error")
    assert world.run(7) == "RolledBack"
    assert world.rollout.status.decision is not None
    assert world.rollout.status.decision.reason == "CrashLoop"


def test_too_many_failed_replies_are_a_hard_limit_even_when_suspended() -> None:
    world = World()
    world.run(5)
    world.edit(suspend=True)
    world.errors = ErrorShare(failed=30, total=100)
    assert world.run(7) == "RolledBack"
    assert world.rollout.status.decision is not None
    assert "30.0 %" in world.rollout.status.decision.message


def test_a_few_failed_replies_of_a_few_mean_nothing() -> None:
    world = World()
    world.errors = ErrorShare(failed=5, total=10)
    assert world.run(20) == "Progressing"


def test_suspend_keeps_the_weights_and_decides_nothing() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    world.run(5)
    world.edit(suspend=True)
    assert world.run(400, tick=5) == "Paused"
    assert answered_by(world) == (OLD_ARM, 50)
    assert world.rollout.status.decision is None


def test_abort_returns_all_users_now() -> None:
    world = World()
    world.run(5)
    world.edit(abort=True)
    assert world.run(7) == "RolledBack"
    assert answered_by(world) == (OLD_ARM, 0)


def test_the_ramp_rises_step_by_step_after_every_router_has_confirmed() -> None:
    world = World(
        rollout_spec(
            traffic={"steps": [{"weightPercent": 1, "duration": "10s"}, {"weightPercent": 25, "duration": "10s"}, {"weightPercent": 50}]}
        )
    )
    world.acks = False
    world.run(30)
    assert answered_by(world)[1] == 1
    assert world.rollout.status.window_start_time is None
    world.acks = True
    world.run(42)
    assert answered_by(world)[1] == 25
    world.run(60)
    assert answered_by(world)[1] == 50


@pytest.mark.parametrize("silent", [NEW_ARM, OLD_ARM], ids=["candidate", "baseline"])
def test_the_ramp_waits_while_one_of_the_two_arms_has_no_ready_pod(silent: str) -> None:
    world = World(rollout_spec(traffic={"steps": [{"weightPercent": 5, "duration": "10s"}, {"weightPercent": 50}]}))
    world.run(5)
    ready = world.deployments[silent]
    world.deployments[silent] = World.deployment(silent, ready.labels["modelflywheel.dev/role"], ready=False)
    world.run(30)
    assert answered_by(world) == (OLD_ARM, 5)
    progressing = next(c for c in world.rollout.status.conditions if c.type == "Progressing")
    assert progressing.reason == "NotReady"
    assert f"{silent} has no ready pod" in progressing.message
    world.deployments[silent] = ready
    world.run(32)
    assert answered_by(world) == (OLD_ARM, 50)


def test_an_edit_raises_no_share_while_the_candidate_has_no_ready_pod_but_may_lower_it() -> None:
    world = World(rollout_spec(traffic={"steps": [{"weightPercent": 20}]}))
    world.run(5)
    world.deployments[NEW_ARM] = World.deployment(NEW_ARM, "candidate", ready=False)
    for asked, given in ((40, 20), (10, 10)):
        world.edit(traffic=rollout_spec(traffic={"steps": [{"weightPercent": asked}]}).traffic)
        world.step()
        assert answered_by(world) == (OLD_ARM, given)


def test_the_experiment_is_registered_before_the_first_user_is_sent() -> None:
    world = World()
    world.step()
    while world.routes is None or world.routes.routes.weight_percent == 0:
        world.now += seconds(1)
        plan = world.step()
    kinds = [type(action).__name__ for action in plan.actions]
    assert kinds.index("PutExperiment") < kinds.index("Apply" if "Apply" in kinds else "Create")


@pytest.mark.parametrize("crash_at", range(0, 24))
@pytest.mark.parametrize("candidate", [BETTER, WORSE])
def test_a_crash_between_status_and_act_repeats_the_act_and_never_the_decision(crash_at: int, candidate: dict[str, float]) -> None:
    calm, crashed = World(), World()
    for world in (calm, crashed):
        world.evidence = evidence(EQUAL, candidate)
    calm.run(230)
    passes = 0
    while crashed.now < T0 + seconds(230):
        near_decision = crashed.rollout.status.decision is not None or crashed.now >= T0 + seconds(163)
        passes += 1 if near_decision or candidate is WORSE else 0
        crashed.step(crash_after_status=passes == crash_at + 1)
        crashed.now += seconds(1)
    crashed.step()
    assert crashed.rollout.status.phase == calm.rollout.status.phase
    assert answered_by(crashed)[0] == answered_by(calm)[0]
    events = [h.event for h in crashed.rollout.status.history]
    assert events == [h.event for h in calm.rollout.status.history]
    assert sorted(crashed.deployments) == sorted(calm.deployments)


def test_an_older_rollout_of_the_same_service_goes_first() -> None:
    world = World()
    world.queued_behind = "r0"
    assert world.run(20) == "Pending"
    assert world.writes == []
    conditions = {c.type: c for c in world.rollout.status.conditions}
    assert conditions["Progressing"].reason == "Queued"


def test_a_candidate_that_never_got_ready_is_tried_again_with_its_mended_manifests() -> None:
    world = World()
    world.ready = False
    assert world.run(310, tick=5) == "Failed"
    failed, asked = world.rollout.status, len(world.writes)
    world.ready = True
    mended = rollout_spec(serving={"readyTimeout": "5m", "args": ["--max-model-len=512"]}).serving
    world.edit(serving=mended)
    assert world.run(320) == "Progressing"
    # The frozen manifests of the first try went first; the second arm is made from the mended spec.
    assert world.writes[asked : asked + 5] == [
        f"delete ControllerRevision {NEW_ARM}",
        f"ControllerRevision {NEW_ARM}",
        f"Service {NEW_ARM}",
        f"PodDisruptionBudget {NEW_ARM}",
        f"Deployment {NEW_ARM}",
    ]
    args = world.anchors[NEW_ARM]["data"]["manifests"][0]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args == ["--max-model-len=512"]
    assert (world.rollout.status.experiment, world.rollout.status.decision) == (failed.experiment, None)


def test_pods_of_an_earlier_try_are_not_held_against_the_next() -> None:
    world = World()
    world.ready = False
    world.run(310, tick=5)
    world.edit(rollback=world.rollout.spec.rollback.model_copy(update={"max_restarts": 1}))
    old = World.deployment(NEW_ARM, "candidate", ready=False, restarts=4, exit_code=2, created=T0)
    world.step()
    world.deployments[NEW_ARM] = old  # the garbage collector is slow
    assert world.run(315) == "Preparing"
    new = replace(old.pods[0], created=T0 + seconds(316), restarts=1)
    world.deployments[NEW_ARM] = replace(old, pods=(new,))
    assert world.run(322) == "Failed"


def test_a_mended_spec_waits_for_the_failed_arm_to_go_and_never_removes_one_that_serves() -> None:
    world = World()
    world.ready = False
    world.run(310, tick=5)
    world.edit(abort=False)
    plan = world.step(crash_after_status=True)  # the deletion was lost: it is asked for again
    assert plan.status["phase"] == "Failed"
    assert plan.requeue_at is not None
    champion = world.flywheel.status.champion
    assert champion is not None
    serving = champion.model_copy(update={"arm": NEW_ARM})
    world.flywheel = world.flywheel.model_copy(update={"status": world.flywheel.status.model_copy(update={"champion": serving})})
    world.run(330)
    assert f"delete ControllerRevision {NEW_ARM}" not in world.writes


def test_a_rollout_whose_baseline_is_not_the_champion_fails_with_the_mend() -> None:
    world = World(rollout_spec(baseline={"generation": "other", "uri": "file:///flywheel/x", "digest": "sha256:" + "d" * 64}))
    assert world.run(3) == "Failed"
    assert world.rollout.status.decision is not None
    assert "set spec.baseline to the champion" in world.rollout.status.decision.message


def test_rollback_waits_for_stable_capacity_unless_the_failure_is_hard() -> None:
    world = World()
    world.evidence = evidence(EQUAL, EQUAL)
    world.run(5)
    world.deployments[OLD_ARM] = replace(world.deployments[OLD_ARM], ready_replicas=0)
    world.evidence = evidence(EQUAL, WORSE)
    assert world.run(12) == "RollingBack"
    assert answered_by(world) == (OLD_ARM, 50)
    world.deployments[OLD_ARM] = replace(world.deployments[OLD_ARM], ready_replicas=1)
    assert world.run(15) == "RolledBack"


def test_every_pass_ends_or_says_when_to_look_again_and_its_status_is_valid_json() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    world.run(240)
    for plan in world.plans:
        status = RolloutStatus.model_validate(json.loads(json.dumps(plan.status, allow_nan=False)))
        assert plan.requeue_at is not None or status.phase in ("Promoted", "RolledBack", "Inconclusive", "Failed")


def test_a_finished_rollout_writes_nothing_more() -> None:
    world = World()
    world.evidence = evidence(EQUAL, WORSE)
    world.run(20)
    before = list(world.writes)
    world.run(60)
    assert world.writes == before


def test_another_candidate_in_mid_rollout_randomises_users_anew() -> None:
    world = World()
    world.run(5)
    first = world.rollout.status.salt
    world.edit(candidate=world.rollout.spec.candidate.model_copy(update={"digest": "sha256:" + "e" * 64, "generation": "g9"}))
    world.run(10)
    assert world.rollout.status.salt != first
    assert world.rollout.spec.baseline.digest == BASE
    assert NEXT not in [arm.digest for arm in world.rollout.status.arms]


def test_a_promotion_that_the_router_has_not_confirmed_is_called_off_by_abort() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    world.run(160)
    world.acks = False
    assert world.run(175) == "Promoting"
    world.acks = True
    world.edit(abort=True)
    assert world.run(180) == "RolledBack"
    assert world.rollout.status.decision is not None
    assert world.rollout.status.decision.reason == "Aborted"
    assert answered_by(world) == (OLD_ARM, 0)


def test_an_abort_after_the_promotion_is_told_how_to_go_back() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    assert world.run(175) == "Watching"
    world.edit(abort=True)
    world.step()
    conditions = {c.type: c for c in world.rollout.status.conditions}
    assert "roll out demo-initial against g1" in conditions["Progressing"].message
    assert answered_by(world) == (NEW_ARM, 0)


def test_suspended_while_it_prepares_it_sends_no_user_to_the_candidate() -> None:
    world = World()
    world.ready = False
    world.run(5)
    world.edit(suspend=True)
    world.deployments[NEW_ARM] = World.deployment(NEW_ARM, "candidate")
    assert world.run(60) == "Preparing"
    assert world.routes is None
    world.edit(suspend=False)
    assert world.run(62) == "Progressing"


def test_a_step_edited_while_suspended_moves_nobody() -> None:
    world = World()
    world.run(5)
    traffic = rollout_spec(traffic={"steps": [{"weightPercent": 10}]}).traffic
    world.edit(suspend=True, traffic=traffic)
    world.run(20)
    assert answered_by(world) == (OLD_ARM, 50)


def test_a_candidate_that_got_ready_while_the_operator_was_away_goes_on_past_the_deadline() -> None:
    world = World()
    world.ready = False
    world.run(10)
    world.deployments[NEW_ARM] = World.deployment(NEW_ARM, "candidate")
    world.now = T0 + seconds(900)
    world.step()
    assert world.rollout.status.phase == "Progressing"


def test_users_of_a_replaced_candidate_return_to_stable_while_the_next_one_prepares() -> None:
    world = World()
    world.run(5)
    world.ready = False
    world.edit(candidate=world.rollout.spec.candidate.model_copy(update={"digest": "sha256:" + "e" * 64, "generation": "g9"}))
    assert world.run(10) == "Preparing"
    assert answered_by(world) == (OLD_ARM, 0)
    assert world.routes is not None
    assert world.routes.routes.candidate is None


def test_a_question_asked_again_after_another_is_another_experiment() -> None:
    world = World()
    world.run(5)
    first, candidate = world.rollout.status, world.rollout.spec.candidate
    world.edit(candidate=candidate.model_copy(update={"digest": "sha256:" + "e" * 64, "generation": "g9"}))
    world.run(10)
    world.edit(candidate=candidate)
    assert world.run(20) == "Progressing"
    asked = {put.experiment: put.definition for put in world.experiments}
    assert len(asked) == 3
    assert all(asked[put.experiment] == put.definition for put in world.experiments)  # the collector refuses a second definition
    assert world.rollout.status.salt != first.salt


def test_an_arm_that_somebody_removed_in_mid_rollout_is_made_again() -> None:
    world = World()
    world.run(5)
    del world.deployments[NEW_ARM]
    world.step()
    assert NEW_ARM in world.deployments


def test_pods_that_go_with_an_earlier_anchor_are_no_ready_candidate() -> None:
    world = World()
    world.deployments[NEW_ARM] = replace(World.deployment(NEW_ARM, "candidate"), owner_uid="of-an-anchor-that-is-gone")
    world.run(1)
    plan = world.step()
    assert world.rollout.status.phase == "Preparing"
    (again,) = [a.manifest for a in plan.actions if isinstance(a, Apply) and a.manifest["kind"] == "Deployment"]
    assert again["metadata"]["ownerReferences"][0]["uid"] == f"u-{NEW_ARM}"


def test_a_watch_parks_no_arm_that_the_next_rollout_uses() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    assert world.run(175) == "Watching"
    world.queued_behind = "back-to-the-old-one"
    world.deployments[OLD_ARM] = World.deployment(OLD_ARM, "candidate")
    before = list(world.writes)
    world.step()
    assert world.writes == before
    # Users are with it, and its Rollout is in its own watch.
    world.queued_behind, state = None, world.routes
    assert state is not None
    back = replace(state.routes, stable=replace(state.routes.stable, arm=OLD_ARM, service=OLD_ARM))
    world.routes = replace(state, routes=back)
    world.step()
    assert world.writes == before


def test_the_collector_takes_the_experiment_of_any_name_and_any_further_question() -> None:
    meta = Metadata(name="n" * 63, namespace="s" * 63, uid="u", annotations={"modelflywheel.dev/retry": "again"})
    first = Rollout(metadata=meta, spec=rollout_spec())
    asked = f"{experiment_id(first)}.{stable_hash('another question before')}"  # as rollout_restart appends it
    assert EXPERIMENT.fullmatch(asked)
    other = Rollout(metadata=meta.model_copy(update={"uid": "another"}), spec=rollout_spec())
    assert experiment_id(other) != experiment_id(first)


def test_a_rollout_writes_its_routes_anew_when_nobody_can_read_them() -> None:
    world = World()
    world.run(20)
    before = world.routes
    assert before is not None
    assert before.routes.candidate is not None
    world.routes = RoutesState(UNREADABLE, "99")
    world.now += seconds(60)
    world.step()
    assert world.routes is not None
    assert replace(world.routes.routes, revision=before.routes.revision) == before.routes
    assert world.routes.routes.revision > before.routes.revision


def test_a_watch_ends_when_a_later_rollout_has_brought_another_champion() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    assert world.run(175) == "Watching"
    champion = world.flywheel.status.champion
    assert champion is not None
    later = champion.model_copy(update={"generation": "g2", "digest": "sha256:" + "c" * 64, "since": world.now})
    world.flywheel = world.flywheel.model_copy(update={"status": world.flywheel.status.model_copy(update={"champion": later})})
    world.step()
    assert world.rollout.status.phase == "Promoted"


def test_the_next_rollout_waits_until_the_flywheel_knows_the_new_champion() -> None:
    first, second = World(), World()
    first.evidence = evidence(EQUAL, BETTER)
    assert first.run(175) == "Watching"
    waiting = second.rollout.model_copy(update={"metadata": second.rollout.metadata.model_copy(update={"name": "r2", "uid": "uid-2"})})
    assert queued_behind(waiting, [first.rollout, waiting], first.flywheel) == "r1"
    champion = first.flywheel.status.champion
    assert champion is not None
    known = champion.model_copy(update={"generation": "g1", "digest": NEXT, "since": first.rollout.status.cutover_time})
    flywheel = first.flywheel.model_copy(update={"status": first.flywheel.status.model_copy(update={"champion": known})})
    assert queued_behind(waiting, [first.rollout, waiting], flywheel) is None


def standalone() -> World:
    world = World(rollout_spec(flywheel=None))
    world.deployments.clear()
    return world


def test_a_service_of_its_own_keeps_its_baseline_when_the_candidate_never_gets_ready() -> None:
    world = standalone()
    world.ready = False
    world.run(2)
    world.deployments[OLD_ARM] = World.deployment(OLD_ARM, "stable")
    assert world.run(310, tick=5) == "Failed"
    assert answered_by(world) == (OLD_ARM, 0)


def test_a_service_of_its_own_removes_the_arm_that_lost_once_the_watch_is_over() -> None:
    world = standalone()
    world.evidence = evidence(EQUAL, BETTER)
    assert world.run(175) == "Watching"
    assert OLD_ARM in world.anchors
    assert world.run(230) == "Promoted"
    assert (sorted(world.anchors), answered_by(world)) == ([NEW_ARM], (NEW_ARM, 0))


def test_a_pod_template_that_fits_neither_arm_is_said_and_stops_no_pass() -> None:
    world = World(rollout_spec(flywheel=None, serving={"podTemplate": {"nonsense": 1}}))
    assert world.run(3) == "Failed"
    assert world.rollout.status.decision is not None
    assert world.rollout.status.decision.reason == "InvalidSpec"
    assert "podTemplate.nonsense" in world.rollout.status.decision.message
    assert not any(isinstance(action, PutExperiment) for plan in world.plans for action in plan.actions)


def test_an_analysis_that_can_not_be_computed_is_said_before_anybody_meets_the_candidate() -> None:
    world = World(rollout_spec(analysis={"window": "150s", "horizon": "15s", "interval": "2s", "alpha": 1e-300}))
    assert world.run(3) == "Failed"
    assert world.rollout.status.decision is not None
    assert "alpha" in world.rollout.status.decision.message
    assert world.routes is None


def test_an_analysis_edited_into_nonsense_in_mid_flight_is_said_and_stops_no_hard_limit() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    world.run(5)
    world.edit(analysis=world.rollout.spec.analysis.model_copy(update={"alpha": 1e-300}))
    assert world.run(200) == "Progressing"
    conditions = {c.type: c for c in world.rollout.status.conditions}
    assert (conditions["MetricsAvailable"].status, conditions["MetricsAvailable"].reason) == ("False", "InvalidSpec")
    world.errors = ErrorShare(failed=30, total=100)
    assert world.run(203) == "RolledBack"


def test_restarts_from_before_an_arm_was_asked_for_are_not_held_against_it() -> None:
    world = World()
    world.step()
    old = World.deployment(NEW_ARM, "parked", restarts=7, exit_code=1, finished=T0 - seconds(86400))
    world.deployments[NEW_ARM] = old
    assert world.run(10) == "Progressing"
    again = replace(old.pods[0], restarts=8, finished=world.now)
    world.deployments[NEW_ARM] = replace(old, pods=(again,))
    world.now += seconds(1)
    assert world.run(12) == "RolledBack"
    assert world.rollout.status.decision is not None
    assert world.rollout.status.decision.reason == "CrashLoop"


def promoting() -> World:
    """Promotion is on record, and the candidate has no ready pod to cut over to."""
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    world.run(160)
    world.deployments[NEW_ARM] = World.deployment(NEW_ARM, "candidate", ready=False)
    assert world.run(175) == "Promoting"
    assert answered_by(world) == (OLD_ARM, 50)
    return world


def test_a_candidate_that_crashes_between_its_promotion_and_the_cut_over_is_rolled_back() -> None:
    world = promoting()
    world.deployments[NEW_ARM] = World.deployment(NEW_ARM, "candidate", ready=False, restarts=3, exit_code=1, finished=world.now)
    assert world.run(180) == "RolledBack"
    assert world.rollout.status.decision is not None
    assert (world.rollout.status.decision.verdict, world.rollout.status.decision.reason) == ("Rollback", "CrashLoop")
    assert answered_by(world) == (OLD_ARM, 0)


def test_failed_replies_between_promotion_and_cut_over_are_a_hard_limit_too() -> None:
    world = promoting()
    world.errors = ErrorShare(failed=30, total=100)
    assert world.run(180) == "RolledBack"


def test_no_hard_limit_undoes_a_promotion_that_the_router_has_confirmed() -> None:
    world = World()
    world.evidence = evidence(EQUAL, BETTER)
    assert world.run(175) == "Watching"
    world.deployments[NEW_ARM] = World.deployment(NEW_ARM, "stable", ready=False, restarts=9, exit_code=1, finished=world.now)
    world.errors = ErrorShare(failed=30, total=100)
    assert world.run(180) == "Watching"
    assert answered_by(world) == (NEW_ARM, 0)


def test_a_baseline_of_its_own_that_never_answered_is_made_anew_from_a_mended_spec() -> None:
    world = World(rollout_spec(flywheel=None, serving={"readyTimeout": "5m", "args": ["--typo"]}))
    world.deployments.clear()
    world.ready = False
    assert world.run(310, tick=5) == "Failed"
    world.ready = True
    world.edit(serving=rollout_spec(serving={"readyTimeout": "5m", "args": ["--max-model-len=512"]}).serving)
    assert world.run(330) == "Progressing"
    for arm in (OLD_ARM, NEW_ARM):
        args = world.anchors[arm]["data"]["manifests"][0]["spec"]["template"]["spec"]["containers"][0]["args"]
        assert args == ["--max-model-len=512"]


def test_a_baseline_of_its_own_that_users_were_sent_to_is_never_rendered_again() -> None:
    world = standalone()
    world.evidence = evidence(EQUAL, EQUAL)
    world.run(20)
    frozen = world.anchors[OLD_ARM]
    world.deployments[OLD_ARM] = World.deployment(OLD_ARM, "stable", ready=False)
    world.edit(serving=rollout_spec(serving={"readyTimeout": "5m", "args": ["--new"]}).serving)
    world.run(30)
    world.routes = None  # deleted by hand
    world.run(40)
    assert world.anchors[OLD_ARM] == frozen
    assert f"delete ControllerRevision {OLD_ARM}" not in world.writes


def test_another_baseline_of_its_own_replaces_one_that_never_answered() -> None:
    world = standalone()
    world.ready = False
    world.run(5)
    world.edit(baseline=world.rollout.spec.baseline.model_copy(update={"digest": "sha256:" + "d" * 64}))
    world.run(10)
    assert sorted(world.anchors) == ["demo-initial-dddddddd", NEW_ARM]
