"""Did users land in the slices in the ratio they should? An anytime-valid test, so that it may be looked at on every tick.

Source: M. Lindon, A. Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022: the Bayes factor of a Dirichlet prior
centred on the expected ratio against that ratio itself is a martingale under the null, so P(1/BF ever <= a) <= a (Ville).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flywheel.stats.moments import check_count, check_number

CONCENTRATION = 100.0  # prior users: most sensitive to a loss of several per cent after hundreds of users, and of tenths after a million


def sample_ratio_p(counts: Sequence[int], expected: Sequence[float] = (1.0, 1.0), concentration: float = CONCENTRATION) -> float:
    """min(1, 1 / Bayes factor) for first assignments `counts` (users) under the ratio `expected`; below alpha: broken.

    Raises ValueError for counts or ratios that are none.
    """
    if len(counts) != len(expected) or len(counts) < 2:
        raise ValueError(f"counts: expected {len(expected)} (at least 2), one for each of expected {tuple(expected)!r}, got {len(counts)}")
    users = [check_count(f"counts[{i}]", c) for i, c in enumerate(counts)]
    weights = [check_number(f"expected[{i}]", w, 1e-9, 1e9) for i, w in enumerate(expected)]
    prior_users = check_number("concentration", concentration, 1e-3, 1e9)
    log_factor = math.lgamma(prior_users) - math.lgamma(prior_users + sum(users))
    for n, weight in zip(users, weights, strict=True):
        share = weight / sum(weights)
        prior = prior_users * share
        log_factor += math.lgamma(prior + n) - math.lgamma(prior) - n * math.log(share)
    return min(1.0, math.exp(min(0.0, -log_factor)))


def sample_ratio_p_at_end(counts: Sequence[int]) -> float:
    """Of a 1:1 split, when the window is over: half of the error rate for all looks before, half for this one (chi-square, one degree).

    The last look has the most users, and one test at a known time sees what a test at all times can't yet: at 10 000 users a slice
    it finds a loss of 6.5 % nine times in ten, not seven. Raises ValueError.
    """
    p = sample_ratio_p(counts)
    users = sum(counts)
    if len(counts) != 2:
        raise ValueError(f"counts: expected 2, got {len(counts)}")
    last = math.erfc(abs(counts[0] - counts[1]) / math.sqrt(2 * users)) if users else 1.0
    return min(1.0, 2 * min(p, last))
