"""What stops a promotion that the numbers of all users would allow: a segment that is harmed, or a lift that has worn off.

Neither ever causes a rollback: a veto is about promoting, and the model is no worse for all users together.
"""

from __future__ import annotations

from collections.abc import Mapping

from flywheel.stats import fixed_horizon, sequences, wording
from flywheel.stats.analysis import EARLY, LATE, AnalysisPlan, MetricPlan
from flywheel.stats.contrast import contrast, with_one_event
from flywheel.stats.evidence import Measured, Measurement
from flywheel.stats.methods import FixedHorizon
from flywheel.stats.moments import Sample


def unmeasured_segments(plan: AnalysisPlan, metrics: Mapping[str, Measurement]) -> list[str]:
    """Sentences on segments that the plan asks for and a measured metric lacks."""
    return [
        f"segment {name} of {metric.name} has no data"
        for metric in plan.metrics
        if isinstance(measured := metrics.get(metric.name), Measured)
        for name in plan.asked_segments
        if measured.segment(name) is None
    ]


def harmed_segments(plan: AnalysisPlan, metrics: Mapping[str, Measurement]) -> list[str]:
    """Sentences on segments whose harm is proven; harm_alpha is shared by all metrics and segments.

    One test where success has one, a confidence sequence where it has several. Segments below the minimum of users prove nothing.
    """
    level = plan.harm_alpha / (len(plan.metrics) * max(1, len(plan.segments)))
    found = []
    for metric in plan.metrics:
        measured = metrics.get(metric.name)
        for name in plan.segments:
            segment = measured.segment(name) if isinstance(measured, Measured) else None
            if segment is None or min(segment.control.n, segment.candidate.n) < plan.minimum_users:
                continue
            loss = contrast(*_slices(metric, segment), metric.good, metric.harm_limit)
            users = segment.control.n + segment.candidate.n
            if loss.estimate + _multiplier(plan, level, users) * loss.standard_error < 0:
                difference = segment.candidate.mean - segment.control.mean
                found.append(f"{metric.name} of segment {name} {wording.signed(difference, relative=False)} a user ({users} users)")
    return found


def _multiplier(plan: AnalysisPlan, level: float, users: int) -> float:
    if isinstance(plan.method, FixedHorizon):
        return fixed_horizon.normal_multiplier(level)
    return sequences.one_sided_multiplier(users, level, 2.0 * (plan.harm_optimize_users or plan.minimum_users))


def worn_off(plan: AnalysisPlan, proven: list[MetricPlan], metrics: Mapping[str, Measurement]) -> list[str]:
    """Sentences on proven metrics whose lift is gone among the users who came late.

    Gone: the late users' difference is smaller than the early ones' at novelty_alpha, and is not itself proven at the plan's alpha. The
    first alone is a lift that became smaller; the second alone is a part of the users that is too small to prove anything.
    """
    found = []
    for metric in proven:
        measured = metrics.get(metric.name)
        if plan.novelty_alpha is None or not isinstance(measured, Measured):
            continue
        early, late = measured.segment(EARLY), measured.segment(LATE)
        if early is None or late is None or min(m.n for s in (early, late) for m in (s.control, s.candidate)) < plan.minimum_users:
            continue
        first, second = (contrast(*_slices(metric, part), metric.good) for part in (early, late))
        fall = first.estimate - second.estimate
        error = (first.standard_error**2 + second.standard_error**2) ** 0.5
        if fall > fixed_horizon.normal_multiplier(plan.novelty_alpha) * error and fixed_horizon.p_value(second) > plan.alpha:
            found.append(
                f"{metric.name} {wording.signed(metric.good * first.estimate, relative=False)} a user among those who came early, "
                f"{wording.signed(metric.good * second.estimate, relative=False)} among those who came late"
            )
    return found


def _slices(metric: MetricPlan, measured: Measured) -> tuple[Sample, Sample]:
    """Plain means: segments are exported without pre-periods and messages."""
    if metric.absolute_margin is not None:
        return with_one_event(measured.control), with_one_event(measured.candidate)
    return measured.control, measured.candidate
