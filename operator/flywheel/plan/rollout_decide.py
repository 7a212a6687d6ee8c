"""The decision: abort and hard limits need no metrics and come first, then what the users say, then a person's word for the candidate.

The numbers behind a decision are recorded with it; a look that decides nothing leaves its numbers in the status all the same.
"""

from __future__ import annotations

from flywheel.api.reasons import Reason
from flywheel.api.rollout import PromotionByHand
from flywheel.plan import arms, rollout_verdict
from flywheel.plan.base import duration_text
from flywheel.plan.rollout_arms import candidate_arm, candidate_ready, candidate_state, ready_deadline
from flywheel.plan.rollout_conditions import estimate_text
from flywheel.plan.rollout_draft import Draft
from flywheel.plan.rollout_routes import put_experiment
from flywheel.specs.pods import InvalidPodTemplate
from flywheel.stats.verdict import Evidence

UNMEASURED = (Reason.SAMPLE_RATIO_MISMATCH, Reason.NO_DATA, Reason.METRICS_STALE, Reason.METRICS_UNAVAILABLE)


def decide(draft: Draft) -> None:
    """At most one decision, and only with its reasons: abort, hard limits, the metrics, a promotion by hand. The first two also call off
    a promotion that the router has not confirmed."""
    if draft.observed.rollout.spec.abort:
        reject(draft, Reason.ABORTED, "spec.abort is true")
        return
    failure = _failure(draft)
    if failure is not None:
        reject(draft, *failure)
        return
    if draft.status.decision is None and draft.observed.evidence is not None and draft.status.window_start_time is not None:
        _look(draft, draft.observed.evidence)
    if draft.status.decision is None and draft.observed.rollout.spec.promote is not None:
        _promote_by_hand(draft, draft.observed.rollout.spec.promote)


def _promote_by_hand(draft: Draft, word: PromotionByHand) -> None:
    """Decide for the candidate by a person's word, once it can answer. What is known of it goes on record with the word."""
    rollout, status = draft.observed.rollout, draft.status
    if not _heeds(draft, word):
        draft.waiting = (Reason.NOT_READY, f"{word.by} has promoted {rollout.spec.candidate.generation}, which has no ready pod yet")
        return
    numbers = "; ".join(estimate_text(e) for e in status.metrics) or "no user has matured yet"
    message = f"promoted by {word.by}: {word.reason} (known by then: {numbers})"
    draft.decided(rollout_verdict.verdict_without_metrics(rollout, "Promote", Reason.PROMOTED_BY_HAND, message, draft.now))


def _heeds(draft: Draft, word: PromotionByHand) -> bool:
    """Whether the word is about this candidate, and all users could be sent there now."""
    candidate, phase = draft.observed.rollout.spec.candidate, draft.status.phase
    ready = arms.ready_replicas(draft.observed.deployments, candidate_arm(draft).arm) > 0
    return word.digest == candidate.digest and ready and phase in ("Preparing", "Progressing", "Paused")


def reject(draft: Draft, reason: Reason, message: str) -> None:
    """Decide against the candidate without asking the metrics."""
    draft.decided(rollout_verdict.verdict_without_metrics(draft.observed.rollout, "Rollback", reason, message, draft.now))


def reject_template(draft: Draft, error: InvalidPodTemplate) -> None:
    """Decide against a candidate that can't even be rendered, unless it is decided already."""
    if draft.status.decision is None:
        reject(draft, Reason.INVALID_SPEC, f"spec.serving.{error}")


def _failure(draft: Draft) -> tuple[Reason, str] | None:
    """What the candidate did that no metric can make up for: a hard limit, or it never got ready."""
    rollout, status, now = draft.observed.rollout, draft.status, draft.now
    candidate = candidate_state(draft)
    failure = rollout_verdict.hard_failure(rollout, candidate, draft.observed.errors, status.prepare_start_time)
    late = status.phase == "Preparing" and (deadline := ready_deadline(draft)) is not None and now >= deadline
    if failure is None and late and not candidate_ready(draft):  # it may have got ready while nobody looked
        reason, why = rollout_verdict.why_not_ready(candidate)
        waited = duration_text(now - (status.prepare_start_time or now))
        kept = reason if reason is Reason.IMAGE_PULL_FAILED else Reason.NEVER_READY
        return kept, f"not ready after {waited} (limit serving.readyTimeout {rollout.spec.serving.ready_timeout}): {why}"
    return failure


def _look(draft: Draft, evidence: Evidence) -> None:
    """Assess the metrics, put the numbers into the status, and decide if they allow it."""
    rollout, status, now = draft.observed.rollout, draft.status, draft.now
    over = status.window_end_time is not None and now >= status.window_end_time
    try:
        assessment, evidence = rollout_verdict.look(rollout, evidence, looks=status.looks, window_over=over)
    except ValueError as error:  # the spec was edited in mid-flight into something that can't be computed
        draft.set(last_analysis_time=now)
        draft.unmeasured = (Reason.INVALID_SPEC, f"spec.metrics or spec.analysis: {error}")
        return
    draft.set(last_analysis_time=now, metrics=rollout_verdict.estimates(assessment), sample_ratio_p=assessment.sample_ratio_p)
    if evidence.assigned is None:
        draft.actions.append(put_experiment(draft))  # the collector may have lost it
    if str(assessment.reason) in UNMEASURED:
        draft.unmeasured = (Reason(str(assessment.reason)), assessment.message)
    if rollout.spec.suspend:
        return  # nothing is decided, so no test of success was done either
    if assessment.look is not None:
        draft.set(looks=(*status.looks, assessment.look))
    patience_over = rollout_verdict.out_of_patience(rollout, now)
    decision = rollout_verdict.decision_from(rollout, assessment, evidence, now, out_of_patience=patience_over)
    by_hand = rollout.spec.promote is not None and _heeds(draft, rollout.spec.promote)
    if decision is not None and not (
        by_hand and decision.verdict in ("Inconclusive", "NoVerdict")
    ):  # what is missing, a person's word is for
        draft.decided(decision)
