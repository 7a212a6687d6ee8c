"""CUPED: what users did before they met the experiment explains part of how they differ, and is taken out of the comparison.

Source: A. Deng, Y. Xu, R. Kohavi, T. Walker, "Improving the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment Data",
WSDM 2013. Users without a pre-period are a stratum of their own, with nothing to adjust by, rather than users with a covariate of zero:
a zero would be read as "was there and did nothing". Both strata are weighted by their share among all users of both slices
(post-stratification), which randomisation makes the same in expectation. The covariate is from before the exposure, so no choice of it
biases the difference; standard errors are given strata sizes and pre-periods, as usual with adjustment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flywheel.stats.moments import Moments, PairMoments


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Users, adjusted mean and variance a user of one slice, as a Sample."""

    n: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Stratified:
    """A slice: all users, and the pairs of those with a pre-period. Raises ValueError if these are more than all."""

    all_users: Moments
    known: PairMoments

    def __post_init__(self) -> None:
        if self.known.n > self.all_users.n:
            raise ValueError(f"known: expected at most {self.all_users.n} users, got {self.known.n}")
        _ = self.new  # raises if what is left are no moments

    @property
    def new(self) -> Moments:
        """Users without a pre-period."""
        every, known = self.all_users, self.known.y
        left = every.n - known.n
        return Moments(
            left, every.total - known.total if left else 0.0, max(0.0, every.total_squares - known.total_squares) if left else 0.0
        )


def adjusted(control: Stratified, candidate: Stratified) -> tuple[Adjusted, Adjusted] | None:
    """Both slices with the pre-period taken out; None if a stratum has fewer than two users of a slice, or nothing to adjust by."""
    both = (control, candidate)
    known, new = sum(s.known.n for s in both), sum(s.new.n for s in both)
    if any(s.known.n < 2 for s in both) or (new and any(s.new.n < 2 for s in both)):
        return None
    freedom = [s.known.n - 1 for s in both]
    x_spread = sum(f * s.known.x.variance for f, s in zip(freedom, both, strict=True))
    if x_spread <= 0:
        return None
    slope = sum(f * s.known.covariance for f, s in zip(freedom, both, strict=True)) / x_spread
    x_mean = sum(s.known.x.total for s in both) / known
    weight = known / (known + new)
    found = _adjust(control, slope, x_mean, weight), _adjust(candidate, slope, x_mean, weight)
    return found if all(math.isfinite(a.mean) and math.isfinite(a.variance) for a in found) else None


def _adjust(slice_: Stratified, slope: float, x_mean: float, weight: float) -> Adjusted:
    pair, new, n = slice_.known, slice_.new, slice_.all_users.n
    mean = weight * (pair.y.mean - slope * (pair.x.mean - x_mean))
    left = max(0.0, pair.y.variance - 2 * slope * pair.covariance + slope * slope * pair.x.variance)
    squared_error = weight * weight * left / pair.n
    if new.n:
        mean += (1 - weight) * new.mean
        squared_error += (1 - weight) * (1 - weight) * new.variance / new.n
    return Adjusted(n, mean, n * squared_error)


def explained(pair: PairMoments) -> float:
    """Share of the metric's variance that the pre-period explains among known users: the square of their correlation."""
    spread = pair.y.variance * pair.x.variance
    return min(1.0, pair.covariance * pair.covariance / spread) if spread > 0 else 0.0
