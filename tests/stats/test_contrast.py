"""Contrasts, and the intervals of difference and lift, at the window's end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flywheel.stats.contrast import Limit, contrast, difference_interval, lift, lift_interval, with_one_event
from flywheel.stats.fixed_horizon import is_non_inferior, normal_multiplier, p_value
from flywheel.stats.moments import Moments
from tests.stats.strategies import enough

Z = normal_multiplier(0.025)


@pytest.mark.golden("fixed_horizon")
def test_the_z_test_of_the_difference_is_that_of_statsmodels(case: dict[str, Any]) -> None:
    control, candidate = Moments(*case["control"]), Moments(*case["candidate"])
    assert p_value(contrast(control, candidate, 1)) == pytest.approx(case["p"], rel=1e-9)
    assert difference_interval(control, candidate, Z) == pytest.approx(tuple(case["interval"]), rel=1e-10, abs=1e-12)


@pytest.mark.golden("lifts")
def test_the_interval_of_the_lift_is_fiellers(case: dict[str, Any]) -> None:
    control, candidate = Moments(*case["control"]), Moments(*case["candidate"])
    assert lift(control, candidate) == pytest.approx(case["lift"], rel=1e-12)
    assert lift_interval(control, candidate, Z) == pytest.approx(tuple(case["fieller"]), rel=1e-9)


@pytest.mark.golden("lifts")
def test_the_interval_of_the_lift_is_near_the_delta_methods_of_gbstats(case: dict[str, Any]) -> None:
    interval = lift_interval(Moments(*case["control"]), Moments(*case["candidate"]), Z)
    width = case["delta"][1] - case["delta"][0]
    assert interval is not None
    assert interval == pytest.approx(tuple(case["delta"]), abs=0.12 * width)


@pytest.mark.golden("rare_events")
def test_the_difference_of_rare_events_is_agresti_and_caffos_of_statsmodels(case: dict[str, Any]) -> None:
    control, candidate = (with_one_event(Moments(n, k, k)) for n, k in (case["control"], case["candidate"]))
    lower, upper = case["interval"]
    slack = 2e-3 * (upper - lower)  # the variance's divisor is n - 1 here, n there
    assert difference_interval(control, candidate, Z) == pytest.approx((lower, upper), abs=slack)


@given(enough(), enough())
def test_swapping_the_slices_flips_the_sign(a: Moments, b: Moments) -> None:
    assert contrast(a, b, 1).estimate == pytest.approx(-contrast(b, a, 1).estimate, abs=1e-15)
    assert p_value(contrast(a, b, 1)) + p_value(contrast(b, a, 1)) == pytest.approx(1)
    lower, upper = difference_interval(a, b, Z)
    assert difference_interval(b, a, Z) == pytest.approx((-upper, -lower))


@given(enough(), enough())
def test_less_is_better_reads_the_same_numbers_the_other_way(a: Moments, b: Moments) -> None:
    assert p_value(contrast(a, b, 1)) + p_value(contrast(a, b, -1)) == pytest.approx(1)


@given(enough(), enough(), st.floats(1e-3, 1e6), st.floats(0, 0.5))
def test_the_unit_of_the_metric_does_not_matter(a: Moments, b: Moments, unit: float, margin: float) -> None:
    x, y = (Moments(m.n, m.total * unit, m.total_squares * unit * unit) for m in (a, b))
    limit = Limit(margin, 0.0)
    assert p_value(contrast(x, y, 1, limit)) == pytest.approx(p_value(contrast(a, b, 1, limit)), rel=1e-6, abs=1e-12)
    here, there = lift_interval(a, b, Z), lift_interval(x, y, Z)
    assert here == there if here is None or there is None else there == pytest.approx(here, rel=1e-6, abs=1e-9)


@given(enough(), enough(), st.integers(1, 500))
def test_more_good_outcomes_never_look_worse(control: Moments, candidate: Moments, more: int) -> None:
    assume(candidate.total + more < candidate.n)
    better = Moments(candidate.n, candidate.total + more, candidate.total + more)
    assert p_value(contrast(control, better, 1)) <= p_value(contrast(control, candidate, 1)) + 1e-12


@given(enough(), enough(), st.floats(0, 0.9), st.floats(0, 0.1))
def test_a_wider_margin_never_makes_non_inferiority_harder(control: Moments, candidate: Moments, margin: float, more: float) -> None:
    narrow, wide = contrast(control, candidate, 1, Limit(margin, 0.0)), contrast(control, candidate, 1, Limit(margin + more, 0.0))
    assert wide.estimate >= narrow.estimate - 1e-12


@given(enough(100), enough(100), st.floats(0, 0.9), st.sampled_from([1, -1]))
def test_the_test_and_the_interval_of_the_lift_agree(control: Moments, candidate: Moments, margin: float, good: Any) -> None:
    interval = lift_interval(control, candidate, Z)
    assume(interval is not None)
    assert interval is not None
    worst = interval.lower if good > 0 else -interval.upper
    assume(abs(worst + margin) > 1e-9)
    assert (p_value(contrast(control, candidate, good, Limit(margin, 0.0))) < 0.025) == (worst > -margin)


@given(enough(), enough())
def test_the_lift_lies_in_its_interval(a: Moments, b: Moments) -> None:
    interval, value = lift_interval(a, b, Z), lift(a, b)
    assert value is not None
    assert interval is None or interval.lower <= value + 1e-12 <= interval.upper + 2e-12


def test_a_control_that_may_be_zero_bounds_no_lift() -> None:
    assert lift_interval(Moments(400, 2, 2), Moments(400, 30, 30), Z) is None
    assert lift(Moments(400, 2, 2), Moments(400, 30, 30)) == 14


@pytest.mark.parametrize("control", [Moments(400, 0, 0), Moments(400, -20, 20)])
def test_a_control_mean_that_is_not_positive_has_no_lift_and_no_relative_margin(control: Moments) -> None:
    candidate = Moments(400, 30, 30)
    assert lift(control, candidate) is None
    assert lift_interval(control, candidate, Z) is None
    assert contrast(control, candidate, 1, Limit(0.5, 0.0)) == contrast(control, candidate, 1)


def test_constant_slices_are_certain() -> None:
    zeros, ones = Moments(100, 0, 0), Moments(100, 100, 100)
    assert [p_value(contrast(zeros, c, 1)) for c in (ones, zeros)] == [0.0, 0.5]
    assert p_value(contrast(ones, zeros, 1)) == 1.0


def test_no_errors_in_either_slice_is_no_worse_but_no_better() -> None:
    zeros = Moments(400, 0, 0)
    same = contrast(zeros, zeros, -1, Limit(0.05, 0.0))
    assert is_non_inferior(same, 0.025)
    assert p_value(same) == 0.5


def test_no_errors_among_few_users_do_not_show_an_absolute_margin() -> None:
    few, many = with_one_event(Moments(40, 0, 0)), with_one_event(Moments(400, 0, 0))
    limit = Limit(0.0, 0.02)
    assert not is_non_inferior(contrast(few, few, -1, limit), 0.025)
    assert is_non_inferior(contrast(many, many, -1, limit), 0.025)


def test_equal_constants_of_unequal_slices_differ_by_nothing_but_rounding() -> None:
    a, b = Moments(7, sum([0.1] * 7), sum([0.1 * 0.1] * 7)), Moments(430, sum([0.1] * 430), sum([0.1 * 0.1] * 430))
    assert p_value(contrast(a, b, 1)) == 0.5


def test_the_far_tail_keeps_its_digits() -> None:
    assert p_value(contrast(Moments(4000, 1000, 1000), Moments(4000, 2000, 2000), 1)) == pytest.approx(1.27e-124, rel=0.5)


@pytest.mark.parametrize("alpha", [0.0, 0.6, float("nan"), -1.0])
def test_an_error_rate_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        normal_multiplier(alpha)
