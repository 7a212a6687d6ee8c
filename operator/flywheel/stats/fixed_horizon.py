"""The one test at the window's end: normal approximation with unequal variances (users are hundreds at least, so t adds nothing)."""

from __future__ import annotations

import math
from statistics import NormalDist

from flywheel.stats.contrast import Contrast
from flywheel.stats.moments import check_number


def normal_multiplier(alpha: float) -> float:
    """Standard errors that a one-sided bound at level alpha is away from the estimate. Raises ValueError."""
    return NormalDist().inv_cdf(1 - check_number("alpha", alpha, 1e-12, 0.5))


def p_value(contrast: Contrast) -> float:
    """One-sided p-value of "the candidate is no better than the limit", for superiority (no margin) and non-inferiority alike.

    Without any variance in either slice the answer is certain: 0 above the limit, 1 below, 0.5 on it.
    """
    if contrast.standard_error == 0.0:
        return 0.5 if contrast.estimate == 0.0 else 0.0 if contrast.estimate > 0 else 1.0
    # erfc, as NormalDist.cdf has no digits left in the far tail
    return 0.5 * math.erfc(contrast.estimate / contrast.standard_error / math.sqrt(2))


def is_non_inferior(contrast: Contrast, alpha: float) -> bool:
    """Whether the candidate is shown to be no worse than the limit.

    Two constant slices on the very limit (no errors in either, say) have nothing left to show.
    """
    return p_value(contrast) <= alpha or (contrast.standard_error == 0.0 and contrast.estimate == 0.0)
