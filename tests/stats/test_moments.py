"""Count, sum and sum of squares."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.stats.moments import MAX_USERS, Moments
from tests.stats.strategies import counts, hostile

values = st.lists(st.integers(-50, 50), min_size=2, max_size=60)


def of(sample: list[int]) -> Moments:
    return Moments(len(sample), sum(sample), sum(x * x for x in sample))


@given(values)
def test_mean_and_variance_are_those_of_the_users(sample: list[int]) -> None:
    assert of(sample).mean == pytest.approx(statistics.mean(sample))
    assert of(sample).variance == pytest.approx(statistics.variance(sample), abs=1e-9)


@given(values, values)
def test_merging_is_counting_both_groups_together(one: list[int], other: list[int]) -> None:
    assert of(one).merge(of(other)) == of(one + other)


@given(counts(), counts(), counts())
def test_merging_is_associative_and_commutative(a: Moments, b: Moments, c: Moments) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)


@given(hostile())
def test_moments_survive_a_round_trip_through_a_dictionary(moments: Moments) -> None:
    assert Moments.from_dict(moments.to_dict()) == moments


def test_whole_numbers_from_an_api_server_are_the_same_moments() -> None:
    assert Moments.from_dict({"n": 5, "total": 3, "totalSquares": 3}) == Moments(5, 3.0, 3.0)


@pytest.mark.parametrize("value", [0.1, 1e-120, 1e60, 7.0])
def test_users_who_are_all_alike_have_no_variance_whatever_the_rounding(value: float) -> None:
    total = sum([value] * 430)
    assert Moments(430, total, sum([value * value] * 430)).variance == 0.0


@pytest.mark.parametrize(
    ("n", "total", "total_squares", "named"),
    [
        (-1, 0.0, 0.0, r"n: .*got -1"),
        (1.0, 0.0, 0.0, r"n: .*got 1\.0"),
        (True, 0.0, 0.0, r"n: .*got True"),
        (MAX_USERS + 1, 0.0, 0.0, r"n: .*got 1000000000000001"),
        (None, 0.0, 0.0, r"n: .*got None"),
        (5, float("nan"), 1.0, r"total: .*got nan"),
        (5, float("inf"), 1.0, r"total: .*got inf"),
        (5, 1e101, 1.0, r"total: .*got 1e\+101"),
        (5, 10**400, 1.0, r"total: .*got 1000"),
        (5, "1", 1.0, r"total: .*got '1'"),
        (5, 1.0, float("nan"), r"total_squares: .*got nan"),
        (5, 1.0, -0.1, r"total_squares: .*got -0\.1"),
        (5, 10.0, 19.9, r"total_squares: 19\.9 is too small for total 10\.0 of n 5"),
        (0, 1.0, 1.0, r"total, total_squares: 1\.0, 1\.0 of no users"),
    ],
)
def test_what_cannot_be_moments_is_refused_with_the_field_and_the_value(n: int, total: float, total_squares: float, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Moments(n, total, total_squares)


def test_a_mean_of_nobody_and_a_variance_of_one_are_refused() -> None:
    with pytest.raises(ValueError, match="mean of 0 users"):
        _ = Moments(0, 0.0, 0.0).mean
    with pytest.raises(ValueError, match="variance of 1 users"):
        _ = Moments(1, 2.0, 4.0).variance


@pytest.mark.parametrize(
    ("data", "named"), [({"n": 1, "sum": 2}, "unknown key 'sum'"), ([1, 2, 3], "expected an object"), ({}, "n: .*None")]
)
def test_a_malformed_dictionary_is_refused(data: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Moments.from_dict(data)
