"""Group-sequential boundaries: a few looks share alpha by how much information each of them has.

Sources: K. K. G. Lan, D. L. DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70, 1983 (alpha spending: neither
number nor times of the looks need be known beforehand); P. Armitage et al., "Repeated significance tests on accumulating
data", JRSS A 132, 1969 (the recursive integration); C. Jennison, B. W. Turnbull, "Group Sequential Methods", 2000, chapter 19.

At look k with information fraction t_k the statistic Z_k is normal with mean drift * sqrt(t_k), and its sequence has the law of a Brownian
motion B(t) / sqrt(t). One-sided, no futility boundary: the error rate holds whether or not anybody stops early for want of success.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import Literal

from flywheel.stats.moments import check_number

Spending = Literal["OBrienFleming", "Pocock"]

NEVER = math.inf  # the boundary of a look at which there is nothing to spend
MAX_LOOKS = 20
_TAIL = 8.0  # standard errors beyond which there is no mass
_STEP = 0.05  # of the grid, in standard errors
_RESOLUTION = 6.0  # grid points within one standard deviation of the next increment
_CLOSEST = 3e-4  # looks with less new information than this share count as this far apart, which errs on the safe side
_NOTHING = 1e-13


def spent(fraction: float, alpha: float, spending: Spending) -> float:
    """How much of alpha may be spent up to an information fraction. Raises ValueError."""
    check_number("alpha", alpha, 1e-12, 0.499999)
    t = min(1.0, check_number("fraction", fraction, 0.0, 1e6))
    if spending == "Pocock":
        return alpha * math.log1p((math.e - 1) * t)
    if spending != "OBrienFleming":
        raise ValueError(f"spending: expected OBrienFleming or Pocock, got {spending!r}")
    if t == 0.0:
        return 0.0
    return 2 * upper_tail(NormalDist().inv_cdf(1 - alpha / 2) / math.sqrt(t))


def boundaries(fractions: Sequence[float], alpha: float, spending: Spending, *, last: bool = False) -> tuple[float, ...]:
    """Standard errors from the limit that reject at each look so far; `last` spends at the newest look what is left of alpha.

    `fractions` are information fractions in growing order, at most 20; above 1 all of alpha is spent. Raises ValueError.
    """
    if not 1 <= len(fractions) <= MAX_LOOKS:
        raise ValueError(f"fractions: expected 1 to {MAX_LOOKS} looks, got {len(fractions)}")
    known = tuple(check_number(f"fractions[{i}]", t, 1e-9, 1e6) for i, t in enumerate(fractions))
    if any(b <= a for a, b in pairwise(known)):
        raise ValueError(f"fractions: expected growing ones, got {known!r}")
    return _boundaries(known, alpha, spending, last)


@lru_cache(maxsize=4096)
def _boundaries(fractions: tuple[float, ...], alpha: float, spending: Spending, last: bool) -> tuple[float, ...]:
    levels = [spent(t, alpha, spending) for t in fractions]
    if last:
        levels[-1] = alpha
    bounds: list[float] = []
    walk = _Walk(0.0)
    before = 0.0
    for i, t in enumerate(fractions):
        bounds.append(_solve(walk, t, levels[i] - before))
        before = max(before, levels[i])
        if i + 1 < len(fractions):
            walk = walk.step(t, bounds[-1], fractions[i + 1])
    return tuple(bounds)


def crossing_probabilities(fractions: Sequence[float], bounds: Sequence[float], drift: float) -> tuple[float, ...]:
    """Probability of crossing first at each look; `drift` is the mean of Z at information fraction 1. Raises ValueError."""
    if len(fractions) != len(bounds) or not fractions:
        raise ValueError(f"bounds: expected {len(fractions)} (at least 1), one for each of fractions, got {len(bounds)}")
    check_number("drift", drift, -100.0, 100.0)
    found: list[float] = []
    walk = _Walk(drift)
    for i, (t, bound) in enumerate(zip(fractions, bounds, strict=True)):
        found.append(walk.exit(t, bound))
        if i + 1 < len(fractions):
            walk = walk.step(t, bound, fractions[i + 1])
    return tuple(found)


def upper_tail(z: float) -> float:
    """P(Z > z) of a standard normal, exact in the far tail."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def _solve(walk: _Walk, t: float, level: float) -> float:
    """The bound that is crossed for the first time with probability `level`."""
    if level < _NOTHING:
        return NEVER
    low, high = -_TAIL, _TAIL
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if walk.exit(t, middle) > level else (low, middle)
    return (low + high) / 2


class _Walk:
    """The sub-density of B at the last look, of those paths that have not crossed, as weighted points (Simpson's rule)."""

    def __init__(self, drift: float, t: float = 0.0, points: Sequence[float] = (0.0,), weights: Sequence[float] = (1.0,)) -> None:
        self.drift, self.t, self.points, self.weights = drift, t, points, weights

    def exit(self, t: float, bound: float) -> float:
        """P(not crossed before, and Z at t above `bound`)."""
        if bound == NEVER:
            return 0.0
        new = self._new(t)
        edge, scale = bound * math.sqrt(t) - self.drift * new, math.sqrt(2 * new)
        return 0.5 * math.fsum(w * math.erfc((edge - b) / scale) for b, w in zip(self.points, self.weights, strict=True))

    def step(self, t: float, bound: float, next_t: float) -> _Walk:
        """The walk that stayed below `bound` at t, on a grid fine enough for the increment up to `next_t`."""
        new, root = self._new(t), math.sqrt(t)
        centre = self.drift * t
        low, high = centre - _TAIL * root, min(centre + _TAIL * root, bound * root)
        next_sd = math.sqrt(max(next_t - t, _CLOSEST * t))
        width = min(_STEP * root, next_sd / _RESOLUTION, math.sqrt(new) / _RESOLUTION)
        pairs = max(2, math.ceil((high - low) / width / 2))
        h = (high - low) / (2 * pairs)
        if h <= 0:
            return _Walk(self.drift, t, (), ())
        grid = [low + i * h for i in range(2 * pairs + 1)]
        simpson = [h / 3 * (1 if i in (0, 2 * pairs) else 4 if i % 2 else 2) for i in range(2 * pairs + 1)]
        return _Walk(self.drift, t, grid, [s * self._density(b, new) for b, s in zip(grid, simpson, strict=True)])

    def _density(self, b: float, new: float) -> float:
        """Of B at a point, `new` information after the last look."""
        mean, factor, scale = b - self.drift * new, -0.5 / new, 1 / math.sqrt(2 * math.pi * new)
        reach = _TAIL * math.sqrt(new)
        total = 0.0
        for point, weight in zip(self.points, self.weights, strict=True):
            away = mean - point
            if -reach < away < reach:
                total += weight * math.exp(factor * away * away)
        return total * scale

    def _new(self, t: float) -> float:
        return max(t - self.t, _CLOSEST * t)
