"""From the queue to the first user: whose turn it is, and the candidate's arm made ready beside the baseline's.

No user meets the candidate here, so that one that never answers costs nobody a reply.
"""

from __future__ import annotations

from flywheel.api.reasons import Reason
from flywheel.plan import arms, rollout_verdict
from flywheel.plan.rollout_arms import arm_in_role, baseline_arm, candidate_arm, candidate_ready, candidate_state, ready_deadline
from flywheel.plan.rollout_decide import reject, reject_template
from flywheel.plan.rollout_draft import SOON, TICK, Draft
from flywheel.plan.rollout_routes import send_home
from flywheel.specs.pods import InvalidPodTemplate


def may_start(draft: Draft) -> bool:
    """Leave `Pending` when it is this Rollout's turn and its spec can be carried out; else say what it waits for."""
    observed, rollout = draft.observed, draft.observed.rollout
    if rollout.spec.abort:
        return True
    if observed.queued_behind:
        draft.waiting = (Reason.QUEUED, f"waits for Rollout {observed.queued_behind}: one at a time for a service")
        return False
    if rollout.spec.suspend:
        draft.waiting = (Reason.SUSPENDED, "spec.suspend is true")
        return False
    if rollout.spec.flywheel:
        champion = observed.flywheel.status.champion if observed.flywheel else None
        if champion is None:
            draft.waiting = (Reason.REFERENCE_NOT_FOUND, f"Flywheel {rollout.spec.flywheel} does not exist or serves nobody yet")
            return False
        if champion.digest != rollout.spec.baseline.digest:
            message = (
                f"spec.baseline is {rollout.spec.baseline.generation} ({rollout.spec.baseline.digest[:15]}…) but users are served by "
                f"{champion.generation} ({champion.digest[:15]}…); set spec.baseline to the champion"
            )
            reject(draft, Reason.INVALID_SPEC, message)
            return True
    try:
        rollout_verdict.analysis_plan(rollout)
    except ValueError as error:
        reject(draft, Reason.INVALID_SPEC, f"spec.metrics or spec.analysis: {error}")
        return True
    draft.set(phase="Preparing", prepare_start_time=draft.now)
    draft.tell("Preparing", f"starting {candidate_arm(draft).arm} beside {baseline_arm(draft).arm}")
    return True


def prepare(draft: Draft) -> None:
    """Make the candidate's arm; go on once both arms answer and all users are with the baseline."""
    observed, spec = draft.observed, draft.observed.rollout.spec
    candidate, baseline = candidate_arm(draft), baseline_arm(draft)
    sent_home = send_home(draft, baseline)
    try:
        draft.actions += arm_in_role(draft, spec.candidate, arms.CANDIDATE)
    except InvalidPodTemplate as error:
        reject_template(draft, error)
        return
    if not candidate_ready(draft):
        draft.waiting = rollout_verdict.why_not_ready(candidate_state(draft))
        draft.wake_at(ready_deadline(draft), draft.now + TICK)
        return
    if not arms.ready_replicas(observed.deployments, baseline.arm):
        draft.waiting = (Reason.NOT_READY, f"the baseline {baseline.arm} has no ready pod: there is nothing to compare with")
        return
    if sent_home:
        draft.waiting = (Reason.WAITING, f"all users are sent to {baseline.arm} first")
        draft.wake_at(draft.now + SOON)
        return
    if spec.suspend:
        draft.waiting = (Reason.SUSPENDED, "spec.suspend is true: no user is sent to the candidate")
        return
    if not observed.acknowledgements and not spec.flywheel and observed.routes is None:
        draft.waiting = (Reason.STARTING, "the router is starting")
    draft.set(phase="Progressing", step=0)
    draft.tell("Ramping", f"{candidate.arm} answers completions; step 1 gives it {spec.traffic.steps[0].weight_percent} % of users")
