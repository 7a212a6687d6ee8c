"""The linear contrast mean_T - r * mean_C of two slices, and intervals of `multiplier` standard errors around difference and lift.

Every test here is one on a linear contrast, never on a ratio: a ratio of means is skewed at small n, a difference is not. The interval
shown for the lift is Fieller's (E. C. Fieller, "Some problems in interval estimation", JRSS B 16, 1954): the r - 1 at which the contrast is
`multiplier` standard errors from zero. So an interval and the test at the same level never disagree, as the delta method's can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from flywheel.stats.moments import CANCELLATION, Moments, Sample

Sign = Literal[1, -1]


class Limit(NamedTuple):
    """How much worse than the control still counts as no worse.

    Either a share of its mean (`margin`) or an amount in the unit of the metric (`absolute_margin`); the other is 0.
    """

    margin: float
    absolute_margin: float


NO_MARGIN = Limit(0.0, 0.0)
ONE_EVENT = Moments(2, 1.0, 1.0)


class Interval(NamedTuple):
    """Closed interval; always finite."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much better than its limit the candidate is (`estimate`, unit of the metric; > 0 is good) and the standard error of that."""

    estimate: float
    standard_error: float


def contrast(control: Sample, candidate: Sample, good: Sign, limit: Limit = NO_MARGIN) -> Contrast:
    """good * (mean_T - (1 - good * margin) * mean_C) + absolute_margin, for metrics that are good when they rise (1) or fall (-1).

    A relative margin of a control mean that isn't positive has no meaning and counts as 0. Raises ValueError below two users a slice.
    """
    ratio = 1.0 - good * limit.margin if control.mean > 0 else 1.0
    value = ratio * control.mean - good * limit.absolute_margin
    estimate = good * (candidate.mean - value)
    if abs(estimate) <= CANCELLATION * (abs(candidate.mean) + abs(value)):
        estimate = 0.0  # equal but for rounding; matters when there is no variance to drown it
    return Contrast(estimate, math.sqrt(candidate.variance / candidate.n + ratio * ratio * control.variance / control.n))


def with_one_event(moments: Moments) -> Moments:
    """Two users more, one of them with one event: the Agresti-Caffo adjustment of rare events.

    Without it, 0 events among n users have variance 0 and any margin is "shown" (A. Agresti, B. Caffo, The American Statistician 54, 2000).
    """
    return moments.merge(ONE_EVENT)


def difference_interval(control: Sample, candidate: Sample, multiplier: float) -> Interval:
    """mean_T - mean_C, plus and minus `multiplier` standard errors. Raises ValueError below two users a slice."""
    difference = contrast(control, candidate, 1)
    half = multiplier * difference.standard_error
    return Interval(difference.estimate - half, difference.estimate + half)


def lift(control: Sample, candidate: Sample) -> float | None:
    """mean_T / mean_C - 1, or None if the control's mean isn't positive (or the ratio is no number). Raises ValueError for no users."""
    if control.mean <= 0:
        return None
    return _finite(candidate.mean / control.mean - 1)


def lift_interval(control: Sample, candidate: Sample, multiplier: float) -> Interval | None:
    """Fieller's interval of the lift.

    None if it is unbounded: the control's mean is then within `multiplier` standard errors of zero and no lift can be excluded.
    Raises ValueError below two users a slice.
    """
    if control.mean <= 0:
        return None
    ratio = candidate.mean / control.mean
    # Standard errors in units of the control's mean, times the multiplier: (ratio - r)^2 = t^2 + r^2 c^2, solved for r.
    t = multiplier * math.sqrt(candidate.variance / candidate.n) / control.mean
    c = multiplier * math.sqrt(control.variance / control.n) / control.mean
    if not c < 1:
        return None
    scale = 1 - c * c
    root = math.sqrt(max(0.0, c * c * ratio * ratio + t * t * scale))
    lower, upper = _finite((ratio - root) / scale - 1), _finite((ratio + root) / scale - 1)
    return None if lower is None or upper is None else Interval(lower, upper)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
