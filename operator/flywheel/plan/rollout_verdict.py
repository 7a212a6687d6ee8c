"""From evidence to a decision on a Rollout: hard limits, guardrails, the verdict at the window's end."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from flywheel.api.base import parse_duration
from flywheel.api.reasons import Reason
from flywheel.api.rollout import Analysis, Decision, Estimate, Rollout
from flywheel.plan.kube import DeploymentState, PodState
from flywheel.plan.rollout_observed import ErrorShare
from flywheel.stats.methods import FIXED_HORIZON, Method
from flywheel.stats.verdict import (
    AlwaysValid,
    AnalysisPlan,
    Assessment,
    Evidence,
    GroupSequential,
    Measured,
    MetricPlan,
    Outcome,
    assess,
    evidence_digest,
)

VERDICTS = {Outcome.PROMOTE: "Promote", Outcome.ROLLBACK: "Rollback", Outcome.INCONCLUSIVE: "Inconclusive"}


def analysis_plan(rollout: Rollout) -> AnalysisPlan:
    """The statistical plan that a spec describes."""
    analysis = rollout.spec.analysis
    return AnalysisPlan(
        metrics=tuple(
            MetricPlan(
                name=m.name,
                role=m.role,
                direction=m.direction,
                margin=m.margin,
                absolute_margin=m.absolute_margin,
                per_message=m.per == "Message",
            )
            for m in rollout.spec.metrics
        ),
        alpha=analysis.alpha,
        harm_alpha=analysis.harm_alpha,
        sample_ratio_alpha=analysis.sample_ratio_alpha,
        minimum_users=analysis.minimum_users,
        harm_optimize_users=None,
        method=_method(analysis),
        sample_ratio_at_end=True,
        cuped=analysis.cuped is not None,
        segments=analysis.segments,
        novelty_alpha=analysis.novelty.alpha if analysis.novelty else None,
    )


def _method(analysis: Analysis) -> Method:
    """A method without its parameters, which the CRD refuses, is the default."""
    if analysis.method == "GroupSequential" and analysis.group_sequential:
        asked = analysis.group_sequential
        return GroupSequential(users=asked.users_per_slice, looks=asked.looks, spending=asked.spending)
    if analysis.method == "AlwaysValid" and analysis.always_valid:
        return AlwaysValid(users=analysis.always_valid.users_per_slice)
    return FIXED_HORIZON


def look(rollout: Rollout, evidence: Evidence, *, looks: tuple[float, ...] = (), window_over: bool) -> tuple[Assessment, Evidence]:
    """Assess the evidence by the spec's plan; returns it as it was assessed: the window's state as the clock has it, the looks before
    this one, and no more of each metric than the plan asks for."""
    plan = analysis_plan(rollout)
    asked = {m.name: m for m in plan.metrics}
    metrics = {
        name: _asked(plan, asked[name], one) if name in asked and isinstance(one, Measured) else one
        for name, one in evidence.metrics.items()
    }
    sequential = isinstance(plan.method, GroupSequential)
    evidence = replace(evidence, metrics=metrics, window_over=window_over, looks=looks if sequential else ())
    return assess(plan, evidence), evidence


def _asked(plan: AnalysisPlan, metric: MetricPlan, measured: Measured) -> Measured:
    """Only what the plan asks for: the rest would swell the decision that is stored."""
    return Measured(
        measured.control,
        measured.candidate,
        known=measured.known if plan.cuped and metric.absolute_margin is None and not metric.per_message else None,
        messages=measured.messages if metric.per_message else None,
        segments=tuple(one for one in measured.segments if one[0] in plan.asked_segments),
    )


def estimates(assessment: Assessment) -> tuple[Estimate, ...]:
    """The assessment's numbers as status."""
    return tuple(Estimate.model_validate(e.to_dict()) for e in assessment.estimates)


def decision_from(
    rollout: Rollout, assessment: Assessment, evidence: Evidence, now: dt.datetime, *, out_of_patience: bool
) -> Decision | None:
    """The decision an assessment leads to; None while there is reason to wait."""
    verdict = VERDICTS.get(assessment.outcome)
    if verdict is None:
        if not (out_of_patience and assessment.outcome in (Outcome.HOLD, Outcome.NO_VERDICT)):
            return None
        verdict = "NoVerdict"
    plan = analysis_plan(rollout)
    return Decision(
        verdict=verdict,  # type: ignore[arg-type]  # one of the literals above
        reason=str(assessment.reason),
        message=assessment.message[:4096],
        time=now,
        revision=rollout.metadata.generation,
        evidence_digest=evidence_digest(plan, evidence),
        evidence={"plan": plan.to_dict(), "evidence": evidence.to_dict()},
    )


def verdict_without_metrics(rollout: Rollout, verdict: str, reason: Reason, message: str, now: dt.datetime) -> Decision:
    """A decision that no engagement metric made: a hard limit, an abort, a candidate that never got ready."""
    return Decision.model_validate(
        {"verdict": verdict, "reason": reason.value, "message": message[:4096], "time": now, "revision": rollout.metadata.generation}
    )


def hard_failure(
    rollout: Rollout, candidate: DeploymentState | None, errors: ErrorShare | None, since: dt.datetime | None
) -> tuple[Reason, str] | None:
    """What makes a candidate leave at once, metrics or no metrics: a crash loop, or too many failed replies.

    `since` is when the candidate was asked for: a pod that served before may have restarted in its earlier life.
    """
    limits = rollout.spec.rollback
    for pod in _living(candidate):
        long_ago = since is not None and pod.finished is not None and pod.finished < since
        if pod.restarts >= limits.max_restarts and not long_ago:
            return Reason.CRASH_LOOP, (
                f"pod {pod.name} restarted {pod.restarts} times (limit rollback.maxRestarts {limits.max_restarts}); {_last_words(pod)}"
            )
    if errors and errors.total >= limits.min_requests and errors.failed * 100 > limits.max_error_percent * errors.total:
        share = 100 * errors.failed / errors.total
        return Reason.HARD_LIMIT, (
            f"{share:.1f} % of the candidate's {errors.total:.0f} replies in the last minute failed "
            f"(limit rollback.maxErrorPercent {limits.max_error_percent:g} %)"
        )
    return None


def why_not_ready(candidate: DeploymentState | None) -> tuple[Reason, str]:
    """The most telling thing about an arm that isn't ready."""
    for pod in _living(candidate):
        if pod.image_pull_failed:
            return Reason.IMAGE_PULL_FAILED, f"pod {pod.name}: {pod.waiting_reason}: {pod.waiting_message}"
        if pod.unschedulable:
            return Reason.UNSCHEDULABLE, f"pod {pod.name}: {pod.unschedulable}"
        if pod.exit_code:
            return Reason.CRASH_LOOP, f"pod {pod.name} ended with exit code {pod.exit_code}, {pod.restarts} restarts; {_last_words(pod)}"
    if candidate is None:
        return Reason.STARTING, "its Deployment is being made"
    return Reason.NOT_READY, f"{candidate.ready_replicas} of {candidate.replicas} pods of {candidate.name} have answered a completion"


def _living(candidate: DeploymentState | None) -> list[PodState]:
    """Its pods but for those on their way out, which may be of an earlier try of the same name."""
    return [pod for pod in candidate.pods if not pod.deleting] if candidate else []


def _last_words(pod: PodState) -> str:
    words = " ".join(pod.termination_message.split())[-400:]
    told = f"it said: {words}" if words else "it left no message; see kubectl logs --previous"
    return f"{pod.terminated_reason or 'ended'}: {told}"


def out_of_patience(rollout: Rollout, now: dt.datetime) -> bool:
    """Whether the window and the wait after it are over."""
    end = rollout.status.window_end_time
    return end is not None and now >= end + parse_duration(rollout.spec.analysis.patience)
