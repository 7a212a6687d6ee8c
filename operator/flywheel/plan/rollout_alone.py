"""A Rollout without a Flywheel keeps a service of its own, for nobody else does: made with it, and left in order after its verdict."""

from __future__ import annotations

from flywheel.api.flywheel import Engagement, Router
from flywheel.plan import arms
from flywheel.plan.rollout_arms import arm_in_role, baseline_arm, candidate_arm, owners
from flywheel.plan.rollout_decide import reject_template
from flywheel.plan.rollout_draft import Draft
from flywheel.plan.rollout_observed import service_name
from flywheel.plan.rollout_routes import send_home
from flywheel.plan.service import service_actions
from flywheel.specs.pods import InvalidPodTemplate


def stand_alone(draft: Draft) -> None:
    """A Rollout without a Flywheel keeps a service of its own: router, collector and the baseline's arm."""
    observed, spec = draft.observed, draft.observed.rollout.spec
    draft.actions += service_actions(
        observed.deployments,
        service=service_name(observed.rollout),
        namespace=observed.rollout.metadata.namespace,
        router=Router(assignment=spec.traffic.assignment),
        engagement=Engagement(),
        storage=spec.storage,
        owners=owners(draft),
        defaults=observed.defaults,
        parts=observed.parts,
    )
    if draft.status.cutover_time is None:
        never_served = draft.status.phase == "Preparing" and observed.routes is None and not _answers(draft, baseline_arm(draft).arm)
        if never_served:  # what an earlier wording of the spec asked for, and nobody will
            named = (baseline_arm(draft).arm, candidate_arm(draft).arm)
            draft.actions += [arms.delete_arm(a) for n, a in sorted(observed.anchors.items()) if n not in named and not _answers(draft, n)]
        try:
            draft.actions += arm_in_role(draft, spec.baseline, arms.STABLE, never_served=never_served)
        except InvalidPodTemplate as error:
            reject_template(draft, error)


def _answers(draft: Draft, arm: str) -> bool:
    return arms.ready_replicas(draft.observed.deployments, arm) > 0


def leave_in_order(draft: Draft) -> None:
    """A service of a Rollout's own outlives its verdict: whoever won answers, and the other arm goes once it is routed no more."""
    observed, decision = draft.observed, draft.status.decision
    promoted = decision is not None and decision.verdict == "Promote"
    winner, loser = (candidate_arm(draft), baseline_arm(draft)) if promoted else (baseline_arm(draft), candidate_arm(draft))
    send_home(draft, winner)
    routed = [arm.arm for arm in observed.routes.routes.arms] if observed.routes else []
    frozen = observed.anchors.get(loser.arm)
    if frozen is not None and loser.arm not in routed:
        draft.actions.append(arms.delete_arm(frozen))
