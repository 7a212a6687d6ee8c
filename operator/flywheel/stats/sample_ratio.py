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
