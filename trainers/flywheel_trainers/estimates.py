"""Means with intervals. Pure, standard library only. All intervals are two-sided 95 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    mean: float
    lower: float
    upper: float
    standard_error: float


def of_scores(scores: Sequence[float]) -> Estimate:
    """Mean of per-prompt scores in [0, 1] with a t interval; prompts are the independent units, not the samples of a prompt.

    When every score is 0, or every score is 1, the variance says nothing and Wilson's interval takes over.
    """
    n, mean = len(scores), fmean(scores)
    if mean in (0.0, 1.0) or n < 2:
        low, high = wilson(round(mean * n), n)
        return Estimate(mean, low, high, (high - low) / (2 * _Z))
    error = math.sqrt(variance(scores) / n)
    half = t_quantile(n - 1) * error
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), error)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share; it stays inside [0, 1] and is honest for few observations."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a − b of independent samples."""
    error = math.hypot(a.standard_error, b.standard_error)
    mean = a.mean - b.mean
    return Estimate(mean, mean - _Z * error, mean + _Z * error, error)


def t_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t (Cornish–Fisher expansion; within 0.5 % from four degrees on, wider than z always)."""
    z, d = _Z, float(degrees)
    if degrees < 4:
        return {1: 12.706, 2: 4.303, 3: 3.182}[degrees]
    return (
        z + (z**3 + z) / (4 * d) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * d**2) + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * d**3)
    )


def win_score(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Share of all pairs of samples that we win; a tie is half a win. All pairs: the least noise a prompt's samples allow."""
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in ours for b in theirs)
    return wins / (len(ours) * len(theirs))
