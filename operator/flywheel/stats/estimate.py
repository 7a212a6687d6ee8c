"""One metric at one look: its numbers, whether it is harmed, whether it is no worse than its margin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from flywheel.stats import cuped, fixed_horizon, ratio, sequences, wording
from flywheel.stats.analysis import AnalysisPlan, MetricPlan
from flywheel.stats.contrast import Interval, contrast, difference_interval, lift, lift_interval, with_one_event
from flywheel.stats.evidence import Measured, Measurement, NoData, Unavailable
from flywheel.stats.methods import Look
from flywheel.stats.moments import Sample


class MetricState(StrEnum):
    """What is concluded of one metric."""

    MEASURED = "Measured"  # numbers, and no conclusion (yet)
    TOO_FEW_USERS = "TooFewUsers"
    HARM = "Harm"
    PROVEN = "Proven"  # better, by the success test
    NON_INFERIOR = "NonInferior"
    NOT_SHOWN = "NotShown"  # neither better nor no worse


@dataclass(frozen=True, slots=True)
class MetricEstimate:
    """The numbers of one metric for status; None where there is none.

    Means and `difference` are in the unit of the metric, `lift` is a share (0.1 is +10 %). The lift's interval covers 1 - 2 alpha: that
    of the success test when it is done, valid at all looks together in between; one with an absolute margin is judged by its difference
    and has none. `p_value`, when success is tested, is the ordinary one-sided one: of superiority for a Success metric, of non-inferiority
    for a Guardrail. With CUPED the means, too, are adjusted.
    `harm_bound` is the best the candidate can still be, by the one-sided confidence sequence: a lift where there is an interval of it at
    that level and no absolute margin, else a difference. No interval, p-value or bound below the minimum of users.
    """

    name: str
    role: str
    n_control: int
    n_candidate: int
    mean_control: float | None
    mean_candidate: float | None
    difference: float | None = None
    lift: float | None = None
    lift_lower: float | None = None
    lift_upper: float | None = None
    p_value: float | None = None
    harm_bound: float | None = None
    state: MetricState = MetricState.MEASURED

    def to_dict(self) -> dict[str, object]:
        """JSON form, rounded to six significant digits."""
        return {
            "name": self.name,
            "role": self.role,
            "nControl": self.n_control,
            "nCandidate": self.n_candidate,
            "meanControl": wording.significant(self.mean_control),
            "meanCandidate": wording.significant(self.mean_candidate),
            "difference": wording.significant(self.difference),
            "lift": wording.significant(self.lift),
            "liftLower": wording.significant(self.lift_lower),
            "liftUpper": wording.significant(self.lift_upper),
            "pValue": wording.significant(self.p_value),
            "harmBound": wording.significant(self.harm_bound),
            "state": str(self.state),
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the verdict needs of one metric. Below the minimum of users (`enough` false) nothing is concluded."""

    metric: MetricPlan
    estimate: MetricEstimate
    enough: bool = False
    harmed: bool = False
    non_inferior: bool = False
    superiority_p: float = 1.0
    users: int = 0  # matured, in both slices
    summary: str = ""  # the effect and its interval
    harm_summary: str = ""  # the effect and the best it can still be


def usable(metric: MetricPlan, measurement: Measurement) -> Measurement:
    """The measurement, or why it is no use for this metric: a ratio needs the users' messages."""
    if not isinstance(measurement, Measured) or not metric.per_message:
        return measurement
    if measurement.messages is None:
        return NoData()
    try:
        for pair in measurement.messages:
            if pair.n >= 2:
                ratio.ratio(pair)
    except ValueError as error:
        return Unavailable(str(error))
    return measurement


def samples(plan: AnalysisPlan, metric: MetricPlan, measured: Measured) -> tuple[Sample, Sample]:
    """Both slices as they are compared: ratios, adjusted by the pre-period, or plain means. Needs two users a slice."""
    if metric.per_message and measured.messages:
        control, candidate = measured.messages
        if metric.absolute_margin is not None:
            control, candidate = ratio.with_one_event(control), ratio.with_one_event(candidate)
        return ratio.ratio(control), ratio.ratio(candidate)
    if metric.absolute_margin is not None:
        return with_one_event(measured.control), with_one_event(measured.candidate)
    if plan.cuped and measured.known:
        slices = (cuped.Stratified(m, pair) for m, pair in zip((measured.control, measured.candidate), measured.known, strict=True))
        if adjusted := cuped.adjusted(*slices):
            return adjusted
    return measured.control, measured.candidate


def judge(plan: AnalysisPlan, metric: MetricPlan, measured: Measured, look: Look) -> Judgement:
    """Judge one measured metric; never raises. Harm is looked for at harm_alpha / m for m metrics, at every look."""
    if min(measured.control.n, measured.candidate.n) < plan.minimum_users:
        return Judgement(metric, replace(_numbers(metric, measured, None), state=MetricState.TOO_FEW_USERS))

    users = measured.control.n + measured.candidate.n
    optimize_users = 2.0 * (plan.harm_optimize_users or plan.minimum_users)
    at_every_look = sequences.one_sided_multiplier(users, plan.harm_alpha / len(plan.metrics), optimize_users)
    now = look.critical(plan.alpha, users) if look.due else math.inf
    if not math.isfinite(now):
        now = sequences.two_sided_multiplier(users, 2 * plan.alpha, optimize_users)

    rare = metric.absolute_margin is not None
    control, candidate = samples(plan, metric, measured)
    plain = rare and not metric.per_message
    numbers = _numbers(metric, measured, None if plain else (control, candidate))
    harm = contrast(control, candidate, metric.good, metric.harm_limit)
    no_worse = contrast(control, candidate, metric.good, metric.promotion_limit)
    superiority_p = fixed_horizon.p_value(contrast(control, candidate, metric.good))
    p_value = superiority_p if metric.role == "Success" else fixed_horizon.p_value(no_worse)

    shown = _Ends.of(control, candidate, now, rare=rare)
    harm_ends = _Ends.of(control, candidate, at_every_look, rare=rare)
    harm_bound = harm_ends.interval.upper if metric.good > 0 else harm_ends.interval.lower
    return Judgement(
        metric,
        replace(
            numbers,
            lift_lower=shown.interval.lower if shown.relative else None,
            lift_upper=shown.interval.upper if shown.relative else None,
            p_value=p_value if look.due else None,
            harm_bound=harm_bound,
        ),
        enough=True,
        harmed=harm.estimate + at_every_look * harm.standard_error < 0,
        non_inferior=look.due and fixed_horizon.is_non_inferior(no_worse, look.limit(plan.alpha, users)),
        superiority_p=superiority_p,
        users=users,
        summary=f"{_effect(numbers, relative=shown.relative)} {wording.interval(shown.interval, relative=shown.relative)}",
        harm_summary=f"{_effect(numbers, relative=harm_ends.relative)} (at best {wording.signed(harm_bound, relative=harm_ends.relative)})",
    )


class _Ends(NamedTuple):
    """An interval of the lift if there is one, else of the difference."""

    interval: Interval
    relative: bool

    @classmethod
    def of(cls, control: Sample, candidate: Sample, multiplier: float, *, rare: bool) -> _Ends:
        lifts = None if rare else lift_interval(control, candidate, multiplier)
        return cls(lifts, True) if lifts else cls(difference_interval(control, candidate, multiplier), False)


def _numbers(metric: MetricPlan, measured: Measured, compared: tuple[Sample, Sample] | None) -> MetricEstimate:
    """What can be said without inference: of the slices as they are compared, else of the plain means."""
    control, candidate = compared or (measured.control, measured.candidate)
    numbers = MetricEstimate(
        name=metric.name,
        role=metric.role,
        n_control=measured.control.n,
        n_candidate=measured.candidate.n,
        mean_control=control.mean if control.n else None,
        mean_candidate=candidate.mean if candidate.n else None,
    )
    if not control.n or not candidate.n:
        return numbers
    return replace(numbers, difference=candidate.mean - control.mean, lift=lift(control, candidate))


def _effect(numbers: MetricEstimate, *, relative: bool) -> str:
    value = numbers.lift if relative else numbers.difference
    return f"{numbers.name} {wording.signed(value or 0.0, relative=relative)}"
