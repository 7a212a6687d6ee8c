"""The anytime-valid test of the split."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.stats.sample_ratio import sample_ratio_p

users = st.integers(0, 10**6)


@pytest.mark.golden("sample_ratio")
def test_it_is_the_bayes_factor_of_scipy(case: dict[str, Any]) -> None:
    p = sample_ratio_p(case["counts"], case["expected"], case["concentration"])
    assert p == pytest.approx(case["p"], rel=1e-6)  # scipy's own sum of large logarithms has no more digits


@given(users, users)
def test_swapping_the_slices_changes_nothing(a: int, b: int) -> None:
    assert sample_ratio_p((a, b)) == pytest.approx(sample_ratio_p((b, a)), rel=1e-9)


@given(st.integers(1, 10**5), st.integers(0, 10**5), st.integers(1, 10**4))
def test_a_more_lopsided_split_of_the_same_users_is_never_more_plausible(half: int, gap: int, step: int) -> None:
    near, far = min(gap, half), min(gap + step, half)
    assert sample_ratio_p((half - far, half + far)) <= sample_ratio_p((half - near, half + near)) * (1 + 1e-9)


@given(users, users, st.floats(0.01, 100))
def test_only_the_ratio_of_the_expected_shares_counts(a: int, b: int, scale: float) -> None:
    assert sample_ratio_p((a, b), (scale, 3 * scale)) == pytest.approx(sample_ratio_p((a, b), (1, 3)), rel=1e-6)


def test_nobody_assigned_is_no_mismatch() -> None:
    assert sample_ratio_p((0, 0)) == 1.0


def test_a_sixth_of_the_candidates_users_lost_is_seen_within_the_demo() -> None:
    assert sample_ratio_p((516, 344)) < 0.001 < sample_ratio_p((450, 410))


def test_a_loss_of_one_percent_is_seen_among_a_million_users() -> None:
    assert sample_ratio_p((502_500, 497_500)) < 0.001


def test_looking_after_every_user_rarely_raises_a_false_alarm() -> None:
    rng, alarms, runs, alpha = random.Random(3), 0, 400, 0.05
    for _ in range(runs):
        counts = [0, 0]
        for _ in range(400):
            counts[rng.random() < 0.5] += 1
            if sample_ratio_p(counts) < alpha:
                alarms += 1
                break
    assert alarms / runs <= 0.07


@pytest.mark.parametrize(
    ("counts", "expected", "named"),
    [
        ((1, -1), (1, 1), r"counts\[1\].*-1"),
        ((1, 2.5), (1, 1), r"counts\[1\].*2\.5"),
        ((1, 2), (1, 0), r"expected\[1\].*0"),
        ((1, 2), (1, float("nan")), r"expected\[1\].*nan"),
        ((1, 2, 3), (1, 1), "got 3"),
        ((1,), (1,), "at least 2"),
    ],
)
def test_counts_that_are_none_are_refused(counts: Any, expected: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        sample_ratio_p(counts, expected)
