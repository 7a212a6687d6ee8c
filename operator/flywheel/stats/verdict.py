"""The decision on a rollout: a pure function of the plan and the evidence, so that a stored decision replays to the same answer.

1. The sample ratio: broken, nothing is believed (Hold).
2. Harm, at every look: proven on any metric, the candidate leaves (Rollback).
3. Success, when it is tested (once, when the window is over, unless the plan's method says otherwise): at least one success metric proven
   better (Holm), every other metric shown no worse, and no veto of a segment or of a lift that wore off (Promote).
An outage of the metrics is none of these: it continues the window, and after it gives no verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from flywheel.stats import wording
from flywheel.stats.analysis import AnalysisPlan, MetricPlan
from flywheel.stats.estimate import Judgement, MetricEstimate, MetricState, judge, usable
from flywheel.stats.evidence import Evidence, Measured, Measurement, NoData, Stale, Unavailable
from flywheel.stats.methods import AlwaysValid, FixedHorizon, GroupSequential, Look, look_at
from flywheel.stats.moments import Moments
from flywheel.stats.multiplicity import HolmTest, holm
from flywheel.stats.sample_ratio import sample_ratio_p, sample_ratio_p_at_end
from flywheel.stats.vetoes import harmed_segments, unmeasured_segments, worn_off

__all__ = [
    "AlwaysValid", "AnalysisPlan", "Assessment", "Evidence", "FixedHorizon", "GroupSequential", "Measured", "MetricEstimate", "MetricPlan",
    "MetricState", "Moments", "NoData", "Outcome", "Reason", "Stale", "Unavailable", "assess", "evidence_digest",
]  # fmt: skip


class Outcome(StrEnum):
    """What is to be done."""

    CONTINUE = "Continue"
    PROMOTE = "Promote"
    ROLLBACK = "Rollback"
    HOLD = "Hold"
    INCONCLUSIVE = "Inconclusive"
    NO_VERDICT = "NoVerdict"


class Reason(StrEnum):
    """Why, in one word."""

    ENROLLING = "Enrolling"
    SAMPLE_RATIO_MISMATCH = "SampleRatioMismatch"
    GUARDRAIL_HARM = "GuardrailHarm"
    SUCCESS_PROVEN = "SuccessProven"
    NO_SIGNIFICANT_LIFT = "NoSignificantLift"
    NON_INFERIORITY_NOT_SHOWN = "NonInferiorityNotShown"
    SEGMENT_HARM = "SegmentHarm"
    NOVELTY_WORN_OFF = "NoveltyWornOff"
    TOO_FEW_USERS = "TooFewUsers"
    NO_DATA = "NoData"
    METRICS_STALE = "MetricsStale"
    METRICS_UNAVAILABLE = "MetricsUnavailable"


@dataclass(frozen=True, slots=True)
class Assessment:
    """The decision, why, and the numbers of the metrics that were measured.

    `look`: the information fraction of a group-sequential look that this was; the looks after it must be told of it.
    """

    outcome: Outcome
    reason: Reason
    message: str
    estimates: tuple[MetricEstimate, ...]
    sample_ratio_p: float | None
    look: float | None = None


def assess(plan: AnalysisPlan, evidence: Evidence) -> Assessment:
    """Decide on the evidence of one look; never raises. The same arguments always give the same answer."""
    metrics = {m.name: usable(m, evidence.metrics.get(m.name, NoData())) for m in plan.metrics}
    look = _look(plan, evidence, metrics)
    judgements = [judge(plan, m, measured, look) for m in plan.metrics if isinstance(measured := metrics[m.name], Measured)]
    ratio_p = _ratio_p(plan, evidence)

    def conclude(
        outcome: Outcome, reason: Reason, message: str, states: Mapping[str, MetricState] | None = None, *, looked: bool = False
    ) -> Assessment:
        found = states or {}
        estimates = tuple(replace(j.estimate, state=found.get(j.metric.name, j.estimate.state)) for j in judgements)
        return Assessment(outcome, reason, message, estimates, ratio_p, look.fraction if looked else None)

    if evidence.assigned is not None and ratio_p is not None and ratio_p < plan.sample_ratio_alpha:
        split = f"{evidence.assigned[0]} control to {evidence.assigned[1]} candidate users is not 1:1"
        limit = f"p = {wording.number(ratio_p)} < {wording.number(plan.sample_ratio_alpha)}"
        return conclude(
            Outcome.HOLD, Reason.SAMPLE_RATIO_MISMATCH, f"{split} ({limit}): assignment or counting is broken, so no metric is believed"
        )

    split_problem = _split_problem(evidence, judgements)
    if split_problem is None and (harmed := [j for j in judgements if j.harmed]):
        return conclude(
            Outcome.ROLLBACK, Reason.GUARDRAIL_HARM, _harm_message(plan, harmed), {j.metric.name: MetricState.HARM for j in harmed}
        )

    missing = _missing(plan, metrics, split_problem)
    few = [j for j in judgements if not j.enough]
    if missing or few or not look.due:
        return conclude(*_undecided(plan, evidence, judgements, missing, few))
    tests = holm(
        {j.metric.name: j.superiority_p for j in judgements if j.metric.role == "Success"},
        plan.alpha,
        lambda name, level: look.limit(level, next(j.users for j in judgements if j.metric.name == name)),
    )
    outcome, reason, message = _final(plan, metrics, judgements, tests)
    if outcome is not Outcome.PROMOTE and not look.final:
        return conclude(Outcome.CONTINUE, Reason.ENROLLING, f"not yet: {message}", looked=True)
    return conclude(outcome, reason, message, _final_states(judgements, tests), looked=True)


def evidence_digest(plan: AnalysisPlan, evidence: Evidence) -> str:
    """`sha256:` and the hex digest of plan and evidence as canonical JSON: equal inputs, equal digest."""
    form = {"plan": plan.to_dict(), "evidence": evidence.to_dict()}
    canonical = json.dumps(form, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _look(plan: AnalysisPlan, evidence: Evidence, metrics: Mapping[str, Measurement]) -> Look:
    """Whether success is tested now; not before the window's end with a metric missing or on fewer users than the minimum."""
    measured = [m for m in metrics.values() if isinstance(m, Measured)]
    slices = [(m.control.n, m.candidate.n) for m in measured]
    if len(measured) < len(metrics) or any(n < plan.minimum_users for both in slices for n in both):
        slices = []
    return look_at(plan.method, plan.alpha, slices, evidence.looks, window_over=evidence.window_over)


def _ratio_p(plan: AnalysisPlan, evidence: Evidence) -> float | None:
    """By all looks; where half of the error rate is for the last look, twice the p-value of either half."""
    if evidence.assigned is None:
        return None
    if not plan.sample_ratio_at_end:
        return sample_ratio_p(evidence.assigned)
    return sample_ratio_p_at_end(evidence.assigned) if evidence.window_over else min(1.0, 2 * sample_ratio_p(evidence.assigned))


def _undecided(
    plan: AnalysisPlan, evidence: Evidence, judgements: list[Judgement], missing: tuple[Reason, str] | None, few: list[Judgement]
) -> tuple[Outcome, Reason, str]:
    """Success can't be tested now: go on, or if the window is over say why not."""
    if not evidence.window_over:
        reason, message = missing or (Reason.ENROLLING, f"no harm proven so far: {'; '.join(_progress(plan, j) for j in judgements)}")
        return Outcome.CONTINUE, reason, message
    if missing:
        return Outcome.NO_VERDICT, *missing
    return Outcome.INCONCLUSIVE, Reason.TOO_FEW_USERS, "; ".join(_progress(plan, j) for j in few)


def _split_problem(evidence: Evidence, judgements: list[Judgement]) -> tuple[Reason, str] | None:
    """Why the sample ratio can't be vouched for, though no mismatch was seen; harm isn't called without it."""
    if evidence.assigned is None:
        return Reason.NO_DATA, "first assignments have no data"
    for j in judgements:
        n = (j.estimate.n_control, j.estimate.n_candidate)
        if n[0] > evidence.assigned[0] or n[1] > evidence.assigned[1]:
            return Reason.METRICS_UNAVAILABLE, (
                f"{j.metric.name} counts {n[0]} control and {n[1]} candidate users, more than the {evidence.assigned[0]} and "
                f"{evidence.assigned[1]} that were assigned"
            )
    return None


def _missing(plan: AnalysisPlan, metrics: Mapping[str, Measurement], split_problem: tuple[Reason, str] | None) -> tuple[Reason, str] | None:
    """What isn't known at this look; the reason is the gravest one: unavailable, then stale, then no data."""
    problems = [split_problem] if split_problem else []
    for metric in plan.metrics:
        match metrics[metric.name]:
            case NoData():
                problems.append((Reason.NO_DATA, f"{metric.name} has no data"))
            case Stale(age):
                problems.append((Reason.METRICS_STALE, f"{metric.name} is {wording.number(age)} s old"))
            case Unavailable(message):
                problems.append((Reason.METRICS_UNAVAILABLE, f"{metric.name} is unavailable: {message}"))
    problems += [(Reason.NO_DATA, sentence) for sentence in unmeasured_segments(plan, metrics)]
    if not problems:
        return None
    gravity = (Reason.METRICS_UNAVAILABLE, Reason.METRICS_STALE, Reason.NO_DATA)
    return min((reason for reason, _ in problems), key=gravity.index), "; ".join(message for _, message in problems)


def _harm_message(plan: AnalysisPlan, harmed: list[Judgement]) -> str:
    alpha = f"{wording.number(plan.harm_alpha / len(plan.metrics))} at all looks together"
    found = "; ".join(f"{j.harm_summary}, worse than {_limit(j.metric)}" for j in harmed)
    return f"harm is proven: {found} (alpha {alpha})"


def _limit(metric: MetricPlan) -> str:
    if metric.harm_limit == (0.0, 0.0):
        return "control"
    margin = metric.good * -(metric.harm_limit.margin or metric.harm_limit.absolute_margin)
    return f"the margin {wording.signed(margin, relative=metric.harm_limit.margin > 0)}"


def _progress(plan: AnalysisPlan, j: Judgement) -> str:
    if j.enough:
        return j.summary
    users = f"{j.estimate.n_control} control and {j.estimate.n_candidate} candidate users"
    return f"{j.metric.name} has {users}, and needs {plan.minimum_users} of each"


def _final(
    plan: AnalysisPlan, metrics: Mapping[str, Measurement], judgements: list[Judgement], tests: Mapping[str, HolmTest]
) -> tuple[Outcome, Reason, str]:
    """The verdict of a test of success, every metric measured on enough users."""
    proven = [j for j in judgements if _is_proven(j, tests)]
    found = "; ".join(_finding(j, tests) for j in judgements)
    if not proven:
        return Outcome.INCONCLUSIVE, Reason.NO_SIGNIFICANT_LIFT, f"no success metric is proven better: {found}"
    if short := [j for j in judgements if not _is_proven(j, tests) and not j.non_inferior]:
        better, worse = ", ".join(j.metric.name for j in proven), ", ".join(j.metric.name for j in short)
        return (
            Outcome.INCONCLUSIVE,
            Reason.NON_INFERIORITY_NOT_SHOWN,
            f"{better} is better, but {worse} isn't shown to be no worse: {found}",
        )
    if harmed := harmed_segments(plan, metrics):
        return Outcome.INCONCLUSIVE, Reason.SEGMENT_HARM, f"better for all users together, but harm is proven: {'; '.join(harmed)}; {found}"
    if worn := worn_off(plan, [j.metric for j in proven], metrics):
        return Outcome.INCONCLUSIVE, Reason.NOVELTY_WORN_OFF, f"the lift has worn off: {'; '.join(worn)}; {found}"
    return Outcome.PROMOTE, Reason.SUCCESS_PROVEN, found


def _final_states(judgements: list[Judgement], tests: Mapping[str, HolmTest]) -> dict[str, MetricState]:
    states = {j.metric.name: MetricState.NON_INFERIOR if j.non_inferior else MetricState.NOT_SHOWN for j in judgements}
    return states | {name: MetricState.PROVEN for name, test in tests.items() if test.rejected}


def _is_proven(j: Judgement, tests: Mapping[str, HolmTest]) -> bool:
    return j.metric.name in tests and tests[j.metric.name].rejected


def _finding(j: Judgement, tests: Mapping[str, HolmTest]) -> str:
    """The effect and what it was held against: the success test's limit, and the margin where that test didn't settle it."""
    held: list[str] = []
    if test := tests.get(j.metric.name):
        sign = "≤" if j.superiority_p <= test.limit else ">"
        held.append(f"p = {wording.number(j.superiority_p)} {sign} {wording.number(test.limit)}")
    if not _is_proven(j, tests):
        margin, absolute_margin = j.metric.promotion_limit
        relative = j.metric.absolute_margin is None
        limit = wording.signed(-j.metric.good * (margin if relative else absolute_margin), relative=relative)
        held.append(f"{'within' if j.non_inferior else 'not shown within'} {limit}")
    return f"{j.summary} ({', '.join(held)})"
