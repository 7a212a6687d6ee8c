"""The decision carried out: all users to the winner, and the Rollout is over once the router has confirmed it.

The decision is on record by then, so that a pass that was cut short is made again from what is observed.
"""

from __future__ import annotations

from flywheel.api.base import parse_duration
from flywheel.api.reasons import Reason
from flywheel.api.rollout import Decision
from flywheel.plan import arms
from flywheel.plan.rollout_arms import arm_in_role, baseline_arm, candidate_arm
from flywheel.plan.rollout_draft import Draft
from flywheel.plan.rollout_routes import route
from flywheel.specs.envoy import Routes
from flywheel.specs.pods import InvalidPodTemplate


def carry_out(draft: Draft, decision: Decision) -> None:
    """Whatever the verdict says, in as many passes as the router takes to confirm it."""
    if decision.verdict == "Promote":
        _promote(draft)
    else:
        _return_to_stable(draft, decision)


def _promote(draft: Draft) -> None:
    spec, now = draft.observed.rollout.spec, draft.now
    if draft.status.cutover_time is None:
        draft.set(phase="Promoting")
        if not arms.ready_replicas(draft.observed.deployments, candidate_arm(draft).arm):
            draft.waiting = (Reason.NOT_READY, "promotion waits for a ready pod of the candidate")
            return
        if not route(draft, Routes(revision=1, stable=candidate_arm(draft), header=spec.traffic.assignment.header), 100):
            return
        draft.set(cutover_time=now, watch_end_time=now + parse_duration(spec.watch.duration), phase="Watching")
        draft.tell(
            Reason.PROMOTED, f"{spec.candidate.generation} serves all users; {spec.baseline.generation} is parked for {spec.watch.duration}"
        )
    _watch(draft)


def _watch(draft: Draft) -> None:
    """Keep the arm that lost parked until the watch ends, so that the way back is short."""
    spec = draft.observed.rollout.spec
    if (draft.status.watch_end_time and draft.now >= draft.status.watch_end_time) or _succeeded(draft):
        draft.set(phase="Promoted")
        return
    draft.waiting = (Reason.WATCHING, f"{spec.baseline.generation} stays parked until the watch ends")
    if spec.abort:
        told = f"spec.abort came after the promotion; to go back, roll out {spec.baseline.generation} against {spec.candidate.generation}"
        draft.waiting = (Reason.WATCHING, told)
    routed = [arm.arm for arm in draft.observed.routes.routes.arms] if draft.observed.routes else []
    if draft.observed.queued_behind is None and baseline_arm(draft).arm not in routed:  # else the next Rollout says what the arms are
        try:
            draft.actions += arm_in_role(draft, spec.candidate, arms.STABLE)
            draft.actions += arm_in_role(draft, spec.baseline, arms.PARKED, replicas=spec.rollback.parked_replicas)
        except InvalidPodTemplate as error:
            draft.waiting = (Reason.INVALID_SPEC, f"an arm is gone and can't be made again: spec.serving.{error}")
    draft.wake_at(draft.status.watch_end_time)


def _succeeded(draft: Draft) -> bool:
    """Whether a later Rollout has brought another champion: then there is nothing left to watch."""
    champion, cutover = draft.observed.flywheel.status.champion if draft.observed.flywheel else None, draft.status.cutover_time
    return (
        champion is not None
        and cutover is not None
        and champion.since > cutover
        and champion.digest != draft.observed.rollout.spec.candidate.digest
    )


def _return_to_stable(draft: Draft, decision: Decision) -> None:
    observed, spec = draft.observed, draft.observed.rollout.spec
    met_users = draft.status.phase == "RollingBack" or draft.status.weights.intended > 0
    if met_users:
        draft.set(phase="RollingBack")
        hard = decision.reason in (Reason.CRASH_LOOP, Reason.HARD_LIMIT, Reason.ABORTED)
        if not hard and not arms.ready_replicas(observed.deployments, baseline_arm(draft).arm):
            draft.waiting = (Reason.NOT_READY, f"rollback waits for a ready pod of {baseline_arm(draft).arm}")
            return
        if not route(draft, Routes(revision=1, stable=baseline_arm(draft), header=spec.traffic.assignment.header), 0):
            return
    outcome = "Inconclusive" if decision.verdict != "Rollback" else "RolledBack" if met_users else "Failed"
    draft.set(phase=outcome, cutover_time=draft.now)
    draft.tell(outcome, f"{spec.baseline.generation} serves all users" if met_users else "no user has met the candidate")
