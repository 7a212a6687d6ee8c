"""Confidence sequences."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.stats.contrast import difference_interval
from flywheel.stats.fixed_horizon import normal_multiplier
from flywheel.stats.moments import Moments
from flywheel.stats.sequences import mixture_rho, one_sided_multiplier, two_sided_multiplier

users = st.integers(1, 10**9)
alphas = st.floats(1e-6, 0.2)
tuned = st.integers(1, 10**6)


@pytest.mark.golden("two_sided_sequences")
def test_the_two_sided_sequence_is_that_of_gbstats(case: dict[str, Any]) -> None:
    control, candidate = Moments(*case["control"]), Moments(*case["candidate"])
    multiplier = two_sided_multiplier(control.n + candidate.n, case["alpha"], case["optimizeUsers"])
    assert difference_interval(control, candidate, multiplier) == pytest.approx(tuple(case["interval"]), rel=1e-10)


@pytest.mark.golden("one_sided_sequences")
def test_the_one_sided_sequence_is_the_half_normal_mixtures_and_barely_wider(case: dict[str, Any]) -> None:
    alpha, users = case["alpha"], 10**6
    optimize_users = users * mixture_rho(2 * alpha, 1) ** 2 / case["information"]  # so that users * rho^2 is the case's information
    assert case["multiplier"] <= one_sided_multiplier(users, alpha, optimize_users) <= 1.01 * case["multiplier"]


@given(users, alphas, tuned)
def test_a_sequence_is_wider_than_the_interval_of_one_look(n: int, alpha: float, optimize: int) -> None:
    assert one_sided_multiplier(n, alpha, optimize) > normal_multiplier(alpha)
    assert two_sided_multiplier(n, alpha, optimize) > normal_multiplier(alpha / 2)


@given(users, alphas, tuned)
def test_watching_one_side_is_cheaper_than_both(n: int, alpha: float, optimize: int) -> None:
    assert one_sided_multiplier(n, alpha, optimize) < two_sided_multiplier(n, alpha, optimize) * 1.2
    assert one_sided_multiplier(optimize, alpha, optimize) < two_sided_multiplier(optimize, alpha, optimize)


@given(users, alphas, tuned, st.floats(1.01, 10))
def test_a_smaller_error_rate_is_wider(n: int, alpha: float, optimize: int, factor: float) -> None:
    assert one_sided_multiplier(n, alpha / factor, n) > one_sided_multiplier(n, alpha, n)
    assert two_sided_multiplier(n, alpha / factor, n) > two_sided_multiplier(n, alpha, n)


@given(st.integers(10, 10**6), alphas, st.floats(0.01, 100))
def test_a_sequence_is_narrowest_where_it_is_tuned_to_be(n: int, alpha: float, elsewhere: float) -> None:
    assert two_sided_multiplier(n, alpha, n) <= two_sided_multiplier(n, alpha, max(1.0, n * elsewhere)) * 1.001
    assert one_sided_multiplier(n, alpha, n) <= one_sided_multiplier(n, alpha, max(1.0, n * elsewhere)) * 1.01


def test_looking_after_every_pair_of_users_rarely_misses_the_truth() -> None:
    rng, missed, runs, alpha, burn_in = random.Random(5), 0, 300, 0.05, 50
    for _ in range(runs):
        k = [0, 0]
        for n in range(1, 401):
            for arm in (0, 1):
                k[arm] += rng.random() < 0.3
            if n < burn_in:
                continue
            control, candidate = (Moments(n, x, x) for x in k)
            interval = difference_interval(control, candidate, two_sided_multiplier(2 * n, alpha, 2 * burn_in))
            if not interval.lower <= 0 <= interval.upper:
                missed += 1
                break
    assert missed / runs <= 0.07


@pytest.mark.parametrize(("alpha", "optimize_users"), [(0.0, 10), (1.0, 10), (0.05, 0), (0.05, float("nan"))])
def test_a_tuning_that_is_none_is_refused(alpha: float, optimize_users: float) -> None:
    with pytest.raises(ValueError, match=r"alpha|optimize_users"):
        mixture_rho(alpha, optimize_users)
