"""Holm's procedure, and the users a plan needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.stats.multiplicity import holm
from flywheel.stats.power import users_for_mean, users_for_proportion

p_values = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1)


@pytest.mark.golden("holm")
def test_holm_is_that_of_statsmodels(case: dict[str, Any]) -> None:
    tests = holm({str(i): p for i, p in enumerate(case["pValues"])}, case["alpha"])
    assert [tests[str(i)].rejected for i in range(len(tests))] == case["rejected"]


@given(p_values)
def test_holm_lies_between_bonferroni_and_no_correction(ps: dict[str, float]) -> None:
    for name, (rejected, limit) in holm(ps, 0.025).items():
        assert rejected or ps[name] > 0.025 / len(ps)
        assert not rejected or ps[name] <= limit <= 0.025


@given(p_values)
def test_what_is_more_significant_is_rejected_first(ps: dict[str, float]) -> None:
    tests = holm(ps, 0.025)
    assert all(tests[a].rejected for a in ps for b in ps if tests[b].rejected and ps[a] < ps[b])


def test_one_metric_gets_the_whole_error_rate() -> None:
    assert holm({"breadth": 0.0249}, 0.025)["breadth"] == (True, 0.025)


@pytest.mark.golden("power")
def test_the_users_needed_are_those_of_statsmodels(case: dict[str, Any]) -> None:
    needed = case.pop("users")
    assert (users_for_proportion(**case) if "baseline" in case else users_for_mean(**case)) == needed


@given(st.floats(0.01, 0.5), st.floats(0.01, 0.9), st.floats(1.1, 3))
def test_a_larger_lift_needs_fewer_users(baseline: float, lift: float, factor: float) -> None:
    larger = min(lift * factor, 1 / baseline - 1)
    needed = users_for_proportion(baseline=baseline, lift=lift, alpha=0.025, power=0.8)
    assert users_for_proportion(baseline=baseline, lift=larger, alpha=0.025, power=0.8) <= needed
    assert users_for_mean(cv=1.0, lift=larger, alpha=0.025, power=0.8) <= users_for_mean(cv=1.0, lift=lift, alpha=0.025, power=0.8)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lift": 0.0}, r"lift: 0\.0 is too small"),
        ({"lift": 5.0}, r"baseline \* \(1 \+ lift\): .*got 1\.79"),
        ({"baseline": 0.0}, "baseline"),
        ({"alpha": 0.7}, "alpha"),
        ({"power": 1.0}, "power"),
        ({"lift": float("nan")}, "lift"),
    ],
)
def test_a_question_without_an_answer_is_refused(change: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        users_for_proportion(**({"baseline": 0.3, "lift": 0.1, "alpha": 0.025, "power": 0.8} | change))
