"""Asking again: another question, a retry, or a mended spec starts a Rollout from the beginning.

What was learnt of one question says nothing about another, so that no number, weight or window is carried over.
"""

from __future__ import annotations

from flywheel.api.reasons import Reason
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.plan import arms
from flywheel.plan.base import stable_hash
from flywheel.plan.rollout_arms import candidate_arm
from flywheel.plan.rollout_draft import TICK, Draft
from flywheel.plan.rollout_observed import asks_the_same, experiment_id, holds_service


def asked_again(rollout: Rollout) -> bool:
    """Another question or try; or a mended spec, after a candidate that failed before it met a user."""
    decision = rollout.status.decision
    mended = rollout.status.phase == "Failed" and decision is not None and rollout.metadata.generation > decision.revision
    return mended or not asks_the_same(rollout)


def leftover(draft: Draft) -> bool:
    """Whether the arm that failed is still there: its manifests are frozen, so that a mended spec needs another."""
    observed, arm = draft.observed, candidate_arm(draft).arm
    frozen = observed.anchors.get(arm)
    routed = [one.arm for one in observed.routes.routes.arms] if observed.routes else []
    champion = observed.flywheel.status.champion if observed.flywheel else None
    if draft.status.phase != "Failed" or frozen is None or arm in routed or (champion is not None and champion.arm == arm):
        return False
    draft.actions.append(arms.delete_arm(frozen))
    draft.waiting = (Reason.WAITING, f"arm {arm}, which failed, is being removed before it is tried again")
    draft.wake_at(draft.now + TICK)
    return True


def gives_way(draft: Draft) -> bool:
    """Whether this Rollout has to wait after all: another holds the service too and began before, or the Flywheel is gone."""
    observed = draft.observed
    if not holds_service(observed.rollout) or draft.status.decision is not None:
        return False
    return observed.queued_behind is not None or forsaken(draft)


def forsaken(draft: Draft) -> bool:
    """Whether the Flywheel whose users are asked is gone. The service is not the Rollout's: it makes nothing that would outlive it."""
    return bool(draft.observed.rollout.spec.flywheel) and draft.observed.flywheel is None


def give_way(draft: Draft) -> None:
    """Back into the queue. Users that have met the candidate leave it now: they are assigned anew when this Rollout begins again."""
    old, other, service = draft.status, draft.observed.queued_behind, draft.observed.rollout.spec.flywheel
    met_users = old.weights.intended > 0
    experiment = f"{experiment_id(draft.observed.rollout)}.{stable_hash(old.experiment)}" if met_users else old.experiment
    draft.status = RolloutStatus(
        experiment=experiment,
        salt=stable_hash(draft.observed.rollout.metadata.uid, experiment, length=16),
        history=old.history,
        conditions=old.conditions,
    )
    if forsaken(draft):
        draft.tell(Reason.REFERENCE_NOT_FOUND, f"Flywheel {service} is gone: nobody is asked until there is one", warn=True)
    else:
        draft.tell(Reason.QUEUED, f"Rollout {other} has begun before: one at a time for a service")


def restart(draft: Draft) -> None:
    """Begin with an empty status but for what people read of the past: users of another question are assigned by another salt."""
    rollout, old = draft.observed.rollout, draft.status
    experiment = experiment_id(rollout)
    if old.experiment is not None:  # a question that was asked before, and another since, is counted anew
        experiment = old.experiment if asks_the_same(rollout) else f"{experiment}.{stable_hash(old.experiment)}"
    draft.status = RolloutStatus(
        experiment=experiment, salt=stable_hash(rollout.metadata.uid, experiment, length=16), history=old.history, conditions=old.conditions
    )
    if old.experiment == experiment:
        draft.tell(Reason.RETRYING, "the spec was changed after the candidate had failed: it is tried again")
    elif old.experiment is not None:
        draft.tell(
            Reason.CANDIDATE_REPLACED, f"the spec asks another question ({rollout.spec.candidate.generation}): users are assigned anew"
        )
