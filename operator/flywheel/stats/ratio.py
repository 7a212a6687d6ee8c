"""Ratios of two totals, such as thumbs down per message: the delta method over users, who are the unit that was randomised.

Source: A. Deng, U. Knoblich, J. Lu, "Applying the Delta Method in Metric Analytics", KDD 2018. Messages of one user resemble each other,
so counting messages as if they were independent understates the error; users are independent.
"""

from __future__ import annotations

from dataclasses import dataclass

from flywheel.stats.contrast import ONE_EVENT
from flywheel.stats.moments import Moments, PairMoments

LEAST_DENOMINATOR = 1e-6  # a user; messages are at least 1 each


@dataclass(frozen=True, slots=True)
class Ratio:
    """total y / total x of one slice, as a Sample: `variance / n` is the squared standard error of the ratio."""

    n: int
    mean: float
    variance: float


def ratio(pair: PairMoments) -> Ratio:
    """The ratio of the totals. Raises ValueError below two users, or for denominators below a millionth a user."""
    if pair.x.mean < LEAST_DENOMINATOR:
        raise ValueError(f"denominator: expected a mean of at least {LEAST_DENOMINATOR} a user, got {pair.x.mean!r}")
    value = pair.y.total / pair.x.total
    spread = pair.y.variance - 2 * value * pair.covariance + value * value * pair.x.variance
    return Ratio(pair.n, value, max(0.0, spread) / (pair.x.mean * pair.x.mean))


def with_one_event(pair: PairMoments) -> PairMoments:
    """Two users more with the mean denominator, one of them with one event: see contrast.with_one_event."""
    mean = pair.x.mean
    return PairMoments(pair.y.merge(ONE_EVENT), pair.x.merge(Moments(2, 2 * mean, 2 * mean * mean)), pair.cross + mean)
