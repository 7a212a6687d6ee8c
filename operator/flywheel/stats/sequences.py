"""Asymptotic confidence sequences: intervals that hold at all looks at once, as multiples of the standard error.

Source: I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", arXiv 2103.06476 (Annals of Statistics 52, 2024); equation numbers are those of version 7. With t users in both slices together,
sigma^2 / t there is the squared standard error of the difference here.
"""

from __future__ import annotations

import math

from flywheel.stats.moments import check_number


def mixture_rho(alpha: float, optimize_users: float) -> float:
    """The mixing parameter that makes the two-sided sequence narrowest at `optimize_users` users in both slices together (eq. 161).

    Any other choice stays valid and is only wider there. Raises ValueError.
    """
    log = -2.0 * math.log(check_number("alpha", alpha, 1e-300, 0.999999))
    return math.sqrt((log + math.log1p(log)) / check_number("optimize_users", optimize_users, 1.0, 1e16))


def two_sided_multiplier(users: int, alpha: float, optimize_users: float) -> float:
    """Half-width of the (1 - alpha) sequence in standard errors, at `users` in both slices together (eq. 9). Raises ValueError."""
    information = check_number("users", users, 1, 1e16) * mixture_rho(alpha, optimize_users) ** 2
    return math.sqrt(2 * (1 + 1 / information) * math.log(math.sqrt(information + 1) / alpha))


def one_sided_multiplier(users: int, alpha: float, optimize_users: float, *, tuned_for: float | None = None) -> float:
    """The same for a sequence that is bounded on one side only (eq. 134), tuned as the two-sided one at 2 * alpha. Raises ValueError.

    `tuned_for`: the alpha it is tuned at instead, so that sequences of several levels are nested (Holm).
    """
    rho = mixture_rho(2 * (alpha if tuned_for is None else tuned_for), optimize_users)
    information = check_number("users", users, 1, 1e16) * rho**2
    return math.sqrt(2 * (1 + 1 / information) * math.log1p(math.sqrt(information + 1) / (2 * alpha)))
