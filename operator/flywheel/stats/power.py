"""Users a slice needs for a one-sided fixed-horizon test to see a lift: (z_alpha + z_power)^2 * variance / effect^2, both slices equal."""

from __future__ import annotations

import math

from flywheel.stats.fixed_horizon import normal_multiplier
from flywheel.stats.moments import MAX_USERS, check_number


def users_for_mean(*, lift: float, cv: float, alpha: float, power: float) -> int:
    """Users a slice for a mean with coefficient of variation `cv` (standard deviation / mean of either slice). Raises ValueError."""
    check_number("cv", cv, 1e-6, 1e6)
    return _users(2 * cv * cv, _check_lift(lift), alpha, power)


def users_for_proportion(*, baseline: float, lift: float, alpha: float, power: float) -> int:
    """Users a slice for a share that is `baseline` in the control and baseline * (1 + lift) in the candidate. Raises ValueError."""
    check_number("baseline", baseline, 1e-9, 1 - 1e-9)
    candidate = check_number("baseline * (1 + lift)", baseline * (1 + _check_lift(lift)), 0.0, 1.0)
    return _users(baseline * (1 - baseline) + candidate * (1 - candidate), baseline * lift, alpha, power)


def _check_lift(lift: float) -> float:
    check_number("lift", lift, -1.0, 1e6)
    if abs(lift) < 1e-6:
        raise ValueError(f"lift: {lift!r} is too small to be seen by any number of users")
    return lift


def _users(variance: float, effect: float, alpha: float, power: float) -> int:
    check_number("power", power, 0.5, 1 - 1e-9)
    distance = normal_multiplier(alpha) + normal_multiplier(1 - power)
    return min(MAX_USERS, max(2, math.ceil((distance / effect) ** 2 * variance)))
